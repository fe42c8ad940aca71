/* SPDX-License-Identifier: GPL-2.0 */
/* The processes of a job, each with its tracker and its space in the page map. */
#ifndef CKPT_TASKS_H
#define CKPT_TASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "numbers.h"
#include "pagemap.h"
#include "problem.h"
#include "tracker.h"

struct task {
	pid_t pid;              /* here */
	pid_t inner_pid;        /* in the job's PID namespace: the id of its space */
	uint64_t start_time;    /* ticks since boot */
	int pidfd;
	struct tracker *tracker; /* NULL: not now, and its pages are all read at a checkpoint */
	bool told_untracked;
	bool present;
	bool event_seen;        /* its tracker's event was taken; the next collect looks at it */
};

struct tasks {
	struct task *list;
	size_t count;
	size_t space;
	const struct tracker_mechanism *mechanism;
};

/*
 * Finds who came and went.  A task that is new gets a tracker and an empty space: its number may
 * have been another's, whose pages must not be taken for its own.
 */
int tasks_update(struct tasks *tasks, const char *cgroup, struct pagemap *map,
		 struct problem *problem);
struct task *tasks_find_inner(struct tasks *tasks, pid_t inner_pid);
/* Continuity is lost: the next collect of each task is full. */
void tasks_restart_tracking(struct tasks *tasks);
/* All tasks were collected and stand still: CRIU need not send what was collected. */
void tasks_clear_soft_dirty(const struct tasks *tasks);
/* The same right after a restore: the map's spaces belong to the tasks with their numbers. */
int tasks_adopt(struct tasks *tasks, const char *cgroup, struct problem *problem);
/* The inodes of files that they have mapped shared and for writing, sorted. -ENOMEM. */
int tasks_mapped_files(const struct tasks *tasks, struct numbers *inodes);
void tasks_free(struct tasks *tasks);

#endif
