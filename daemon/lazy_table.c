// SPDX-License-Identifier: GPL-2.0
#include "lazy_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

bool regions_hold(const struct regions *regions, size_t *at, uint64_t address)
{
	while (*at < regions->count && regions->list[*at].end <= address)
		++*at;
	return *at < regions->count && regions->list[*at].start <= address;
}

/* ---- what is in it ---- */

/* Calls back for each page that may be lazy and is not zero: that comes by itself. */
typedef void (*lazy_each)(void *arg, uint64_t address, uint32_t block, unsigned int index);

static void space_each(const struct space *space, const struct regions *areas, lazy_each each, void *arg)
{
	struct leaf *leaf;
	uint64_t number, address;
	size_t at = 0;

	for (number = 0; (leaf = space_next_leaf(space, &number)); number++)
		for (unsigned int i = 0; i < LEAF_PAGES; i++) {
			address = (number * LEAF_PAGES + i) * PAGE_BYTES;
			if (leaf->held & 1ULL << i && leaf->block[i] != BLOCK_ZERO &&
			    regions_hold(areas, &at, address))
				each(arg, address, leaf->block[i], leaf->index[i]);
		}
}

static void areas_each(struct pagemap *map, const struct lazy_areas *areas, lazy_each each, void *arg)
{
	struct space *space = pagemap_find(map, SPACE_TASK, areas->id);

	if (space)
		space_each(space, &areas->regions, each, arg);
}

/* ---- making it ---- */

struct making {
	struct pagemap *map;
	const struct lazy_areas *areas;
	size_t count;
	struct lazy_table *table;
	uint32_t *uses;                 /* of each block of the map, then its number in the table */
	uint32_t *fill;                 /* of each block of the table: its next ref */
	uint64_t pages;
	uint32_t blocks;
};

static void count_page(void *arg, uint64_t address, uint32_t block, unsigned int index)
{
	struct making *making = arg;

	making->pages++;
	making->blocks += !making->uses[block]++;
}

static void add_page(void *arg, uint64_t address, uint32_t block, unsigned int index)
{
	struct making *making = arg;
	struct lazy_table *table = making->table;
	uint32_t page = table->head->page_count++;
	uint32_t number = making->uses[block];

	table->pages[page] = (struct lazy_page){ .address = address, .block = number, .index = index };
	table->refs[making->fill[number]++] = page;
}

static size_t part(size_t *bytes, uint64_t count, size_t size)
{
	size_t at = (*bytes + 15) & ~(size_t)15;

	*bytes = at + count * size;
	return at;
}

/* Where the parts are, by the head's counts. */
static void table_lay_out(struct lazy_table *table, uint8_t *base, uint32_t spaces, uint32_t pages,
			  uint32_t blocks)
{
	size_t bytes = 0;

	table->head = (struct lazy_head *)(base + part(&bytes, 1, sizeof(*table->head)));
	table->spaces = (struct lazy_space *)(base + part(&bytes, spaces, sizeof(*table->spaces)));
	table->pages = (struct lazy_page *)(base + part(&bytes, pages, sizeof(*table->pages)));
	table->blocks = (struct lazy_block *)(base + part(&bytes, blocks + 1ULL, sizeof(*table->blocks)));
	table->refs = (uint32_t *)(base + part(&bytes, pages, sizeof(*table->refs)));
	table->order = (uint32_t *)(base + part(&bytes, blocks, sizeof(*table->order)));
	table->hashes = (struct page_hash *)(base + part(&bytes, pages, sizeof(*table->hashes)));
	table->bytes = bytes;
}

