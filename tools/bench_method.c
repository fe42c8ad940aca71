// SPDX-License-Identifier: GPL-2.0
#include "bench_method.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "pagemap_scan.h"

#define VEC_REGIONS 16384	/* of the module and of PAGEMAP_SCAN: 384 KiB */
#define READ_ENTRIES 65536	/* of pagemap at a time: 512 KiB */
#define ENTRY_SOFT_DIRTY (UINT64_C(1) << 55)

static uint64_t memory_start(const struct method_run *run)
{
	return (uintptr_t)run->victim->memory;
}

static uint64_t memory_end(const struct method_run *run)
{
	return memory_start(run) + run->victim->bytes;
}

static int process_file_open(const struct method_run *run, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", run->victim->pid, name);
	return open(path, flags | O_CLOEXEC);
}

static int buffer_make(struct method_run *run, size_t bytes)
{
	run->buffer = calloc(1, bytes);
	return run->buffer ? 0 : -ENOMEM;
}

/* ---- the module, for the one mapping ---- */

static int module_open(struct method_run *run)
{
	struct ckpt_track track = { .size = sizeof(track), .pidfd = run->victim->pidfd, .pid = run->victim->pid };
	cleanup_close int device = open("/dev/ckpt", O_RDWR | O_CLOEXEC);

	if (device < 0 || ioctl(device, CKPT_IOC_TRACK, &track))
		return -errno;
	run->fd = track.out_fd;
	return buffer_make(run, VEC_REGIONS * sizeof(struct ckpt_region));
}

static int module_collect(struct method_run *run, struct regions *regions)
{
	const struct ckpt_region *vec = run->buffer;
	struct ckpt_collect collect = {
		.size = sizeof(collect), .start = memory_start(run), .end = memory_end(run), .vec = (uintptr_t)vec,
		.vec_len = VEC_REGIONS,
	};
	int err = 0;

	while (!err && collect.start < collect.end) {
		if (ioctl(run->fd, CKPT_IOC_COLLECT, &collect))
			return -errno;
		for (size_t i = 0; !err && i < collect.out_count; i++)
			err = regions_add(regions, vec[i].start, vec[i].end, vec[i].categories);
		collect.start = collect.out_walk_end;
	}
	return err;
}

/* ---- a mechanism through its tracker, for all of the process ---- */

static int tracker_begin(struct method_run *run)
{
	struct problem problem;

	return tracker_open(&run->tracker, run->method->mechanism, run->victim->pidfd, run->victim->pid, &problem);
}

static int tracker_take(struct method_run *run, struct regions *regions)
{
	struct regions present = {};
	struct problem problem;
	bool full;
	int err = tracker_collect(run->tracker, regions, &present, &full, &problem) ?:
		  tracker_rearm(run->tracker, &problem);

	regions_free(&present);
	return err;
}

static void tracker_end(struct method_run *run)
{
	tracker_close(run->tracker);
}

/* ---- the peer that every kernel has: read pagemap, then write to clear_refs ---- */

static int pagemap_open(struct method_run *run)
{
	run->fd = process_file_open(run, "pagemap", O_RDONLY);
	run->clear_refs = process_file_open(run, "clear_refs", O_WRONLY);
	if (run->fd < 0 || run->clear_refs < 0)
		return -errno;
	return buffer_make(run, READ_ENTRIES * sizeof(uint64_t));
}

static int pagemap_read(struct method_run *run, uint64_t start, size_t pages, struct regions *regions)
{
	const uint64_t *entries = run->buffer;
	const size_t bytes = pages * sizeof(*entries);
	size_t i = 0, first;
	int err = 0;

	if (pread(run->fd, run->buffer, bytes, (off_t)(start / PAGE_BYTES * sizeof(*entries))) != (ssize_t)bytes)
		return errno ? -errno : -EIO;
	while (!err && i < pages) {
		if (!(entries[i] & ENTRY_SOFT_DIRTY)) {
			i++;
			continue;
		}
		for (first = i; i < pages && entries[i] & ENTRY_SOFT_DIRTY; i++)
			;
		err = regions_add(regions, start + first * PAGE_BYTES, start + i * PAGE_BYTES, CKPT_PAGE_WRITTEN);
	}
	return err;
}

static int pagemap_collect(struct method_run *run, struct regions *regions)
{
	uint64_t start = memory_start(run), end = memory_end(run);
	int err = 0;

	while (!err && start < end) {
		size_t pages = (end - start) / PAGE_BYTES;

		if (pages > READ_ENTRIES)
			pages = READ_ENTRIES;
		err = pagemap_read(run, start, pages, regions);
		start += pages * PAGE_BYTES;
	}
	return !err && pwrite(run->clear_refs, "4", 1, 0) != 1 ? -errno : err;
}

/* ---- the peer of newer kernels: PAGEMAP_SCAN, which reports and write-protects in one step ---- */

