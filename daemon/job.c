// SPDX-License-Identifier: GPL-2.0
#include "job.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint.h"
#include "cleanup.h"
#include "directory.h"
#include "faults.h"
#include "log.h"
#include "manifest.h"
#include "proc.h"
#include "restore.h"
#include "store.h"
#include "reader.h"
#include "wire.h"

enum job_state {
	JOB_STARTING,
	JOB_RESTORING,
	JOB_ADOPTING,
	JOB_RUNNING,
	JOB_CHECKPOINTING,
	JOB_ENDED,
};

static const char *const state_names[] = {
	[JOB_STARTING] = "starting", [JOB_RESTORING] = "restoring", [JOB_ADOPTING] = "adopting",
	[JOB_RUNNING] = "running", [JOB_CHECKPOINTING] = "checkpointing", [JOB_ENDED] = "ended",
};

/* Time after which a failed final checkpoint is tried again, if the deadline allows. */
#define FINAL_RETRY_MS 3000

struct job {
	const struct job_setup *setup;
	const struct class *class;
	char id[160];
	struct caller caller;
	bool merged;
	bool adopted;

	char directory[PATH_MAX / 2];
	char images[PATH_MAX / 2 + 16];
	char stdout_path[PATH_MAX / 2 + 16];
	char stderr_path[PATH_MAX / 2 + 16];
	char parent_cgroup[PATH_MAX / 2];

	/* The thread's own. */
	pthread_t thread;
	int wake_fd;
	struct launch launch;
	struct reader reader;
	struct criu_job criu;
	json_t *facts;
	uint64_t sequence;              /* of the last checkpoint in this term */
	int64_t next_epoch_ms;
	int64_t next_checkpoint_ms;
	int64_t next_lease_ms;
	bool left;

	/* Shared, under lock. */
	pthread_mutex_t lock;
	enum job_state state;
	pid_t root_pid;                 /* here; 0: not yet */
	int root_pidfd;
	json_t *events;
	json_t *running;                /* the running event, for clients that connect later */
	json_t *status;                 /* figures for status */
	bool want_checkpoint;
	bool want_final;
	bool want_end;
	bool want_leave;
	int64_t deadline_ms;
	char end_reason[200];
};

/* --- what the loop and the thread say to each other --- */

static void job_post(struct job *job, json_t *event)
{
	uint64_t one = 1;

	pthread_mutex_lock(&job->lock);
	json_array_append_new(job->events, event);
	pthread_mutex_unlock(&job->lock);
	if (write(job->setup->event_fd, &one, sizeof(one)) < 0)
		log_err("%s: cannot wake the event loop: %s", job->id, strerror(errno));
}

