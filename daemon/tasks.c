// SPDX-License-Identifier: GPL-2.0
#include "tasks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/kcmp.h>

#include "cgroup.h"
#include "cleanup.h"
#include "log.h"
#include "proc.h"
#include "softdirty_bits.h"

/* A process closes what it does not need right after it was forked; there is nothing that tells of it. */
#define BUSY_TRIES 25
#define BUSY_US 20000

static void task_end(struct task *task)
{
	if (task->tracker)
		tracker_close(task->tracker);
	if (task->pidfd >= 0)
		close(task->pidfd);
	task->tracker = NULL;
	task->pidfd = -1;
}

/* It has no memory of its own: a vfork()ed child before it executes a program. */
static bool is_tracked_as_another(const struct tasks *tasks, const struct task *task)
{
	for (size_t i = 0; i < tasks->count; i++)
		if (tasks->list[i].tracker && tasks->list[i].pid != task->pid &&
		    syscall(SYS_kcmp, task->pid, tasks->list[i].pid, KCMP_VM, 0, 0) == 0)
			return true;
	return false;
}

static int tracker_try(const struct tasks *tasks, struct task *task, struct problem *problem)
{
	int ret = tracker_open(&task->tracker, tasks->mechanism, task->pidfd, task->pid, problem);

	if (ret)
		task->tracker = NULL;
	return ret;
}

static void task_track(const struct tasks *tasks, struct task *task)
{
	struct problem problem;
	int ret = tracker_try(tasks, task, &problem);

	/* It may have got its own in this moment, or what another thread has just forked has the old tracker still open. */
	for (int tries = task->told_untracked ? BUSY_TRIES - 1 : 0; ret == -EBUSY && tries < BUSY_TRIES; tries++) {
		if (is_tracked_as_another(tasks, task))
			return;
		usleep(BUSY_US);
		ret = tracker_try(tasks, task, &problem);
	}
	if (ret == 0 || ret == -ESRCH || task->told_untracked)
		return;
	log_warn("process %d cannot be tracked, all its pages are read at each checkpoint: %s", task->pid,
		 problem.text);
	task->told_untracked = true;
}

/* The descriptor first: what is read after it is of this process or of none. -ESRCH: it has ended already. */
static int task_open(struct task *task, pid_t pid)
{
	int ret;

	*task = (struct task){ .pid = pid, .present = true, .pidfd = pidfd_of(pid) };
	if (task->pidfd < 0)
		return task->pidfd;
	ret = proc_start_time(pid, &task->start_time);
	return ret ? ret : proc_namespace_pid(pid, &task->inner_pid);
}

static int tasks_add(struct tasks *tasks, pid_t pid, struct pagemap *map, struct problem *problem)
{
	struct task task;
	struct task *grown;
	int ret = task_open(&task, pid);

	if (ret) {
		task_end(&task);
		return ret == -ESRCH ? 0 : problem_set(problem, -ret, "cannot look at process %d: %s", pid, strerror(-ret));
	}
	if (tasks->count == tasks->space) {
		tasks->space = tasks->space ? tasks->space * 2 : 16;
		grown = reallocarray(tasks->list, tasks->space, sizeof(*grown));
		if (!grown) {
			task_end(&task);
			return problem_set(problem, ENOMEM, "out of memory");
		}
		tasks->list = grown;
	}
	if (map)
		pagemap_forget_space(map, SPACE_TASK, (uint64_t)task.inner_pid);
	task_track(tasks, &task);
	tasks->list[tasks->count++] = task;
	return 0;
}

static struct task *tasks_find(struct tasks *tasks, pid_t pid)
{
	uint64_t start_time;

	for (size_t i = 0; i < tasks->count; i++)
		if (tasks->list[i].pid == pid && proc_start_time(pid, &start_time) == 0 &&
		    start_time == tasks->list[i].start_time)
			return &tasks->list[i];
	return NULL;
}

