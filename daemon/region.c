// SPDX-License-Identifier: GPL-2.0
#include "region.h"

#include <errno.h>
#include <stdlib.h>

static int regions_reserve(struct regions *regions)
{
	size_t space = regions->space ? regions->space * 2 : 64;
	struct region *list;

	if (regions->count < regions->space)
		return 0;
	list = reallocarray(regions->list, space, sizeof(*list));
	if (!list)
		return -ENOMEM;
	regions->list = list;
	regions->space = space;
	return 0;
}

int regions_add(struct regions *regions, uint64_t start, uint64_t end, uint32_t categories)
{
	struct region *last = regions->count ? &regions->list[regions->count - 1] : NULL;
	int err;

	if (start >= end)
		return 0;
	if (last && last->end == start && last->categories == categories) {
		last->end = end;
		return 0;
	}
	err = regions_reserve(regions);
	if (!err)
		regions->list[regions->count++] =
			(struct region){ .start = start, .end = end, .categories = categories };
	return err;
}

/* One end of a region. */
struct edge {
	uint64_t address;
	uint32_t categories;
	int step;		/* 1 begins, -1 ends */
};

static int edge_compare(const void *left, const void *right)
{
	const struct edge *a = left, *b = right;

	return (a->address > b->address) - (a->address < b->address);
}

static struct edge *edges_of(const struct regions *regions)
{
	struct edge *edges = reallocarray(NULL, regions->count, 2 * sizeof(*edges));

	for (size_t i = 0; edges && i < regions->count; i++) {
		const struct region *region = &regions->list[i];

		edges[2 * i] = (struct edge){ region->start, region->categories, 1 };
		edges[2 * i + 1] = (struct edge){ region->end, region->categories, -1 };
	}
	if (edges)
		qsort(edges, 2 * regions->count, sizeof(*edges), edge_compare);
	return edges;
}

/* How many regions there are at an address, and how many have each category. */
struct depth {
	int regions;
	int category[32];
};

static void depth_step(struct depth *depth, const struct edge *edge)
{
	depth->regions += edge->step;
	for (int bit = 0; bit < 32; bit++)
		if (edge->categories >> bit & 1)
			depth->category[bit] += edge->step;
}

static uint32_t depth_categories(const struct depth *depth)
{
	uint32_t categories = 0;

	for (int bit = 0; bit < 32; bit++)
		if (depth->category[bit])
			categories |= 1u << bit;
	return categories;
}

int regions_normalise(struct regions *regions)
{
	struct regions sorted = {};
	struct depth depth = {};
	struct edge *edges;
	int err = 0;

	if (!regions->count)
		return 0;
	edges = edges_of(regions);
	if (!edges)
		return -ENOMEM;
	for (size_t i = 0; !err && i < 2 * regions->count; i++) {
		if (i && depth.regions)
			err = regions_add(&sorted, edges[i - 1].address, edges[i].address, depth_categories(&depth));
		depth_step(&depth, &edges[i]);
	}
	free(edges);
	regions_free(err ? &sorted : regions);
	if (!err)
		*regions = sorted;
	return err;
}

struct regions_mark regions_mark(const struct regions *regions)
{
	return (struct regions_mark){
		.count = regions->count,
		.end = regions->count ? regions->list[regions->count - 1].end : 0,
	};
}

/* The last region of then may have been extended since. */
void regions_cut(struct regions *regions, struct regions_mark mark)
{
	regions->count = mark.count;
	if (mark.count)
		regions->list[mark.count - 1].end = mark.end;
}

uint64_t regions_pages(const struct regions *regions)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < regions->count; i++)
		bytes += regions->list[i].end - regions->list[i].start;
	return bytes / PAGE_BYTES;
}

void regions_clear(struct regions *regions)
{
	regions->count = 0;
}

void regions_free(struct regions *regions)
{
	free(regions->list);
	*regions = (struct regions){};
}
