// SPDX-License-Identifier: GPL-2.0
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "pagescan.h"
#include "proc.h"

#define BLOCK_PAGES (LOOK_BLOCK_BYTES / PAGE_BYTES)

/* A mapping of a task, in blocks. */
struct mapping {
	size_t task;
	uint64_t start, end;
	uint64_t first_block;           /* counted over all mappings of all tasks */
};

struct mappings {
	struct mapping *list;
	size_t count, space;
	uint64_t blocks;
};

static int mappings_add(struct mappings *mappings, size_t task, uint64_t start, uint64_t end)
{
	struct mapping *list = mappings->list;

	if (mappings->count == mappings->space) {
		mappings->space = mappings->space ? mappings->space * 2 : 256;
		list = reallocarray(list, mappings->space, sizeof(*list));
		if (!list)
			return -ENOMEM;
		mappings->list = list;
	}
	list[mappings->count++] = (struct mapping){ task, start, end, mappings->blocks };
	mappings->blocks += (end - start + LOOK_BLOCK_BYTES - 1) / LOOK_BLOCK_BYTES;
	return 0;
}

/* Private memory that can be used; what nobody can is what programs reserve, often much of it. */
static bool mapping_parse(const char *line, uint64_t *start, uint64_t *end)
{
	char readable, shared;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %c%*c%*c%c", start, end, &readable, &shared) != 4)
		return false;
	return readable == 'r' && shared == 'p' && !strstr(line, "[vvar") && !strstr(line, "[vsyscall]");
}

/* A task that has ended meanwhile has none. */
static int mappings_read(struct mappings *mappings, size_t index, pid_t pid)
{
	cleanup_fclose FILE *maps = NULL;
	cleanup_free char *line = NULL;
	uint64_t start, end;
	size_t space = 0;
	int ret = proc_file(pid, "maps", &maps);

	while (maps && ret == 0 && getline(&line, &space, maps) > 0)
		if (mapping_parse(line, &start, &end))
			ret = mappings_add(mappings, index, start, end);
	return ret ?: proc_file_end(maps);
}

static bool is_written(enum tracker_look look, uint64_t entry)
{
	if (!(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) || entry & PAGEMAP_FILE)
		return false;
	return look == TRACKER_LOOK_SOFT_DIRTY ? entry & PAGEMAP_SOFT_DIRTY : !(entry & PAGEMAP_PROTECTED);
}

static uint64_t block_count(int pagemap, enum tracker_look look, uint64_t start, uint64_t end)
{
	uint64_t entries[BLOCK_PAGES], pages = 0;
	ssize_t bytes = pread(pagemap, entries, (end - start) / PAGE_BYTES * sizeof(*entries),
			      (off_t)(start / PAGE_BYTES * sizeof(*entries)));

	for (ssize_t i = 0; i < bytes / (ssize_t)sizeof(*entries); i++)
		pages += is_written(look, entries[i]);
	return pages;
}

/* splitmix64's end: a number that looks as if drawn by lot. */
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Block i of count, one of each of wanted equal parts: a sample that misses no large area. */
static uint64_t look_block(uint64_t i, uint64_t wanted, uint64_t count, uint64_t seed)
{
	uint64_t from = (uint64_t)((unsigned __int128)i * count / wanted);
	uint64_t to = (uint64_t)((unsigned __int128)(i + 1) * count / wanted);

	return from + mix(seed + i) % (to - from);
}

struct lookout {
	const struct tasks *tasks;
	struct mappings mappings;
	size_t at;                      /* mapping of the last block */
	size_t open;                    /* task whose pagemap is open */
	int pagemap;
};

/* Blocks are asked for in ascending order. */
static uint64_t lookout_count(struct lookout *lookout, uint64_t block)
{
	const struct mappings *mappings = &lookout->mappings;
	const struct mapping *mapping;
	uint64_t start, end;
	char path[64];

	while (lookout->at + 1 < mappings->count && mappings->list[lookout->at + 1].first_block <= block)
		lookout->at++;
	mapping = &mappings->list[lookout->at];
	if (lookout->open != mapping->task) {
		if (lookout->pagemap >= 0)
			close(lookout->pagemap);
		snprintf(path, sizeof(path), "/proc/%d/pagemap", lookout->tasks->list[mapping->task].pid);
		lookout->pagemap = open(path, O_RDONLY | O_CLOEXEC);
		lookout->open = mapping->task;
	}
	start = mapping->start + (block - mapping->first_block) * LOOK_BLOCK_BYTES;
	end = mapping->end - start > LOOK_BLOCK_BYTES ? start + LOOK_BLOCK_BYTES : mapping->end;
	return block_count(lookout->pagemap, lookout->tasks->mechanism->look, start, end);
}

int look_written(const struct tasks *tasks, uint64_t seed, uint64_t *pages)
{
	struct lookout lookout = { .tasks = tasks, .open = SIZE_MAX, .pagemap = -1 };
	uint64_t sum = 0, wanted;
	int ret = tasks->mechanism->look == TRACKER_LOOK_NONE ? -ENOTSUP : 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		if (tasks->list[i].tracker)
			ret = mappings_read(&lookout.mappings, i, tasks->list[i].pid);
	wanted = lookout.mappings.blocks < LOOK_BLOCKS ? lookout.mappings.blocks : LOOK_BLOCKS;
	for (uint64_t i = 0; i < wanted && ret == 0; i++)
		sum += lookout_count(&lookout, look_block(i, wanted, lookout.mappings.blocks, seed));
	if (lookout.pagemap >= 0)
		close(lookout.pagemap);
	free(lookout.mappings.list);
	if (ret == 0)
		*pages = wanted ? (uint64_t)((unsigned __int128)sum * lookout.mappings.blocks / wanted) : 0;
	return ret;
}