__attribute__((format(printf, 2, 3))) static void job_note(struct job *job, const char *format, ...)
{
	char text[1200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_info("%s: %s", job->id, text);
	job_post(job, json_pack("{s:s, s:s}", "event", "note", "text", text));
}

static void job_set_state(struct job *job, enum job_state state)
{
	pthread_mutex_lock(&job->lock);
	job->state = state;
	pthread_mutex_unlock(&job->lock);
}

/* Steals value. */
static void job_set_status(struct job *job, const char *key, json_t *value)
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
	event = json_incref(job->running);
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

bool job_ended(struct job *job)
{
	bool ended;

	pthread_mutex_lock(&job->lock);
	ended = job->state == JOB_ENDED;
	pthread_mutex_unlock(&job->lock);
	return ended;
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

void job_want_final(struct job *job, int64_t deadline_ms)
{
	pthread_mutex_lock(&job->lock);
	if (!job->want_final || deadline_ms < job->deadline_ms)
		job->deadline_ms = deadline_ms;
	pthread_mutex_unlock(&job->lock);
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

int job_signal(struct job *job, int number)
{
	int ret;

	pthread_mutex_lock(&job->lock);
	ret = job->root_pidfd < 0 ? -ESRCH
	      : syscall(SYS_pidfd_send_signal, job->root_pidfd, number, NULL, 0) ? -errno : 0;
	pthread_mutex_unlock(&job->lock);
	return ret;
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

void job_base_directory(const struct config *config, char *path, size_t bytes)
{
	snprintf(path, bytes, "%s/jobs", config->work_dir);
}

static void set_paths(struct job *job)
{
	char base[PATH_MAX / 4];

	job_base_directory(job->setup->config, base, sizeof(base));
	snprintf(job->directory, sizeof(job->directory), "%s/%s", base, job->id);
	snprintf(job->images, sizeof(job->images), "%s/images", job->directory);
	snprintf(job->stdout_path, sizeof(job->stdout_path), "%s/stdout", job->directory);
	snprintf(job->stderr_path, sizeof(job->stderr_path), "%s/%s", job->directory,
		 job->merged ? "stdout" : "stderr");
}

static json_t *make_facts(const struct job *job, json_t *outputs)
{
	json_t *groups = json_array();

	for (size_t i = 0; i < job->caller.group_count; i++)
		json_array_append_new(groups, json_integer(job->caller.groups[i]));
	return json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:b, s:O}", "job", job->id, "class",
			 job->class->name, "uid", (int)job->caller.uid, "gid", (int)job->caller.gid,
			 "groups", groups, "command", wire_from_vector(job->caller.arguments),
			 "merged", job->merged, "outputs", outputs);
}

/* What job_adopt() needs, written when the job's processes exist. */
static int write_record(struct job *job, struct problem *problem)
{
	char path[PATH_MAX], fresh[PATH_MAX + 8], boot[40];
	uint64_t start_time = 0;
	json_t *record;
	int ret;

	snprintf(path, sizeof(path), "%s/job.json", job->directory);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	if (proc_boot_id(boot) || proc_start_time(job->launch.init_pid, &start_time))
		return problem_set(problem, ESRCH, "the job's first process is gone");
	record = json_pack("{s:O, s:s, s:i, s:I, s:s, s:s, s:I, s:O}", "facts", job->facts, "boot", boot,
			   "init_pid", job->launch.init_pid, "init_start", (json_int_t)start_time,
			   "cgroup", job->reader.cgroup, "parent_cgroup", job->parent_cgroup,
			   "term", (json_int_t)job->reader.term.number, "running", job->running);
	ret = json_dump_file(record, fresh, JSON_INDENT(1));
	json_decref(record);
	if (ret || rename(fresh, path))
		return problem_set(problem, EIO, "cannot write %s: %s", path, strerror(errno));
	return 0;
}

/* --- the store --- */

static int store_identity(const struct job *job, struct store_options *options,
			  struct problem *problem)
{
	const char *user = job->class->store_user;
	struct passwd entry, *found = NULL;
	char buffer[4096], *end;

	options->uid = job->caller.uid;
	options->gid = job->caller.gid;
	if (!user || !*user)
		return 0;
	options->uid = (uid_t)strtoul(user, &end, 10);
	if (getpwnam_r(user, &entry, buffer, sizeof(buffer), &found) == 0 && found)
		options->uid = found->pw_uid;
	else if (*end)
		return problem_set(problem, ENOENT, "store_user = %s of class %s: there is no such user on "
				   "this node", user, job->class->name);
	else if (getpwuid_r(options->uid, &entry, buffer, sizeof(buffer), &found) || !found)
		found = NULL;
	options->gid = found ? found->pw_gid : options->uid;
	return 0;
}

static int open_store(struct job *job, struct problem *problem)
{
	struct store_options options = {
		.directory = job->class->store,
		.cluster_key = job->setup->cluster_key,
		.compress = job->class->compress,
		.buffer_bytes = job->class->buffer_memory,
	};
	int ret = store_identity(job, &options, problem);

	return ret ? ret : store_open(&job->reader.store, &options, job->id, problem);
}

/* An owner that renews its lease is alive. One that does not is waited out, then its term ends. */
static int await_term(struct job *job, struct term *term, struct problem *problem)
{
	struct pollfd wake = { .fd = job->wake_fd, .events = POLLIN };
	bool told = false;
	int64_t age = -1;

	for (;;) {
		int ret = store_read_term(job->reader.store, term, problem);

		if (ret || term->number == 0 || term->released || term->age_ms >= TERM_LEASE_MS)
			return ret;
		if (age >= 0 && term->age_ms < age)
			return problem_set(problem, EBUSY, "the job %s runs on node %s; two of one job cannot "
					   "run at a time. End that one first, or use another name "
					   "(--job NAME)", job->id, term->node);
		age = term->age_ms;
		if (!told)
			job_note(job, "the job was last seen on node %s %lld s ago; waiting up to %d s to be "
				 "sure that it is gone", term->node, (long long)(age / 1000),
				 TERM_LEASE_MS / 1000);
		told = true;
		if (poll(&wake, 1, 1000) > 0 && job->want_end)
			return problem_set(problem, ECANCELED, "cancelled");
	}
}

/* --- beginnings --- */

static int make_directory(struct job *job, struct problem *problem)
{
	char base[PATH_MAX / 4];
	int ret;

	job_base_directory(job->setup->config, base, sizeof(base));
	ret = directory_make(base, problem);
	if (ret)
		return ret;
	directory_remove(job->directory);
	return directory_make(job->directory, problem);
}

/* A file of the job's user with that many bytes, which were delivered elsewhere. */
static int make_output(const struct job *job, const char *path, uint64_t bytes,
		       struct problem *problem)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || fchown(fd, job->caller.uid, job->caller.gid) || ftruncate(fd, (off_t)bytes))
		return problem_set(problem, errno, "cannot make the job's output %s: %s", path,
				   strerror(errno));
	return 0;
}

static int make_outputs(const struct job *job, uint64_t stdout_bytes, uint64_t stderr_bytes,
			struct problem *problem)
{
	int ret = make_output(job, job->stdout_path, stdout_bytes, problem);

	if (ret == 0 && !job->merged)
		ret = make_output(job, job->stderr_path, stderr_bytes, problem);
	return ret;
}

static int launch(struct job *job, enum init_mode mode, struct problem *problem)
{
	struct launch_paths paths = {
		.cgroup = job->reader.cgroup,
		.parent_cgroup = job->parent_cgroup,
		.directory = job->directory,
		.stdout_path = job->stdout_path,
		.stderr_path = job->stderr_path,
	};
	int ret = cgroup_create(job->parent_cgroup, job->id, job->reader.cgroup,
				sizeof(job->reader.cgroup), problem);

	if (ret == 0)
		ret = launch_init(&job->launch, mode, &job->caller, &paths, problem);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	return ret;
}

