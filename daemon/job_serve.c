// SPDX-License-Identifier: GPL-2.0
#include "job_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "directory.h"
#include "faults.h"
#include "init_spec.h"
#include "log.h"

/* Time after which a failed final checkpoint is tried again. */
#define FINAL_RETRY_MS 3000
/* Until a killed job must be gone. */
#define KILL_TIMEOUT_MS 30000
#define TEXT_LOST "another node has taken over this job; the processes here were ended"
/* Time after which an epoch that failed is tried again. */
#define EPOCH_RETRY_MS 10000
/* Epochs right before a checkpoint. */
#define MOST_ROUNDS 5
/* What an exec asks for comes no closer than this to the epoch before it. */
#define SHORTEST_EPOCH_MS 1000
/* How often it is looked how far the memory of a lazily restored job has come. */
#define LAZY_TICK_MS 500
/* How often a job that has some grace is looked at. */
#define GRACE_TICK_MS 1000

static json_t *pass_status(const struct pass_stats *pass)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "pages_dirty",
			 (json_int_t)pass->pages_dirty, "pages_zero", (json_int_t)pass->packed.pages_zero,
			 "pages_same", (json_int_t)pass->packed.pages_same, "pages_written",
			 (json_int_t)pass->packed.pages_packed, "pages_moved",
			 (json_int_t)pass->packed.pages_moved, "bytes_written",
			 (json_int_t)pass->packed.bytes_written, "ms", (json_int_t)pass->ms, "frozen_ms",
			 (json_int_t)pass->frozen_ms, "full", (int)pass->full);
}

static void publish_writes(struct job *job)
{
	char text[128];

	store_describe_writes(job->reader.store, text);
	job_set_status(job, "writes", text[0] ? json_string(text) : json_null());
}

static void count_status(struct job *job, const char *key, json_int_t add)
{
	pthread_mutex_lock(&job->lock);
	json_object_set_new(job->status, key,
			    json_integer(json_integer_value(json_object_get(job->status, key)) + add));
	pthread_mutex_unlock(&job->lock);
}

/* A job that cannot be saved should hear of it at once, not when its node goes. */
static void check_protection(struct job *job)
{
	struct problem problem = { "" };
	int ret = 0;

	for (size_t i = 0; i < job->reader.tasks.count && ret == 0; i++) {
		ret = criu_check_task(job->reader.tasks.list[i].pid, &problem);
		if (ret == 0)
			ret = criu_check_parent(&job->criu, job->reader.tasks.list[i].pid, &problem);
	}
	if (ret == 0)
		ret = criu_check_tcp(&job->criu, &problem);
	if (ret == 0)
		ret = reader_look_at_programs(&job->reader, &problem);
	job_set_status(job, "unprotected", ret ? json_string(problem.text) : json_null());
	if (ret && !job->told_unprotected)
		job_note(job, "this job cannot be saved as it is: %s", problem.text);
	job->told_unprotected |= ret != 0;
}

static void clean_store(struct job *job)
{
	struct problem problem;
	uint64_t used;
	int ret = store_clean(job->reader.store, &job->reader.term, job->class->keep, job->reader.map,
			      &used, &problem);

	job->cleaned = ret == 0;
	if (ret)
		log_warn("%s: cleaning its store: %s", job->id, problem.text);
	else
		job_set_status(job, "store_bytes", json_integer((json_int_t)used));
}

