/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks: programs of the admin that run when something happens to a job.
 *
 *	key = [root|job] PROGRAM
 *
 * As root, or, unless it is said, as the job's user.  PROGRAM is an absolute path; neither it nor a
 * directory on the way to it may be writable by others than root.  It gets the event and the job's id
 * as arguments, a clean environment (below), no input, and a time limit (hook_timeout) after which its
 * process group is ended.  What it prints goes to the log.
 *
 *	CKPT_EVENT          pre_restore, post_restore, on_committed, on_missed, on_forecast
 *	CKPT_JOB            the job's full name, UID-NAME
 *	CKPT_CLASS, CKPT_NODE, CKPT_STORE
 *	CKPT_USER, CKPT_UID the job's
 *	CKPT_CHECKPOINT     that is restored, or was committed last; may be empty
 *	CKPT_CHECKPOINT_TIME  seconds since 1970; of that
 *	CKPT_OLD_NODE       *_restore: where that was taken
 *	CKPT_FINAL          on_committed: 1 if the job is saved and ended, else 0
 *	CKPT_CAUSE          on_committed, final: notice if the node is taken away, signal if the class's save_signal came
 *	CKPT_PID            post_restore, on_*: of the job's first process, as seen on the node
 *	CKPT_SAFETY, CKPT_FORECAST_MS, CKPT_BUDGET_MS   on_forecast: see policy.h
 *	CKPT_LEFT_MS        on_missed: until the end of the node
 *	PATH, HOME, USER, LOGNAME
 *
 * When pre_restore fails, the restore does, and nothing has changed: it can be tried again.  The
 * failure of another hook is logged.
 */
#ifndef CKPT_HOOK_H
#define CKPT_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "problem.h"

enum hook {
	HOOK_PRE_RESTORE,
	HOOK_POST_RESTORE,
	HOOK_ON_COMMITTED,
	HOOK_ON_MISSED,
	HOOK_ON_FORECAST,
	HOOK_COUNT,
};

#define HOOK_VARIABLES 24

struct hook_call {
	enum hook hook;
	char *command;                  /* the class's value */
	char *job;
	uid_t uid;                      /* the job's user */
	gid_t gid;
	gid_t *groups;
	size_t group_count;
	unsigned int timeout_ms;
	char *variables[HOOK_VARIABLES + 1]; /* NAME=VALUE */
	size_t variable_count;
};

const char *hook_name(enum hook hook);
/* "[root|job] PROGRAM" */
bool hook_valid(const char *command);
/* Whether it would be run. */
int hook_check(const char *command, struct problem *problem);

/* NULL: out of memory. */
struct hook_call *hook_call_new(enum hook hook, const char *command, const char *job);
void hook_call_set(struct hook_call *call, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void hook_call_free(struct hook_call *call);
/* Runs it to its end. */
int hook_run(const struct hook_call *call, struct problem *problem);

#endif
