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

#include "core_image.h"
#include "lazy_memory.h"
#include "lazy_order.h"
#include "vma_image.h"

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

/* ---- CRIU's mappings ---- */

struct bytes {
	uint8_t data[512];
	size_t length;
};

static void put(struct bytes *bytes, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		bytes->data[bytes->length++] = (uint8_t)(value | 0x80);
	bytes->data[bytes->length++] = (uint8_t)value;
}

static void put_vma(struct bytes *mm, uint64_t start, uint64_t end, uint64_t flags, uint64_t status, uint64_t advice)
{
	struct bytes vma = { .length = 0 };
	const uint64_t values[] = { start, end, 0, 0, PROT_READ, flags, status, 1, advice };

	for (unsigned int i = 0; i < 9; i++) {
		put(&vma, (i + 1) << 3);
		put(&vma, values[i]);
	}
	put(mm, 14 << 3 | 2);
	put(mm, vma.length);
	memcpy(mm->data + mm->length, vma.data, vma.length);
	mm->length += vma.length;
}

/* Of the mappings when regions is NULL. */
static int read_image(const struct bytes *mm, size_t cut, const struct regions *pointed, struct regions *regions)
{
	const uint32_t header[] = { 0x54564319, 0x57492820, (uint32_t)mm->length };
	char directory[] = "/tmp/ckpt-lazy-XXXXXX", path[64];
	FILE *file;
	int ret;

	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/mm-300.img", directory);
	file = fopen(path, "w");
	fwrite(header, sizeof(header), 1, file);
	fwrite(mm->data, mm->length - cut, 1, file);
	fclose(file);
	ret = regions ? vma_image_lazy(directory, 300, pointed, regions, NULL) : vma_images_check(directory, NULL);
	unlink(path);
	rmdir(directory);
	return ret;
}

static void only_private_anonymous_memory_may_be_lazy(void **state)
{
	const struct regions none = { 0 };
	const uint64_t anon = MAP_PRIVATE | MAP_ANONYMOUS, regular = 1 | 1 << 9;
	struct regions regions = { 0 };
	struct bytes mm = { .length = 0 };

	put(&mm, 1 << 3);
	put(&mm, 0x400000);
	put_vma(&mm, P(1), P(3), anon, regular, 0);
	put_vma(&mm, P(3), P(5), anon, regular | 1 << 5, 1ull << MADV_HUGEPAGE);
	put_vma(&mm, P(6), P(7), MAP_PRIVATE, 1 | 1 << 6, 0);
	put_vma(&mm, P(7), P(8), MAP_SHARED | MAP_ANONYMOUS, 1 | 1 << 8, 0);
	put_vma(&mm, P(8), P(9), anon | MAP_LOCKED, regular, 0);
	put_vma(&mm, P(9), P(10), anon | MAP_HUGETLB, regular, 0);
	put_vma(&mm, P(10), P(11), anon, regular | 1 << 3, 0);
	put_vma(&mm, P(11), P(12), anon, regular, 1ull << MADV_WIPEONFORK);
	put_vma(&mm, P(12), P(13), anon, regular | 1 << 15, 0);
	assert_int_equal(read_image(&mm, 0, &none, &regions), 0);
	assert_int_equal(regions.count, 2);
	assert_int_equal(regions.list[0].start, P(1));
	assert_int_equal(regions.list[1].end, P(5));
	regions_free(&regions);
	/* Of what is cut nothing is believed. */
	for (size_t cut = 1; cut < 20; cut++)
		assert_true(read_image(&mm, cut, &none, &regions) < 0);
	regions_free(&regions);
}

static void assert_region(const struct regions *regions, size_t i, uint64_t start, uint64_t end)
{
	assert_true(i < regions->count);
	assert_int_equal(regions->list[i].start, start);
	assert_int_equal(regions->list[i].end, end);
}

static void advice_is_added(void **state)
{
	const uint64_t anon = MAP_PRIVATE | MAP_ANONYMOUS, regular = 1 | 1 << 9;
	struct region in[] = { { P(3), P(6), 0 } };
	const struct regions wiped = { .list = in, .count = 1 }, none = { 0 };
	struct regions regions = { 0 };
	struct bytes mm = { .length = 0 };
	char directory[] = "/tmp/ckpt-lazy-XXXXXX", path[64];
	uint32_t header[] = { 0x54564319, 0x57492820, 0 };
	FILE *file;

	put_vma(&mm, P(1), P(3), anon, regular, 0);
	put_vma(&mm, P(3), P(5), anon, regular, 1ull << MADV_HUGEPAGE);
	put_vma(&mm, P(5), P(6), anon, regular, 0);
	put_vma(&mm, P(6), P(7), anon, regular, 0);
	header[2] = (uint32_t)mm.length;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/mm-300.img", directory);
	file = fopen(path, "w");
	fwrite(header, sizeof(header), 1, file);
	fwrite(mm.data, mm.length, 1, file);
	fclose(file);
	/* What is emptied in children is not lazy. */
	for (int times = 0; times < 2; times++) {
		assert_int_equal(vma_image_advise(directory, 300, &wiped, MADV_WIPEONFORK, NULL), 0);
		assert_int_equal(vma_image_lazy(directory, 300, &none, &regions, NULL), 0);
		assert_int_equal(regions.count, 2);
		assert_region(&regions, 0, P(1), P(3));
		assert_region(&regions, 1, P(6), P(7));
		regions_free(&regions);
	}
	assert_true(vma_image_advise(directory, 301, &wiped, MADV_WIPEONFORK, NULL) < 0);
	unlink(path);
	rmdir(directory);
}