static void epoch_done(struct job *job, const struct pass_stats *pass, int64_t begun)
{
	uint64_t packed = pass->packed.pages_packed;
	uint64_t moved = pass->packed.pages_moved;
	int64_t deadline_ms = 0;
	char frozen[48] = "";

	pace_add_pass(&job->pace, &(struct pace_pass){
		.begun_ms = begun, .pages = pass->pages_dirty,
		.pages_stored = packed - moved, .pages_thin = moved,
		.ms = (uint64_t)pass->full_speed_ms, .held_ms = (uint64_t)(pass->ms - pass->full_speed_ms),
		.full = pass->full, .noticed = job_noticed(job, &deadline_ms),
	});
	job_measure_memory(job);
	publish_writes(job);
	count_status(job, "epochs", 1);
	count_status(job, "bytes_written", (json_int_t)pass->packed.bytes_written);
	count_status(job, "pages_dirty_total", (json_int_t)pass->pages_dirty);
	count_status(job, "frozen_total_ms", (json_int_t)pass->frozen_ms);
	job_set_status(job, "last_epoch", pass_status(pass));
	job_set_status(job, "problem", json_null());
	if (!job->reader.tasks.mechanism->collects_while_running)
		snprintf(frozen, sizeof(frozen), ", job frozen for %lld ms", (long long)pass->frozen_ms);
	log_info("%s: epoch: %lu pages dirty, %lu written (%lu same, %lu zero, %lu moved), %.1f MiB "
		 "of %.1f MiB memory, %lld ms%s%s", job->id, pass->pages_dirty, pass->packed.pages_packed,
		 pass->packed.pages_same, pass->packed.pages_zero, moved,
		 (double)pass->packed.bytes_written / (1 << 20), (double)job_memory_kib(job) / 1024,
		 (long long)pass->ms, pass->full ? ", full" : "", frozen);
}

static void epoch_failed(struct job *job, const struct problem *problem)
{
	count_status(job, "epochs_failed", 1);
	job_set_status(job, "problem", json_string(problem->text));
	/* The next ones will fail as well; status has the reason of the last. */
	if (!job->epochs_failing++)
		log_warn("%s: epoch failed, the job runs on: %s", job->id, problem->text);
}

/* -ECANCELED: nobody needs it any more. */
static int stream_epoch(struct job *job, enum reader_cleans cleans, struct problem *problem)
{
	struct pass_stats pass;
	int64_t begun = clock_ms();
	int ret;

	job->noticed_at_ms = 0;
	job->last_epoch_ms = begun;
	job->exec_epoch_ms = INT64_MAX;
	job->reader.cleans = cleans;
	ret = reader_epoch(&job->reader, &pass, problem);
	job->reader.cleans = READER_KEEPS;
	job->next_look_ms = clock_ms() + (ret ? EPOCH_RETRY_MS : 0);
	if (ret == 0) {
		if (job->epochs_failing)
			log_info("%s: epochs succeed again, after %u that failed", job->id,
				 job->epochs_failing);
		job->epochs_failing = 0;
		epoch_done(job, &pass, begun);
		check_protection(job);
		return 0;
	}
	pace_lose(&job->pace);
	if (ret != -ECANCELED)
		epoch_failed(job, problem);
	return ret;
}

static int run_epoch(struct job *job, enum reader_cleans cleans, struct problem *problem)
{
	int ret;

	log_set_epoch(++job->epoch);
	ret = stream_epoch(job, cleans, problem);
	log_set_epoch(0);
	return ret;
}

/* Sees what is outstanding, and whether the time for an epoch has come. */
static void serve_look(struct job *job)
{
	struct problem problem;
	int64_t deadline_ms;
	uint64_t wait_ms;

	job_look(job);
	wait_ms = job_wait_ms(job);
	if (wait_ms && clock_ms() < job->exec_epoch_ms)
		job->next_look_ms = clock_ms() + (int64_t)wait_ms;
	else if (run_epoch(job, job_noticed(job, &deadline_ms) ? READER_KEEPS : READER_CLEANS, &problem) == 0 &&
		 (store_is_dirty(job->reader.store) || !job->cleaned) && !job_noticed(job, &deadline_ms))
		clean_store(job);
	job_publish_forecast(job);
}

static json_t *checkpoint_status(const struct checkpoint_stats *stats)
{
	return json_pack("{s:s, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", stats->name,
			 "final", stats->final, "rounds", (int)stats->rounds, "pages",
			 (json_int_t)stats->pages, "pages_written", (json_int_t)stats->pages_written,
			 "bytes_written", (json_int_t)stats->bytes_written, "frozen_ms",
			 (json_int_t)stats->frozen_ms, "criu_ms", (json_int_t)stats->criu_ms, "flush_ms",
			 (json_int_t)stats->flush_ms, "total_ms", (json_int_t)stats->total_ms, "time",
			 (json_int_t)time(NULL));
}

