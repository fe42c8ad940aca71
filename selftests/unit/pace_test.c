// SPDX-License-Identifier: GPL-2.0
#include "pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POLL_MS 5000

static const struct class class = { .window_ms = 120000, .margin_ms = 15000, .reserve = 2 };

static struct policy_input input_of(const struct pace *pace, int64_t now_ms)
{
	return pace_input(pace, &class, POLL_MS, now_ms);
}

static void add(struct pace *pace, int64_t begun_ms, uint64_t pages, uint64_t stored, uint64_t ms)
{
	pace_add_pass(pace, &(struct pace_pass){ .begun_ms = begun_ms, .pages = pages,
						 .pages_stored = stored, .ms = ms });
}

static void add_full(struct pace *pace, int64_t begun_ms, uint64_t pages, uint64_t stored, uint64_t ms)
{
	pace_add_pass(pace, &(struct pace_pass){ .begun_ms = begun_ms, .pages = pages,
						 .pages_stored = stored, .ms = ms, .full = true });
}

static void nothing_known(void **state)
{
	struct pace pace = { .memory_pages = 1000 };
	struct policy_input input = input_of(&pace, 5000);

	assert_int_equal(policy_safety(&input), POLICY_UNKNOWN);
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
	assert_int_equal(policy_outstanding_pages(&input), 1000);
	assert_int_equal(input.reserve_percent, 200);
}

/* The first pass tells of the store, the second of the job. */
static void first_passes(void **state)
{
	struct pace pace = { .memory_pages = 100000 };
	struct policy_input input;

	add_full(&pace, 1000, 100000, 100000, 10000);
	input = input_of(&pace, 11000);
	assert_int_equal(policy_stream_ms(&input, 100000), 10000);
	assert_int_equal(policy_written_pages(&input, 1000), 100000);
	add(&pace, 31000, 5000, 5000, 500);
	input = input_of(&pace, 31000);
	assert_int_equal(policy_written_pages(&input, 30000), 5000);
	assert_int_equal(policy_stream_ms(&input, 5000), 500);
	assert_int_equal(policy_stream_ms(&input, 100000), 10000);
}

/* A job so small that it never streams much is safe as well. */
static void tiny_job(void **state)
{
	struct pace pace = { .memory_pages = 870 };
	struct policy_input input;

	add_full(&pace, 1000, 8, 8, 9);
	add(&pace, 31000, 55, 53, 6);
	input = input_of(&pace, 31000);
	assert_int_equal(policy_safety(&input), POLICY_SAFE);
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 10000);
}

/* Pages that are as they were do not go to the store: a pass of them says nothing of its speed. */
static void unchanged_pages(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };
	struct policy_input input;

	/* After a restore: all is read, nothing written. */
	add_full(&pace, 1000, 1000000, 10, 2000);
	input = input_of(&pace, 4000);
	assert_int_equal(policy_safety(&input), POLICY_UNKNOWN);
	add(&pace, 31000, 100000, 100000, 10000);
	input = input_of(&pace, 31000);
	assert_int_equal(policy_stream_ms(&input, 100000), 10000);
	/* Of what is written a tenth changes: also what is outstanding is believed to. */
	memset(&pace, 0, sizeof(pace));
	pace.memory_pages = 1000000;
	add_full(&pace, 1000, 1000000, 1000000, 100000);
	add(&pace, 131000, 100000, 10000, 1000);
	input = input_of(&pace, 131000);
	assert_in_range(policy_stream_ms(&input, 100000), 1000, 1200);
}

