// SPDX-License-Identifier: GPL-2.0
#include "policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MINUTE_MS 60000ull
#define HOUR_MS (60 * MINUTE_MS)
#define GIB_PAGES 262144ull

/* 4 GiB of job, 100 MiB/s of store, of which 100 MiB are written in 30 s: the reference of the tables. */
static const struct policy_input reference = {
	.curve = { { 1000, 5120, 5120, 5120 }, { 30000, 25600, 25600, 25600 } },
	.points = 2,
	.passes = { { 2560, 100 }, { 1048576, 40960 } },
	.pass_count = 2,
	.changed_percent = 100,
	.memory_pages = 4 * GIB_PAGES,
	.outstanding_pages = POLICY_NOT_LOOKED,
	.since_ms = 0,
	.fixed_ms = 2000,
	.poll_ms = 5000,
	.window_ms = 120000,
	.margin_ms = 15000,
	.reserve_percent = 100,
};

static void check(size_t i, uint64_t found, uint64_t expected)
{
	if (found != expected)
		fail_msg("case %zu: %llu, expected %llu", i, (unsigned long long)found,
			 (unsigned long long)expected);
}

static void written_pages(void **state)
{
	static const struct point {
		uint64_t age_ms, pages;
	} none[1], phases[] = { { 30000, 900 } }, rounds[] = { { 100, 50 }, { 1000, 300 }, { 30000, 900 } },
		/* The short age was seen in a quiet phase only. */
		quiet[] = { { 1000, 10 }, { 60000, 6000 } },
		instant[] = { { 0, 7 } }, huge[] = { { 1, UINT64_MAX } };
	static const struct {
		const struct point *points;
		size_t count;
		uint64_t time_ms, pages;
	} cases[] = {
		{ none, 0, 0, 1048576 },         /* unknown is dirty */
		{ none, 0, 1000, 1048576 },
		{ phases, 1, 30000, 900 },
		{ phases, 1, 15000, 900 },       /* not more than in the longer time */
		{ phases, 1, 60000, 1800 },      /* at most twice in twice the time */
		{ phases, 1, 0, 900 },
		{ phases, 1, 90000000, 1048576 }, /* not more than there is */
		{ rounds, 3, 30000, 900 },
		{ rounds, 3, 1000, 300 },
		{ rounds, 3, 2000, 600 },
		{ rounds, 3, 20000, 900 },
		{ rounds, 3, 90, 50 },
		{ rounds, 3, 0, 50 },
		{ rounds, 3, 300000, 9000 },
		{ quiet, 2, 60000, 6000 },       /* what was seen was seen */
		{ quiet, 2, 30000, 3000 },
		{ quiet, 2, 1000, 100 },
		{ instant, 1, 0, 7 },
		{ instant, 1, 10, 70 },
		{ huge, 1, UINT64_MAX, 1048576 },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.points = cases[i].count;
		for (size_t j = 0; j < cases[i].count; j++) {
			input.curve[j].age_ms = cases[i].points[j].age_ms;
			input.curve[j].pages = cases[i].points[j].pages;
		}
		check(i, policy_written_pages(&input, cases[i].time_ms), cases[i].pages);
	}
}

static void stream_ms(void **state)
{
	static const struct {
		uint64_t pages;
		unsigned int changed_percent;
		struct policy_pass scan;
		int64_t ms;
	} cases[] = {
		{ 0, 100, { 0, 0 }, 0 },
		{ 2560, 100, { 0, 0 }, 100 },         /* by the small pass */
		{ 5120, 100, { 0, 0 }, 200 },
		{ 5122, 100, { 0, 0 }, 201 },         /* by the large one: 0.039 ms a page */
		{ 1048576, 100, { 0, 0 }, 40960 },
		{ 2097152, 100, { 0, 0 }, 81920 },
		{ 1048576, 25, { 0, 0 }, 10240 },     /* a quarter is not what it was */
		{ 1048576, 25, { 1000, 20 }, 20972 }, /* and the rest must be read */
		{ 1048576, 100, { 1000, 20 }, 40960 },
		{ UINT64_MAX, 100, { 0, 0 }, 720575940379279360 },
		{ UINT64_MAX, 100, { 1, 3 }, POLICY_NEVER },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.changed_percent = cases[i].changed_percent;
		input.scan = cases[i].scan;
		check(i, (uint64_t)policy_stream_ms(&input, cases[i].pages), (uint64_t)cases[i].ms);
	}
	input.pass_count = 0;
	assert_int_equal(policy_stream_ms(&input, 1), POLICY_NEVER);
}