static int find_root(struct job *job, struct problem *problem)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;
	pid_t inner;
	int ret = cgroup_pids(job->reader.cgroup, &pids, &count, problem);

	for (size_t i = 0; i < count && ret == 0; i++) {
		if (proc_namespace_pid(pids[i], &inner) || inner != INIT_ROOT_PID)
			continue;
		pthread_mutex_lock(&job->lock);
		job->root_pid = pids[i];
		job->root_pidfd = pidfd_of(pids[i]);
		pthread_mutex_unlock(&job->lock);
		return 0;
	}
	/* A program that is quicker than we are: init reports how it ended. */
	return ret;
}

/* The job's processes stand: from here on a restarted ckptd can take it up. */
static int publish(struct job *job, bool restored, uint64_t stdout_bytes, uint64_t stderr_bytes,
		   bool cut, struct problem *problem)
{
	int ret;

	pthread_mutex_lock(&job->lock);
	job->running = json_pack("{s:s, s:b, s:I, s:I, s:b, s:b, s:O}", "event", "running", "restored",
				 restored, "stdout", (json_int_t)stdout_bytes, "stderr",
				 (json_int_t)stderr_bytes, "merged", job->merged, "cut", cut, "outputs",
				 json_object_get(job->facts, "outputs"));
	pthread_mutex_unlock(&job->lock);
	ret = write_record(job, problem);
	if (ret == 0)
		ret = find_root(job, problem);
	if (ret == 0)
		job_post(job, json_incref(job->running));
	return ret;
}

static int start_new(struct job *job, const struct term *previous, int *status,
		     struct problem *problem)
{
	int ret = store_take_term(job->reader.store, previous, job->setup->node, "",
				  &job->reader.term, problem);

	if (ret == 0)
		ret = make_directory(job, problem);
	if (ret == 0)
		ret = make_outputs(job, 0, 0, problem);
	if (ret == 0)
		ret = launch(job, INIT_START, problem);
	if (ret == 0)
		ret = launch_wait_exec(&job->launch, status, problem);
	if (ret)
		return ret;
	*status = JOB_STATUS_FAILED;
	return publish(job, false, 0, 0, false, problem);
}

static void restore_note(void *arg, uint64_t done, uint64_t all)
{
	struct job *job = arg;

	job_set_status(job, "restore_pages_done", json_integer((json_int_t)done));
	job_set_status(job, "restore_pages", json_integer((json_int_t)all));
}

/* Who ran it stays who it is, whatever the caller's groups are today. */
static int take_facts(struct job *job, const struct restore_facts *restored,
		      struct problem *problem)
{
	json_t *groups = json_object_get(restored->meta, "groups");

	if ((uid_t)json_integer_value(json_object_get(restored->meta, "uid")) != job->caller.uid)
		return problem_set(problem, EPERM, "the checkpoint is another user's");
	job->caller.gid = (gid_t)json_integer_value(json_object_get(restored->meta, "gid"));
	job->caller.group_count = 0;
	for (size_t i = 0; i < json_array_size(groups) && i < INIT_MAX_GROUPS; i++)
		job->caller.groups[job->caller.group_count++] =
			(gid_t)json_integer_value(json_array_get(groups, i));
	job->merged = json_is_true(json_object_get(restored->meta, "merged"));
	set_paths(job);
	json_object_set(job->facts, "merged", json_boolean(job->merged));
	json_object_set(job->facts, "command", json_object_get(restored->meta, "command"));
	json_object_set(job->facts, "groups", groups);
	json_object_set(job->facts, "gid", json_object_get(restored->meta, "gid"));
	json_object_set(job->facts, "outputs", json_object_get(restored->meta, "outputs"));
	return 0;
}

static void prepare_criu(struct job *job)
{
	job->criu = (struct criu_job){
		.program = job->setup->config->criu,
		.version = job->setup->criu,
		.init_pidfd = -1,
		.uid = job->caller.uid,
		.gid = job->caller.gid,
		.groups = job->caller.groups,
		.group_count = job->caller.group_count,
		.cgroup = job->reader.cgroup,
		.images = job->images,
		.ghost_limit = job->class->ghost_limit,
	};
}

/* -EBADMSG: this checkpoint is damaged and nothing has been touched. */
static int restore_from(struct job *job, const struct term *previous, const char *name,
			struct problem *problem)
{
	struct manifest *manifest;
	struct restore_facts restored;
	int64_t begin = clock_ms();
	int ret = manifest_read(job->reader.store, name, &manifest, problem);

