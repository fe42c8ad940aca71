// SPDX-License-Identifier: GPL-2.0
#include "job_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

/*
 * What comes later cannot be checked before.  If a restore from this checkpoint did not get to one of its
 * own, for whatever reason, the next one reads and checks all of it first: then also damage is found
 * while the checkpoint before can still be taken instead.
 */
bool job_restores_lazily(struct job *job, const struct term *previous, const char *name)
{
	struct problem problem;

	if (strcmp(job->class->restore, "lazy")) {
		job_set_status(job, "restore", json_string("eager"));
		return false;
	}
	if (!strcmp(previous->base, name))
		problem_set(&problem, EAGAIN, "the restore before this one, from the same checkpoint, got to none "
			    "of its own");
	else if (lazy_probe(&problem) == 0) {
		job_set_status(job, "restore", json_string("lazy"));
		return true;
	}
	job_set_status(job, "restore", json_string("eager"));
	job_set_status(job, "restore_reason", json_string(problem.text));
	job_note(job, "is restored eagerly: %s", problem.text);
	return false;
}

int job_restore_lazily(struct job *job, const struct lazy_plan *plan, struct pagemap *map, int watch_fd,
		       const struct restore_facts *restored, struct problem *problem)
{
	struct lazy_options options = {
		.plan = plan,
		.map = map,
		.job = job->id,
		.store = job->class->store,
		.store_uid = job->caller.uid,
		.store_gid = job->caller.gid,
		.keys = &job->setup->keys,
		.buffer_bytes = job->class->buffer_memory,
		.images = job->images,
		.directory = job->directory,
		.cgroup = job->reader.cgroup,
		.parent_cgroup = job->parent_cgroup,
		.init_pidfd = job->launch.init_pidfd,
		.watch_fd = watch_fd,
	};
	int ret = class_store_identity(job->class, &options.store_uid, &options.store_gid, problem);

	if (ret) {
		close(watch_fd);
		return ret;
	}
	ret = lazy_start(&job->lazy, &options, problem);
	if (ret)
		return ret;
	job->criu.lazy = true;
	ret = restore_run(&job->criu, restored, (int)job->class->criu_timeout_ms * 4, problem);
	job->criu.lazy = false;
	if (ret == 0)
		return 0;
	/* ckpt-pages may be about to do so, and has ended then. */
	job_kill_init(job);
	/* The next try is eager: see above. */
	if (job_lazy_failed(job))
		ret = problem_set(problem, EAGAIN, "%s", job->last_failure);
	return ret;
}

int job_adopt_lazy(struct job *job, struct problem *problem)
{
	int ret = job->lazy ? 0 : lazy_adopt(&job->lazy, job->directory);

	if (ret == -ENOMEM)
		return problem_set(problem, ENOMEM, "out of memory");
	return 0;
}

static void tell_progress(struct job *job)
{
	const struct lazy_table *table = lazy_table(job->lazy);
	const struct lazy_head *head = table ? table->head : NULL;
	bool waiting = head && __atomic_load_n(&head->waiting, __ATOMIC_RELAXED);

	if (!head)
		return;
	job_set_status(job, "lazy_pages", json_integer(head->page_count));
	job_set_status(job, "lazy_pages_given", json_integer(__atomic_load_n(&head->given, __ATOMIC_RELAXED)));
	job_set_status(job, "lazy_faults", json_integer(__atomic_load_n(&head->faults, __ATOMIC_RELAXED)));
	if (waiting && !job->told_waiting)
		job_note(job, "its memory cannot be read from the store %s now: what needs it waits until the store "
			 "is back", job->class->store);
	job->told_waiting = waiting;
}

static void all_came(struct job *job)
{
	const struct lazy_table *table = lazy_table(job->lazy);
	struct problem problem;

	tell_progress(job);
	if (table) {
		lazy_table_take_hashes(table, job->reader.map);
		job_note(job, "all of its memory is here: %.1f MiB came after it ran, %u times it waited for a page",
			 (double)table->head->page_count * PAGE_BYTES / (1 << 20), table->head->faults);
	}
	lazy_free(job->lazy);
	job->lazy = NULL;
	if (tasks_adopt(&job->reader.tasks, job->reader.cgroup, &problem))
		log_warn("%s: %s", job->id, problem.text);
	job->next_look_ms = clock_ms();
	job_plan_checkpoint(job);
}

bool job_lazy_done(struct job *job)
{
	struct problem problem;

	if (!job->lazy)
		return true;
	switch (lazy_look(job->lazy, &problem)) {
	case LAZY_GIVEN:
		all_came(job);
		return true;
	default:
		/* That it has failed is seen by the job's end, which comes next. */
		tell_progress(job);
		return false;
	}
}

bool job_lazy_failed(struct job *job)
{
	struct problem problem;

	if (!job->lazy || (job_init_gone(job) ? lazy_last_look(job->lazy, &problem) :
						lazy_look(job->lazy, &problem)) != LAZY_FAILED)
		return false;
	snprintf(job->last_failure, sizeof(job->last_failure), "its memory could not be restored: %.900s",
		 problem.text);
	return true;
}
