/* SPDX-License-Identifier: GPL-2.0 */
/* What a tracker is to its mechanism. Only tracker*.c include this. */
#ifndef CKPT_TRACKER_MECHANISM_H
#define CKPT_TRACKER_MECHANISM_H

#include "tracker.h"

struct tracker {
	const struct tracker_mechanism *mechanism;
	int pidfd;
	pid_t pid;
	int fd;			/* the mechanism's; -1: the next collect opens it anew, and reports everything */
	int maps;		/* of the address space that is tracked; -1 where the mechanism does not need it */
	int pagemap;		/* the same */
	int userfaultfd;
	uint64_t generation;	/* set by each collect: differs from the last one if everything was reported */
	uint64_t last_generation;
};

/* For several mechanisms: /dev/ckpt, in tracker_softdirty.c. */
int module_probe(uint32_t mechanism, const char *why_not, struct problem *problem);
int module_track(struct tracker *tracker, struct problem *problem);

extern const struct tracker_mechanism tracker_softdirty;
extern const struct tracker_mechanism tracker_uffd;
extern const struct tracker_mechanism tracker_procfs;
extern const struct tracker_mechanism tracker_hash;

#endif
