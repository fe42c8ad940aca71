// SPDX-License-Identifier: GPL-2.0
#include "putback.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "faults.h"
#include "identity.h"
#include "log.h"
#include "proc.h"
#include "xattrs.h"

#define CATALOG_BYTES_MAX (1u << 31)

struct putback {
	struct store *store;
	struct manifest *manifest;
	struct catalog *catalog;
	const struct capture_options *options;
	struct putback_stats *stats;
	struct problem *problem;
	int job_root;          /* O_PATH */
	int root;              /* of the entries that are being put back */
	uint32_t root_number;
	bool timeless;         /* its file system does not tell by times what was written */
	int64_t latest_ms[CATALOG_ROOTS_MAX];
	bool *untouched;       /* entries that are as they were */
	uint8_t page[PAGE_BYTES];
};

/* One file on its way back. */
struct file {
	struct putback *putback;
	const struct catalog_entry *entry;
	int fd;
	uint64_t end; /* of the last page that was given */
};

/* ---- names ---- */

static int putback_fail(struct putback *putback, int err, const char *operation, const char *path)
{
	return problem_set(putback->problem, err, "cannot %s %s%s%s of the captured directories: %s",
			   operation, putback->catalog->roots[putback->root_number], *path ? "/" : "", path,
			   strerror(err));
}

/* Never through a link: what lies below is the user's, and may have changed. */
static int open_below(const struct putback *putback, const char *path, int flags, mode_t mode)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
				.mode = flags & O_CREAT ? mode : 0,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };

	return (int)syscall(SYS_openat2, putback->root, *path ? path : ".", &how, sizeof(how));
}

/* The directory that holds path; *name is its last component. */
static int open_parent(const struct putback *putback, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char parent[CATALOG_PATH_MAX + 1];

	snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 0, path);
	*name = slash ? slash + 1 : *path ? path : ".";
	return open_below(putback, parent, O_RDONLY | O_DIRECTORY, 0);
}

/* ---- what is in the way ---- */

static int open_aside(struct putback *putback)
{
	if (mkdirat(putback->root, CAPTURE_ASIDE, 0700) && errno != EEXIST)
		return -errno;
	return open_below(putback, CAPTURE_ASIDE, O_RDONLY | O_DIRECTORY, 0);
}

/* Its name there says where it was and is nobody's yet: "dir%file.NUMBER". */
static int move_aside(struct putback *putback, int directory, const char *name, const char *path)
{
	cleanup_close int aside = open_aside(putback);
	char there[NAME_MAX + 1];
	int err = aside < 0 ? -errno : -EEXIST;

	for (unsigned int number = 1; err == -EEXIST && number < 1000000; number++) {
		snprintf(there, sizeof(there), "%.200s.%u", path, number);
		for (char *at = there; *at; at++)
			if (*at == '/')
				*at = '%';
		err = renameat2(directory, name, aside, there, RENAME_NOREPLACE) ? -errno : 0;
		/* NFS has no such rename. Nobody else makes names here. */
		if (err == -EINVAL && faccessat(aside, there, F_OK, AT_SYMLINK_NOFOLLOW))
			err = renameat(directory, name, aside, there) ? -errno : 0;
		else if (err == -EINVAL)
			err = -EEXIST;
	}
	if (err)
		return putback_fail(putback, -err, "move aside", path);
	log_info("%s/%s is not in the checkpoint: moved to %s/%s/%s",
		 putback->catalog->roots[putback->root_number], path,
		 putback->catalog->roots[putback->root_number], CAPTURE_ASIDE, there);
	putback->stats->moved_aside++;
	return 0;
}

/* ".nfs…" is what an NFS client makes of a deleted file that is still open. */
static bool is_left_alone(const struct putback *putback, const char *name, const struct stat *st,
			  dev_t device)
{
	return !strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, CAPTURE_ASIDE) ||
	       !strncmp(name, ".nfs", 4) || (S_ISDIR(st->st_mode) && st->st_dev != device) ||
	       capture_skips(putback->options, st);
}

