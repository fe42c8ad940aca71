/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRIU's images of threads, core-TID.img: one record of which only this is read:
 *
 *   core_entry          2 thread_info_x86, 3 task_core_entry, 5 thread_core_entry
 *   thread_info_x86     1 clear_tid_addr, 2 user_x86_regs_entry (all of them numbers)
 *   task_core_entry     18 child_subreaper
 *   thread_core_entry   1 futex_rla, 8 pdeath_sig
 *
 * Not every way in which the kernel touches a program's memory can wait for a page that comes later: a thread's
 * end clears a word and walks the list of robust futexes, and some futex calls, begun again after a restore,
 * would fail.  All these addresses are in registers or set by system calls that CRIU saves.
 */
#ifndef CKPT_CORE_IMAGE_H
#define CKPT_CORE_IMAGE_H

#include <stdbool.h>
#include <sys/types.h>

#include "problem.h"
#include "region.h"

/* Adds the pages that threads of any process point to, sorted. */
int core_images_pointed(const char *directory, struct regions *regions, struct problem *problem);

/*
 * Of the thread of that number: it gets no signal when its parent ends.  At a restore the first process's parent is criu,
 * which then ends.
 */
int core_image_outlives_parent(const char *directory, pid_t thread, struct problem *problem);

/* Whether that process adopts orphans among its descendants. */
int core_image_adopts(const char *directory, pid_t process, bool *adopts, struct problem *problem);

#endif
