// SPDX-License-Identifier: GPL-2.0
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whatever the umask is: jobs' users must get through. */
static int make_one(const char *path, struct problem *problem)
{
	if (mkdir(path, 0711) == 0 ? chmod(path, 0711) : errno != EEXIST)
		return problem_set(problem, errno, "cannot make %s: %s", path, strerror(errno));
	return 0;
}

int directory_make(const char *path, struct problem *problem)
{
	char part[4096];
	int ret;

	for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
		if (slash == path)
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		ret = make_one(part, problem);
		if (ret)
			return ret;
	}
	return make_one(path, problem);
}

int directory_next(DIR *dir, struct dirent **entry)
{
	errno = 0;
	*entry = readdir(dir);
	return *entry ? 0 : -errno;
}

/* Directories on their way out, each with a name of its own in the one that all is removed from. */
struct removal {
	int top;
	unsigned long moved;
	bool progress;
};

typedef void (*entry_each)(struct removal *removal, int directory, const char *name);

/* Closes directory. */
static void for_each_entry(struct removal *removal, int directory, entry_each each)
{
	DIR *dir = fdopendir(directory);
	struct dirent *entry;

	if (!dir) {
		close(directory);
		return;
	}
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			each(removal, directory, entry->d_name);
	closedir(dir);
}

static int open_directory(int at, const char *name)
{
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void remove_or_lift(struct removal *removal, int directory, const char *name)
{
	char lifted[40];

	if (unlinkat(directory, name, 0) == 0 || unlinkat(directory, name, AT_REMOVEDIR) == 0)
		return;
	snprintf(lifted, sizeof(lifted), ".removed-%lu", removal->moved++);
	if (renameat(directory, name, removal->top, lifted) == 0)
		removal->progress = true;
}

static void remove_top_entry(struct removal *removal, int top, const char *name)
{
	int inner;

	if (unlinkat(top, name, 0)) {
		inner = open_directory(top, name);
		if (inner >= 0)
			for_each_entry(removal, inner, remove_or_lift);
		if (unlinkat(top, name, AT_REMOVEDIR))
			return;
	}
	removal->progress = true;
}

/*
 * What jobs could write into may be changed meanwhile, and nested to any depth: so no path is followed, and directories
 * that are not empty are lifted up to the top.
 */
void directory_remove(const char *path)
{
	struct removal removal = { .top = open_directory(AT_FDCWD, path) };
	int again;

	if (removal.top < 0)
		return;
	do {
		removal.progress = false;
		again = open_directory(removal.top, ".");
		if (again >= 0)
			for_each_entry(&removal, again, remove_top_entry);
	} while (removal.progress);
	close(removal.top);
	rmdir(path);
}

int directory_make_empty(const char *path, struct problem *problem)
{
	directory_remove(path);
	if (mkdir(path, 0700))
		return problem_set(problem, errno, "cannot make %s: %s", path, strerror(errno));
	return 0;
}
