// SPDX-License-Identifier: GPL-2.0
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "aio.h"
#include "cgroup.h"
#include "cleanup.h"
#include "core_image.h"
#include "directory.h"
#include "faults.h"
#include "files.h"
#include "host.h"
#include "image_timers.h"
#include "init_spec.h"
#include "log.h"
#include "manifest.h"
#include "proc.h"
#include "thin.h"
#include "vma_image.h"
#include "wipes.h"

/* How often a job is thawed again for a moment in which it is to do what it was about to. */
#define MOST_FREEZES 20
#define MOMENT_US 5000

/* What one checkpoint holds while it is made. */
struct checkpoint {
	struct reader *reader;
	struct criu_job *criu;
	struct criu_run run;
	const struct checkpoint_options *options;
	struct checkpoint_stats *stats;
	struct problem *problem;
	struct packer *packer;
	struct job_files files;
	struct aio_rings rings;
	struct packed_file **packed;
	size_t packed_count;
	uint64_t stdout_bytes;
	uint64_t stderr_bytes;
	json_t *bases;                  /* NULL: not known */
	int64_t frozen_at;
	int64_t collected_at;
};

/* Said before the job stands still, and in better words than criu's. */
static int check_tasks(struct checkpoint *checkpoint)
{
	struct tasks *tasks = &checkpoint->reader->tasks;
	int ret = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = criu_check_task(tasks->list[i].pid, checkpoint->problem);
	if (ret == 0)
		ret = reader_look_at_programs(checkpoint->reader, checkpoint->problem);
	return ret ? ret : criu_check_tcp(checkpoint->criu, checkpoint->problem);
}

static int check_stopped(struct checkpoint *checkpoint)
{
	struct tasks *tasks = &checkpoint->reader->tasks;
	int ret = 0;

	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = criu_check_parent(checkpoint->criu, tasks->list[i].pid, checkpoint->problem) ?:
		      criu_check_stopped(tasks->list[i].pid, tasks->list[i].pidfd, checkpoint->problem);
	return ret;
}

static int sync_files(struct checkpoint *checkpoint)
{
	struct tasks *tasks = &checkpoint->reader->tasks;
	int ret = 0;

	files_free(&checkpoint->files);
	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = files_sync_task(&checkpoint->files, tasks->list[i].pid, tasks->list[i].pidfd,
				      checkpoint->problem);
	return ret;
}

static int output_size(const char *path, uint64_t *bytes, struct problem *problem)
{
	struct stat st;

	if (stat(path, &st))
		return problem_set(problem, errno, "the job's output %s is gone: %s", path,
				   strerror(errno));
	*bytes = (uint64_t)st.st_size;
	return 0;
}

static int measure_outputs(struct checkpoint *checkpoint)
{
	const struct checkpoint_options *options = checkpoint->options;
	int ret = output_size(options->stdout_path, &checkpoint->stdout_bytes, checkpoint->problem);

	if (ret == 0 && options->stderr_path)
		ret = output_size(options->stderr_path, &checkpoint->stderr_bytes,
				  checkpoint->problem);
	json_decref(checkpoint->bases);
	checkpoint->bases = options->bases(options->bases_arg);
	return ret;
}

/* CRIU's part: it saves everything but pages, and tells us which pages there are. */
static int dump(struct checkpoint *checkpoint)
{
	const struct checkpoint_options *options = checkpoint->options;
	struct pageserver_stats pages;
	struct criu_run *run = &checkpoint->run;
	struct problem waited;
	int64_t begin = clock_ms();
	int ret = criu_dump_go(run, checkpoint->criu, options->criu_timeout_ms, checkpoint->problem), served;

	if (ret)
		return ret;
	served = pageserver_serve(run->page_socket, &checkpoint->criu->version, checkpoint->reader,
				  checkpoint->packer, options->criu_timeout_ms,
				  &pages, checkpoint->problem);
	ret = criu_wait(run, checkpoint->criu, "dump.log",
			served == -ETIMEDOUT ? 0 : options->criu_timeout_ms, &waited);
	checkpoint->stats->criu_ms = clock_ms() - begin;
	checkpoint->stats->pages = pages.pages_named;
	/* When criu gave up, its own words say more than that it hung up on us. */
	if (ret && (served == 0 || served == -EPIPE || ret == -EOWNERDEAD))
		*checkpoint->problem = waited;
	if (ret == -EOWNERDEAD)
		return ret;
	if (served || ret)
		return served ? served : ret;
	ret = vma_images_check(checkpoint->criu->images, checkpoint->problem);
	if (ret == 0)
		ret = core_image_outlives_parent(checkpoint->criu->images, INIT_ROOT_PID, checkpoint->problem);
	if (ret == 0)
		ret = wipes_mend(checkpoint->criu->images, &checkpoint->criu->version, &checkpoint->reader->tasks,
				 checkpoint->reader->map, checkpoint->problem);
	return ret ? ret : image_timers_mend(checkpoint->criu->images, &checkpoint->criu->version, checkpoint->problem);
}

