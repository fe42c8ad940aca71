/* SPDX-License-Identifier: GPL-2.0 */
/* What /proc/PID/smaps says of each mapping. */
#ifndef CKPT_SMAPS_H
#define CKPT_SMAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct smap {
	uint64_t start;
	uint64_t end;
	uint64_t present_kib;           /* in memory or in swap */
	bool watched;                   /* "um": absent pages are a userfaultfd's to give */
	bool wiped;                     /* "wf": a child gets it empty */
	bool droppable;                 /* "dp": the kernel may empty it */
};

/* Stops at the first non-zero and returns it; -ESRCH: the process is gone. */
int smaps_each(pid_t pid, int (*each)(void *arg, const struct smap *map), void *arg);

#endif
