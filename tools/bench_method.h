/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ways to learn which pages of a victim's memory were written, and to begin anew: our mechanisms, and the peers, which
 * are what the kernel offers by itself.
 */
#ifndef CKPT_BENCH_METHOD_H
#define CKPT_BENCH_METHOD_H

#include <stdbool.h>

#include "bench_victim.h"
#include "region.h"
#include "tracker.h"

struct method_run;

struct method {
	const char *name;
	bool peer;
	bool splits_huge;	/* a write after it splits a huge page */
	/* NULL: through the tracker of this mechanism, as ckptd does */
	const struct tracker_mechanism *mechanism;
	int (*open)(struct method_run *run);
	int (*collect)(struct method_run *run, struct regions *regions);
	void (*close)(struct method_run *run);
};

struct method_run {
	const struct method *method;
	const struct victim *victim;
	struct tracker *tracker;
	int fd, clear_refs;
	void *buffer;
};

/* Those that work here: first our mechanisms, the best first, then the peers. The caller frees the list. */
size_t methods_here(struct method **methods);

/*
 * All return 0 or -errno. After method_open() everything counts as written, and a victim of huge pages that were split
 * has new ones.
 */
int method_open(struct method_run *run, const struct method *method, const struct victim *victim);
int method_collect(struct method_run *run, struct regions *regions);
void method_close(struct method_run *run);

#endif
