/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A lazy restore as ckptd sees it: it lists the pages that may come later, starts ckpt-pages, which gives
 * them (lazy_spec.h), and looks how it goes on.  ckpt-pages outlives ckptd; a later one takes it up.
 */
#ifndef CKPT_LAZY_H
#define CKPT_LAZY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "key.h"
#include "lazy_table.h"
#include "pagemap.h"
#include "problem.h"

/* By process: the mappings whose pages come later. */
struct lazy_plan {
	struct lazy_areas *areas;
	size_t count;
};

/* The one of the process, made empty; NULL: no memory. Valid until the next. */
struct lazy_areas *lazy_plan_add(struct lazy_plan *plan, uint64_t id);
void lazy_plan_free(struct lazy_plan *plan);

/* Whether this kernel can; the problem says why not. */
int lazy_probe(struct problem *problem);

struct lazy;

struct lazy_options {
	const struct lazy_plan *plan;
	struct pagemap *map;
	const char *job;
	const char *store;              /* directory */
	uid_t store_uid;
	gid_t store_gid;
	const struct keys *keys;
	uint64_t buffer_bytes;
	const char *images;             /* CRIU's working directory */
	const char *directory;          /* the job's */
	const char *cgroup;
	const char *parent_cgroup;
	int init_pidfd;
	int watch_fd;                   /* of the socket pair with ckpt-init; closed */
};

/* Returns when ckpt-pages waits for criu. */
int lazy_start(struct lazy **lazy, const struct lazy_options *options, struct problem *problem);
/* -ENOENT: nothing is missing. */
int lazy_adopt(struct lazy **lazy, const char *directory);
void lazy_free(struct lazy *lazy);

enum lazy_state {
	LAZY_GIVING,
	LAZY_GIVEN,                     /* all has come */
	LAZY_ENDED,                     /* the job has ended before */
	LAZY_FAILED,                    /* the job was killed; the problem says why */
};
enum lazy_state lazy_look(struct lazy *lazy, struct problem *problem);
/* The same when the job has ended, which ckpt-pages sees as well. */
enum lazy_state lazy_last_look(struct lazy *lazy, struct problem *problem);
/* Becomes readable when ckpt-pages ends; -1: it has to be looked after. */
int lazy_fd(const struct lazy *lazy);
/* NULL: an earlier ckptd has it. */
const struct lazy_table *lazy_table(const struct lazy *lazy);

#endif
