// SPDX-License-Identifier: GPL-2.0
/* The simulator behind `ckptbench policy`, and with it what the deadline policy promises. */
#include "race.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "region.h"
#include "trace_made.h"

#define MIB_PAGES 256.0
#define SLOW_TRACE "memory 64G\nset hot random 1G\nset state sweep 40G\n0s store 1G\n" \
		   "0s hot 500M\n0s state 30M\nnotice store 10%\n"

static int read_text(struct trace *trace, const char *text, struct problem *problem)
{
	FILE *file = fmemopen((void *)text, strlen(text), "r");
	int ret;

	assert_non_null(file);
	ret = trace_read(trace, file, "t", problem);
	fclose(file);
	return ret;
}

static struct trace read_good(const char *text)
{
	struct problem problem;
	struct trace trace;

	if (read_text(&trace, text, &problem))
		fail_msg("%s", problem.text);
	return trace;
}

static void assert_near(double found, double expected)
{
	if (fabs(found - expected) > 1e-6 * (fabs(expected) + 1))
		fail_msg("%f, expected %f", found, expected);
}

static void bad_traces(void **state)
{
	static const struct {
		const char *text;
		const char *words;
	} cases[] = {
		{ "", "t: 'memory SIZE' is missing" },
		{ "memory 1G\n", "t: '0s store RATE' is missing" },
		{ "memory 1G\n1s store 1G\n", "t:2: " },
		{ "memory 1G\n0s store 0\n", "t:2: " },
		{ "memory 1G\n0s store 1G\n5s store 1G\n4s store 1G\n", "t:4: " },
		{ "memory 1G\n0s store 1G\n5s store 1G\nrepeat 5s\n", "t: 'repeat' comes before" },
		{ "memory\n", "t:1: " }, { "memory 1X\n", "t:1: " }, { "memory -1G\n", "t:1: " },
		{ "memory 1G 2G\n", "t:1: " }, { "memory nan\n", "t:1: " }, { "memory 1e300G\n", "t:1: " },
		{ "set a sweep 0\n", "t:1: " }, { "set a none 1G\n", "t:1: " }, { "set a sweep\n", "t:1: " },
		{ "set store sweep 1G\n", "t:1: " }, { "set a sweep 1G\nset a grow 1G\n", "t:2: " },
		{ "memory 1G\n0s b 1G\n", "t:2: " }, { "notice store 10\n", "t:1: " },
		{ "notice store 0%\n", "t:1: " }, { "notice a 10%\n", "t:1: " }, { "fixed 1s 1s 1s\n", "t:1: " },
		{ "a b c d e\n", "t:1: " },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct problem problem;
		struct trace trace;

		assert_int_equal(read_text(&trace, cases[i].text, &problem), -EINVAL);
		if (strncmp(problem.text, cases[i].words, strlen(cases[i].words)))
			fail_msg("case %zu: %s", i, problem.text);
	}
}

static void what_is_written(void **state)
{
	struct trace trace = read_good("memory 1G # and more\nset a sweep 100M\nset b random 10M\nset c grow 50M\n"
				       "fixed 500ms 1s\nrepeat 100s\n"
				       "0s store 10M\n0s a 2M\n0s c 1M\n50s a 0\n50s b 1M\n");

	assert_near(trace_written(&trace, 0, 10), 30 * MIB_PAGES);
	assert_near(trace_written(&trace, 45, 50), 15 * MIB_PAGES);
	assert_near(trace_written(&trace, 50, 60), 10 * (1 - exp(-1)) * MIB_PAGES);
	/* Across the repetition; nothing grows any more, and a is swept at most once. */
	assert_near(trace_written(&trace, 100, 150), 100 * MIB_PAGES);
	assert_near(trace_written(&trace, 100, 250), (100 + 10 * (1 - exp(-5))) * MIB_PAGES);
	assert_near(trace_memory(&trace, 20), (1024 + 20) * MIB_PAGES);
	assert_near(trace_memory(&trace, 2000), (1024 + 50) * MIB_PAGES);
	assert_near(trace_fixed(&trace, 0), 1.5);
	trace_free(&trace);
}