static int clear_name(struct putback *putback, int directory, const struct catalog_entry *entry,
		      const char *name, dev_t device)
{
	char path[CATALOG_PATH_MAX + 1];
	struct stat st;

	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) ||
	    is_left_alone(putback, name, &st, device))
		return 0;
	if (snprintf(path, sizeof(path), "%s%s%s", entry->path, *entry->path ? "/" : "", name) >=
	    (int)sizeof(path))
		return putback_fail(putback, ENAMETOOLONG, "look below", entry->path);
	if (catalog_find(putback->catalog, putback->root_number, path))
		return 0;
	return move_aside(putback, directory, name, path);
}

/* What the directory has and the checkpoint has not. */
static int clear_directory(struct putback *putback, const struct catalog_entry *entry)
{
	int fd = open_below(putback, entry->path, O_RDONLY | O_DIRECTORY, 0), err = 0;
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *name;
	struct stat st;

	if (!directory) {
		err = errno;
		if (fd >= 0)
			close(fd);
		/* The user cannot look into it, so the job could not write there either. */
		return err == EACCES ? 0 : putback_fail(putback, err, "open", entry->path);
	}
	if (fstat(fd, &st))
		err = putback_fail(putback, errno, "look at", entry->path);
	while (!err && (name = readdir(directory)))
		err = clear_name(putback, fd, entry, name->d_name, st.st_dev);
	closedir(directory);
	return err;
}

/* ---- content ---- */

static int write_page(const struct file *file, uint64_t address, const uint8_t *page, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pwrite(file->fd, page + done, bytes - done, (off_t)(address + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return putback_fail(file->putback, n ? errno : EIO, "write", file->entry->path);
		done += (size_t)n;
	}
	file->putback->stats->bytes_written += bytes;
	return 0;
}

/* A hole between two pages of the checkpoint: whatever is there goes. */
static int make_hole(const struct file *file, uint64_t start, uint64_t end)
{
	static const uint8_t zero[PAGE_BYTES];
	uint64_t at;
	off_t data;
	int err = 0;

	end = end < file->entry->size ? end : file->entry->size;
	if (start >= end)
		return 0;
	data = lseek(file->fd, (off_t)start, SEEK_DATA);
	if (data < 0 ? errno == ENXIO : (uint64_t)data >= end)
		return 0;
	if (!fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
		       (off_t)(end - start)))
		return 0;
	if (errno != EOPNOTSUPP)
		return putback_fail(file->putback, errno, "make a hole in", file->entry->path);
	for (at = start; at < end && !err; at += PAGE_BYTES)
		err = write_page(file, at, zero, end - at < PAGE_BYTES ? end - at : PAGE_BYTES);
	return err;
}

static int put_page(void *arg, uint64_t address, const void *page)
{
	struct file *file = arg;
	struct putback *putback = file->putback;
	size_t bytes = PAGE_BYTES;
	ssize_t got;
	int err;

	if (address >= file->entry->size)
		return problem_set(putback->problem, EBADMSG, "the catalog has %s shorter than its content",
				   file->entry->path);
	if (file->entry->size - address < bytes)
		bytes = file->entry->size - address;
	err = make_hole(file, file->end, address);
	file->end = address + PAGE_BYTES;
	if (err)
		return err;
	got = pread(file->fd, putback->page, bytes, (off_t)address);
	if (got == (ssize_t)bytes && !memcmp(putback->page, page, bytes))
		return 0;
	return write_page(file, address, page, bytes);
}

static int put_content(struct file *file)
{
	struct putback *putback = file->putback;
	const struct catalog_entry *entry = file->entry;
	struct space *space = pagemap_find(putback->manifest->map, SPACE_FILE, entry->space);
	struct stat st;
	int err = fault("putback.content");

	if (err)
		return putback_fail(putback, -err, "write", entry->path);
	/* First, so that what is cut off does not come back when pages are written behind it. */
	if (fstat(file->fd, &st) || ((uint64_t)st.st_size != entry->size && ftruncate(file->fd, (off_t)entry->size)))
		err = putback_fail(putback, errno, "set the size of", entry->path);
	if (!err && space)
		err = manifest_read_space(putback->store, putback->manifest, space, put_page, file,
					  putback->problem);
	if (!err)
		err = make_hole(file, file->end, entry->size);
	putback->stats->files_compared++;
	return err;
}

