// SPDX-License-Identifier: GPL-2.0
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "cleanup.h"
#include "faults.h"
#include "log.h"
#include "processors.h"
#include "thin.h"

/* Between questions whether to go on. */
#define PIECE_BYTES (16u << 20)

int reader_init(struct reader *reader, struct problem *problem)
{
	if (!reader->map)
		reader->map = pagemap_create();
	if (!reader->map)
		return problem_set(problem, ENOMEM, "out of memory");
	return 0;
}

void reader_free(struct reader *reader)
{
	tasks_free(&reader->tasks);
	programs_free(&reader->programs);
	capture_destroy(reader->capture);
	reader->capture = NULL;
	if (reader->map)
		pagemap_destroy(reader->map);
	reader->map = NULL;
}

/* One way through the memory of all tasks. */
struct passage {
	struct reader *reader;
	struct packer *packer;   /* NULL: only when there is no memory for another one */
	bool epoch;
	uint64_t unpacked;       /* bytes that were handed to the packer since it was last waited for */
	enum pass_when when;
	struct pass_stats *stats;
	struct problem *problem;
};

static void stats_add(struct packer_stats *sum, const struct packer_stats *more)
{
	sum->pages += more->pages;
	sum->pages_zero += more->pages_zero;
	sum->pages_same += more->pages_same;
	sum->pages_packed += more->pages_packed;
	sum->pages_moved += more->pages_moved;
	sum->bytes_written += more->bytes_written;
	sum->cpu_us += more->cpu_us;
	sum->busy_us += more->busy_us;
}

static int passage_begin_segment(struct passage *passage)
{
	struct reader *reader = passage->reader;
	int ret = packer_create(&passage->packer, reader->store, &reader->term, reader->map,
				passage->problem);

	if (ret)
		passage->packer = NULL;
	else
		packer_limit(passage->packer, reader->limits);
	return ret;
}

static int passage_end_segment(struct passage *passage)
{
	struct packer_stats packed;
	int ret = packer_commit(passage->packer, &packed, passage->problem);

	if (ret)
		return ret;
	passage->packer = NULL;
	stats_add(&passage->stats->packed, &packed);
	return 0;
}

/* A segment goes only as a whole, so none of an epoch's is much more than a 16th of the job's memory. */
static uint64_t segment_bytes(const struct reader *reader)
{
	uint64_t bytes = pagemap_pages(reader->map) * PAGE_BYTES / 16;
	uint64_t least = store_segment_bytes(reader->store);

	return bytes < least ? least : bytes;
}

/* Segments that are done are of use even if a later one fails. */
static int passage_divide(struct passage *passage, uint64_t bytes)
{
	uint64_t limit = segment_bytes(passage->reader);
	int ret;

	passage->unpacked += bytes;
	if (!passage->epoch || packer_pages(passage->packer) * PAGE_BYTES + passage->unpacked < limit)
		return 0;
	ret = packer_wait(passage->packer, passage->problem);
	passage->unpacked = 0;
	if (ret || packer_pages(passage->packer) * PAGE_BYTES < limit)
		return ret;
	ret = passage_end_segment(passage);
	return ret ? ret : passage_begin_segment(passage);
}

/* In pieces, so that nobody waits long for a pass that is not wanted any more. */
static int read_region(struct passage *passage, struct packer_source *source,
		       const struct region *region)
{
	struct reader *reader = passage->reader;
	uint64_t start, end, piece = store_segment_bytes(reader->store);
	int ret = 0;

	if (piece > PIECE_BYTES)
		piece = PIECE_BYTES;
	for (start = region->start; start < region->end && ret == 0; start = end) {
		end = region->end - start > piece ? start + piece : region->end;
		ret = packer_read(passage->packer, source, start, end, passage->problem);
		reader->pages_done += (end - start) / PAGE_BYTES;
		reader->pages_left -= (end - start) / PAGE_BYTES;
		if (ret == 0 && reader->stopped && reader->stopped(reader->stopped_arg))
			ret = problem_set(passage->problem, ECANCELED, "the job has ended");
		if (ret == 0)
			ret = passage_divide(passage, end - start);
	}
	return ret;
}

static int read_regions(struct passage *passage, struct packer_source *source,
			const struct regions *regions)
{
	int ret = 0;

	for (size_t i = 0; i < regions->count && ret == 0; i++)
		ret = read_region(passage, source, &regions->list[i]);
	return ret;
}

