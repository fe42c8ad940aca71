// SPDX-License-Identifier: GPL-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "advice.h"

#define PAGES_PER_GIB 262144ull

/* 64 GiB, of which 1 GiB is written in a minute, to a store that takes 1 GiB in 10 s. */
static struct advice_input job(void)
{
	return (struct advice_input){
		.policy = {
			.curve = { { 60000, PAGES_PER_GIB, PAGES_PER_GIB / 2, PAGES_PER_GIB / 4 } },
			.points = 1,
			.passes = { { PAGES_PER_GIB, 10000 } },
			.pass_count = 1,
			.changed_percent = 100,
			.held_percent = 100,
			.memory_pages = 64 * PAGES_PER_GIB,
			.outstanding_pages = POLICY_NOT_LOOKED,
			.fixed_ms = 5000,
			.poll_ms = 1000,
			.window_ms = 120000,
			.margin_ms = 15000,
			.reserve_percent = 200,
		},
		.frozen_ms = 2000,
		.stream_ms = 10000,
		.restore_ms = 60000,
		.mtbf_ms = 24 * 3600000ull,
		.cost = 10,
	};
}

static void test_epoch(void **state)
{
	struct advice_input input = job();
	struct advice_epoch epoch = advice_epoch(&input, 60000), longer = advice_epoch(&input, 120000);

	assert_int_equal(epoch.most_pages, PAGES_PER_GIB);
	assert_int_equal(epoch.usual_pages, PAGES_PER_GIB / 2);
	assert_int_equal(epoch.pass_ms, 10000);
	/* 70 s of writing are outstanding right before the pass is durable: 11.7 s, and 6 s besides. */
	assert_true(epoch.forecast_ms > 17000 && epoch.forecast_ms < 18500);
	assert_int_equal(epoch.safety, POLICY_SAFE);
	assert_true(longer.forecast_ms > epoch.forecast_ms && longer.pages_per_hour <= epoch.pages_per_hour);
	assert_true(epoch.busy > 0.07 && epoch.busy < 0.08);
}

static void test_longest(void **state)
{
	struct advice_input input = job();
	uint64_t longest_ms = advice_longest_ms(&input);

	assert_true(longest_ms > 60000 && longest_ms < 3600000);
	assert_int_equal(advice_epoch(&input, longest_ms).safety, POLICY_SAFE);
	assert_int_not_equal(advice_epoch(&input, longest_ms + 1000).safety, POLICY_SAFE);
	/* All its memory fits. */
	input.policy.memory_pages = PAGES_PER_GIB;
	assert_int_equal(advice_longest_ms(&input), 24 * 3600000ull);
	/* CRIU alone takes longer than the window. */
	input.policy.fixed_ms = 200000;
	assert_int_equal(advice_longest_ms(&input), 0);
}

static void test_nothing_measured(void **state)
{
	struct advice_input input = job();
	struct advice_epoch epoch;

	input.policy.pass_count = 0;
	epoch = advice_epoch(&input, 60000);
	assert_true(epoch.pass_ms == POLICY_NEVER && epoch.forecast_ms == POLICY_NEVER);
	assert_int_not_equal(epoch.safety, POLICY_SAFE);
	assert_int_equal(advice_longest_ms(&input), 0);
}

static void test_checkpoint(void **state)
{
	struct advice_input input = job();
	struct advice_checkpoint checkpoint = advice_checkpoint(&input, 3600000);

	assert_true(checkpoint.stopped > 0.00083 && checkpoint.stopped < 0.00084);  /* 3 s of an hour */
	assert_true(checkpoint.lost > 0.0215 && checkpoint.lost < 0.0216);          /* 31 minutes of a day */
	assert_true(checkpoint.cost_per_hour > 0.22 && checkpoint.cost_per_hour < 0.23);
	/* What the daemon would choose costs less than others. */
	for (uint64_t other = 300000; other <= 28800000; other *= 2) {
		uint64_t best = policy_checkpoint_ms(input.frozen_ms, input.stream_ms, input.mtbf_ms);

		assert_true(advice_checkpoint(&input, best).cost_per_hour <= advice_checkpoint(&input, other).cost_per_hour * 1.001);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_nothing_measured),
		cmocka_unit_test(test_checkpoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
