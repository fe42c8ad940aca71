/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stream of one job's pages: tracker → reader → packer → store, in passes.
 *
 *   collect   which pages were written; they are re-armed before the job runs on
 *   read      process_vm_readv, after the collect: a page that changes meanwhile is dirty again
 *   pack      zero? same? compress, seal, write
 *
 * The reader collects; the packer's threads read and pack meanwhile.  Captured files (capture.h) follow the
 * tasks in each pass.
 *
 * If a pass fails, continuity is lost: the next collect of every task is full, and content hashes
 * keep what did not change off the network.
 */
#ifndef CKPT_READER_H
#define CKPT_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "capture.h"
#include "clock.h"
#include "packer.h"
#include "pagemap.h"
#include "problem.h"
#include "programs.h"
#include "store.h"
#include "tasks.h"

/* Whether epochs stream again what lies in thin segments (thin.h). */
enum reader_cleans {
	READER_KEEPS,
	READER_CLEANS,
	READER_CLEANS_FOR_CHECKPOINT,
};

struct reader {
	struct store *store;
	struct term term;
	struct pagemap *map;
	struct tasks tasks;
	struct programs programs; /* that they execute */
	char cgroup[4096];
	/* Asked between windows of a long pass; true: stop, the job is gone. */
	bool (*stopped)(void *arg);
	void *stopped_arg;
	/* Of the pass at work. What the packer has been handed is soon done: its buffers are bounded. */
	uint64_t pages_done;    /* handed to it */
	uint64_t pages_left;    /* collected, or thin, and not handed to it yet */
	struct capture *capture; /* of the job's files; NULL: none */
	const struct limits *limits; /* while the job runs; NULL: none */
	enum reader_cleans cleans;
};

struct pass_stats {
	struct packer_stats packed;
	struct capture_stats captured;
	uint64_t pages_dirty;   /* reported by the trackers, and read of captured files */
	unsigned int full;      /* tasks whose collect was full */
	unsigned int tasks;
	int64_t ms;
	int64_t full_speed_ms;  /* about what an epoch would have taken without limits */
	int64_t frozen_ms;      /* for which the pass itself stopped the job: see pass_when */
};

/*
 * A mechanism that cannot collect while the job runs has it frozen for that, or is used when it is
 * frozen already.
 */
enum pass_when {
	PASS_RUNNING,
	PASS_FROZEN,
};

int reader_init(struct reader *reader, struct problem *problem);
void reader_free(struct reader *reader);

/* Collects all tasks and packs what they wrote. -ECANCELED: stopped. */
int reader_pass(struct reader *reader, struct packer *packer, enum pass_when when,
		struct pass_stats *stats, struct problem *problem);
/* What was collected last is not durable: the next pass collects and reads everything. */
void reader_restart(struct reader *reader);
/* Looks at what the tasks execute, and reads what of it was not known. */
int reader_look_at_programs(struct reader *reader, struct problem *problem);
/* One epoch: a pass with segments of its own, durable when it returns 0. */
int reader_epoch(struct reader *reader, struct pass_stats *stats, struct problem *problem);

#endif
