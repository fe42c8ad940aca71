// SPDX-License-Identifier: GPL-2.0
#include "capture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "identity.h"
#include "log.h"
#include "pread_fully.h"
#include "proc.h"

#define WINDOW_BYTES (1u << 20)
/* A directory that is nested deeper is refused: each level holds a descriptor. */
#define DEPTH_MAX 256

/* What a pass knows of an entry besides what is in the catalog. Same number as the entry's. */
struct memory {
	int64_t since_ms; /* its times have been seen since */
	uint64_t pages;   /* of its space, when it was read */
	bool known;       /* its content is in the space */
};

/* What one pass found. */
struct listing {
	struct catalog catalog;
	struct memory *memory;
	size_t memory_space;
	uint32_t *by_inode; /* numbers of the regular files that are no links, by device and inode */
	size_t file_count;
};

struct capture {
	struct capture_options options;
	char **roots;
	gid_t *groups;
	struct capture_skip *skip;
	struct listing listing; /* of the last pass that succeeded */
	uint64_t last_space;
	uint8_t *window;
	bool told_unreadable;
};

struct link {
	uint32_t root;   /* names in another one are files of their own */
	uint32_t number; /* + 1, of the entry with the file's first name */
	uint64_t device;
	uint64_t inode;
};

/* One pass. */
struct pass {
	struct capture *capture;
	const struct capture_mapped *mapped;
	struct packer *packer;
	struct pagemap *map;
	struct capture_stats *stats;
	struct problem *problem;
	struct listing found;
	void *links; /* tsearch()'s */
	uint32_t root;
	dev_t device;  /* of the root */
	bool timeless; /* tmpfs: writes need not change the times */
	int64_t now_ms;
	char path[CATALOG_PATH_MAX + 1]; /* below the root, of what is looked at */
};

/* ---- what passes remember ---- */

static void listing_clear(struct listing *listing)
{
	catalog_clear(&listing->catalog);
	free(listing->memory);
	free(listing->by_inode);
	*listing = (struct listing){ 0 };
}

static int file_order(uint64_t device, uint64_t inode, const struct catalog_entry *other)
{
	if (device != other->device)
		return device < other->device ? -1 : 1;
	return inode < other->inode ? -1 : inode > other->inode;
}

static int inode_order(const void *a, const void *b, void *arg)
{
	const struct catalog *catalog = arg;
	const struct catalog_entry *one = &catalog->entries[*(const uint32_t *)a];

	return file_order(one->device, one->inode, &catalog->entries[*(const uint32_t *)b]);
}

static int listing_index(struct listing *listing)
{
	const struct catalog *catalog = &listing->catalog;

	listing->by_inode = calloc(catalog->entry_count + 1, sizeof(*listing->by_inode));
	if (!listing->by_inode)
		return -ENOMEM;
	for (uint32_t i = 0; i < catalog->entry_count; i++)
		if (S_ISREG(catalog->entries[i].mode) && !catalog->entries[i].link)
			listing->by_inode[listing->file_count++] = i;
	qsort_r(listing->by_inode, listing->file_count, sizeof(*listing->by_inode), inode_order,
		&listing->catalog);
	return 0;
}