/* A look shows a part of the curve that no pass sees. */
static void looks(void **state)
{
	struct pace pace = { .memory_pages = 100000 };
	struct policy_input input;

	add_full(&pace, 1000, 100000, 100000, 10000);
	pace_add_look(&pace, 700, 12000);
	input = input_of(&pace, 12000);
	assert_int_equal(input.outstanding_pages, 700);
	assert_int_equal(policy_written_pages(&input, 11000), 700);
	pace_add_look(&pace, POLICY_NOT_LOOKED, 13000);
	input = input_of(&pace, 13000);
	assert_true(input.outstanding_pages == POLICY_NOT_LOOKED);
	pace_add_look(&pace, 9000, 100000);
	add(&pace, 101000, 9000, 9000, 900);
	input = input_of(&pace, 101000);
	assert_true(input.outstanding_pages == POLICY_NOT_LOOKED);
	assert_int_equal(pace.looked_percent, 100);
	/* Grown mappings look written all over: passes find less, and looks are believed less. */
	pace_add_look(&pace, 8000, 150000);
	add(&pace, 151000, 800, 800, 90);
	assert_int_equal(pace.looked_percent, 77);
	pace_add_look(&pace, 8000, 200000);
	input = input_of(&pace, 200000);
	assert_int_equal(input.outstanding_pages, 6160);
	/* The other way round at once. */
	add(&pace, 201000, 8000, 8000, 800);
	assert_int_equal(pace.looked_percent, 100);
}

static void lost(void **state)
{
	struct pace pace = { .memory_pages = 100000 };
	struct policy_input input;

	add_full(&pace, 1000, 100000, 100000, 10000);
	add(&pace, 31000, 5000, 5000, 500);
	pace_lose(&pace);
	input = input_of(&pace, 32000);
	assert_int_equal(policy_outstanding_pages(&input), 100000);
	assert_int_equal(policy_wait_ms(&input, POLICY_NEVER, 1000), 0);
	/* The pass after it is full and is no interval of the job's. */
	add_full(&pace, 40000, 100000, 0, 1000);
	input = input_of(&pace, 40000);
	assert_int_equal(policy_written_pages(&input, 30000), 5000);
}

/* The worst of a phase fades when it has not come back for long. */
static void phases_fade(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };
	struct policy_input input;
	int64_t now = 1000;
	int i;

	add_full(&pace, now, 1000000, 1000000, 100000);
	now += 30000;
	add(&pace, now, 90000, 90000, 9000);
	for (i = 0; i < 16; i++) {
		now += 30000;
		add(&pace, now, 1000, 1000, 100);
	}
	input = input_of(&pace, now);
	assert_int_equal(policy_written_pages(&input, 30000), 90000);
	for (i = 0; i < 16; i++) {
		now += 30000;
		add(&pace, now, 1000, 1000, 100);
	}
	input = input_of(&pace, now);
	assert_int_equal(policy_written_pages(&input, 30000), 1000);
}

static void storage_slows(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };
	struct policy_input input;
	int64_t now = 1000;

	add_full(&pace, now, 1000000, 1000000, 100000);
	add(&pace, now += 60000, 10000, 10000, 1000);
	assert_int_equal(input_of(&pace, now).reserve_percent, 200);
	add(&pace, now += 60000, 10000, 10000, 4000);
	input = input_of(&pace, now);
	assert_int_equal(policy_stream_ms(&input, 10000), 2500);
	/* That it can be four times slower is remembered for a while. */
	assert_int_equal(input.reserve_percent, 400);
	for (int i = 0; i < 60; i++)
		add(&pace, now += 60000, 10000, 10000, 1000);
	input = input_of(&pace, now);
	assert_int_equal(policy_stream_ms(&input, 10000), 1000);
	assert_int_equal(input.reserve_percent, 200);
	/* What was seen after a notice is not forgotten by passes without one. */
	pace_add_pass(&pace, &(struct pace_pass){ .begun_ms = now += 60000, .pages = 10000,
						  .pages_stored = 10000, .ms = 10000, .noticed = true });
	for (int i = 0; i < 60; i++)
		add(&pace, now += 60000, 10000, 10000, 1000);
	assert_in_range(input_of(&pace, now).reserve_percent, 900, 1000);
}