static void what_is_stored(void **state)
{
	struct trace trace = read_good("memory 1G\n0s store 10M\n100s store 5M\nnotice store 50%\n");

	assert_near(trace_stored(&trace, 0, 0, INFINITY), 0.05);
	assert_near(trace_stored(&trace, 0, 100 * MIB_PAGES, INFINITY), 10.05);
	assert_near(trace_stored(&trace, 94.95, 100 * MIB_PAGES, INFINITY), 110);
	assert_near(trace_stored(&trace, 0, 100 * MIB_PAGES, 5.05), 15.05);
	assert_near(trace_stored(&trace, 0, 100 * MIB_PAGES, 0), 20.05);
	assert_near(trace_streamed(&trace, 90, 110, INFINITY), 150 * MIB_PAGES);
	assert_near(trace_streamed(&trace, 90, 110, 95), 100 * MIB_PAGES);
	trace_free(&trace);
}

/* A job whose memory never fits the window, and that writes all of it all the time: nobody makes it. */
static void nobody_makes_it(void **state)
{
	struct trace trace = read_good("memory 100G\nset a sweep 100G\n0s a 10G\n0s store 100M\n");
	struct race_settings settings;
	struct race_result result;

	race_settings_init(&settings);
	settings.interruptions = 50;
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	assert_int_equal(result.feasible, 0);
	trace_free(&trace);
}

/* One that has to be streamed ahead: without epochs, or with rare ones, none is made. */
static void only_epochs_make_it(void **state)
{
	struct trace trace = read_good("memory 100G\nset a sweep 100G\n0s a 20M\n0s store 100M\n");
	struct race_settings settings;
	struct race_result result;

	race_settings_init(&settings);
	settings.interruptions = 200;
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	/* But for the first epoch, of 1024 s. */
	assert_in_range(result.feasible, 170, 199);
	assert_int_equal(result.automatic.made, result.feasible);
	assert_int_equal(result.none.made, 0);
	assert_true(result.fixed[RACE_INTERVALS - 1].made < result.feasible);
	trace_free(&trace);
}

/*
 * What the policy promises for the shapes that simulation codes have: every interruption that can be
 * made is made, for little more than what the best fixed interval writes, which nobody knows before.
 * Not part of it are storage that is slower than the reserve after a notice, and 4 TiB, where what the
 * oracle makes leaves no room for a margin.
 */
static void policy_makes_all(void **state)
{
	struct race_settings settings;
	struct problem problem;
	struct trace trace;

	race_settings_init(&settings);
	settings.interruptions = 300;
	for (size_t shape = 0; trace_shape(shape); shape++) {
		for (const struct trace_node *node = trace_nodes; node->memory_gib; node++) {
			struct race_result result;

			if (!strncmp(trace_shape(shape), "slow", 4) || node->memory_gib > 2000)
				continue;
			/* Only storage that is uneven by itself needs a reserve. */
			settings.class.reserve = strcmp(trace_shape(shape), "uneven store") ? 1 : 2;
			assert_int_equal(trace_make(&trace, shape, node, &problem), 0);
			assert_int_equal(race_run(&result, &trace, &settings), 0);
			if (result.automatic.made != result.feasible)
				fail_msg("%s of %.0f GiB: %u of %u made", trace_shape(shape), node->memory_gib,
					 result.automatic.made, result.feasible);
			if (settings.class.reserve == 1 && race_ratio(&result) > 1.2)
				fail_msg("%s of %.0f GiB: %.2f times the bytes", trace_shape(shape),
					 node->memory_gib, race_ratio(&result));
			trace_free(&trace);
		}
	}
}

/* Storage that drops to a tenth with the notice is made by those who have seen it, or were told. */
static void slow_after_notice(void **state)
{
	struct race_settings settings;
	struct race_result result;
	struct trace trace;

	race_settings_init(&settings);
	settings.interruptions = 300;
	trace = read_good(SLOW_TRACE "notice seen 10%\n");
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	assert_int_equal(result.automatic.made, result.feasible);
	trace_free(&trace);
	trace = read_good(SLOW_TRACE);
	settings.class.reserve = 2;
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	assert_true(result.automatic.made < result.feasible);
	assert_in_range(result.learnt_percent, 900, 1100);
	settings.class.reserve = CONFIG_AUTO;
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	assert_int_equal(result.automatic.made, result.feasible);
	settings.class.reserve = 10;
	assert_int_equal(race_run(&result, &trace, &settings), 0);
	assert_int_equal(result.automatic.made, result.feasible);
	trace_free(&trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_traces),	       cmocka_unit_test(what_is_written),
		cmocka_unit_test(what_is_stored),      cmocka_unit_test(nobody_makes_it),
		cmocka_unit_test(only_epochs_make_it), cmocka_unit_test(policy_makes_all),
		cmocka_unit_test(slow_after_notice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