/* What was saved is of one moment only if nobody has thawed the job: an older init, a scheduler. */
static int check_frozen(struct checkpoint *checkpoint)
{
	if (cgroup_is_frozen(checkpoint->reader->cgroup))
		return 0;
	return problem_set(checkpoint->problem, EAGAIN, "something else thawed the job's cgroup %s while it "
			   "was saved, so nothing was committed", checkpoint->reader->cgroup);
}

/*
 * A task that waits for its vfork()ed child to execute a program: criu cannot take hold of it.  Or one whose parent has just
 * ended: it may be about to end, too.
 */
static bool some_is_in_between(struct checkpoint *checkpoint)
{
	cleanup_free pid_t *pids = NULL;
	struct problem problem;
	size_t count;
	bool some = false;

	if (cgroup_pids(checkpoint->reader->cgroup, &pids, &count, NULL))
		return false;
	for (size_t i = 0; i < count && !some; i++)
		some = proc_state(pids[i]) == 'D' || criu_check_parent(checkpoint->criu, pids[i], &problem);
	return some;
}

/* What one process of the job has just sent to another by TCP. */
static bool some_is_on_its_way(struct checkpoint *checkpoint)
{
	struct problem problem;

	return criu_check_tcp(checkpoint->criu, &problem) == 0 &&
	       checkpoint->criu->tcp == CRIU_TCP_ESTABLISHED && checkpoint->criu->tcp_moving;
}

/* Where no task is in the middle of what takes a moment only. */
static int freeze(struct checkpoint *checkpoint)
{
	const char *cgroup = checkpoint->reader->cgroup;
	int ret = cgroup_freeze(cgroup, FREEZE_TIMEOUT_MS, checkpoint->problem);

	for (int i = 0; ret == 0 && i < MOST_FREEZES &&
	     (some_is_in_between(checkpoint) || some_is_on_its_way(checkpoint)); i++) {
		ret = cgroup_thaw(cgroup, checkpoint->problem);
		usleep(MOMENT_US);
		if (ret == 0)
			ret = cgroup_freeze(cgroup, FREEZE_TIMEOUT_MS, checkpoint->problem);
	}
	return ret;
}

/* From the freeze to the point from which the job may run on: all its state is in our hands. */
static int take_frozen(struct checkpoint *checkpoint)
{
	struct pass_stats pass = { 0 };
	int ret = freeze(checkpoint);

	if (ret)
		return ret;
	checkpoint->frozen_at = checkpoint->options->frozen_at_ms ?: clock_ms();
	checkpoint->collected_at = clock_ms();
	ret = fault("checkpoint.frozen");
	if (ret == 0)
		ret = criu_check_tcp(checkpoint->criu, checkpoint->problem);
	if (ret == 0)
		ret = aio_settle(&checkpoint->rings, checkpoint->reader->cgroup, checkpoint->problem);
	if (ret == 0)
		ret = reader_pass(checkpoint->reader, checkpoint->packer, PASS_FROZEN, &pass,
				  checkpoint->problem);
	checkpoint->stats->pass_ms = pass.ms;
	if (ret == 0)
		ret = check_stopped(checkpoint);
	if (ret == 0 && checkpoint->criu->version.tracks_memory)
		tasks_clear_soft_dirty(&checkpoint->reader->tasks);
	if (ret == 0)
		ret = sync_files(checkpoint);
	if (ret == 0)
		ret = measure_outputs(checkpoint);
	if (ret == 0)
		ret = dump(checkpoint);
	if (ret == 0)
		ret = aio_check(&checkpoint->rings, checkpoint->problem);
	if (ret == 0)
		ret = check_frozen(checkpoint);
	if (ret == 0)
		ret = fault("checkpoint.dumped");
	return ret;
}

static int take_all(struct checkpoint *checkpoint)
{
	int timeout_ms = checkpoint->options->criu_timeout_ms;
	int ret = criu_dump_prepare(&checkpoint->run, checkpoint->criu, timeout_ms, checkpoint->problem);

	if (ret == 0)
		ret = fault("checkpoint.prepared");
	if (ret == 0)
		ret = take_frozen(checkpoint);
	/* Where it was waited for, it is none any more. */
	criu_dump_cancel(&checkpoint->run, checkpoint->criu, timeout_ms);
	return ret;
}

