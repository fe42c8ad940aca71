// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into criu, with criu_preload.c: what a restore does by name to files of a user's job, it does with that
 * user's rights.
 *
 * While the job was not there, its user may have put links in the places of its files, or of directories on the way to
 * them.  CRIU resolves names as root, and would follow such links to where the user may not go.  So each call is made
 * without the capabilities for files.  If that is denied it is made again with them, but only where
 *   - the user owns what the name leads to, whatever its mode is by now, or
 *   - none but root can have changed where it leads: there is no link on the way, and no directory that others write.
 *     A library that was replaced while a job had it mapped is put back there, under another name, for a moment.
 *
 * CRIU's own files (images, /proc) are none of the job's.  Sockets are connected and listened to as that user, too:
 * whoever is at the other end may ask the kernel whose they are.
 */
#include "criu_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_CAPABILITIES (1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | \
			   1u << CAP_FSETID | 1u << CAP_MKNOD)

static bool guarded;
static uid_t user;
static gid_t group;
static const char *images;              /* as criu is told */
static char images_here[PATH_MAX];      /* as the kernel says it */

void criu_files_guard(uid_t uid, gid_t gid, const char *directory)
{
	if (!realpath(directory, images_here))
		_exit(123);
	user = uid;
	group = gid;
	images = strdup(directory);
	guarded = true;
}

/* --- whose rights --- */

/* All capabilities that are permitted; or without those for files. */
static void set_capable(bool capable)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		_exit(123);
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	if (!capable)
		data[0].effective &= ~FILE_CAPABILITIES;
	if (syscall(SYS_capset, &header, data))
		_exit(123);
}

void criu_files_become(uid_t uid, gid_t gid)
{
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	set_capable(true);
}

static void begin_as_user(void)
{
	if (guarded)
		set_capable(false);
}

/* Whether it was denied to the user. */
static bool end_as_user(bool failed)
{
	int err = errno;

	if (guarded)
		set_capable(true);
	errno = err;
	return guarded && failed && (err == EACCES || err == EPERM);
}

/* What the kernel then tells others of a socket is not that it is root's. */
static void begin_as_peer(void)
{
	if (guarded && (syscall(SYS_setresgid, -1, group, -1) || syscall(SYS_setresuid, -1, user, -1)))
		_exit(123);
}

static void end_as_peer(void)
{
	int err = errno;

	if (guarded && (syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setresgid, -1, 0, -1)))
		_exit(123);
	if (guarded)
		criu_files_become(user, group);
	errno = err;
}

/* --- where names lead --- */

static bool begins(const char *path, const char *with)
{
	return !strncmp(path, with, strlen(with));
}

static bool is_same(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Among the images, whatever the directory is. */
static bool is_image(int directory)
{
	char link[64] = "/proc/self/cwd", path[PATH_MAX];
	ssize_t bytes;

	if (directory != AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
	bytes = readlink(link, path, sizeof(path) - 1);
	path[bytes < 0 ? 0 : bytes] = '\0';
	return begins(path, images_here);
}

/* Of what is opened. Names of sockets a program may have chosen freely. */
static bool is_crius(int directory, const char *path)
{
	struct statfs system;

	if (*path == '/')
		return begins(path, "/proc/") || begins(path, "/sys/") || begins(path, "/run/criu") ||
		       begins(path, images);
	return is_image(directory) ||
	       (directory != AT_FDCWD && fstatfs(directory, &system) == 0 &&
		(system.f_type == PROC_SUPER_MAGIC || system.f_type == SYSFS_MAGIC ||
		 system.f_type == CGROUP2_SUPER_MAGIC));
}

static bool is_roots_directory(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) && !status.st_uid && !(status.st_mode & S_IWOTH) &&
	       (!(status.st_mode & S_IWGRP) || !status.st_gid);
}

static int raw_open(int directory, const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, directory, path, flags, mode);
}

/* All but the last component, which may be missing yet. Closes fd. */
static bool walk_is_roots(int fd, const char *path)
{
	const char *slash;
	char name[NAME_MAX + 1];
	int next;

	for (; (slash = strchr(path, '/')); path = slash + 1) {
		if (slash == path)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(slash - path), path);
		next = is_roots_directory(fd) ? raw_open(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0) : -1;
		close(fd);
		if (next < 0)
			return false;
		fd = next;
	}
	next = is_roots_directory(fd);
	close(fd);
	return next;
}

/* CRIU has the job's root directory open, and that is "/". */
static bool is_roots(int directory, const char *path)
{
	struct stat root, status;
	int fd;

	if (*path != '/' && (directory == AT_FDCWD || fstat(directory, &status) || stat("/", &root) ||
			     !is_same(&root, &status)))
		return false;
	fd = raw_open(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	return fd >= 0 && walk_is_roots(fd, path);
}

/* --- opening --- */

static int open_owned(int directory, const char *path, int flags)
{
	int found = raw_open(directory, path, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW), 0), fd = -1;
	struct stat status;
	char link[64];

	if (found >= 0 && fstat(found, &status) == 0 && status.st_uid == user) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", found);
		fd = raw_open(AT_FDCWD, link, flags & ~O_NOFOLLOW, 0);
	} else {
		errno = EACCES;
	}
	if (found >= 0)
		close(found);
	return fd;
}

static int guarded_open(int directory, const char *path, int flags, mode_t mode)
{
	int fd;

	if (!guarded || is_crius(directory, path))
		return raw_open(directory, path, flags, mode);
	begin_as_user();
	fd = raw_open(directory, path, flags, mode);
	if (!end_as_user(fd < 0))
		return fd;
	if (is_roots(directory, path))
		return raw_open(directory, path, flags | O_NOFOLLOW, mode);
	if (!(flags & O_CREAT))
		return open_owned(directory, path, flags);
	errno = EACCES;
	return -1;
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list args; \
		mode_t mode; \
		va_start(args, flags); \
		mode = mode_of(flags, args); \
		va_end(args); \
		return guarded_open(AT_FDCWD, path, flags, mode); \
	}