	if (ret)
		return ret;
	ret = restore_unpack(job->reader.store, manifest, job->images, &restored, restore_note, job,
			     problem);
	if (ret) {
		manifest_free(manifest);
		return ret;
	}
	ret = take_facts(job, &restored, problem);
	if (ret == 0)
		ret = store_take_term(job->reader.store, previous, job->setup->node, name,
				      &job->reader.term, problem);
	if (ret == 0)
		ret = make_outputs(job, restored.stdout_bytes, restored.stderr_bytes, problem);
	if (ret == 0) {
		prepare_criu(job);
		ret = launch(job, INIT_RESTORE, problem);
	}
	if (ret == 0)
		ret = restore_run(&job->criu, &restored, (int)job->class->criu_timeout_ms * 4, problem);
	if (ret == 0) {
		pagemap_destroy(job->reader.map);
		job->reader.map = manifest->map;
		manifest->map = NULL;
		ret = tasks_adopt(&job->reader.tasks, job->reader.cgroup, problem);
	}
	if (ret == 0)
		ret = publish(job, true, restored.stdout_bytes, restored.stderr_bytes, !manifest->final,
			      problem);
	if (ret == 0) {
		const json_t *host = json_object_get(restored.meta, "host");

		job_set_status(job, "restore_ms", json_integer(clock_ms() - begin));
		job_note(job, "goes on from checkpoint %s (of node %s, %lld s ago); %.1f MiB read, %.1f s",
			 name, json_string_value(json_object_get(host, "node")),
			 (long long)time(NULL) -
				 json_integer_value(json_object_get(restored.meta, "time")),
			 (double)restored.pages * PAGE_BYTES / (1 << 20),
			 (double)(clock_ms() - begin) / 1000);
	}
	restore_free(&restored);
	manifest_free(manifest);
	return ret == -EBADMSG ? -EIO : ret;
}

static int restore_newest(struct job *job, const struct term *previous, char **names, size_t count,
			  struct problem *problem)
{
	int ret = -ENOENT;

	job_set_state(job, JOB_RESTORING);
	ret = make_directory(job, problem);
	if (ret)
		return ret;
	for (size_t i = 0; i < count; i++) {
		ret = restore_from(job, previous, names[i], problem);
		if (ret != -EBADMSG)
			return ret;
		if (i + 1 < count)
			job_note(job, "%s; trying the checkpoint before it", problem->text);
	}
	return ret;
}

static void free_names(char **names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

static int begin(struct job *job, int *status, struct problem *problem)
{
	struct term previous;
	char **names = NULL;
	size_t count = 0;
	int ret;

	*status = JOB_STATUS_FAILED;
	ret = cgroup_of(job->caller.pid, job->parent_cgroup, sizeof(job->parent_cgroup), problem);
	if (ret == 0)
		ret = open_store(job, problem);
	if (ret == 0)
		ret = await_term(job, &previous, problem);
	if (ret == 0)
		ret = store_list_checkpoints(job->reader.store, &names, &count, problem);
	if (ret)
		return ret;
	prepare_criu(job);
	if (count)
		ret = restore_newest(job, &previous, names, count, problem);
	else
		ret = start_new(job, &previous, status, problem);
	free_names(names, count);
	if (ret == 0 && !count)
		prepare_criu(job);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	return ret;
}

/* --- the running job --- */

static json_t *pass_status(const struct pass_stats *pass)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "pages_dirty",
			 (json_int_t)pass->pages_dirty, "pages_zero", (json_int_t)pass->packed.pages_zero,
			 "pages_same", (json_int_t)pass->packed.pages_same, "pages_written",
			 (json_int_t)pass->packed.pages_packed, "bytes_written",
			 (json_int_t)pass->packed.bytes_written, "ms", (json_int_t)pass->ms, "full",
			 (int)pass->full);
}

static uint64_t memory_kib(const struct job *job)
{
	uint64_t sum = 0, one;

	for (size_t i = 0; i < job->reader.tasks.count; i++)
		if (proc_memory_kib(job->reader.tasks.list[i].pid, &one) == 0)
			sum += one;
	return sum;
}

static void count_status(struct job *job, const char *key, json_int_t add)
{
	pthread_mutex_lock(&job->lock);
	json_object_set_new(job->status, key,
			    json_integer(json_integer_value(json_object_get(job->status, key)) + add));
	pthread_mutex_unlock(&job->lock);
}

