// SPDX-License-Identifier: GPL-2.0
/* What of a process criu cannot save, told before it tries, in better words than its own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "criu.h"
#include "init_spec.h"
#include "log.h"
#include "proc.h"
#include "vma_image.h"

/* What CRIU (up to 4.2) refuses, as the links of /proc/PID/fd and the names in maps show it. */
static const struct {
	const char *name;
	const char *what;
	const char *remedy;
} unsupported[] = {
	{ "anon_inode:[io_uring]", "an io_uring", "let the program use another I/O method" },
	{ "anon_inode:[userfaultfd]", "a userfaultfd", "let the program do without it" },
	{ "anon_inode:[perf_event]", "a performance counter", "run it without profiling" },
	{ "anon_inode:bpf", "a BPF object", "let the program do without it" },
	{ "anon_inode:kvm-vm", "a virtual machine", "run it without KVM" },
	{ "/secretmem (deleted)", "memory of memfd_secret()", "let the program do without it" },
	{ "/dev/infiniband/", "an InfiniBand or EFA device", "use TCP or shared memory on one node "
	  "(FI_PROVIDER=tcp, UCX_TLS=tcp,sm,self)" },
	{ "/dev/nvidia", "a GPU", "run it on CPUs" },
	{ "/dev/dri/", "a GPU", "run it on CPUs" },
	{ "/dev/kfd", "a GPU", "run it on CPUs" },
};

struct check {
	pid_t pid;
	int pidfd;
	struct problem *problem;
};

static int check_name(const struct check *check, const char *where, const char *name)
{
	for (size_t i = 0; i < sizeof(unsupported) / sizeof(*unsupported); i++)
		if (!strncmp(name, unsupported[i].name, strlen(unsupported[i].name)))
			return problem_set(check->problem, ENOTSUP, "process %d has %s (%s %s), which CRIU cannot "
					   "save: %s", check->pid, unsupported[i].what, where, name,
					   unsupported[i].remedy);
	return 0;
}

/* Where the server keeps no deleted files the client renames one that is open; CRIU would have to link it back. */
static int check_deleted(const struct check *check, int fds, const char *number, const char *name)
{
	const char *last = strrchr(name, '/');
	cleanup_close int fd = -1;
	struct statfs fs;

	if (!last || strncmp(last, "/.nfs", 5))
		return 0;
	fd = openat(fds, number, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstatfs(fd, &fs) || fs.f_type != NFS_SUPER_MAGIC)
		return 0;
	return problem_set(check->problem, ENOTSUP, "process %d has a file open that was deleted on NFS (descriptor %s, now %s), "
			   "which CRIU cannot save: let such files be on a local disk (TMPDIR), or deleted when they are closed",
			   check->pid, number, name);
}

/* ---- eventfd ---- */

#define EVENTFD "anon_inode:[eventfd]"
#define INOTIFY "anon_inode:inotify"

/* 1: it was made with EFD_SEMAPHORE; 0: it was not; -ENOTSUP: the kernel (before 6.5) does not say; or another -errno. */
static int eventfd_kind(pid_t pid, const char *number, uint64_t *count)
{
	char name[64], line[128];
	cleanup_fclose FILE *file = NULL;
	int semaphore = -ENOTSUP, ret;

	snprintf(name, sizeof(name), "fdinfo/%s", number);
	ret = proc_file(pid, name, &file);
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "eventfd-count: %" SCNx64, count);
		sscanf(line, "eventfd-semaphore: %d", &semaphore);
	}
	ret = ret ?: proc_file_end(file);
	return ret ?: file ? semaphore : 0;
}

/* By reading, of two more: a semaphore gives one, others give all. In the end it counts what it did; the job stands still. */
static bool eventfd_gives_one(int fd, uint64_t count)
{
	const uint64_t two = 2;
	uint64_t got;

	if (count > UINT32_MAX || write(fd, &two, sizeof(two)) != sizeof(two) || read(fd, &got, sizeof(got)) != sizeof(got))
		return false;
	if (got == 1)
		return read(fd, &got, sizeof(got)) == sizeof(got);
	return count && write(fd, &count, sizeof(count)) != sizeof(count);
}

static int cannot_look(const struct check *check, const char *number, int err)
{
	return problem_set(check->problem, err, "cannot look at descriptor %s of process %d: %s", number, check->pid, strerror(err));
}

static int refuse_semaphore(const struct check *check, const char *number)
{
	return problem_set(check->problem, ENOTSUP, "process %d has an eventfd that counts one by one (EFD_SEMAPHORE, descriptor %s), "
			   "which CRIU makes an ordinary one of: let the program do without it", check->pid, number);
}

