// SPDX-License-Identifier: GPL-2.0
#include "tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <linux/ckpt.h>

#include "cleanup.h"
#include "mappings.h"
#include "pagescan.h"
#include "tracker_mechanism.h"

const struct tracker_mechanism *const tracker_mechanisms[] = {
	&tracker_softdirty,
	&tracker_uffd,
	&tracker_procfs,
	&tracker_hash,
	NULL,
};

static const struct tracker_mechanism *mechanism_find(const char *name, size_t length)
{
	for (size_t i = 0; tracker_mechanisms[i]; i++)
		if (strlen(tracker_mechanisms[i]->name) == length && !strncmp(tracker_mechanisms[i]->name, name, length))
			return tracker_mechanisms[i];
	return NULL;
}

/* Adds "NAME: why not" to the reasons; says whether it works. */
static bool mechanism_works(const struct tracker_mechanism *mechanism, struct problem *reasons)
{
	struct problem why = {};
	size_t length = strlen(reasons->text);

	if (!mechanism->probe(&why))
		return true;
	snprintf(reasons->text + length, sizeof(reasons->text) - length, "%s%s: %s", length ? "; " : "",
		 mechanism->name, why.text);
	return false;
}

static const struct tracker_mechanism *choose_auto(struct problem *reasons)
{
	for (size_t i = 0; tracker_mechanisms[i]; i++)
		if (mechanism_works(tracker_mechanisms[i], reasons))
			return tracker_mechanisms[i];
	return NULL;
}

static const struct tracker_mechanism *choose_from(const char *wanted, struct problem *reasons)
{
	static const char separators[] = " \t,";
	const struct tracker_mechanism *mechanism;
	size_t length;

	for (wanted += strspn(wanted, separators); *wanted; wanted += strspn(wanted, separators)) {
		length = strcspn(wanted, separators);
		mechanism = mechanism_find(wanted, length);
		if (!mechanism) {
			problem_set(reasons, EINVAL, "there is no mechanism '%.*s'", (int)length, wanted);
			return NULL;
		}
		if (mechanism_works(mechanism, reasons))
			return mechanism;
		wanted += length;
	}
	return NULL;
}

const struct tracker_mechanism *tracker_choose(const char *wanted, struct problem *problem)
{
	struct problem reasons = {};
	const struct tracker_mechanism *mechanism;

	mechanism = strcmp(wanted, "auto") ? choose_from(wanted, &reasons) : choose_auto(&reasons);
	if (!mechanism && !reasons.text[0])
		problem_set(&reasons, EINVAL, "no mechanism is named");
	problem_set(problem, 0, "%s", reasons.text);
	return mechanism;
}

int tracker_open(struct tracker **tracker, const struct tracker_mechanism *mechanism, int pidfd, pid_t pid,
		 struct problem *problem)
{
	cleanup_free struct tracker *new = calloc(1, sizeof(*new));
	int err;

	if (!new)
		return problem_set(problem, ENOMEM, "out of memory");
	new->mechanism = mechanism;
	new->pid = pid;
	new->fd = new->maps = new->pagemap = new->userfaultfd = -1;
	new->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
	if (new->pidfd < 0)
		return problem_set(problem, errno, "cannot duplicate the pidfd of process %d: %m", pid);
	err = mechanism->open(new, problem);
	if (err) {
		mechanism->close(new);
		close(new->pidfd);
		return err;
	}
	*tracker = take_ptr(new);
	return 0;
}

int tracker_scan_present(const struct tracker *tracker, struct regions *regions)
{
	cleanup_close int maps = mappings_open(tracker->pid);
	cleanup_close int pagemap = pagescan_open(tracker->pid);
	struct mappings mappings = {};
	int err = maps < 0 ? maps : pagemap < 0 ? pagemap : mappings_read(&mappings, maps, tracker->pid);

	for (size_t i = 0; !err && i < mappings.count; i++)
		if (mapping_is_private(&mappings.list[i]))
			err = pagescan(pagemap, PAGESCAN_PRESENT, mappings.list[i].start, mappings.list[i].end,
				       CKPT_PAGE_WRITTEN, regions);
	mappings_free(&mappings);
	return err;
}

/* What is present is looked at first: what comes then is either reported as written, or in neither list. */
static int collect_in_steps(struct tracker *tracker, struct regions *regions, struct regions *present,
			    struct problem *problem)
{
	int err = tracker_scan_present(tracker, present);

	if (err)
		return problem_set(problem, -err, "cannot read the page map of process %d: %s", tracker->pid,
				   strerror(-err));
	err = tracker->mechanism->collect(tracker, regions, problem);
	if (!err && (regions_add_all(present, regions) || regions_normalise(present)))
		err = problem_set(problem, ENOMEM, "out of memory");
	return err;
}

int tracker_collect(struct tracker *tracker, struct regions *regions, struct regions *present, bool *full,
		    struct problem *problem)
{
	int err = tracker->mechanism->rearm ? collect_in_steps(tracker, regions, present, problem) :
					      tracker->mechanism->collect(tracker, regions, problem);

	if (err) {
		/* What was reported to nobody is armed: start over. */
		tracker->mechanism->close(tracker);
		tracker->last_generation = 0;
		return err;
	}
	*full = tracker->generation != tracker->last_generation;
	tracker->last_generation = tracker->generation;
	return 0;
}

int tracker_rearm(struct tracker *tracker, struct problem *problem)
{
	int err = tracker->mechanism->rearm ? tracker->mechanism->rearm(tracker, problem) : 0;

	if (err)
		tracker->last_generation = 0;
	return err;
}

int tracker_event_fd(const struct tracker *tracker)
{
	return tracker->mechanism->tells_exec ? tracker->fd : -1;
}

void tracker_close(struct tracker *tracker)
{
	if (!tracker)
		return;
	tracker->mechanism->close(tracker);
	close(tracker->pidfd);
	free(tracker);
}
