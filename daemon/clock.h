/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CKPT_CLOCK_H
#define CKPT_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_BOOTTIME: does not jump, and runs on while the machine sleeps. */
static inline int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
