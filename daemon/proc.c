// SPDX-License-Identifier: GPL-2.0
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "directory.h"
#include "faults.h"

/* Reads a small file of /proc/PID whole, as a string. */
static int read_file(pid_t pid, const char *name, char *text, size_t bytes)
{
	char path[64];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, text, bytes - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return 0;
}

/* A field of /proc/PID/stat, as proc(5) numbers them; behind the name, which is the second. */
static int stat_number(pid_t pid, unsigned int field, uint64_t *value)
{
	char text[2048], *at;
	int ret = read_file(pid, "stat", text, sizeof(text));

	if (ret)
		return ret;
	/* The name in parentheses may hold anything, also ')'. */
	at = strrchr(text, ')');
	for (unsigned int i = 2; at && i < field; i++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %lu", value) == 1 ? 0 : -EPROTO;
}

int proc_start_time(pid_t pid, uint64_t *ticks)
{
	return stat_number(pid, 22, ticks);
}

int proc_threads(pid_t pid, uint64_t *threads)
{
	return stat_number(pid, 20, threads);
}

pid_t proc_parent(pid_t pid)
{
	uint64_t parent;

	return stat_number(pid, 4, &parent) ? 0 : (pid_t)parent;
}

/* The text behind "Key:" in /proc/PID/status. */
static int status_line(pid_t pid, const char *key, char *value, size_t bytes)
{
	char text[8192], *found;
	int ret = read_file(pid, "status", text, sizeof(text));

	if (ret)
		return ret;
	found = strstr(text, key);
	if (!found)
		return -EPROTO;
	found += strlen(key);
	snprintf(value, bytes, "%.*s", (int)strcspn(found, "\n"), found);
	return 0;
}

char proc_state(pid_t pid)
{
	char value[64], state = '?';

	if (status_line(pid, "\nState:", value, sizeof(value)) == 0)
		sscanf(value, " %c", &state);
	return state;
}

pid_t proc_tracer(pid_t pid)
{
	char value[64];

	return status_line(pid, "\nTracerPid:", value, sizeof(value)) ? 0 : atoi(value);
}

int proc_namespace_pid(pid_t pid, pid_t *inner)
{
	char value[256], *last;
	int ret = status_line(pid, "\nNSpid:", value, sizeof(value));

	if (ret)
		return ret;
	last = strrchr(value, '\t');
	if (!last || sscanf(last, "%d", inner) != 1)
		return -EPROTO;
	return 0;
}

int proc_umask(pid_t pid, unsigned int *umask)
{
	char value[64];
	int ret = status_line(pid, "\nUmask:", value, sizeof(value));

	if (ret)
		return ret;
	return sscanf(value, "%o", umask) == 1 ? 0 : -EPROTO;
}

int proc_oom_score_adj(pid_t pid, int *value)
{
	char text[64];
	int ret = read_file(pid, "oom_score_adj", text, sizeof(text));

	if (ret)
		return ret;
	return sscanf(text, "%d", value) == 1 ? 0 : -EPROTO;
}

int proc_memory_kib(pid_t pid, uint64_t *kib)
{
	char value[64];
	uint64_t swap = 0;
	int ret = status_line(pid, "\nVmRSS:", value, sizeof(value));

	if (ret)
		return ret;
	if (sscanf(value, "%lu", kib) != 1)
		return -EPROTO;
	if (status_line(pid, "\nVmSwap:", value, sizeof(value)) == 0 &&
	    sscanf(value, "%lu", &swap) == 1)
		*kib += swap;
	return 0;
}

int proc_link(pid_t pid, const char *name, char *target, size_t bytes)
{
	char path[300];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = readlink(path, target, bytes);
	if (n < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if ((size_t)n == bytes)
		return -ENAMETOOLONG;
	target[n] = '\0';
	return 0;
}

static bool is_gone(int err)
{
	return err == ENOENT || err == ESRCH;
}

int proc_each_descriptor(pid_t pid, descriptor_each each, void *arg, struct problem *problem)
{
	char target[PATH_MAX];
	struct dirent *entry = NULL;
	char path[64];
	DIR *dir;
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	ret = dir ? 0 : -errno;
	while (ret == 0 && (ret = directory_next(dir, &entry)) == 0 && entry) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = '\0';
		ret = each(arg, dirfd(dir), entry->d_name, target);
	}
	if (dir)
		closedir(dir);
	if (entry)
		return ret;
	if (ret == 0 || is_gone(-ret))
		return 0;
	return problem_set(problem, -ret, "cannot look at the descriptors of process %d: %s", pid, strerror(-ret));
}

int proc_take_descriptor(int pidfd, const char *number)
{
	int err = fault("proc.descriptor");
	int fd = err ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, atoi(number), 0);

	if (err || fd >= 0)
		return err ?: fd;
	return errno == EBADF ? -ESRCH : -errno;
}

int proc_file(pid_t pid, const char *name, FILE **file)
{
	char path[300];
	int err = fault("proc.file");

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	*file = err ? NULL : fopen(path, "re");
	return err || *file || is_gone(errno) ? err : -errno;
}

int proc_file_end(FILE *file)
{
	return !file || feof(file) || errno == ESRCH ? 0 : -errno;
}

int proc_boot_id(char id[40])
{
	cleanup_fclose FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!file || fscanf(file, "%39s", id) != 1)
		return -EIO;
	return 0;
}

int pidfd_of(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

int proc_open_root(pid_t pid, struct problem *problem)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return problem_set(problem, errno == ENOENT ? ESRCH : errno, "cannot enter the job's mounts (%s): %s",
			   path, strerror(errno));
}
