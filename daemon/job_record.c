// SPDX-License-Identifier: GPL-2.0
#include "job_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "proc.h"
#include "wire.h"

json_t *job_make_facts(const struct job *job, json_t *outputs)
{
	json_t *groups = json_array();

	for (size_t i = 0; i < job->caller.group_count; i++)
		json_array_append_new(groups, json_integer(job->caller.groups[i]));
	return json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:b, s:o, s:s, s:O}", "job", job->id, "class",
			 job->class->name, "uid", (int)job->caller.uid, "gid", (int)job->caller.gid,
			 "groups", groups, "command", wire_from_vector(job->caller.arguments),
			 "merged", job->merged, "cwd", wire_from_bytes(job->caller.cwd), "private", job->private, "outputs",
			 outputs);
}

/* What job_adopt() needs, written when the job's processes exist. */
int job_write_record(struct job *job, struct problem *problem)
{
	char path[PATH_MAX], fresh[PATH_MAX + 8], boot[40];
	uint64_t start_time = 0;
	json_t *record;
	int ret;

	snprintf(path, sizeof(path), "%s/" INIT_RECORD, job->directory);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	if (proc_boot_id(boot))
		return problem_set(problem, EIO, "cannot read this boot's identity");
	/* A short program may have ended by now: then there is no start time, and nothing to take up. */
	proc_start_time(job->launch.init_pid, &start_time);
	record = json_pack("{s:O, s:o, s:s, s:i, s:I, s:s, s:s, s:I, s:O}", "facts", job->facts,
			   "class_values", class_to_json(job->class), "boot", boot,
			   "init_pid", job->launch.init_pid, "init_start", (json_int_t)start_time,
			   "cgroup", job->reader.cgroup, "parent_cgroup", job->parent_cgroup,
			   "term", (json_int_t)job->reader.term.number, "running", job->running);
	ret = json_dump_file(record, fresh, JSON_INDENT(1));
	json_decref(record);
	if (ret || rename(fresh, path))
		return problem_set(problem, EIO, "cannot write %s: %s", path, strerror(errno));
	return 0;
}

/* Its number may be another's by now. */
static void find_init(const json_t *record, struct launch *launch)
{
	uint64_t start_time;

	launch->init_pid = (pid_t)json_integer_value(json_object_get(record, "init_pid"));
	launch->init_pidfd = launch->init_pid > 0 ? pidfd_of(launch->init_pid) : -1;
	if (launch->init_pidfd >= 0 &&
	    proc_start_time(launch->init_pid, &start_time) == 0 &&
	    (json_int_t)start_time == json_integer_value(json_object_get(record, "init_start")))
		return;
	if (launch->init_pidfd >= 0)
		close(launch->init_pidfd);
	launch->init_pidfd = -1;
}

int job_read_record(const char *directory, json_t **record, struct launch *launch,
		    struct problem *problem)
{
	char path[PATH_MAX], boot[40];
	json_error_t error;

	snprintf(path, sizeof(path), "%s/" INIT_RECORD, directory);
	if (access(path, F_OK) && errno == ENOENT)
		return -ENOENT;
	*record = json_load_file(path, 0, &error);
	if (!*record || proc_boot_id(boot))
		return problem_set(problem, EIO, "cannot read %s, so the job that it describes is not taken "
				   "up: %s", path, *record ? "this boot has no identity" : error.text);
	if (strcmp(boot, json_string_value(json_object_get(*record, "boot")) ?: "")) {
		json_decref(*record);
		return -ENOENT;
	}
	find_init(*record, launch);
	return 0;
}

/* The class of a job that ran when ckptd was stopped: its store stays its store. */
static int take_class(struct job *job, const struct config *config, const json_t *record,
		      struct problem *problem)
{
	const char *name = json_string_value(json_object_get(job->facts, "class"));
	const json_t *values = json_object_get(record, "class_values");
	struct class *fresh = name ? config_class(config, name) : NULL, *old;
	char kept[400];
	int ret;

	if (!name)
		return problem_set(problem, EINVAL, "the record of job %s names no class", job->id);
	/* An older ckptd did not write them. */
	if (!values && fresh) {
		job->class = class_get(fresh);
		return 0;
	}
	ret = class_from_json(&old, name, values, problem);
	if (ret)
		return ret;
	if (!fresh) {
		log_warn("%s: class %s is not configured any more: the job goes on with the values that it "
			 "had", job->id, name);
		job->class = old;
		return 0;
	}
	ret = class_renew(&job->class, old, fresh, kept, sizeof(kept));
	class_put(old);
	return ret ? problem_set(problem, ENOMEM, "out of memory") : 0;
}

int job_take_record(struct job *job, const struct config *config, json_t *record,
		    struct problem *problem)
{
	int ret;

	job->adopted = true;
	job->state = JOB_ADOPTING;
	job->facts = json_incref(json_object_get(record, "facts"));
	job->running = json_incref(json_object_get(record, "running"));
	ret = take_class(job, config, record, problem);
	if (ret)
		return ret;
	job->caller.uid = (uid_t)json_integer_value(json_object_get(job->facts, "uid"));
	job->caller.gid = (gid_t)json_integer_value(json_object_get(job->facts, "gid"));
	json_t *groups = json_object_get(job->facts, "groups");
	for (size_t i = 0; i < json_array_size(groups) && i < INIT_MAX_GROUPS; i++)
		job->caller.groups[job->caller.group_count++] =
			(gid_t)json_integer_value(json_array_get(groups, i));
	job->merged = json_is_true(json_object_get(job->facts, "merged"));
	job->caller.cwd = wire_to_bytes(json_object_get(job->facts, "cwd"));
	job->private = strdup(json_string_value(json_object_get(job->facts, "private")) ?: "none");
	if (!job->private)
		return problem_set(problem, ENOMEM, "out of memory");
	job->reader.term.number = (uint64_t)json_integer_value(json_object_get(record, "term"));
	snprintf(job->reader.cgroup, sizeof(job->reader.cgroup), "%s",
		 json_string_value(json_object_get(record, "cgroup")));
	snprintf(job->parent_cgroup, sizeof(job->parent_cgroup), "%s",
		 json_string_value(json_object_get(record, "parent_cgroup")));
	job_set_paths(job);
	return 0;
}