/* Its log, lock and the link to our inventory are not part of the job. */
static bool is_image(const char *name)
{
	size_t length = strlen(name);

	return length > 4 && !strcmp(name + length - 4, ".img");
}

/* Packs a file under a name, as one more of the checkpoint. */
static int pack_file(struct checkpoint *checkpoint, const char *name, int fd)
{
	struct packed_file **grown = reallocarray(checkpoint->packed, checkpoint->packed_count + 1,
						  sizeof(*grown));
	int ret;

	if (!grown)
		return problem_set(checkpoint->problem, ENOMEM, "out of memory");
	checkpoint->packed = grown;
	ret = packer_file(checkpoint->packer, name, fd, &grown[checkpoint->packed_count],
			  checkpoint->problem);
	if (ret == 0)
		checkpoint->packed_count++;
	return ret;
}

static int pack_catalog(struct checkpoint *checkpoint)
{
	cleanup_close int fd = memfd_create(CATALOG_NAME, MFD_CLOEXEC);
	cleanup_free uint8_t *bytes = NULL;
	size_t length = 0;
	int ret;

	if (!checkpoint->reader->capture)
		return 0;
	ret = catalog_pack(capture_catalog(checkpoint->reader->capture), &bytes, &length);
	if (ret == 0 && (fd < 0 || write(fd, bytes, length) != (ssize_t)length ||
			 lseek(fd, 0, SEEK_SET) != 0))
		ret = -ENOMEM;
	if (ret)
		return problem_set(checkpoint->problem, -ret, "no memory for the catalog of the captured "
				   "directories");
	return pack_file(checkpoint, CATALOG_NAME, fd);
}

static int pack_images(struct checkpoint *checkpoint)
{
	DIR *dir = opendir(checkpoint->criu->images);
	struct dirent *entry = NULL;
	int ret = dir ? 0 : -errno;

	while (ret == 0 && (ret = directory_next(dir, &entry)) == 0 && entry) {
		cleanup_close int fd = -1;

		if (!is_image(entry->d_name))
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		ret = fd < 0 ? problem_set(checkpoint->problem, errno, "cannot read CRIU's image %s: %s",
					   entry->d_name, strerror(errno))
			     : pack_file(checkpoint, entry->d_name, fd);
	}
	if (dir)
		closedir(dir);
	return ret && !entry ? problem_set(checkpoint->problem, -ret, "cannot read %s: %s", checkpoint->criu->images,
					   strerror(-ret)) : ret;
}

static json_t *meta_files(const struct job_files *files)
{
	json_t *list = json_array();

	for (size_t i = 0; i < files->count; i++)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "path", files->list[i].path, "size",
						      (json_int_t)files->list[i].size, "inode",
						      (json_int_t)files->list[i].inode));
	return list;
}

static char *make_meta(const struct checkpoint *checkpoint)
{
	json_t *meta = json_deep_copy(checkpoint->options->facts);
	char *text;

	json_object_set_new(meta, "time", json_integer(time(NULL)));
	json_object_set_new(meta, "host", host_facts());
	json_object_set_new(meta, "criu", json_string(checkpoint->criu->version.text));
	if (criu_tcp_name(checkpoint->criu->tcp))
		json_object_set_new(meta, "tcp", json_string(criu_tcp_name(checkpoint->criu->tcp)));
	json_object_set_new(meta, "mechanism",
			    json_string(checkpoint->reader->tasks.mechanism->name));
	json_object_set_new(meta, "mechanism_reason", json_string(checkpoint->options->mechanism_reason));
	json_object_set_new(meta, "pace", pace_to_json(checkpoint->options->pace));
	json_object_set_new(meta, "files", meta_files(&checkpoint->files));
	json_object_set_new(meta, "programs", programs_to_json(&checkpoint->reader->programs));
	json_object_set_new(meta, "stdout", json_integer((json_int_t)checkpoint->stdout_bytes));
	if (checkpoint->bases)
		json_object_set(meta, "bases", checkpoint->bases);
	if (checkpoint->options->stderr_path)
		json_object_set_new(meta, "stderr",
				    json_integer((json_int_t)checkpoint->stderr_bytes));
	text = json_dumps(meta, JSON_COMPACT);
	json_decref(meta);
	return text;
}

