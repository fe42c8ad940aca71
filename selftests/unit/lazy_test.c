// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "lazy_memory.h"
#include "lazy_order.h"

#define P(n) ((uint64_t)(n) * PAGE_BYTES)

/* ---- what is missing ---- */

#define PAGES 4096
#define PLACES 8192

/* A table of one space: pages at 0 to PAGES - 1, with holes. */
static struct lazy_head head;
static struct lazy_space space = { .id = 7 };
static struct lazy_page pages[PAGES];
static struct lazy_table table = { .head = &head, .spaces = &space, .pages = pages };

static void table_make(unsigned int holes)
{
	space.count = 0;
	for (uint32_t i = 0; i < PAGES; i++)
		if (!holes || i % holes)
			pages[space.count++] = (struct lazy_page){ .address = P(i) };
	head = (struct lazy_head){ .space_count = 1, .page_count = space.count };
}

/* The model: which page each place misses, LAZY_NONE: none. */
static uint32_t places[PLACES];

static void compare(struct lazy_memory *memory)
{
	uint32_t missing = 0;

	for (uint32_t i = 0; i < PLACES; i++) {
		assert_int_equal(lazy_memory_find(memory, P(i)), places[i]);
		if (places[i] == LAZY_NONE)
			continue;
		missing++;
		assert_true(lazy_memory_misses(memory, places[i]));
		assert_int_equal(lazy_memory_address(memory, places[i]), P(i));
	}
	assert_int_equal(memory->missing_count, missing);
}

static bool model_misses(uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		if (places[i] != LAZY_NONE)
			return true;
	return false;
}

static void step(struct lazy_memory *memory)
{
	uint32_t count = 1 + (uint32_t)rand() % 300, from = (uint32_t)rand() % (PLACES - count);
	uint32_t to = (uint32_t)rand() % (PLACES - count), moved[300];

	assert_int_equal(lazy_memory_misses_any(memory, P(from), P(from + count)), model_misses(from, count));
	switch (rand() % 4) {
	case 0:
		assert_int_equal(lazy_memory_drop(memory, P(from), P(from + count)), 0);
		memset(&places[from], 0xff, count * sizeof(*places));
		break;
	case 1:
		if (from < to + count && to < from + count)
			break; /* mremap refuses that */
		assert_int_equal(lazy_memory_move(memory, P(from), P(to), P(count)), 0);
		memcpy(moved, &places[from], count * sizeof(*places));
		memset(&places[from], 0xff, count * sizeof(*places));
		memcpy(&places[to], moved, count * sizeof(*places));
		break;
	default:
		if (places[from] == LAZY_NONE)
			break;
		lazy_memory_given(memory, places[from]);
		places[from] = LAZY_NONE;
	}
}

static void it_follows_what_is_done(void **state)
{
	for (unsigned int seed = 1; seed < 60; seed++) {
		struct lazy_memory memory, child;

		srand(seed);
		table_make(seed % 7);
		memset(places, 0xff, sizeof(places));
		for (uint32_t i = 0; i < space.count; i++)
			places[pages[i].address / PAGE_BYTES] = i;
		assert_int_equal(lazy_memory_init(&memory, &table, 7), 0);
		for (int i = 0; i < 200; i++)
			step(&memory);
		compare(&memory);
		/* A child has what its parent had, whatever that does afterwards. */
		assert_int_equal(lazy_memory_copy(&child, &memory), 0);
		assert_int_equal(lazy_memory_drop(&memory, 0, P(PLACES)), 0);
		assert_int_equal(memory.missing_count, 0);
		compare(&child);
		lazy_memory_free(&memory);
		lazy_memory_free(&child);
	}
}

static void of_an_unknown_process_nothing_is_missing(void **state)
{
	struct lazy_memory memory, child;

	table_make(0);
	assert_int_equal(lazy_memory_init(&memory, &table, 8), 0);
	assert_int_equal(lazy_memory_find(&memory, P(1)), LAZY_NONE);
	assert_int_equal(lazy_memory_drop(&memory, 0, P(5)), 0);
	assert_int_equal(lazy_memory_move(&memory, 0, P(50), P(5)), 0);
	assert_int_equal(lazy_memory_copy(&child, &memory), 0);
	assert_false(lazy_memory_misses(&child, 1));
	lazy_memory_free(&memory);
	lazy_memory_free(&child);
}

/* ---- the order of events ---- */

#define FORK { .kind = LAZY_FORK }
#define DROP(first, end) { .kind = LAZY_DROP, .from = P(first), .from_end = P(end) }
#define MOVE(first, end, where) { .kind = LAZY_MOVE, .from = P(first), .from_end = P(end), .to = P(where), \
				  .to_end = P((where) + (end) - (first)) }

static void order_matters_where_it_does(void **state)
{
	static const struct {
		struct lazy_change earlier, later;
		bool clear;
	} cases[] = {
		{ DROP(1, 9), DROP(3, 5), true },
		{ FORK, FORK, true },
		{ FORK, DROP(1, 2), false },
		{ DROP(1, 2), FORK, false },
		{ MOVE(1, 5, 10), FORK, false },
		/* mremap's own: the target's unmapping before, the source's after. */
		{ DROP(10, 14), MOVE(1, 5, 10), true },
		{ MOVE(1, 5, 10), DROP(1, 5), true },
		/* Somebody's late word of what was there before, or a real one. */
		{ MOVE(1, 5, 10), DROP(12, 13), false },
		/* Into the place that another is just leaving. */
		{ MOVE(1, 5, 10), MOVE(20, 24, 1), false },
		{ MOVE(1, 5, 10), MOVE(10, 14, 30), false },
		{ MOVE(1, 5, 10), MOVE(20, 24, 30), true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lazy_order order = { 0 };

		assert_true(lazy_order_add(&order, &cases[i].earlier));
		assert_int_equal(lazy_order_add(&order, &cases[i].later), cases[i].clear);
		/* When none was under way between them there is an order. */
		lazy_order_settle(&order);
		assert_true(lazy_order_add(&order, &cases[i].later));
	}
}

static void a_group_too_large_is_not_clear(void **state)
{
	struct lazy_order order = { 0 };
	struct lazy_change change = DROP(1, 2);

	for (int i = 0; i < LAZY_GROUP_MAX; i++)
		assert_true(lazy_order_add(&order, &change));
	assert_false(lazy_order_add(&order, &change));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_follows_what_is_done),
		cmocka_unit_test(of_an_unknown_process_nothing_is_missing),
		cmocka_unit_test(order_matters_where_it_does),
		cmocka_unit_test(a_group_too_large_is_not_clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
