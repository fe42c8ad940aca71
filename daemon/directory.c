// SPDX-License-Identifier: GPL-2.0
#include "directory.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *position)
{
	return remove(path);
}

void directory_remove(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

int directory_make_empty(const char *path, struct problem *problem)
{
	directory_remove(path);
	if (mkdir(path, 0700))
		return problem_set(problem, errno, "cannot make %s: %s", path, strerror(errno));
	return 0;
}