/* The file with this inode, whatever it was called; -1: there was none. */
static int64_t listing_find_inode(const struct listing *listing, const struct catalog_entry *file)
{
	size_t low = 0, high = listing->file_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		uint32_t number = listing->by_inode[middle];
		int order = file_order(file->device, file->inode, &listing->catalog.entries[number]);

		if (!order)
			return number;
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

static int listing_add(struct listing *listing, struct catalog_entry **entry)
{
	size_t space = listing->memory_space ? listing->memory_space * 2 : 64;
	struct memory *memory;

	if (listing->catalog.entry_count == listing->memory_space) {
		memory = reallocarray(listing->memory, space, sizeof(*memory));
		if (!memory)
			return -ENOMEM;
		listing->memory = memory;
		listing->memory_space = space;
	}
	listing->memory[listing->catalog.entry_count] = (struct memory){ 0 };
	*entry = catalog_add(&listing->catalog);
	return *entry ? 0 : -ENOMEM;
}

static bool times_equal(const struct timespec *one, const struct timespec *other)
{
	return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

static bool entry_same(const struct catalog_entry *one, const struct catalog_entry *other)
{
	return one->mode == other->mode && one->inode == other->inode && one->size == other->size &&
	       one->uid == other->uid && one->gid == other->gid &&
	       times_equal(&one->modified, &other->modified) &&
	       times_equal(&one->changed, &other->changed);
}

/* ---- errors ---- */

static int pass_no_memory(struct pass *pass)
{
	return problem_set(pass->problem, ENOMEM, "no memory to capture %s",
			   pass->capture->roots[pass->root]);
}

static int pass_fail(struct pass *pass, int err, const char *operation)
{
	return problem_set(pass->problem, err, "cannot %s %s/%s, a part of the captured directories: %s",
			   operation, pass->capture->roots[pass->root], pass->path, strerror(err));
}

/* Gone since it was listed, or not for the job's user. */
static bool is_absence(int err)
{
	return err == ENOENT || err == ELOOP || err == ENOTDIR || err == ESTALE;
}

/* ---- attributes ---- */

/* What a user may set: his own, and access lists. */
static bool xattr_wanted(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "system.posix_acl_access") ||
	       !strcmp(name, "system.posix_acl_default");
}

static int xattr_read(const char *file, const char *name, struct catalog_entry *entry)
{
	uint8_t value[CATALOG_XATTR_BYTES_MAX];
	ssize_t bytes = lgetxattr(file, name, value, sizeof(value));
	struct catalog_xattr *xattrs;

	if (bytes < 0)
		return errno == ENODATA ? 0 : -errno;
	if (entry->xattr_count == CATALOG_XATTRS_MAX)
		return -E2BIG;
	xattrs = reallocarray(entry->xattrs, entry->xattr_count + 1, sizeof(*xattrs));
	if (!xattrs)
		return -ENOMEM;
	entry->xattrs = xattrs;
	xattrs[entry->xattr_count] = (struct catalog_xattr){ .name = strdup(name),
							     .value = malloc((size_t)bytes + 1),
							     .bytes = (size_t)bytes };
	if (!xattrs[entry->xattr_count].name || !xattrs[entry->xattr_count].value)
		return -ENOMEM;
	memcpy(xattrs[entry->xattr_count++].value, value, (size_t)bytes);
	return 0;
}

/* directory is a descriptor of what holds name; links have no attributes that a user could set. */
static int xattrs_read(int directory, const char *name, struct catalog_entry *entry)
{
	char file[NAME_MAX + 64], names[CATALOG_XATTR_BYTES_MAX];
	ssize_t bytes;
	int err = 0;

	if (!S_ISREG(entry->mode) && !S_ISDIR(entry->mode))
		return 0;
	snprintf(file, sizeof(file), "/proc/self/fd/%d/%s", directory, name);
	bytes = llistxattr(file, names, sizeof(names));
	if (bytes < 0)
		return errno == ENOTSUP || errno == EACCES || is_absence(errno) ? 0 : -errno;
	for (const char *at = names; at < names + bytes && !err; at += strlen(at) + 1)
		if (xattr_wanted(at))
			err = xattr_read(file, at, entry);
	return err == -EACCES || is_absence(-err) ? 0 : err;
}

static int xattrs_copy(struct catalog_entry *to, const struct catalog_entry *from)
{
	if (!from->xattr_count)
		return 0;
	to->xattrs = calloc(from->xattr_count, sizeof(*to->xattrs));
	if (!to->xattrs)
		return -ENOMEM;
	for (uint32_t i = 0; i < from->xattr_count; i++) {
		struct catalog_xattr *xattr = &to->xattrs[to->xattr_count++];

		xattr->name = strdup(from->xattrs[i].name);
		xattr->bytes = from->xattrs[i].bytes;
		xattr->value = malloc(xattr->bytes + 1);
		if (!xattr->name || !xattr->value)
			return -ENOMEM;
		memcpy(xattr->value, from->xattrs[i].value, xattr->bytes);
	}
	return 0;
}

/* ---- content ---- */

static int read_window(struct pass *pass, int fd, struct space *space, uint64_t offset, size_t want,
		       size_t *got)
{
	uint8_t *window = pass->capture->window;
	ssize_t bytes;
	size_t padded;
	int err = 0;

	bytes = pread_fully(fd, window, want, offset);
	if (bytes < 0)
		return pass_fail(pass, (int)-bytes, "read");
	*got = (size_t)bytes;
	padded = (*got + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
	memset(window + *got, 0, padded - *got);
	for (size_t at = 0; at < padded && !err; at += PAGE_BYTES)
		err = packer_page(pass->packer, space, offset + at, window + at, pass->problem);
	pass->stats->bytes_read += *got;
	if (!err && pass->capture->options.stopped &&
	    pass->capture->options.stopped(pass->capture->options.stopped_arg))
		err = problem_set(pass->problem, ECANCELED, "the job has ended");
	return err;
}

/* Data in [start, end). A file that has become shorter meanwhile has changed, and is read again. */
static int read_extent(struct pass *pass, int fd, struct space *space, uint64_t start, uint64_t end)
{
	int err = 0;

	while (start < end && !err) {
		size_t want = end - start < WINDOW_BYTES ? end - start : WINDOW_BYTES, got = 0;

		err = read_window(pass, fd, space, start, want, &got);
		if (got < want)
			break;
		start += got;
	}
	return err;
}

static uint64_t page_down(uint64_t offset)
{
	return offset & ~(uint64_t)(PAGE_BYTES - 1);
}

static uint64_t page_up(uint64_t offset)
{
	return page_down(offset + PAGE_BYTES - 1);
}

/* The next data at or behind offset; a file system that does not tell has no holes. */
static void find_extent(int fd, uint64_t offset, uint64_t size, uint64_t *start, uint64_t *end)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;

	if (data < 0) {
		*start = errno == ENXIO ? size : offset;
		*end = size;
		return;
	}
	hole = lseek(fd, data, SEEK_HOLE);
	*start = page_down((uint64_t)data);
	*start = *start < offset ? offset : *start;
	*end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
}

static int read_content(struct pass *pass, int fd, struct space *space, uint64_t size)
{
	uint64_t offset = 0, start, end;
	int err = 0;

	while (offset < size && !err) {
		find_extent(fd, offset, size, &start, &end);
		space_forget(space, offset, start);
		if (start >= size)
			break;
		end = page_up(end) < size ? page_up(end) : size;
		err = read_extent(pass, fd, space, start, end);
		offset = page_up(end);
	}
	space_forget(space, page_up(size), UINT64_MAX);
	return err;
}

/* 0 and *fd = -1: it is not there any more, or not to be read. */
static int open_content(struct pass *pass, int directory, const char *name,
			struct catalog_entry *entry, int *fd)
{
	struct stat st;

	*fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0 && (errno == EACCES || errno == EPERM)) {
		entry->space = 0;
		if (!pass->capture->told_unreadable)
			log_warn("%s/%s and perhaps others in the captured directories cannot be read as user "
				 "%u: they are not part of checkpoints", pass->capture->roots[pass->root],
				 pass->path, pass->capture->options.uid);
		pass->capture->told_unreadable = true;
		return 0;
	}
	if (*fd < 0)
		return is_absence(errno) || errno == ENXIO ? 0 : pass_fail(pass, errno, "open");
	if (fstat(*fd, &st) == 0 && st.st_ino == entry->inode && S_ISREG(st.st_mode))
		return 0;
	/* Another one has its name by now: the next pass sees that. */
	close(*fd);
	*fd = -1;
	return 0;
}