static void forecast_and_safety(void **state)
{
	static const struct {
		uint64_t outstanding, since_ms, left, others;
		unsigned int reserve;
		uint64_t fixed_ms;
		int64_t forecast_ms;
		enum policy_safety safety;
	} cases[] = {
		/* 5 s poll, 1 s of pages, 2 s */
		{ POLICY_NOT_LOOKED, 25000, 0, 0, 100, 2000, 8000, POLICY_SAFE },
		{ POLICY_NOT_LOOKED, 55000, 0, 0, 100, 2000, 9000, POLICY_SAFE },
		/* Looked: what is there, and what is written until the notice is seen. */
		{ 0, 0, 0, 0, 100, 2000, 8000, POLICY_SAFE },
		{ 10000, 30000, 0, 0, 100, 2000, 8167, POLICY_SAFE },
		{ 102400, 30000, 0, 0, 100, 2000, 11167, POLICY_SAFE },
		{ 102400, 30000, 25600, 0, 100, 2000, 12167, POLICY_SAFE },
		{ 102400, 30000, 25600, 512000, 100, 2000, 32167, POLICY_SAFE },
		/* More than all memory there is not. */
		{ 1u << 30, 30000, 0, 0, 100, 2000, 47960, POLICY_SAFE },
		/* Reserve: 40.96 s of streaming. */
		{ 1u << 30, 30000, 0, 0, 239, 2000, 47960, POLICY_SAFE },
		{ 1u << 30, 30000, 0, 0, 240, 2000, 47960, POLICY_TIGHT },
		{ 0, 0, 0, 0, 100, 99000, 105000, POLICY_SAFE },     /* just so */
		{ 0, 0, 0, 0, 100, 99001, 105001, POLICY_UNSAFE },
		{ 0, 0, 0, 0, 100, UINT64_MAX, POLICY_NEVER, POLICY_UNSAFE },
		{ 0, 0, UINT64_MAX, 0, 100, 0, POLICY_NEVER, POLICY_UNSAFE },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.outstanding_pages = cases[i].outstanding;
		input.since_ms = cases[i].since_ms;
		input.left_pages = cases[i].left;
		input.other_pages = cases[i].others;
		input.reserve_percent = cases[i].reserve;
		input.fixed_ms = cases[i].fixed_ms;
		if (cases[i].forecast_ms != POLICY_NEVER || cases[i].left == 0)
			check(i, (uint64_t)policy_forecast_ms(&input), (uint64_t)cases[i].forecast_ms);
		check(i, policy_safety(&input), cases[i].safety);
	}
	input = reference;
	input.pass_count = 0;
	assert_int_equal(policy_forecast_ms(&input), POLICY_NEVER);
	assert_int_equal(policy_safety(&input), POLICY_UNKNOWN);
	assert_string_equal(policy_safety_name(POLICY_TIGHT), "tight");
}

/* A margin that is not shorter than the window leaves nothing; it is no reason to fall over. */
static void no_budget(void **state)
{
	struct policy_input input = reference;

	input.margin_ms = 200000;
	assert_int_equal(policy_safety(&input), POLICY_UNSAFE);
	assert_true(policy_wait_ms(&input, POLICY_NEVER, 1000) > 0);
}

static void wait_at_intervals(void **state)
{
	static const struct {
		uint64_t since_ms, interval_ms, wait_ms;
	} cases[] = {
		/* All of the job's memory fits the window: by the clock, or as rarely as there is a measurement. */
		{ 0, 30000, 10000 },
		{ 25000, 30000, 5000 },
		{ 30000, 30000, 0 },
		{ 31000, 30000, 0 },
		{ 31000, POLICY_NEVER, 10000 },
		{ HOUR_MS - 1000, POLICY_NEVER, 1000 },
		{ HOUR_MS, POLICY_NEVER, 0 },
		{ 0, 500, 1000 },                /* never closer than a second */
		{ UINT64_MAX, POLICY_NEVER, 0 }, /* nothing was ever streamed */
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.since_ms = cases[i].since_ms;
		input.outstanding_pages = 0;
		check(i, policy_wait_ms(&input, cases[i].interval_ms, 1000), cases[i].wait_ms);
	}
	/* Nothing is known of the store: an epoch tells. */
	input = reference;
	input.pass_count = 0;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 30000);
	assert_int_equal(policy_wait_ms(&input, 10000, 1000), 10000);
	input.since_ms = 40000;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
}

/* 64 GiB of job at 100 MiB/s: 98 s of budget are 9800 MiB, less what is written during the epoch. */
static struct policy_input large(void)
{
	struct policy_input input = reference;

	input.memory_pages = 64 * GIB_PAGES;
	input.passes[1] = (struct policy_pass){ 64 * GIB_PAGES, 655360 };
	input.points = 3;
	input.curve[2] = (struct policy_point){ 600000, 512000, 512000, 512000 };
	return input;
}