static json_t *output_bases(void *arg)
{
	struct job *job = arg;
	json_t *bases;

	pthread_mutex_lock(&job->lock);
	bases = job->bases ? json_deep_copy(job->bases) : NULL;
	pthread_mutex_unlock(&job->lock);
	return bases;
}

/* It was frozen for a final checkpoint that nobody takes any more. */
static void thaw(struct job *job)
{
	struct problem problem;

	job->frozen_at_ms = 0;
	if (cgroup_thaw(job->reader.cgroup, &problem))
		log_err("%s: %s", job->id, problem.text);
}

/*
 * Epochs right before a checkpoint, as long as they make the frozen pass smaller.  -ECANCELED: the job
 * has ended, or a notice came and a final checkpoint is to be taken instead of this one.
 */
static int run_rounds(struct job *job, bool final, unsigned int *rounds, struct problem *problem)
{
	int64_t deadline_ms;

	for (*rounds = 0; *rounds < MOST_ROUNDS && !job->frozen_at_ms; ++*rounds) {
		int ret;

		if (!final && job_noticed(job, &deadline_ms))
			return problem_set(problem, ECANCELED, "this node will be taken away: a final "
					   "checkpoint is taken instead");
		job_look(job);
		/* Without a notice the first one always helps: the job runs while it streams. */
		if ((final || *rounds) && !job_round_helps(job))
			break;
		ret = run_epoch(job, final || *rounds ? READER_KEEPS : READER_CLEANS_FOR_CHECKPOINT, problem);
		if (ret)
			return ret;
	}
	return 0;
}

static void checkpoint_failed(struct job *job, const struct checkpoint_stats *stats,
			      const struct problem *problem)
{
	/* Else it failed before anything was collected. */
	if (stats->collected_ms)
		pace_lose(&job->pace);
	count_status(job, "checkpoints_failed", 1);
	job_set_status(job, "checkpoint_problem", json_string(problem->text));
}

static void checkpoint_done(struct job *job, const struct checkpoint_stats *stats)
{
	pthread_mutex_lock(&job->lock);
	snprintf(job->checkpoint, sizeof(job->checkpoint), "%s", stats->name);
	job->checkpoint_time = time(NULL);
	job->final_done |= stats->final;
	pthread_mutex_unlock(&job->lock);
	job->frozen_ms = (uint64_t)stats->frozen_ms;
	job->rounds_ms = stats->total_ms > stats->flush_ms ? (uint64_t)(stats->total_ms - stats->flush_ms) : 0;
	pace_add_checkpoint(&job->pace,
			    (uint64_t)(clock_ms() - stats->collected_ms - stats->pass_ms),
			    stats->collected_ms);
	count_status(job, "checkpoints", 1);
	count_status(job, "bytes_written", (json_int_t)stats->bytes_written);
	count_status(job, "frozen_total_ms", (json_int_t)stats->frozen_ms);
	job_set_status(job, "last_checkpoint", checkpoint_status(stats));
	job_set_status(job, "checkpoint_problem", json_null());
	log_info("%s: %s %s committed: %lu pages, %lu written (%.1f MiB), %u epochs before, frozen %lld ms "
		 "(criu %lld ms), durable %lld ms after the freeze", job->id,
		 stats->final ? "final checkpoint" : "checkpoint", stats->name, stats->pages,
		 stats->pages_written, (double)stats->bytes_written / (1 << 20), stats->rounds,
		 (long long)stats->frozen_ms, (long long)stats->criu_ms, (long long)stats->flush_ms);
}

