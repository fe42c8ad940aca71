// SPDX-License-Identifier: GPL-2.0
#include "policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MINUTE_MS 60000ull
#define HOUR_MS (60 * MINUTE_MS)

/* 1 GiB of job, 100 MiB/s of store, 30 s epochs that find 100 MiB: the reference of the tables. */
static const struct policy_epoch steady[] = { { 30000, 25600 }, { 30000, 25600 }, { 30000, 25600 } };

static const struct policy_input reference = {
	.epochs = steady,
	.epoch_count = COUNT(steady),
	.memory_pages = 262144,
	.pages_per_s = 25600,
	.fixed_ms = 2000,
	.since_epoch_ms = 0,
	.poll_ms = 5000,
	.window_ms = 120000,
	.margin_ms = 15000,
};

static void written_pages(void **state)
{
	static const struct policy_epoch phases[] = { { 30000, 100 }, { 30000, 900 }, { 30000, 500 } };
	static const struct policy_epoch rounds[] = { { 30000, 900 }, { 1000, 300 }, { 100, 50 } };
	static const struct policy_epoch instant[] = { { 0, 7 } };
	static const struct policy_epoch huge[] = { { 1, UINT64_MAX } };
	static const struct {
		const struct policy_epoch *epochs;
		size_t count;
		uint64_t time_ms, pages;
	} cases[] = {
		{ NULL, 0, 0, 262144 },          /* unknown is dirty */
		{ NULL, 0, 1000, 262144 },
		{ phases, 3, 30000, 900 },       /* the worst phase */
		{ phases, 3, 15000, 900 },       /* not more than in the longer time */
		{ phases, 3, 60000, 1800 },      /* at most twice in twice the time */
		{ phases, 3, 0, 900 },
		{ phases, 3, 30000000, 262144 }, /* not more than there is */
		{ rounds, 3, 30000, 900 },       /* short rounds say nothing about long times */
		{ rounds, 3, 1000, 300 },
		{ rounds, 3, 2000, 600 },
		{ rounds, 3, 90, 50 },
		{ rounds, 3, 0, 50 },
		{ rounds, 3, 300000, 9000 },
		{ instant, 1, 0, 7 },
		{ instant, 1, 10, 70 },
		{ huge, 1, UINT64_MAX, 262144 },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.epochs = cases[i].epochs;
		input.epoch_count = cases[i].count;
		if (policy_written_pages(&input, cases[i].time_ms) != cases[i].pages)
			fail_msg("case %zu: %llu", i,
				 (unsigned long long)policy_written_pages(&input, cases[i].time_ms));
	}
}

static void forecast_and_safety(void **state)
{
	static const struct {
		uint64_t since_epoch_ms, pages_per_s, fixed_ms, memory_pages;
		int64_t forecast_ms;
		enum policy_safety safety;
	} cases[] = {
		{ 0, 25600, 2000, 262144, 8000, POLICY_SAFE },        /* 5 s poll, 1 s stream, 2 s */
		{ 25000, 25600, 2000, 262144, 8000, POLICY_SAFE },
		{ 55000, 25600, 2000, 262144, 9000, POLICY_SAFE },
		{ 0, 0, 2000, 262144, POLICY_NEVER, POLICY_UNKNOWN },
		{ 0, 256, 2000, 262144, 107000, POLICY_UNSAFE },      /* 100 s to stream */
		{ 0, 262, 2000, 262144, 104710, POLICY_SAFE },
		{ 0, 25600, 99000, 262144, 105000, POLICY_SAFE },     /* just so */
		{ 0, 25600, 99001, 262144, 105001, POLICY_UNSAFE },
		{ 0, 25600, 2000, 0, 7000, POLICY_SAFE },
		{ 0, 1, UINT64_MAX, UINT64_MAX, POLICY_NEVER, POLICY_UNSAFE },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.since_epoch_ms = cases[i].since_epoch_ms;
		input.pages_per_s = cases[i].pages_per_s;
		input.fixed_ms = cases[i].fixed_ms;
		input.memory_pages = cases[i].memory_pages;
		if (policy_forecast_ms(&input) != cases[i].forecast_ms ||
		    policy_safety(&input) != cases[i].safety)
			fail_msg("case %zu: %lld", i, (long long)policy_forecast_ms(&input));
	}
}

