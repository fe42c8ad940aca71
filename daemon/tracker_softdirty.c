// SPDX-License-Identifier: GPL-2.0
/* The mechanism soft-dirty: /dev/ckpt, collected while the job runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "tracker_mechanism.h"

#define DEVICE "/dev/ckpt"
#define VEC_REGIONS 16384	/* 384 KiB */

static int device_open(int *device, struct problem *problem)
{
	*device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (*device >= 0)
		return 0;
	if (errno == ENOENT)
		return problem_set(problem, ENOENT, DEVICE " is missing: the ckpt module is not loaded; run "
				   "'modprobe ckpt', or install ckpt-dkms");
	if (errno == EACCES || errno == EPERM)
		return problem_set(problem, errno, "may not open " DEVICE ": only root may");
	return problem_set(problem, errno, "cannot open " DEVICE ": %m");
}

int module_probe(uint32_t mechanism, const char *why_not, struct problem *problem)
{
	struct ckpt_info info = { .size = sizeof(info) };
	cleanup_close int device = -1;
	int err = device_open(&device, problem);

	if (err)
		return err;
	if (ioctl(device, CKPT_IOC_INFO, &info))
		return problem_set(problem, errno, DEVICE " does not answer as this ckptd expects (%m): the loaded ckpt "
				   "module is of another version; reload it");
	return info.out_mechanisms & mechanism ? 0 : problem_set(problem, EOPNOTSUPP, "%s", why_not);
}

static int softdirty_probe(struct problem *problem)
{
	return module_probe(CKPT_MECHANISM_SOFT_DIRTY, "the kernel was built without CONFIG_MEM_SOFT_DIRTY, runs as a "
			    "Xen PV guest, or lets nobody set kprobes (see its log)", problem);
}

static int track_problem(const struct tracker *tracker, int err, struct problem *problem)
{
	if (err == EBUSY)
		return problem_set(problem, err, "process %d is tracked already: is another ckptd running?", tracker->pid);
	if (err == EPERM)
		return problem_set(problem, err, "may not track process %d: CAP_SYS_PTRACE is needed", tracker->pid);
	if (err == ESRCH)
		return problem_set(problem, err, "process %d is gone", tracker->pid);
	return problem_set(problem, err, "cannot track process %d: %s", tracker->pid, strerror(err));
}

int module_track(struct tracker *tracker, struct problem *problem)
{
	struct ckpt_track track = { .size = sizeof(track), .pidfd = tracker->pidfd, .pid = tracker->pid };
	cleanup_close int device = -1;
	int err = device_open(&device, problem);

	if (err)
		return err;
	if (ioctl(device, CKPT_IOC_TRACK, &track))
		return track_problem(tracker, errno, problem);
	tracker->fd = track.out_fd;
	return 0;
}

static void softdirty_close(struct tracker *tracker)
{
	if (tracker->fd >= 0)
		close(tracker->fd);
	tracker->fd = -1;
}

static int vec_add_all(struct regions *regions, const struct ckpt_region *vec, size_t count)
{
	int err = 0;

	for (size_t i = 0; !err && i < count; i++)
		err = regions_add(regions, vec[i].start, vec[i].end, vec[i].categories);
	return err;
}

/* Goes through the address space once. A new generation starts it over. */
static int collect_all(struct tracker *tracker, struct regions *regions, struct ckpt_region *vec)
{
	struct ckpt_collect collect = { .size = sizeof(collect), .end = -(uint64_t)PAGE_BYTES, .vec = (uintptr_t)vec };
	const size_t begin = regions->count;
	int err = 0;

	tracker->generation = 0;
	while (!err && collect.start < collect.end) {
		collect.vec_len = VEC_REGIONS;
		if (ioctl(tracker->fd, CKPT_IOC_COLLECT, &collect)) {
			err = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (tracker->generation && collect.out_generation != tracker->generation) {
			regions->count = begin;
			collect.out_walk_end = 0;
			collect.out_count = 0;
		}
		tracker->generation = collect.out_generation;
		err = vec_add_all(regions, vec, collect.out_count);
		collect.start = collect.out_walk_end;
		collect.out_count = collect.out_walk_end = collect.out_generation = 0;
	}
	if (err)
		regions->count = begin;
	return err;
}

/* After exec the process has another address space, that needs another tracker. */
static int softdirty_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	cleanup_free struct ckpt_region *vec = reallocarray(NULL, VEC_REGIONS, sizeof(*vec));
	int err = -ESRCH;

	if (!vec)
		return problem_set(problem, ENOMEM, "out of memory");
	if (tracker->fd >= 0)
		err = collect_all(tracker, regions, vec);
	if (err == -ESRCH) {
		softdirty_close(tracker);
		err = module_track(tracker, problem);
		if (err)
			return err;
		err = collect_all(tracker, regions, vec);
	}
	return err ? problem_set(problem, -err, "cannot collect the pages of process %d: %s", tracker->pid,
				 strerror(-err)) : 0;
}

const struct tracker_mechanism tracker_softdirty = {
	.name = "soft-dirty",
	.describe = "ckpt module: written pages are collected while the job runs",
	.probe = softdirty_probe,
	.open = module_track,
	.collect = softdirty_collect,
	.close = softdirty_close,
	.collects_while_running = true,
	.look = TRACKER_LOOK_SOFT_DIRTY,
	.tells_exec = true,
};
