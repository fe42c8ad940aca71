// SPDX-License-Identifier: GPL-2.0
#include "policy.h"

/* A last pass below this is not worth another round: CRIU's own part is longer. */
#define ROUND_WORTH_MS 100

static uint64_t minimum(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t maximum(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* a * b / c rounded up; UINT64_MAX when it does not fit. c > 0. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 result = ((unsigned __int128)a * b + c - 1) / c;

	return result > UINT64_MAX ? UINT64_MAX : (uint64_t)result;
}

/* How far an epoch's length is from the time, as a ratio >= 1 in 1/1024. */
static uint64_t epoch_distance(const struct policy_epoch *epoch, uint64_t time_ms)
{
	uint64_t a = maximum(epoch->interval_ms, 1), b = maximum(time_ms, 1);

	return scale(maximum(a, b), 1024, minimum(a, b));
}

static uint64_t epoch_bound(const struct policy_epoch *epoch, uint64_t time_ms)
{
	uint64_t interval_ms = maximum(epoch->interval_ms, 1);

	return time_ms <= interval_ms ? epoch->pages : scale(epoch->pages, time_ms, interval_ms);
}

uint64_t policy_written_pages(const struct policy_input *input, uint64_t time_ms)
{
	uint64_t nearest = UINT64_MAX, pages = input->memory_pages;
	size_t i;

	for (i = 0; i < input->epoch_count; i++) {
		const struct policy_epoch *epoch = &input->epochs[i];
		uint64_t distance = maximum(epoch_distance(epoch, time_ms), 2048);
		uint64_t bound = epoch_bound(epoch, time_ms);

		if (distance < nearest || (distance == nearest && bound > pages))
			pages = bound;
		nearest = minimum(nearest, distance);
	}
	return minimum(pages, input->memory_pages);
}

static uint64_t stream_ms(const struct policy_input *input, uint64_t pages)
{
	return scale(pages, 1000, input->pages_per_s);
}

/* The forecast for a notice that comes when the last epoch is since_ms old. */
static int64_t forecast_ms(const struct policy_input *input, uint64_t since_ms)
{
	unsigned __int128 sum;

	if (!input->pages_per_s)
		return POLICY_NEVER;
	sum = (unsigned __int128)input->poll_ms + input->fixed_ms +
	      stream_ms(input, policy_written_pages(input, since_ms + input->poll_ms));
	return sum > POLICY_NEVER ? POLICY_NEVER : (int64_t)sum;
}

static int64_t budget_ms(const struct policy_input *input)
{
	return (int64_t)input->window_ms - (int64_t)input->margin_ms;
}

int64_t policy_forecast_ms(const struct policy_input *input)
{
	return forecast_ms(input, input->since_epoch_ms);
}

enum policy_safety policy_safety(const struct policy_input *input)
{
	if (!input->pages_per_s)
		return POLICY_UNKNOWN;
	return policy_forecast_ms(input) <= budget_ms(input) ? POLICY_SAFE : POLICY_UNSAFE;
}

/*
 * The longest time since the last epoch that is still safe, up to interval_ms.  The forecast need not
 * grow evenly between epochs of different lengths, so it is looked at in 64 steps, not bisected.
 */
static uint64_t longest_safe_ms(const struct policy_input *input, uint64_t interval_ms)
{
	uint64_t safe_ms = 0;
	unsigned int step;

	if (!input->pages_per_s)
		return interval_ms;
	for (step = 1; step <= 64; step++) {
		uint64_t since_ms = scale(interval_ms, step, 64);

		if (forecast_ms(input, since_ms) > budget_ms(input))
			break;
		safe_ms = since_ms;
	}
	return safe_ms;
}

uint64_t policy_next_epoch_ms(const struct policy_input *input, uint64_t interval_ms,
			      uint64_t minimum_ms)
{
	uint64_t at_ms = maximum(longest_safe_ms(input, interval_ms), minimum_ms);

	return at_ms > input->since_epoch_ms ? at_ms - input->since_epoch_ms : 0;
}

bool policy_precopy_again(const struct policy_input *input, uint64_t previous_pages,
			  uint64_t this_pages, uint64_t this_ms, int64_t left_ms)
{
	uint64_t next_pages, next_ms, end_ms;

	if (!input->pages_per_s)
		return false;
	if (previous_pages && this_pages > previous_pages - previous_pages / 4)
		return false;
	/* What was written during this round is what the next one, or the freeze, has to stream. */
	next_pages = policy_written_pages(input, this_ms);
	next_ms = stream_ms(input, next_pages);
	if (next_ms < ROUND_WORTH_MS || next_ms > this_ms - this_ms / 4)
		return false;
	/* After the next round the last pass is at most as long as that round. */
	if (__builtin_add_overflow(2 * (unsigned __int128)next_ms, input->fixed_ms, &end_ms))
		return false;
	return left_ms >= 0 && end_ms <= (uint64_t)left_ms;
}

/* Newton's method, from above: it stops when it no longer falls. */
static double square_root(double square)
{
	double root = square > 1 ? square : 1, next = root;

	do {
		root = next;
		next = (root + square / root) / 2;
	} while (next < root);
	return root;
}

uint64_t policy_daly_ms(uint64_t cost_ms, uint64_t mtbf_ms)
{
	double cost = cost_ms, mtbf = mtbf_ms, ratio, root;

	if (!mtbf_ms || cost >= 2 * mtbf)
		return mtbf_ms;
	ratio = cost / (2 * mtbf);
	root = square_root(ratio);
	return square_root(2 * cost * mtbf) * (1 + root / 3 + ratio / 9) - cost;
}
