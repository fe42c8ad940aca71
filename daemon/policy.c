// SPDX-License-Identifier: GPL-2.0
#include "policy.h"

/* A pass below this is not worth doing before the freeze: CRIU's own part is longer. */
#define ROUND_WORTH_MS 100
/* The longest that nobody looks: a job may change its ways. */
#define LONGEST_LOOK_MS 10000
/* The longest without a measurement of the store. */
#define LONGEST_INTERVAL_MS 3600000
/* Between epochs while nothing was measured. */
#define UNMEASURED_INTERVAL_MS 30000
/* Closer epochs cost more than they save. */
#define SHORTEST_INTERVAL_MS 1000
/* Into how many parts an epoch is cut to find its worst moment. */
#define EPOCH_PARTS 8
#define SHORTEST_CHECKPOINT_MS 30000
#define LONGEST_CHECKPOINT_MS (24 * 3600000ull)

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

static uint64_t add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

static int64_t to_time(uint64_t ms)
{
	return ms > POLICY_NEVER ? POLICY_NEVER : (int64_t)ms;
}

enum which {
	WORST,
	USUAL,
	BEST,
};

/* What the curve's points say together. */
struct bounds {
	uint64_t least, most;
};

static uint64_t point_pages(const struct policy_point *point, enum which which)
{
	return which == WORST ? point->pages : which == USUAL ? point->usual_pages : point->least_pages;
}

static struct bounds curve_bounds(const struct policy_input *input, uint64_t time_ms, enum which which)
{
	struct bounds bounds = { 0, input->memory_pages };
	size_t i;

	for (i = 0; i < input->points; i++) {
		uint64_t pages = point_pages(&input->curve[i], which);
		uint64_t scaled = scale(pages, time_ms, maximum(input->curve[i].age_ms, 1));

		bounds.most = minimum(bounds.most, maximum(pages, scaled));
		bounds.least = maximum(bounds.least, minimum(pages, scaled));
	}
	return bounds;
}

/* Points of different phases of a job may contradict each other: the worse one counts. */
static uint64_t curve_pages(const struct policy_input *input, uint64_t time_ms, enum which which)
{
	struct bounds bounds = curve_bounds(input, time_ms, which);
	uint64_t pages = which == BEST ? bounds.most : maximum(bounds.least, bounds.most);

	return minimum(pages, input->memory_pages);
}

uint64_t policy_written_pages(const struct policy_input *input, uint64_t time_ms)
{
	return curve_pages(input, time_ms, WORST);
}

/* Of pages that go to the store: by the smallest pass that is not much smaller, else the largest. */
static uint64_t store_ms(const struct policy_input *input, uint64_t pages)
{
	const struct policy_pass *pass = input->passes;
	size_t i;

	for (i = 1; i < input->pass_count && pass->pages < pages / 2; i++)
		pass = &input->passes[i];
	return scale(pages, pass->ms, maximum(pass->pages, 1));
}

int64_t policy_stream_ms(const struct policy_input *input, uint64_t pages)
{
	uint64_t ms;

	if (!input->pass_count)
		return POLICY_NEVER;
	ms = store_ms(input, scale(pages, input->changed_percent, 100));
	if (input->scan.pages)
		ms = maximum(ms, scale(pages, input->scan.ms, input->scan.pages));
	return to_time(ms);
}

/* While the job runs, the class's limits hold. */
static uint64_t epoch_ms(const struct policy_input *input, uint64_t pages)
{
	return scale((uint64_t)policy_stream_ms(input, pages), maximum(input->held_percent, 100), 100);
}

static uint64_t since_collect_pages(const struct policy_input *input)
{
	if (input->outstanding_pages == POLICY_NOT_LOOKED)
		return policy_written_pages(input, input->since_ms);
	return minimum(input->outstanding_pages, input->memory_pages);
}

uint64_t policy_outstanding_pages(const struct policy_input *input)
{
	return add(since_collect_pages(input), input->left_pages);
}

/*
 * What is outstanding when the job has run on for a while.  It may write wholly other pages than before,
 * but then not more than was ever seen at that age; where that is exceeded already, what is usual.
 */
static uint64_t later_pages(const struct policy_input *input, uint64_t later_ms)
{
	uint64_t age_ms = add(input->since_ms, later_ms), now, most, usual, before;

	if (input->outstanding_pages == POLICY_NOT_LOOKED)
		return policy_written_pages(input, age_ms);
	now = since_collect_pages(input);
	usual = curve_pages(input, age_ms, USUAL);
	before = curve_pages(input, input->since_ms, USUAL);
	usual = add(now, usual > before ? usual - before : 0);
	most = maximum(policy_written_pages(input, age_ms), usual);
	return minimum(minimum(add(now, policy_written_pages(input, later_ms)), most), input->memory_pages);
}

/* What a notice finds, when it is seen late. */
static uint64_t noticed_pages(const struct policy_input *input)
{
	return add(later_pages(input, input->poll_ms), input->left_pages);
}

/* From a notice to durable, when it finds so many pages. */
static uint64_t flush_ms(const struct policy_input *input, uint64_t pages, unsigned int reserve_percent)
{
	uint64_t stream_ms = (uint64_t)policy_stream_ms(input, add(pages, input->other_pages));

	return add(add(input->poll_ms, input->fixed_ms), scale(stream_ms, reserve_percent, 100));
}

static uint64_t budget_ms(const struct policy_input *input)
{
	return input->window_ms > input->margin_ms ? input->window_ms - input->margin_ms : 0;
}

int64_t policy_forecast_ms(const struct policy_input *input)
{
	if (!input->pass_count)
		return POLICY_NEVER;
	return to_time(flush_ms(input, noticed_pages(input), 100));
}