static int run_checkpoint(struct job *job, bool final, struct problem *problem)
{
	struct checkpoint_stats stats;
	int64_t begin = clock_ms();
	struct checkpoint_options options = {
		.final = final,
		.pace = &job->pace,
		.keep = job->class->keep,
		.criu_timeout_ms = (int)job->class->criu_timeout_ms,
		.stdout_path = job->stdout_path,
		.stderr_path = job->merged ? NULL : job->stderr_path,
		.mark = job->mark,
		.mechanism_reason = job->mechanism_reason,
		.facts = job->facts,
		.bases = output_bases,
		.bases_arg = job,
		/* Also a number that failed is used: its manifest may be there, for all one can tell. */
		.sequence = ++job->sequence,
	};
	char name[64];
	unsigned int rounds;
	int ret;

	manifest_name(name, &job->reader.term, options.sequence);
	log_set_checkpoint(name);
	job_set_state(job, JOB_CHECKPOINTING);
	stats.collected_ms = 0;
	ret = run_rounds(job, final, &rounds, problem);
	options.frozen_at_ms = job->frozen_at_ms;
	if (ret == 0)
		ret = checkpoint_take(&job->reader, &job->criu, &options, &stats, problem);
	else if (job->frozen_at_ms)
		thaw(job);
	job->frozen_at_ms = 0;
	job_set_state(job, JOB_RUNNING);
	if (ret) {
		checkpoint_failed(job, &stats, problem);
	} else {
		stats.rounds = rounds;
		stats.total_ms = clock_ms() - begin;
		checkpoint_done(job, &stats);
	}
	job->next_look_ms = clock_ms();
	job_plan_checkpoint(job);
	job_publish_forecast(job);
	if (ret == 0 && !final) {
		job_hook_committed(job, false);
		clean_store(job);
	}
	log_set_checkpoint("");
	return ret;
}

void job_kill_init(struct job *job)
{
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };

	if (job->launch.init_pidfd < 0)
		return;
	/*
	 * With its PID 1 the kernel kills the whole namespace, also what is frozen.  It must not be
	 * thawed before: the job would run on for a moment behind its final checkpoint.
	 */
	syscall(SYS_pidfd_send_signal, job->launch.init_pidfd, SIGKILL, NULL, 0);
	while (poll(&gone, 1, KILL_TIMEOUT_MS) < 0 && errno == EINTR)
		;
	if (!job_init_gone(job))
		log_err("%s: its processes do not end: they wait for a device or file server", job->id);
}

/* What init wrote of the root task's end: {"exited": N} or {"killed": N}. */
static json_t *read_exit(const struct job *job)
{
	char path[PATH_MAX], how[16];
	cleanup_fclose FILE *file = NULL;
	int value;

	snprintf(path, sizeof(path), "%s/" INIT_EXIT, job->directory);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%15s %d", how, &value) != 2)
		return NULL;
	return json_pack("{s:s, s:i}", "event", "ended", how, value);
}

/*
 * A task that is frozen, or in criu's hands, ends by nothing but SIGKILL.  By what else it ended when criu had died is
 * not the program's doing: it ran on in code that criu had put into it.
 */
static bool ended_meanwhile(struct job *job, int ret)
{
	json_t *event;
	bool killed;

	if (ret != -EOWNERDEAD)
		return job_init_gone(job);
	event = read_exit(job);
	killed = json_integer_value(json_object_get(event, "killed")) == SIGKILL;
	json_decref(event);
	return killed;
}

static enum outcome after_checkpoint(struct job *job, bool final, int ret,
				     const struct problem *problem)
{
	bool told = !strcmp(job->last_failure, problem->text);

	if (ret == 0)
		return final ? OUTCOME_INTERRUPTED : OUTCOME_GOES_ON;
	if (ret == -ESTALE)
		return OUTCOME_LOST;
	/* With the job's end everything fails. That it has ended is seen next. */
	if (ret == -ECANCELED || ended_meanwhile(job, ret))
		return OUTCOME_GOES_ON;
	snprintf(job->last_failure, sizeof(job->last_failure), "%s", problem->text);
	if (ret == -EOWNERDEAD)
		return OUTCOME_DAMAGED;
	/* A final one is tried again and again: the user is told once. */
	if (!final || !told)
		job_note(job, "%scheckpoint failed, the job runs on: %s", final ? "final " : "",
			 problem->text);
	return OUTCOME_GOES_ON;
}

/* The program is told, and has some time, if there is that much. */
static void give_notice(struct job *job)
{
	int number = class_signal(job->class->notice_signal);
	int64_t until = clock_ms() + job->class->notice_grace_ms, now;
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };

	if (job->signalled || !number)
		return;
	job->signalled = true;
	job_signal_group(job, number);
	log_info("%s: sent SIG%s; it runs on for up to %u s", job->id, job->class->notice_signal,
		 job->class->notice_grace_ms / 1000);
	while ((now = clock_ms()) < until && !job_must_save(job) &&
	       poll(&gone, 1, (int)(until - now < GRACE_TICK_MS ? until - now : GRACE_TICK_MS)) == 0)
		;
}

