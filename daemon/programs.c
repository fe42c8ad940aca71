// SPDX-License-Identifier: GPL-2.0
#include "programs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include "cleanup.h"
#include "files.h"
#include "proc.h"

#define READ_BYTES (256u << 10)

static int64_t modified_ns(const struct stat *st)
{
	return st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
}

static void hash_end(XXH3_state_t *state, XXH128_hash_t *hash)
{
	*hash = XXH3_128bits_digest(state);
	XXH3_freeState(state);
}

static int hash_file(int fd, XXH128_hash_t *hash)
{
	cleanup_free uint8_t *buffer = malloc(READ_BYTES);
	XXH3_state_t *state = XXH3_createState();
	ssize_t got = buffer && state ? 1 : -1;

	if (got < 0) {
		XXH3_freeState(state);
		return -ENOMEM;
	}
	XXH3_128bits_reset(state);
	while (got > 0 || (got < 0 && errno == EINTR)) {
		got = read(fd, buffer, READ_BYTES);
		if (got > 0)
			XXH3_128bits_update(state, buffer, (size_t)got);
	}
	hash_end(state, hash);
	return got ? -EIO : 0;
}

/* ---- what is in use ---- */

void programs_begin(struct programs *programs)
{
	size_t kept = 0;

	for (size_t i = 0; i < programs->count; i++) {
		struct program *program = &programs->list[i];

		if (!program->used) {
			free(program->path);
			continue;
		}
		program->used = false;
		programs->list[kept++] = *program;
	}
	programs->count = kept;
}

void programs_free(struct programs *programs)
{
	for (size_t i = 0; i < programs->count; i++)
		free(programs->list[i].path);
	free(programs->list);
	*programs = (struct programs){ 0 };
}

static struct program *programs_find(struct programs *programs, const char *path, dev_t device, ino_t inode)
{
	for (size_t i = 0; i < programs->count; i++) {
		struct program *program = &programs->list[i];

		if (program->inode == inode && program->device == device && !strcmp(program->path, path))
			return program;
	}
	return NULL;
}

static struct program *programs_grow(struct programs *programs, const char *path)
{
	struct program *grown = programs->list;

	if (programs->count == programs->space) {
		programs->space = programs->space ? programs->space * 2 : 32;
		grown = reallocarray(grown, programs->space, sizeof(*grown));
		if (!grown)
			return NULL;
		programs->list = grown;
	}
	grown += programs->count;
	*grown = (struct program){ .path = strdup(path) };
	programs->count += grown->path != NULL;
	return grown->path ? grown : NULL;
}

/* Of a file without a name CRIU saves the content. */
static int programs_add(struct programs *programs, const char *path, int fd, struct problem *problem)
{
	struct program *program;
	XXH128_hash_t hash;
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink == 0)
		return 0;
	program = programs_find(programs, path, st.st_dev, st.st_ino);
	if (program && program->size == (uint64_t)st.st_size && program->modified_ns == modified_ns(&st)) {
		program->used = true;
		return 0;
	}
	if (hash_file(fd, &hash))
		return 0;
	program = program ?: programs_grow(programs, path);
	if (!program)
		return problem_set(problem, ENOMEM, "out of memory");
	*program = (struct program){ .path = program->path, .size = (uint64_t)st.st_size, .modified_ns = modified_ns(&st),
				     .low = hash.low64, .high = hash.high64, .device = st.st_dev, .inode = st.st_ino,
				     .used = true };
	return 0;
}

/* Of a line of its maps. One that its user may not open is not compared. */
static int add_mapping(struct programs *programs, pid_t pid, const char *line, struct problem *problem)
{
	cleanup_close int fd = -1;
	unsigned long start, end, inode;
	unsigned int major, minor;
	const struct program *known;
	char mode[8], path[PATH_MAX];

	if (sscanf(line, "%lx-%lx %7s %*s %x:%x %lu %4095[^\n]", &start, &end, mode, &major, &minor, &inode, path) != 7 ||
	    mode[2] != 'x' || *path != '/')
		return 0;
	/* Of another task, a moment ago. */
	known = programs_find(programs, path, makedev(major, minor), inode);
	if (known && known->used)
		return 0;
	fd = files_open_mapping(pid, start, end);
	if (fd >= 0)
		return programs_add(programs, path, fd, problem);
	return fd == -ENOENT ? 0 : problem_set(problem, -fd, "cannot look at %s, which the job runs: %s", path, strerror(-fd));
}

int programs_add_task(struct programs *programs, pid_t pid, struct problem *problem)
{
	char line[PATH_MAX + 128];
	cleanup_fclose FILE *maps = NULL;
	int ret = proc_file(pid, "maps", &maps);

	while (maps && fgets(line, sizeof(line), maps)) {
		ret = add_mapping(programs, pid, line, problem);
		if (ret)
			return ret;
	}
	ret = ret ?: proc_file_end(maps);
	return ret ? problem_set(problem, -ret, "cannot look at the mappings of process %d: %s", pid, strerror(-ret)) : 0;
}

/* ---- in a checkpoint ---- */

json_t *programs_to_json(const struct programs *programs)
{
	json_t *list = json_array();

	for (size_t i = 0; i < programs->count; i++) {
		const struct program *program = &programs->list[i];

		if (program->used)
			json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "path", program->path, "size",
							      (json_int_t)program->size, "modified",
							      (json_int_t)program->modified_ns, "low",
							      (json_int_t)program->low, "high", (json_int_t)program->high));
	}
	return list;
}

static int check_one(const json_t *program, int root, struct problem *problem)
{
	const char *path = json_string_value(json_object_get(program, "path"));
	struct open_how how = { .flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	cleanup_close int fd = path ? (int)syscall(SYS_openat2, root, path, &how, sizeof(how)) : -1;
	XXH128_hash_t hash;
	struct stat st;

	/* CRIU says of what is missing. */
	if (fd < 0 || fstat(fd, &st))
		return 0;
	if (st.st_size == json_integer_value(json_object_get(program, "size"))) {
		if (modified_ns(&st) == json_integer_value(json_object_get(program, "modified")))
			return 0;
		if (hash_file(fd, &hash))
			return problem_set(problem, EIO, "cannot read %s, which the job executes", path);
		if (hash.low64 == (uint64_t)json_integer_value(json_object_get(program, "low")) &&
		    hash.high64 == (uint64_t)json_integer_value(json_object_get(program, "high")))
			return 0;
	}
	return problem_set(problem, ENOTSUP, "%s, which the job executes, is not what it was at the checkpoint: the job would go "
			   "on with parts of both. Put back the file of then, or begin anew under another name (--job NAME)", path);
}

int programs_check(const json_t *list, int root, struct problem *problem)
{
	const json_t *program;
	size_t i;
	int ret;

	json_array_foreach(list, i, program) {
		ret = check_one(program, root, problem);
		if (ret)
			return ret;
	}
	return 0;
}