/* Also looks for a number that is another's now: its space has been emptied for that one. */
static void remove_ended(struct tasks *tasks, struct pagemap *map)
{
	size_t kept = 0;

	for (size_t i = 0; i < tasks->count; i++) {
		struct task *task = &tasks->list[i];

		if (task->present) {
			tasks->list[kept++] = *task;
			continue;
		}
		if (map)
			pagemap_forget_space(map, SPACE_TASK, (uint64_t)task->inner_pid);
		task_end(task);
	}
	tasks->count = kept;
}

static int update(struct tasks *tasks, const char *cgroup, struct pagemap *map,
		  struct problem *problem)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;
	int ret = cgroup_pids(cgroup, &pids, &count, problem);

	if (ret)
		return ret;
	for (size_t i = 0; i < tasks->count; i++)
		tasks->list[i].present = false;
	for (size_t i = 0; i < count; i++) {
		struct task *task = tasks_find(tasks, pids[i]);

		if (task)
			task->present = true;
	}
	/* The ended go first: a new task may have an ended one's number and needs its space empty. */
	remove_ended(tasks, map);
	/* One that shared its memory with another (vfork) may have its own now. */
	for (size_t i = 0; i < tasks->count; i++)
		if (!tasks->list[i].tracker)
			task_track(tasks, &tasks->list[i]);
	for (size_t i = 0; i < count && ret == 0; i++)
		if (!tasks_find(tasks, pids[i]))
			ret = tasks_add(tasks, pids[i], map, problem);
	return ret;
}

int tasks_update(struct tasks *tasks, const char *cgroup, struct pagemap *map,
		 struct problem *problem)
{
	return update(tasks, cgroup, map, problem);
}

int tasks_adopt(struct tasks *tasks, const char *cgroup, struct problem *problem)
{
	return update(tasks, cgroup, NULL, problem);
}

struct task *tasks_find_inner(struct tasks *tasks, pid_t inner_pid)
{
	for (size_t i = 0; i < tasks->count; i++)
		if (tasks->list[i].inner_pid == inner_pid)
			return &tasks->list[i];
	return NULL;
}

void tasks_restart_tracking(struct tasks *tasks)
{
	for (size_t i = 0; i < tasks->count; i++) {
		struct task *task = &tasks->list[i];

		if (task->tracker)
			tracker_close(task->tracker);
		task->tracker = NULL;
		task_track(tasks, task);
	}
}

static int task_mapped_files(pid_t pid, struct numbers *inodes)
{
	cleanup_fclose FILE *maps = NULL;
	cleanup_free char *line = NULL;
	char mode[8];
	unsigned long inode;
	size_t space = 0;
	int ret = proc_file(pid, "maps", &maps);

	while (maps && ret == 0 && getline(&line, &space, maps) > 0)
		if (sscanf(line, "%*s %7s %*s %*s %lu", mode, &inode) == 2 && mode[3] == 's' &&
		    mode[1] == 'w' && inode)
			ret = numbers_add(inodes, inode);
	return ret ?: proc_file_end(maps);
}

int tasks_mapped_files(const struct tasks *tasks, struct numbers *inodes)
{
	int ret = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = task_mapped_files(tasks->list[i].pid, inodes);
	numbers_sort(inodes);
	return ret;
}

/*
 * CRIU, asked next, sends what is soft-dirty; the rest it only names, and we hold it.  What was
 * collected by other means than these bits is still soft-dirty, and so is all of a mapping that was
 * made since they were last cleared.
 *
 * Never while the job runs: a task may share its memory with one that is tracked by these bits
 * (vfork), and they would be lost.
 */
void tasks_clear_soft_dirty(const struct tasks *tasks)
{
	for (size_t i = 0; i < tasks->count; i++) {
		const struct task *task = &tasks->list[i];
		int err = task->tracker && tasks->mechanism->leaves_soft_dirty ? softdirty_bits_clear(task->pid) : 0;

		if (err)
			log_debug("cannot write to /proc/%d/clear_refs: %s", task->pid, strerror(-err));
	}
}

void tasks_free(struct tasks *tasks)
{
	for (size_t i = 0; i < tasks->count; i++)
		task_end(&tasks->list[i]);
	free(tasks->list);
	tasks->list = NULL;
	tasks->count = tasks->space = 0;
}
