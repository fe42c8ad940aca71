// SPDX-License-Identifier: GPL-2.0
#include "thin.h"

#include <errno.h>
#include <stdlib.h>

#include "pagemap_private.h"

/* With more segments than these the small ones are put together, however full they are. */
#define SEGMENTS_MANY 1024

/* Waste, in percent of live data: at more than begin something is done, until it is end. */
struct bounds {
	unsigned int begin, end;
};

/* Segments that no checkpoint refers to go at once, so little waste is worth the way. */
static const struct bounds free_bounds = { 25, 15 };
/* Of all, pinned ones too. */
static const struct bounds all_bounds = { 30, 30 };

struct census {
	struct segment **list; /* each once */
	size_t count;
	size_t space;
	uint64_t live_bytes;   /* of all, in the map */
};

static int census_add(struct census *census, struct segment *segment)
{
	struct segment **list = census->list;

	if (census->count == census->space) {
		census->space = census->space ? census->space * 2 : 64;
		list = realloc(list, census->space * sizeof(*list));
		if (!list)
			return -ENOMEM;
		census->list = list;
	}
	list[census->count++] = segment;
	segment->live_bytes = 0;
	segment->counted = true;
	return 0;
}

/* A segment that was not seen whole yet is at least as long as its blocks say. */
static int census_block(struct census *census, const struct block *block)
{
	struct segment *segment = block->segment;
	uint64_t end = block->offset + block->stored;
	int err = segment->counted ? 0 : census_add(census, segment);

	if (err)
		return err;
	segment->live_bytes += (uint64_t)block->stored * block->live / block->pages;
	if (segment->bytes < end)
		segment->bytes = end;
	return 0;
}

static int census_take(struct census *census, const struct pagemap *map)
{
	int err = 0;
	uint32_t i;

	for (i = 0; i < map->block_count && !err; i++)
		if (map->blocks[i].segment && map->blocks[i].live && map->blocks[i].pages)
			err = census_block(census, &map->blocks[i]);
	for (i = 0; i < census->count; i++) {
		census->list[i]->counted = false;
		census->live_bytes += census->list[i]->live_bytes;
	}
	return err;
}

/* The share of it that is live, and with the same share the one that costs less first. */
static int by_share(const void *a, const void *b)
{
	const struct segment *first = *(struct segment *const *)a, *second = *(struct segment *const *)b;
	double one = (double)first->live_bytes / (double)first->bytes;
	double other = (double)second->live_bytes / (double)second->bytes;

	if (one != other)
		return one < other ? -1 : 1;
	return first->live_bytes < second->live_bytes ? -1 : first->live_bytes > second->live_bytes;
}

static void mark(struct pagemap *map, struct segment *segment)
{
	segment->thin = true;
	map->thin = true;
}

/* What a marked one has of live data it will have again elsewhere, without the waste. */
static void mark_waste(struct pagemap *map, const struct census *census, bool pinned,
		       const struct bounds *bounds)
{
	uint64_t bytes = 0, live = 0;
	size_t i;

	for (i = 0; i < census->count; i++) {
		if (census->list[i]->pinned && !pinned)
			continue;
		bytes += census->list[i]->thin ? census->list[i]->live_bytes : census->list[i]->bytes;
		live += census->list[i]->live_bytes;
	}
	if ((bytes - live) * 100 <= live * bounds->begin)
		return;
	for (i = 0; i < census->count && (bytes - live) * 100 > live * bounds->end; i++) {
		if (census->list[i]->thin || (census->list[i]->pinned && !pinned))
			continue;
		mark(map, census->list[i]);
		bytes -= census->list[i]->bytes - census->list[i]->live_bytes;
	}
}

/* All those together are a quarter of all, at most. */
static void mark_small(struct pagemap *map, struct census *census)
{
	size_t i;

	for (i = 0; census->count > SEGMENTS_MANY && i < census->count; i++)
		if (census->list[i]->live_bytes < census->live_bytes / census->count / 4)
			mark(map, census->list[i]);
}

static void unmark_locked(struct pagemap *map)
{
	uint32_t i;

	for (i = 0; map->thin && i < map->block_count; i++)
		if (map->blocks[i].segment)
			map->blocks[i].segment->thin = false;
	map->thin = false;
}

void thin_unmark(struct pagemap *map)
{
	pagemap_lock(map);
	unmark_locked(map);
	pagemap_unlock(map);
}

int thin_mark(struct pagemap *map, enum thin_time when)
{
	struct census census = { 0 };
	int err;

	pagemap_lock(map);
	unmark_locked(map);
	err = census_take(&census, map);
	if (!err && census.count) {
		qsort(census.list, census.count, sizeof(*census.list), by_share);
		mark_waste(map, &census, false, &free_bounds);
		if (when == THIN_BEFORE_CHECKPOINT)
			mark_waste(map, &census, true, &all_bounds);
		mark_small(map, &census);
	}
	pagemap_unlock(map);
	free(census.list);
	return err;
}

static bool page_thin(const struct pagemap *map, const struct leaf *leaf, unsigned int i)
{
	return leaf->held & (1ULL << i) && leaf->block[i] != BLOCK_ZERO &&
	       map->blocks[leaf->block[i]].segment->thin;
}

int thin_regions(const struct space *space, struct regions *regions)
{
	uint64_t number, address;
	struct leaf *leaf;
	unsigned int i;
	int err = 0;

	if (!space->map->thin)
		return 0;
	pagemap_lock(space->map);
	for (number = 0; !err && (leaf = space_next_leaf(space, &number)); number++) {
		for (i = 0; i < LEAF_PAGES && !err; i++) {
			address = (number * LEAF_PAGES + i) * PAGE_BYTES;
			if (page_thin(space->map, leaf, i))
				err = regions_add(regions, address, address + PAGE_BYTES, 0);
		}
	}
	pagemap_unlock(space->map);
	return err;
}
