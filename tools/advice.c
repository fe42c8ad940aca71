// SPDX-License-Identifier: GPL-2.0
#include "advice.h"

#define HOUR_MS 3600000ull

/* The same job with what it usually writes for what it writes at most. */
static struct policy_input usual(const struct policy_input *policy)
{
	struct policy_input input = *policy;

	for (size_t i = 0; i < input.points; i++)
		input.curve[i].pages = input.curve[i].usual_pages;
	return input;
}

/* A notice right before a pass is durable finds what was written since the one before it began. */
static struct policy_input worst_moment(const struct policy_input *policy, uint64_t interval_ms, int64_t pass_ms)
{
	struct policy_input input = *policy;
	uint64_t age_ms = interval_ms + (pass_ms == POLICY_NEVER ? 0 : (uint64_t)pass_ms);

	input.outstanding_pages = policy_written_pages(policy, age_ms);
	input.since_ms = age_ms;
	input.left_pages = 0;
	return input;
}

struct advice_epoch advice_epoch(const struct advice_input *input, uint64_t interval_ms)
{
	struct policy_input ordinary = usual(&input->policy), worst;
	struct advice_epoch epoch = {
		.usual_pages = policy_written_pages(&ordinary, interval_ms),
		.most_pages = policy_written_pages(&input->policy, interval_ms),
	};
	int64_t usual_ms = policy_stream_ms(&input->policy, epoch.usual_pages);

	epoch.pass_ms = policy_stream_ms(&input->policy, epoch.most_pages);
	epoch.busy = usual_ms == POLICY_NEVER ? 0 : (double)usual_ms / (double)(interval_ms + (uint64_t)usual_ms);
	epoch.pages_per_hour = (double)epoch.usual_pages * input->policy.changed_percent / 100 * HOUR_MS /
			       (double)(interval_ms + (usual_ms == POLICY_NEVER ? 0 : (uint64_t)usual_ms));
	worst = worst_moment(&input->policy, interval_ms, epoch.pass_ms);
	epoch.forecast_ms = policy_forecast_ms(&worst);
	epoch.safety = policy_safety(&worst);
	return epoch;
}

uint64_t advice_longest_ms(const struct advice_input *input)
{
	uint64_t low = 0, high = 24 * HOUR_MS / 1000;

	/* In seconds: what is written never shrinks with the time. */
	while (low < high) {
		uint64_t middle = (low + high + 1) / 2;

		if (advice_epoch(input, middle * 1000).safety == POLICY_SAFE)
			low = middle;
		else
			high = middle - 1;
	}
	return low * 1000;
}

struct advice_checkpoint advice_checkpoint(const struct advice_input *input, uint64_t interval_ms)
{
	struct advice_checkpoint checkpoint = {
		.stopped = ((double)input->frozen_ms + POLICY_STREAM_COST_PERCENT / 100.0 * (double)input->stream_ms) / (double)interval_ms,
		.lost = ((double)interval_ms / 2 + (double)input->restore_ms) / (double)input->mtbf_ms,
	};

	checkpoint.cost_per_hour = input->cost * (checkpoint.stopped + checkpoint.lost);
	return checkpoint;
}
