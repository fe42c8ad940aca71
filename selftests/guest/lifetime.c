// SPDX-License-Identifier: GPL-2.0
/*
 * A tracker outlives what it tracks, and what it tracks outlives it: each may end at any moment of a COLLECT.
 *
 *	lifetime		all tests
 *	lifetime hold		prints "held" and keeps a tracker until its input ends, for rmmod
 *	lifetime outlive	prints "held" and keeps a userfaultfd without its tracker; uses it when its input ends
 */
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <linux/userfaultfd.h>

#include "guest.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)	/* 6.7 */
#endif

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

static short events(int tracker, int timeout_ms)
{
	struct pollfd wait = { .fd = tracker, .events = POLLIN };

	require(poll(&wait, 1, timeout_ms) >= 0);
	return wait.revents;
}

/* Executes `sleep` when a byte comes through the pipe. */
static int sleeper_run(void *argument)
{
	const int *order = argument;
	char byte;

	if (read(order[0], &byte, 1) == 1)
		execlp("sleep", "sleep", "1000", NULL);
	_exit(127);
}

/* Whoever polls is woken by the exec, and by the exit, and finds the state again when it asks later. */
static void polled(void)
{
	int device = device_open(), order[2], tracker, second;
	pid_t pid, waker;

	require(pipe2(order, O_CLOEXEC) == 0);
	pid = fork();
	require(pid >= 0);
	if (!pid)
		sleeper_run(order);
	tracker = tracker_try(device, pid);
	require(events(tracker, 0) == 0);
	waker = fork();
	require(waker >= 0);
	if (!waker) {
		usleep(200000);
		_exit(write(order[1], "", 1) != 1);
	}
	require(events(tracker, 60000) == POLLIN && events(tracker, 0) == POLLIN);
	require(collect(tracker) == ESRCH);
	second = tracker_try(device, pid);
	require(second >= 0 && events(second, 0) == 0 && collect(second) == 0);
	require(waitpid(waker, NULL, 0) == waker);
	waker = fork();
	require(waker >= 0);
	if (!waker) {
		usleep(200000);
		_exit(kill(pid, SIGKILL));
	}
	require(events(second, 60000) == (POLLIN | POLLHUP) && events(tracker, 0) == (POLLIN | POLLHUP));
	require(waitpid(waker, NULL, 0) == waker && waitpid(pid, NULL, 0) == pid);
	require(events(second, 0) == (POLLIN | POLLHUP));
	close(second);
	close(tracker);
	close(device);
	close(order[0]);
	close(order[1]);
}

/*
 * A process that shares its parent's address space, as with vfork: it cannot be tracked if that is tracked already; and
 * if it is, its tracker does not go on with the parent's memory when the process executes a program.
 */
static void shared(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	int device = device_open(), order[2], tracker;
	pid_t child;

	require(pipe2(order, O_CLOEXEC) == 0);
	child = clone(sleeper_run, stack + sizeof(stack), CLONE_VM | SIGCHLD, order);
	require(child >= 0);
	tracker = tracker_try(device, getpid());
	require(tracker >= 0);
	require_error(EBUSY, tracker_try(device, child));
	close(tracker);
	tracker = tracker_try(device, child);
	require(tracker >= 0 && collect(tracker) == 0);
	require_error(EBUSY, tracker_try(device, getpid()));
	require(write(order[1], "", 1) == 1);
	require(events(tracker, 60000) == POLLIN && collect(tracker) == ESRCH);
	close(tracker);
	tracker = tracker_try(device, getpid());
	require(tracker >= 0 && events(tracker, 0) == 0);
	job_end(child);
	close(tracker);
	close(device);
	close(order[0]);
	close(order[1]);
}

/* Of the tracked process, or -1 and errno. */
static int userfaultfd_try(int tracker)
{
	struct ckpt_userfaultfd userfaultfd = { .size = sizeof(userfaultfd), .device_fd = open("/dev/userfaultfd", O_RDWR) };
	int err = ioctl(tracker, CKPT_IOC_USERFAULTFD, &userfaultfd);
	int saved = errno;

	close(userfaultfd.device_fd);
	errno = saved;
	return err ? -1 : userfaultfd.out_fd;
}

static bool uffd_works(void)
{
	struct ckpt_info info = { .size = sizeof(info) };
	int device = device_open();

	require(ioctl(device, CKPT_IOC_INFO, &info) == 0);
	close(device);
	return info.out_mechanisms & CKPT_MECHANISM_UFFD_WP;
}

