/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads everything that a job has in the store, as a restore would and more: every object from its
 * header to its end, every block opened and hashed, every reference of every checkpoint followed.
 *
 *   manifest-…-2 ─┬─> seg-…-1: |header|block|block|block|    each byte of a file is in its header or
 *   manifest-…-1 ─┘            ^ walked from front to end     in a block, and both are authenticated
 *
 * After a damaged block, whose length is not known, the walk goes on with the next block that a
 * checkpoint refers to.  What is cleaned away meanwhile is not missed.
 */
#ifndef CKPT_VERIFY_H
#define CKPT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "problem.h"
#include "store.h"

struct verify_damage {
	char name[64];
	uint64_t offset;         /* where what is damaged begins */
	char text[400];
};

struct verify_checkpoint {
	char name[64];
	bool whole;
	bool restorable;         /* it is in the chain of the newest term (store.h) */
	bool final;
	uint64_t pages;
	char *meta;              /* NULL: the manifest is damaged */
	char text[400];          /* why it is not whole */
};

struct verify_key {
	char id[17];
	unsigned int objects;    /* sealed with it */
};

struct verify_report {
	unsigned int objects;
	uint64_t bytes;
	struct verify_damage *damages;
	size_t damage_count;
	struct verify_checkpoint *checkpoints; /* newest first: term, then number */
	size_t checkpoint_count;
	struct verify_key keys[KEYS_MAX];
	unsigned int key_count;
};

typedef void (*verify_progress)(void *arg, uint64_t bytes_done, uint64_t bytes_all);

/*
 * 0: all was looked at, and the report says what is damaged.  progress may come from any thread, one at
 * a time.  -ENOKEY: something is sealed with a key that this node lacks.
 */
int verify_job(struct store *store, struct verify_report *report, verify_progress progress,
	       void *arg, struct problem *problem);
void verify_report_free(struct verify_report *report);

#endif
