// SPDX-License-Identifier: GPL-2.0
/*
 * Each ioctl, with its first allocation failing, then its second, and so on until it succeeds without a failure. After
 * each the state is as the manual says. Needs the module ckpt_fail.
 */
#include <dirent.h>
#include <sys/prctl.h>

#include "../kmod/ckpt_fail.h"
#include "guest.h"

#define JOB_BYTES (8 * HUGE_BYTES)
#define JOB_MEMORY ((char *)0x300000000000ul)
#define MANY 1000	/* allocations that no ioctl makes */

static int device, fail_device;
static pid_t job;
static int to_job, from_job;

/* Writes the page that it is told, every table's. */
static void job_run(int orders, int answers)
{
	unsigned int page;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(mmap(JOB_MEMORY, JOB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		JOB_MEMORY);
	require(madvise(JOB_MEMORY, JOB_BYTES, MADV_NOHUGEPAGE) == 0);
	while (read(orders, &page, sizeof(page)) == sizeof(page)) {
		for (size_t at = page * PAGE; at < JOB_BYTES; at += HUGE_BYTES)
			((volatile char *)JOB_MEMORY)[at]++;
		require(write(answers, "", 1) == 1);
	}
	_exit(0);
}

static void job_start(void)
{
	int orders[2], answers[2];

	require(pipe(orders) == 0 && pipe(answers) == 0);
	job = fork();
	require(job >= 0);
	if (!job)
		job_run(orders[0], answers[1]);
	to_job = orders[1];
	from_job = answers[0];
}

static void job_write(unsigned int page)
{
	char byte;

	require(write(to_job, &page, sizeof(page)) == sizeof(page));
	require(read(from_job, &byte, 1) == 1);
}

static struct ckpt_region vec[4096];

/* The job's memory once; 0 or the errno. */
static int collect(int tracker)
{
	static struct ckpt_collect arguments;

	arguments = (struct ckpt_collect){
		.size = sizeof(arguments), .start = (uintptr_t)JOB_MEMORY, .end = (uintptr_t)JOB_MEMORY + JOB_BYTES,
		.vec = (uintptr_t)vec, .vec_len = 4096,
	};
	if (ioctl(tracker, CKPT_IOC_COLLECT, &arguments))
		return errno;
	require(arguments.out_walk_end == arguments.end);
	vec[arguments.out_count].start = 0;
	return 0;
}

/* The page of every table. */
static bool reported(unsigned int page)
{
	for (size_t at = page * PAGE; at < JOB_BYTES; at += HUGE_BYTES) {
		uint64_t address = (uintptr_t)JOB_MEMORY + at;
		const struct ckpt_region *region = vec;

		while (region->start && region->end <= address)
			region++;
		if (!region->start || region->start > address || !(region->categories & CKPT_PAGE_WRITTEN))
			return false;
	}
	return true;
}

static void arm(unsigned long n)
{
	require(ioctl(fail_device, CKPT_FAIL_ARM, n) == 0);
}

/* True if the nth allocation was reached, and failed. */
static bool failed(unsigned long n)
{
	int allocations = ioctl(fail_device, CKPT_FAIL_DISARM);

	require(allocations >= 0);
	return (unsigned long)allocations >= n;
}

static int lowest_fd(void)
{
	int fd = dup(fail_device);

	close(fd);
	return fd;
}

/* No tracker and no descriptor is left by one that failed. */
static unsigned long track_sweep(void)
{
	struct ckpt_track arguments, valid = { .size = sizeof(valid), .pid = job, .pidfd = pidfd_of(job) };
	const int fd_before = lowest_fd();
	unsigned long n;
	int ret, err;
	bool was;

	for (n = 1; n < MANY; n++) {
		arguments = valid;
		arm(n);
		ret = ioctl(device, CKPT_IOC_TRACK, &arguments);
		err = errno;
		was = failed(n);
		if (!ret) {
			close(arguments.out_fd);
			if (!was)
				break;
			continue;
		}
		if (!was || err != ENOMEM)
			fail("TRACK with allocation %lu failing: %s", n, strerror(err));
		require(!memcmp(&arguments, &valid, sizeof(valid)));
		require(lowest_fd() == fd_before);
		close(tracker_of(job));
	}
	close(valid.pidfd);
	return n - 1;
}

/*
 * One that failed collected nothing. One that succeeded all the same may know less than it would, and so report more
 * the next time, but never less.
 */
static unsigned long collect_sweep(void)
{
	unsigned long n;
	bool was = true;
	int err;

	for (n = 1; n < MANY && was; n++) {
		int tracker = tracker_of(job);

		job_write(3);
		arm(n);
		err = collect(tracker);
		was = failed(n);
		if (err && (!was || err != ENOMEM))
			fail("COLLECT with allocation %lu failing: %s", n, strerror(err));
		if (err)
			require(collect(tracker) == 0);
		require(reported(3) && !reported(7));
		job_write(5);
		require(collect(tracker) == 0 && reported(5));
		require(collect(tracker) == 0 && !reported(5));
		close(tracker);
	}
	return n - 2;
}

/* Descriptors of the table that kernel threads share. */
static int kernel_fds(void)
{
	DIR *directory = opendir("/proc/2/fd");
	int count = 0;

	require(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* No descriptor is left, neither here nor with the kernel thread that made it. */
static unsigned long userfaultfd_sweep(void)
{
	struct ckpt_userfaultfd arguments, valid = { .size = sizeof(valid), .device_fd = open("/dev/userfaultfd", O_RDWR) };
	const int tracker = tracker_of(job), fd_before = lowest_fd(), kernel_fds_before = kernel_fds();
	unsigned long n;
	int ret, err;
	bool was = true;

	for (n = 1; n < MANY && was; n++) {
		arguments = valid;
		arm(n);
		ret = ioctl(tracker, CKPT_IOC_USERFAULTFD, &arguments);
		err = errno;
		was = failed(n);
		if (ret && err == EOPNOTSUPP)
			break;
		if (ret && (!was || err != ENOMEM))
			fail("USERFAULTFD with allocation %lu failing: %s", n, strerror(err));
		if (ret)
			require(!memcmp(&arguments, &valid, sizeof(valid)));
		else
			close(arguments.out_fd);
		require(lowest_fd() == fd_before && kernel_fds() == kernel_fds_before);
	}
	close(valid.device_fd);
	close(tracker);
	return n < 2 ? 0 : n - 2;
}

static unsigned long info_sweep(void)
{
	struct ckpt_info info = { .size = sizeof(info) };

	arm(1);
	require(ioctl(device, CKPT_IOC_INFO, &info) == 0);
	require(!failed(1));
	return 0;
}

int main(void)
{
	device = device_open();
	fail_device = open("/dev/ckpt_fail", O_RDWR | O_CLOEXEC);
	require(fail_device >= 0);
	memset(vec, 0, sizeof(vec));
	job_start();
	job_write(1);
	printf("allocations that failed in turn: INFO %lu", info_sweep());
	printf(", TRACK %lu", track_sweep());
	printf(", COLLECT %lu", collect_sweep());
	printf(", USERFAULTFD %lu\n", userfaultfd_sweep());
	kill(job, SIGKILL);
	require(waitpid(job, NULL, 0) == job);
	return 0;
}