static int number_order(const void *a, const void *b)
{
	const uint64_t *one = a, *other = b;

	return *one < *other ? -1 : *one > *other;
}

static bool is_mapped(const struct pass *pass, const struct catalog_entry *entry)
{
	return pass->mapped->count && bsearch(&entry->inode, pass->mapped->inodes, pass->mapped->count,
					      sizeof(entry->inode), number_order);
}

static int read_file(struct pass *pass, int directory, const char *name, struct catalog_entry *entry,
		     struct memory *memory)
{
	cleanup_close int fd = -1;
	struct space *space;
	int err = open_content(pass, directory, name, entry, &fd);

	if (err || !entry->space)
		return err;
	space = pagemap_space(pass->map, SPACE_FILE, entry->space);
	if (!space)
		return pass_no_memory(pass);
	if (fd < 0)
		return 0;
	memory->known = clock_ms() - memory->since_ms >= CAPTURE_SETTLE_MS && !pass->timeless &&
			!is_mapped(pass, entry);
	err = read_content(pass, fd, space, entry->size);
	memory->pages = space_pages(space);
	pass->stats->files_read++;
	return err;
}

/* Whether what was read then still holds, and is still in the store. */
static bool content_known(struct pass *pass, const struct catalog_entry *entry,
			  const struct memory *memory)
{
	struct space *space = pagemap_find(pass->map, SPACE_FILE, entry->space);

	return memory->known && !pass->timeless && !is_mapped(pass, entry) &&
	       (space ? space_pages(space) : 0) == memory->pages;
}

