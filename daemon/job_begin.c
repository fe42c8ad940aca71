// SPDX-License-Identifier: GPL-2.0
#include "job_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "directory.h"
#include "faults.h"
#include "host.h"
#include "log.h"
#include "proc.h"
#include "restore.h"
#include "wire.h"

#define PROGRESS_MS 500

int job_open_store(struct job *job, enum store_use use, struct problem *problem)
{
	struct store_options options = {
		.use = use,
		.uid = job->caller.uid,
		.gid = job->caller.gid,
		.directory = job->class->store,
		.keys = &job->setup->keys,
		.compress = job->class->compress,
		.seal = job->class->seal,
		.buffer_bytes = job->class->buffer_memory,
	};
	int ret = class_store_identity(job->class, &options.uid, &options.gid, problem);

	return ret ? ret : store_open(&job->reader.store, &options, job->id, problem);
}

/* An owner that renews its lease is alive. One that does not is waited out, then its term ends. */
static int await_term(struct job *job, struct term *term, struct problem *problem)
{
	struct pollfd wake = { .fd = job->wake_fd, .events = POLLIN };
	bool told = false;
	int64_t age = -1;
	uint64_t keep_s;

	for (;;) {
		int ret = store_read_term(job->reader.store, term, problem);

		if (ret || term->number == 0 || term->released || term->age_ms >= TERM_LEASE_MS ||
		    term_ended(term, &keep_s))
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

	job_base_directory(job->setup->work_dir, base, sizeof(base));
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

static int launch(struct job *job, enum init_mode mode, int pages_fd, struct problem *problem)
{
	struct launch_paths paths = {
		.pages_fd = pages_fd,
		.private = job->private,
		.cgroup = job->reader.cgroup,
		.parent_cgroup = job->parent_cgroup,
		.directory = job->directory,
		.stdout_path = job->stdout_path,
		.stderr_path = job->stderr_path,
	};
	int ret = cgroup_create(job->parent_cgroup, job->id, job->reader.cgroup,
				sizeof(job->reader.cgroup), problem);

	if (ret == 0)
		ret = job_make_private(job, problem);
	if (ret == 0)
		ret = launch_init(&job->launch, mode, &job->caller, &paths, problem);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	if (ret == 0 && (ret = fault("job.launched")))
		problem_set(problem, -ret, "stopped by a fault point");
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

/* What was restored ran on at once, and may have come to its end: init has written how, and is gone. */
static bool has_ended(const struct job *job)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" INIT_EXIT, job->directory);
	return access(path, F_OK) == 0;
}

/*
 * The job's processes stand: from here on a restarted ckptd can take it up, and its program may run.
 * meta: of the checkpoint that it was restored from; NULL: it is new.  cut: the job went on behind that
 * checkpoint, and will write again what it wrote since.
 */
static int confirm(struct job *job, const json_t *meta, bool cut, struct problem *problem)
{
	int ret;

	pthread_mutex_lock(&job->lock);
	job->running = json_pack("{s:s, s:b, s:I, s:I, s:b, s:b, s:O?, s:O?}", "event", "running",
				 "restored", meta != NULL, "stdout",
				 json_integer_value(json_object_get(meta, "stdout")), "stderr",
				 json_integer_value(json_object_get(meta, "stderr")), "merged",
				 job->merged, "cut", cut, "outputs", json_object_get(meta, "outputs"),
				 "bases", json_object_get(meta, "bases"));
	pthread_mutex_unlock(&job->lock);
	ret = job_write_record(job, problem);
	if (ret == 0 && (ret = fault("job.recorded")))
		problem_set(problem, -ret, "stopped by a fault point");
	if (ret == 0)
		ret = launch_confirm(&job->launch, problem);
	return ret == -EPIPE && has_ended(job) ? 0 : ret;
}

static int announce(struct job *job, struct problem *problem)
{
	int ret = find_root(job, problem);

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
		ret = job_lease_begin(job, problem);
	if (ret == 0)
		ret = make_directory(job, problem);
	if (ret == 0)
		ret = make_outputs(job, 0, 0, problem);
	if (ret == 0)
		ret = launch(job, INIT_START, -1, problem);
	if (ret == 0)
		ret = job_start_capture(job, NULL, problem);
	if (ret == 0)
		ret = confirm(job, NULL, false, problem);
	if (ret == 0)
		ret = launch_wait_exec(&job->launch, status, problem);
	if (ret)
		return ret;
	*status = JOB_STATUS_FAILED;
	return announce(job, problem);
}

/* Not more often than somebody can read it. */
static void post_progress(struct job *job, uint64_t done, uint64_t all)
{
	int64_t now_ms = clock_ms();

	if (now_ms - job->progress_ms < PROGRESS_MS)
		return;
	job->progress_ms = now_ms;
	job_post(job, json_pack("{s:s, s:I, s:I, s:I}", "event", "progress", "done",
				(json_int_t)(done * PAGE_BYTES), "all", (json_int_t)(all * PAGE_BYTES), "ms",
				(json_int_t)(now_ms - job->restore_begun_ms)));
}

static void restore_note(void *arg, uint64_t done, uint64_t all)
{
	struct job *job = arg;

	post_progress(job, done, all);
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
	job_set_paths(job);
	json_object_set(job->facts, "merged", json_boolean(job->merged));
	json_object_set(job->facts, "command", json_object_get(restored->meta, "command"));
	json_object_set(job->facts, "groups", groups);
	json_object_set(job->facts, "gid", json_object_get(restored->meta, "gid"));
	json_object_set(job->facts, "cwd", json_object_get(restored->meta, "cwd"));
	free(job->caller.cwd);
	job->caller.cwd = wire_to_bytes(json_object_get(restored->meta, "cwd"));
	free(job->private);
	job->private = strdup(json_string_value(json_object_get(restored->meta, "private")) ?: "none");
	json_object_set_new(job->facts, "private", json_string(job->private));
	pace_from_json(&job->pace, json_object_get(restored->meta, "pace"));
	job->checkpoint_time = json_integer_value(json_object_get(restored->meta, "time"));
	if (!job->caller.cwd || !job->private)
		return problem_set(problem, EBADMSG, "the checkpoint does not say the working directory");
	return 0;
}

static void prepare_criu(struct job *job)
{
	job->criu = (struct criu_job){
		.program = job->setup->criu_program,
		.version = job->setup->criu,
		.init_pidfd = -1,
		.uid = job->caller.uid,
		.gid = job->caller.gid,
		.groups = job->caller.groups,
		.group_count = job->caller.group_count,
		.cgroup = job->reader.cgroup,
		.images = job->images,
		.ghost_limit = job->class->ghost_limit,
		.caller = job->caller.pid,
	};
	tcp_policy_parse(job->class->tcp, &job->criu.tcp_policy);
}

static struct hook_call *restore_hook(struct job *job, enum hook hook, const struct restore_facts *facts)
{
	struct hook_call *call = job_hook_call(job, hook);
	const json_t *host = json_object_get(facts->meta, "host");

	if (call)
		hook_call_set(call, "CKPT_OLD_NODE", "%s",
			      json_string_value(json_object_get(host, "node")) ?: "");
	return call;
}

static void restore_done(struct job *job, const char *name, const struct restore_facts *restored,
			 int64_t ms)
{
	const json_t *host = json_object_get(restored->meta, "host");
	long long age_s = (long long)time(NULL) - json_integer_value(json_object_get(restored->meta, "time"));
	char age[64];

	snprintf(age, sizeof(age), age_s < 0 ? "whose clock is %lld s ahead" : "%lld s ago", llabs(age_s));
	job_set_status(job, "restore_ms", json_integer(ms));
	job_hook_start(job, restore_hook(job, HOOK_POST_RESTORE, restored));
	job_note(job, "goes on from checkpoint %s (of node %s, %s); %.1f MiB %s, %.1f s", name,
		 json_string_value(json_object_get(host, "node")), age,
		 (double)restored->pages * PAGE_BYTES / (1 << 20), job->lazy ? "come while it runs" : "read",
		 (double)ms / 1000);
}

/* plan, watch_fd: of a lazy restore; else NULL, -1. */
static int restore_processes(struct job *job, struct manifest *manifest, const struct restore_facts *restored,
			     const struct lazy_plan *plan, int watch_fd, struct problem *problem)
{
	int ret;

	if (plan)
		ret = job_restore_lazily(job, plan, manifest->map, watch_fd, restored, problem);
	else
		ret = restore_run(&job->criu, restored, (int)job->class->criu_timeout_ms * 4, problem);
	if (ret)
		return ret;
	pagemap_destroy(job->reader.map);
	job->reader.map = manifest->map;
	manifest->map = NULL;
	/* What is missing is not to be tracked yet. */
	return plan ? 0 : tasks_adopt(&job->reader.tasks, job->reader.cgroup, problem);
}

/* The job as it was: its files, and then its processes. */
static int restore_job(struct job *job, struct manifest *manifest, const struct restore_facts *restored,
		       enum criu_tcp tcp, const struct lazy_plan *plan, struct problem *problem)
{
	struct catalog catalog = { 0 };
	int watch[2] = { -1, -1 };
	int ret = 0;

	prepare_criu(job);
	job->criu.tcp = tcp;
	if (plan && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, watch))
		ret = problem_set(problem, errno, "cannot make a socket pair: %s", strerror(errno));
	if (ret == 0)
		ret = launch(job, INIT_RESTORE, watch[0], problem);
	if (watch[0] >= 0)
		close(watch[0]);
	if (ret == 0)
		ret = job_put_files_back(job, manifest, &catalog, problem);
	if (ret == 0)
		ret = restore_processes(job, manifest, restored, plan, take_fd(watch[1]), problem);
	if (watch[1] >= 0)
		close(watch[1]);
	if (ret == 0)
		ret = job_start_capture(job, &catalog, problem);
	catalog_clear(&catalog);
	return ret;
}

static int check_host(struct job *job, const struct restore_facts *restored, struct problem *problem)
{
	char warning[HOST_WARNING];
	int ret = host_check(json_object_get(restored->meta, "host"), restored->largest_pages * (PAGE_BYTES / 1024), warning,
			     problem);

	if (ret == 0 && *warning)
		job_note(job, "this node is another kind than the one before: %s", warning);
	return ret;
}

/*
 * -EBADMSG: this checkpoint is damaged and no process has been made.  If the damage is in a captured
 * file, the term has been taken: the next one is to be taken after it.
 */
static int restore_from(struct job *job, struct term *previous, const char *name,
			struct problem *problem)
{
	struct manifest *manifest;
	struct restore_facts restored;
	struct lazy_plan plan = { 0 };
	bool lazy = job_restores_lazily(job, previous, name);
	/* Then it went on behind that checkpoint, even if that was to be the end. */
	bool again = !strcmp(previous->base, name);
	enum criu_tcp tcp;
	int64_t begin = job->restore_begun_ms = clock_ms();
	int ret = manifest_read(job->reader.store, name, &manifest, problem);

	if (ret)
		return ret;
	ret = restore_read(manifest, &restored, problem);
	if (ret == 0)
		ret = check_host(job, &restored, problem);
	if (ret == 0)
		ret = restore_check_cpu(job->reader.store, manifest, &job->criu, problem);
	if (ret == 0)
		ret = criu_tcp_parse(json_string_value(json_object_get(restored.meta, "tcp")), &job->setup->criu,
				     &tcp, problem);
	if (ret == 0)
		ret = restore_unpack(job->reader.store, manifest, job->images, lazy ? &plan : NULL, restore_note,
				     job, problem);
	if (ret) {
		lazy_plan_free(&plan);
		restore_free(&restored);
		manifest_free(manifest);
		return ret;
	}
	ret = take_facts(job, &restored, problem);
	snprintf(job->checkpoint, sizeof(job->checkpoint), "%s", name);
	if (ret == 0)
		ret = store_take_term(job->reader.store, previous, job->setup->node, name,
				      &job->reader.term, problem);
	if (ret == 0)
		ret = job_lease_begin(job, problem);
	/* The job is this node's from here on, and nobody else runs the hook. */
	if (ret == 0)
		ret = job_hook_wait(restore_hook(job, HOOK_PRE_RESTORE, &restored), problem);
	if (ret == 0)
		ret = make_outputs(job, restored.stdout_bytes, restored.stderr_bytes, problem);
	if (ret == 0)
		ret = restore_job(job, manifest, &restored, tcp, lazy ? &plan : NULL, problem);
	lazy_plan_free(&plan);
	/* The job's memory in plain. */
	if (ret == 0)
		directory_remove(job->images);
	if (ret == 0)
		ret = confirm(job, restored.meta, again || !manifest->final, problem);
	if (ret == 0)
		ret = announce(job, problem);
	if (ret == 0)
		restore_done(job, name, &restored, clock_ms() - begin);
	if (ret == -EBADMSG && job->reader.term.number) {
		job_lease_end(job);
		job_kill_init(job);
		launch_close(&job->launch);
		*previous = job->reader.term;
	}
	restore_free(&restored);
	manifest_free(manifest);
	return ret;
}

static int restore_newest(struct job *job, struct term *previous, char **names, size_t count,
			  struct problem *problem)
{
	struct problem damage;
	int ret;

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
	damage = *problem;
	return problem_set(problem, EBADMSG, "%s. No checkpoint before it is left: put the file back from a "
			   "backup, or begin anew under another name (--job NAME)", damage.text);
}

void job_free_names(char **names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

int job_begin(struct job *job, int *status, struct problem *problem)
{
	struct term previous;
	char **names = NULL;
	size_t count = 0;
	int ret;

	*status = JOB_STATUS_FAILED;
	ret = job_prepare(job, problem);
	if (ret == 0)
		ret = cgroup_of(job->caller.pid, job->parent_cgroup, sizeof(job->parent_cgroup), problem);
	if (ret == 0)
		ret = caller_check(&job->caller, problem);
	if (ret == 0)
		ret = job_open_store(job, STORE_MAKE, problem);
	if (ret == 0)
		ret = await_term(job, &previous, problem);
	if (ret == 0 && previous.damaged)
		job_note(job, "%s", problem->text);
	if (ret == 0)
		ret = store_list_checkpoints(job->reader.store, &names, &count, problem);
	/* Whoever cleans the store then sees that this job is not given up. */
	if (ret == 0 && count)
		ret = store_renew_term(job->reader.store, &previous, problem);
	if (ret) {
		job_free_names(names, count);
		return ret;
	}
	prepare_criu(job);
	if (count)
		ret = restore_newest(job, &previous, names, count, problem);
	else
		ret = start_new(job, &previous, status, problem);
	job_free_names(names, count);
	if (ret == -EAGAIN)
		*status = JOB_STATUS_INTERRUPTED;
	/* Nobody runs it: the next one need not wait for the lease that was renewed above. */
	if (ret && count && !job->reader.term.number)
		store_release_term(job->reader.store, &previous, NULL);
	if (ret == 0 && !count)
		prepare_criu(job);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	return ret;
}

/* --- taking a job up again --- */

static int take_map(struct job *job, const char *name, struct problem *problem)
{
	struct manifest *manifest;
	json_t *meta;
	int ret = manifest_read(job->reader.store, name, &manifest, problem);

	if (ret)
		return ret;
	/* ckptd died between the commit and the end of the job. */
	if (manifest->final && manifest->term == job->reader.term.number)
		ret = -EALREADY;
	pagemap_destroy(job->reader.map);
	job->reader.map = manifest->map;
	manifest->map = NULL;
	meta = json_loads(manifest->meta, 0, NULL);
	pace_from_json(&job->pace, json_object_get(meta, "pace"));
	json_decref(meta);
	manifest_free(manifest);
	return ret;
}

static int latest_map(struct job *job, struct problem *problem)
{
	char **names;
	size_t count;
	uint64_t term;
	int ret = store_list_checkpoints(job->reader.store, &names, &count, problem);

	if (ret)
		return ret;
	for (size_t i = 0; i < count; i++) {
		ret = take_map(job, names[i], problem);
		if (ret != -EBADMSG)
			break;
		log_warn("%s: %s", job->id, problem->text);
	}
	/* Numbers are not used again, also those of what is damaged. */
	if (count && manifest_parse_name(names[0], &term, &job->sequence) == 0 &&
	    term != job->reader.term.number)
		job->sequence = 0;
	job_free_names(names, count);
	return ret == -EBADMSG ? 0 : ret;
}

#define ORPHAN_TIMEOUT_MS 60000

/* Whatever else there is to say of it, the job runs, unless it must not: see init_spec.h. */
static int adopt_processes(struct job *job, bool committing, struct problem *problem)
{
	int ret = criu_wait_orphan(job->images, ORPHAN_TIMEOUT_MS, problem);

	if (ret)
		log_warn("%s: %s", job->id, problem->text);
	ret = 0;
	if (job->launch.alive_fd < 0 && !job_init_gone(job))
		ret = launch_adopt(&job->launch, job->directory, problem);
	if (job_init_gone(job))
		return 0;
	if (ret == 0 && !committing)
		ret = cgroup_thaw(job->reader.cgroup, problem);
	if (ret == 0 && !job->root_pid)
		ret = find_root(job, problem);
	return ret;
}

static int adopt_term(struct job *job, struct problem *problem)
{
	struct term term;
	uint64_t keep_s;
	int ret = store_read_term(job->reader.store, &term, problem);

	if (ret)
		return ret;
	/* ckptd died when it had put away what the job left. */
	if (term.number == job->reader.term.number + 1 && term_ended(&term, &keep_s) && job_init_gone(job))
		return -ESRCH;
	if (!term.number)
		return problem_set(problem, ENOENT, "the store %s does not know this job: its checkpoints "
				   "were removed, or another store is mounted there", job->class->store);
	if (term.number != job->reader.term.number)
		return -ESTALE;
	if (term.damaged)
		job_note(job, "%s", problem->text);
	job->reader.term = term;
	return job_lease_begin(job, problem);
}

static int adopt_store(struct job *job, struct problem *problem)
{
	int ret;

	prepare_criu(job);
	job->criu.init_pid = job->launch.init_pid;
	job->criu.init_pidfd = job->launch.init_pidfd;
	ret = job_prepare(job, problem);
	if (ret == 0)
		ret = job_open_store(job, STORE_KNOWN, problem);
	if (ret)
		return ret;
	ret = adopt_term(job, problem);
	if (ret == 0)
		ret = latest_map(job, problem);
	/* A job that has ended may have been interrupted, or its checkpoints may have been removed. */
	if (ret != -EALREADY && ret != -ESTALE && job_init_gone(job))
		return -ESRCH;
	return ret ? ret : job_start_capture(job, NULL, problem);
}

static int adopt(struct job *job, struct problem *problem)
{
	bool committing = access(job->mark, F_OK) == 0;
	int ret = adopt_processes(job, committing, problem);

	if (ret == 0)
		ret = adopt_store(job, problem);
	/* The final checkpoint was not committed. */
	if (ret == 0 && committing && unlink(job->mark))
		ret = problem_set(problem, errno, "cannot remove %s: %s", job->mark, strerror(errno));
	if (ret == 0 && committing)
		ret = cgroup_thaw(job->reader.cgroup, problem);
	if (ret == 0)
		ret = job_adopt_lazy(job, problem);
	/* The map says what was stored, the full first collect what is there. */
	if (ret == 0 && !job->lazy)
		ret = tasks_adopt(&job->reader.tasks, job->reader.cgroup, problem);
	if (ret == 0)
		log_info("%s: taken up again; its next epoch is full", job->id);
	return ret;
}

/* The store may be away for a while after a restart: the job runs on and is taken up when it is back. */
enum outcome job_adopt_until(struct job *job)
{
	struct pollfd wait[2] = {
		{ .fd = job->wake_fd, .events = POLLIN },
		{ .fd = job->launch.init_pidfd, .events = POLLIN },
	};
	struct problem problem, told = { "" };

	for (;;) {
		int ret = adopt(job, &problem);

		if (ret == 0)
			return OUTCOME_GOES_ON;
		if (ret == -ESTALE)
			return OUTCOME_LOST;
		if (ret == -ESRCH)
			return job_adopt_lazy(job, &problem) == 0 && job_lazy_failed(job) ? OUTCOME_DAMAGED :
											    OUTCOME_EXITED;
		if (ret == -EALREADY)
			return OUTCOME_INTERRUPTED;
		if (strcmp(told.text, problem.text))
			job_note(job, "ckptd is back but cannot take the job up yet, which %s: %s",
				 access(job->mark, F_OK) ? "runs on without checkpoints" : "stands still, "
				 "since its final checkpoint may be committed", problem.text);
		told = problem;
		job_set_status(job, "problem", json_string(problem.text));
		tasks_free(&job->reader.tasks);
		job_lease_end(job);
		if (job->reader.store)
			store_close(job->reader.store);
		job->reader.store = NULL;
		poll(wait, 2, 5000);
		if (job_init_gone(job))
			return OUTCOME_EXITED;
		if (job->want_leave)
			return OUTCOME_LEFT;
		if (job->want_end)
			return OUTCOME_CANCELLED;
	}
}
