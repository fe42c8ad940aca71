// SPDX-License-Identifier: GPL-2.0
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "catalog.h"
#include "cleanup.h"
#include "core_image.h"
#include "directory.h"
#include "faults.h"
#include "identity.h"
#include "image.h"
#include "proc.h"
#include "programs.h"
#include "vma_image.h"

/* One unpacking: the position over all spaces. */
struct unpack {
	struct store *store;
	struct manifest *manifest;
	const char *images;
	struct lazy_plan *plan;         /* NULL: all pages now */
	struct regions pointed;         /* cannot come later */
	struct image_writer writer;
	uint32_t pages_id;
	uint64_t done;
	uint64_t all;
	restore_progress progress;
	void *arg;
	struct problem *problem;
};

#define PROGRESS_PAGES 8192

static int write_problem(const struct unpack *unpack, int err)
{
	return problem_set(unpack->problem, -err, "cannot write CRIU's images into %s: %s", unpack->images, strerror(-err));
}

static int take_page(void *arg, uint64_t address, const void *page)
{
	struct unpack *unpack = arg;
	int err;

	if (++unpack->done % PROGRESS_PAGES == 0 && unpack->progress)
		unpack->progress(unpack->arg, unpack->done, unpack->all);
	err = page ? image_page(&unpack->writer, address, page) : image_lazy_page(&unpack->writer, address);
	return err ? write_problem(unpack, err) : 0;
}

/*
 * A page that CRIU puts in place before it watches the rest of the mapping must not become a huge one, which
 * would fill what is missing with zeros.  Only where images have a parent does CRIU see to that: it gets one
 * without any pages.
 */
static int make_parent(struct unpack *unpack, const struct space *space)
{
	struct image_writer writer;
	char parent[PATH_MAX];
	int ret;

	snprintf(parent, sizeof(parent), "%s/parent", unpack->images);
	ret = directory_make(parent, unpack->problem);
	if (ret == 0)
		ret = image_open(&writer, parent, SPACE_TASK, space_id(space), unpack->pages_id + 1, unpack->problem);
	if (ret)
		return ret;
	ret = image_close(&writer);
	return ret ? problem_set(unpack->problem, -ret, "cannot write into %s: %s", parent, strerror(-ret)) : 0;
}

/* CRIU's own files are there already. */
static int plan_space(struct unpack *unpack, const struct space *space, const struct regions **later)
{
	static const struct regions none;
	struct lazy_areas *areas;
	int ret;

	*later = &none;
	if (!unpack->plan || space_kind(space) != SPACE_TASK)
		return 0;
	ret = make_parent(unpack, space);
	if (ret)
		return ret;
	areas = lazy_plan_add(unpack->plan, space_id(space));
	if (!areas)
		return problem_set(unpack->problem, ENOMEM, "no memory to plan the restore");
	*later = &areas->regions;
	return vma_image_lazy(unpack->images, space_id(space), &unpack->pointed, &areas->regions, unpack->problem);
}

static int unpack_space(struct space *space, void *arg)
{
	struct unpack *unpack = arg;
	const struct regions *later;
	int closed, ret;

	if (space_kind(space) == SPACE_FILE)
		return 0;
	ret = plan_space(unpack, space, &later);
	if (ret == 0)
		ret = image_open(&unpack->writer, unpack->images, space_kind(space), space_id(space),
				 ++unpack->pages_id, unpack->problem);
	if (ret)
		return ret;
	ret = manifest_read_space_without(unpack->store, unpack->manifest, space, later, take_page, unpack,
					  unpack->problem);
	closed = image_close(&unpack->writer);
	return ret == 0 && closed ? write_problem(unpack, closed) : ret;
}

static int count_memory(struct space *space, void *arg)
{
	uint64_t *pages = arg;

	if (space_kind(space) != SPACE_FILE)
		*pages += space_pages(space);
	return 0;
}

static int find_largest(struct space *space, void *arg)
{
	uint64_t *largest = arg;

	if (space_kind(space) != SPACE_FILE && space_pages(space) > *largest)
		*largest = space_pages(space);
	return 0;
}