/* Who asked for it is told what came of it. */
static enum outcome checkpoint_and_tell(struct job *job, bool final)
{
	struct problem problem;
	int ret = run_checkpoint(job, final, &problem);

	job_post(job, json_pack("{s:s, s:s?, s:O?}", "event", "checkpoint", "error", !ret ? NULL :
				ended_meanwhile(job, ret) ? "the job has ended" : problem.text, "checkpoint",
				ret ? NULL : json_object_get(job->status, "last_checkpoint")));
	return after_checkpoint(job, final, ret, &problem);
}

static enum outcome serve_final(struct job *job)
{
	enum outcome outcome;

	give_notice(job);
	if (job_init_gone(job))
		return OUTCOME_EXITED;
	outcome = checkpoint_and_tell(job, true);
	job->next_final_ms = clock_ms() + FINAL_RETRY_MS;
	return outcome;
}

bool job_init_gone(struct job *job)
{
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };

	return gone.fd < 0 || poll(&gone, 1, 0) > 0;
}

bool job_pass_stopped(void *arg)
{
	struct job *job = arg;
	bool stop;

	pthread_mutex_lock(&job->lock);
	stop = job->want_end || job->want_leave || job->lost;
	pthread_mutex_unlock(&job->lock);
	if (stop || job_init_gone(job))
		return true;
	job_consider_freeze(job);
	return false;
}

struct wants {
	bool checkpoint, final, end, leave, lost;
};

static struct wants take_wants(struct job *job)
{
	struct wants wants;

	pthread_mutex_lock(&job->lock);
	wants = (struct wants){ job->want_checkpoint, job->want_final, job->want_end, job->want_leave,
				job->lost };
	job->want_checkpoint = false;
	pthread_mutex_unlock(&job->lock);
	return wants;
}

static void job_want_again(struct job *job, const struct wants *wants)
{
	pthread_mutex_lock(&job->lock);
	job->want_checkpoint |= wants->checkpoint;
	pthread_mutex_unlock(&job->lock);
}

/* What a task has become that executes another program is collected soon: until then nothing is known of it. */
static void take_task_events(struct job *job, const struct pollfd *wait)
{
	int64_t soon = job->last_epoch_ms + SHORTEST_EPOCH_MS;

	for (size_t i = 0; i < job->reader.tasks.count; i++) {
		if (!wait[i].revents)
			continue;
		job->reader.tasks.list[i].event_seen = true;
		if (!(wait[i].revents & POLLHUP) && soon < job->exec_epoch_ms)
			job->exec_epoch_ms = soon;
	}
}

static void watch_tasks(const struct job *job, struct pollfd *wait)
{
	for (size_t i = 0; i < job->reader.tasks.count; i++) {
		const struct task *task = &job->reader.tasks.list[i];

		wait[i].events = POLLIN;
		wait[i].fd = task->tracker && !task->event_seen ? tracker_event_fd(task->tracker) : -1;
	}
}

static void sleep_until_due(struct job *job)
{
	int64_t due = job->next_look_ms, now = clock_ms();
	cleanup_free struct pollfd *wait = calloc(3 + job->reader.tasks.count, sizeof(*wait));
	uint64_t count;

	if (job->lazy)
		due = now + LAZY_TICK_MS;
	else if (job->next_checkpoint_ms < due)
		due = job->next_checkpoint_ms;
	if (job->exec_epoch_ms < due)
		due = job->exec_epoch_ms;
	if (!wait)
		return;
	wait[0] = (struct pollfd){ .fd = job->wake_fd, .events = POLLIN };
	wait[1] = (struct pollfd){ .fd = job->launch.init_pidfd, .events = POLLIN };
	wait[2] = (struct pollfd){ .fd = job->lazy ? lazy_fd(job->lazy) : -1, .events = POLLIN };
	watch_tasks(job, wait + 3);
	if (poll(wait, 3 + job->reader.tasks.count, due > now ? (int)(due - now) : 0) <= 0)
		return;
	if (wait[0].revents && read(job->wake_fd, &count, sizeof(count)) < 0)
		log_debug("%s: woken by nothing", job->id);
	take_task_events(job, wait + 3);
}

