// SPDX-License-Identifier: GPL-2.0
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "faults.h"
#include "log.h"

#define WINDOW_BYTES (1u << 20)

int reader_init(struct reader *reader, struct problem *problem)
{
	reader->window = malloc(WINDOW_BYTES);
	if (!reader->map)
		reader->map = pagemap_create();
	if (!reader->window || !reader->map)
		return problem_set(problem, ENOMEM, "out of memory");
	return 0;
}

void reader_free(struct reader *reader)
{
	tasks_free(&reader->tasks);
	capture_destroy(reader->capture);
	reader->capture = NULL;
	free(reader->window);
	reader->window = NULL;
	if (reader->map)
		pagemap_destroy(reader->map);
	reader->map = NULL;
}

static int pack_window(struct reader *reader, struct packer *packer, struct space *space,
		       uint64_t start, size_t bytes, struct problem *problem)
{
	int ret = 0;

	for (size_t offset = 0; offset < bytes && ret == 0; offset += PAGE_BYTES)
		ret = packer_page(packer, space, start + offset, reader->window + offset, problem);
	return ret;
}

/*
 * Also what the task itself may not read: PROT_NONE.  Kernels from 6.12 on can refuse that (proc_mem.force_override);
 * then it is not held, and CRIU sends it with each checkpoint, as our inventory asks for.
 */
