// SPDX-License-Identifier: GPL-2.0
/*
 * A tracker outlives what it tracks, and what it tracks outlives it: each may end at any moment of a COLLECT.
 *
 *	lifetime		all tests
 *	lifetime hold		prints "held" and keeps a tracker until its input ends, for rmmod
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "guest.h"

#define JOB_BYTES (16ul << 20)

/* Writes all the time, until it is killed. */
static pid_t job_start(void)
{
	pid_t pid = fork();
	char *memory;

	require(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memory = mmap(NULL, JOB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(memory != MAP_FAILED);
	for (size_t at = 0;; at = (at + PAGE) % JOB_BYTES)
		((volatile char *)memory)[at] = 1;
}

static void job_end(pid_t pid)
{
	kill(pid, SIGKILL);
	require(waitpid(pid, NULL, 0) == pid);
}

/* Everything once; 0 or the errno. */
static int collect(int tracker)
{
	static struct ckpt_region vec[4096];
	struct ckpt_collect collect = { .size = sizeof(collect), .end = -PAGE, .vec = (uintptr_t)vec, .vec_len = 4096 };

	while (collect.start < collect.end) {
		if (ioctl(tracker, CKPT_IOC_COLLECT, &collect))
			return errno;
		collect.start = collect.out_walk_end;
	}
	return 0;
}

static void killed_before_collect(void)
{
	pid_t pid = job_start();
	int tracker = tracker_of(pid);

	require(collect(tracker) == 0);
	job_end(pid);
	require(collect(tracker) == ESRCH);
	require(collect(tracker) == ESRCH);
	close(tracker);
}

/* The kill comes at another moment each time. */
static void killed_during_collect(void)
{
	for (int round = 0; round < 40; round++) {
		pid_t pid = job_start(), killer;
		int tracker = tracker_of(pid), err;

		killer = fork();
		require(killer >= 0);
		if (!killer) {
			usleep(round * 500);
			kill(pid, SIGKILL);
			_exit(0);
		}
		while (!(err = collect(tracker)))
			;
		require(err == ESRCH);
		require(waitpid(pid, NULL, 0) == pid && waitpid(killer, NULL, 0) == killer);
		close(tracker);
	}
}

static void *collect_until_stopped(void *argument)
{
	const int *tracker = argument;
	int err;

	while (!(err = collect(*tracker)))
		;
	return (void *)(long)err;
}

static void closed_during_collect(void)
{
	pid_t pid = job_start();

	for (int round = 0; round < 20; round++) {
		int tracker = tracker_of(pid);
		pthread_t thread;
		void *err;

		require(pthread_create(&thread, NULL, collect_until_stopped, &tracker) == 0);
		usleep(round * 700);
		close(tracker);
		require(pthread_join(thread, &err) == 0);
		require((long)err == EBADF);
	}
	job_end(pid);
}

/* COLLECTs of one tracker take turns. */
static void collected_by_two_threads(void)
{
	pid_t pid = job_start();
	int tracker = tracker_of(pid);
	pthread_t thread[2];
	void *err;

	for (int i = 0; i < 2; i++)
		require(pthread_create(&thread[i], NULL, collect_until_stopped, &tracker) == 0);
	usleep(300000);
	job_end(pid);
	for (int i = 0; i < 2; i++) {
		require(pthread_join(thread[i], &err) == 0);
		require((long)err == ESRCH);
	}
	close(tracker);
}

/* exec: the old address space is gone, the new one can be tracked while the old tracker is open. */
static void executed(void)
{
	int device = device_open(), pipes[2], tracker, second, err;
	char byte;
	pid_t pid;

	require(pipe(pipes) == 0);
	pid = fork();
	require(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		require(read(pipes[0], &byte, 1) == 1);
		execlp("sleep", "sleep", "1000", NULL);
		_exit(127);
	}
	tracker = tracker_of(pid);
	require(collect(tracker) == 0);
	require(write(pipes[1], "", 1) == 1);
	while (!(err = collect(tracker)))
		usleep(1000);
	require(err == ESRCH);
	second = tracker_try(device, pid);
	require(second >= 0);
	require(collect(second) == 0);
	job_end(pid);
	close(second);
	close(tracker);
	close(device);
	close(pipes[0]);
	close(pipes[1]);
}

static void nothing(int signal)
{
}

/* A signal ends a COLLECT early; it is then continued, or nothing was collected. */
static void interrupted(void)
{
	struct sigaction action = { .sa_handler = nothing };
	pid_t pid = job_start(), ticker, parent = getpid();
	int tracker = tracker_of(pid), err, early = 0;

	require(sigaction(SIGUSR1, &action, NULL) == 0);
	ticker = fork();
	require(ticker >= 0);
	if (!ticker) {
		for (int i = 0; i < 300; i++) {
			usleep(300);
			kill(parent, SIGUSR1);
		}
		_exit(0);
	}
	while (!waitpid(ticker, NULL, WNOHANG)) {
		err = collect(tracker);
		require(err == 0 || err == EINTR);
		early += err == EINTR;
	}
	printf("interrupted before the first page: %d times\n", early);
	close(tracker);
	job_end(pid);
}

/* The tracker does not keep the memory of a process that has ended. */
static unsigned long free_kib(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	require(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemFree: %lu", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

static void memory_is_freed(void)
{
	int trackers[16];
	unsigned long before, after;

	before = free_kib();
	for (int i = 0; i < 16; i++) {
		pid_t pid = job_start();

		usleep(20000);
		trackers[i] = tracker_of(pid);
		collect(trackers[i]);
		job_end(pid);
	}
	usleep(300000);
	after = free_kib();
	if (after + 64 * 1024 < before)
		fail("%lu KiB were free, and %lu KiB are with 16 trackers of dead jobs", before, after);
	for (int i = 0; i < 16; i++)
		close(trackers[i]);
}

static int hold(void)
{
	int tracker = tracker_of(getpid());
	char byte;

	puts("held");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	close(tracker);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "hold"))
		return hold();
	killed_before_collect();
	killed_during_collect();
	closed_during_collect();
	collected_by_two_threads();
	executed();
	interrupted();
	memory_is_freed();
	puts("lifetime: all as expected");
	return 0;
}
