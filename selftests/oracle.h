/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A copy of a task's memory that is kept from nothing but what a tracker reports, each page read after the collect that
 * reported it. When the task stands still, the copy must be its memory.
 *
 * What exists is private, present or swapped, not a file's and not the zero page, small or huge: that none reports. CRIU
 * 3.17 takes the huge one for existing; what was there before is forgotten by forget_zero() in pageserver.c.
 */
#ifndef CKPT_ORACLE_H
#define CKPT_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"
#include "region.h"
#include "tracker.h"

struct oracle {
	pid_t pid;
	const char *cgroup;	/* that the task is in */
	bool frozen;
	struct regions regions;	/* of the last collect */
	bool full;
	uint32_t collects;
	uint64_t changed_pages;		/* that it reported, and that differ from what was held */
	uint64_t all_reported_pages;	/* by all collects */

	struct oracle_page *pages;	/* by address, open addressing */
	size_t page_space, page_count;
	char *content, *window;
};

void oracle_init(struct oracle *oracle, const char *cgroup, size_t max_pages);
/* Nothing is held; the next task is pid. */
void oracle_reset(struct oracle *oracle, pid_t pid);
void oracle_free(struct oracle *oracle);

/* -ETIMEDOUT: it does not freeze. */
int oracle_freeze(struct oracle *oracle, struct problem *problem);
int oracle_thaw(struct oracle *oracle, struct problem *problem);
/* 0 or -errno of tracker_collect(). The task is frozen meanwhile if the mechanism needs it. */
int oracle_collect(struct oracle *oracle, const struct tracker_mechanism *mechanism, struct tracker *tracker,
		   struct problem *problem);
/* The task stands still since before the last collect. False: what differs. */
bool oracle_compare(struct oracle *oracle, struct problem *difference);
/* Reported pages of [start,end) by the last collect. */
uint64_t oracle_reported(const struct oracle *oracle, uint64_t start, uint64_t end);

#endif