#define OPENAT(name) \
	int name(int directory, const char *path, int flags, ...) \
	{ \
		va_list args; \
		mode_t mode; \
		va_start(args, flags); \
		mode = mode_of(flags, args); \
		va_end(args); \
		return guarded_open(directory, path, flags, mode); \
	}

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* What a C library with _FORTIFY_SOURCE makes of these. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int directory, const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags);

int __open_2(const char *path, int flags) { return guarded_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return guarded_open(AT_FDCWD, path, flags, 0); }
int __openat_2(int directory, const char *path, int flags) { return guarded_open(directory, path, flags, 0); }
int __openat64_2(int directory, const char *path, int flags) { return guarded_open(directory, path, flags, 0); }

/* --- all else that is done by name --- */

#define GUARDED(allowed, ...) \
	({ \
		long result_; \
		begin_as_user(); \
		result_ = syscall(__VA_ARGS__); \
		if (end_as_user(result_ < 0)) { \
			if (allowed) \
				result_ = syscall(__VA_ARGS__); \
			else \
				errno = EACCES; \
		} \
		(int)result_; \
	})

int mkdirat(int directory, const char *path, mode_t mode)
{
	return GUARDED(is_roots(directory, path), SYS_mkdirat, directory, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

int mknodat(int directory, const char *path, mode_t mode, dev_t device)
{
	return GUARDED(is_roots(directory, path), SYS_mknodat, directory, path, mode, device);
}

int mknod(const char *path, mode_t mode, dev_t device)
{
	return mknodat(AT_FDCWD, path, mode, device);
}

int symlinkat(const char *target, int directory, const char *path)
{
	return GUARDED(is_roots(directory, path), SYS_symlinkat, target, directory, path);
}

int symlink(const char *target, const char *path)
{
	return symlinkat(target, AT_FDCWD, path);
}

int linkat(int from, const char *path, int to, const char *fresh, int flags)
{
	return GUARDED(is_roots(from, path) && is_roots(to, fresh), SYS_linkat, from, path, to, fresh, flags);
}

int link(const char *path, const char *fresh)
{
	return linkat(AT_FDCWD, path, AT_FDCWD, fresh, 0);
}

int renameat(int from, const char *path, int to, const char *fresh)
{
	return GUARDED(is_roots(from, path) && is_roots(to, fresh), SYS_renameat, from, path, to, fresh);
}

int rename(const char *path, const char *fresh)
{
	return renameat(AT_FDCWD, path, AT_FDCWD, fresh);
}

int unlinkat(int directory, const char *path, int flags)
{
	return GUARDED(is_roots(directory, path), SYS_unlinkat, directory, path, flags);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int fchmodat(int directory, const char *path, mode_t mode, int flags)
{
	return GUARDED(is_roots(directory, path), SYS_fchmodat, directory, path, mode);
}

int chmod(const char *path, mode_t mode)
{
	return fchmodat(AT_FDCWD, path, mode, 0);
}

/* To another owner the user could not give it: it stays the user's. Only deleted files and sockets are made anew. */
int fchownat(int directory, const char *path, uid_t uid, gid_t gid, int flags)
{
	int ret = GUARDED(is_roots(directory, path), SYS_fchownat, directory, path, uid, gid, flags);

	return guarded && ret && errno == EACCES ? 0 : ret;
}

int chown(const char *path, uid_t uid, gid_t gid)
{
	return fchownat(AT_FDCWD, path, uid, gid, 0);
}

int lchown(const char *path, uid_t uid, gid_t gid)
{
	return fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}

int utimensat(int directory, const char *path, const struct timespec times[2], int flags)
{
	return GUARDED(is_roots(directory, path), SYS_utimensat, directory, path, times, flags);
}

int lutimes(const char *path, const struct timeval times[2])
{
	struct timespec same[2];

	for (int i = 0; i < 2; i++)
		TIMEVAL_TO_TIMESPEC(&times[i], &same[i]);
	return utimensat(AT_FDCWD, path, same, AT_SYMLINK_NOFOLLOW);
}

static bool is_local(const struct sockaddr *address, socklen_t length, char path[sizeof(struct sockaddr_un)])
{
	size_t start = offsetof(struct sockaddr_un, sun_path);

	*path = '\0';
	if (address->sa_family != AF_UNIX || length > sizeof(struct sockaddr_un))
		return false;
	if (length > start) {
		memcpy(path, ((const struct sockaddr_un *)address)->sun_path, length - start);
		path[length - start] = '\0';
	}
	return true;
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	char path[sizeof(struct sockaddr_un)];

	is_local(address, length, path);
	return GUARDED(is_roots(AT_FDCWD, path), SYS_bind, fd, address, length);
}

/* Not those by which criu asks for pages. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	char path[sizeof(struct sockaddr_un)];
	int ret;

	if (!is_local(address, length, path) || (*path && is_crius(AT_FDCWD, path)))
		return (int)syscall(SYS_connect, fd, address, length);
	begin_as_peer();
	ret = (int)syscall(SYS_connect, fd, address, length);
	end_as_peer();
	return ret;
}

int listen(int fd, int backlog)
{
	int ret;

	begin_as_peer();
	ret = (int)syscall(SYS_listen, fd, backlog);
	end_as_peer();
	return ret;
}

int socketpair(int domain, int type, int protocol, int pair[2])
{
	int ret;

	begin_as_peer();
	ret = (int)syscall(SYS_socketpair, domain, type, protocol, pair);
	end_as_peer();
	return ret;
}
