// SPDX-License-Identifier: GPL-2.0
/* Which files of a job become part of its checkpoints, and putting them back. */
#include "job_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "directory.h"
#include "identity.h"
#include "putback.h"
#include "wire.h"

#define SEPARATORS ", \t"
#define SKIP_MAX 3 /* the store, both outputs */

/* The lists that struct capture_options points to. */
struct choice {
	struct capture_options options;
	const char *roots[CATALOG_ROOTS_MAX + 1];
	struct capture_skip skip[SKIP_MAX];
	char *words[2];
};

static void choice_free(struct choice *choice)
{
	free(choice->words[0]);
	free(choice->words[1]);
}
#define choice_scope __attribute__((cleanup(choice_free)))

static int add_roots(struct choice *choice, struct job *job, const char *list, char **words,
		     struct problem *problem)
{
	char *word, *place;

	*words = strdup(list);
	if (!*words)
		return problem_set(problem, ENOMEM, "out of memory");
	for (word = strtok_r(*words, SEPARATORS, &place); word; word = strtok_r(NULL, SEPARATORS, &place)) {
		if (!strcmp(word, "none"))
			continue;
		if (choice->options.root_count == CATALOG_ROOTS_MAX)
			return problem_set(problem, E2BIG, "class %s has more than %d directories to capture",
					   job->class->name, CATALOG_ROOTS_MAX);
		choice->roots[choice->options.root_count++] = strcmp(word, "cwd") ? word : job->caller.cwd;
	}
	return 0;
}

static void add_skip(struct choice *choice, const struct stat *st)
{
	choice->skip[choice->options.skip_count++] =
		(struct capture_skip){ .device = st->st_dev, .inode = st->st_ino };
}

/* What `ckptctl run` writes to is its own, not the job's. */
static void skip_output(struct choice *choice, const json_t *output)
{
	cleanup_free char *path = json_is_object(output) ? wire_to_bytes(json_object_get(output, "path")) : NULL;
	struct stat st;

	if (path && !stat(path, &st) &&
	    (json_int_t)st.st_ino == json_integer_value(json_object_get(output, "inode")))
		add_skip(choice, &st);
}

static void add_skips(struct choice *choice, struct job *job)
{
	const json_t *outputs = json_object_get(job->facts, "outputs");
	identity_scope struct identity caller = { 0 };
	struct stat st;

	if (identity_enter_groups(&caller, job->caller.uid, job->caller.gid, job->caller.groups,
				  job->caller.group_count))
		return;
	if (!stat(job->class->store, &st))
		add_skip(choice, &st);
	skip_output(choice, json_object_get(outputs, "stdout"));
	if (!job->merged)
		skip_output(choice, json_object_get(outputs, "stderr"));
}

static int choose(struct choice *choice, struct job *job, struct problem *problem)
{
	int ret;

	choice->options = (struct capture_options){
		.roots = choice->roots, .skip = choice->skip,
		.init_pid = job->launch.init_pid, .uid = job->caller.uid, .gid = job->caller.gid,
		.groups = job->caller.groups, .group_count = job->caller.group_count,
		.stopped = job_pass_stopped, .stopped_arg = job,
	};
	ret = add_roots(choice, job, job->class->capture, &choice->words[0], problem);
	if (ret == 0)
		ret = add_roots(choice, job, job->private, &choice->words[1], problem);
	add_skips(choice, job);
	return ret;
}

static int forget_file(struct space *space, void *arg)
{
	if (space_kind(space) == SPACE_FILE)
		pagemap_forget_space(arg, SPACE_FILE, space_id(space));
	return 0;
}

int job_start_capture(struct job *job, struct catalog *restored, struct problem *problem)
{
	choice_scope struct choice choice = { 0 };
	int ret = choose(&choice, job, problem);

	if (ret == 0 && choice.options.root_count)
		ret = capture_create(&job->reader.capture, &choice.options, problem);
	if (ret)
		return ret;
	if (job->reader.capture && restored)
		capture_adopt(job->reader.capture, restored, job->reader.map);
	else
		pagemap_for_each(job->reader.map, forget_file, job->reader.map);
	return 0;
}

int job_put_files_back(struct job *job, struct manifest *manifest, struct catalog *catalog,
		       struct problem *problem)
{
	choice_scope struct choice choice = { 0 };
	struct putback_stats stats;
	int ret = putback_read_catalog(job->reader.store, manifest, catalog, problem);

	if (ret == -ENOENT)
		return 0; /* nothing was captured */
	if (ret == 0)
		ret = choose(&choice, job, problem);
	if (ret == 0)
		ret = putback_run(job->reader.store, manifest, catalog, &choice.options, &stats, problem);
	if (ret == 0 && (stats.files_compared || stats.moved_aside))
		job_note(job, "files put back as at the checkpoint: %llu of %llu compared, %.1f MiB written, "
			 "%llu moved to " CAPTURE_ASIDE, (unsigned long long)stats.files_compared,
			 (unsigned long long)stats.entries, (double)stats.bytes_written / (1 << 20),
			 (unsigned long long)stats.moved_aside);
	return ret;
}

/* ---- the job's own directories ---- */

/* Sources for ckpt-init to mount: "private/0", "private/1" …; it makes /dev/shm itself, in memory. */
int job_make_private(const struct job *job, struct problem *problem)
{
	cleanup_free char *words = strdup(job->private);
	char path[PATH_MAX], *word, *place;
	unsigned int number = 0;
	int ret = words ? 0 : problem_set(problem, ENOMEM, "out of memory");

	snprintf(path, sizeof(path), "%s/private", job->directory);
	/* Who is not in the job does not get to them: they are like its memory. */
	if (ret == 0)
		ret = directory_make_empty(path, problem);
	for (word = words ? strtok_r(words, SEPARATORS, &place) : NULL; word && ret == 0;
	     word = strtok_r(NULL, SEPARATORS, &place), number++) {
		snprintf(path, sizeof(path), "%s/private/%u", job->directory, number);
		if (mkdir(path, 0700) || chmod(path, 01777))
			ret = problem_set(problem, errno, "cannot make %s for the job's %s: %s", path, word,
					  strerror(errno));
	}
	return ret;
}
