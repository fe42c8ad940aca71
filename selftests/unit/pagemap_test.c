// SPDX-License-Identifier: GPL-2.0
/* The page map against an array that says what it must hold. */
#include "pagemap_private.h"

#define MODEL_PAGES 64
#include "store_fixture.h"

#define PAGES 4096
#define BLOCKS 64

static uint32_t wanted[PAGES]; /* block + 1; 0: not held */

static uint64_t page_address(unsigned int page)
{
	/* Over three levels of the tree. */
	return ((uint64_t)(page / 512) << 40) + (uint64_t)(page / 64 % 8) * (1 << 28) +
	       page % 64 * 4096ULL;
}

static struct page_hash hash_of(uint32_t value)
{
	return (struct page_hash){ .low = value, .high = ~(uint64_t)value };
}

static void check(struct space *space, struct pagemap *map)
{
	uint64_t number, live[BLOCKS] = { 0 }, pages = 0;
	unsigned int i, page = 0;
	struct leaf *leaf;

	for (i = 0; i < PAGES; i++) {
		assert_int_equal(space_holds(space, page_address(i)), wanted[i] > 0);
		if (wanted[i])
			live[wanted[i] - 1]++;
		pages += wanted[i] > 0;
	}
	assert_int_equal(space_pages(space), pages);
	assert_int_equal(pagemap_pages(map), pages);
	for (number = 0; (leaf = space_next_leaf(space, &number)); number++) {
		for (i = 0; i < LEAF_PAGES; i++) {
			if (!(leaf->held & (1ULL << i)))
				continue;
			while (!wanted[page])
				page++;
			assert_int_equal(page_address(page), (number * 64 + i) * 4096);
			assert_int_equal(leaf->block[i], wanted[page] - 1);
			page++;
		}
	}
	for (i = 0; i < BLOCKS; i++)
		assert_int_equal(map->blocks[i].segment ? map->blocks[i].live : 0, live[i]);
}

static void check_runs(struct space *space, uint64_t *random)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		uint64_t start = page_address(next_random(random) % PAGES), at = start;
		uint64_t end = start + (1 + next_random(random) % 200) * 4096;

		while (at < end && space_holds(space, at) == space_holds(space, start))
			at += 4096;
		assert_int_equal(space_run_end(space, start, end), at);
	}
}

static void forget(struct space *space, unsigned int first, unsigned int last)
{
	unsigned int i;

	space_forget(space, page_address(first), page_address(last) + 4096);
	for (i = first; i <= last; i++)
		wanted[i] = 0;
}

static void retain(struct space *space, uint64_t *random)
{
	struct regions regions = { 0 };
	unsigned int i, page = 0, end;

	while (page < PAGES) {
		end = page + next_random(random) % 300;
		for (i = page; i < end && i < PAGES; i++)
			wanted[i] = 0;
		page = end;
		end = page + 1 + next_random(random) % 1500;
		end = end < PAGES ? end : PAGES;
		if (page < end)
			assert_int_equal(regions_add(&regions, page_address(page),
						     page_address(end - 1) + 4096, 0), 0);
		page = end;
	}
	space_retain(space, &regions);
	regions_free(&regions);
}

static void test_random(void **state)
{
	struct segment *segment = segment_create(NULL, 1, 1, SEGMENT_COMMITTED);
	struct pagemap *map = pagemap_create();
	struct space *space = pagemap_space(map, SPACE_TASK, 1);
	uint64_t random = 12345;
	uint32_t block;
	unsigned int round, i;

	/* One page of each block keeps it; it is in another space. */
	segment->state = SEGMENT_PENDING;
	for (i = 0; i < BLOCKS; i++) {
		assert_int_equal(pagemap_add_block(map, segment, &block), 0);
		assert_int_equal(block, i);
	}
	memset(wanted, 0, sizeof(wanted));
	for (round = 0; round < 300; round++) {
		for (i = 0; i < 100; i++) {
			unsigned int page = next_random(&random) % PAGES;

			block = next_random(&random) % BLOCKS;
			assert_int_equal(space_put(space, page_address(page), block, i % 64,
						   hash_of(i)), 0);
			assert_int_equal(space_compare(space, page_address(page), hash_of(i)), SPACE_SAME);
			assert_int_equal(space_compare(space, page_address(page), hash_of(i + 1)), SPACE_DIFFERS);
			wanted[page] = block + 1;
		}
		i = next_random(&random) % PAGES;
		forget(space, i, i + next_random(&random) % (PAGES - i));
		if (round % 20 == 19)
			retain(space, &random);
		check_runs(space, &random);
		check(space, map);
	}
	forget(space, 0, PAGES - 1);
	check(space, map);
	assert_null(space->root);
	pagemap_destroy(map);
	segment_put(segment);
}