/* A file that no earlier entry of this pass is a link to. */
static int take_file(struct pass *pass, int directory, const char *name, struct catalog_entry *entry)
{
	struct listing *before = &pass->capture->listing;
	struct memory *memory = &pass->found.memory[pass->found.catalog.entry_count - 1];
	int64_t number = listing_find_inode(before, entry);
	const struct catalog_entry *old = number < 0 ? NULL : &before->catalog.entries[number];

	memory->since_ms = pass->now_ms;
	if (!old || !old->space) {
		entry->space = ++pass->capture->last_space;
		return read_file(pass, directory, name, entry, memory);
	}
	entry->space = old->space;
	if (!entry_same(entry, old))
		return read_file(pass, directory, name, entry, memory);
	*memory = before->memory[number];
	return content_known(pass, entry, memory) ? 0 : read_file(pass, directory, name, entry, memory);
}

static int link_order(const void *a, const void *b)
{
	const struct link *one = a, *other = b;

	if (one->root != other->root)
		return one->root < other->root ? -1 : 1;
	if (one->device != other->device)
		return one->device < other->device ? -1 : 1;
	return one->inode < other->inode ? -1 : one->inode > other->inode;
}

/* Of a file with several names: the first one is remembered, the others refer to it. */
static int take_link(struct pass *pass, struct catalog_entry *entry)
{
	struct link *link = malloc(sizeof(*link)), **found;

	if (!link)
		return pass_no_memory(pass);
	*link = (struct link){ .root = entry->root, .device = entry->device, .inode = entry->inode,
			       .number = (uint32_t)pass->found.catalog.entry_count };
	found = tsearch(link, &pass->links, link_order);
	if (!found || *found != link)
		free(link);
	if (!found)
		return pass_no_memory(pass);
	if (*found != link)
		entry->link = (*found)->number;
	return 0;
}

/* ---- the walk ---- */

static bool skipped(const struct capture *capture, const struct stat *st)
{
	for (size_t i = 0; i < capture->options.skip_count; i++)
		if (capture->skip[i].device == st->st_dev && capture->skip[i].inode == st->st_ino)
			return true;
	return false;
}

static int take_target(struct pass *pass, int directory, const char *name,
		       struct catalog_entry *entry)
{
	char target[CATALOG_PATH_MAX + 1];
	ssize_t bytes = readlinkat(directory, name, target, sizeof(target));

