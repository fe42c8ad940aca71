/* SPDX-License-Identifier: GPL-2.0 */
/* What a tracker is to its mechanism. Only tracker*.c, and tests with a mechanism of their own, include this. */
#ifndef CKPT_TRACKER_MECHANISM_H
#define CKPT_TRACKER_MECHANISM_H

#include "tracker.h"

/* Of the mechanism procfs, see there: a page of each page table, sorted by address. */
struct sample {
	uint64_t address;
	uint64_t entry;		/* its entry in the page map */
};

struct samples {
	struct sample *list;
	size_t count;
	size_t space;
};

struct tracker {
	const struct tracker_mechanism *mechanism;
	int pidfd;
	pid_t pid;
	int fd;			/* the mechanism's; -1: the next collect opens it anew, and reports everything */
	int maps;		/* of the address space that is tracked; -1 where the mechanism does not need it */
	int pagemap;		/* the same */
	int userfaultfd;
	struct regions referenced; /* reported last time, and written without a fault: dirty again */
	struct samples samples;
	uint64_t collects;
	uint64_t generation;	/* set by each collect: differs from the last one if everything was reported */
	uint64_t last_generation;
};

/* For several mechanisms: /dev/ckpt, in tracker_softdirty.c. */
int module_probe(uint32_t mechanism, const char *why_not, struct problem *problem);
int module_track(struct tracker *tracker, struct problem *problem);

/* Every page that is there and is the task's own, from its page map. 0 or -errno. */
int tracker_scan_present(const struct tracker *tracker, struct regions *regions);

extern const struct tracker_mechanism tracker_softdirty;
extern const struct tracker_mechanism tracker_uffd;
extern const struct tracker_mechanism tracker_procfs;
extern const struct tracker_mechanism tracker_hash;

#endif