static void run_epoch(struct job *job)
{
	struct problem problem;
	struct pass_stats pass;
	int ret = reader_epoch(&job->reader, &pass, &problem);

	job->next_epoch_ms = clock_ms() + job->class->epoch_interval_ms;
	if (ret == -ECANCELED)
		return;
	if (ret) {
		count_status(job, "epochs_failed", 1);
		job_set_status(job, "problem", json_string(problem.text));
		log_warn("%s: epoch failed, the job runs on: %s", job->id, problem.text);
		return;
	}
	count_status(job, "epochs", 1);
	count_status(job, "bytes_written", (json_int_t)pass.packed.bytes_written);
	job_set_status(job, "last_epoch", pass_status(&pass));
	job_set_status(job, "memory_kib", json_integer((json_int_t)memory_kib(job)));
	job_set_status(job, "problem", json_null());
	log_info("%s: epoch: %lu pages dirty, %lu written (%lu same, %lu zero), %.1f MiB of %.1f MiB "
		 "memory, %lld ms%s", job->id, pass.pages_dirty, pass.packed.pages_packed,
		 pass.packed.pages_same, pass.packed.pages_zero,
		 (double)pass.packed.bytes_written / (1 << 20), (double)memory_kib(job) / 1024,
		 (long long)pass.ms, pass.full ? ", full" : "");
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

static void clean_store(struct job *job)
{
	struct problem problem;
	uint64_t used;
	int ret = store_clean(job->reader.store, &job->reader.term, job->class->keep, job->reader.map,
			      &used, &problem);

	if (ret)
		log_warn("%s: cleaning its store: %s", job->id, problem.text);
	else
		job_set_status(job, "store_bytes", json_integer((json_int_t)used));
}

static int run_checkpoint(struct job *job, bool final, struct problem *problem)
{
	struct checkpoint_stats stats;
	struct checkpoint_options options = {
		.final = final,
		.deadline_ms = final ? job->deadline_ms : 0,
		.keep = job->class->keep,
		.criu_timeout_ms = (int)job->class->criu_timeout_ms,
		.stdout_path = job->stdout_path,
		.stderr_path = job->merged ? NULL : job->stderr_path,
		.facts = job->facts,
		.sequence = job->sequence + 1,
	};
	int64_t now;
	int ret;

	job_set_state(job, JOB_CHECKPOINTING);
	ret = checkpoint_take(&job->reader, &job->criu, &options, &stats, problem);
	job_set_state(job, JOB_RUNNING);
	now = clock_ms();
	job->next_checkpoint_ms = now + job->class->checkpoint_interval_ms;
	job->next_epoch_ms = now + job->class->epoch_interval_ms;
	if (ret) {
		count_status(job, "checkpoints_failed", 1);
		job_set_status(job, "problem", json_string(problem->text));
		return ret;
	}
	job->sequence++;
	count_status(job, "checkpoints", 1);
	count_status(job, "bytes_written", (json_int_t)stats.bytes_written);
	job_set_status(job, "last_checkpoint", checkpoint_status(&stats));
	job_set_status(job, "problem", json_null());
	log_info("%s: %s %s committed: %lu pages, %lu written (%.1f MiB), frozen %lld ms (criu %lld ms), "
		 "durable %lld ms after the freeze", job->id, final ? "final checkpoint" : "checkpoint",
		 stats.name, stats.pages, stats.pages_written,
		 (double)stats.bytes_written / (1 << 20), (long long)stats.frozen_ms,
		 (long long)stats.criu_ms, (long long)stats.flush_ms);
	if (!final)
		clean_store(job);
	return 0;
}

static void kill_init(struct job *job)
{
	struct problem problem;
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };

	if (job->launch.init_pidfd < 0)
		return;
	syscall(SYS_pidfd_send_signal, job->launch.init_pidfd, SIGKILL, NULL, 0);
	/* With its PID 1 the kernel kills the whole namespace, also what is frozen. */
	if (cgroup_thaw(job->reader.cgroup, &problem))
		log_warn("%s: %s", job->id, problem.text);
	while (poll(&gone, 1, 10000) < 0 && errno == EINTR)
		;
}

enum outcome {
	OUTCOME_GOES_ON,
	OUTCOME_EXITED,         /* the program ended by itself */
	OUTCOME_INTERRUPTED,    /* final checkpoint committed, the job is ended */
	OUTCOME_DAMAGED,        /* criu had to be killed: go back to the last checkpoint */
	OUTCOME_LOST,           /* another node has it */
	OUTCOME_CANCELLED,      /* its `run` is gone */
	OUTCOME_LEFT,           /* ckptd stops, the job runs on */
};

static enum outcome after_checkpoint(struct job *job, bool final, int ret,
				     const struct problem *problem)
{
	if (ret == 0)
		return final ? OUTCOME_INTERRUPTED : OUTCOME_GOES_ON;
	if (ret == -EOWNERDEAD)
		return OUTCOME_DAMAGED;
	if (ret == -ESTALE)
		return OUTCOME_LOST;
	if (ret == -ECANCELED)
		return OUTCOME_GOES_ON;
	job_note(job, "%scheckpoint failed, the job runs on: %s", final ? "final " : "", problem->text);
	return OUTCOME_GOES_ON;
}

static enum outcome serve_final(struct job *job)
{
	struct problem problem;
	enum outcome outcome = after_checkpoint(job, true, run_checkpoint(job, true, &problem),
						&problem);

	job->next_epoch_ms = clock_ms() + FINAL_RETRY_MS;
	return outcome;
}

static enum outcome serve_lease(struct job *job)
{
	struct problem problem;
	int ret = store_renew_term(job->reader.store, &job->reader.term, &problem);

	job->next_lease_ms = clock_ms() + TERM_LEASE_RENEW_MS;
	if (ret == -ESTALE)
		return OUTCOME_LOST;
	if (ret)
		log_warn("%s: cannot renew its lease in the store: %s", job->id, problem.text);
	return OUTCOME_GOES_ON;
}

/* Also true for a job that ended while no ckptd was there to see it. */
static bool init_gone(struct job *job)
{
	struct pollfd gone = { .fd = job->launch.init_pidfd, .events = POLLIN };

	return gone.fd < 0 || poll(&gone, 1, 0) > 0;
}

/* A pass over much memory ends early when nobody needs it any more. */
static bool pass_stopped(void *arg)
{
	struct job *job = arg;
	bool stop;

	pthread_mutex_lock(&job->lock);
	stop = job->want_end || job->want_leave;
	pthread_mutex_unlock(&job->lock);
	return stop || init_gone(job);
}

