/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way of sealed blocks into one object.  Threads put blocks next to each other into a window of
 * the object; what is full of it is written in large aligned chunks, with O_DIRECT where the file
 * system has it.
 *
 *   object   |==========|====::::|########|###..###|#.......|........|
 *             written    being    full     being    free
 *                        written           filled
 *                       |<------------- window ---------------->|
 *
 *   stream_claim()  the next bytes of the object, and where they are in memory; waits for room
 *   stream_fill()   they are there
 *
 * The window is all the memory there is: a slow store slows those who claim.  Blocks need no
 * alignment and there is nothing between them.  What is left when the object ends, less than a chunk,
 * is written through the page cache; so is a small object, without a thread or a ring.
 *
 * One thread with one io_uring writes: whatever the number of rings, writes to one file go through
 * that inode's lock (README, "ckptbench stream").  The window and the file are registered with it.
 * Where there is no io_uring, or the backend has no file, that thread writes by calls of the backend.
 *
 * The first failure stops the stream for good.
 */
#ifndef CKPT_STREAM_H
#define CKPT_STREAM_H

#include "block.h"
#include "limit.h"
#include "object.h"

struct stream;

/* The least that a window can have. */
#define STREAM_WINDOW_MIN (1u << 20)

/* limits: NULL for none; must outlive the stream. */
int stream_create(struct stream **stream, struct object_writer *writer, size_t window_bytes,
		  const struct limits *limits, struct problem *problem);
/* At most BLOCK_STORED_MAX bytes; NULL: the stream has failed. */
uint8_t *stream_claim(struct stream *stream, uint32_t bytes, uint64_t *offset);
/* Must follow each claim, soon. */
void stream_fill(struct stream *stream, uint64_t offset, uint32_t bytes);
/* Why the stream failed: -errno; 0: it did not. */
int stream_failure(struct stream *stream, struct problem *problem);
/* Waits until all that was filled is written. The writer's length is then that of the object. */
int stream_end(struct stream *stream, struct problem *problem);

struct stream_stats {
	uint64_t busy_us;      /* time in which at least one write was under way */
	uint32_t chunk_bytes;
	unsigned int chunks;   /* that may be under way at a time */
	bool direct;
};
/* After stream_end(). */
struct stream_stats stream_stats(const struct stream *stream);
/* Nothing may be claimed that is not filled. */
void stream_destroy(struct stream *stream);

#endif
