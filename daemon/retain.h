/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Retention: looks through the stores of all classes now and then, and removes the checkpoints of jobs
 * that have ended or were given up, when their time has come.  Every node does it; a job's directory
 * is only ever touched with the rights of its owner.
 */
#ifndef CKPT_RETAIN_H
#define CKPT_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "key.h"
#include "problem.h"

struct retain;

/* The configuration is only read during the call. */
int retain_start(struct retain **retain, const struct config *config, const struct keys *keys,
		 const char *node, struct problem *problem);
/* After a reload. */
int retain_renew(struct retain *retain, const struct config *config);
void retain_stop(struct retain *retain);

/* One look through the stores of the classes; for tests. */
struct retain_pass {
	struct class *const *classes;
	size_t class_count;
	const struct keys *keys;
	const char *node;
	const bool *stop;               /* atomic; may be NULL */
	unsigned int removed;           /* jobs */
	unsigned int kept;
};
void retain_run(struct retain_pass *pass);
/* How long nothing may have been written by the job in directory for it to go; 0: it stays. */
struct store;
int retain_time_to_keep(const struct retain_pass *pass, const char *directory, struct store *store,
			uint64_t *keep_ms, struct problem *problem);

#endif
