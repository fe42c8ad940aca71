// SPDX-License-Identifier: GPL-2.0
#include "job_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "directory.h"
#include "log.h"

static const char *const state_names[] = {
	[JOB_STARTING] = "starting", [JOB_RESTORING] = "restoring", [JOB_ADOPTING] = "adopting",
	[JOB_RUNNING] = "running", [JOB_CHECKPOINTING] = "checkpointing", [JOB_ENDED] = "ended",
};

/* --- what the loop and the thread say to each other --- */

void job_post(struct job *job, json_t *event)
{
	uint64_t one = 1;

	pthread_mutex_lock(&job->lock);
	json_array_append_new(job->events, event);
	pthread_mutex_unlock(&job->lock);
	if (write(job->setup->event_fd, &one, sizeof(one)) < 0)
		log_err("%s: cannot wake the event loop: %s", job->id, strerror(errno));
}

__attribute__((format(printf, 2, 3))) void job_note(struct job *job, const char *format, ...)
{
	char text[1200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	problem_clean(text);
	log_info("%s: %s", job->id, text);
	job_post(job, json_pack("{s:s, s:s}", "event", "note", "text", text));
}

void job_set_state(struct job *job, enum job_state state)
{
	pthread_mutex_lock(&job->lock);
	job->state = state;
	pthread_mutex_unlock(&job->lock);
}

/* Steals value. */
void job_set_status(struct job *job, const char *key, json_t *value)
{
	pthread_mutex_lock(&job->lock);
	json_object_set_new(job->status, key, value);
	pthread_mutex_unlock(&job->lock);
}

json_t *job_next_event(struct job *job)
{
	json_t *event = NULL;

	pthread_mutex_lock(&job->lock);
	if (json_array_size(job->events)) {
		event = json_incref(json_array_get(job->events, 0));
		json_array_remove(job->events, 0);
	}
	pthread_mutex_unlock(&job->lock);
	return event;
}

json_t *job_running_event(struct job *job)
{
	json_t *event;

	pthread_mutex_lock(&job->lock);
	event = json_copy(job->running);
	if (event)
		json_object_set_new(event, "lease_until_ms", json_integer(job->lease_until_ms));
	pthread_mutex_unlock(&job->lock);
	return event;
}

json_t *job_status(struct job *job)
{
	json_t *status;

	pthread_mutex_lock(&job->lock);
	status = json_deep_copy(job->status);
	json_object_set_new(status, "state", json_string(state_names[job->state]));
	json_object_set_new(status, "pid", json_integer(job->root_pid));
	pthread_mutex_unlock(&job->lock);
	return status;
}

static void job_wake(struct job *job)
{
	uint64_t one = 1;

	if (write(job->wake_fd, &one, sizeof(one)) < 0)
		log_err("%s: cannot wake its thread: %s", job->id, strerror(errno));
}

static void job_want(struct job *job, bool *what)
{
	pthread_mutex_lock(&job->lock);
	*what = true;
	pthread_mutex_unlock(&job->lock);
	job_wake(job);
}

void job_want_checkpoint(struct job *job)
{
	job_want(job, &job->want_checkpoint);
}

void job_warn(struct job *job)
{
	pthread_mutex_lock(&job->lock);
	job->warned = true;
	pthread_mutex_unlock(&job->lock);
	job_want_checkpoint(job);
}

void job_want_final(struct job *job, int64_t deadline_ms)
{
	pthread_mutex_lock(&job->lock);
	if (!job->want_final || deadline_ms < job->deadline_ms)
		job->deadline_ms = deadline_ms;
	pthread_mutex_unlock(&job->lock);
	limits_lift(&job->limits);
	job_want(job, &job->want_final);
}

void job_want_end(struct job *job, const char *why)
{
	pthread_mutex_lock(&job->lock);
	snprintf(job->end_reason, sizeof(job->end_reason), "%s", why);
	pthread_mutex_unlock(&job->lock);
	job_want(job, &job->want_end);
}

void job_want_leave(struct job *job)
{
	job_want(job, &job->want_leave);
}

/* What a terminal would send to all of its foreground goes to the job's whole process group. */
static bool is_terminal_signal(int number)
{
	return number == SIGINT || number == SIGQUIT || number == SIGHUP || number == SIGTSTP ||
	       number == SIGWINCH || number == SIGCONT;
}

bool job_ends_from_outside(int number)
{
	return number == SIGTERM || number == SIGKILL || number == SIGHUP || number == SIGXCPU;
}

static void save_because(struct job *job, const char *cause)
{
	unsigned int window_ms;

	pthread_mutex_lock(&job->lock);
	window_ms = job->class->save_window_ms;
	if (!job->want_final)
		job->final_cause = cause;
	pthread_mutex_unlock(&job->lock);
	log_info("%s: taking a final checkpoint (%s), in %u s at most", job->id, cause, window_ms / 1000);
	job_want_final(job, clock_ms() + window_ms);
}

void job_want_saved(struct job *job)
{
	save_because(job, "request");
}

/* If this is what the class saves jobs on; else it is the program's. */
static bool save_on_signal(struct job *job, int number)
{
	bool saves;

	pthread_mutex_lock(&job->lock);
	saves = number == class_signal(job->class->save_signal);
	job->told_to_end |= !saves && job_ends_from_outside(number);
	pthread_mutex_unlock(&job->lock);
	if (saves)
		save_because(job, "signal");
	return saves;
}

const char *job_final_cause(struct job *job)
{
	const char *cause;

	pthread_mutex_lock(&job->lock);
	cause = job->final_cause ?: "notice";
	pthread_mutex_unlock(&job->lock);
	return cause;
}

int job_signal(struct job *job, int number)
{
	int ret = -ESRCH;

	if (save_on_signal(job, number))
		return 0;
	pthread_mutex_lock(&job->lock);
	if (job->root_pidfd >= 0) {
		int probe = is_terminal_signal(number) ? 0 : number;

		ret = syscall(SYS_pidfd_send_signal, job->root_pidfd, probe, NULL, 0) ? -errno : 0;
		/* The root task leads a session, so its pid is the group's. */
		if (ret == 0 && probe == 0)
			ret = kill(-job->root_pid, number) ? -errno : 0;
	}
	pthread_mutex_unlock(&job->lock);
	return ret;
}

/* --- a reload --- */

void job_renew_class(struct job *job, const struct class *fresh)
{
	struct class *renewed = NULL;
	char kept[400];

	pthread_mutex_lock(&job->lock);
	if (class_renew(&renewed, job->next_class ?: job->class, fresh, kept, sizeof(kept)) == 0) {
		class_put(job->next_class);
		job->next_class = renewed;
	}
	pthread_mutex_unlock(&job->lock);
	if (!renewed)
		log_err("%s: no memory for the new values of its class: it keeps the old ones", job->id);
	else if (*kept)
		log_info("%s: goes on with its %s; the new values of class %s hold for new jobs", job->id,
			 kept, job->class_name);
	job_wake(job);
}

/* No pass is at work. */
static void set_limits(struct job *job)
{
	job->limits.io_bytes_per_s = job->class->io_limit;
	job->limits.threads = job->class->cpu_limit;
	job->reader.limits = job->class->io_limit || job->class->cpu_limit ? &job->limits : NULL;
}

bool job_take_class(struct job *job)
{
	struct problem problem;
	struct class *old = NULL;

	pthread_mutex_lock(&job->lock);
	if (job->next_class) {
		old = job->class;
		job->class = take_ptr(job->next_class);
	}
	pthread_mutex_unlock(&job->lock);
	if (!old)
		return false;
	class_put(old);
	job->criu.ghost_limit = job->class->ghost_limit;
	tcp_policy_parse(job->class->tcp, &job->criu.tcp_policy);
	set_limits(job);
	if (job_write_record(job, &problem))
		log_warn("%s: %s", job->id, problem.text);
	return true;
}

void job_signal_group(struct job *job, int number)
{
	pthread_mutex_lock(&job->lock);
	/* Its number may be another's once the root task has ended. */
	if (number && job->root_pidfd >= 0 &&
	    syscall(SYS_pidfd_send_signal, job->root_pidfd, 0, NULL, 0) == 0)
		kill(-job->root_pid, number);
	pthread_mutex_unlock(&job->lock);
}

const char *job_class_name(const struct job *job)
{
	return job->class_name;
}

const char *job_id(const struct job *job)
{
	return job->id;
}

uid_t job_uid(const struct job *job)
{
	return job->caller.uid;
}

/* --- local state, for a ckptd that comes after this one --- */

int job_check_name(const char *name, struct problem *problem)
{
	size_t length = strlen(name);

	for (const char *at = name; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
			length = 0;
	if (length < 1 || length > 100 || *name == '.')
		return problem_set(problem, EINVAL, "'%.100s' is no job name: 1 to 100 letters, digits, "
				   "'.', '_' or '-', not starting with '.'", name);
	return 0;
}

void job_base_directory(const char *work_dir, char *path, size_t bytes)
{
	snprintf(path, bytes, "%s/jobs", work_dir);
}

void job_set_paths(struct job *job)
{
	char base[PATH_MAX / 4];

	job_base_directory(job->setup->work_dir, base, sizeof(base));
	snprintf(job->directory, sizeof(job->directory), "%s/%s", base, job->id);
	snprintf(job->images, sizeof(job->images), "%s/images", job->directory);
	snprintf(job->private_directory, sizeof(job->private_directory), "%s/private", job->directory);
	snprintf(job->mark, sizeof(job->mark), "%s/" INIT_MARK, job->directory);
	snprintf(job->stdout_path, sizeof(job->stdout_path), "%s/stdout", job->directory);
	snprintf(job->stderr_path, sizeof(job->stderr_path), "%s/%s", job->directory,
		 job->merged ? "stdout" : "stderr");
}

/* --- the thread --- */

/* problem: why those that would be better do not work; empty if none would. */
static void tell_mechanism(struct job *job, const struct problem *problem)
{
	const char *name = job->reader.tasks.mechanism->name;

	job_set_status(job, "mechanism", json_string(name));
	snprintf(job->mechanism_reason, sizeof(job->mechanism_reason), "%s", problem->text);
	if (!problem->text[0])
		return;
	job_set_status(job, "mechanism_reason", json_string(problem->text));
	log_warn("%s: its pages are tracked by %s, because %s", job->id, name, problem->text);
}

int job_prepare(struct job *job, struct problem *problem)
{
	struct problem why;

	if (job->reader.tasks.mechanism)
		return 0;
	job->reader.stopped = job_pass_stopped;
	job->reader.stopped_arg = job;
	set_limits(job);
	job->reader.tasks.mechanism = tracker_choose(job->class->mechanism, &why);
	if (!job->reader.tasks.mechanism)
		return problem_set(problem, ENOTSUP, "no mechanism that class %s names works on this node: %s",
				   job->class->name, why.text);
	tell_mechanism(job, &why);
	return reader_init(&job->reader, problem);
}

static void fail_begin(struct job *job, int ret, int status, const struct problem *problem)
{
	if (ret == -EEXIST)
		status = JOB_STATUS_FAILED;
	if (job->launch.init_pidfd >= 0)
		job_kill_init(job);
	job_lease_end(job);
	log_warn("%s: not started: %s", job->id, problem->text);
	job->last_event = json_pack("{s:s, s:i, s:s}", "event", "failed", "status", status, "text",
				    problem->text);
	if (!job->reader.store || !job->reader.term.number)
		return;
	/* A program that never ran leaves nothing in the store. */
	if (status == JOB_STATUS_NOT_EXECUTABLE || status == JOB_STATUS_NOT_FOUND)
		store_retire(job->reader.store, &job->reader.term, NULL);
	else
		job_release(job);
}

static void *job_main(void *arg)
{
	struct job *job = arg;
	struct problem problem = { "" };
	enum outcome outcome = OUTCOME_GOES_ON;
	int status = JOB_STATUS_FAILED;
	int ret = 0;

	log_set_job(job->id);
	if (job->adopted)
		outcome = job_adopt_until(job);
	else
		ret = job_begin(job, &status, &problem);
	if (ret) {
		fail_begin(job, ret, status, &problem);
		job_tidy(job, OUTCOME_EXITED);
		return NULL;
	}
	if (outcome == OUTCOME_GOES_ON) {
		job_set_state(job, JOB_RUNNING);
		job->next_look_ms = clock_ms();
		job_plan_checkpoint(job);
		outcome = job_serve(job);
	}
	if (outcome != OUTCOME_LEFT)
		job_end(job, outcome);
	job_tidy(job, outcome);
	return NULL;
}

static struct job *job_new(const struct job_setup *setup, const char *id)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->setup = setup;
	snprintf(job->id, sizeof(job->id), "%s", id);
	job->caller.stdin_fd = -1;
	job->caller.pidfd = -1;
	job->root_pidfd = -1;
	job->exec_epoch_ms = INT64_MAX;
	job->launch = (struct launch){ .init_pidfd = -1, .alive_fd = -1, .status_fd = -1 };
	job->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&job->lock, NULL);
	job->events = json_array();
	job->status = json_pack("{s:s}", "job", id);
	return job;
}

