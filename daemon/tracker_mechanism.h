/* SPDX-License-Identifier: GPL-2.0 */
/* What a tracker is to its mechanism. Only tracker*.c, and tests with a mechanism of their own, include this. */
#ifndef CKPT_TRACKER_MECHANISM_H
#define CKPT_TRACKER_MECHANISM_H

#include "tracker.h"

struct tracker {
	const struct tracker_mechanism *mechanism;
	int pidfd;
	pid_t pid;
	int fd;			/* the mechanism's; -1: the next collect opens it anew, and reports everything */
	uint64_t generation;	/* set by each collect: differs from the last one if everything was reported */
	uint64_t last_generation;
};

extern const struct tracker_mechanism tracker_softdirty;
extern const struct tracker_mechanism tracker_hash;

#endif