	if (bytes < 0 || bytes == (ssize_t)sizeof(target))
		return pass_fail(pass, bytes < 0 ? errno : ENAMETOOLONG, "read the link");
	target[bytes] = '\0';
	entry->target = strdup(target);
	return entry->target ? 0 : pass_no_memory(pass);
}

static int take_attributes(struct pass *pass, int directory, const char *name,
			   struct catalog_entry *entry)
{
	const struct catalog_entry *old = catalog_find(&pass->capture->listing.catalog, entry->root,
						       entry->path);
	int err = old && entry_same(entry, old) ? xattrs_copy(entry, old)
						: xattrs_read(directory, name, entry);

	return err ? pass_fail(pass, -err, "read the attributes of") : 0;
}

static bool is_captured_type(const struct stat *st)
{
	return S_ISDIR(st->st_mode) || S_ISREG(st->st_mode) || S_ISLNK(st->st_mode) ||
	       S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode);
}

/* Adds what is called name in directory, and is at pass->path. */
static int take_entry(struct pass *pass, int directory, const char *name, const struct stat *st)
{
	struct catalog_entry *entry;
	int err = 0;

	if (pass->found.catalog.entry_count == CATALOG_ENTRIES_MAX)
		return problem_set(pass->problem, E2BIG, "the captured directories hold more than %u files",
				   CATALOG_ENTRIES_MAX);
	if (listing_add(&pass->found, &entry))
		return pass_no_memory(pass);
	*entry = (struct catalog_entry){
		.root = pass->root, .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.device = st->st_dev, .inode = st->st_ino, .modified = st->st_mtim, .changed = st->st_ctim,
		.size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0, .path = strdup(pass->path),
	};
	if (!entry->path)
		return pass_no_memory(pass);
	if (S_ISLNK(st->st_mode))
		return take_target(pass, directory, name, entry);
	err = take_attributes(pass, directory, name, entry);
	if (err || !S_ISREG(st->st_mode) || skipped(pass->capture, st))
		return err;
	if (st->st_nlink > 1)
		err = take_link(pass, entry);
	return err || entry->link ? err : take_file(pass, directory, name, entry);
}

static int walk(struct pass *pass, int directory, unsigned int depth);

static int walk_into(struct pass *pass, int directory, const char *name, unsigned int depth)
{
	int inner = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (depth == DEPTH_MAX)
		return pass_fail(pass, ELOOP, "go down to");
	if (inner >= 0)
		return walk(pass, inner, depth + 1);
	return is_absence(errno) || errno == EACCES ? 0 : pass_fail(pass, errno, "open");
}

/* Files may have another device than their directory: on overlayfs that of their layer. */
static bool is_foreign(const struct pass *pass, const struct stat *st)
{
	return S_ISDIR(st->st_mode) && (st->st_dev != pass->device || skipped(pass->capture, st));
}

static int take_name(struct pass *pass, int directory, const char *name, unsigned int depth)
{
	size_t length = strlen(pass->path);
	struct stat st;
	int err = 0;

	if (snprintf(pass->path + length, sizeof(pass->path) - length, "%s%s", length ? "/" : "",
		     name) >= (int)(sizeof(pass->path) - length))
		return pass_fail(pass, ENAMETOOLONG, "go down to");
	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
		err = is_absence(errno) ? 0 : pass_fail(pass, errno, "look at");
	else if (is_captured_type(&st) && !is_foreign(pass, &st)) {
		err = take_entry(pass, directory, name, &st);
		if (!err && S_ISDIR(st.st_mode))
			err = walk_into(pass, directory, name, depth);
	}
	pass->path[length] = '\0';
	return err;
}

static int by_name(const struct dirent **one, const struct dirent **other)
{
	return strcmp((*one)->d_name, (*other)->d_name);
}

static int is_entry(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
	       strcmp(entry->d_name, CAPTURE_ASIDE);
}

