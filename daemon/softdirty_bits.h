/* SPDX-License-Identifier: GPL-2.0 */
/* Whether the soft-dirty bits of /proc/PID/pagemap tell the truth on this kernel: tried out with pages of our own. */
#ifndef CKPT_SOFTDIRTY_BITS_H
#define CKPT_SOFTDIRTY_BITS_H

#include <sys/types.h>

#include "problem.h"

/* Makes all pages of the process count as not written. 0 or -errno; -ESRCH if it has ended. */
int softdirty_bits_clear(pid_t pid);
/* 0: they do. -EOPNOTSUPP: there are none, or the kernel may forget some; -errno else. */
int softdirty_bits_probe(struct problem *problem);

#endif