/* CRIU leaves it out, all of it when only a part is too high. */
static void high_memory_is_refused(void **state)
{
	static const struct {
		uint64_t start, end;
		int expected;
	} cases[] = {
		{ P(1), P(2), 0 },
		{ 0x7fffffffd000, 0x7ffffffff000, 0 },
		{ 0x7fffffffd000, 0x800000000000, -ENOTSUP },
		{ 1ull << 50, (1ull << 50) + P(1), -ENOTSUP },
		{ 0xffffffffff600000, 0xffffffffff601000, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct bytes mm = { .length = 0 };

		put_vma(&mm, P(1), P(3), MAP_PRIVATE, 1, 0);
		put_vma(&mm, cases[i].start, cases[i].end, MAP_PRIVATE | MAP_ANONYMOUS, 1, 0);
		assert_int_equal(read_image(&mm, 0, NULL, NULL), cases[i].expected);
		assert_true(read_image(&mm, 1, NULL, NULL) < 0);
	}
}

static void put_number(struct bytes *bytes, unsigned int field, uint64_t value)
{
	put(bytes, field << 3);
	put(bytes, value);
}

static void what_the_kernel_does_not_wait_for_is_not_lazy(void **state)
{
	struct region in[] = { { P(1), P(3), 0 }, { P(5), P(6), 0 }, { P(18), P(19), 0 } };
	const struct regions pointed = { .list = in, .count = 3 };
	struct regions regions = { 0 };
	struct bytes mm = { .length = 0 };

	put_number(&mm, 8, P(10) + 1);
	put_number(&mm, 9, P(11) + 1);
	put_number(&mm, 10, P(11) + 1);
	put_number(&mm, 11, P(12));
	put_vma(&mm, P(2), P(20), MAP_PRIVATE | MAP_ANONYMOUS, 1 | 1 << 9, 0);
	put_vma(&mm, P(20), P(21), MAP_PRIVATE | MAP_ANONYMOUS, 1 | 1 << 9, 0);
	assert_int_equal(read_image(&mm, 0, &pointed, &regions), 0);
	assert_int_equal(regions.count, 5);
	assert_region(&regions, 0, P(3), P(5));
	assert_region(&regions, 1, P(6), P(10));
	assert_region(&regions, 2, P(12), P(18));
	assert_region(&regions, 3, P(19), P(20));
	assert_region(&regions, 4, P(20), P(21));
	regions_free(&regions);
}

static void put_inner(struct bytes *bytes, unsigned int field, const struct bytes *inner)
{
	put(bytes, field << 3 | 2);
	put(bytes, inner->length);
	memcpy(bytes->data + bytes->length, inner->data, inner->length);
	bytes->length += inner->length;
}

/* As CRIU writes it: core_image.h. */
static void put_core(struct bytes *core, uint64_t clear_tid, uint64_t robust_list, uint64_t address)
{
	struct bytes info = { .length = 0 }, registers = { .length = 0 }, thread = { .length = 0 };
	struct bytes ids = { .length = 0 };

	put_number(&ids, 1, P(90));
	put_number(&registers, 1, 42);
	put_number(&registers, 15, address);
	put_number(&registers, 19, 1ULL << 60);
	put_number(&info, 1, clear_tid);
	put_inner(&info, 2, &registers);
	put_number(&thread, 1, robust_list);
	put_number(&thread, 2, P(90));
	put_number(core, 1, 1);
	put_inner(core, 2, &info);
	put_inner(core, 4, &ids);
	put_inner(core, 5, &thread);
}

static int read_core(const struct bytes *core, size_t cut, struct regions *regions)
{
	const uint32_t header[] = { 0x54564319, 0x55053847, (uint32_t)(core->length - cut) };
	char directory[] = "/tmp/ckpt-lazy-XXXXXX", path[64];
	FILE *file;
	int ret;

	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/core-301.img", directory);
	file = fopen(path, "w");
	fwrite(header, sizeof(header), 1, file);
	fwrite(core->data, core->length - cut, 1, file);
	fclose(file);
	ret = core_images_pointed(directory, regions, NULL);
	unlink(path);
	rmdir(directory);
	return ret;
}

static void threads_point_to_pages(void **state)
{
	struct regions regions = { 0 };
	struct bytes core = { .length = 0 };

	put_core(&core, P(7) + 8, P(9) + 16, P(8) + 4095);
	assert_int_equal(read_core(&core, 0, &regions), 0);
	assert_int_equal(regions.count, 1);
	assert_region(&regions, 0, P(7), P(10));
	/* Of what is cut nothing is believed. */
	for (size_t cut = 1; cut < 10; cut++)
		assert_true(read_core(&core, cut, &regions) < 0);
	regions_free(&regions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_follows_what_is_done),
		cmocka_unit_test(of_an_unknown_process_nothing_is_missing),
		cmocka_unit_test(order_matters_where_it_does),
		cmocka_unit_test(a_group_too_large_is_not_clear),
		cmocka_unit_test(high_memory_is_refused),
		cmocka_unit_test(advice_is_added),
		cmocka_unit_test(only_private_anonymous_memory_may_be_lazy),
		cmocka_unit_test(what_the_kernel_does_not_wait_for_is_not_lazy),
		cmocka_unit_test(threads_point_to_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
