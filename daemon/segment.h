/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A segment as this process knows it: counted by the blocks and files that lie in it.  The store
 * lists the segments that are known, so that cleaning spares them.
 */
#ifndef CKPT_SEGMENT_H
#define CKPT_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

struct store;

enum segment_state {
	SEGMENT_PENDING,   /* being written: no manifest may refer to it */
	SEGMENT_COMMITTED, /* durable */
	SEGMENT_FAILED,
};

struct segment {
	struct store *store; /* NULL: the store was closed */
	struct segment *next;
	uint64_t term;
	uint64_t number;
	unsigned int references;
	enum segment_state state;
	/* See thin.h; under the page map's lock. */
	uint64_t bytes;          /* of the whole object, or of what is known of it */
	bool measured;           /* it is the whole object */
	uint64_t live_bytes;
	bool counted;
	bool thin;
	bool pinned;             /* a kept checkpoint refers to it, as far as is known */
};

/* With one reference. NULL when memory is out. */
struct segment *segment_create(struct store *store, uint64_t term, uint64_t number,
			       enum segment_state state);
struct segment *segment_get(struct segment *segment);
void segment_put(struct segment *segment);
/* By term, then number. */
int segment_compare(const struct segment *a, const struct segment *b);

#endif
