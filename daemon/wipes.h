/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that a child gets empty (MADV_WIPEONFORK), by which programs see that they were forked: CRIU before 4.2 does not
 * save that it is so.  Most of it is libc's state of random numbers (getrandom() without a system call, kernel 6.11, glibc
 * 2.41): restored as ordinary memory it would give parent and child the same numbers.  That memory the kernel may also
 * empty at any time (MAP_DROPPABLE), so its content is left out, and nobody gets numbers of before the checkpoint again.
 */
#ifndef CKPT_WIPES_H
#define CKPT_WIPES_H

#include "criu.h"
#include "pagemap.h"
#include "problem.h"
#include "tasks.h"

/* In CRIU's images in a directory, and in the map of what was saved. The tasks stand still. */
int wipes_mend(const char *directory, const struct criu_version *version, const struct tasks *tasks, struct pagemap *map,
	       struct problem *problem);

#endif
