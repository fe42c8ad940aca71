// SPDX-License-Identifier: GPL-2.0
#include "capture_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "identity.h"
#include "proc.h"
#include "xattrs.h"

/* A directory that is nested deeper is refused: each level holds a descriptor. */
#define DEPTH_MAX 256

struct link {
	uint32_t root;   /* names in another one are files of their own */
	uint32_t number; /* + 1, of the entry with the file's first name */
	uint64_t device;
	uint64_t inode;
};

/* ---- names of one file ---- */

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

/* ---- entries ---- */

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
	int err = old && catalog_entry_same(entry, old) ? xattrs_copy(entry, old)
						: xattrs_read(directory, name, entry);

	return !err || err == -EACCES || is_absence(-err) ? 0 : pass_fail(pass, -err, "read the attributes of");
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
	if (err || !S_ISREG(st->st_mode) || capture_skips(&pass->capture->options, st))
		return err;
	if (st->st_nlink > 1)
		err = take_link(pass, entry);
	return err || entry->link ? err : pass_take_file(pass, directory, name, entry);
}

static int walk(struct pass *pass, int directory, unsigned int depth);

static int walk_into(struct pass *pass, int directory, const char *name, unsigned int depth)
{
	int inner;

	if (depth == DEPTH_MAX)
		return pass_fail(pass, ELOOP, "go down to");
	inner = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (inner >= 0)
		return walk(pass, inner, depth + 1);
	return is_absence(errno) || errno == EACCES ? 0 : pass_fail(pass, errno, "open");
}

/* Files may have another device than their directory: on overlayfs that of their layer. */
static bool is_foreign(const struct pass *pass, const struct stat *st)
{
	return S_ISDIR(st->st_mode) && (st->st_dev != pass->device || capture_skips(&pass->capture->options, st));
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

static bool is_timeless(const struct statfs *system)
{
	return system->f_type == TMPFS_MAGIC || system->f_type == RAMFS_MAGIC || system->f_type == HUGETLBFS_MAGIC;
}

bool capture_is_timeless(int directory)
{
	struct statfs system;

	return fstatfs(directory, &system) || is_timeless(&system);
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
	pass->timeless = is_timeless(&system);
	pass->path[0] = '\0';
	err = catalog_add_root(&pass->found.catalog, path) ? pass_no_memory(pass)
							    : take_entry(pass, directory, ".", &st);
	if (!err)
		return walk(pass, directory, 0);
	close(directory);
	return err;
}

int pass_walk(struct pass *pass)
{
	const struct capture_options *options = &pass->capture->options;
	identity_scope struct identity caller = { 0 };
	cleanup_close int job_root = proc_open_root(options->init_pid, pass->problem);
	int err;

	if (job_root < 0)
		return job_root;
	err = identity_enter_groups(&caller, options->uid, options->gid, options->groups,
				    options->group_count);
	if (err)
		return problem_set(pass->problem, -err, "cannot become user %u to capture files: %s",
				   options->uid, strerror(-err));
	for (; pass->root < options->root_count && !err; pass->root++)
		err = walk_root(pass, job_root);
	tdestroy(pass->links, free);
	return err;
}
