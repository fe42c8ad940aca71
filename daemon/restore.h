/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Restoring a job in steps.  restore_read() says what the checkpoint is of; restore_unpack() reads a
 * whole checkpoint from the store into CRIU's images on the local disk, authenticating every byte,
 * and touches nothing else: only after it may the job's term be taken.  restore_run() then lets CRIU
 * make the job.  The images are stock ones: `ckptctl export` ends with them.  With a plan the pages that
 * may come when the job runs are left out (lazy.h), and nothing is known of them yet.
 */
#ifndef CKPT_RESTORE_H
#define CKPT_RESTORE_H

#include <jansson.h>

#include "criu.h"
#include "files.h"
#include "lazy.h"
#include "manifest.h"
#include "problem.h"
#include "store.h"

struct restore_facts {
	json_t *meta;
	uint64_t stdout_bytes;
	uint64_t stderr_bytes;
	struct job_files files;
	uint64_t pages;
	uint64_t largest_pages; /* of one address space, or one shared memory: what processes share is counted in each */
};

/* Called with what has been done so far, for progress. */
typedef void (*restore_progress)(void *arg, uint64_t pages_done, uint64_t pages_all);

/* restore_free() the facts also after an error. */
int restore_read(const struct manifest *manifest, struct restore_facts *facts,
		 struct problem *problem);
/*
 * Before much is read: whether CRIU takes this CPU for one on which it can go on.  -ENOTSUP: it does not; -EBADMSG: damaged,
 * try an older one.
 */
int restore_check_cpu(struct store *store, struct manifest *manifest, const struct criu_job *criu,
		      struct problem *problem);
/* -EBADMSG: damaged, try an older one. */
int restore_unpack(struct store *store, struct manifest *manifest, const char *images,
		   struct lazy_plan *plan, restore_progress progress, void *arg,
		   struct problem *problem);
int restore_run(const struct criu_job *criu, const struct restore_facts *facts, int timeout_ms,
		struct problem *problem);
void restore_free(struct restore_facts *facts);

#endif
