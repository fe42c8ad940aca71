// SPDX-License-Identifier: GPL-2.0
/*
 * The mechanism procfs: the soft-dirty bits of /proc/PID/pagemap, and /proc/PID/clear_refs to clear them. Between the
 * two a write would be lost, so the job stands still for both.
 *
 * A page of a mapping that was made or has grown since clear_refs counts as soft-dirty whatever its entry says, so a new
 * program (exec) is reported as a whole. Absent pages are not reported, and are soft-dirty when they come. But the bits
 * do not always tell. (From kernel 6.0 to 6.18 they may also get lost without a trace: there the probe fails.)
 *
 * 1. mremap() of 2 MiB and more moves whole page tables, and sets no bit in them. So one page of each table is
 *    remembered, its sample. If it has the same entry as at the last collect and is not soft-dirty, this is the same
 *    table: had the page come here since in any other way, it would be soft-dirty. Else all of the table is reported.
 *    The kernel's zero page is no sample: it is in many tables, and comes by reading, without the bit.
 * 2. KSM makes an entry anew when it merges a page, and forgets the bit. Where it may be at work everything is reported.
 * 3. Asynchronous I/O goes on while the tasks stand still, and writes to a page behind the back of its entry. A task
 *    that has a ring for it (io_setup) is reported as a whole. Who uses io_uring is not saved anyway.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "mappings.h"
#include "pagescan.h"
#include "softdirty_bits.h"
#include "tracker_mechanism.h"

#define TABLE_BYTES	(UINT64_C(2) << 20)

static void procfs_close(struct tracker *tracker)
{
	if (tracker->maps >= 0)
		close(tracker->maps);
	tracker->maps = -1;
	free(tracker->samples.list);
	tracker->samples = (struct samples){};
}

static int procfs_open(struct tracker *tracker, struct problem *problem)
{
	tracker->maps = mappings_open(tracker->pid);
	if (tracker->maps < 0)
		return problem_set(problem, -tracker->maps, "cannot read the mappings of process %d: %s", tracker->pid,
				   strerror(-tracker->maps));
	return 0;
}

/* ---- samples ---- */

static uint64_t table_of(uint64_t address)
{
	return address / TABLE_BYTES;
}