/* Closes directory. */
static int walk(struct pass *pass, int directory, unsigned int depth)
{
	cleanup_close int owned = directory;
	struct dirent **names = NULL;
	int count = scandirat(directory, ".", &names, is_entry, by_name), err = 0;

	if (count < 0)
		return is_absence(errno) ? 0 : pass_fail(pass, errno, "list");
	for (int i = 0; i < count; i++) {
		if (!err)
			err = take_name(pass, directory, names[i]->d_name, depth);
		free(names[i]);
	}
	free(names);
	return err;
}

static int walk_root(struct pass *pass, int job_root)
{
	const char *path = pass->capture->roots[pass->root];
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	int directory = (int)syscall(SYS_openat2, job_root, path, &how, sizeof(how));
	struct statfs system;
	struct stat st;
	int err;

	if (directory < 0 || fstat(directory, &st) || fstatfs(directory, &system)) {
		err = problem_set(pass->problem, errno, "cannot open the captured directory %s as user %u: %s",
				  path, pass->capture->options.uid, strerror(errno));
		if (directory >= 0)
			close(directory);
		return err;
	}
	pass->device = st.st_dev;
	pass->timeless = system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC ||
			 system.f_type == HUGETLBFS_MAGIC;
	pass->path[0] = '\0';
	err = catalog_add_root(&pass->found.catalog, path) ? pass_no_memory(pass)
							    : take_entry(pass, directory, ".", &st);
	if (!err)
		return walk(pass, directory, 0);
	close(directory);
	return err;
}

static int walk_roots(struct pass *pass)
{
	const struct capture_options *options = &pass->capture->options;
	identity_scope struct identity caller = { 0 };
	cleanup_close int job_root = proc_open_root(options->init_pid, pass->problem);
	int err;

	if (job_root < 0)
		return job_root;
	err = identity_enter_groups(&caller, options->uid, options->gid, pass->capture->groups,
				    options->group_count);
	if (err)
		return problem_set(pass->problem, -err, "cannot become user %u to capture files: %s",
				   options->uid, strerror(-err));
	for (; pass->root < options->root_count && !err; pass->root++)
		err = walk_root(pass, job_root);
	return err;
}

/* ---- passes ---- */

struct spaces {
	struct pagemap *map;
	const uint64_t *used; /* sorted */
	size_t count;
};

static int forget_unused(struct space *space, void *arg)
{
	struct spaces *spaces = arg;
	uint64_t id = space_id(space);

	if (space_kind(space) == SPACE_FILE &&
	    !bsearch(&id, spaces->used, spaces->count, sizeof(id), number_order))
		pagemap_forget_space(spaces->map, SPACE_FILE, id);
	return 0;
}

/* What belonged to files that are gone. */
static int forget_spaces(struct pass *pass)
{
	const struct catalog *catalog = &pass->found.catalog;
	cleanup_free uint64_t *used = calloc(catalog->entry_count + 1, sizeof(*used));
	struct spaces spaces = { .map = pass->map, .used = used };

	if (!used)
		return pass_no_memory(pass);
	for (size_t i = 0; i < catalog->entry_count; i++)
		if (catalog->entries[i].space)
			used[spaces.count++] = catalog->entries[i].space;
	qsort(used, spaces.count, sizeof(*used), number_order);
	return pagemap_for_each(pass->map, forget_unused, &spaces);
}

int capture_pass(struct capture *capture, const struct capture_mapped *mapped, struct packer *packer,
		 struct pagemap *map, struct capture_stats *stats, struct problem *problem)
{
	struct pass pass = { .capture = capture, .mapped = mapped, .packer = packer, .map = map, .stats = stats,
			     .problem = problem, .now_ms = clock_ms() };
	int err = walk_roots(&pass);

	tdestroy(pass.links, free);
	if (!err && listing_index(&pass.found))
		err = problem_set(problem, ENOMEM, "no memory to capture files");
	if (!err)
		err = forget_spaces(&pass);
	if (err) {
		listing_clear(&pass.found);
		return err;
	}
	listing_clear(&capture->listing);
	capture->listing = pass.found;
	stats->entries = pass.found.catalog.entry_count;
	return 0;
}