/* reserve = auto: much while streaming is cheap, less when it takes the job's time. */
static void affordable_reserve(void **state)
{
	static const struct class automatic = { .window_ms = 120000, .margin_ms = 15000,
						.reserve = CONFIG_AUTO };
	struct pace pace = { .memory_pages = 1000000 };
	int64_t now = 1000;

	assert_int_equal(pace_input(&pace, &automatic, POLL_MS, now).reserve_percent, 1000);
	add_full(&pace, now, 1000000, 1000000, 1000000);
	assert_int_equal(pace_input(&pace, &automatic, POLL_MS, now).reserve_percent, 1000);
	for (int i = 0; i < 20; i++)
		add(&pace, now += 60000, 10000, 10000, 10000);
	assert_int_equal(pace_input(&pace, &automatic, POLL_MS, now).reserve_percent, 200);
	for (int i = 0; i < 40; i++)
		add(&pace, now += 60000, 10000, 10000, 1000);
	assert_int_equal(pace_input(&pace, &automatic, POLL_MS, now).reserve_percent, 1000);
}

/* While a pass is at work after a notice, what it sees of the store counts, if it is worse. */
static void pass_at_work(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };
	struct policy_input input;

	add_full(&pace, 1000, 1000000, 1000000, 100000);
	add(&pace, 200000, 10000, 10000, 1000);
	input = pace_input_pass(&pace, &class, 210000, 1000, 400, 5000);
	assert_int_equal(input.left_pages, 5000);
	assert_int_equal(policy_stream_ms(&input, 10000), 1000);
	input = pace_input_pass(&pace, &class, 210000, 10000, 1000, 5000);
	assert_int_equal(policy_stream_ms(&input, 10000), 1000);
	input = pace_input_pass(&pace, &class, 210000, 1000, 1000, 5000);
	assert_int_equal(policy_stream_ms(&input, 10000), 10000);
	assert_int_equal(input.reserve_percent, 125);
	input = pace_input_pass(&pace, &class, 210000, 0, 1000, 5000);
	assert_int_equal(policy_stream_ms(&input, 5000), 5000000);
}

static void limits(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };

	add_full(&pace, 1000, 1000000, 1000000, 100000);
	assert_int_equal(input_of(&pace, 2000).held_percent, 100);
	pace_add_pass(&pace, &(struct pace_pass){ .begun_ms = 200000, .pages = 10000, .pages_stored = 10000,
						  .ms = 1000, .held_ms = 3000 });
	assert_int_equal(input_of(&pace, 210000).held_percent, 400);
	assert_int_equal(policy_stream_ms(&(struct policy_input[]){ input_of(&pace, 210000) }[0], 10000), 1000);
	/* After a notice there are none, and what comes then is held as before. */
	pace_add_pass(&pace, &(struct pace_pass){ .begun_ms = 300000, .pages = 10000, .pages_stored = 10000,
						  .ms = 1000, .noticed = true });
	assert_int_equal(input_of(&pace, 310000).held_percent, 400);
	/* Nor are there when the job stands still; and of a few pages nobody can tell. */
	pace_add_pass(&pace, &(struct pace_pass){ .begun_ms = 400000, .pages = 10000, .pages_stored = 10000,
						  .ms = 1000, .full = true, .frozen = true });
	add(&pace, 500000, 10, 10, 1);
	assert_int_equal(input_of(&pace, 510000).held_percent, 400);
	add(&pace, 600000, 10000, 10000, 1000);
	assert_int_equal(input_of(&pace, 610000).held_percent, 100);
}

/* What is stored again because of where it lies takes time, and says nothing of what the job writes. */
static void thin_pages(void **state)
{
	struct pace pace = { .memory_pages = 1000000 };
	struct policy_input input;

	add_full(&pace, 1000, 1000000, 1000000, 100000);
	pace_add_pass(&pace, &(struct pace_pass){ .begun_ms = 200000, .pages = 10000, .pages_stored = 5000,
						  .pages_thin = 15000, .ms = 2000 });
	input = input_of(&pace, 200000);
	assert_int_equal(policy_written_pages(&input, 100000), 10000);
	assert_int_equal(input.changed_percent, 51);
	assert_int_equal(policy_stream_ms(&input, 20000), 1020);
}