static int judge_eventfd(const struct check *check, const char *number, int kind)
{
	if (kind == 1)
		return refuse_semaphore(check, number);
	return kind == 0 || kind == -ENOTSUP ? 0 : cannot_look(check, number, -kind);
}

static int check_eventfd(const struct check *check, const char *number)
{
	uint64_t count;

	return judge_eventfd(check, number, eventfd_kind(check->pid, number, &count));
}

static int check_descriptor(void *arg, int fds, const char *number, const char *name)
{
	char where[300];
	int ret;

	snprintf(where, sizeof(where), "descriptor %s,", number);
	ret = check_name(arg, where, name);
	if (ret == 0 && !strcmp(name, EVENTFD))
		ret = check_eventfd(arg, number);
	return ret ? ret : check_deleted(arg, fds, number, name);
}

static int check_mappings(const struct check *check)
{
	char line[PATH_MAX + 128], name[PATH_MAX];
	unsigned long start, end;
	cleanup_fclose FILE *maps = NULL;
	int ret = proc_file(check->pid, "maps", &maps);

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 && vma_is_high(start, end))
			return vma_refuse_high((uint64_t)check->pid, start, end, check->problem);
		if (sscanf(line, "%*s %*s %*s %*s %*s %4095[^\n]", name) != 1)
			continue;
		ret = check_name(check, "a mapping of", name);
		if (ret)
			return ret;
	}
	ret = ret ?: proc_file_end(maps);
	return ret ? problem_set(check->problem, -ret, "cannot look at the mappings of process %d: %s", check->pid,
				 strerror(-ret)) : 0;
}

int criu_check_task(pid_t pid, struct problem *problem)
{
	struct check check = { .pid = pid, .problem = problem };

	return proc_each_descriptor(pid, check_descriptor, &check, problem) ?: check_mappings(&check);
}

/* ---- when it stands still ---- */

static int check_stopped_eventfd(const struct check *check, int fd, const char *number)
{
	uint64_t count = UINT64_MAX;
	int kind = eventfd_kind(check->pid, number, &count);

	if (kind == -ENOTSUP)
		kind = eventfd_gives_one(fd, count);
	return judge_eventfd(check, number, kind);
}

static int check_stopped(void *arg, int fds, const char *number, const char *name)
{
	const struct check *check = arg;
	bool eventfd = !strcmp(name, EVENTFD);
	cleanup_close int fd = -1;
	int bytes;

	if (!eventfd && strcmp(name, INOTIFY))
		return 0;
	fd = proc_take_descriptor(check->pidfd, number);
	if (fd < 0)
		return fd == -ESRCH ? 0 : cannot_look(check, number, -fd);
	if (eventfd)
		return check_stopped_eventfd(check, fd, number);
	if (ioctl(fd, FIONREAD, &bytes) == 0 && bytes)
		log_warn("process %d has %d bytes of file events (inotify, descriptor %s) that it has not read: CRIU does not save "
			 "them, and the job will not see them when it is restored from here", check->pid, bytes, number);
	return 0;
}

int criu_check_stopped(pid_t pid, int pidfd, struct problem *problem)
{
	struct check check = { .pid = pid, .pidfd = pidfd, .problem = problem };

	return proc_each_descriptor(pid, check_stopped, &check, problem);
}

/*
 * At a restore a process gets its session by being forked: by its leader, by one of that session, or by the job's first
 * process, for which CRIU makes up a leader that has ended.
 */
static bool session_is_reached(const struct criu_job *job, pid_t pid)
{
	pid_t session = getsid(pid), above = proc_parent(pid), inner;

	if (session <= 0 || session == pid || getsid(above) == session)
		return true;
	if (proc_namespace_pid(above, &inner) || inner == INIT_ROOT_PID)
		return true;
	while (above > 0 && above != job->init_pid && above != session)
		above = proc_parent(above);
	return above != job->init_pid;
}

int criu_check_parent(const struct criu_job *job, pid_t pid, struct problem *problem)
{
	pid_t inner;

	if (proc_namespace_pid(pid, &inner) || inner == INIT_ROOT_PID)
		return 0;
	if (proc_parent(pid) == job->init_pid)
		return problem_set(problem, ENOTSUP, "process %d (%d inside the job) has outlived its parent, and CRIU saves only "
				   "the first process and its descendants: let the program not make a daemon of it, or run all "
				   "under one that adopts it ('tini -s -- COMMAND')", pid, inner);
	if (!session_is_reached(job, pid))
		return problem_set(problem, ENOTSUP, "process %d (%d inside the job) was adopted by another process than the "
				   "job's first one, outside of its session, where CRIU could not restore it: let the first one "
				   "adopt it ('ckptctl run … -- tini -s -- COMMAND')", pid, inner);
	return 0;
}
