// SPDX-License-Identifier: GPL-2.0
/* CRIU's images of mappings: which memory may come lazily, and which CRIU would leave out. */
#include "image_maker.h"

#include <errno.h>
#include <sys/mman.h>

#include "vma_image.h"

#define P(n) ((uint64_t)(n) * PAGE_BYTES)
#define MAGIC_MM 0x57492820
#define PROCESS 300
#define NAME "mm-300.img"

static struct problem problem;

static void put_vma(struct image *mm, uint64_t start, uint64_t end, uint64_t flags, uint64_t status, uint64_t advice)
{
	const uint64_t values[] = { start, end, 0, 0, PROT_READ, flags, status, 1, advice };
	struct image vma = { .length = 0 };

	for (unsigned int i = 0; i < 9; i++)
		put_number(&vma, i + 1, values[i]);
	put_message(mm, 14, &vma);
}

static void save(const struct image *mm, size_t missing)
{
	struct image image = image_of(MAGIC_MM, mm, missing);

	image_save(NAME, &image);
}

static int read_lazy(const struct image *mm, size_t missing, const struct regions *pointed, struct regions *regions)
{
	int ret;

	save(mm, missing);
	ret = vma_image_lazy(image_directory, PROCESS, pointed, regions, &problem);
	image_remove(NAME);
	return ret;
}

static int check(const struct image *mm, size_t missing)
{
	int ret;

	save(mm, missing);
	ret = vma_images_check(image_directory, &problem);
	image_remove(NAME);
	return ret;
}

static void assert_region(const struct regions *regions, size_t i, uint64_t start, uint64_t end)
{
	assert_true(i < regions->count);
	assert_int_equal(regions->list[i].start, start);
	assert_int_equal(regions->list[i].end, end);
}

static void only_private_anonymous_memory_may_be_lazy(void **state)
{
	const struct regions none = { 0 };
	const uint64_t anon = MAP_PRIVATE | MAP_ANONYMOUS, regular = 1 | 1 << 9;
	struct regions regions = { 0 };
	struct image mm = { .length = 0 };

	put_number(&mm, 1, 0x400000);
	put_vma(&mm, P(1), P(3), anon, regular, 0);
	put_vma(&mm, P(3), P(5), anon, regular | 1 << 5, 1ull << MADV_HUGEPAGE);
	put_vma(&mm, P(6), P(7), MAP_PRIVATE, 1 | 1 << 6, 0);
	put_vma(&mm, P(7), P(8), MAP_SHARED | MAP_ANONYMOUS, 1 | 1 << 8, 0);
	put_vma(&mm, P(8), P(9), anon | MAP_LOCKED, regular, 0);
	put_vma(&mm, P(9), P(10), anon | MAP_HUGETLB, regular, 0);
	put_vma(&mm, P(10), P(11), anon, regular | 1 << 3, 0);
	put_vma(&mm, P(11), P(12), anon, regular, 1ull << MADV_WIPEONFORK);
	put_vma(&mm, P(12), P(13), anon, regular | 1 << 15, 0);
	assert_int_equal(read_lazy(&mm, 0, &none, &regions), 0);
	assert_int_equal(regions.count, 2);
	assert_int_equal(regions.list[0].start, P(1));
	assert_int_equal(regions.list[1].end, P(5));
	regions_free(&regions);
	/* Of what is cut nothing is believed. */
	for (size_t cut = 1; cut < 20; cut++)
		assert_true(read_lazy(&mm, cut, &none, &regions) < 0);
	regions_free(&regions);
}

static void advice_is_added(void **state)
{
	const uint64_t anon = MAP_PRIVATE | MAP_ANONYMOUS, regular = 1 | 1 << 9;
	struct region in[] = { { P(3), P(6), 0 } };
	const struct regions wiped = { .list = in, .count = 1 }, none = { 0 };
	struct regions regions = { 0 };
	struct image mm = { .length = 0 };

	put_vma(&mm, P(1), P(3), anon, regular, 0);
	put_vma(&mm, P(3), P(5), anon, regular, 1ull << MADV_HUGEPAGE);
	put_vma(&mm, P(5), P(6), anon, regular, 0);
	put_vma(&mm, P(6), P(7), anon, regular, 0);
	save(&mm, 0);
	/* What is emptied in children is not lazy. */
	for (int times = 0; times < 2; times++) {
		assert_int_equal(vma_image_advise(image_directory, PROCESS, &wiped, MADV_WIPEONFORK, &problem), 0);
		assert_int_equal(vma_image_lazy(image_directory, PROCESS, &none, &regions, &problem), 0);
		assert_int_equal(regions.count, 2);
		assert_region(&regions, 0, P(1), P(3));
		assert_region(&regions, 1, P(6), P(7));
		regions_free(&regions);
	}
	assert_int_equal(vma_image_advise(image_directory, PROCESS + 1, &wiped, MADV_WIPEONFORK, &problem), -ENOENT);
	image_remove(NAME);
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
		struct image mm = { .length = 0 };

		put_vma(&mm, P(1), P(3), MAP_PRIVATE, 1, 0);
		put_vma(&mm, cases[i].start, cases[i].end, MAP_PRIVATE | MAP_ANONYMOUS, 1, 0);
		assert_int_equal(check(&mm, 0), cases[i].expected);
		assert_true(check(&mm, 1) < 0);
	}
}

static void what_the_kernel_does_not_wait_for_is_not_lazy(void **state)
{
	struct region in[] = { { P(1), P(3), 0 }, { P(5), P(6), 0 }, { P(18), P(19), 0 } };
	const struct regions pointed = { .list = in, .count = 3 };
	struct regions regions = { 0 };
	struct image mm = { .length = 0 };

	put_number(&mm, 8, P(10) + 1);
	put_number(&mm, 9, P(11) + 1);
	put_number(&mm, 10, P(11) + 1);
	put_number(&mm, 11, P(12));
	put_vma(&mm, P(2), P(20), MAP_PRIVATE | MAP_ANONYMOUS, 1 | 1 << 9, 0);
	put_vma(&mm, P(20), P(21), MAP_PRIVATE | MAP_ANONYMOUS, 1 | 1 << 9, 0);
	assert_int_equal(read_lazy(&mm, 0, &pointed, &regions), 0);
	assert_int_equal(regions.count, 5);
	assert_region(&regions, 0, P(3), P(5));
	assert_region(&regions, 1, P(6), P(10));
	assert_region(&regions, 2, P(12), P(18));
	assert_region(&regions, 3, P(19), P(20));
	assert_region(&regions, 4, P(20), P(21));
	regions_free(&regions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(high_memory_is_refused),
		cmocka_unit_test(advice_is_added),
		cmocka_unit_test(only_private_anonymous_memory_may_be_lazy),
		cmocka_unit_test(what_the_kernel_does_not_wait_for_is_not_lazy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
