/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a job has in the store, at a glance: from the names, lengths and times of its objects and from
 * its newest term.  Nothing else is read, so it is quick, and says nothing of damage: see verify.h.
 */
#ifndef CKPT_OVERVIEW_H
#define CKPT_OVERVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "problem.h"
#include "store.h"

enum overview_state {
	OVERVIEW_RUNNING,        /* a node holds the lease of it */
	OVERVIEW_SAVED,          /* by a final checkpoint, and not run again yet */
	OVERVIEW_LOST,           /* its node went without one: it goes on from the last there is */
	OVERVIEW_ENDED,          /* the program has ended; what is here is kept for a while */
	OVERVIEW_EMPTY,          /* no checkpoint was committed yet, and nobody runs it */
};

struct overview_checkpoint {
	char name[64];
	int64_t written_s;       /* since 1970, by the server's clock */
};

struct overview {
	enum overview_state state;
	char node[64];           /* of the newest term; "": it is damaged, or of no node */
	int64_t idle_s;          /* nothing was written for so long */
	int64_t kept_s;          /* ended: is kept for so long after that; else 0 */
	uint64_t bytes;
	unsigned int objects;
	struct overview_checkpoint *checkpoints; /* that can be restored, newest first */
	size_t checkpoint_count;
};

/* overview_free() it also after an error. -ENOENT, -ENODATA: there is nothing any more. */
int overview_read(struct store *store, struct overview *overview, struct problem *problem);
void overview_free(struct overview *overview);
const char *overview_state_name(enum overview_state state);

#endif
