/* SPDX-License-Identifier: GPL-2.0 */
/* What a class allows a stream to use while the job runs. None of it counts in a final flush. */
#ifndef CKPT_LIMIT_H
#define CKPT_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct limits {
	uint64_t io_bytes_per_s; /* 0: no limit */
	unsigned int threads;    /* 0: no limit */
	bool lifted;             /* set by another thread, at any time: there is no limit any more */
};

static inline void limits_lift(struct limits *limits)
{
	__atomic_store_n(&limits->lifted, true, __ATOMIC_RELAXED);
}

/* limits may be NULL. */
static inline bool limits_hold(const struct limits *limits)
{
	return limits && !__atomic_load_n(&limits->lifted, __ATOMIC_RELAXED);
}

#endif