struct wants {
	bool checkpoint, final, end, leave;
};

static struct wants take_wants(struct job *job)
{
	struct wants wants;

	pthread_mutex_lock(&job->lock);
	wants = (struct wants){ job->want_checkpoint, job->want_final, job->want_end, job->want_leave };
	job->want_checkpoint = false;
	pthread_mutex_unlock(&job->lock);
	return wants;
}

static void sleep_until_due(struct job *job)
{
	int64_t due = job->next_epoch_ms, now = clock_ms();
	struct pollfd wait[2] = {
		{ .fd = job->wake_fd, .events = POLLIN },
		{ .fd = job->launch.init_pidfd, .events = POLLIN },
	};
	uint64_t count;

	if (job->class->checkpoint_interval_ms && job->next_checkpoint_ms < due)
		due = job->next_checkpoint_ms;
	if (job->next_lease_ms < due)
		due = job->next_lease_ms;
	if (poll(wait, 2, due > now ? (int)(due - now) : 0) > 0 && wait[0].revents &&
	    read(job->wake_fd, &count, sizeof(count)) < 0)
		log_debug("%s: woken by nothing", job->id);
}

static enum outcome serve_once(struct job *job)
{
	struct wants wants = take_wants(job);
	struct problem problem;
	int64_t now = clock_ms();

	if (wants.leave)
		return OUTCOME_LEFT;
	if (init_gone(job))
		return OUTCOME_EXITED;
	if (wants.end)
		return OUTCOME_CANCELLED;
	if (wants.final && (now >= job->next_epoch_ms || job->next_epoch_ms - now > FINAL_RETRY_MS))
		return serve_final(job);
	if (wants.checkpoint || (job->class->checkpoint_interval_ms && !wants.final &&
				 now >= job->next_checkpoint_ms)) {
		int ret = run_checkpoint(job, false, &problem);

		job_post(job, json_pack("{s:s, s:s?, s:O?}", "event", "checkpoint", "error",
					ret ? problem.text : NULL, "checkpoint",
					ret ? NULL : json_object_get(job->status, "last_checkpoint")));
		return after_checkpoint(job, false, ret, &problem);
	}
	if (now >= job->next_epoch_ms)
		run_epoch(job);
	if (now >= job->next_lease_ms)
		return serve_lease(job);
	return OUTCOME_GOES_ON;
}

static enum outcome serve(struct job *job)
{
	enum outcome outcome;

	do {
		outcome = serve_once(job);
		if (outcome == OUTCOME_GOES_ON)
			sleep_until_due(job);
	} while (outcome == OUTCOME_GOES_ON);
	/* The program may have ended while it was being saved: then that is what happened. */
	if (outcome == OUTCOME_CANCELLED && init_gone(job))
		return OUTCOME_EXITED;
	return outcome;
}

/* --- ends --- */

/* What init wrote of the root task's end: {"exited": N} or {"killed": N}. */
static json_t *read_exit(const struct job *job)
{
	char path[PATH_MAX], how[16];
	cleanup_fclose FILE *file = NULL;
	int value;

	snprintf(path, sizeof(path), "%s/exit", job->directory);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%15s %d", how, &value) != 2)
		return NULL;
	return json_pack("{s:s, s:i}", "event", "ended", how, value);
}

static void post_sizes(struct job *job, json_t *event)
{
	struct stat st;

	if (stat(job->stdout_path, &st) == 0)
		json_object_set_new(event, "stdout", json_integer(st.st_size));
	if (!job->merged && stat(job->stderr_path, &st) == 0)
		json_object_set_new(event, "stderr", json_integer(st.st_size));
	job_post(job, event);
}

static void end_exited(struct job *job)
{
	struct problem problem;
	json_t *event = read_exit(job);

	if (!event) {
		post_sizes(job, json_pack("{s:s, s:i, s:s}", "event", "failed", "status",
					  JOB_STATUS_FAILED, "text", "the job was killed from outside, with "
					  "all its processes; its checkpoints are kept"));
		return;
	}
	if (store_retire(job->reader.store, &problem)) {
		log_err("%s: has ended, but its checkpoints cannot be removed: %s", job->id, problem.text);
		json_object_set_new(event, "text", json_sprintf("the job's checkpoints cannot be removed, and "
								"running it again would restore them: %s",
								problem.text));
	}
	post_sizes(job, event);
}

static void end(struct job *job, enum outcome outcome)
{
	const char *text = NULL;
	int status = JOB_STATUS_FAILED;

	switch (outcome) {
	case OUTCOME_EXITED:
		end_exited(job);
		return;
	case OUTCOME_INTERRUPTED:
		kill_init(job);
		post_sizes(job, json_pack("{s:s, s:s}", "event", "interrupted", "text",
					  "this node will be taken away; the job is saved and goes on when the "
					  "same line is run on another node"));
		return;
	case OUTCOME_DAMAGED:
		text = "criu did not answer and was killed, so the job's processes cannot be trusted; they "
		       "were ended. Run the same line again: it goes on from the last checkpoint";
		status = JOB_STATUS_INTERRUPTED;
		break;
	case OUTCOME_LOST:
		text = "another node has taken over this job; the processes here were ended";
		break;
	default:
		text = job->end_reason;
	}
	kill_init(job);
	log_warn("%s: %s", job->id, text);
	post_sizes(job, json_pack("{s:s, s:i, s:s}", "event", "failed", "status", status, "text", text));
}

