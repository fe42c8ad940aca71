/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stream of one job's pages: tracker → reader → packer → store, in passes.
 *
 *   collect   which pages were written; they are re-armed before the call returns
 *   read      process_vm_readv, after the collect: a page that changes meanwhile is dirty again
 *   pack      zero? same? compress, seal, write
 *
 * The reader collects, task after task; the packer's threads read and pack meanwhile.
 *
 * If a pass fails, continuity is lost: the next collect of every task is full, and content hashes
 * keep what did not change off the network.
 */
#ifndef CKPT_READER_H
#define CKPT_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "packer.h"
#include "pagemap.h"
#include "problem.h"
#include "store.h"
#include "tasks.h"

struct reader {
	struct store *store;
	struct term term;
	struct pagemap *map;
	struct tasks tasks;
	char cgroup[4096];
	/* Asked between windows of a long pass; true: stop, the job is gone. */
	bool (*stopped)(void *arg);
	void *stopped_arg;
	const struct limits *limits; /* while the job runs; NULL: none */
	/* Whether epochs stream again what lies in thin segments (thin.h). */
	enum { READER_KEEPS, READER_CLEANS, READER_CLEANS_FOR_CHECKPOINT } cleans;
};

struct pass_stats {
	struct packer_stats packed;
	uint64_t pages_dirty;   /* reported by the trackers */
	uint64_t pages_thin;    /* read besides, because of where they lie */
	unsigned int full;      /* tasks whose collect was full */
	unsigned int tasks;
	int64_t ms;
	int64_t full_speed_ms;  /* about what an epoch would have taken without limits */
};

int reader_init(struct reader *reader, struct problem *problem);
void reader_free(struct reader *reader);

/* Collects all tasks and packs what they wrote. -ECANCELED: stopped. */
int reader_pass(struct reader *reader, struct packer *packer, struct pass_stats *stats,
		struct problem *problem);
/* One epoch: a pass with segments of its own, durable when it returns 0. */
int reader_epoch(struct reader *reader, struct pass_stats *stats, struct problem *problem);
int64_t clock_ms(void); /* CLOCK_BOOTTIME */

#endif
