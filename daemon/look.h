/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A look at how many pages were written since they were collected, that changes nothing: at the bits
 * of /proc/PID/pagemap, for all of the memory if there is little, else for a sample of it.  It is an
 * estimate, for the deadline policy only.
 */
#ifndef CKPT_LOOK_H
#define CKPT_LOOK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tasks.h"

/* Of all tasks, sampled in blocks. */
#define LOOK_BLOCK_BYTES (2u << 20)
#define LOOK_BLOCKS 4096u

/*
 * seed: which blocks; the same one as long as nothing was collected, so that two looks can be
 * compared.  -ENOTSUP: the mechanism shows nothing between collects.
 */
int look_written(const struct tasks *tasks, uint64_t seed, uint64_t *pages);

#endif
