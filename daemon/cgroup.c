// SPDX-License-Identifier: GPL-2.0
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"

/* Finds where the unified hierarchy is mounted. */
static int find_mount(char *path, size_t bytes, struct problem *problem)
{
	cleanup_fclose FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[4096], where[2048], type[64];

	while (mounts && fgets(line, sizeof(line), mounts)) {
		if (sscanf(line, "%*s %2047s %63s", where, type) == 2 && !strcmp(type, "cgroup2")) {
			snprintf(path, bytes, "%s", where);
			return 0;
		}
	}
	return problem_set(problem, ENOTSUP,
			   "no cgroup v2 hierarchy is mounted: ckpt freezes jobs with it; boot with "
			   "systemd.unified_cgroup_hierarchy=1 or mount cgroup2 on /sys/fs/cgroup");
}

int cgroup_of(pid_t pid, char *path, size_t bytes, struct problem *problem)
{
	char file[64], line[4096], mount[2048];
	cleanup_fclose FILE *groups = NULL;
	int ret = find_mount(mount, sizeof(mount), problem);

	if (ret)
		return ret;
	snprintf(file, sizeof(file), "/proc/%d/cgroup", pid);
	groups = fopen(file, "re");
	while (groups && fgets(line, sizeof(line), groups)) {
		if (strncmp(line, "0::", 3))
			continue;
		line[strcspn(line, "\n")] = '\0';
		if ((size_t)snprintf(path, bytes, "%s%s", mount,
				     strcmp(line + 3, "/") ? line + 3 : "") >= bytes)
			return problem_set(problem, ENAMETOOLONG, "the cgroup path %s is too long",
					   line + 3);
		return 0;
	}
	return problem_set(problem, ESRCH, "cannot read the cgroup of process %d", pid);
}

int cgroup_create(const char *parent, const char *name, char *path, size_t bytes,
		  struct problem *problem)
{
	if ((size_t)snprintf(path, bytes, "%s/ckpt-%s", parent, name) >= bytes)
		return problem_set(problem, ENAMETOOLONG, "the cgroup path below %s is too long",
				   parent);
	/* Programs of the job read their limits there, whatever the umask is. */
	if ((mkdir(path, 0755) == 0 || (errno == EEXIST && rmdir(path) == 0 && mkdir(path, 0755) == 0)) &&
	    chmod(path, 0755) == 0)
		return 0;
	return problem_set(problem, errno, "cannot make the job's cgroup %s: %s%s", path,
			   strerror(errno),
			   errno == EBUSY ? " (processes of an earlier run are still in it)" : "");
}

void cgroup_remove(const char *path)
{
	/* Killed tasks may take a moment to leave; what stays is taken over by the next run. */
	for (int tries = 0; tries < 50 && rmdir(path) && errno == EBUSY; tries++)
		poll(NULL, 0, 20);
}

static int write_freeze(const char *path, const char *value)
{
	char file[4200];
	cleanup_close int fd = -1;

	snprintf(file, sizeof(file), "%s/cgroup.freeze", path);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, value, 1) == 1 ? 0 : -errno;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* cgroup.events raises POLLPRI when a value in it changes. */
static int wait_frozen(int events, int timeout_ms)
{
	struct pollfd wait = { .fd = events, .events = POLLPRI };
	int64_t end = now_ms() + timeout_ms;
	char text[256];
	ssize_t n;

	for (;;) {
		n = pread(events, text, sizeof(text) - 1, 0);
		if (n < 0)
			return -errno;
		text[n] = '\0';
		if (strstr(text, "frozen 1"))
			return 0;
		if (now_ms() >= end)
			return -ETIMEDOUT;
		if (poll(&wait, 1, (int)(end - now_ms())) < 0 && errno != EINTR)
			return -errno;
	}
}

int cgroup_freeze(const char *path, int timeout_ms, struct problem *problem)
{
	char file[4200];
	cleanup_close int events = -1;
	int ret;

	snprintf(file, sizeof(file), "%s/cgroup.events", path);
	events = open(file, O_RDONLY | O_CLOEXEC);
	if (events < 0)
		return problem_set(problem, errno, "cannot open %s: %s", file, strerror(errno));
	ret = write_freeze(path, "1");
	if (ret == 0)
		ret = wait_frozen(events, timeout_ms);
	if (ret == 0)
		return 0;
	write_freeze(path, "0");
	if (ret == -ETIMEDOUT)
		return problem_set(problem, ETIMEDOUT,
				   "the job did not stand still within %d ms: a task waits for a "
				   "device or a dead file server (state D in ps); it runs on", timeout_ms);
	return problem_set(problem, -ret, "cannot freeze %s: %s", path, strerror(-ret));
}

bool cgroup_is_frozen(const char *path)
{
	char file[4200], value = '0';
	cleanup_close int fd = -1;

	snprintf(file, sizeof(file), "%s/cgroup.freeze", path);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &value, 1) == 1 && value == '1';
}

int cgroup_thaw(const char *path, struct problem *problem)
{
	int ret = write_freeze(path, "0");

	if (ret && ret != -ENOENT && ret != -ENODEV)
		return problem_set(problem, -ret, "cannot thaw %s: %s", path, strerror(-ret));
	return 0;
}

int cgroup_pids(const char *path, pid_t **pids, size_t *count, struct problem *problem)
{
	char file[4200];
	cleanup_fclose FILE *procs = NULL;
	size_t space = 0;
	pid_t pid, *grown;

	*pids = NULL;
	*count = 0;
	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	procs = fopen(file, "re");
	if (!procs)
		return problem_set(problem, errno, "cannot open %s: %s", file, strerror(errno));
	while (fscanf(procs, "%d", &pid) == 1) {
		if (*count == space) {
			space = space ? space * 2 : 64;
			grown = reallocarray(*pids, space, sizeof(*grown));
			if (!grown) {
				free(*pids);
				*pids = NULL;
				return problem_set(problem, ENOMEM, "out of memory");
			}
			*pids = grown;
		}
		(*pids)[(*count)++] = pid;
	}
	return 0;
}
