// SPDX-License-Identifier: GPL-2.0
/*
 * The mechanism uffd-wp: a userfaultfd of the job's address space, made by /dev/ckpt, and ioctl(PAGEMAP_SCAN), which
 * reports and write-protects in one step while the job runs. The kernel takes the protection off at the first write and
 * nobody waits for anybody (WP_ASYNC).
 *
 * What counts is the kernel's word at the moment of the scan, not what this file remembers: each mapping is scanned with
 * PM_SCAN_CHECK_WPASYNC, which fails if any part of it is not registered. That is so for a mapping that is new, also at
 * an old one's address, that has moved (mremap drops the registration), or whose registration was lost when the kernel
 * merged it. It is then registered, and what bits it has brought along are taken off, since they may be of a time when
 * nobody watched: everything in it has been written. In a mapping that is registered a page that is not
 * write-protected was written since the last scan, whatever happened to the mapping: grown, split, merged, swapped.
 *
 * What the kernel or a device writes through references that it holds (I/O in flight, pinned buffers) makes no fault:
 * the module tells which pages those are.
 *
 * Only private anonymous mappings are registered. In a mapping of a file the kernel leaves a marker where a protected
 * page was dropped, which CRIU takes for a page, and us for an unchanged one: of those, of huge pages, and of what the
 * job itself has registered with a userfaultfd, every page that is there is reported each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/ckpt.h>
#include <linux/userfaultfd.h>

#include "cleanup.h"
#include "mappings.h"
#include "pagescan.h"
#include "tracker_mechanism.h"

#define DEVICE "/dev/userfaultfd"
#define VEC_REGIONS 512	/* 12 KiB */

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)	/* 6.1 */
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)		/* 6.7 */
#endif

static int device_open(int *device, struct problem *problem)
{
	*device = open(DEVICE, O_RDWR | O_CLOEXEC);
	return *device >= 0 ? 0 : problem_set(problem, errno, "cannot open " DEVICE ": %m");
}

static int handshake(int userfaultfd, struct problem *problem)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };

	return ioctl(userfaultfd, UFFDIO_API, &api) ?
	       problem_set(problem, errno, "the kernel's userfaultfd has no WP_ASYNC (6.7): %m") : 0;
}