/* A file that its owner may only read is opened for writing for a moment. */
static int open_file(struct putback *putback, const struct catalog_entry *entry)
{
	int fd = open_below(putback, entry->path, O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, 0600);
	const char *name;

	if (fd < 0 && errno == EACCES) {
		cleanup_close int parent = open_parent(putback, entry->path, &name);

		if (parent >= 0 && !fchmodat(parent, name, 0600, 0))
			fd = open_below(putback, entry->path, O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
	}
	return fd < 0 ? putback_fail(putback, errno, "open", entry->path) : fd;
}

static int put_file(struct putback *putback, const struct catalog_entry *entry)
{
	struct file file = { .putback = putback, .entry = entry, .fd = open_file(putback, entry) };
	cleanup_close int fd = file.fd;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return putback_fail(putback, EIO, "open", entry->path);
	return put_content(&file);
}

/* ---- entries ---- */

static bool is_same(const struct catalog_entry *entry, const struct stat *st)
{
	return entry->mode == st->st_mode && entry->uid == st->st_uid && entry->gid == st->st_gid &&
	       entry->inode == st->st_ino && entry->size == (uint64_t)st->st_size &&
	       entry->modified.tv_sec == st->st_mtim.tv_sec &&
	       entry->modified.tv_nsec == st->st_mtim.tv_nsec &&
	       entry->changed.tv_sec == st->st_ctim.tv_sec &&
	       entry->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static int put_link(struct putback *putback, int parent, const char *name,
		    const struct catalog_entry *entry)
{
	const struct catalog_entry *first = &putback->catalog->entries[entry->link - 1];
	const char *first_name;
	cleanup_close int first_parent = open_parent(putback, first->path, &first_name);
	struct stat here, there;

	if (first_parent < 0 || fstatat(first_parent, first_name, &there, AT_SYMLINK_NOFOLLOW))
		return putback_fail(putback, errno, "look at", first->path);
	if (!fstatat(parent, name, &here, AT_SYMLINK_NOFOLLOW)) {
		if (here.st_ino == there.st_ino)
			return 0;
		if (move_aside(putback, parent, name, entry->path))
			return -EIO;
	}
	if (linkat(first_parent, first_name, parent, name, 0))
		return putback_fail(putback, errno, "link", entry->path);
	return 0;
}

static bool target_is(int parent, const char *name, const char *target)
{
	char found[CATALOG_PATH_MAX + 1];
	ssize_t bytes = readlinkat(parent, name, found, sizeof(found) - 1);

	if (bytes < 0)
		return false;
	found[bytes] = '\0';
	return !strcmp(found, target);
}

/* Of something that is in the place of an entry, and is something else. */
static int clear_place(struct putback *putback, int parent, const char *name,
		       const struct catalog_entry *entry, bool *there)
{
	struct stat st;

	*there = !fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW);
	if (!*there || ((st.st_mode & S_IFMT) == (entry->mode & S_IFMT) &&
			(!S_ISLNK(entry->mode) || target_is(parent, name, entry->target))))
		return 0;
	*there = false;
	return move_aside(putback, parent, name, entry->path);
}

static int make_entry(struct putback *putback, int parent, const char *name,
		      const struct catalog_entry *entry)
{
	int err = 0;

	switch (entry->mode & S_IFMT) {
	case S_IFDIR:
		err = mkdirat(parent, name, 0700);
		break;
	case S_IFLNK:
		err = symlinkat(entry->target, parent, name);
		break;
	case S_IFIFO:
		err = mkfifoat(parent, name, 0600);
		break;
	default: /* CRIU makes sockets when it binds them, put_file() files */
		break;
	}
	return err ? putback_fail(putback, errno, "make", entry->path) : 0;
}

/*
 * It looks as it did.  Where that says nothing of what it holds, and its user may write it, that is compared, too; which is
 * worth a word only if it was something else.
 */
static int look_inside(struct putback *putback, const struct catalog_entry *entry, bool *same)
{
	struct file file = { .putback = putback, .entry = entry, .fd = -1 };
	cleanup_close int fd = -1;
	struct stat st;
	int err;

	*same = true;
	if (!S_ISREG(entry->mode) || !entry->space || entry->link ||
	    (!putback->timeless && catalog_entry_settled(entry, putback->latest_ms)))
		return 0;
	fd = file.fd = open_below(putback, entry->path, O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return problem_is_shortage(errno) ? putback_fail(putback, errno, "open", entry->path) : 0;
	err = put_content(&file);
	*same = !err && !fstat(fd, &st) && is_same(entry, &st);
	putback->stats->files_compared -= *same;
	return err;
}

static int put_entry(struct putback *putback, struct catalog_entry *entry)
{
	const char *name;
	cleanup_close int parent = open_parent(putback, entry->path, &name);
	size_t number = (size_t)(entry - putback->catalog->entries);
	struct stat st;
	bool there;
	int err;

	if (parent < 0)
		return putback_fail(putback, errno, "open the directory of", entry->path);
	if (!fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) && is_same(entry, &st)) {
		entry->device = st.st_dev;
		return look_inside(putback, entry, &putback->untouched[number]);
	}
	if (entry->link)
		return put_link(putback, parent, name, entry);
	if (S_ISREG(entry->mode) && !entry->space) {
		putback->untouched[number] = true; /* not captured */
		return 0;
	}
	err = clear_place(putback, parent, name, entry, &there);
	if (!err && !there)
		err = make_entry(putback, parent, name, entry);
	if (!err && S_ISREG(entry->mode))
		err = put_file(putback, entry);
	return err;
}

/* ---- attributes, when nothing is written any more ---- */

/*
 * A user may give a file to a group of his; to one that it was of then, only root may: a server that
 * squashes root refuses it.
 */
static int put_group(struct putback *putback, int parent, const char *name,
		     const struct catalog_entry *entry)
{
	cleanup_close int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	identity_scope struct identity caller = { 0 };
	struct stat st;
	int err;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (st.st_uid == entry->uid && st.st_gid == entry->gid)
		return 0;
	if (st.st_uid != entry->uid || st.st_uid != putback->options->uid)
		return -EPERM;
	if (!fchownat(fd, "", (uid_t)-1, entry->gid, AT_EMPTY_PATH))
		return 0;
	err = identity_enter(&caller, 0, 0);
	if (!err && fchownat(fd, "", (uid_t)-1, entry->gid, AT_EMPTY_PATH))
		err = -errno;
	return err;
}

static int put_attributes(struct putback *putback, struct catalog_entry *entry)
{
	const char *name;
	cleanup_close int parent = open_parent(putback, entry->path, &name);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->modified };
	int err;

	if (parent < 0)
		return -errno;
	/* What belongs to others was not made by the job; into a directory of root's it is copied all the same. */
	if (S_ISSOCK(entry->mode) || (!putback->options->root && entry->uid != putback->options->uid))
		return 0;
	if (putback->options->root && fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	err = xattrs_write(parent, name, entry);
	if (!err && !putback->options->root)
		err = put_group(putback, parent, name, entry);
	if (!err && !S_ISLNK(entry->mode) && fchmodat(parent, name, entry->mode & 07777, 0))
		err = -errno;
	if (!err && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	return err;
}

/* What is there now, for the next comparison. */
static void refresh(struct putback *putback, struct catalog_entry *entry)
{
	const char *name;
	cleanup_close int parent = open_parent(putback, entry->path, &name);
	struct stat st;

	if (parent < 0 || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	entry->device = st.st_dev;
	entry->inode = st.st_ino;
	entry->mode = st.st_mode;
	entry->uid = st.st_uid;
	entry->gid = st.st_gid;
	entry->modified = st.st_mtim;
	entry->changed = st.st_ctim;
}

/* Attributes that cannot be put back are said; the job can do without them. */
static void put_all_attributes(struct putback *putback, size_t first, size_t end)
{
	unsigned int failed = 0;
	size_t last = 0;
	int why = 0;

	for (size_t i = end; i-- > first;) {
		int err = putback->untouched[i] ? 0 : put_attributes(putback, &putback->catalog->entries[i]);

		if (err) {
			failed++;
			last = i;
			why = err;
		}
	}
	for (size_t i = first; i < end; i++)
		if (!putback->untouched[i])
			refresh(putback, &putback->catalog->entries[i]);
	if (failed)
		log_warn("the owner, mode, times or attributes of %s/%s and %u others are not as at the "
			 "checkpoint: %s", putback->catalog->roots[putback->root_number],
			 putback->catalog->entries[last].path, failed - 1, strerror(-why));
}

/* ---- roots ---- */

static size_t root_end(const struct catalog *catalog, size_t first)
{
	uint32_t root = catalog->entries[first].root;

	while (first < catalog->entry_count && catalog->entries[first].root == root)
		first++;
	return first;
}

/* The last component is made if it is missing: node-local scratch of a new node. */
static int open_root(struct putback *putback)
{
	const char *path = putback->catalog->roots[putback->root_number], *slash = strrchr(path, '/');
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	char above[CATALOG_PATH_MAX + 1];
	cleanup_close int parent = -1;
	int fd = (int)syscall(SYS_openat2, putback->job_root, path, &how, sizeof(how));

	if (fd < 0 && errno == ENOENT) {
		snprintf(above, sizeof(above), "%.*s", slash == path ? 1 : (int)(slash - path), path);
		parent = (int)syscall(SYS_openat2, putback->job_root, above, &how, sizeof(how));
		if (parent >= 0 && (!mkdirat(parent, slash + 1, 0700) || errno == EEXIST))
			fd = openat(parent, slash + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	return fd < 0 ? putback_fail(putback, errno, "open", "") : fd;
}

static int put_root(struct putback *putback, size_t first, size_t end)
{
	cleanup_close int root = open_root(putback);
	int err = 0;

	if (root < 0)
		return root;
	putback->root = root;
	putback->timeless = capture_is_timeless(root);
	for (size_t i = first; i < end && !err; i++)
		err = put_entry(putback, &putback->catalog->entries[i]);
	for (size_t i = first; i < end && !err; i++)
		if (S_ISDIR(putback->catalog->entries[i].mode))
			err = clear_directory(putback, &putback->catalog->entries[i]);
	if (!err)
		put_all_attributes(putback, first, end);
	return err;
}

static int put_roots(struct putback *putback)
{
	const struct catalog *catalog = putback->catalog;
	int err = 0;

	for (size_t first = 0, end; first < catalog->entry_count && !err; first = end) {
		putback->root_number = catalog->entries[first].root;
		end = root_end(catalog, first);
		err = put_root(putback, first, end);
	}
	putback->stats->entries = catalog->entry_count;
	return err;
}

static int open_job_root(const struct capture_options *options, struct problem *problem)
{
	int fd;

	if (!options->root)
		return proc_open_root(options->init_pid, problem);
	fd = open(options->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : problem_set(problem, errno, "cannot enter %s: %s", options->root,
					  strerror(errno));
}

int putback_run(struct store *store, struct manifest *manifest, struct catalog *catalog,
		const struct capture_options *options, struct putback_stats *stats,
		struct problem *problem)
{
	cleanup_free bool *untouched = calloc(catalog->entry_count + 1, sizeof(*untouched));
	struct putback putback = { .store = store, .manifest = manifest, .catalog = catalog,
				   .options = options, .stats = stats, .problem = problem,
				   .untouched = untouched };
	identity_scope struct identity caller = { 0 };
	cleanup_close int job_root = open_job_root(options, problem);
	int err;

	*stats = (struct putback_stats){ 0 };
	if (job_root < 0)
		return job_root;
	if (!untouched)
		return problem_set(problem, ENOMEM, "no memory to put files back");
	putback.job_root = job_root;
	catalog_latest_changes(catalog, putback.latest_ms);
	err = identity_enter_groups(&caller, options->uid, options->gid, options->groups,
				    options->group_count);
	if (err)
		return problem_set(problem, -err, "cannot become user %u to put files back: %s", options->uid,
				   strerror(-err));
	return put_roots(&putback);
}

/* ---- the catalog ---- */

int putback_read_catalog(struct store *store, struct manifest *manifest, struct catalog *catalog,
			 struct problem *problem)
{
	cleanup_close int fd = memfd_create("catalog", MFD_CLOEXEC);
	struct stat st;
	void *bytes;
	int err = fd < 0 ? problem_set(problem, errno, "cannot make a memory file: %s", strerror(errno))
			 : manifest_read_file(store, manifest, CATALOG_NAME, fd, problem);

	if (err)
		return err;
	if (fstat(fd, &st) || st.st_size > CATALOG_BYTES_MAX || !st.st_size)
		return problem_set(problem, EBADMSG, "the checkpoint's catalog has an impossible size");
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return problem_set(problem, errno, "cannot map the checkpoint's catalog: %s", strerror(errno));
	err = catalog_parse(catalog, bytes, (size_t)st.st_size, problem);
	munmap(bytes, (size_t)st.st_size);
	return err;
}