/* The intervals are counted anew. */
static void take_class(struct job *job)
{
	if (!job_take_class(job))
		return;
	job->next_look_ms = clock_ms();
	job_plan_checkpoint(job);
}

static enum outcome serve_once(struct job *job)
{
	struct wants wants = take_wants(job);
	int64_t now = clock_ms();

	take_class(job);
	if (wants.lost)
		return OUTCOME_LOST;
	if (wants.leave)
		return OUTCOME_LEFT;
	if (job_init_gone(job))
		return job_lazy_failed(job) ? OUTCOME_DAMAGED : OUTCOME_EXITED;
	if (wants.end)
		return OUTCOME_CANCELLED;
	/* What was asked for meanwhile is done then. */
	if (!job_lazy_done(job)) {
		job_want_again(job, &wants);
		return OUTCOME_GOES_ON;
	}
	if (wants.final && (now >= job->next_final_ms || job->frozen_at_ms))
		return serve_final(job);
	if (wants.checkpoint || (!wants.final && now >= job->next_checkpoint_ms))
		return checkpoint_and_tell(job, false);
	if (now >= job->next_look_ms || now >= job->exec_epoch_ms)
		serve_look(job);
	return OUTCOME_GOES_ON;
}

enum outcome job_serve(struct job *job)
{
	enum outcome outcome;

	do {
		outcome = serve_once(job);
		if (outcome == OUTCOME_GOES_ON)
			sleep_until_due(job);
	} while (outcome == OUTCOME_GOES_ON);
	if (job->frozen_at_ms && outcome != OUTCOME_INTERRUPTED)
		thaw(job);
	job_unshare(job);
	/* The program may have ended while it was being saved: then that is what happened. */
	if (outcome == OUTCOME_CANCELLED && job_init_gone(job))
		return OUTCOME_EXITED;
	return outcome;
}

/* --- ends --- */

/*
 * What the client is told last, and only when nothing of the job is left here: it may run the same
 * line again at once.
 */
static void set_last_event(struct job *job, json_t *event)
{
	struct stat st;

	if (stat(job->stdout_path, &st) == 0)
		json_object_set_new(event, "stdout", json_integer(st.st_size));
	if (!job->merged && stat(job->stderr_path, &st) == 0)
		json_object_set_new(event, "stderr", json_integer(st.st_size));
	job->last_event = event;
}

static void set_failed(struct job *job, int status, const char *text)
{
	log_warn("%s: %s", job->id, text);
	set_last_event(job, json_pack("{s:s, s:i, s:s}", "event", "failed", "status", status, "text", text));
}

static int retire(struct job *job, struct problem *problem)
{
	int ret = 0;

	job_lease_end(job);
	/* A job that was never taken up again. */
	if (!job->reader.store)
		ret = job_open_store(job, STORE_KNOWN, problem);
	return ret ? ret : store_put_away(job->reader.store, &job->reader.term,
					  job->class->keep_after_end_ms / 1000, problem);
}

static bool has_checkpoint(struct job *job)
{
	char **names;
	size_t count;

	if (store_list_checkpoints(job->reader.store, &names, &count, NULL))
		return true;
	job_free_names(names, count);
	return count;
}

/* A scheduler that requeues the job wants its checkpoints; one that does not has them pruned. */
static bool is_still_wanted(struct job *job, const json_t *event)
{
	struct problem problem;
	bool told;

	pthread_mutex_lock(&job->lock);
	told = job->told_to_end;
	pthread_mutex_unlock(&job->lock);
	if (!told && !job_ends_from_outside((int)json_integer_value(json_object_get(event, "killed"))))
		return false;
	/* It was never taken up again. */
	if (!job->reader.store && job_open_store(job, STORE_KNOWN, &problem)) {
		log_warn("%s: %s", job->id, problem.text);
		return true;
	}
	return has_checkpoint(job);
}