static int scan_open(struct method_run *run)
{
	int err = victim_register(run->victim);

	if (err)
		return err;
	run->fd = process_file_open(run, "pagemap", O_RDONLY);
	if (run->fd < 0)
		return -errno;
	return buffer_make(run, VEC_REGIONS * sizeof(struct page_region));
}

/* With these masks the kernel takes the shortest way that it has. */
static int scan_collect(struct method_run *run, struct regions *regions)
{
	const struct page_region *vec = run->buffer;
	struct pm_scan_arg scan = {
		.size = sizeof(scan), .start = memory_start(run), .end = memory_end(run), .vec = (uintptr_t)vec,
		.vec_len = VEC_REGIONS, .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.category_mask = PAGE_IS_WRITTEN, .return_mask = PAGE_IS_WRITTEN,
	};
	int count, err = 0;

	for (; !err && scan.start < scan.end; scan.start = scan.walk_end) {
		count = ioctl(run->fd, PAGEMAP_SCAN, &scan);
		if (count < 0)
			return -errno;
		for (int i = 0; !err && i < count; i++)
			err = regions_add(regions, vec[i].start, vec[i].end, CKPT_PAGE_WRITTEN);
	}
	return err;
}

static void scan_close(struct method_run *run)
{
	victim_unregister(run->victim);
}

/* ---- all of them ---- */

static const struct method method_module = {
	.name = "soft-dirty", .open = module_open, .collect = module_collect,
};

static const struct method peers[] = {
	{ .name = "pagemap+clear_refs", .peer = true, .open = pagemap_open, .collect = pagemap_collect },
	{ .name = "PAGEMAP_SCAN", .peer = true, .splits_huge = true, .open = scan_open, .collect = scan_collect,
	  .close = scan_close },
};

#define PEERS (sizeof(peers) / sizeof(*peers))

static struct method method_of(const struct tracker_mechanism *mechanism)
{
	if (!strcmp(mechanism->name, method_module.name))
		return method_module;
	return (struct method){
		.name = mechanism->name, .mechanism = mechanism, .splits_huge = !strcmp(mechanism->name, "uffd-wp"),
		.open = tracker_begin, .collect = tracker_take, .close = tracker_end,
	};
}

static uint64_t pages_in_memory(const struct victim *victim, const struct regions *regions)
{
	const uint64_t start = (uintptr_t)victim->memory, end = start + victim->bytes;
	uint64_t pages = 0;

	for (size_t i = 0; i < regions->count; i++)
		if (regions->list[i].start >= start && regions->list[i].end <= end)
			pages += (regions->list[i].end - regions->list[i].start) / PAGE_BYTES;
	return pages;
}

/* Kernels without soft-dirty bits have both files of that peer, and find nothing. */
static int method_try(struct method_run *run, struct regions *regions)
{
	const struct writes one = { .count = 1 };
	int err = method_collect(run, regions);

	regions_clear(regions);
	if (!err)
		err = victim_write(run->victim, &one, NULL);
	if (!err)
		err = method_collect(run, regions);
	return !err && !pages_in_memory(run->victim, regions) ? -EOPNOTSUPP : err;
}

static bool method_works(const struct method *method)
{
	struct regions regions = {};
	struct method_run run;
	struct victim victim;
	int err = victim_start(&victim, HUGE_BYTES, false);

	if (err)
		return false;
	err = method_open(&run, method, &victim);
	if (!err) {
		err = method_try(&run, &regions);
		method_close(&run);
	}
	regions_free(&regions);
	victim_end(&victim);
	return !err;
}

size_t methods_here(struct method **methods)
{
	size_t count = 0, most = PEERS;

	for (size_t i = 0; tracker_mechanisms[i]; i++)
		most++;
	*methods = calloc(most, sizeof(**methods));
	if (!*methods)
		return 0;
	for (size_t i = 0; tracker_mechanisms[i]; i++) {
		struct problem problem;

		(*methods)[count] = method_of(tracker_mechanisms[i]);
		if (!tracker_mechanisms[i]->probe(&problem))
			count += method_works(&(*methods)[count]);
	}
	for (size_t i = 0; i < PEERS; i++) {
		(*methods)[count] = peers[i];
		count += method_works(&peers[i]);
	}
	return count;
}

int method_open(struct method_run *run, const struct method *method, const struct victim *victim)
{
	int err;

	if (victim->huge && !victim_is_huge(victim))
		victim_renew(victim);
	*run = (struct method_run){ .method = method, .victim = victim, .fd = -1, .clear_refs = -1 };
	err = method->open(run);
	if (err)
		method_close(run);
	return err;
}

int method_collect(struct method_run *run, struct regions *regions)
{
	return run->method->collect(run, regions);
}

void method_close(struct method_run *run)
{
	if (run->method->close)
		run->method->close(run);
	if (run->fd >= 0)
		close(run->fd);
	if (run->clear_refs >= 0)
		close(run->clear_refs);
	free(run->buffer);
}