static void test_bounds(void **state)
{
	struct pagemap *map = pagemap_create();
	struct space *space = pagemap_space(map, SPACE_TASK, 1);
	uint64_t number = 0;

	assert_int_equal(space_put(space, SPACE_END, BLOCK_ZERO, 0, hash_of(1)), -EINVAL);
	assert_int_equal(space_put(space, UINT64_MAX, BLOCK_ZERO, 0, hash_of(1)), -EINVAL);
	assert_false(space_holds(space, UINT64_MAX));
	assert_int_equal(space_put(space, SPACE_END - 4096, BLOCK_ZERO, 0, hash_of(1)), 0);
	assert_int_equal(space_put(space, 0, BLOCK_ZERO, 0, hash_of(1)), 0);
	assert_int_equal(space_pages(space), 2);
	assert_non_null(space_next_leaf(space, &number));
	assert_int_equal(number, 0);
	number++;
	assert_non_null(space_next_leaf(space, &number));
	assert_int_equal(number, SPACE_END / 4096 / 64 - 1);
	number++;
	assert_null(space_next_leaf(space, &number));
	space_forget(space, 4096, SPACE_END - 4096);
	assert_int_equal(space_pages(space), 2);
	space_forget(space, 0, UINT64_MAX);
	assert_int_equal(space_pages(space), 0);
	space_forget(space, 0, UINT64_MAX);
	pagemap_destroy(map);
}

struct seen {
	unsigned int count;
	uint64_t last;
	struct pagemap *map;
};

static int see(struct space *space, void *arg)
{
	struct seen *seen = arg;
	uint64_t key = (uint64_t)space_kind(space) << 32 | space_id(space);

	assert_true(key > seen->last);
	seen->last = key;
	if (seen->map && seen->count % 2)
		pagemap_forget_space(seen->map, space_kind(space), space_id(space));
	return ++seen->count == 1000 ? -EIO : 0;
}

static void test_spaces(void **state)
{
	struct pagemap *map = pagemap_create();
	struct seen seen = { 0 };
	uint64_t random = 99;
	unsigned int i;

	assert_null(pagemap_find(map, SPACE_TASK, 5));
	for (i = 0; i < 50; i++) {
		assert_non_null(pagemap_space(map, SPACE_TASK, next_random(&random) % 100));
		assert_non_null(pagemap_space(map, SPACE_SHMEM, next_random(&random) % 100));
	}
	assert_ptr_equal(pagemap_space(map, SPACE_TASK, 7), pagemap_find(map, SPACE_TASK, 7));
	assert_int_equal(pagemap_for_each(map, see, &seen), 0);
	i = seen.count;
	seen = (struct seen){ .map = map };
	assert_int_equal(pagemap_for_each(map, see, &seen), 0);
	assert_int_equal(seen.count, i);
	seen = (struct seen){ 0 };
	assert_int_equal(pagemap_for_each(map, see, &seen), 0);
	assert_int_equal(seen.count, (i + 1) / 2);
	seen = (struct seen){ .count = 999 };
	assert_int_equal(pagemap_for_each(map, see, &seen), -EIO);
	pagemap_destroy(map);
}

static void test_block_numbers_are_used_again(void **state)
{
	struct pagemap *map = pagemap_create();
	struct segment *segment = segment_create(NULL, 1, 1, SEGMENT_COMMITTED);
	struct space *space = pagemap_space(map, SPACE_TASK, 1);
	unsigned int round, i;
	uint32_t block;

	for (round = 0; round < 1000; round++) {
		assert_int_equal(pagemap_add_block(map, segment, &block), 0);
		for (i = 0; i < 64; i++)
			assert_int_equal(space_put(space, i * 4096, block, i, hash_of(round)), 0);
	}
	assert_true(map->block_count <= 2);
	pagemap_destroy(map);
	assert_int_equal(segment->references, 1);
	segment_put(segment);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_spaces),
		cmocka_unit_test(test_block_numbers_are_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