static ssize_t read_forbidden(const struct task *task, uint8_t *to, size_t want, uint64_t start)
{
	char path[64];
	cleanup_close int memory = -1;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/mem", task->pid);
	memory = open(path, O_RDONLY | O_CLOEXEC);
	if (memory < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	got = pread(memory, to, want, (off_t)start);
	return got < 0 ? -errno : got;
}

/* Bytes in whole pages, 0: there is no page at start, or -errno. */
static ssize_t read_memory(const struct task *task, uint8_t *to, size_t want, uint64_t start)
{
	struct iovec local = { to, want };
	struct iovec remote = { (void *)start, want };
	ssize_t got = process_vm_readv(task->pid, &local, 1, &remote, 1, 0);

	if (got < 0)
		got = errno == EFAULT ? read_forbidden(task, to, want, start) : -errno;
	if (got == -EIO || got == -EFAULT)
		return 0;
	return got < 0 ? got : got - got % PAGE_BYTES;
}

int reader_read(struct reader *reader, struct packer *packer, const struct task *task,
		struct space *space, uint64_t start, uint64_t end, struct problem *problem)
{
	while (start < end) {
		size_t want = end - start < WINDOW_BYTES ? end - start : WINDOW_BYTES;
		ssize_t got = read_memory(task, reader->window, want, start);
		int ret;

		if (got == -ESRCH)
			return -ESRCH;
		if (got < 0)
			return problem_set(problem, (int)-got, "cannot read the memory of process %d: %s",
					   task->pid, strerror((int)-got));
		ret = pack_window(reader, packer, space, start, (size_t)got, problem);
		if (ret)
			return ret;
		start += (uint64_t)got;
		if (!got) {
			/* Unmapped since it was reported: held no longer, whatever was held. */
			space_forget(space, start, start + PAGE_BYTES);
			start += PAGE_BYTES;
		}
	}
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

static int collect_tasks(struct reader *reader, struct found *found, enum pass_when when, struct problem *problem)
{
	struct tasks *tasks = &reader->tasks;
	int ret = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		if (tasks->list[i].tracker)
			ret = collect_task(&tasks->list[i], &found[i], problem);
	if (ret == 0 && when == PASS_FROZEN)
		ret = fault("reader.collected");
	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		if (tasks->list[i].tracker && !found[i].gone)
			ret = tracker_rearm(tasks->list[i].tracker, problem);
	return ret;
}

static int collect_frozen(struct reader *reader, struct found *found, struct pass_stats *stats,
			  struct problem *problem)
{
	int64_t begin = clock_ms();
	int ret = cgroup_freeze(reader->cgroup, FREEZE_TIMEOUT_MS, problem), thawed;

	if (ret)
		return ret;
	ret = fault("reader.frozen");
	if (ret == 0)
		ret = collect_tasks(reader, found, PASS_RUNNING, problem);
	thawed = cgroup_thaw(reader->cgroup, ret ? NULL : problem);
	stats->frozen_ms = clock_ms() - begin;
	return ret ? ret : thawed;
}

/* What was held of it is of no use. If the process is still there, it is found as a new one. */
static void task_is_gone(struct task *task, struct space *space)
{
	space_forget(space, 0, UINT64_MAX & ~(uint64_t)(PAGE_BYTES - 1));
	tracker_close(task->tracker);
	task->tracker = NULL;
	task->start_time = 0;
}

static int read_regions(struct reader *reader, struct packer *packer, struct task *task,
			struct space *space, const struct regions *regions, struct problem *problem)
{
	int ret = 0;

	for (size_t i = 0; i < regions->count && ret == 0; i++) {
		ret = reader_read(reader, packer, task, space, regions->list[i].start,
				  regions->list[i].end, problem);
		if (ret == 0 && reader->stopped && reader->stopped(reader->stopped_arg))
			ret = problem_set(problem, ECANCELED, "the job has ended");
	}
	return ret;
}

static int read_task(struct reader *reader, struct packer *packer, struct task *task,
		     struct found *found, struct pass_stats *stats, struct problem *problem)
{
	struct space *space;
	int ret;

	if (!task->tracker) {
		pagemap_forget_space(reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
		return 0;
	}
	space = pagemap_space(reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
	if (!space)
		return problem_set(problem, ENOMEM, "out of memory");
	if (found->full)
		space_retain(space, &found->regions);
	else if (reader->tasks.mechanism->rearm && !found->gone)
		space_retain(space, &found->present);
	stats->full += found->full;
	stats->pages_dirty += regions_pages(&found->regions);
	ret = found->gone ? -ESRCH : read_regions(reader, packer, task, space, &found->regions, problem);
	if (ret == -ESRCH)
		task_is_gone(task, space);
	return ret == -ESRCH ? 0 : ret;
}

static int pass_tasks(struct reader *reader, struct packer *packer, enum pass_when when,
		      struct found *found, struct pass_stats *stats, struct problem *problem)
{
	struct tasks *tasks = &reader->tasks;
	int ret;

	if (when == PASS_RUNNING && !tasks->mechanism->collects_while_running)
		ret = collect_frozen(reader, found, stats, problem);
	else
		ret = collect_tasks(reader, found, when, problem);
	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = read_task(reader, packer, &tasks->list[i], &found[i], stats, problem);
	return ret;
}

static int pass_files(struct reader *reader, struct packer *packer, struct pass_stats *stats,
		      struct problem *problem)
{
	cleanup_free uint64_t *inodes = NULL;
	struct capture_mapped mapped = { 0 };
	int ret = tasks_mapped_files(&reader->tasks, &inodes, &mapped.count);

	if (ret)
		return problem_set(problem, -ret, "out of memory");
	mapped.inodes = inodes;
	ret = capture_pass(reader->capture, &mapped, packer, reader->map, &stats->captured, problem);
	stats->pages_dirty += stats->captured.bytes_read / PAGE_BYTES;
	return ret;
}

int reader_pass(struct reader *reader, struct packer *packer, enum pass_when when,
		struct pass_stats *stats, struct problem *problem)
{
	int64_t begin = clock_ms();
	struct found *found;
	int ret = tasks_update(&reader->tasks, reader->cgroup, reader->map, problem);

	memset(stats, 0, sizeof(*stats));
	if (ret)
		return ret;
	stats->tasks = (unsigned int)reader->tasks.count;
	found = calloc(reader->tasks.count + 1, sizeof(*found));
	if (!found)
		return problem_set(problem, ENOMEM, "out of memory");
	ret = pass_tasks(reader, packer, when, found, stats, problem);
	if (ret == 0 && reader->capture)
		ret = pass_files(reader, packer, stats, problem);
	for (size_t i = 0; i < reader->tasks.count; i++) {
		regions_free(&found[i].regions);
		regions_free(&found[i].present);
	}
	free(found);
	stats->ms = clock_ms() - begin;
	return ret;
}

void reader_restart(struct reader *reader)
{
	tasks_restart_tracking(&reader->tasks);
	if (reader->capture)
		capture_restart(reader->capture);
}

int reader_epoch(struct reader *reader, struct pass_stats *stats, struct problem *problem)
{
	struct packer *packer;
	int64_t begin = clock_ms();
	int ret = packer_create(&packer, reader->store, &reader->term, reader->map, problem);

	if (ret)
		return ret;
	ret = reader_pass(reader, packer, PASS_RUNNING, stats, problem);
	if (ret == 0)
		ret = packer_commit(packer, &stats->packed, problem);
	if (ret) {
		packer_abort(packer);
		if (ret != -ECANCELED)
			reader_restart(reader);
	}
	stats->ms = clock_ms() - begin;
	return ret;
}
