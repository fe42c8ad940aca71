// SPDX-License-Identifier: GPL-2.0
/*
 * A put is a file with its unfinished name that is written, checked for its length, fsynced, closed,
 * linked to its name, which fails where there is one, and then unlinked from the other; the fsync of
 * the directory makes it durable.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "faults.h"
#include "log.h"
#include "pread_fully.h"
#include "store_private.h"

struct directory {
	struct backend backend;
	char *path;
	int fd;
};

static struct directory *directory_of(struct backend *backend)
{
	return (struct directory *)backend;
}

static int64_t nanoseconds(const struct timespec *time)
{
	return time->tv_sec * 1000000000LL + time->tv_nsec;
}

/* ---- puts ---- */

static int file_put_begin(struct backend *backend, const char *name, const char *unfinished,
			  struct backend_put *put)
{
	*put = (struct backend_put){ .backend = backend, .fd = -1, .operation = "create" };
	strcpy(put->name, name);
	strcpy(put->unfinished, unfinished);
	return try_call("store.create",
			put->fd = openat(directory_of(backend)->fd, unfinished,
					 O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
}

static int write_fully(int fd, const uint8_t *at, size_t length, uint64_t offset)
{
	while (length) {
		ssize_t done = pwrite(fd, at, length, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		at += done;
		length -= done;
		offset += done;
	}
	return 0;
}

static int file_put_write(struct backend_put *put, const void *data, size_t length, uint64_t offset)
{
	int err = fault("store.write");

	return err ? err : write_fully(put->fd, data, length, offset);
}

static int check_length(const struct backend_put *put, uint64_t length)
{
	struct stat stat;
	int err = try_call("store.length", fstat(put->fd, &stat));

	if (err)
		return err;
	return (uint64_t)stat.st_size == length ? 0 : -EIO;
}

static int file_put_finish(struct backend_put *put, uint64_t length)
{
	int err, fd = put->fd;

	put->operation = "check the length of";
	err = check_length(put, length);
	if (err)
		return err;
	put->operation = "fsync";
	err = try_call("store.fsync", fsync(fd));
	if (err)
		return err;
	put->operation = "close";
	put->fd = -1;
	return try_call("store.close", close(fd));
}

/* An answer of the server that was lost makes the client ask again and see its own link. */
static bool is_our_link(const struct backend_put *put)
{
	struct stat unfinished, named;
	int dir = directory_of(put->backend)->fd;

	return !fstatat(dir, put->unfinished, &unfinished, AT_SYMLINK_NOFOLLOW) &&
	       !fstatat(dir, put->name, &named, AT_SYMLINK_NOFOLLOW) &&
	       unfinished.st_ino == named.st_ino && unfinished.st_dev == named.st_dev;
}

static int give_name_by_link(const struct backend_put *put)
{
	int dir = directory_of(put->backend)->fd;
	int err = fault("store.no_link");

	if (err)
		return -EOPNOTSUPP;
	err = try_call("store.link", linkat(dir, put->unfinished, dir, put->name, 0));
	return err && is_our_link(put) ? 0 : err;
}

/* Never over another object: link(2) refuses, and where there is none, RENAME_NOREPLACE does. */
static int give_name(struct backend_put *put)
{
	int dir = directory_of(put->backend)->fd;
	int err = give_name_by_link(put);

	if (!err) {
		err = try_call("store.unlink", unlinkat(dir, put->unfinished, 0));
		if (err)
			log_warn("%s/%s stays until the store is cleaned: %s",
				 directory_of(put->backend)->path, put->unfinished, strerror(-err));
		put->unfinished[0] = 0;
		return 0;
	}
	if (err != -EPERM && err != -EOPNOTSUPP && err != -ENOSYS && err != -EMLINK)
		return err;
	err = try_call("store.rename", renameat2(dir, put->unfinished, dir, put->name,
						 RENAME_NOREPLACE));
	if (!err)
		put->unfinished[0] = 0;
	return err == -EINVAL || err == -ENOSYS ? -EOPNOTSUPP : err;
}

static int sync_directory(struct backend *backend)
{
	int err = try_call("store.fsync_dir", fsync(directory_of(backend)->fd));

	/* Some network file systems have no fsync for directories and are synchronous there. */
	return err == -EINVAL || err == -EOPNOTSUPP ? 0 : err;
}

static int file_put_commit(struct backend_put *put)
{
	int err;

	put->operation = "give its name to";
	err = give_name(put);
	if (err)
		return err;
	put->operation = "fsync the directory of";
	err = sync_directory(put->backend);
	if (err)
		unlinkat(directory_of(put->backend)->fd, put->name, 0);
	return err;
}

static void file_put_end(struct backend_put *put)
{
	if (put->fd >= 0)
		close(put->fd);
	if (put->unfinished[0])
		unlinkat(directory_of(put->backend)->fd, put->unfinished, 0);
	put->fd = -1;
	put->unfinished[0] = 0;
}

/* ---- reading ---- */

static int file_open(struct backend *backend, const char *name, struct backend_object *object)
{
	struct stat stat;
	int err;

	*object = (struct backend_object){ .backend = backend };
	err = try_call("store.read", object->fd = openat(directory_of(backend)->fd, name,
							 O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
								 O_CLOEXEC));
	if (err)
		return err == -ELOOP ? -EBADMSG : err;
	if (fstat(object->fd, &stat))
		err = -errno;
	else if (!S_ISREG(stat.st_mode))
		err = -EBADMSG;
	if (err) {
		close(object->fd);
		return err;
	}
	object->length = stat.st_size;
	object->modified_ns = nanoseconds(&stat.st_mtim);
	return 0;
}

static ssize_t file_read(struct backend_object *object, void *to, size_t length, uint64_t offset)
{
	int err = fault("store.read");

	return err ? err : pread_fully(object->fd, to, length, offset);
}

static void file_set_direct(struct backend_object *object, bool direct)
{
	int flags = fcntl(object->fd, F_GETFL);

	if (flags >= 0 && !fcntl(object->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT))
		object->direct = direct;
}

static void file_go_direct(struct backend_object *object)
{
	file_set_direct(object, true);
}

/* What is read begins and ends at multiples of the alignment, or at the file's end. */
static ssize_t direct_read(int fd, uint8_t *to, size_t wanted, uint64_t offset)
{
	size_t got = 0, all = (wanted + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;

	while (got < wanted && got % DIRECT_ALIGN == 0) {
		ssize_t done = pread(fd, to + got, all - got, (off_t)(offset + got));

		if (done < 0 && errno != EINTR)
			return -errno;
		if (!done)
			break;
		if (done > 0)
			got += (size_t)done;
	}
	return (ssize_t)got;
}

static ssize_t file_read_direct(struct backend_object *object, uint8_t *to, size_t length, uint64_t offset,
				size_t *at)
{
	ssize_t got = fault("store.read");

	*at = offset % DIRECT_ALIGN;
	if (!got)
		got = fault("store.no_direct") ? -EINVAL : direct_read(object->fd, to, *at + length, offset - *at);
	/* It was promised, and does not work. */
	if (got == -EINVAL) {
		file_set_direct(object, false);
		*at = 0;
		return file_read(object, to, length, offset);
	}
	if (got < 0)
		return got;
	got = (size_t)got > *at ? got - (ssize_t)*at : 0;
	return (size_t)got < length ? got : (ssize_t)length;
}

static void file_announce(struct backend_object *object, uint64_t offset, uint64_t length)
{
	/* It would be read twice. */
	if (object->direct)
		return;
	posix_fadvise(object->fd, offset, length, POSIX_FADV_WILLNEED);
}

static void file_close_object(struct backend_object *object)
{
	close(object->fd);
}

/* ---- names ---- */

static int each_entry(DIR *dir, backend_each each, void *arg)
{
	struct dirent *entry;
	int err = 0;

	while (!err) {
		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return -errno;
		if (entry->d_name[0] != '.')
			err = each(arg, entry->d_name);
	}
	return err;
}

/* Opened by its path each time: that makes an NFS client ask whether the directory changed. */
static int file_list(struct backend *backend, backend_each each, void *arg)
{
	DIR *dir;
	int err = fault("store.list");

	if (err)
		return err;
	dir = opendir(directory_of(backend)->path);
	if (!dir)
		return -errno;
	err = each_entry(dir, each, arg);
	closedir(dir);
	return err;
}

static int file_stat(struct backend *backend, const char *name, struct backend_stat *result)
{
	struct stat stat;

	if (fstatat(directory_of(backend)->fd, name, &stat, AT_SYMLINK_NOFOLLOW))
		return -errno;
	result->length = stat.st_size;
	result->modified_ns = nanoseconds(&stat.st_mtim);
	return 0;
}

static int file_remove(struct backend *backend, const char *name)
{
	int err = try_call("store.remove", unlinkat(directory_of(backend)->fd, name, 0));

	return err == -ENOENT ? 0 : err;
}

/* UTIME_NOW is the time of the server, not of this node. */
static int file_renew(struct backend *backend, const char *name, bool ended)
{
	static const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	static const struct timespec past[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };

	return try_call("store.renew", utimensat(directory_of(backend)->fd, name, ended ? past : now,
						 AT_SYMLINK_NOFOLLOW));
}

/* That of a file that is made now. */
static int file_time(struct backend *backend, const char *unfinished, int64_t *now_ns)
{
	static const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	struct backend_put put;
	struct stat stat;
	int err = file_put_begin(backend, unfinished, unfinished, &put);

	if (err)
		return err;
	if (futimens(put.fd, now) || fstat(put.fd, &stat))
		err = -errno;
	else
		*now_ns = nanoseconds(&stat.st_mtim);
	file_put_end(&put);
	return err;
}

static int file_retire(struct backend *backend)
{
	int err = try_call("store.rmdir", rmdir(directory_of(backend)->path));

	return err == -ENOENT ? 0 : err;
}

/* ---- the directory ---- */

static void file_close(struct backend *backend)
{
	struct directory *directory = directory_of(backend);

	if (directory->fd >= 0)
		close(directory->fd);
	free(directory->path);
	free(directory);
}

static const struct backend_kind file_kind = {
	.close = file_close,
	.put_begin = file_put_begin,
	.put_write = file_put_write,
	.put_finish = file_put_finish,
	.put_commit = file_put_commit,
	.put_end = file_put_end,
	.open = file_open,
	.read = file_read,
	.go_direct = file_go_direct,
	.read_direct = file_read_direct,
	.announce = file_announce,
	.close_object = file_close_object,
	.list = file_list,
	.stat = file_stat,
	.remove = file_remove,
	.renew = file_renew,
	.time = file_time,
	.retire = file_retire,
};

static int make_directory(const struct store *store, const char *above, struct problem *problem)
{
	struct stat stat_buffer;
	int err = 0;

	if (stat(above, &stat_buffer))
		err = errno;
	else if (!S_ISDIR(stat_buffer.st_mode))
		err = ENOTDIR;
	if (err)
		return problem_set(problem, err,
				   "the store %s cannot be used by user %u: %s; make the directory, "
				   "mount it, or change store in ckptd.conf",
				   above, store->uid, strerror(err));
	err = try_call("store.mkdir", mkdir(store->path, 0700));
	return !err || err == -EEXIST ? 0 :
		store_problem(store, problem, -err, "make the job's directory", "");
}

static int check_directory(const struct store *store, int fd, struct problem *problem)
{
	struct stat stat;

	if (fstat(fd, &stat))
		return store_problem(store, problem, errno, "stat", "");
	if (stat.st_mode & (S_IWGRP | S_IWOTH))
		return problem_set(problem, EPERM,
				   "%s can be written by others than its owner, user %u: chmod go-w it",
				   store->path, stat.st_uid);
	if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) && errno == EROFS)
		return store_problem(store, problem, EROFS, "write", "");
	return 0;
}

int backend_file_open(struct backend **backend, const struct store *store,
		      const struct store_options *options, struct problem *problem)
{
	struct directory *directory = calloc(1, sizeof(*directory));
	int err = options->use == STORE_MAKE ? make_directory(store, options->directory, problem) : 0;

	if (directory)
		directory->path = strdup(store->path);
	if (!directory || !directory->path) {
		free(directory);
		return problem_set(problem, ENOMEM, "no memory to open %s", store->path);
	}
	directory->backend.kind = &file_kind;
	directory->fd = -1;
	if (!err) {
		directory->fd = open(store->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (directory->fd < 0)
			err = store_problem(store, problem, errno, "open the job's directory", "");
	}
	if (!err && options->use != STORE_READ)
		err = check_directory(store, directory->fd, problem);
	if (err)
		file_close(&directory->backend);
	else
		*backend = &directory->backend;
	return err;
}
