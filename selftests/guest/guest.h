/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of the module share: a failing call ends the test, with its place. */
#ifndef CKPT_GUEST_H
#define CKPT_GUEST_H

#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ckpt.h>

#define PAGE 4096ul
#define HUGE_BYTES (2ul << 20)
#define TEST_SKIP 77

#define fail(format, ...) \
	do { \
		fprintf(stderr, "%s:%d: " format "\n", __FILE__, __LINE__, ##__VA_ARGS__); \
		exit(1); \
	} while (0)
#define require(condition) \
	do { \
		if (!(condition)) \
			fail("%s: %s", #condition, strerror(errno)); \
	} while (0)
#define require_error(error, call) \
	do { \
		errno = 0; \
		if ((call) != -1 || errno != (error)) \
			fail("%s: %s, not %s", #call, strerrorname_np(errno), #error); \
	} while (0)

static inline int device_open(void)
{
	int device = open("/dev/ckpt", O_RDWR | O_CLOEXEC);

	if (device < 0 && errno == ENOENT) {
		puts("the module is not loaded");
		exit(TEST_SKIP);
	}
	require(device >= 0);
	return device;
}

static inline int pidfd_of(pid_t pid)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);

	require(pidfd >= 0);
	return pidfd;
}

/* The tracker's descriptor, or -1 and errno. */
static inline int tracker_try(int device, pid_t pid)
{
	struct ckpt_track track = { .size = sizeof(track), .pid = pid, .pidfd = pidfd_of(pid) };
	int err = ioctl(device, CKPT_IOC_TRACK, &track);
	int saved = errno;

	close(track.pidfd);
	errno = saved;
	return err ? -1 : track.out_fd;
}

static inline int tracker_of(pid_t pid)
{
	int device = device_open();
	int tracker = tracker_try(device, pid);

	require(tracker >= 0);
	close(device);
	return tracker;
}

#endif
