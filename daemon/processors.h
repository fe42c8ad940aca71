/* SPDX-License-Identifier: GPL-2.0 */
/* How many threads are worth starting here. */
#ifndef CKPT_PROCESSORS_H
#define CKPT_PROCESSORS_H

#include <sched.h>

#define PROCESSORS_MAX 4096u

/* Processors that this thread may use: at least 1, at most max. */
static inline unsigned int processors(unsigned int max)
{
	cpu_set_t set;
	unsigned int count = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		count = CPU_COUNT(&set);
	return count < 1 ? 1 : count > max ? max : count;
}

#endif