static unsigned int kernel_descriptors(void)
{
	DIR *directory = opendir("/proc/2/fd");
	unsigned int count = 0;

	require(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void *userfaultfd_until_gone(void *argument)
{
	const int *tracker = argument;
	int fd;

	while ((fd = userfaultfd_try(*tracker)) >= 0)
		close(fd);
	require(errno == ESRCH);
	return NULL;
}

/* The process ends, and signals come, while userfaultfds of it are made; nothing of them stays with the kernel. */
static void killed_during_userfaultfd(void)
{
	unsigned int before = kernel_descriptors();

	for (int round = 0; round < 20; round++) {
		pid_t pid = job_start();
		int tracker = tracker_of(pid);
		pthread_t thread[2];

		for (int i = 0; i < 2; i++)
			require(pthread_create(&thread[i], NULL, userfaultfd_until_gone, &tracker) == 0);
		usleep(round * 1000);
		job_end(pid);
		for (int i = 0; i < 2; i++)
			require(pthread_join(thread[i], NULL) == 0);
		close(tracker);
	}
	require(kernel_descriptors() == before);
}

static void memory_register(int userfaultfd, char *memory, size_t bytes)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg = { .range = { (uintptr_t)memory, bytes }, .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	require(ioctl(userfaultfd, UFFDIO_API, &api) == 0);
	require(ioctl(userfaultfd, UFFDIO_REGISTER, &reg) == 0);
	require(ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &protect) == 0);
}

/* Counts in the first word, and writes all the rest. */
static pid_t counter_start(unsigned long *count, char *memory)
{
	pid_t pid = fork();

	require(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;; ++*(volatile unsigned long *)count)
		for (size_t at = 0; at < JOB_BYTES; at += PAGE)
			((volatile char *)memory)[at]++;
}

static void await_count(const unsigned long *count, unsigned long more)
{
	unsigned long begin = *(volatile const unsigned long *)count;

	while (*(volatile const unsigned long *)count < begin + more)
		usleep(1000);
}

/* Who tracks a job with a userfaultfd is killed: the job goes on, and can be tracked again. */
static void killed_with_userfaultfd(void)
{
	unsigned long *count = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *memory = mmap(NULL, JOB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t job = counter_start(count, memory);

	for (int round = 0; round < 3; round++) {
		int ready[2];
		pid_t owner;
		char byte;

		require(pipe(ready) == 0);
		owner = fork();
		require(owner >= 0);
		if (!owner) {
			int tracker = tracker_of(job);

			memory_register(userfaultfd_try(tracker), memory, JOB_BYTES);
			require(write(ready[1], "", 1) == 1);
			pause();
		}
		require(read(ready[0], &byte, 1) == 1);
		await_count(count, 3);
		kill(owner, SIGKILL);
		require(waitpid(owner, NULL, 0) == owner);
		await_count(count, 3);
		close(ready[0]);
		close(ready[1]);
	}
	job_end(job);
	munmap(memory, JOB_BYTES);
	munmap(count, PAGE);
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

/* Whoever has the descriptor may collect, and it is one tracker. */
static void inherited(void)
{
	pid_t pid = job_start(), child;
	int device = device_open(), tracker = tracker_of(pid), status, second;

	require(collect(tracker) == 0);
	child = fork();
	require(child >= 0);
	if (!child)
		_exit(collect(tracker));
	require(waitpid(child, &status, 0) == child && status == 0);
	child = fork();
	if (!child) {
		require(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
		for (;;)
			pause();
	}
	close(tracker);
	/* The child has it still. */
	require_error(EBUSY, tracker_try(device, pid));
	kill(child, SIGKILL);
	require(waitpid(child, NULL, 0) == child);
	second = tracker_try(device, pid);
	require(second >= 0);
	close(second);
	close(device);
	job_end(pid);
}

static void send_descriptor(int socket, int fd)
{
	char byte = 0, space[CMSG_SPACE(sizeof(fd))] = {};
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	struct cmsghdr *control = CMSG_FIRSTHDR(&message);

	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(control), &fd, sizeof(fd));
	require(sendmsg(socket, &message, 0) == 1);
}

static int receive_descriptor(int socket)
{
	char byte, space[CMSG_SPACE(sizeof(int))] = {};
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	int fd;

	require(recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

/*
 * Handed to a process without privileges, and let go by who opened it: it collects, it cannot get at the memory, and
 * it ends with its last holder, also one that waits in a socket.
 */
static void passed_on(void)
{
	struct ckpt_userfaultfd userfaultfd = { .size = sizeof(userfaultfd), .device_fd = open("/dev/userfaultfd", O_RDWR) };
	int device = device_open(), sockets[2], status, tracker;
	pid_t pid = job_start(), child;

	require(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	tracker = tracker_of(pid);
	send_descriptor(sockets[0], tracker);
	close(tracker);
	require_error(EBUSY, tracker_try(device, pid));
	child = fork();
	require(child >= 0);
	if (!child) {
		require(setgid(65534) == 0 && setuid(65534) == 0);
		tracker = receive_descriptor(sockets[1]);
		require(collect(tracker) == 0 && collect(tracker) == 0);
		require(ioctl(tracker, CKPT_IOC_USERFAULTFD, &userfaultfd) == -1 && (errno == EPERM || errno == EOPNOTSUPP));
		_exit(0);
	}
	require(waitpid(child, &status, 0) == child && status == 0);
	tracker = tracker_try(device, pid);
	require(tracker >= 0);
	send_descriptor(sockets[0], tracker);
	close(tracker);
	close(sockets[0]);
	close(sockets[1]);
	tracker = tracker_try(device, pid);
	require(tracker >= 0);
	close(tracker);
	close(userfaultfd.device_fd);
	close(device);
	job_end(pid);
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

/* The userfaultfd works on without the tracker and, when the input has ended, without the module. */
static int outlive(void)
{
	char *memory = mmap(NULL, JOB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int tracker, userfaultfd;
	char byte;

	if (!uffd_works()) {
		puts("no userfaultfd");
		return 0;
	}
	tracker = tracker_of(getpid());
	userfaultfd = userfaultfd_try(tracker);
	require(userfaultfd >= 0);
	close(tracker);
	puts("held");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	require_error(ENOENT, open("/dev/ckpt", O_RDWR));
	memory[0] = 1;
	memory_register(userfaultfd, memory, JOB_BYTES);
	memory[0] = memory[PAGE] = 2;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return !strcmp(argv[1], "hold") ? hold() : outlive();
	killed_before_collect();
	killed_during_collect();
	closed_during_collect();
	collected_by_two_threads();
	executed();
	polled();
	shared();
	if (uffd_works()) {
		killed_during_userfaultfd();
		killed_with_userfaultfd();
	}
	interrupted();
	inherited();
	passed_on();
	memory_is_freed();
	puts("lifetime: all as expected");
	return 0;
}
