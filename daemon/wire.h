/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Messages between ckptd and its tools: a stream socket carries frames of a little-endian u32
 * length and that many bytes of JSON (one object); file descriptors go with a frame's first byte.
 *
 * Requests ("op"):
 *   run         class, job?, arguments, environment, cwd, merged, stdout, stderr, resume?
 *               descriptor: stdin, if it is a regular file. The connection stays open: events follow
 *   signal      number; on the connection of a run
 *   status      -> {"jobs": [...], ...}
 *   checkpoint  job -> {"checkpoint": stats} or {"error": text}; root or the job's user
 *   drain       seconds; root only: acts as an interruption notice
 *   config      class? -> {"section", "keys": [...]}; see config.h
 *   reload      root only: reads the configuration again -> {"waits_for_restart": keys}
 * Events of a run ("event"):
 *   note        text: to be shown to the user
 *   progress    done, all (bytes), ms: how far a restore is; some are left out
 *   running     restored, stdout, stderr (bytes to skip), stdout_base, stderr_base, cut;
 *               descriptors: the files that stdout and stderr are to be read from
 *   ended       exited or killed, text?
 *   interrupted text: a final checkpoint is committed, stdout, stderr: bytes to deliver
 *   failed      text, status: the job was not started or is gone
 */
#ifndef CKPT_WIRE_H
#define CKPT_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#define WIRE_SOCKET "/run/ckpt/control"
#define WIRE_MAX_BYTES (8u << 20)
/* Of a message: more arguments and variables than the kernel takes. Each needs memory, however short it is. */
#define WIRE_MAX_VALUES (1u << 18)
#define WIRE_MAX_FDS 4

/* Frames as they come in; zero it to start. */
struct wire_input {
	uint8_t *bytes;
	size_t used;
	size_t space;
	int fds[WIRE_MAX_FDS];
	size_t fd_count;
	size_t cost;            /* about the memory that the last message takes, in bytes */
};

/* Sends a whole frame. -EAGAIN: the peer does not read and flags had MSG_DONTWAIT. */
int wire_send(int socket, const json_t *message, const int *fds, size_t fd_count, int flags);
/* Receives what is there of one message; what follows it stays where it is. 0; -EPIPE: the peer has closed; -EAGAIN: nothing there. */
int wire_receive(int socket, struct wire_input *input, int flags);
/* Takes the next whole message; NULL: not there yet; *err: it is none. */
json_t *wire_next(struct wire_input *input, int *err);
/* Takes the descriptors received so far; the caller closes them. */
size_t wire_take_fds(struct wire_input *input, int fds[WIRE_MAX_FDS]);
void wire_input_free(struct wire_input *input);

int wire_connect(const char *path);

/*
 * JSON strings are UTF-8, arguments and variables any bytes: each byte stands as the code point of
 * its value.
 */
json_t *wire_from_bytes(const char *bytes);
json_t *wire_from_vector(char *const *vector);
/* The reverse; NULL when it is none. Freed by the caller. */
char *wire_to_bytes(const json_t *string);
char **wire_to_vector(const json_t *array);

#endif