static int job_start_thread(struct job *job, struct problem *problem)
{
	int err;

	snprintf(job->class_name, sizeof(job->class_name), "%s", job->class->name);
	json_object_set_new(job->status, "class", json_string(job->class_name));
	json_object_set_new(job->status, "uid", json_integer(job->caller.uid));
	err = pthread_create(&job->thread, NULL, job_main, job);
	if (err)
		return problem_set(problem, err, "cannot start the job's thread: %s", strerror(err));
	return 0;
}

static void job_free(struct job *job)
{
	caller_free(&job->caller);
	class_put(job->class);
	class_put(job->next_class);
	free(job->private);
	json_decref(job->facts);
	json_decref(job->bases);
	json_decref(job->events);
	json_decref(job->running);
	json_decref(job->status);
	if (job->root_pidfd >= 0)
		close(job->root_pidfd);
	close(job->wake_fd);
	pthread_mutex_destroy(&job->lock);
	free(job);
}

int job_create(struct job **created, const struct job_setup *setup, struct job_request *request,
	       struct problem *problem)
{
	struct job *job = job_new(setup, request->id);
	int ret;

	if (!job) {
		caller_free(&request->caller);
		json_decref(request->outputs);
		return problem_set(problem, ENOMEM, "out of memory");
	}
	job->class = class_get(request->class);
	job->private = strdup(request->class->private);
	job->caller = request->caller;
	job->merged = request->merged;
	job->warned = request->warned;
	job->facts = job_make_facts(job, request->outputs);
	json_decref(request->outputs);
	job_set_paths(job);
	ret = job_start_thread(job, problem);
	if (ret)
		job_free(job);
	else
		*created = job;
	return ret;
}

