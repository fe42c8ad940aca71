// SPDX-License-Identifier: GPL-2.0
#include "ownership.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

bool ownership_trusted(const struct stat *status)
{
	if (status->st_uid && status->st_uid != geteuid())
		return false;
	/* In a sticky directory nobody replaces what is another's. */
	if (status->st_mode & S_IWOTH && !(S_ISDIR(status->st_mode) && status->st_mode & S_ISVTX))
		return false;
	return !(status->st_mode & S_IWGRP) || !status->st_gid || status->st_gid == getegid();
}

static int check_step(const char *step, const char *path, struct problem *problem)
{
	struct stat status;

	if (lstat(step, &status))
		return problem_set(problem, errno, "%s: %s", step, strerror(errno));
	if (!ownership_trusted(&status))
		return problem_set(problem, EPERM, "%s is not run, since others than root can change %s: "
				   "chown root %s; chmod go-w %s", path, step, step, step);
	return 0;
}

/* Links are refused rather than followed: each would have to be trusted as well. */
static int check_name(const char *path, struct problem *problem)
{
	cleanup_free char *real = NULL;

	if (*path != '/' || strlen(path) >= PATH_MAX)
		return problem_set(problem, EINVAL, "'%.128s' is not an absolute path", path);
	real = realpath(path, NULL);
	if (!real)
		return problem_set(problem, errno, "%s: %s", path, strerror(errno));
	if (strcmp(real, path))
		return problem_set(problem, ELOOP, "%s is a link or lies behind one: name %s instead", path,
				   real);
	return 0;
}

int ownership_check_program(const char *path, struct problem *problem)
{
	char step[PATH_MAX];
	struct stat status;
	int ret = check_name(path, problem);

	for (const char *slash = path; slash && ret == 0; slash = strchr(slash + 1, '/')) {
		snprintf(step, sizeof(step), "%.*s", (int)(slash - path), path);
		ret = check_step(slash == path ? "/" : step, path, problem);
	}
	if (ret == 0)
		ret = check_step(path, path, problem);
	if (ret == 0 && (stat(path, &status) || !S_ISREG(status.st_mode) || !(status.st_mode & 0111)))
		ret = problem_set(problem, EACCES, "%s is not a program: chmod a+x %s", path, path);
	return ret;
}