static int add_thin(struct passage *passage, const struct space *space, struct regions *regions)
{
	uint64_t dirty = regions_pages(regions);
	int err = thin_regions(space, regions);

	if (!err)
		err = regions_normalise(regions);
	if (err)
		return problem_set(passage->problem, -err, "out of memory");
	passage->reader->pages_left += regions_pages(regions) - dirty;
	return 0;
}

/* What one pass found in one task. */
struct found {
	struct regions regions;
	struct regions present; /* see tracker_collect() */
	bool full;
	bool gone;              /* it ended, or has become another program */
};

static int collect_task(struct task *task, struct found *found, struct problem *problem)
{
	int ret = tracker_collect(task->tracker, &found->regions, &found->present, &found->full, problem);

	task->event_seen = false;
	found->gone = ret == -ESRCH;
	return found->gone ? 0 : ret;
}

static int collect_tasks(struct passage *passage, struct found *found)
{
	struct tasks *tasks = &passage->reader->tasks;
	int ret = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		if (tasks->list[i].tracker)
			ret = collect_task(&tasks->list[i], &found[i], passage->problem);
	if (ret == 0 && passage->when == PASS_FROZEN)
		ret = fault("reader.collected");
	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		if (tasks->list[i].tracker && !found[i].gone)
			ret = tracker_rearm(tasks->list[i].tracker, passage->problem);
	return ret;
}

static int collect_frozen(struct passage *passage, struct found *found)
{
	struct reader *reader = passage->reader;
	int64_t begin = clock_ms();
	int ret = cgroup_freeze(reader->cgroup, FREEZE_TIMEOUT_MS, passage->problem), thawed;

	if (ret)
		return ret;
	ret = fault("reader.frozen");
	if (ret == 0)
		ret = collect_tasks(passage, found);
	thawed = cgroup_thaw(reader->cgroup, ret ? NULL : passage->problem);
	passage->stats->frozen_ms = clock_ms() - begin;
	return ret ? ret : thawed;
}

static int pass_task(struct passage *passage, struct task *task, struct found *found,
		     struct packer_source *source)
{
	int ret = 0;

	source->pid = task->pid;
	source->gone = found->gone;
	source->space = pagemap_space(passage->reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
	if (!source->space)
		return problem_set(passage->problem, ENOMEM, "out of memory");
	if (found->gone)
		return 0;
	if (found->full)
		space_retain(source->space, &found->regions);
	else if (passage->reader->tasks.mechanism->rearm)
		space_retain(source->space, &found->present);
	passage->stats->full += found->full;
	passage->stats->pages_dirty += regions_pages(&found->regions);
	if (passage->epoch)
		ret = add_thin(passage, source->space, &found->regions);
	return ret ? ret : read_regions(passage, source, &found->regions);
}

/* What was held of it is of no use. If the process is still there, it is found as a new one. */
static void task_is_gone(struct task *task, const struct packer_source *source)
{
	space_forget(source->space, 0, UINT64_MAX & ~(uint64_t)(PAGE_BYTES - 1));
	tracker_close(task->tracker);
	task->tracker = NULL;
	task->start_time = 0;
}

static int read_tasks(struct passage *passage, struct found *found, struct packer_source *sources)
{
	struct tasks *tasks = &passage->reader->tasks;
	struct problem unheard;
	int ret = 0, waited = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++) {
		struct task *task = &tasks->list[i];

		if (task->tracker)
			ret = pass_task(passage, task, &found[i], &sources[i]);
		else
			pagemap_forget_space(passage->reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
	}
	if (passage->packer)
		waited = packer_wait(passage->packer, ret ? &unheard : passage->problem);
	for (size_t i = 0; i < tasks->count; i++)
		if (sources[i].gone)
			task_is_gone(&tasks->list[i], &sources[i]);
	return ret ? ret : waited;
}

static int pass_tasks(struct passage *passage)
{
	struct tasks *tasks = &passage->reader->tasks;
	cleanup_free struct found *found = calloc(tasks->count + 1, sizeof(*found));
	cleanup_free struct packer_source *sources = calloc(tasks->count + 1, sizeof(*sources));
	int ret;

	if (!found || !sources)
		return problem_set(passage->problem, ENOMEM, "out of memory");
	if (passage->when == PASS_RUNNING && !tasks->mechanism->collects_while_running)
		ret = collect_frozen(passage, found);
	else
		ret = collect_tasks(passage, found);
	passage->reader->pages_done = passage->reader->pages_left = 0;
	for (size_t i = 0; i < tasks->count; i++)
		passage->reader->pages_left += regions_pages(&found[i].regions);
	if (ret == 0)
		ret = read_tasks(passage, found, sources);
	for (size_t i = 0; i < tasks->count; i++) {
		regions_free(&found[i].regions);
		regions_free(&found[i].present);
	}
	return ret;
}

static int pass_files(struct passage *passage)
{
	struct reader *reader = passage->reader;
	struct numbers mapped = { 0 };
	int ret = tasks_mapped_files(&reader->tasks, &mapped);

	ret = ret ? problem_set(passage->problem, -ret, "cannot tell which files the job has mapped: %s", strerror(-ret))
		  : capture_pass(reader->capture, &mapped, passage->packer, reader->map,
				 &passage->stats->captured, passage->problem);
	numbers_free(&mapped);
	passage->stats->pages_dirty += passage->stats->captured.bytes_read / PAGE_BYTES;
	return ret;
}

static int pass(struct passage *passage)
{
	struct reader *reader = passage->reader;
	int64_t begin = clock_ms();
	int ret = tasks_update(&reader->tasks, reader->cgroup, reader->map, passage->problem);

	passage->stats->tasks = (unsigned int)reader->tasks.count;
	if (ret == 0)
		ret = pass_tasks(passage);
	if (ret == 0 && reader->capture)
		ret = pass_files(passage);
	passage->stats->ms = clock_ms() - begin;
	return ret;
}

int reader_pass(struct reader *reader, struct packer *packer, enum pass_when when,
		struct pass_stats *stats, struct problem *problem)
{
	struct passage passage = { .reader = reader, .packer = packer, .when = when, .stats = stats,
				   .problem = problem };

