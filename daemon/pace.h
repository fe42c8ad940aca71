/* SPDX-License-Identifier: GPL-2.0 */
/* What was measured of one job, as policy.h wants it. */
#ifndef CKPT_PACE_H
#define CKPT_PACE_H

#include <stdint.h>

#include "checkpoint.h"
#include "config.h"
#include "policy.h"
#include "reader.h"

#define PACE_EPOCHS 16

struct pace {
	struct policy_epoch epochs[PACE_EPOCHS]; /* a ring */
	size_t epoch_count;
	size_t next;
	uint64_t pages_per_s;           /* moving average */
	uint64_t fixed_ms;
	uint64_t memory_pages;
	int64_t last_ms;                /* when the last pass collected; CLOCK_BOOTTIME; 0: never */
};

/* begun_ms: when the pass collected. */
void pace_add_epoch(struct pace *pace, const struct pass_stats *pass, int64_t begun_ms);
void pace_add_checkpoint(struct pace *pace, const struct checkpoint_stats *stats);
struct policy_input pace_input(const struct pace *pace, const struct class *class,
			       uint64_t poll_ms);

#endif