static int samples_add(struct samples *samples, uint64_t address, uint64_t entry)
{
	struct sample *grown;

	if (samples->count == samples->space) {
		samples->space = samples->space ? samples->space * 2 : 256;
		grown = reallocarray(samples->list, samples->space, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		samples->list = grown;
	}
	samples->list[samples->count++] = (struct sample){ .address = address, .entry = entry & PAGEMAP_FRAME };
	return 0;
}

static bool samples_end_with(const struct samples *samples, uint64_t table)
{
	return samples->count && table_of(samples->list[samples->count - 1].address) == table;
}

/* One collect of one task. */
struct walk {
	int pagemap;
	bool everything;
	uint64_t number;		/* of the collect */
	const struct samples *old;
	size_t next;			/* of the old samples */
	struct samples samples;		/* the new ones */
	struct regions *regions;
};

/* The table's sample of the last time, or NULL. Tables are asked for in order, one perhaps several times. */
static const struct sample *sample_find(struct walk *walk, uint64_t table)
{
	while (walk->next < walk->old->count && table_of(walk->old->list[walk->next].address) < table)
		walk->next++;
	if (walk->next == walk->old->count || table_of(walk->old->list[walk->next].address) != table)
		return NULL;
	return &walk->old->list[walk->next];
}

/* Its bits can be trusted; the sample is kept. */
static bool table_is_known(struct walk *walk, uint64_t table, int *err)
{
	const struct sample *sample = walk->everything ? NULL : sample_find(walk, table);
	uint64_t entry;

	if (!sample)
		return false;
	entry = pagescan_entry(walk->pagemap, sample->address);
	if (!(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) || entry & PAGEMAP_SOFT_DIRTY || (entry & PAGEMAP_FRAME) != sample->entry)
		return false;
	if (!samples_end_with(&walk->samples, table))
		*err = samples_add(&walk->samples, sample->address, sample->entry);
	return true;
}

/*
 * A sample of each table in the region. One that the job writes all the time is of no use: each time another page is
 * taken, so that in the end it is one that stays.
 */
static int region_sample(struct walk *walk, const struct region *region)
{
	uint64_t start = region->start, end, address;
	int err = 0;

	for (; !err && start < region->end; start = end) {
		end = (table_of(start) + 1) * TABLE_BYTES;
		if (end > region->end)
			end = region->end;
		if (samples_end_with(&walk->samples, table_of(start)))
			continue;
		address = start + walk->number % ((end - start) / PAGE_BYTES) * PAGE_BYTES;
		err = samples_add(&walk->samples, address, pagescan_entry(walk->pagemap, address));
	}
	return err;
}

/* ---- collect ---- */

static int collect_unknown(struct walk *walk, uint64_t start, uint64_t end)
{
	struct regions found = {};
	int err = pagescan(walk->pagemap, PAGESCAN_PRESENT, start, end, CKPT_PAGE_WRITTEN, &found);

	for (size_t i = 0; !err && i < found.count; i++)
		err = region_sample(walk, &found.list[i]);
	if (!err)
		err = regions_add_all(walk->regions, &found);
	regions_free(&found);
	return err;
}

static int collect_run(struct walk *walk, bool known, uint64_t start, uint64_t end)
{
	if (known)
		return pagescan(walk->pagemap, PAGESCAN_SOFT_DIRTY, start, end, CKPT_PAGE_WRITTEN, walk->regions);
	return collect_unknown(walk, start, end);
}

/* Neighbouring tables of the same kind are scanned in one go. */
static int mapping_collect(struct walk *walk, const struct mapping *mapping)
{
	uint64_t start = mapping->start, table = table_of(start), last = table_of(mapping->end - 1);
	bool known, before;
	int err = 0;

	if (mapping->kind == MAPPING_HUGE)
		return collect_unknown(walk, mapping->start, mapping->end);
	before = table_is_known(walk, table, &err);
	for (table++; !err && table <= last; table++) {
		known = table_is_known(walk, table, &err);
		if (known == before || err)
			continue;
		err = collect_run(walk, before, start, table * TABLE_BYTES);
		start = table * TABLE_BYTES;
		before = known;
	}
	return err ? err : collect_run(walk, before, start, mapping->end);
}

static bool ksm_is_zero(const char *name)
{
	cleanup_fclose FILE *file = NULL;
	unsigned long value = 0;
	char path[64];

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	file = fopen(path, "re");
	return !file || (fscanf(file, "%lu", &value) == 1 && value == 0);
}

/*
 * Whether KSM merges pages of the task, or has: what it merged before it was stopped is still so. Kernels before 6.1 do
 * not show this of a task: there it may, if KSM has worked at all since the boot.
 */
static bool ksm_may_merge(pid_t pid)
{
	cleanup_fclose FILE *stat = NULL;
	char path[64];
	long items = -1;

	snprintf(path, sizeof(path), "/proc/%d/ksm_stat", pid);
	stat = fopen(path, "re");
	if (stat)
		return fscanf(stat, "ksm_rmap_items %ld", &items) != 1 || items != 0;
	return !ksm_is_zero("run") || !ksm_is_zero("full_scans") || !ksm_is_zero("pages_shared");
}

static int walk_mappings(struct walk *walk, const struct mappings *mappings)
{
	int err = 0;

	for (size_t i = 0; !err && i < mappings->count; i++)
		if (mapping_is_private(&mappings->list[i]))
			err = mapping_collect(walk, &mappings->list[i]);
	return err;
}

/* The mappings and the page map are opened anew each time: they are of the program that runs now. */
static int collect_all(struct tracker *tracker, bool everything, struct regions *regions)
{
	cleanup_close int maps = mappings_open(tracker->pid);
	cleanup_close int pagemap = pagescan_open(tracker->pid);
	struct walk walk = { .pagemap = pagemap, .number = tracker->collects++, .old = &tracker->samples,
			     .regions = regions };
	struct mappings mappings = {};
	int err = maps < 0 ? maps : pagemap < 0 ? pagemap : mappings_read(&mappings, maps, tracker->pid);

	walk.everything = everything || mappings.aio || ksm_may_merge(tracker->pid);
	if (!err)
		err = walk_mappings(&walk, &mappings);
	free(err ? walk.samples.list : tracker->samples.list);
	if (!err)
		tracker->samples = walk.samples;
	mappings_free(&mappings);
	return err;
}

/* The job stands still, so one address space has one list. */
static bool mappings_equal(const struct mappings *a, const struct mappings *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->list[i].start != b->list[i].start || a->list[i].end != b->list[i].end)
			return false;
	return true;
}

/*
 * The mappings that were opened at the beginning are those of the program of then. Its address space is gone after an
 * exec, but perhaps not at once, or not if somebody shares it (vfork): so they are compared with those of now.
 */
static bool same_program(const struct tracker *tracker)
{
	cleanup_close int maps = mappings_open(tracker->pid);
	struct mappings then = {}, now = {};
	bool same;

	same = tracker->maps >= 0 && maps >= 0 && mappings_read(&then, tracker->maps, tracker->pid) == 0 &&
	       mappings_read(&now, maps, tracker->pid) == 0 && mappings_equal(&then, &now);
	mappings_free(&then);
	mappings_free(&now);
	return same;
}

static int procfs_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	const struct regions_mark mark = regions_mark(regions);
	int err = 0;

	if (!same_program(tracker)) {
		procfs_close(tracker);
		err = procfs_open(tracker, problem);
		if (err)
			return err;
		tracker->generation++;
	}
	if (!tracker->last_generation)
		tracker->generation++;
	err = collect_all(tracker, tracker->generation != tracker->last_generation, regions);
	if (!err)
		return 0;
	regions_cut(regions, mark);
	return problem_set(problem, -err, "cannot read the page map of process %d: %s", tracker->pid, strerror(-err));
}

static int procfs_rearm(struct tracker *tracker, struct problem *problem)
{
	int err = softdirty_bits_clear(tracker->pid);

	/* That it has ended the next collect says. */
	return err && err != -ESRCH ? problem_set(problem, -err, "cannot write to /proc/%d/clear_refs: %s", tracker->pid,
						  strerror(-err)) : 0;
}

const struct tracker_mechanism tracker_procfs = {
	.name = "procfs",
	.describe = "no module: the job stands still while its page map is read and cleared",
	.probe = softdirty_bits_probe,
	.open = procfs_open,
	.collect = procfs_collect,
	.rearm = procfs_rearm,
	.close = procfs_close,
	.collects_while_running = false,
	.look = TRACKER_LOOK_SOFT_DIRTY,
};
