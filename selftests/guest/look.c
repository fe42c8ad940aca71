// SPDX-License-Identifier: GPL-2.0
/* Looks show what was written since the last collect, and change nothing of what the next one finds. */
#include <sys/prctl.h>

#include "guest.h"
#include "look.h"

#define JOB_BYTES (64ul << 20)
/* What else a process writes while it is told to: its stack, its data. */
#define OTHER_PAGES 64

static struct problem problem;

struct job {
	pid_t pid;
	int pidfd;
	int order[2], done[2];
};

/* Writes every stride-th page when told so. */
__attribute__((noreturn)) static void job_main(struct job *job)
{
	char *memory = mmap(NULL, JOB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t stride;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(memory != MAP_FAILED && madvise(memory, JOB_BYTES, MADV_NOHUGEPAGE) == 0);
	memset(memory, 1, JOB_BYTES);
	do {
		require(write(job->done[1], "", 1) == 1);
		require(read(job->order[0], &stride, sizeof(stride)) == sizeof(stride));
		for (size_t at = 0; at < JOB_BYTES; at += stride * PAGE)
			memory[at]++;
	} while (stride);
	exit(0);
}

static void job_start(struct job *job)
{
	char byte;

	require(pipe(job->order) == 0 && pipe(job->done) == 0);
	job->pid = fork();
	require(job->pid >= 0);
	if (job->pid == 0)
		job_main(job);
	job->pidfd = pidfd_of(job->pid);
	require(read(job->done[0], &byte, 1) == 1);
}

static void job_write(struct job *job, size_t stride)
{
	char byte;

	require(write(job->order[1], &stride, sizeof(stride)) == sizeof(stride));
	require(read(job->done[0], &byte, 1) == 1);
}

static uint64_t collect(struct task *task)
{
	struct regions regions = { 0 }, present = { 0 };
	uint64_t pages;
	bool full;

	if (tracker_collect(task->tracker, &regions, &present, &full, &problem) ||
	    tracker_rearm(task->tracker, &problem))
		fail("%s", problem.text);
	pages = regions_pages(&regions);
	regions_free(&regions);
	regions_free(&present);
	return pages;
}

static uint64_t look(const struct tasks *tasks)
{
	uint64_t pages = UINT64_MAX;

	require(look_written(tasks, 1, &pages) == 0);
	return pages;
}

static void require_about(const char *name, uint64_t found, uint64_t expected)
{
	if (found < expected || found > expected + OTHER_PAGES)
		fail("%s: %lu pages, expected %lu", name, found, expected);
}

/* procfs may report all of a table of which it cannot tell. */
static void require_reported(const struct tracker_mechanism *mechanism, uint64_t found, uint64_t expected)
{
	if (mechanism->collects_while_running || found < expected)
		require_about(mechanism->name, found, expected);
}

/* While somebody else has the tracker open for a moment, as what another thread forks. */
static void test_restart(struct tasks *tasks, const struct job *job)
{
	pid_t holder = fork();

	require(holder >= 0);
	if (holder == 0) {
		usleep(100000);
		_exit(0);
	}
	tasks->list->pidfd = job->pidfd;
	tasks_restart_tracking(tasks);
	if (!tasks->list->tracker)
		fail("%s: not tracked again", tasks->mechanism->name);
	require(waitpid(holder, NULL, 0) == holder);
}

static void test(const struct tracker_mechanism *mechanism)
{
	struct job job;
	struct task task = { 0 };
	struct tasks tasks = { .list = &task, .count = 1, .mechanism = mechanism };
	uint64_t pages;

	job_start(&job);
	task.pid = job.pid;
	if (tracker_open(&task.tracker, mechanism, job.pidfd, job.pid, &problem))
		fail("%s: %s", mechanism->name, problem.text);
	collect(&task);
	collect(&task);
	require_about(mechanism->name, look(&tasks), 0);
	for (size_t stride = 1; stride <= 100; stride += 33) {
		uint64_t written = (JOB_BYTES / PAGE + stride - 1) / stride;

		job_write(&job, stride);
		require_about(mechanism->name, look(&tasks), written);
		require_about(mechanism->name, look(&tasks), written);
		require_reported(mechanism, collect(&task), written);
		require_about(mechanism->name, look(&tasks), 0);
	}
	test_restart(&tasks, &job);
	kill(job.pid, SIGKILL);
	require(waitpid(job.pid, NULL, 0) == job.pid);
	/* What has ended has written nothing. */
	require(look_written(&tasks, 1, &pages) == 0 && pages == 0);
	tracker_close(task.tracker);
	printf("ok %s\n", mechanism->name);
}

int main(void)
{
	for (size_t i = 0; tracker_mechanisms[i]; i++) {
		const struct tracker_mechanism *mechanism = tracker_mechanisms[i];
		struct tasks tasks = { .mechanism = mechanism };
		uint64_t pages;

		if (mechanism->probe(&problem))
			printf("skipped %s: %s\n", mechanism->name, problem.text);
		else if (mechanism->look == TRACKER_LOOK_NONE)
			require(look_written(&tasks, 1, &pages) == -ENOTSUP);
		else
			test(mechanism);
	}
	return 0;
}
