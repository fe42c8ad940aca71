/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a job executes: the files of its executable mappings, its program and its libraries.  Of these CRIU saves only the
 * pages that were written; all others come from the file at a restore, where it compares sizes, and build ids if there are
 * any.  So what they hold is noted with each checkpoint, and compared before a restore: a job that was compiled again
 * meanwhile would go on with parts of both.
 */
#ifndef CKPT_PROGRAMS_H
#define CKPT_PROGRAMS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"

struct program {
	char *path;             /* as the job sees it */
	uint64_t size;          /* bytes */
	int64_t modified_ns;
	uint64_t low, high;     /* XXH3-128 of the content */
	dev_t device;
	ino_t inode;
	bool used;
};

struct programs {
	struct program *list;
	size_t count;
	size_t space;
};

/* What no task has used since the last call is forgotten. */
void programs_begin(struct programs *programs);
/* Adds those of one task. Only what is new or has changed is read; what its user cannot read is left out. */
int programs_add_task(struct programs *programs, pid_t pid, struct problem *problem);
/* Those in use. */
json_t *programs_to_json(const struct programs *programs);
/* list: of a checkpoint, NULL: it has none. Below root, a directory's descriptor, with the caller's file access. */
int programs_check(const json_t *list, int root, struct problem *problem);
void programs_free(struct programs *programs);

#endif
