/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way of blocks into one object: the owner fills buffers, threads pack and seal them, one thread
 * writes them with io_uring.
 *
 *   stream_buffer() ─> owner fills ─> stream_send() ─> workers: pack, seal ─> writer: io_uring
 *        ^ waits when there is none                                             │
 *        └────────────────────────── free buffers <─────────────────────────────┘
 *
 * The buffers are all that there is: a slow store slows the owner.  The first failure stops the
 * stream for good.
 */
#ifndef CKPT_STREAM_H
#define CKPT_STREAM_H

#include "block.h"
#include "object.h"

struct stream;

struct stream_buffer {
	struct stream_buffer *next;
	struct block_header header; /* the owner sets kind, content_length, pages */
	uint8_t *plain;             /* BLOCK_PLAIN_BYTES; see block_pack() */
	/* the stream's own */
	uint8_t *sealed;
	uint32_t number;
	uint32_t stored;
	uint32_t written;
	uint32_t used; /* bytes of plain, at most, ever */
	uint64_t offset;
};

struct placement {
	uint64_t offset;
	uint32_t stored;
};

int stream_create(struct stream **stream, struct object_writer *writer, struct problem *problem);
/* An empty buffer. NULL: the stream has failed. */
struct stream_buffer *stream_buffer(struct stream *stream);
/* Takes the buffer; *number is that of the block in this stream, from 0 up. */
int stream_send(struct stream *stream, struct stream_buffer *buffer, uint32_t *number);
/* Gives a buffer back unused. */
void stream_return(struct stream *stream, struct stream_buffer *buffer);
/* Why the stream failed: -errno; 0: it did not. */
int stream_failure(struct stream *stream, struct problem *problem);
/* Waits until all is written. The writer's length is then that of the object. */
int stream_end(struct stream *stream, struct problem *problem);
/* Where a block is; after stream_end(). */
const struct placement *stream_placement(const struct stream *stream, uint32_t number);
void stream_destroy(struct stream *stream);

#endif