/* Without an epoch all memory is outstanding: a job larger than the window's worth is not safe yet. */
static void first_epoch_decides(void **state)
{
	struct policy_input input = reference;

	input.epoch_count = 0;
	assert_int_equal(policy_safety(&input), POLICY_SAFE);
	input.memory_pages = 25600 * 99;
	assert_int_equal(policy_safety(&input), POLICY_UNSAFE);
	input.epoch_count = COUNT(steady);
	assert_int_equal(policy_safety(&input), POLICY_SAFE);
}

static void next_epoch(void **state)
{
	static const struct {
		uint64_t since_epoch_ms, pages_per_s, interval_ms, next_ms;
	} cases[] = {
		{ 0, 25600, 30000, 30000 },
		{ 10000, 25600, 30000, 20000 },
		{ 30000, 25600, 30000, 0 },
		{ 31000, 25600, 30000, 0 },
		{ 0, 0, 30000, 30000 },           /* nothing measured: by the clock */
		{ 0, 100, 30000, 1000 },          /* never safe: as often as allowed */
		{ 400, 100, 30000, 600 },
		/* 26.1 s for each 30 s of the job: 98 s are full after 112 s, less the poll's 5 s. */
		{ 0, 980, 600000, 103125 },
	};
	struct policy_input input = reference;
	size_t i;

	for (i = 0; i < COUNT(cases); i++) {
		input.since_epoch_ms = cases[i].since_epoch_ms;
		input.pages_per_s = cases[i].pages_per_s;
		if (policy_next_epoch_ms(&input, cases[i].interval_ms, 1000) != cases[i].next_ms)
			fail_msg("case %zu: %llu", i,
				 (unsigned long long)policy_next_epoch_ms(&input, cases[i].interval_ms,
									  1000));
	}
}

/* Whatever the input: a wait of that length keeps the job safe if anything does. */
static void next_epoch_is_safe(void **state)
{
	struct policy_epoch epochs[4];
	struct policy_input input = reference;
	int round, i;

	srand(1);
	input.epochs = epochs;
	for (round = 0; round < 20000; round++) {
		uint64_t next_ms;

		input.epoch_count = rand() % 5;
		for (i = 0; i < 4; i++)
			epochs[i] = (struct policy_epoch){ rand() % 60000, rand() % 300000 };
		input.pages_per_s = rand() % 30000 + 1;
		input.since_epoch_ms = 0;
		next_ms = policy_next_epoch_ms(&input, 60000, 1000);
		assert_true(next_ms >= 1000 && next_ms <= 60000);
		input.since_epoch_ms = next_ms;
		assert_true(next_ms == 1000 || policy_safety(&input) == POLICY_SAFE);
	}
}

static void precopy(void **state)
{
	static const struct policy_epoch curve[] = { { 30000, 250000 }, { 8000, 25600 }, { 1000, 2560 } };
	static const struct {
		uint64_t previous_pages, this_pages, this_ms;
		int64_t left_ms;
		bool again;
	} cases[] = {
		{ 0, 250000, 9766, 100000, true },      /* the next round: 31250 pages, 1.3 s */
		{ 0, 250000, 9766, INT64_MAX, true },
		{ 0, 250000, 9766, 4000, false },       /* 2 * 1.3 + 2 > 4 */
		{ 0, 250000, 9766, 5000, true },
		{ 0, 250000, 9766, -1, false },
		{ 250000, 25600, 1000, 100000, true },  /* 2560 pages: 100 ms */
		{ 25600, 2560, 100, 100000, false },    /* no longer worth it */
		{ 25600, 20000, 1000, 100000, false },  /* shrinks too little */
		{ 25600, 19200, 1000, 100000, true },
		{ 25600, 30000, 1200, 100000, false },  /* grows */
		{ 0, 0, 0, 100000, false },
	};
	struct policy_input input = reference;
	size_t i;

	input.epochs = curve;
	input.epoch_count = COUNT(curve);
	for (i = 0; i < COUNT(cases); i++)
		if (policy_precopy_again(&input, cases[i].previous_pages, cases[i].this_pages,
					 cases[i].this_ms, cases[i].left_ms) != cases[i].again)
			fail_msg("case %zu", i);
	input.pages_per_s = 0;
	assert_false(policy_precopy_again(&input, 0, 1000, 1000, INT64_MAX));
	/* A job that writes faster than the store takes: one round, then freeze. */
	input.pages_per_s = 2560;
	assert_false(policy_precopy_again(&input, 0, 250000, 97656, INT64_MAX));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_pages),       cmocka_unit_test(forecast_and_safety),
		cmocka_unit_test(first_epoch_decides), cmocka_unit_test(next_epoch),
		cmocka_unit_test(next_epoch_is_safe),  cmocka_unit_test(precopy),
		cmocka_unit_test(daly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