static void wait_while_safe(void **state)
{
	static const struct {
		uint64_t outstanding_mib, wait_ms;
	} cases[] = {
		{ 0, 10000 }, { 5000, 10000 }, { 9300, 10000 }, { 9650, 10000 },
		{ 9691, 2500 }, { 9696, 1000 }, { 9750, 0 }, { 12000, 0 }, { 60000, 0 },
	};
	struct policy_input input = large();
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.since_ms = 900000;
		input.outstanding_pages = cases[i].outstanding_mib * 256;
		check(i, policy_wait_ms(&input, POLICY_NEVER, 1000), cases[i].wait_ms);
	}
	/* Looks that are dear are made rarely, so an epoch begins earlier. */
	input.outstanding_pages = 9300 * 256;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 20000), 20000);
	input.outstanding_pages = 9691 * 256;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 20000), 0);
	/* Twice the reserve: half as much. */
	input.reserve_percent = 200;
	input.outstanding_pages = 4400 * 256;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 10000);
	input.outstanding_pages = 4900 * 256;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
}

/* Limits make an epoch take longer, in which the job writes more: it begins earlier. */
static void wait_with_limits(void **state)
{
	struct policy_input input = large();

	input.since_ms = 900000;
	input.curve[1] = (struct policy_point){ 30000, 256000, 256000, 256000 };
	input.outstanding_pages = 9300 * 256;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 10000);
	input.held_percent = 800;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
	/* The forecast is the same: after a notice there are none. */
	assert_int_equal(policy_safety(&input), POLICY_SAFE);
}

/* All of a hot set is written again while it is streamed: an epoch is for nothing. */
static void no_epoch_for_nothing(void **state)
{
	struct policy_input input = large();
	uint64_t hot = 20000 * 256;

	input.points = 2;
	input.curve[0] = (struct policy_point){ 200000, hot, hot, hot };
	input.curve[1] = (struct policy_point){ 3600000, hot, hot, hot };
	input.since_ms = 600000;
	input.outstanding_pages = hot;
	assert_int_equal(policy_safety(&input), POLICY_UNSAFE);
	assert_true(policy_wait_ms(&input, POLICY_NEVER, 1000) > 0);
	/* But it is when as much again can be taken away. */
	input.outstanding_pages = 2 * hot;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
	/* What only happened at best is tried for now and then: an epoch of 200 s in 600 s. */
	input.curve[0].least_pages = hot / 10;
	input.outstanding_pages = hot;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 1000);
	input.since_ms = 610000;
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
}

/* Whatever the input: an answer, and no closer to the last epoch than a second. */
static void wait_of_anything(void **state)
{
	struct policy_input input = reference;
	int round, i;

	srand(1);
	for (round = 0; round < 20000; round++) {
		uint64_t interval_ms = rand() % 2 ? POLICY_NEVER : (uint64_t)(rand() % 60000), wait_ms;

		input.points = rand() % 5;
		for (i = 0; i < 4; i++)
			input.curve[i] = (struct policy_point){ rand() % 60000, rand() % 300000,
								rand() % 300000, rand() % 300000 };
		input.pass_count = rand() % 3;
		for (i = 0; i < 2; i++)
			input.passes[i] = (struct policy_pass){ rand() % 30000, rand() % 3000 };
		input.memory_pages = rand() % 2 ? (uint64_t)rand() : UINT64_MAX;
		input.outstanding_pages = rand() % 3 ? (uint64_t)rand() : POLICY_NOT_LOOKED;
		input.since_ms = rand() % 3 ? (uint64_t)(rand() % 100000) : UINT64_MAX;
		input.fixed_ms = rand() % 200000;
		input.reserve_percent = rand() % 1000;
		wait_ms = policy_wait_ms(&input, interval_ms, 1 + rand() % 5000);
		assert_true(wait_ms <= HOUR_MS);
		if (input.pass_count && input.since_ms < 1000 && interval_ms > 1000)
			assert_true(input.since_ms + wait_ms >= 1000);
		policy_round_helps(&input, rand());
		policy_must_freeze(&input, rand(), 1000);
	}
}