/* From here on init leaves the job frozen, should this ckptd die. */
static void mark_set(const char *path)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		log_warn("cannot make %s: %s; should ckptd die now, the job may run on for a moment behind "
			 "its final checkpoint", path, strerror(errno));
}

static int commit(struct checkpoint *checkpoint)
{
	const struct checkpoint_options *options = checkpoint->options;
	struct packer_stats packed;
	int64_t begin = clock_ms();
	struct manifest manifest = {
		.term = checkpoint->reader->term.number,
		.sequence = checkpoint->options->sequence,
		.final = checkpoint->options->final,
		.map = checkpoint->reader->map,
	};
	int ret = pack_images(checkpoint);

	if (ret == 0)
		ret = pack_catalog(checkpoint);
	if (ret)
		return ret;
	ret = packer_commit(checkpoint->packer, &packed, checkpoint->problem);
	if (ret)
		return ret;
	checkpoint->packer = NULL;
	/* With it, what was just seen of the store moves on to the next node. */
	pace_add_pass(options->pace, &(struct pace_pass){
		.begun_ms = checkpoint->collected_at, .full = true, .frozen = true, .noticed = options->final,
		.pages = packed.pages, .pages_stored = packed.pages_packed,
		.ms = (uint64_t)(checkpoint->stats->pass_ms + clock_ms() - begin),
	});
	checkpoint->stats->pages_written = packed.pages_packed;
	checkpoint->stats->bytes_written = packed.bytes_written;
	manifest.files = checkpoint->packed;
	manifest.file_count = checkpoint->packed_count;
	manifest.meta = make_meta(checkpoint);
	if (!manifest.meta)
		return problem_set(checkpoint->problem, ENOMEM, "out of memory");
	if (manifest.final)
		mark_set(checkpoint->options->mark);
	ret = manifest_commit(checkpoint->reader->store, &checkpoint->reader->term, &manifest,
			      checkpoint->stats->name, checkpoint->problem);
	if (manifest.final && ret)
		unlink(checkpoint->options->mark);
	free(manifest.meta);
	return ret;
}

static void release(struct checkpoint *checkpoint)
{
	if (checkpoint->packer)
		packer_abort(checkpoint->packer);
	for (size_t i = 0; i < checkpoint->packed_count; i++)
		packed_file_free(checkpoint->packed[i]);
	free(checkpoint->packed);
	json_decref(checkpoint->bases);
	files_free(&checkpoint->files);
	aio_free(&checkpoint->rings);
}

static void thaw(struct checkpoint *checkpoint)
{
	struct problem problem;

	if (cgroup_thaw(checkpoint->reader->cgroup, &problem))
		log_err("%s", problem.text);
	if (checkpoint->frozen_at)
		checkpoint->stats->frozen_ms = clock_ms() - checkpoint->frozen_at;
}

int checkpoint_take(struct reader *reader, struct criu_job *criu,
		    const struct checkpoint_options *options, struct checkpoint_stats *stats,
		    struct problem *problem)
{
	struct checkpoint checkpoint = { .reader = reader, .criu = criu, .options = options,
					 .stats = stats, .problem = problem };
	int ret;

	memset(stats, 0, sizeof(*stats));
	stats->final = options->final;
	problem_set(problem, 0, "stopped by a fault point");
	ret = check_tasks(&checkpoint);
	if (ret == 0)
		ret = sync_files(&checkpoint); /* most of it, before the job stands still */
	/* What is not changed stays where it is when time counts. */
	if (options->final)
		thin_unmark(reader->map);
	if (ret == 0)
		ret = packer_create(&checkpoint.packer, reader->store, &reader->term, reader->map,
				    problem);
	if (ret == 0)
		ret = take_all(&checkpoint);
	/* What criu died in runs no more: it would go on in criu's code. */
	if (ret != -EOWNERDEAD && (ret || !options->final))
		thaw(&checkpoint);
	if (ret == 0) {
		ret = commit(&checkpoint);
		if (ret && options->final)
			thaw(&checkpoint);
	}
	/* What was collected since the freeze is not durable: forgotten, so everything is dirty. */
	if (ret && checkpoint.frozen_at)
		reader_restart(reader);
	if (options->final && ret == 0)
		stats->frozen_ms = clock_ms() - checkpoint.frozen_at;
	stats->flush_ms = clock_ms() - checkpoint.frozen_at;
	stats->collected_ms = checkpoint.collected_at;
	/* Parts of the job's memory in plain: they stay only to explain a failure. */
	if (ret == 0)
		directory_remove(criu->images);
	release(&checkpoint);
	return ret;
}
