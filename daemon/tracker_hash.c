// SPDX-License-Identifier: GPL-2.0
/*
 * The mechanism hash: needs nothing of the kernel. Each collect reports every page that is there and is the job's own;
 * the hashes of the packer then keep what did not change off the store.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "tracker_mechanism.h"

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

static bool process_ended(const struct tracker *tracker)
{
	struct pollfd end = { .fd = tracker->pidfd, .events = POLLIN };

	return poll(&end, 1, 0) != 0;
}

static int hash_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	const struct regions_mark mark = regions_mark(regions);
	int err = tracker_scan_present(tracker, regions);

	/* What was read by number was this process only if it has not ended since. */
	if (!err && process_ended(tracker))
		err = -ESRCH;
	if (err) {
		regions_cut(regions, mark);
		return problem_set(problem, -err, "cannot read the page map of process %d: %s", tracker->pid,
				   strerror(-err));
	}
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
	.leaves_soft_dirty = true,
};