enum policy_safety policy_safety(const struct policy_input *input)
{
	uint64_t pages = noticed_pages(input);

	if (!input->pass_count)
		return POLICY_UNKNOWN;
	if (flush_ms(input, pages, input->reserve_percent) <= budget_ms(input))
		return POLICY_SAFE;
	return flush_ms(input, pages, 100) <= budget_ms(input) ? POLICY_TIGHT : POLICY_UNSAFE;
}

const char *policy_safety_name(enum policy_safety safety)
{
	static const char *const names[] = {
		[POLICY_SAFE] = "safe", [POLICY_TIGHT] = "tight", [POLICY_UNKNOWN] = "unknown",
		[POLICY_UNSAFE] = "unsafe",
	};

	return names[safety];
}

/* The most that is outstanding at any time of an epoch that begins with so many pages. */
static uint64_t peak_pages(const struct policy_input *input, uint64_t pages)
{
	uint64_t length_ms = epoch_ms(input, pages), peak = 0, part;

	for (part = 0; part <= EPOCH_PARTS; part++) {
		uint64_t left = scale(pages, EPOCH_PARTS - part, EPOCH_PARTS);
		uint64_t again_ms = add(scale(length_ms, part, EPOCH_PARTS), input->poll_ms);

		peak = maximum(peak, add(left, policy_written_pages(input, again_ms)));
	}
	return peak;
}

static bool flush_fits(const struct policy_input *input, uint64_t pages)
{
	return flush_ms(input, pages, input->reserve_percent) <= budget_ms(input);
}

/*
 * An epoch now leaves behind what is written while it streams.  The less room there is, the less it
 * has to gain: half at first, a quarter when the budget is at stake, a tenth when the window is.  A
 * gain that was only seen at best is tried for, in a third of the time.
 */
static bool epoch_helps(const struct policy_input *input, uint64_t later)
{
	uint64_t now = since_collect_pages(input), length_ms = epoch_ms(input, now);
	uint64_t after = curve_pages(input, length_ms, USUAL), gain = now > after ? now - after : 0;

	if (gain >= now / 2)
		return true;
	if (gain >= now / 4 && !flush_fits(input, later))
		return true;
	if (flush_ms(input, peak_pages(input, later), 100) <= input->window_ms)
		return false;
	return gain >= now / 10 ||
	       (input->since_ms / 3 > length_ms && curve_pages(input, length_ms, BEST) <= now - now / 10);
}

/* Without a limit to the interval: the longest wait after which an epoch can still begin safely. */
static uint64_t safe_wait_ms(const struct policy_input *input, uint64_t look_ms)
{
	uint64_t wait_ms;

	/* Whatever the job writes fits. It may grow. */
	if (flush_fits(input, input->memory_pages))
		return maximum(LONGEST_LOOK_MS, look_ms);
	for (wait_ms = maximum(LONGEST_LOOK_MS, look_ms); wait_ms > look_ms; wait_ms /= 2)
		if (flush_fits(input, peak_pages(input, later_pages(input, wait_ms))))
			return wait_ms;
	if (flush_fits(input, peak_pages(input, later_pages(input, look_ms))))
		return look_ms;
	return epoch_helps(input, later_pages(input, look_ms)) ? 0 : look_ms;
}

uint64_t policy_wait_ms(const struct policy_input *input, uint64_t interval_ms, uint64_t look_ms)
{
	uint64_t wait_ms, longest_ms = minimum(interval_ms, LONGEST_INTERVAL_MS), left_ms;

	if (!input->pass_count)
		longest_ms = minimum(longest_ms, UNMEASURED_INTERVAL_MS);
	left_ms = longest_ms > input->since_ms ? longest_ms - input->since_ms : 0;
	if (!left_ms || !input->pass_count)
		return left_ms;
	wait_ms = minimum(safe_wait_ms(input, look_ms), left_ms);
	if (wait_ms + input->since_ms < SHORTEST_INTERVAL_MS)
		wait_ms = SHORTEST_INTERVAL_MS - input->since_ms;
	return wait_ms;
}

bool policy_round_helps(const struct policy_input *input, int64_t left_ms)
{
	uint64_t pages = policy_outstanding_pages(input), round_ms, last, last_ms, end_ms;

	if (!input->pass_count || left_ms < 0)
		return false;
	round_ms = (uint64_t)policy_stream_ms(input, add(pages, input->other_pages));
	/* What is written during this round is what the frozen pass has to stream. */
	last = policy_written_pages(input, round_ms);
	if (round_ms < ROUND_WORTH_MS || last > pages - pages / 4)
		return false;
	last_ms = (uint64_t)policy_stream_ms(input, last);
	end_ms = add(input->fixed_ms, scale(add(round_ms, last_ms), input->reserve_percent, 100));
	return end_ms <= (uint64_t)left_ms;
}

bool policy_must_freeze(const struct policy_input *input, int64_t left_ms, uint64_t tick_ms)
{
	uint64_t pages = add(later_pages(input, tick_ms), input->left_pages), end_ms;

	if (!input->pass_count || left_ms < 0)
		return true;
	end_ms = scale((uint64_t)policy_stream_ms(input, add(pages, input->other_pages)),
		       input->reserve_percent, 100);
	return add(add(end_ms, input->fixed_ms), tick_ms) > (uint64_t)left_ms;
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

uint64_t policy_checkpoint_ms(uint64_t frozen_ms, uint64_t stream_ms, uint64_t mtbf_ms)
{
	uint64_t cost_ms = add(frozen_ms, scale(stream_ms, POLICY_STREAM_COST_PERCENT, 100));

	return minimum(maximum(policy_daly_ms(cost_ms, mtbf_ms), SHORTEST_CHECKPOINT_MS),
		       LONGEST_CHECKPOINT_MS);
}