static void tidy(struct job *job, enum outcome outcome)
{
	if (outcome != OUTCOME_LEFT) {
		cgroup_remove(job->reader.cgroup);
		directory_remove(job->images);
	}
	reader_free(&job->reader);
	if (job->reader.store)
		store_close(job->reader.store);
	job->reader.store = NULL;
	launch_close(&job->launch);
	job->left = outcome == OUTCOME_LEFT;
	job_set_state(job, JOB_ENDED);
	job_post(job, json_pack("{s:s}", "event", outcome == OUTCOME_LEFT ? "left" : "gone"));
}

static int prepare(struct job *job, struct problem *problem)
{
	job->reader.stopped = pass_stopped;
	job->reader.stopped_arg = job;
	job->reader.tasks.mechanism = tracker_choose(job->class->mechanism, problem);
	if (!job->reader.tasks.mechanism)
		return -ENOTSUP;
	job_set_status(job, "mechanism", json_string(job->reader.tasks.mechanism->name));
	return reader_init(&job->reader, problem);
}

/* --- taking a job up again --- */

static int latest_map(struct job *job, struct problem *problem)
{
	struct manifest *manifest;
	char **names;
	size_t count;
	int ret = store_list_checkpoints(job->reader.store, &names, &count, problem);

	if (ret || !count)
		return ret;
	ret = manifest_read(job->reader.store, names[0], &manifest, problem);
	free_names(names, count);
	if (ret)
		return ret;
	if (manifest->term == job->reader.term.number)
		job->sequence = manifest->sequence;
	pagemap_destroy(job->reader.map);
	job->reader.map = manifest->map;
	manifest->map = NULL;
	manifest_free(manifest);
	return 0;
}

static int adopt(struct job *job, struct problem *problem)
{
	struct term term;
	int ret = criu_wait_orphan(job->images, (int)job->class->criu_timeout_ms, problem);

	if (ret)
		log_warn("%s: %s", job->id, problem->text);
	ret = cgroup_thaw(job->reader.cgroup, problem);
	if (ret == 0)
		ret = open_store(job, problem);
	if (ret == 0)
		ret = store_read_term(job->reader.store, &term, problem);
	if (ret == 0 && term.number != job->reader.term.number)
		return -ESTALE;
	if (ret == 0)
		job->reader.term = term;
	if (ret == 0 && init_gone(job))
		return -ESRCH;
	if (ret == 0)
		ret = latest_map(job, problem);
	/* The map says what was stored, the full first collect what is there. */
	if (ret == 0)
		ret = tasks_adopt(&job->reader.tasks, job->reader.cgroup, problem);
	if (ret == 0)
		ret = find_root(job, problem);
	if (ret == 0)
		log_info("%s: taken up again; its next epoch is full", job->id);
	return ret;
}

/* The store may be away for a while after a restart: the job runs on and is taken up when it is back. */
static enum outcome adopt_until(struct job *job)
{
	struct pollfd wait[2] = {
		{ .fd = job->wake_fd, .events = POLLIN },
		{ .fd = job->launch.init_pidfd, .events = POLLIN },
	};
	struct problem problem;

	for (;;) {
		int ret = adopt(job, &problem);

		if (ret == 0)
			return OUTCOME_GOES_ON;
		if (ret == -ESTALE)
			return OUTCOME_LOST;
		if (ret == -ESRCH)
			return OUTCOME_EXITED;
		log_warn("%s: cannot be taken up yet, it runs on without checkpoints: %s", job->id,
			 problem.text);
		job_set_status(job, "problem", json_string(problem.text));
		tasks_free(&job->reader.tasks);
		if (job->reader.store)
			store_close(job->reader.store);
		job->reader.store = NULL;
		poll(wait, 2, 5000);
		if (init_gone(job))
			return OUTCOME_EXITED;
		if (job->want_leave)
			return OUTCOME_LEFT;
		if (job->want_end)
			return OUTCOME_CANCELLED;
	}
}

/* --- the thread --- */

static void fail_begin(struct job *job, int ret, int status, const struct problem *problem)
{
	if (ret == -EEXIST)
		status = JOB_STATUS_FAILED;
	if (job->launch.init_pidfd >= 0)
		kill_init(job);
	log_warn("%s: not started: %s", job->id, problem->text);
	job_post(job, json_pack("{s:s, s:i, s:s}", "event", "failed", "status", status, "text",
				problem->text));
	/* A job that never ran leaves nothing in the store, or the lease would have to be waited out. */
	if (job->reader.store && job->reader.term.number && (status == JOB_STATUS_NOT_EXECUTABLE ||
							      status == JOB_STATUS_NOT_FOUND))
		store_retire(job->reader.store, NULL);
}

