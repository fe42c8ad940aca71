// SPDX-License-Identifier: GPL-2.0
#include "core_image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "directory.h"
#include "image_reader.h"

#define MAGIC_CORE 0x55053847u

/* Where an address may be. */
#define LOWEST PAGE_BYTES
#define HIGHEST (1ULL << 56)

enum {
	CORE_THREAD_INFO = 2,
	CORE_TASK = 3,
	CORE_THREAD = 5,
	THREAD_INFO_CLEAR_TID = 1,
	THREAD_INFO_REGISTERS = 2,
	THREAD_ROBUST_LIST = 1,
	THREAD_DEATH_SIGNAL = 8,
	TASK_SUBREAPER = 18,
};

static int add_page(struct regions *regions, uint64_t address)
{
	address -= address % PAGE_BYTES;
	return address < LOWEST || address >= HIGHEST ? 0 : regions_add(regions, address, address + PAGE_BYTES, 0);
}

/* number 0: those of all fields. */
static int add_numbers(struct regions *regions, struct image_reader message, uint64_t number)
{
	struct image_field field;
	int ret = 0;

	while (ret == 0 && image_next(&message, &field))
		if (!number || field.number == number)
			ret = add_page(regions, field.value);
	return message.bad ? -EBADMSG : ret;
}

static int add_thread(struct regions *regions, const struct image_reader *core)
{
	struct image_reader info = image_inner(core, CORE_THREAD_INFO);
	int ret = add_numbers(regions, info, THREAD_INFO_CLEAR_TID);

	if (ret == 0)
		ret = add_numbers(regions, image_inner(&info, THREAD_INFO_REGISTERS), 0);
	if (ret == 0)
		ret = add_numbers(regions, image_inner(core, CORE_THREAD), THREAD_ROBUST_LIST);
	return ret;
}

static int read_core(const char *path, struct regions *regions, struct problem *problem)
{
	cleanup_free uint8_t *bytes = NULL;
	struct image_reader core;
	int ret = image_read(path, MAGIC_CORE, &bytes, &core, problem);

	if (ret)
		return ret;
	ret = add_thread(regions, &core);
	if (ret == -EBADMSG)
		return image_unknown(path, problem);
	return ret ? problem_set(problem, -ret, "no memory to read %s", path) : 0;
}

int core_images_pointed(const char *directory, struct regions *regions, struct problem *problem)
{
	DIR *dir = opendir(directory);
	char path[PATH_MAX];
	struct dirent *entry = NULL;
	int ret = dir ? 0 : -errno;

	while (ret == 0 && (ret = directory_next(dir, &entry)) == 0 && entry) {
		if (strncmp(entry->d_name, "core-", 5))
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		ret = read_core(path, regions, problem);
	}
	if (dir)
		closedir(dir);
	if (ret == 0)
		ret = regions_normalise(regions);
	return ret && !entry ? problem_set(problem, -ret, "cannot read %s: %s", directory, strerror(-ret)) : ret;
}

static int clear_byte(const char *path, off_t offset, struct problem *problem)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && pwrite(fd, "", 1, offset) == 1)
		return 0;
	return problem_set(problem, errno, "cannot write %s: %s", path, strerror(errno));
}

struct core_file {
	char path[PATH_MAX];
	uint8_t *bytes;
	struct image_reader core;
};

static void core_close(struct core_file *file)
{
	free(file->bytes);
}

#define cleanup_core __attribute__((cleanup(core_close)))

static int core_open(const char *directory, pid_t thread, struct core_file *file, struct problem *problem)
{
	snprintf(file->path, sizeof(file->path), "%s/core-%d.img", directory, thread);
	return image_read(file->path, MAGIC_CORE, &file->bytes, &file->core, problem);
}

/* A signal's number is one byte, and so is zero. */
int core_image_outlives_parent(const char *directory, pid_t thread, struct problem *problem)
{
	cleanup_core struct core_file file = { .bytes = NULL };
	struct image_reader entry;
	struct image_field field;
	int ret = core_open(directory, thread, &file, problem);

	if (ret)
		return ret;
	entry = image_inner(&file.core, CORE_THREAD);
	while (ret == 0 && image_next(&entry, &field))
		if (field.number == THREAD_DEATH_SIGNAL && field.value)
			ret = clear_byte(file.path, field.place - file.bytes, problem);
	return entry.bad ? image_unknown(file.path, problem) : ret;
}

int core_image_adopts(const char *directory, pid_t process, bool *adopts, struct problem *problem)
{
	cleanup_core struct core_file file = { .bytes = NULL };
	struct image_reader entry;
	struct image_field field;
	int ret = core_open(directory, process, &file, problem);

	*adopts = false;
	if (ret)
		return ret;
	entry = image_inner(&file.core, CORE_TASK);
	while (image_next(&entry, &field))
		if (field.number == TASK_SUBREAPER)
			*adopts = field.value != 0;
	return entry.bad ? image_unknown(file.path, problem) : 0;
}
