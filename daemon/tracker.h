/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A tracker tells which pages of one task changed since it was last asked.  The mechanisms stand
 * behind one interface; which one runs is decided once per job (tracker_choose) and shown.
 */
#ifndef CKPT_TRACKER_H
#define CKPT_TRACKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"
#include "region.h"

struct tracker;

/* What /proc/PID/pagemap shows of pages that were written and not collected; see look.h. */
enum tracker_look {
	TRACKER_LOOK_NONE,
	TRACKER_LOOK_SOFT_DIRTY,
	TRACKER_LOOK_UNPROTECTED, /* not write-protected by userfaultfd */
};

/* One way to track. tracker_mechanisms[] lists all, the best first, and ends with NULL. */
struct tracker_mechanism {
	const char *name;        /* as in the class's "mechanism =" and in status */
	const char *describe;    /* one line for doctor */
	/* 0: it works on this node; else -errno and why not, and what to do. */
	int (*probe)(struct problem *problem);
	int (*open)(struct tracker *tracker, struct problem *problem);
	/* Appends to regions; sets the tracker's generation. */
	int (*collect)(struct tracker *tracker, struct regions *regions, struct problem *problem);
	/* NULL: collect does it, for each page in one step. */
	int (*rearm)(struct tracker *tracker, struct problem *problem);
	void (*close)(struct tracker *tracker);
	bool collects_while_running;
	enum tracker_look look;
	bool tells_exec;         /* tracker_event_fd() works */
	bool leaves_soft_dirty;  /* the bits that CRIU looks at tell nothing of what was collected */
};

extern const struct tracker_mechanism *const tracker_mechanisms[];

/*
 * wanted: "auto" or a list of names in order, separated by blanks or commas. The first that works, or NULL. problem
 * says why those before it do not work; it is empty if it was the first.
 */
const struct tracker_mechanism *tracker_choose(const char *wanted, struct problem *problem);

/* pidfd is duplicated. -ESRCH: the task is gone. */
int tracker_open(struct tracker **tracker, const struct tracker_mechanism *mechanism, int pidfd,
		 pid_t pid, struct problem *problem);
/*
 * Gives the regions that were written since the last call, sorted, with CKPT_PAGE_* categories;
 * what it reports it has already re-armed: read the pages after this returns.  *full is set when
 * continuity was lost (first call, exec, a new generation): then every present page is reported and
 * pages that are not reported do not exist any more.
 *
 * With a mechanism that re-arms in a step of its own, present gets every page that was there before
 * (else it stays empty).  What the task has dropped khugepaged may fill between the two steps, and that
 * is then taken for reported: what is held of pages that are not in the list is not their content.
 *
 * A mechanism that does not collect while the job runs needs all tasks of the job to stand still,
 * from before the first tracker_collect() until after the last tracker_rearm(); all are collected
 * before the first is re-armed, since tasks may share their memory (vfork) and what tells that it
 * was written.  The pages can be read when they run again.
 *
 * -ESRCH: the address space is gone.  On any error nothing may be taken as unchanged: the next call
 * reports everything.
 */
int tracker_collect(struct tracker *tracker, struct regions *regions, struct regions *present, bool *full,
		    struct problem *problem);
/* Does nothing with the other mechanisms. After an error the next collect is full. */
int tracker_rearm(struct tracker *tracker, struct problem *problem);
/*
 * To poll: POLLIN when the task executes another program, also POLLHUP when it has ended.  It stays
 * so until the next collect, and is then another descriptor.  -1: the mechanism cannot tell.
 */
int tracker_event_fd(const struct tracker *tracker);
void tracker_close(struct tracker *tracker);

#endif