static void rounds(void **state)
{
	static const struct policy_point curve[] = {
		{ 1000, 20000, 20000, 20000 }, { 8000, 80000, 80000, 80000 }, { 30000, 250000, 250000, 250000 },
	};
	static const struct {
		uint64_t outstanding, left_pages;
		int64_t left_ms;
		bool helps;
	} cases[] = {
		{ 250000, 0, 100000, true },     /* 9.8 s; the frozen pass then has 97660 pages, 3.8 s */
		{ 250000, 0, INT64_MAX, true },
		{ 250000, 0, 15000, false },     /* 9.8 + 3.8 + 2 > 15 */
		{ 250000, 0, 16000, true },
		{ 250000, 0, -1, false },
		{ 200000, 50000, 16000, true },
		{ 2000, 0, 100000, false },      /* 78 ms: not worth it */
		{ 2700, 0, 100000, false },      /* all of it is written again */
		{ 0, 0, 100000, false },
	};
	struct policy_input input = reference;
	size_t i;

	memcpy(input.curve, curve, sizeof(curve));
	input.points = COUNT(curve);
	input.since_ms = 30000;
	for (i = 0; i < COUNT(cases); i++) {
		input.outstanding_pages = cases[i].outstanding;
		input.left_pages = cases[i].left_pages;
		check(i, policy_round_helps(&input, cases[i].left_ms), cases[i].helps);
	}
	input.outstanding_pages = 250000;
	input.left_pages = 0;
	/* With a reserve it must fit as many times. */
	input.reserve_percent = 200;
	assert_false(policy_round_helps(&input, 29000));
	assert_true(policy_round_helps(&input, 30000));
	input.pass_count = 0;
	assert_false(policy_round_helps(&input, INT64_MAX));
}

static void freeze_in_time(void **state)
{
	static const struct {
		uint64_t outstanding, left_pages;
		unsigned int reserve;
		int64_t left_ms;
		bool freeze;
	} cases[] = {
		/* 10 s are left to stream, 1 s is written since, 2 s CRIU, 1 s until the next tick. */
		{ 25600, 256000, 100, 100000, false },
		{ 25600, 256000, 100, 14500, false },
		{ 25600, 256000, 100, 13900, true },
		{ 25600, 256000, 200, 25500, false },
		{ 25600, 256000, 200, 24900, true },
		{ 25600, 256000, 100, -1, true },
		{ 0, 0, 100, 4000, false },
		{ 0, 0, 100, 3000, true },
	};
	struct policy_input input = reference;
	size_t i;

	input.since_ms = 30000;
	input.curve[1] = (struct policy_point){ 60000, 25600, 25600, 25600 };
	input.curve[0] = (struct policy_point){ 1000, 5120, 5120, 5120 };
	for (i = 0; i < COUNT(cases); i++) {
		input.outstanding_pages = cases[i].outstanding;
		input.left_pages = cases[i].left_pages;
		input.reserve_percent = cases[i].reserve;
		check(i, policy_must_freeze(&input, cases[i].left_ms, 1000), cases[i].freeze);
	}
	input.pass_count = 0;
	assert_true(policy_must_freeze(&input, 100000, 1000));
}

/* Daly's figures 3 to 5: a checkpoint of 5 minutes. */
static void daly(void **state)
{
	assert_in_range(policy_daly_ms(5 * MINUTE_MS, 24 * HOUR_MS), 116.6 * MINUTE_MS, 116.8 * MINUTE_MS);
	assert_in_range(policy_daly_ms(5 * MINUTE_MS, 6 * HOUR_MS), 56.6 * MINUTE_MS, 56.8 * MINUTE_MS);
	assert_in_range(policy_daly_ms(5 * MINUTE_MS, 15 * MINUTE_MS), 9.1 * MINUTE_MS, 9.2 * MINUTE_MS);
	assert_int_equal(policy_daly_ms(5 * MINUTE_MS, 2 * MINUTE_MS), 2 * MINUTE_MS);
	assert_int_equal(policy_daly_ms(0, HOUR_MS), 0);
	assert_int_equal(policy_daly_ms(5, 0), 0);
}

static void checkpoint_interval(void **state)
{
	/* 1 s each day: sqrt(2 * 86400) = 416 s */
	assert_in_range(policy_checkpoint_ms(1000, 0, 24 * HOUR_MS), 410000, 420000);
	/* 10 s of streaming cost as much as 1 s of standing still. */
	assert_int_equal(policy_checkpoint_ms(0, 10000, 24 * HOUR_MS),
			 policy_checkpoint_ms(1000, 0, 24 * HOUR_MS));
	assert_int_equal(policy_checkpoint_ms(0, 0, 24 * HOUR_MS), 30000);
	assert_int_equal(policy_checkpoint_ms(UINT64_MAX, UINT64_MAX, 100 * 24 * HOUR_MS), 24 * HOUR_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_pages),     cmocka_unit_test(stream_ms),
		cmocka_unit_test(forecast_and_safety), cmocka_unit_test(no_budget),
		cmocka_unit_test(wait_at_intervals), cmocka_unit_test(wait_while_safe),
		cmocka_unit_test(wait_with_limits), cmocka_unit_test(no_epoch_for_nothing), cmocka_unit_test(wait_of_anything),
		cmocka_unit_test(rounds),	     cmocka_unit_test(freeze_in_time),
		cmocka_unit_test(daly),		     cmocka_unit_test(checkpoint_interval),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
