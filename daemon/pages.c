// SPDX-License-Identifier: GPL-2.0
/* ckpt-pages: gives one lazily restored job its memory, and its holder. See lazy_spec.h. Started by ckptd only, as root. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "faults.h"
#include "init_spec.h"
#include "lazy_serve.h"
#include "lazy_spec.h"
#include "pread_fully.h"
#include "proc.h"

#define KILLED "the process that gave the job its memory was killed"

/* In memory of both: nothing is missing any more, or nobody is left who could miss it. */
static int *done;

static void tell(const char *reason)
{
	struct stat st;

	/* The first reason is the reason. */
	if (fstat(LAZY_FD_STATE, &st) || st.st_size)
		return;
	/* If it cannot be written the job is killed all the same, and nobody knows why. */
	if (pwrite(LAZY_FD_STATE, reason, strlen(reason), 0) < 0)
		return;
}

/* With its PID 1 the kernel kills all of the job; the descriptors stay until it is gone. */
static void kill_job(void)
{
	struct pollfd gone = { .fd = LAZY_FD_INIT, .events = POLLIN };

	syscall(SYS_pidfd_send_signal, LAZY_FD_INIT, SIGKILL, NULL, 0);
	while (poll(&gone, 1, -1) < 0 && errno == EINTR)
		;
}

/* Shares the table of descriptors, and nothing else: no library is used here. */
__attribute__((noreturn)) static void hold(int pages)
{
	struct pollfd wait[2] = { { .fd = pages, .events = POLLIN }, { .fd = LAZY_FD_INIT, .events = POLLIN } };

	prctl(PR_SET_NAME, "ckpt-holder");
	while (poll(wait, 2, -1) < 0 && errno == EINTR)
		;
	if (!wait[1].revents && !__atomic_load_n(done, __ATOMIC_ACQUIRE)) {
		tell(KILLED);
		kill_job();
	}
	_exit(0);
}

static int write_text(int fd, const char *text)
{
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

/* Its pidfd. */
static int holder_start(struct problem *problem)
{
	int self = pidfd_of(getpid()), pidfd;
	char text[16];
	pid_t pid;

	done = mmap(NULL, sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (self < 0 || done == MAP_FAILED)
		return problem_set(problem, errno, "cannot prepare to hold the job's memory: %s", strerror(errno));
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		hold(self);
	pidfd = pid < 0 ? -errno : pidfd_of(pid);
	snprintf(text, sizeof(text), "%d", pid);
	if (pidfd < 0 || write_text(LAZY_FD_HOME, text))
		return problem_set(problem, pidfd < 0 ? -pidfd : errno, "cannot start the process that holds on to "
				   "the job's memory: %s", strerror(pidfd < 0 ? -pidfd : errno));
	close(LAZY_FD_HOME);
	return pidfd;
}

static int spec_read(struct lazy_spec *spec, struct problem *problem)
{
	ssize_t got = pread_fully(LAZY_FD_SPEC, spec, sizeof(*spec), 0);

	close(LAZY_FD_SPEC);
	if (got != (ssize_t)sizeof(*spec) || spec->magic != LAZY_MAGIC)
		return problem_set(problem, EINVAL, "ckpt-pages and ckptd are not of one version");
	return 0;
}

static void prepare(void)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGTERM, SIGPIPE };
	struct rlimit files;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	setsid();
	prctl(PR_SET_NAME, "ckpt-pages");
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
	if (fd >= 0 && write_text(fd, "-1000") == 0)
		close(fd);
	/* A descriptor for each process of the job. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void succeed(void)
{
	struct pollfd wait = { .fd = LAZY_FD_WATCH };

	/* Without this word init takes our end for a death.  It opens the vault: then nothing is watched any more. */
	if (write(LAZY_FD_WATCH, (char[]){ LAZY_DONE }, 1) == 1)
		while (poll(&wait, 1, -1) < 0 && errno == EINTR)
			;
	unlinkat(LAZY_FD_DIRECTORY, INIT_LAZY, 0);
	__atomic_store_n(done, 1, __ATOMIC_RELEASE);
}

int main(void)
{
	static struct lazy_spec spec;
	struct problem problem = { "" };
	int holder, ret;

	prepare();
	fault_arm(getenv("CKPT_FAULT"));
	ret = spec_read(&spec, &problem);
	holder = ret ? ret : holder_start(&problem);
	ret = holder < 0 ? holder : lazy_serve(&spec, holder, &problem);
	if (ret == 0) {
		succeed();
		return 0;
	}
	if (ret != -ESRCH) {
		tell(problem.text);
		kill_job();
	}
	if (done)
		__atomic_store_n(done, 1, __ATOMIC_RELEASE);
	/* Workers may wait for a store that is away. */
	_exit(ret == -ESRCH ? 0 : 1);
}