static int table_create(struct making *making)
{
	struct lazy_table *table = making->table;
	cleanup_close int fd = memfd_create("ckpt-lazy", MFD_CLOEXEC);
	uint8_t *base;

	if (making->pages >= LAZY_NONE)
		return -EOVERFLOW;
	table_lay_out(table, NULL, (uint32_t)making->count, (uint32_t)making->pages, making->blocks);
	if (fd < 0 || ftruncate(fd, (off_t)table->bytes))
		return -errno;
	base = mmap(NULL, table->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	table_lay_out(table, base, (uint32_t)making->count, (uint32_t)making->pages, making->blocks);
	return take_fd(fd);
}

static void add_blocks(struct making *making)
{
	struct lazy_table *table = making->table;
	const struct block *blocks = making->map->blocks;
	uint32_t number = 0, first = 0;

	for (uint32_t i = 0; i < making->map->block_count; i++) {
		uint32_t uses = making->uses[i];

		if (!uses)
			continue;
		table->blocks[number] = (struct lazy_block){
			.term = blocks[i].segment->term, .number = blocks[i].segment->number,
			.offset = blocks[i].offset, .stored = blocks[i].stored, .pages = blocks[i].pages,
			.first = first };
		making->fill[number] = first;
		first += uses;
		making->uses[i] = number++;
	}
	table->blocks[number] = (struct lazy_block){ .first = first };
}

static int order_compare(const void *a, const void *b, void *arg)
{
	const struct lazy_block *blocks = arg;
	const struct lazy_block *one = &blocks[*(const uint32_t *)a], *other = &blocks[*(const uint32_t *)b];

	if (one->term != other->term)
		return one->term > other->term ? -1 : 1;
	if (one->number != other->number)
		return one->number > other->number ? -1 : 1;
	return one->offset < other->offset ? -1 : one->offset > other->offset;
}

static void table_fill(struct making *making)
{
	struct lazy_table *table = making->table;

	table->head->block_count = making->blocks;
	add_blocks(making);
	for (size_t i = 0; i < making->count; i++) {
		struct lazy_space *space = &table->spaces[table->head->space_count++];

		*space = (struct lazy_space){ .id = making->areas[i].id, .first = table->head->page_count };
		areas_each(making->map, &making->areas[i], add_page, making);
		space->count = table->head->page_count - space->first;
	}
	for (uint32_t i = 0; i < making->blocks; i++)
		table->order[i] = i;
	qsort_r(table->order, making->blocks, sizeof(*table->order), order_compare, table->blocks);
}

int lazy_table_make(struct lazy_table *table, struct pagemap *map, const struct lazy_areas *areas,
		    size_t count, struct problem *problem)
{
	struct making making = { .map = map, .areas = areas, .count = count, .table = table };
	int fd = -ENOMEM;

	memset(table, 0, sizeof(*table));
	making.uses = calloc(map->block_count + 1ULL, sizeof(*making.uses));
	for (size_t i = 0; i < count && making.uses; i++)
		areas_each(map, &areas[i], count_page, &making);
	making.fill = calloc(making.blocks + 1ULL, sizeof(*making.fill));
	if (making.uses && making.fill)
		fd = table_create(&making);
	if (fd >= 0)
		table_fill(&making);
	free(making.uses);
	free(making.fill);
	return fd < 0 ? problem_set(problem, -fd, "cannot list the job's pages: %s", strerror(-fd)) : fd;
}

/* ---- using it ---- */

int lazy_table_map(struct lazy_table *table, int fd)
{
	const struct lazy_head *head;
	struct stat st;
	uint8_t *base;

	if (fstat(fd, &st))
		return -errno;
	base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	head = (const struct lazy_head *)base;
	table_lay_out(table, base, head->space_count, head->page_count, head->block_count);
	return 0;
}

void lazy_table_unmap(struct lazy_table *table)
{
	if (table->head)
		munmap(table->head, table->bytes);
	memset(table, 0, sizeof(*table));
}

void lazy_table_take_hashes(const struct lazy_table *table, struct pagemap *map)
{
	for (uint32_t i = 0; i < table->head->space_count; i++) {
		const struct lazy_space *listed = &table->spaces[i];
		struct space *space = pagemap_find(map, SPACE_TASK, listed->id);

		for (uint32_t page = listed->first; space && page < listed->first + listed->count; page++)
			if (table->hashes[page].low || table->hashes[page].high)
				space_set_hash(space, table->pages[page].address, table->hashes[page]);
	}
}
