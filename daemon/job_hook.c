// SPDX-License-Identifier: GPL-2.0
/* The hooks of one job: before a restore the job waits for its hook, the others run beside it. */
#include "job_private.h"

#include <pwd.h>
#include <string.h>

#include "log.h"

static void set_user(struct hook_call *call, const struct job *job)
{
	struct passwd entry, *found = NULL;
	char buffer[4096];

	call->uid = job->caller.uid;
	call->gid = job->caller.gid;
	call->group_count = job->caller.group_count;
	call->groups = calloc(call->group_count + 1, sizeof(*call->groups));
	if (call->groups)
		memcpy(call->groups, job->caller.groups, call->group_count * sizeof(*call->groups));
	else
		call->group_count = 0;
	if (getpwuid_r(call->uid, &entry, buffer, sizeof(buffer), &found))
		found = NULL;
	hook_call_set(call, "CKPT_USER", "%s", found ? found->pw_name : "");
	hook_call_set(call, "CKPT_UID", "%u", call->uid);
}

/* Also called by the event loop, so the class and the last checkpoint are read under the lock. */
struct hook_call *job_hook_call(struct job *job, enum hook hook)
{
	struct hook_call *call = NULL;
	const char *command;

	pthread_mutex_lock(&job->lock);
	command = class_hook(job->class, hook, NULL);
	if (command)
		call = hook_call_new(hook, command, job->id);
	if (call) {
		call->timeout_ms = job->class->hook_timeout_ms;
		hook_call_set(call, "CKPT_EVENT", "%s", hook_name(hook));
		hook_call_set(call, "CKPT_JOB", "%s", job->id);
		hook_call_set(call, "CKPT_CLASS", "%s", job->class->name);
		hook_call_set(call, "CKPT_STORE", "%s", job->class->store);
		hook_call_set(call, "CKPT_NODE", "%s", job->setup->node);
		hook_call_set(call, "CKPT_CHECKPOINT", "%s", job->checkpoint);
		hook_call_set(call, "CKPT_CHECKPOINT_TIME", "%lld", (long long)job->checkpoint_time);
		if (job->root_pid)
			hook_call_set(call, "CKPT_PID", "%d", job->root_pid);
	}
	pthread_mutex_unlock(&job->lock);
	/* May ask a server. */
	if (call)
		set_user(call, job);
	return call;
}

int job_hook_wait(struct hook_call *call, struct problem *problem)
{
	int ret = call ? hook_run(call, problem) : 0;

	hook_call_free(call);
	return ret;
}

static void *hook_main(void *arg)
{
	struct job_hook *hook = arg;
	struct problem problem;

	log_set_job(hook->call->job);
	if (hook_run(hook->call, &problem))
		log_warn("%s: %s: %s", hook->call->job, hook_name(hook->call->hook), problem.text);
	__atomic_store_n(&hook->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void hook_join(struct job_hook *hook)
{
	if (hook->started)
		pthread_join(hook->thread, NULL);
	hook_call_free(hook->call);
	*hook = (struct job_hook){ 0 };
}

void job_hook_start(struct job *job, struct hook_call *call)
{
	struct job_hook *hook;

	if (!call)
		return;
	pthread_mutex_lock(&job->lock);
	hook = &job->hooks[call->hook];
	if (hook->started && __atomic_load_n(&hook->done, __ATOMIC_ACQUIRE))
		hook_join(hook);
	if (hook->started || job->hooks_closed) {
		if (!job->hooks_closed)
			log_warn("%s: %s is not run: the one before it is still at work", job->id,
				 hook_name(call->hook));
		hook_call_free(call);
	} else {
		hook->call = call;
		hook->started = pthread_create(&hook->thread, NULL, hook_main, hook) == 0;
		if (!hook->started)
			hook_join(hook);
	}
	pthread_mutex_unlock(&job->lock);
}

void job_hooks_end(struct job *job)
{
	pthread_mutex_lock(&job->lock);
	job->hooks_closed = true;
	pthread_mutex_unlock(&job->lock);
	for (size_t i = 0; i < HOOK_COUNT; i++)
		hook_join(&job->hooks[i]);
}

static void hook_missed(struct job *job, int64_t left_ms)
{
	struct hook_call *call = job_hook_call(job, HOOK_ON_MISSED);

	if (call)
		hook_call_set(call, "CKPT_LEFT_MS", "%lld", (long long)(left_ms > 0 ? left_ms : 0));
	job_hook_start(job, call);
}

void job_check_deadline(struct job *job)
{
	int64_t now = clock_ms(), deadline_ms;
	char last[sizeof(job->checkpoint)];
	bool missed;

	pthread_mutex_lock(&job->lock);
	missed = job->want_final && !job->final_done && !job->missed && job->state != JOB_ENDED &&
		 now >= job->deadline_ms - (int64_t)job->class->margin_ms;
	job->missed |= missed;
	deadline_ms = job->deadline_ms;
	strcpy(last, job->checkpoint);
	pthread_mutex_unlock(&job->lock);
	if (!missed)
		return;
	log_err("%s: its final checkpoint is not durable %.1f s before the end of the node; it is still being "
		"made. If it does not get there, the job goes on from checkpoint %s", job->id,
		(double)(deadline_ms - now) / 1000, *last ? last : "(there is none)");
	hook_missed(job, deadline_ms - now);
}

void job_hook_forecast(struct job *job, enum policy_safety safety, int64_t forecast_ms)
{
	struct hook_call *call = job_hook_call(job, HOOK_ON_FORECAST);

	if (call) {
		hook_call_set(call, "CKPT_SAFETY", "%s", policy_safety_name(safety));
		hook_call_set(call, "CKPT_FORECAST_MS", "%lld", (long long)forecast_ms);
		hook_call_set(call, "CKPT_BUDGET_MS", "%u", job->class->window_ms - job->class->margin_ms);
	}
	job_hook_start(job, call);
}

/* Of a final one: the job is ended already, and its run waits for the hook. */
void job_hook_committed(struct job *job, bool final)
{
	struct hook_call *call = job_hook_call(job, HOOK_ON_COMMITTED);
	int64_t left_ms = job_left_ms(job);
	struct problem problem;

	if (!call)
		return;
	hook_call_set(call, "CKPT_FINAL", "%d", final);
	if (final)
		hook_call_set(call, "CKPT_CAUSE", "%s", job_final_cause(job));
	if (!final) {
		job_hook_start(job, call);
		return;
	}
	if (left_ms < (int64_t)call->timeout_ms)
		call->timeout_ms = left_ms > 1000 ? (unsigned int)left_ms : 1000;
	if (job_hook_wait(call, &problem))
		log_warn("%s: on_committed: %s", job->id, problem.text);
}
