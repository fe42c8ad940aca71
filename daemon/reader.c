// SPDX-License-Identifier: GPL-2.0
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "cleanup.h"

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

int reader_read(struct reader *reader, struct packer *packer, const struct task *task,
		struct space *space, uint64_t start, uint64_t end, struct problem *problem)
{
	while (start < end) {
		size_t want = end - start < WINDOW_BYTES ? end - start : WINDOW_BYTES;
		struct iovec local = { reader->window, want };
		struct iovec remote = { (void *)start, want };
		ssize_t got = process_vm_readv(task->pid, &local, 1, &remote, 1, 0);
		int ret;

		if (got < 0 && errno == ESRCH)
			return -ESRCH;
		if (got < 0 && errno != EFAULT)
			return problem_set(problem, errno, "cannot read the memory of process %d: %s",
					   task->pid, strerror(errno));
		got = got < 0 ? 0 : got - got % PAGE_BYTES;
		ret = pack_window(reader, packer, space, start, (size_t)got, problem);
		if (ret)
			return ret;
		start += (uint64_t)got;
		if ((size_t)got < want) {
			/* Unmapped since it was reported: held no longer, whatever was held. */
			space_forget(space, start, start + PAGE_BYTES);
			start += PAGE_BYTES;
		}
	}
	return 0;
}

static int pass_task(struct reader *reader, struct packer *packer, struct task *task,
		     struct pass_stats *stats, struct problem *problem)
{
	struct space *space = pagemap_space(reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
	struct regions regions = { 0 };
	bool full = false;
	int ret;

	if (!space)
		return problem_set(problem, ENOMEM, "out of memory");
	ret = tracker_collect(task->tracker, &regions, &full, problem);
	if (ret == 0 && full) {
		space_retain(space, &regions);
		stats->full++;
	}
	stats->pages_dirty += regions_pages(&regions);
	for (size_t i = 0; i < regions.count && ret == 0; i++) {
		ret = reader_read(reader, packer, task, space, regions.list[i].start,
				  regions.list[i].end, problem);
		if (ret == 0 && reader->stopped && reader->stopped(reader->stopped_arg))
			ret = problem_set(problem, ECANCELED, "the job has ended");
	}
	regions_free(&regions);
	if (ret == -ESRCH) {
		/* It ended, or has become another program: what was held of it is of no use. */
		space_forget(space, 0, UINT64_MAX & ~(uint64_t)(PAGE_BYTES - 1));
		tracker_close(task->tracker);
		task->tracker = NULL;
		task->start_time = 0; /* if the process is still there, it is found as a new one */
		return 0;
	}
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

int reader_pass(struct reader *reader, struct packer *packer, struct pass_stats *stats,
		struct problem *problem)
{
	int64_t begin = clock_ms();
	int ret = tasks_update(&reader->tasks, reader->cgroup, reader->map, problem);

	memset(stats, 0, sizeof(*stats));
	for (size_t i = 0; i < reader->tasks.count && ret == 0; i++) {
		struct task *task = &reader->tasks.list[i];

		stats->tasks++;
		if (task->tracker)
			ret = pass_task(reader, packer, task, stats, problem);
		else
			pagemap_forget_space(reader->map, SPACE_TASK, (uint64_t)task->inner_pid);
	}
	if (ret == 0 && reader->capture)
		ret = pass_files(reader, packer, stats, problem);
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
	ret = reader_pass(reader, packer, stats, problem);
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
