// SPDX-License-Identifier: GPL-2.0
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "identity.h"
#include "log.h"
#include "proc.h"

int files_add(struct job_files *files, const char *path, uint64_t size, dev_t device, ino_t inode)
{
	struct job_file *grown;

	for (size_t i = 0; i < files->count; i++) {
		if (files->list[i].device == device && files->list[i].inode == inode && inode) {
			files->list[i].size = size;
			return 0;
		}
	}
	if (files->count == files->space) {
		files->space = files->space ? files->space * 2 : 16;
		grown = reallocarray(files->list, files->space, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		files->list = grown;
	}
	files->list[files->count] = (struct job_file){ .path = strdup(path), .size = size,
						       .device = device, .inode = inode };
	if (!files->list[files->count].path)
		return -ENOMEM;
	files->count++;
	return 0;
}

void files_free(struct job_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		free(files->list[i].path);
	free(files->list);
	memset(files, 0, sizeof(*files));
}

/* One task's files. */
struct sync {
	struct job_files *files;
	int pidfd;
	struct problem *problem;
};

/*
 * The job's own open file: opening it by path would be another access check, that root fails on a
 * server that squashes it.
 */
static int sync_descriptor(void *arg, int fds, const char *number, const char *path)
{
	const struct sync *sync = arg;
	cleanup_close int fd = proc_take_descriptor(sync->pidfd, number);
	struct stat st;
	int flags;

	if (fd == -ESRCH)
		return 0; /* closed meanwhile: the close has written it back or will fail for the job */
	if (fd < 0)
		return problem_set(sync->problem, -fd, "cannot write back %s, which the job has open: %s", path, strerror(-fd));
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == O_RDONLY || fstat(fd, &st) ||
	    !S_ISREG(st.st_mode))
		return 0;
	if (fsync(fd) && errno != EROFS && errno != EINVAL)
		return problem_set(sync->problem, errno, "cannot write back %s, which the job has open: %s",
				   path, strerror(errno));
	if (st.st_nlink == 0 || *path != '/' || !strncmp(path, "/memfd:", 7))
		return 0; /* without a name: CRIU saves the content */
	if (files_add(sync->files, path, (uint64_t)st.st_size, st.st_dev, st.st_ino))
		return problem_set(sync->problem, ENOMEM, "out of memory");
	return 0;
}

int files_open_mapping(pid_t pid, unsigned long start, unsigned long end)
{
	identity_scope struct identity caller = { 0 };
	char path[64];
	struct stat owner;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (stat(path, &owner))
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, start, end);
	if (identity_enter(&caller, owner.st_uid, owner.st_gid))
		return -ENOENT;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return problem_is_shortage(errno) ? -errno : -ENOENT;
}

static int cannot_write_back(const char *path, int err, struct problem *problem)
{
	return problem_set(problem, err, "cannot write back %s, which the job has mapped: %s", path, strerror(err));
}

/* Shared writable mappings may outlive their descriptor. */
static int sync_mappings(pid_t pid, struct problem *problem)
{
	char line[PATH_MAX + 128], mode[8], path[PATH_MAX];
	cleanup_fclose FILE *maps = NULL;
	int ret = proc_file(pid, "maps", &maps);

	while (maps && fgets(line, sizeof(line), maps)) {
		cleanup_close int fd = -1;
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %4095[^\n]", &start, &end, mode, path) != 4 ||
		    mode[1] != 'w' || mode[3] != 's' || *path != '/')
			continue;
		fd = files_open_mapping(pid, start, end);
		if (fd >= 0 && fsync(fd) && errno != EINVAL && errno != EROFS)
			return cannot_write_back(path, errno, problem);
		if (fd < 0 && fd != -ENOENT)
			return cannot_write_back(path, -fd, problem);
	}
	ret = ret ?: proc_file_end(maps);
	return ret ? problem_set(problem, -ret, "cannot look at the mappings of process %d: %s", pid, strerror(-ret)) : 0;
}

int files_sync_task(struct job_files *files, pid_t pid, int pidfd, struct problem *problem)
{
	struct sync sync = { .files = files, .pidfd = pidfd, .problem = problem };
	int ret = proc_each_descriptor(pid, sync_descriptor, &sync, problem);

	return ret ? ret : sync_mappings(pid, problem);
}

static int put_back(const struct job_file *file, int root, struct problem *problem)
{
	struct open_how how = { .flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
				.resolve = RESOLVE_IN_ROOT };
	cleanup_close int fd = (int)syscall(SYS_openat2, root, file->path, &how, sizeof(how));
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return problem_set(problem, errno,
				   "%s, which the job had open for writing, cannot be opened: %s; a job can "
				   "only go on where the files that it uses have the same paths",
				   file->path, strerror(errno));
	if ((uint64_t)st.st_size == file->size)
		return 0;
	if ((uint64_t)st.st_size < file->size)
		return problem_set(problem, ESTALE,
				   "%s has %lld bytes, at the checkpoint it had %llu: its content is lost, "
				   "the job cannot go on from this checkpoint", file->path,
				   (long long)st.st_size, (unsigned long long)file->size);
	if (file->inode && file->inode != st.st_ino)
		return problem_set(problem, ENOTSUP, "%s is another file than the one that the job had open for writing at the "
				   "checkpoint, and longer, so it is not cut: put that one back under its name; if this is a copy "
				   "of it, 'truncate -s %llu' makes it what it was", file->path, (unsigned long long)file->size);
	if (ftruncate(fd, (off_t)file->size))
		return problem_set(problem, errno, "cannot cut %s back to its %llu bytes at the "
				   "checkpoint: %s", file->path, (unsigned long long)file->size,
				   strerror(errno));
	log_info("%s cut back from %lld to its %llu bytes at the checkpoint", file->path,
		 (long long)st.st_size, (unsigned long long)file->size);
	return 0;
}

int files_put_back(const struct job_files *files, int root, struct problem *problem)
{
	int ret = 0;

	for (size_t i = 0; i < files->count && ret == 0; i++)
		ret = put_back(&files->list[i], root, problem);
	return ret;
}
