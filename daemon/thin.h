/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Thin segments: those with little that the page map still refers to.  Their pages are streamed again
 * from the job's memory, and are then in a new segment, so that the old one can go once no kept
 * checkpoint needs it either.  Nothing is read from the store for that.
 *
 *   segment 7   |##.....#......|   2 of 14 pages: thin
 *   segment 8   |##############|
 *   segment 9   |#####.########|
 *
 * A segment that a kept checkpoint refers to is pinned: what is streamed again of it is there twice
 * until that checkpoint goes.  So those that no checkpoint knows yet are kept dense all the time, and
 * all others only right before a checkpoint, which then refers to none that is thin.  The thinnest are
 * taken first.  What a job uses stays below 1.5 times its live data, and one epoch
 * (selftests/unit/space_test.c).
 */
#ifndef CKPT_THIN_H
#define CKPT_THIN_H

#include "pagemap.h"

enum thin_time { THIN_BETWEEN_CHECKPOINTS, THIN_BEFORE_CHECKPOINT };
/* Marks segments anew.  From then on a page that lies in a marked one is not the same as before. */
int thin_mark(struct pagemap *map, enum thin_time when);
void thin_unmark(struct pagemap *map);
/* Appends the pages of the space that lie in marked segments, sorted. 0 or -ENOMEM. */
int thin_regions(const struct space *space, struct regions *regions);

#endif