int job_adopt(struct job **adopted, const struct job_setup *setup, const struct config *config,
	      const char *id, struct problem *problem)
{
	struct job *job = job_new(setup, id);
	json_t *record = NULL;
	int ret;

	if (!job)
		return problem_set(problem, ENOMEM, "out of memory");
	job_set_paths(job);
	ret = job_read_record(job->directory, &record, &job->launch, problem);
	if (ret == -ENOENT)
		directory_remove(job->directory);
	if (ret == 0) {
		ret = job_take_record(job, config, record, problem);
		json_decref(record);
	}
	if (ret == 0)
		ret = job_start_thread(job, problem);
	if (ret) {
		launch_close(&job->launch);
		job_free(job);
	} else {
		*adopted = job;
	}
	return ret;
}

void job_set_output_bases(struct job *job, json_t *bases)
{
	pthread_mutex_lock(&job->lock);
	json_decref(job->bases);
	job->bases = bases;
	pthread_mutex_unlock(&job->lock);
}

size_t job_open_outputs(const struct job *job, int fds[2])
{
	fds[0] = open(job->stdout_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fds[0] < 0)
		return 0;
	if (job->merged)
		return 1;
	fds[1] = open(job->stderr_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fds[1] < 0 ? 1 : 2;
}

void job_destroy(struct job *job)
{
	pthread_join(job->thread, NULL);
	if (!job->left)
		directory_remove(job->directory);
	job_free(job);
}
