// SPDX-License-Identifier: GPL-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "region.h"

#define P(n) ((uint64_t)(n) * PAGE_BYTES)

static void add(struct regions *regions, uint64_t start, uint64_t end, uint32_t categories)
{
	assert_int_equal(regions_add(regions, P(start), P(end), categories), 0);
}

static void expect(const struct regions *regions, size_t i, uint64_t start, uint64_t end, uint32_t categories)
{
	assert_true(i < regions->count);
	assert_int_equal(regions->list[i].start, P(start));
	assert_int_equal(regions->list[i].end, P(end));
	assert_int_equal(regions->list[i].categories, categories);
}

static void add_joins_touching_of_same_categories(void **state)
{
	struct regions regions = {};

	add(&regions, 1, 2, 1);
	add(&regions, 2, 4, 1);
	add(&regions, 4, 5, 2);
	add(&regions, 6, 7, 2);
	assert_int_equal(regions.count, 3);
	expect(&regions, 0, 1, 4, 1);
	expect(&regions, 1, 4, 5, 2);
	expect(&regions, 2, 6, 7, 2);
	assert_int_equal(regions_pages(&regions), 5);
	regions_free(&regions);
}

static void add_ignores_empty(void **state)
{
	struct regions regions = {};

	add(&regions, 3, 3, 1);
	assert_int_equal(regions.count, 0);
	assert_int_equal(regions_normalise(&regions), 0);
	regions_free(&regions);
}

static void normalise_sorts(void **state)
{
	struct regions regions = {};

	add(&regions, 8, 9, 1);
	add(&regions, 1, 2, 1);
	add(&regions, 2, 3, 1);
	add(&regions, 4, 5, 1);
	assert_int_equal(regions_normalise(&regions), 0);
	assert_int_equal(regions.count, 3);
	expect(&regions, 0, 1, 3, 1);
	expect(&regions, 1, 4, 5, 1);
	expect(&regions, 2, 8, 9, 1);
	regions_free(&regions);
}

static void normalise_unites_categories_where_regions_overlap(void **state)
{
	struct regions regions = {};

	add(&regions, 4, 10, 2);
	add(&regions, 0, 6, 1);
	add(&regions, 5, 6, 4);
	assert_int_equal(regions_normalise(&regions), 0);
	assert_int_equal(regions.count, 4);
	expect(&regions, 0, 0, 4, 1);
	expect(&regions, 1, 4, 5, 3);
	expect(&regions, 2, 5, 6, 7);
	expect(&regions, 3, 6, 10, 2);
	regions_free(&regions);
}

static void normalise_joins_what_becomes_the_same(void **state)
{
	struct regions regions = {};

	add(&regions, 0, 4, 1);
	add(&regions, 2, 6, 1);
	add(&regions, 6, 7, 1);
	assert_int_equal(regions_normalise(&regions), 0);
	assert_int_equal(regions.count, 1);
	expect(&regions, 0, 0, 7, 1);
	regions_free(&regions);
}

/* Against a page by page picture. */
static void normalise_agrees_with_a_map_of_pages(void **state)
{
	unsigned int seed = 1;

	for (int round = 0; round < 200; round++) {
		uint32_t map[64] = {}, again[64] = {};
		struct regions regions = {};

		for (int i = 0; i < 12; i++) {
			uint64_t start = rand_r(&seed) % 60, end = start + rand_r(&seed) % 5;
			uint32_t categories = 1u << rand_r(&seed) % 3;

			add(&regions, start, end, categories);
			for (; start < end; start++)
				map[start] |= categories;
		}
		assert_int_equal(regions_normalise(&regions), 0);
		for (size_t i = 0; i < regions.count; i++) {
			assert_true(!i || regions.list[i - 1].end <= regions.list[i].start);
			for (uint64_t a = regions.list[i].start; a < regions.list[i].end; a += PAGE_BYTES)
				again[a / PAGE_BYTES] = regions.list[i].categories;
		}
		assert_memory_equal(map, again, sizeof(map));
		regions_free(&regions);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add_joins_touching_of_same_categories),
		cmocka_unit_test(add_ignores_empty),
		cmocka_unit_test(normalise_sorts),
		cmocka_unit_test(normalise_unites_categories_where_regions_overlap),
		cmocka_unit_test(normalise_joins_what_becomes_the_same),
		cmocka_unit_test(normalise_agrees_with_a_map_of_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
