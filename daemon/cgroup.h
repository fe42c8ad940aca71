/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A job's cgroup (v2): a child of the cgroup that its `ckptctl run` was called in, so that the
 * scheduler's limits and accounting still hold, and the handle by which the job is frozen.
 */
#ifndef CKPT_CGROUP_H
#define CKPT_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "problem.h"

/* Absolute path of the cgroup that the process is in. */
int cgroup_of(pid_t pid, char *path, size_t bytes, struct problem *problem);
/* Makes parent/name; one that is there and empty is taken over. */
int cgroup_create(const char *parent, const char *name, char *path, size_t bytes,
		  struct problem *problem);
void cgroup_remove(const char *path);

#define FREEZE_TIMEOUT_MS 20000
/* Returns when every task stands still; -ETIMEDOUT (and thawed again) if one cannot. */
int cgroup_freeze(const char *path, int timeout_ms, struct problem *problem);
int cgroup_thaw(const char *path, struct problem *problem);
/* Whether that is what was last asked of it. */
bool cgroup_is_frozen(const char *path);
/* The tasks' pids as seen here; *pids is freed with free(). */
int cgroup_pids(const char *path, pid_t **pids, size_t *count, struct problem *problem);

#endif
