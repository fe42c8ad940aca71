// SPDX-License-Identifier: GPL-2.0
/*
 * The lease of a job's term: as long as it is renewed nobody else runs the job. A thread of its own renews it, since an
 * epoch, a checkpoint, a restore or a hook may take longer than a lease.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "job_private.h"
#include "log.h"
#include "store.h"

/* Clocks of two nodes need not run at the same speed. */
#define GUARD_MS 1000

static void lease_lost(struct job *job)
{
	uint64_t one = 1;

	pthread_mutex_lock(&job->lock);
	job->lost = true;
	pthread_mutex_unlock(&job->lock);
	if (write(job->wake_fd, &one, sizeof(one)) < 0)
		log_err("%s: cannot wake its thread: %s", job->id, strerror(errno));
}

/* `run` gives output on until then. */
static void lease_renewed(struct job *job, int64_t until_ms)
{
	pthread_mutex_lock(&job->lock);
	job->lease_until_ms = until_ms;
	pthread_mutex_unlock(&job->lock);
	job_post(job, json_pack("{s:s, s:I}", "event", "lease", "until_ms", (json_int_t)until_ms));
}

static void lease_renew(struct job *job)
{
	int64_t begin_ms = clock_ms();
	struct problem problem;
	int ret = store_renew_term(job->reader.store, &job->reader.term, &problem);

	if (ret == -ESTALE) {
		lease_lost(job);
		return;
	}
	job_set_status(job, "lease_problem", ret ? json_string(problem.text) : json_null());
	if (ret)
		log_warn("%s: cannot renew its lease in the store: %s", job->id, problem.text);
	else
		lease_renewed(job, begin_ms + TERM_LEASE_MS - GUARD_MS);
}

/* False: it is to end. */
static bool lease_wait(struct job *job)
{
	struct timespec until;
	bool ends;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TERM_LEASE_RENEW_MS / 1000;
	pthread_mutex_lock(&job->lock);
	while (!job->lease_ends && pthread_cond_timedwait(&job->lease_wake, &job->lock, &until) != ETIMEDOUT)
		;
	ends = job->lease_ends;
	pthread_mutex_unlock(&job->lock);
	return !ends;
}

/* A newer term was found. */
static bool lease_is_lost(struct job *job)
{
	bool lost;

	pthread_mutex_lock(&job->lock);
	lost = job->lost;
	pthread_mutex_unlock(&job->lock);
	return lost;
}

static void *lease_main(void *arg)
{
	struct job *job = arg;

	log_set_job(job->id);
	do
		lease_renew(job);
	while (!lease_is_lost(job) && lease_wait(job));
	return NULL;
}

int job_lease_begin(struct job *job, struct problem *problem)
{
	pthread_condattr_t attributes;
	int err;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&job->lease_wake, &attributes);
	pthread_condattr_destroy(&attributes);
	job->lease_ends = false;
	err = pthread_create(&job->lease_thread, NULL, lease_main, job);
	if (err) {
		pthread_cond_destroy(&job->lease_wake);
		return problem_set(problem, err, "cannot start a thread for its lease: %s", strerror(err));
	}
	job->leased = true;
	return 0;
}

void job_lease_end(struct job *job)
{
	if (!job->leased)
		return;
	pthread_mutex_lock(&job->lock);
	job->lease_ends = true;
	pthread_cond_signal(&job->lease_wake);
	pthread_mutex_unlock(&job->lock);
	pthread_join(job->lease_thread, NULL);
	pthread_cond_destroy(&job->lease_wake);
	job->leased = false;
}