static void fixed_part(void **state)
{
	struct pace pace = { .memory_pages = 4 * 262144 };

	/* Not measured: by the memory. */
	assert_int_equal(input_of(&pace, 1000).fixed_ms, 1600);
	pace_add_checkpoint(&pace, 800, 5000);
	assert_int_equal(input_of(&pace, 6000).fixed_ms, 800);
	pace.memory_pages *= 3;
	assert_int_equal(input_of(&pace, 6000).fixed_ms, 2400);
	pace_add_checkpoint(&pace, 2000, 7000);
	assert_int_equal(input_of(&pace, 8000).fixed_ms, 2000);
	pace.memory_pages = 1;
	pace_add_checkpoint(&pace, 400, 9000);
	assert_int_equal(input_of(&pace, 9000).fixed_ms, 1600);
}

static void moves_with_the_job(void **state)
{
	struct pace pace = { .memory_pages = 1000000 }, again;
	struct policy_input before, after;
	json_t *json;

	add_full(&pace, 1000, 1000000, 1000000, 100000);
	pace_add_look(&pace, 3000, 150000);
	add(&pace, 160000, 4000, 1000, 100);
	add(&pace, 190000, 40000, 4000, 1000);
	pace_add_checkpoint(&pace, 1500, 200000);
	pace.window_percent = 700;
	json = pace_to_json(&pace);
	pace_from_json(&again, json);
	json_decref(json);
	before = input_of(&pace, 200000);
	after = input_of(&again, 0);
	assert_int_equal(before.points, after.points);
	assert_memory_equal(before.curve, after.curve, sizeof(before.curve));
	assert_memory_equal(before.passes, after.passes, sizeof(before.passes));
	assert_int_equal(before.changed_percent, after.changed_percent);
	assert_int_equal(before.fixed_ms, after.fixed_ms);
	assert_int_equal(after.reserve_percent, 700);
	/* There nothing is tracked yet. */
	assert_int_equal(policy_outstanding_pages(&after), 1000000);
}

/* It comes from the store: whatever it holds, the answers are numbers. */
static void json_of_anything(void **state)
{
	static const char *const texts[] = {
		"null", "[]", "{}", "{\"curve\": 5, \"passes\": {}, \"scan\": [], \"memory_pages\": \"x\"}",
		"{\"curve\": [[1], [0, 5], [1000, -1, 7, 8], [9223372036854775807, 1, 1, 1], \"a\", []]}",
		"{\"passes\": [[1, 0], [9223372036854775807, 1], [5, 9223372036854775807], [281474976710655, 1]]}",
		"{\"window_percent\": 999999999, \"slow_percent\": -5, \"looked_percent\": 1000, "
		"\"changed_percent\": [500, -1], \"fixed_ms\": 281474976710655, \"memory_pages\": 1}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		json_t *json = json_loads(texts[i], JSON_DECODE_ANY, NULL);
		struct policy_input input;
		struct pace pace;

		pace_from_json(&pace, json);
		json_decref(json);
		input = input_of(&pace, 1000);
		assert_true(input.reserve_percent >= 200 && input.reserve_percent <= 2000);
		assert_in_range(input.changed_percent, 1, 100);
		policy_wait_ms(&input, POLICY_NEVER, 1000);
		policy_safety(&input);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_known), cmocka_unit_test(first_passes), cmocka_unit_test(tiny_job),
		cmocka_unit_test(unchanged_pages), cmocka_unit_test(looks),
		cmocka_unit_test(lost),		 cmocka_unit_test(phases_fade),
		cmocka_unit_test(storage_slows), cmocka_unit_test(pass_at_work),
		cmocka_unit_test(affordable_reserve), cmocka_unit_test(limits), cmocka_unit_test(thin_pages),
		cmocka_unit_test(fixed_part),	 cmocka_unit_test(moves_with_the_job),
		cmocka_unit_test(json_of_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
