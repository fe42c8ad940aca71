// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon's trackers: every mechanism keeps the promises of tracker.h.
 *
 *	trackers		all mechanisms; the module is loaded
 *	trackers without	/dev/ckpt is missing: says so, and chooses hash
 */
#include <sys/prctl.h>

#include "guest.h"
#include "tracker.h"

#define JOB_MEMORY ((char *)0x300000000000ul)
#define JOB_PAGES 1024

static struct problem problem;

struct job {
	pid_t pid;
	int pidfd;
	int order[2];	/* to the job: a page to write, or -1: exec */
	int done[2];	/* from the job */
};

static void job_run(const struct job *job)
{
	int page;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(mmap(JOB_MEMORY, JOB_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0) == JOB_MEMORY);
	require(madvise(JOB_MEMORY, JOB_PAGES * PAGE, MADV_NOHUGEPAGE) == 0);
	while (read(job->order[0], &page, sizeof(page)) == sizeof(page)) {
		if (page < 0)
			execlp("sleep", "sleep", "1000", NULL);
		((volatile char *)JOB_MEMORY)[page * PAGE] = 1;
		require(write(job->done[1], "", 1) == 1);
	}
	_exit(0);
}

static struct job job_start(void)
{
	struct job job;

	require(pipe2(job.order, O_CLOEXEC) == 0 && pipe2(job.done, O_CLOEXEC) == 0);
	job.pid = fork();
	require(job.pid >= 0);
	if (!job.pid)
		job_run(&job);
	job.pidfd = pidfd_of(job.pid);
	return job;
}

static void job_write(const struct job *job, int page)
{
	char byte;

	require(write(job->order[1], &page, sizeof(page)) == sizeof(page));
	require(read(job->done[0], &byte, 1) == 1);
}

static void job_exec(const struct job *job)
{
	char path[64], target[64] = "";
	int exec = -1;

	require(write(job->order[1], &exec, sizeof(exec)) == sizeof(exec));
	snprintf(path, sizeof(path), "/proc/%d/comm", job->pid);
	while (strcmp(target, "sleep\n")) {
		int fd = open(path, O_RDONLY);
		ssize_t length = read(fd, target, sizeof(target) - 1);

		require(length >= 0);
		target[length] = 0;
		close(fd);
	}
}

static void job_end(struct job *job)
{
	kill(job->pid, SIGKILL);
	require(waitpid(job->pid, NULL, 0) == job->pid);
	for (int i = 0; i < 2; i++) {
		close(job->order[i]);
		close(job->done[i]);
	}
	close(job->pidfd);
}

static bool reported(const struct regions *regions, size_t page)
{
	uint64_t address = (uintptr_t)JOB_MEMORY + page * PAGE;

	for (size_t i = 0; i < regions->count; i++)
		if (regions->list[i].start <= address && address < regions->list[i].end)
			return regions->list[i].categories & CKPT_PAGE_WRITTEN;
	return false;
}

static void collect(struct tracker *tracker, struct regions *regions, bool *full)
{
	regions_clear(regions);
	if (tracker_collect(tracker, regions, full, &problem))
		fail("collect: %s", problem.text);
	for (size_t i = 1; i < regions->count; i++)
		require(regions->list[i - 1].end <= regions->list[i].start);
}

static void mechanism(const struct tracker_mechanism *mechanism)
{
	const bool always_full = !strcmp(mechanism->name, "hash");
	struct job job = job_start();
	struct regions regions = {};
	struct tracker *tracker;
	bool full;

	job_write(&job, 3);
	if (tracker_open(&tracker, mechanism, job.pidfd, job.pid, &problem))
		fail("open: %s", problem.text);
	collect(tracker, &regions, &full);
	require(full && reported(&regions, 3) && !reported(&regions, 4));

	job_write(&job, 4);
	collect(tracker, &regions, &full);
	require(full == always_full && reported(&regions, 4) && reported(&regions, 3) == full);

	/* The error that comes from outside: regions that nobody can keep. Then everything is reported again. */
	job_exec(&job);
	collect(tracker, &regions, &full);
	require(full && regions.count && !reported(&regions, 3));
	collect(tracker, &regions, &full);
	require(full == always_full);

	job_end(&job);
	require(tracker_collect(tracker, &regions, &full, &problem) == -ESRCH);
	require(strstr(problem.text, "is gone") || strstr(problem.text, "No such process") || strstr(problem.text, "cannot"));
	tracker_close(tracker);
	regions_free(&regions);
	printf("%s: as promised\n", mechanism->name);
}

static void choosing(void)
{
	require(!strcmp(tracker_choose("auto", &problem)->name, "soft-dirty") && !problem.text[0]);
	require(!strcmp(tracker_choose("hash", &problem)->name, "hash") && !problem.text[0]);
	require(!strcmp(tracker_choose(" hash,soft-dirty", &problem)->name, "hash"));
	require(!tracker_choose("magic", &problem) && strstr(problem.text, "magic"));
	require(!tracker_choose(" ", &problem) && problem.text[0]);
}

static void without_module(void)
{
	const struct tracker_mechanism *chosen = tracker_choose("auto", &problem);

	if (!chosen || strcmp(chosen->name, "hash") || !strstr(problem.text, "modprobe ckpt"))
		fail("chosen %s, because %s", chosen ? chosen->name : "nothing", problem.text);
	require(!tracker_choose("soft-dirty", &problem) && strstr(problem.text, "modprobe ckpt"));
	printf("without the module: %s\n", problem.text);
	mechanism(chosen);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		without_module();
		return 0;
	}
	choosing();
	for (size_t i = 0; tracker_mechanisms[i]; i++)
		mechanism(tracker_mechanisms[i]);
	return 0;
}