static void end_exited(struct job *job)
{
	struct problem problem;
	json_t *event = read_exit(job);
	int ret;

	if (!event) {
		set_failed(job, JOB_STATUS_FAILED, "the job was killed from outside, with all its processes; "
			   "its checkpoints are kept");
		job_release(job);
		return;
	}
	if (is_still_wanted(job, event)) {
		json_object_set_new(event, "text", json_string("the program was ended from outside, so its "
				    "checkpoints are kept: the same line goes on from the last one"));
		set_last_event(job, event);
		job_release(job);
		return;
	}
	ret = retire(job, &problem);
	fault("job.retired");
	if (ret == -ESTALE) {
		json_decref(event);
		set_failed(job, JOB_STATUS_FAILED, TEXT_LOST);
		return;
	}
	if (ret) {
		log_err("%s: has ended, but its checkpoints cannot be removed: %s", job->id, problem.text);
		json_object_set_new(event, "text", json_sprintf("the job's checkpoints cannot be removed, and "
								"running it again would restore them: %s",
								problem.text));
	}
	set_last_event(job, event);
}

static void end_damaged(struct job *job)
{
	char text[sizeof(job->last_failure) + 200];

	snprintf(text, sizeof(text), "%s; the job's processes cannot be trusted after that and were ended. Run "
		 "the same line again: it %s", job->last_failure, has_checkpoint(job) ?
		 "goes on from its last checkpoint" : "begins anew, since it has no checkpoint yet");
	set_failed(job, JOB_STATUS_INTERRUPTED, text);
}

/* The next `run` of the line, here or elsewhere, need not wait for the lease to end, nor need `prune`. */
void job_release(struct job *job)
{
	struct problem problem;

	job_lease_end(job);
	if (job->reader.store && job->reader.term.number &&
	    store_release_term(job->reader.store, &job->reader.term, &problem))
		log_warn("%s: %s", job->id, problem.text);
}

static void end_gently(struct job *job)
{
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };
	int number = class_signal(job->class->end_signal);

	if (!number)
		return;
	job_signal_group(job, number);
	/* One that is stopped would not hear it. */
	job_signal_group(job, SIGCONT);
	poll(&gone, 1, (int)job->class->end_grace_ms);
}

static const char *interrupted_text(struct job *job)
{
	return !strcmp(job_final_cause(job), "notice") ?
	       "this node will be taken away; the job is saved and goes on when the same line is run on another node" :
	       "the job is saved, as was asked for, and goes on when the same line is run again";
}

void job_end(struct job *job, enum outcome outcome)
{
	switch (outcome) {
	case OUTCOME_EXITED:
		end_exited(job);
		return;
	case OUTCOME_INTERRUPTED:
		job_kill_init(job);
		fault("job.interrupted");
		job_hook_committed(job, true);
		job_release(job);
		set_last_event(job, json_pack("{s:s, s:s}", "event", "interrupted", "text", interrupted_text(job)));
		return;
	case OUTCOME_DAMAGED:
		job_kill_init(job);
		end_damaged(job);
		job_release(job);
		return;
	case OUTCOME_LOST:
		job_kill_init(job);
		set_failed(job, JOB_STATUS_FAILED, TEXT_LOST);
		return;
	default:
		end_gently(job);
		job_kill_init(job);
		set_failed(job, JOB_STATUS_FAILED, job->end_reason);
		job_release(job);
	}
}

void job_tidy(struct job *job, enum outcome outcome)
{
	lazy_free(job->lazy);
	job->lazy = NULL;
	job_hooks_end(job);
	if (outcome != OUTCOME_LEFT) {
		cgroup_remove(job->reader.cgroup);
		directory_remove(job->images);
		/* Not by the event loop: the job may have left much there. */
		directory_remove(job->private_directory);
	}
	job_lease_end(job);
	reader_free(&job->reader);
	if (job->reader.store)
		store_close(job->reader.store);
	job->reader.store = NULL;
	launch_close(&job->launch);
	job->left = outcome == OUTCOME_LEFT;
	job_set_state(job, JOB_ENDED);
	if (job->last_event)
		job_post(job, job->last_event);
	job_post(job, json_pack("{s:s}", "event", outcome == OUTCOME_LEFT ? "left" : "gone"));
}