static void memory_adopt(struct listing *listing, struct pagemap *map)
{
	for (size_t i = 0; i < listing->catalog.entry_count; i++) {
		uint64_t id = listing->catalog.entries[i].space;
		struct space *space = id ? pagemap_find(map, SPACE_FILE, id) : NULL;

		listing->memory[i] = (struct memory){ .known = true,
						      .pages = space ? space_pages(space) : 0 };
	}
}

void capture_adopt(struct capture *capture, struct catalog *catalog, struct pagemap *map)
{
	struct listing *listing = &capture->listing;

	listing_clear(listing);
	for (size_t i = 0; i < catalog->entry_count; i++)
		if (catalog->entries[i].space > capture->last_space)
			capture->last_space = catalog->entries[i].space;
	listing->catalog = *catalog;
	*catalog = (struct catalog){ 0 };
	listing->memory_space = listing->catalog.entry_count;
	listing->memory = calloc(listing->memory_space + 1, sizeof(*listing->memory));
	/* Without memory for it, everything is read once more. */
	if (!listing->memory || listing_index(listing))
		listing_clear(listing);
	else
		memory_adopt(listing, map);
}

const struct catalog *capture_catalog(const struct capture *capture)
{
	return &capture->listing.catalog;
}

void capture_restart(struct capture *capture)
{
	for (size_t i = 0; i < capture->listing.catalog.entry_count; i++)
		capture->listing.memory[i].known = false;
}

/* ---- beginning and end ---- */

static bool is_below(const char *path, const char *root)
{
	size_t length = strlen(root);

	return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* The first of two that are equal stays. */
static bool is_covered(const struct capture_options *options, size_t number)
{
	const char *path = options->roots[number];

	for (size_t i = 0; i < options->root_count; i++)
		if (i != number && is_below(path, options->roots[i]) &&
		    (strcmp(path, options->roots[i]) || i < number))
			return true;
	return false;
}

static int copy_roots(struct capture *capture, const struct capture_options *options)
{
	capture->roots = calloc(options->root_count + 1, sizeof(*capture->roots));
	if (!capture->roots)
		return -ENOMEM;
	capture->options.root_count = 0;
	for (size_t i = 0; i < options->root_count; i++) {
		if (is_covered(options, i))
			continue;
		capture->roots[capture->options.root_count] = strdup(options->roots[i]);
		if (!capture->roots[capture->options.root_count++])
			return -ENOMEM;
	}
	return capture->options.root_count > CATALOG_ROOTS_MAX ? -E2BIG : 0;
}

static void *copy_list(const void *list, size_t bytes)
{
	void *copy = malloc(bytes + 1);

	if (copy && bytes)
		memcpy(copy, list, bytes);
	return copy;
}

int capture_create(struct capture **created, const struct capture_options *options,
		   struct problem *problem)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	int err;

	if (!capture)
		return problem_set(problem, ENOMEM, "out of memory");
	capture->options = *options;
	err = copy_roots(capture, options);
	capture->groups = copy_list(options->groups, options->group_count * sizeof(gid_t));
	capture->skip = copy_list(options->skip, options->skip_count * sizeof(*options->skip));
	capture->window = malloc(WINDOW_BYTES);
	if (!err && (!capture->groups || !capture->skip || !capture->window))
		err = -ENOMEM;
	if (!err) {
		*created = capture;
		return 0;
	}
	capture_destroy(capture);
	return problem_set(problem, -err, err == -E2BIG ? "more than 64 directories to capture"
							 : "no memory to capture files");
}

void capture_destroy(struct capture *capture)
{
	if (!capture)
		return;
	listing_clear(&capture->listing);
	for (size_t i = 0; capture->roots && capture->roots[i]; i++)
		free(capture->roots[i]);
	free(capture->roots);
	free(capture->groups);
	free(capture->skip);
	free(capture->window);
	free(capture);
}
