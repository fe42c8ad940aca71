/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether a process's events say what happened.
 *
 * The kernel tells a change after it has made it, and lets the thread that made it go on when its event
 * has been read.  What two threads do at once may be told in another order: one has moved A away and is
 * about to tell, the other has got A's place for something else and tells first.  Between two moments
 * at which no event is under way (the kernel says so) the events are one group; the order matters only
 * within a group.  With one thread there is nothing to mix up.
 *
 *   fork    with any other change: the child has what was there before it, or after it?
 *   move    with a move from or to the same place; or onto pages that should not be there
 *   drop    of a place that something was moved to in the same group
 *
 * All else gives the same in any order.
 */
#ifndef CKPT_LAZY_ORDER_H
#define CKPT_LAZY_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lazy_change_kind {
	LAZY_FORK,
	LAZY_MOVE,
	LAZY_DROP,
};

struct lazy_change {
	enum lazy_change_kind kind;
	uint64_t from, from_end;        /* of a drop: what is dropped */
	uint64_t to, to_end;            /* of a move */
};

#define LAZY_GROUP_MAX 32

struct lazy_order {
	struct lazy_change group[LAZY_GROUP_MAX];
	size_t count;
};

/* Adds it to the group; false: only if the process has one thread is it clear what happened. */
bool lazy_order_add(struct lazy_order *order, const struct lazy_change *change);
/* No event is under way. */
static inline void lazy_order_settle(struct lazy_order *order)
{
	order->count = 0;
}

#endif