static void *job_main(void *arg)
{
	struct job *job = arg;
	struct problem problem = { "" };
	enum outcome outcome = OUTCOME_GOES_ON;
	int status = JOB_STATUS_FAILED;
	int ret = prepare(job, &problem);

	if (ret == 0 && job->adopted) {
		outcome = adopt_until(job);
	} else if (ret == 0) {
		ret = begin(job, &status, &problem);
	}
	if (ret) {
		fail_begin(job, ret, status, &problem);
		tidy(job, OUTCOME_EXITED);
		return NULL;
	}
	if (outcome == OUTCOME_GOES_ON) {
		job_set_state(job, JOB_RUNNING);
		job->next_epoch_ms = clock_ms();
		job->next_checkpoint_ms = clock_ms() + job->class->checkpoint_interval_ms;
		job->next_lease_ms = clock_ms() + TERM_LEASE_RENEW_MS;
		outcome = serve(job);
	}
	if (outcome != OUTCOME_LEFT)
		end(job, outcome);
	tidy(job, outcome);
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
	job->root_pidfd = -1;
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

	json_object_set_new(job->status, "class", json_string(job->class->name));
	json_object_set_new(job->status, "uid", json_integer(job->caller.uid));
	err = pthread_create(&job->thread, NULL, job_main, job);
	if (err)
		return problem_set(problem, err, "cannot start the job's thread: %s", strerror(err));
	return 0;
}

static void job_free(struct job *job)
{
	caller_free(&job->caller);
	json_decref(job->facts);
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
	job->class = request->class;
	job->caller = request->caller;
	job->merged = request->merged;
	job->facts = make_facts(job, request->outputs);
	json_decref(request->outputs);
	set_paths(job);
	ret = job_start_thread(job, problem);
	if (ret)
		job_free(job);
	else
		*created = job;
	return ret;
}

/* The record of a job that ran in this boot, or NULL; init_pidfd is -1 if it has ended. */
static json_t *read_record(const char *directory, struct launch *launch)
{
	char path[PATH_MAX], boot[40];
	uint64_t start_time;
	json_t *record;

	snprintf(path, sizeof(path), "%s/job.json", directory);
	record = json_load_file(path, 0, NULL);
	if (!record || proc_boot_id(boot) ||
	    strcmp(boot, json_string_value(json_object_get(record, "boot")) ?: "")) {
		json_decref(record);
		return NULL;
	}
	launch->init_pid = (pid_t)json_integer_value(json_object_get(record, "init_pid"));
	launch->init_pidfd = launch->init_pid > 0 ? pidfd_of(launch->init_pid) : -1;
	if (launch->init_pidfd >= 0 &&
	    proc_start_time(launch->init_pid, &start_time) == 0 &&
	    (json_int_t)start_time == json_integer_value(json_object_get(record, "init_start")))
		return record;
	/* Its number may be another's by now. */
	if (launch->init_pidfd >= 0)
		close(launch->init_pidfd);
	launch->init_pidfd = -1;
	return record;
}

static int adopt_record(struct job *job, json_t *record, struct problem *problem)
{
	const char *name;

	job->adopted = true;
	job->state = JOB_ADOPTING;
	job->facts = json_incref(json_object_get(record, "facts"));
	job->running = json_incref(json_object_get(record, "running"));
	name = json_string_value(json_object_get(job->facts, "class"));
	job->class = name ? config_class(job->setup->config, name) : NULL;
	if (!job->class)
		return problem_set(problem, ENOENT, "job %s is of class %s, which is not configured any more: "
				   "it runs on without checkpoints until the class is back and ckptd is "
				   "restarted", job->id, name ? name : "?");
	job->caller.uid = (uid_t)json_integer_value(json_object_get(job->facts, "uid"));
	job->caller.gid = (gid_t)json_integer_value(json_object_get(job->facts, "gid"));
	json_t *groups = json_object_get(job->facts, "groups");
	for (size_t i = 0; i < json_array_size(groups) && i < INIT_MAX_GROUPS; i++)
		job->caller.groups[job->caller.group_count++] =
			(gid_t)json_integer_value(json_array_get(groups, i));
	job->merged = json_is_true(json_object_get(job->facts, "merged"));
	job->reader.term.number = (uint64_t)json_integer_value(json_object_get(record, "term"));
	snprintf(job->reader.cgroup, sizeof(job->reader.cgroup), "%s",
		 json_string_value(json_object_get(record, "cgroup")));
	snprintf(job->parent_cgroup, sizeof(job->parent_cgroup), "%s",
		 json_string_value(json_object_get(record, "parent_cgroup")));
	set_paths(job);
	prepare_criu(job);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	return 0;
}

int job_adopt(struct job **adopted, const struct job_setup *setup, const char *id,
	      struct problem *problem)
{
	struct job *job = job_new(setup, id);
	json_t *record;
	int ret;

	if (!job)
		return problem_set(problem, ENOMEM, "out of memory");
	set_paths(job);
	record = read_record(job->directory, &job->launch);
	if (!record) {
		job_free(job);
		return -ENOENT;
	}
	ret = adopt_record(job, record, problem);
	json_decref(record);
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

size_t job_open_outputs(const struct job *job, int fds[2])
{
	fds[0] = open(job->stdout_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fds[0] < 0)
		return 0;
	if (job->merged)
		return 1;
	fds[1] = open(job->stderr_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fds[1] < 0 ? 1 : 2;
}

void job_destroy(struct job *job)
{
	pthread_join(job->thread, NULL);
	if (!job->left)
		directory_remove(job->directory);
	job_free(job);
}
