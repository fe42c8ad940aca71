// SPDX-License-Identifier: GPL-2.0
/*
 * The mechanism hash: needs nothing of the kernel. Each collect reports every page that is there and is the job's own;
 * the hashes of the packer then keep what did not change off the store.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "tracker_mechanism.h"

/* An entry of /proc/PID/pagemap. */
#define PAGEMAP_PRESENT	(UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED	(UINT64_C(1) << 62)
#define PAGEMAP_FILE	(UINT64_C(1) << 61)	/* of a file, or shared */
#define PAGEMAP_ENTRIES	4096

static int hash_probe(struct problem *problem)
{
	return access("/proc/self/pagemap", R_OK) ? problem_set(problem, errno, "cannot read /proc/self/pagemap: %m") : 0;
}

static int hash_open(struct tracker *tracker, struct problem *problem)
{
	return 0;
}

static void hash_close(struct tracker *tracker)
{
}

static uint32_t entry_categories(uint64_t entry)
{
	if (entry & PAGEMAP_FILE)
		return 0;
	if (entry & PAGEMAP_PRESENT)
		return CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT;
	return entry & PAGEMAP_SWAPPED ? CKPT_PAGE_WRITTEN | CKPT_PAGE_SWAPPED : 0;
}

/* Appends what is there in [start, end). */
static int mapping_collect(int pagemap, uint64_t start, uint64_t end, struct regions *regions)
{
	uint64_t entries[PAGEMAP_ENTRIES];
	uint32_t categories;
	ssize_t bytes;
	int err = 0;

	while (!err && start < end) {
		size_t pages = (end - start) / PAGE_BYTES;

		if (pages > PAGEMAP_ENTRIES)
			pages = PAGEMAP_ENTRIES;
		bytes = pread(pagemap, entries, pages * sizeof(*entries), start / PAGE_BYTES * sizeof(*entries));
		if (bytes <= 0)
			return bytes ? -errno : 0;
		for (size_t i = 0; !err && i < bytes / sizeof(*entries); i++, start += PAGE_BYTES) {
			categories = entry_categories(entries[i]);
			if (categories)
				err = regions_add(regions, start, start + PAGE_BYTES, categories);
		}
	}
	return err;
}

/* A line of /proc/PID/maps. Pages of the kernel itself cannot be read and are not the job's. */
static bool mapping_parse(const char *line, uint64_t *start, uint64_t *end)
{
	char shared;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*c%*c%*c%c", start, end, &shared) != 3)
		return false;
	return shared == 'p' && !strstr(line, "[vvar") && !strstr(line, "[vsyscall]");
}

static int mappings_collect(FILE *maps, int pagemap, struct regions *regions)
{
	cleanup_free char *line = NULL;
	uint64_t start, end;
	size_t space = 0;
	int err = 0;

	while (!err && getline(&line, &space, maps) > 0)
		if (mapping_parse(line, &start, &end))
			err = mapping_collect(pagemap, start, end, regions);
	return err;
}

static int hash_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	cleanup_fclose FILE *maps = NULL;
	cleanup_close int pagemap = -1;
	const size_t begin = regions->count;
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", tracker->pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/maps", tracker->pid);
	maps = fopen(path, "re");
	if (pagemap < 0 || !maps)
		return problem_set(problem, errno == ENOENT ? ESRCH : errno, "cannot read %s: %m", path);
	err = mappings_collect(maps, pagemap, regions);
	if (!err && regions->count == begin)
		err = -ESRCH;
	if (err)
		return problem_set(problem, -err, "cannot read the page map of process %d: %s", tracker->pid,
				   strerror(-err));
	tracker->generation++;
	return 0;
}

const struct tracker_mechanism tracker_hash = {
	.name = "hash",
	.describe = "no module: all memory is read and compared by hashes",
	.probe = hash_probe,
	.open = hash_open,
	.collect = hash_collect,
	.close = hash_close,
	.collects_while_running = true,
};
