/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of `ckptbench ladder` share: its steps, and one run of the measured command. */
#ifndef CKPT_BENCH_LADDER_H
#define CKPT_BENCH_LADDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench.h"
#include "bench_node.h"

#define LADDER_NODES 8

enum step {
	STEP_BASELINE,          /* without ckptd and the module */
	STEP_INSTALLED,         /* both are there, the command runs outside of them */
	STEP_RUN,               /* under ckptctl run */
	STEP_SAME_NODE,         /* saved, ended and restored, here */
	STEP_OTHER_NODE,        /* the same, on another node */
	STEP_CHAIN,             /* several times, each on the next node */
	STEPS,
};

struct ladder {
	const char *class;
	char *const *command;
	struct node nodes[LADDER_NODES];        /* the first is this one */
	size_t node_count;
	unsigned int checkpoints;               /* of STEP_CHAIN */
	unsigned int job;                       /* number of the last one, for its name */
	double expect_s;                        /* how long the command takes; 0: not known yet */
	int status;                             /* how it ends when nobody interrupts it */
	uint64_t digest;                        /* of what it prints then */
	bool measured;                          /* the two above are known */
};

/* Of one run. */
struct run_result {
	double seconds;         /* from its start to its end, with all between */
	double away_s;          /* of that, from where a checkpoint was asked for until it ran again */
	double frozen_ms;       /* sums over its checkpoints */
	double flush_ms;
	double restore_ms;
	double bytes;
	bool differs;           /* it printed something else than the first run of all */
};

/* Runs the command once. -errno: it could not be measured, and that was said. */
int ladder_run(struct ladder *ladder, enum step step, struct run_result *result);

#endif