static int unpack_file(struct unpack *unpack, const char *name)
{
	char path[4096];
	cleanup_close int fd = -1;

	/* Authenticated, but a name is still no path. */
	if (strchr(name, '/') || name[0] == '.')
		return problem_set(unpack->problem, EBADMSG, "the checkpoint holds a file named '%s'",
				   name);
	snprintf(path, sizeof(path), "%s/%s", unpack->images, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return problem_set(unpack->problem, errno, "cannot write %s: %s", path, strerror(errno));
	return manifest_read_file(unpack->store, unpack->manifest, name, fd, unpack->problem);
}

static int read_files(struct restore_facts *facts)
{
	json_t *list = json_object_get(facts->meta, "files");
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) {
		const char *path = json_string_value(json_object_get(entry, "path"));
		json_t *size = json_object_get(entry, "size");

		if (!path || *path != '/' || !json_is_integer(size))
			return -EBADMSG;
		if (files_add(&facts->files, path, (uint64_t)json_integer_value(size), 0, 0))
			return -ENOMEM;
		facts->files.list[i].inode = (ino_t)json_integer_value(json_object_get(entry, "inode"));
	}
	return 0;
}

int restore_read(const struct manifest *manifest, struct restore_facts *facts,
		 struct problem *problem)
{
	json_error_t error = { .text = "" };

	memset(facts, 0, sizeof(*facts));
	facts->meta = json_loads(manifest->meta, 0, &error);
	if (!json_is_object(facts->meta) || read_files(facts))
		return problem_set(problem, EBADMSG, "the checkpoint's description makes no sense: %s",
				   error.text);
	facts->stdout_bytes = (uint64_t)json_integer_value(json_object_get(facts->meta, "stdout"));
	facts->stderr_bytes = (uint64_t)json_integer_value(json_object_get(facts->meta, "stderr"));
	pagemap_for_each(manifest->map, count_memory, &facts->pages);
	pagemap_for_each(manifest->map, find_largest, &facts->largest_pages);
	return 0;
}

int restore_check_cpu(struct store *store, struct manifest *manifest, const struct criu_job *criu,
		      struct problem *problem)
{
	struct unpack unpack = { .store = store, .manifest = manifest, .images = criu->images, .problem = problem };
	size_t i = 0;
	int ret;

	while (i < manifest->file_count && strcmp(packed_file_name(manifest->files[i]), CRIU_CPU_IMAGE))
		i++;
	if (i == manifest->file_count)
		return 0;
	ret = directory_make_empty(criu->images, problem);
	if (ret == 0)
		ret = unpack_file(&unpack, CRIU_CPU_IMAGE);
	return ret ? ret : criu_check_cpu(criu->program, criu->images, problem);
}

int restore_unpack(struct store *store, struct manifest *manifest, const char *images,
		   struct lazy_plan *plan, restore_progress progress, void *arg,
		   struct problem *problem)
{
	struct unpack unpack = { .store = store, .manifest = manifest, .images = images, .plan = plan,
				 .progress = progress, .arg = arg, .problem = problem };
	int ret = directory_make_empty(images, problem);

	pagemap_for_each(manifest->map, count_memory, &unpack.all);
	for (size_t i = 0; i < manifest->file_count && ret == 0; i++)
		if (strcmp(packed_file_name(manifest->files[i]), CATALOG_NAME))
			ret = unpack_file(&unpack, packed_file_name(manifest->files[i]));
	if (ret == 0 && plan)
		ret = core_images_pointed(images, &unpack.pointed, problem);
	if (ret == 0)
		ret = pagemap_for_each(manifest->map, unpack_space, &unpack);
	regions_free(&unpack.pointed);
	return ret;
}

/* In the job's mounts, with its user's file access. */
static int put_files_back(const struct criu_job *criu, const struct restore_facts *facts, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	cleanup_close int root = proc_open_root(criu->init_pid, problem);
	int ret;

	if (root < 0)
		return root;
	ret = identity_enter_groups(&caller, criu->uid, criu->gid, criu->groups, criu->group_count);
	if (ret)
		return problem_set(problem, -ret, "cannot become user %u", criu->uid);
	ret = files_put_back(&facts->files, root, problem);
	return ret ? ret : programs_check(json_object_get(facts->meta, "programs"), root, problem);
}

int restore_run(const struct criu_job *criu, const struct restore_facts *facts, int timeout_ms,
		struct problem *problem)
{
	struct criu_run run;
	int stopped, ret = put_files_back(criu, facts, problem);

	if (ret == 0)
		ret = fault("restore.files");
	if (ret == 0)
		ret = criu_restore_start(&run, criu, problem);
	if (ret)
		return ret;
	stopped = fault("restore.criu");
	ret = criu_wait(&run, criu, "restore.log", timeout_ms, problem);
	return ret ? ret : stopped;
}

void restore_free(struct restore_facts *facts)
{
	if (facts->meta)
		json_decref(facts->meta);
	files_free(&facts->files);
	memset(facts, 0, sizeof(*facts));
}
