// SPDX-License-Identifier: GPL-2.0
/*
 * The mechanism procfs: the soft-dirty bits of /proc/PID/pagemap, and /proc/PID/clear_refs to clear them. Between the
 * two a write would be lost, so the job stands still for both.
 *
 * A page of a mapping that was made or has grown since clear_refs counts as soft-dirty whatever its entry says, so a new
 * program (exec) is reported as a whole. Absent pages are not reported, and are soft-dirty when they come.
 *
 * Asynchronous I/O goes on while the tasks stand still, and may write to a page behind the back of its entry. A task
 * that has a ring for it (io_setup) is reported as a whole each time. Who uses io_uring is not saved anyway.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "mappings.h"
#include "pagescan.h"
#include "tracker_mechanism.h"

static int clear_refs(pid_t pid)
{
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return write(fd, "4", 1) == 1 ? 0 : -errno;
}

/* How many of the two pages are soft-dirty, or -errno. */
static int count_dirty(int pagemap, void *pages)
{
	struct regions regions = {};
	int err = pagescan(pagemap, PAGESCAN_SOFT_DIRTY, (uintptr_t)pages, (uintptr_t)pages + 2 * PAGE_BYTES, 0,
			   &regions);
	int count = (int)regions_pages(&regions);

	regions_free(&regions);
	return err ? err : count;
}

/* With pages of its own: both written; cleared; one written. */
static int try_bits(int pagemap, volatile char *pages)
{
	int written, cleared, again;
	int err;

	pages[0] = pages[PAGE_BYTES] = 1;
	written = count_dirty(pagemap, (void *)pages);
	err = clear_refs(getpid());
	if (err)
		return err;
	cleared = count_dirty(pagemap, (void *)pages);
	pages[0] = 2;
	again = count_dirty(pagemap, (void *)pages);
	return written == 2 && cleared == 0 && again == 1 ? 0 : -EOPNOTSUPP;
}

static int procfs_probe(struct problem *problem)
{
	cleanup_close int pagemap = pagescan_open(getpid());
	void *pages;
	int err;

	if (pagemap < 0)
		return problem_set(problem, -pagemap, "cannot read /proc/self/pagemap: %s", strerror(-pagemap));
	pages = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		return problem_set(problem, errno, "cannot map two pages: %m");
	err = try_bits(pagemap, pages);
	munmap(pages, 2 * PAGE_BYTES);
	if (err == -EOPNOTSUPP)
		return problem_set(problem, EOPNOTSUPP, "the kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)");
	return err ? problem_set(problem, -err, "cannot use /proc/PID/clear_refs: %s", strerror(-err)) : 0;
}

static void procfs_close(struct tracker *tracker)
{
	if (tracker->maps >= 0)
		close(tracker->maps);
	tracker->maps = -1;
}

static int procfs_open(struct tracker *tracker, struct problem *problem)
{
	tracker->maps = mappings_open(tracker->pid);
	if (tracker->maps < 0)
		return problem_set(problem, -tracker->maps, "cannot read the mappings of process %d: %s", tracker->pid,
				   strerror(-tracker->maps));
	return 0;
}

/* The mappings and the page map are opened anew each time: they are of the program that runs now. */
static int collect_all(const struct tracker *tracker, bool everything, struct mappings *mappings,
		       struct regions *regions)
{
	cleanup_close int maps = mappings_open(tracker->pid);
	cleanup_close int pagemap = pagescan_open(tracker->pid);
	int err = maps < 0 ? maps : pagemap < 0 ? pagemap : mappings_read(mappings, maps);

	everything |= mappings->aio;
	for (size_t i = 0; !err && i < mappings->count; i++)
		if (mappings->list[i].kind <= MAPPING_PRIVATE)
			err = pagescan(pagemap, everything ? PAGESCAN_PRESENT : PAGESCAN_SOFT_DIRTY,
				       mappings->list[i].start, mappings->list[i].end, CKPT_PAGE_WRITTEN, regions);
	return err;
}

/* The file of the mappings that was opened at the beginning shows whether the program is still the one of then. */
static bool same_program(const struct tracker *tracker)
{
	struct mappings mappings = {};
	bool same = tracker->maps >= 0 && mappings_read(&mappings, tracker->maps) == 0;

	mappings_free(&mappings);
	return same;
}

static int procfs_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	const struct regions_mark mark = regions_mark(regions);
	struct mappings mappings = {};
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
	err = collect_all(tracker, tracker->generation != tracker->last_generation, &mappings, regions);
	mappings_free(&mappings);
	if (!err)
		return 0;
	regions_cut(regions, mark);
	return problem_set(problem, -err, "cannot read the page map of process %d: %s", tracker->pid, strerror(-err));
}

static int procfs_rearm(struct tracker *tracker, struct problem *problem)
{
	int err = clear_refs(tracker->pid);

	/* That it has ended the next collect says. */
	return err && err != -ESRCH ? problem_set(problem, -err, "cannot write to /proc/%d/clear_refs: %s", tracker->pid,
						  strerror(-err)) : 0;
}

const struct tracker_mechanism tracker_procfs = {
	.name = "procfs",
	.describe = "no module: the job stands still while its page map is read and cleared",
	.probe = procfs_probe,
	.open = procfs_open,
	.collect = procfs_collect,
	.rearm = procfs_rearm,
	.close = procfs_close,
	.collects_while_running = false,
};
