/* SPDX-License-Identifier: GPL-2.0 */
/* What intervals cost and save, for a job that was measured: pure functions, by the daemon's own policy. */
#ifndef CKPT_ADVICE_H
#define CKPT_ADVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "policy.h"

struct advice_input {
	struct policy_input policy;
	uint64_t frozen_ms;             /* by a checkpoint */
	uint64_t stream_ms;             /* of a checkpoint, while the job runs on */
	uint64_t restore_ms;
	uint64_t mtbf_ms;               /* between losses without a notice */
	double cost;                    /* of an hour of the job: node, licences; in any money */
};

/* Epochs at a fixed interval. */
struct advice_epoch {
	uint64_t usual_pages;           /* written in an interval, on average, */
	uint64_t most_pages;            /* and at most */
	int64_t pass_ms;                /* what streaming those at most takes; POLICY_NEVER: not measured */
	double busy;                    /* share of the time that passes are at work, usually */
	double pages_per_hour;          /* that go to the store */
	int64_t forecast_ms;            /* at the worst moment */
	enum policy_safety safety;
};

struct advice_epoch advice_epoch(const struct advice_input *input, uint64_t interval_ms);
/* The longest fixed interval that is safe at every moment, from a day down; 0: none is. */
uint64_t advice_longest_ms(const struct advice_input *input);

/* Checkpoints at a fixed interval; shares of the time. */
struct advice_checkpoint {
	double stopped;                 /* by taking them */
	double lost;                    /* by losses without a notice: work done again, and the restore */
	double cost_per_hour;           /* of both */
};

struct advice_checkpoint advice_checkpoint(const struct advice_input *input, uint64_t interval_ms);

#endif