	*stats = (struct pass_stats){ 0 };
	return pass(&passage);
}

void reader_restart(struct reader *reader)
{
	tasks_restart_tracking(&reader->tasks);
	if (reader->capture)
		capture_restart(reader->capture);
}

int reader_look_at_programs(struct reader *reader, struct problem *problem)
{
	int ret = 0;

	programs_begin(&reader->programs);
	for (size_t i = 0; i < reader->tasks.count && ret == 0; i++)
		ret = programs_add_task(&reader->programs, reader->tasks.list[i].pid, problem);
	return ret;
}

/* The store's part and the threads' part of the time, if nothing had held them back. */
static int64_t full_speed_ms(bool limited, const struct pass_stats *stats)
{
	uint64_t store_ms = stats->packed.busy_us / 1000;
	uint64_t threads_ms = stats->packed.cpu_us / 1000 / processors(PROCESSORS_MAX);
	uint64_t ms = store_ms > threads_ms ? store_ms : threads_ms;

	return limited && ms < (uint64_t)stats->ms ? (int64_t)ms : stats->ms;
}

static void mark_thin(struct reader *reader)
{
	enum thin_time when = reader->cleans == READER_CLEANS ? THIN_BETWEEN_CHECKPOINTS :
								THIN_BEFORE_CHECKPOINT;

	if (reader->cleans == READER_KEEPS)
		thin_unmark(reader->map);
	else if (thin_mark(reader->map, when))
		log_warn("no memory to see which segments are thin: their space is used for longer");
}

int reader_epoch(struct reader *reader, struct pass_stats *stats, struct problem *problem)
{
	struct passage passage = { .reader = reader, .epoch = true, .when = PASS_RUNNING, .stats = stats,
				   .problem = problem };
	bool limited = limits_hold(reader->limits);
	int64_t begin = clock_ms();
	int ret;

	*stats = (struct pass_stats){ 0 };
	ret = passage_begin_segment(&passage);
	if (ret)
		return ret;
	mark_thin(reader);
	ret = pass(&passage);
	if (ret == 0)
		ret = passage_end_segment(&passage);
	if (passage.packer)
		packer_abort(passage.packer);
	if (ret && ret != -ECANCELED)
		reader_restart(reader);
	stats->ms = clock_ms() - begin;
	stats->full_speed_ms = full_speed_ms(limited, stats);
	return ret;
}
