// SPDX-License-Identifier: GPL-2.0
#include "lazy_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t range_length(const struct lazy_range *range)
{
	return range->end - range->start;
}

static uint64_t page_address(const struct lazy_memory *memory, uint32_t page)
{
	return memory->table->pages[page].address;
}

static size_t missing_words(const struct lazy_space *space)
{
	return (space->count + 63) / 64;
}

/* ---- ranges ---- */

static int range_insert(struct lazy_memory *memory, size_t at, struct lazy_range range)
{
	if (memory->count == memory->room) {
		size_t room = memory->room ? memory->room * 2 : 32;
		struct lazy_range *grown = reallocarray(memory->ranges, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		memory->ranges = grown;
		memory->room = room;
	}
	memmove(memory->ranges + at + 1, memory->ranges + at, (memory->count - at) * sizeof(range));
	memory->ranges[at] = range;
	memory->count++;
	return 0;
}

/* The first range that ends behind the address. */
static size_t range_find(const struct lazy_memory *memory, uint64_t address)
{
	size_t low = 0, high = memory->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (memory->ranges[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Afterwards no range reaches over the address. */
static int range_split(struct lazy_memory *memory, uint64_t address)
{
	size_t at = range_find(memory, address);
	struct lazy_range tail;
	int ret;

	if (at == memory->count || memory->ranges[at].start >= address)
		return 0;
	tail = memory->ranges[at];
	tail.then += address - tail.start;
	tail.start = address;
	ret = range_insert(memory, at + 1, tail);
	if (ret == 0)
		memory->ranges[at].end = address;
	return ret;
}

/* Pages that follow each other without a gap of more than this are one range. */
#define GAP_BYTES (1ULL << 30)

static int ranges_init(struct lazy_memory *memory)
{
	const struct lazy_page *pages = memory->table->pages + memory->space->first;
	struct lazy_range range = { 0 };
	int ret = 0;

	for (uint32_t i = 0; i < memory->space->count && ret == 0; i++) {
		uint64_t address = pages[i].address;

		if (i == 0 || address - range.end > GAP_BYTES) {
			if (i)
				ret = range_insert(memory, memory->count, range);
			range.start = range.then = address;
		}
		range.end = address + PAGE_BYTES;
	}
	return ret ? ret : range_insert(memory, memory->count, range);
}

/* ---- life ---- */

static const struct lazy_space *space_of(const struct lazy_table *table, uint64_t id)
{
	for (uint32_t i = 0; i < table->head->space_count; i++)
		if (table->spaces[i].id == id && table->spaces[i].count)
			return &table->spaces[i];
	return NULL;
}

int lazy_memory_init(struct lazy_memory *memory, const struct lazy_table *table, uint64_t id)
{
	*memory = (struct lazy_memory){ .table = table, .space = space_of(table, id) };
	if (!memory->space)
		return 0;
	memory->missing_count = memory->space->count;
	memory->missing = calloc(missing_words(memory->space), sizeof(*memory->missing));
	if (!memory->missing)
		return -ENOMEM;
	for (uint32_t i = 0; i < memory->space->count; i++)
		memory->missing[i / 64] |= 1ULL << i % 64;
	return ranges_init(memory);
}

int lazy_memory_copy(struct lazy_memory *memory, const struct lazy_memory *from)
{
	*memory = *from;
	memory->missing = NULL;
	memory->ranges = NULL;
	memory->room = memory->count;
	if (!memory->space)
		return 0;
	memory->missing = calloc(missing_words(memory->space), sizeof(*memory->missing));
	memory->ranges = calloc(memory->count + 1, sizeof(*memory->ranges));
	if (!memory->missing || !memory->ranges) {
		lazy_memory_free(memory);
		return -ENOMEM;
	}
	memcpy(memory->missing, from->missing, missing_words(memory->space) * sizeof(*memory->missing));
	memcpy(memory->ranges, from->ranges, memory->count * sizeof(*memory->ranges));
	return 0;
}

void lazy_memory_free(struct lazy_memory *memory)
{
	free(memory->missing);
	free(memory->ranges);
	memory->missing = NULL;
	memory->ranges = NULL;
	memory->count = memory->room = 0;
	memory->missing_count = 0;
	memory->space = NULL;
}

/* ---- pages ---- */

/* The first page of the space that was at the address then, or behind it. */
static uint32_t page_from(const struct lazy_memory *memory, uint64_t then)
{
	uint32_t low = memory->space->first, high = low + memory->space->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (page_address(memory, middle) < then)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint32_t pages_end(const struct lazy_memory *memory)
{
	return memory->space->first + memory->space->count;
}

bool lazy_memory_misses(const struct lazy_memory *memory, uint32_t page)
{
	uint32_t bit;

	if (!memory->space || page < memory->space->first || page >= pages_end(memory))
		return false;
	bit = page - memory->space->first;
	return memory->missing[bit / 64] >> bit % 64 & 1;
}

void lazy_memory_given(struct lazy_memory *memory, uint32_t page)
{
	uint32_t bit;

	if (!lazy_memory_misses(memory, page))
		return;
	bit = page - memory->space->first;
	memory->missing[bit / 64] &= ~(1ULL << bit % 64);
	memory->missing_count--;
}

uint32_t lazy_memory_find(const struct lazy_memory *memory, uint64_t address)
{
	size_t at = range_find(memory, address);
	const struct lazy_range *range = &memory->ranges[at];
	uint64_t then;
	uint32_t page;

	if (!memory->space || at == memory->count || range->start > address)
		return LAZY_NONE;
	then = range->then + (address - range->start);
	page = page_from(memory, then);
	if (page == pages_end(memory) || page_address(memory, page) != then)
		return LAZY_NONE;
	return lazy_memory_misses(memory, page) ? page : LAZY_NONE;
}

static bool range_had(const struct lazy_range *range, uint64_t then)
{
	return then >= range->then && then - range->then < range_length(range);
}

uint64_t lazy_memory_address(struct lazy_memory *memory, uint32_t page)
{
	uint64_t then = page_address(memory, page);
	size_t at = memory->recent;

	if (at >= memory->count || !range_had(&memory->ranges[at], then))
		for (at = 0; at < memory->count && !range_had(&memory->ranges[at], then); at++)
			;
	memory->recent = at;
	return memory->ranges[at].start + (then - memory->ranges[at].then);
}

/* Of the pages that the part of a range had: whether one is missing; with forget none is afterwards. */
static bool part_misses(struct lazy_memory *memory, uint64_t then, uint64_t length, bool forget)
{
	bool any = false;

	for (uint32_t page = page_from(memory, then);
	     page < pages_end(memory) && page_address(memory, page) - then < length; page++) {
		any |= lazy_memory_misses(memory, page);
		if (any && !forget)
			break;
		if (forget)
			lazy_memory_given(memory, page);
	}
	return any;
}

bool lazy_memory_misses_any(const struct lazy_memory *memory, uint64_t start, uint64_t end)
{
	for (size_t at = range_find(memory, start); at < memory->count && memory->ranges[at].start < end; at++) {
		const struct lazy_range *range = &memory->ranges[at];
		uint64_t low = start > range->start ? start : range->start;
		uint64_t high = end < range->end ? end : range->end;

		if (part_misses((struct lazy_memory *)memory, range->then + (low - range->start), high - low,
				false))
			return true;
	}
	return false;
}

/* ---- what the program does ---- */

int lazy_memory_drop(struct lazy_memory *memory, uint64_t start, uint64_t end)
{
	size_t first, last;
	int ret;

	if (!memory->space)
		return 0;
	ret = range_split(memory, start);
	if (ret == 0)
		ret = range_split(memory, end);
	if (ret)
		return ret;
	first = last = range_find(memory, start);
	for (; last < memory->count && memory->ranges[last].start < end; last++)
		part_misses(memory, memory->ranges[last].then, range_length(&memory->ranges[last]), true);
	memmove(memory->ranges + first, memory->ranges + last, (memory->count - last) * sizeof(*memory->ranges));
	memory->count -= last - first;
	return 0;
}

static int range_order(const void *a, const void *b)
{
	const struct lazy_range *one = a, *other = b;

	return one->start < other->start ? -1 : one->start > other->start;
}

int lazy_memory_move(struct lazy_memory *memory, uint64_t from, uint64_t to, uint64_t length)
{
	int ret;

	if (!memory->space)
		return 0;
	ret = lazy_memory_drop(memory, to, to + length);
	if (ret == 0)
		ret = range_split(memory, from);
	if (ret == 0)
		ret = range_split(memory, from + length);
	if (ret)
		return ret;
	for (size_t at = range_find(memory, from);
	     at < memory->count && memory->ranges[at].start < from + length; at++) {
		memory->ranges[at].end += to - from;
		memory->ranges[at].start += to - from;
	}
	if (memory->count)
		qsort(memory->ranges, memory->count, sizeof(*memory->ranges), range_order);
	return 0;
}
