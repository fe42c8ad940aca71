/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CKPT_FAIL_H
#define CKPT_FAIL_H

#include <linux/ioctl.h>

/* On /dev/ckpt_fail. The nth allocation (from 1) that the calling thread makes from now on in the kernel fails. */
#define CKPT_FAIL_ARM _IO(0xCC, 0)	/* argument: n */
/* Returns how many allocations it has made since; if that is n or more, one has failed. */
#define CKPT_FAIL_DISARM _IO(0xCC, 1)

#endif