/* With a userfaultfd of our own. */
static int uffd_probe(struct problem *problem)
{
	cleanup_close int device = -1, userfaultfd = -1;
	int err = module_probe(CKPT_MECHANISM_UFFD_WP, "the kernel is older than 6.7, or was built without "
			       "CONFIG_USERFAULTFD", problem);

	if (!err)
		err = device_open(&device, problem);
	if (err)
		return err;
	userfaultfd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (userfaultfd < 0)
		return problem_set(problem, errno, DEVICE " gives no userfaultfd: %m");
	err = handshake(userfaultfd, problem);
	if (err)
		return err;
	err = pagescan_probe_ioctl();
	return err ? problem_set(problem, -err, "the kernel has no PAGEMAP_SCAN (6.7): %s", strerror(-err)) : 0;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void uffd_close(struct tracker *tracker)
{
	close_one(&tracker->userfaultfd);
	close_one(&tracker->pagemap);
	close_one(&tracker->maps);
	close_one(&tracker->fd);
	regions_free(&tracker->referenced);
}

static int userfaultfd_of(struct tracker *tracker, struct problem *problem)
{
	struct ckpt_userfaultfd userfaultfd = { .size = sizeof(userfaultfd) };
	cleanup_close int device = -1;
	int err = device_open(&device, problem);

	if (err)
		return err;
	userfaultfd.device_fd = device;
	if (ioctl(tracker->fd, CKPT_IOC_USERFAULTFD, &userfaultfd))
		return problem_set(problem, errno, "cannot get a userfaultfd of process %d: %m", tracker->pid);
	tracker->userfaultfd = userfaultfd.out_fd;
	return handshake(tracker->userfaultfd, problem);
}

/* In this order all four are of one address space, see the manual in linux/ckpt.h. */
static int uffd_open(struct tracker *tracker, struct problem *problem)
{
	int err = module_track(tracker, problem);

	if (err)
		return err;
	tracker->maps = mappings_open(tracker->pid);
	tracker->pagemap = tracker->maps < 0 ? tracker->maps : pagescan_open(tracker->pid);
	if (tracker->pagemap < 0)
		return problem_set(problem, -tracker->pagemap, "cannot read the mappings of process %d: %s", tracker->pid,
				   strerror(-tracker->pagemap));
	return userfaultfd_of(tracker, problem);
}

/*
 * What bits are left there from elsewhere are taken off. If that fails, because the job changes the mapping meanwhile,
 * the registration must not stay; -ESTALE: it may have stayed.
 */
static int mapping_register(const struct tracker *tracker, const struct mapping *mapping)
{
	struct uffdio_range range = { .start = mapping->start, .len = mapping->end - mapping->start };
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect unprotect = { .range = range };

	if (ioctl(tracker->userfaultfd, UFFDIO_REGISTER, &reg))
		return -EPERM;
	if (!ioctl(tracker->userfaultfd, UFFDIO_WRITEPROTECT, &unprotect))
		return 0;
	return ioctl(tracker->userfaultfd, UFFDIO_UNREGISTER, &range) ? -ESTALE : -EPERM;
}

static int collect_untracked(const struct tracker *tracker, const struct mapping *mapping, struct regions *regions)
{
	return pagescan(tracker->pagemap, PAGESCAN_PRESENT, mapping->start, mapping->end,
			CKPT_PAGE_WRITTEN | CKPT_PAGE_UNTRACKED, regions);
}

/*
 * That a scan fails may be a reason to register, or the job may change the mapping meanwhile: twice is enough, what
 * cannot be tracked now is reported as it is.
 */
static int collect_anonymous(const struct tracker *tracker, const struct mapping *mapping, struct regions *regions)
{
	int err = pagescan(tracker->pagemap, PAGESCAN_WRITTEN, mapping->start, mapping->end, CKPT_PAGE_WRITTEN, regions);

	if (err == -EPERM)
		err = mapping_register(tracker, mapping) ?:
		      pagescan(tracker->pagemap, PAGESCAN_WRITTEN, mapping->start, mapping->end, CKPT_PAGE_WRITTEN,
			       regions);
	return err == -EPERM ? collect_untracked(tracker, mapping, regions) : err;
}

static int mapping_collect(const struct tracker *tracker, const struct mapping *mapping, struct regions *regions)
{
	switch (mapping->kind) {
	case MAPPING_ANON:
		return collect_anonymous(tracker, mapping, regions);
	case MAPPING_PRIVATE:
	case MAPPING_HUGE:
		return collect_untracked(tracker, mapping, regions);
	default:
		return 0;
	}
}

/* As the module wants them; what is always reported need not be looked at. */
static int ranges_add(struct ckpt_referenced *search, const struct regions *regions)
{
	void *before = (void *)(uintptr_t)search->ranges;
	struct ckpt_region *ranges = reallocarray(before, search->range_count + regions->count + 1, sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	search->ranges = (uintptr_t)ranges;
	for (size_t i = 0; i < regions->count; i++)
		if (!(regions->list[i].categories & CKPT_PAGE_UNTRACKED))
			ranges[search->range_count++] = (struct ckpt_region){ .start = regions->list[i].start,
									      .end = regions->list[i].end };
	return 0;
}

/* Also says -ESRCH when the process executes another program, or is gone. */
static int search_run(const struct tracker *tracker, struct ckpt_referenced *search, struct regions *found)
{
	struct ckpt_region vec[VEC_REGIONS];
	int err = 0;

	search->size = sizeof(*search);
	search->vec = (uintptr_t)vec;
	search->vec_len = VEC_REGIONS;
	while (!err && search->start != CKPT_REFERENCED_ALL) {
		search->out_count = search->out_walk_end = 0;
		if (ioctl(tracker->fd, CKPT_IOC_REFERENCED, search)) {
			err = errno == EINTR ? 0 : -errno;
			continue;
		}
		for (size_t i = 0; !err && i < search->out_count; i++)
			err = regions_add(found, vec[i].start, vec[i].end, CKPT_PAGE_WRITTEN);
		search->start = search->out_walk_end;
	}
	return err;
}

/*
 * Pages that I/O is writing to, or that are pinned for it: the scan has write-protected them, and that tells nothing.
 * They are dirty now and the next time, if not longer.
 */
static int collect_referenced(struct tracker *tracker, struct regions *regions)
{
	struct regions before = tracker->referenced, found = {};
	struct ckpt_referenced search = {};
	int err;

	if (before.count) {
		err = regions_add_all(regions, &before) ?: regions_normalise(regions);
		if (err)
			return err;
	}
	err = ranges_add(&search, regions);
	if (!err)
		err = search_run(tracker, &search, &found);
	free((void *)(uintptr_t)search.ranges);
	if (err) {
		regions_free(&found);
		return err;
	}
	tracker->referenced = found;
	regions_free(&before);
	return 0;
}

static int collect_all(struct tracker *tracker, struct regions *regions)
{
	struct regions scanned = {};
	struct mappings mappings = {};
	int err = tracker->fd < 0 ? -ESRCH : mappings_read(&mappings, tracker->maps, tracker->pid);

	for (size_t i = 0; !err && i < mappings.count; i++)
		err = mapping_collect(tracker, &mappings.list[i], &scanned);
	if (!err)
		err = collect_referenced(tracker, &scanned);
	if (!err)
		err = regions_add_all(regions, &scanned);
	mappings_free(&mappings);
	regions_free(&scanned);
	return err;
}

static int uffd_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	int err = collect_all(tracker, regions);

	if (err == -ESRCH || err == -ESTALE) {
		uffd_close(tracker);
		err = uffd_open(tracker, problem);
		if (err)
			return err;
		tracker->last_generation = 0;
		err = collect_all(tracker, regions);
	}
	if (!tracker->last_generation)
		tracker->generation++;
	return err ? problem_set(problem, -err, "cannot collect the pages of process %d: %s", tracker->pid,
				 strerror(-err)) : 0;
}

const struct tracker_mechanism tracker_uffd = {
	.name = "uffd-wp",
	.describe = "ckpt module and userfaultfd: written pages are collected while the job runs",
	.probe = uffd_probe,
	.open = uffd_open,
	.collect = uffd_collect,
	.close = uffd_close,
	.collects_while_running = true,
	.tells_exec = true,
	.leaves_soft_dirty = true,
	.look = TRACKER_LOOK_UNPROTECTED,
};
