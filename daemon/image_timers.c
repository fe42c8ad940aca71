// SPDX-License-Identifier: GPL-2.0
#include "image_timers.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

#define MAGIC_COMMON 0x54564319u
#define MAGIC_FILES 0x56303138u
#define MAGIC_CORE 0x55053847u

/* The fields that lead to timers. */
enum {
	FILE_TIMERFD = 12,
	TIMERFD_TICKS = 5,
	TIMERFD_SECONDS = 7,
	TIMERFD_NANOSECONDS = 8,
	TIMERFD_INTERVAL_SECONDS = 9,
	TIMERFD_INTERVAL_NANOSECONDS = 10,
	CORE_TASK = 3,
	TASK_TIMERS = 7,
	TIMERS_ITIMERS = 3,             /* fields 1 to 3 */
	ITIMER_FIELDS = 4,              /* interval's seconds and microseconds, then what is left */
};

/* ---- protobuf ---- */

struct message {
	const uint8_t *at;
	const uint8_t *end;
};

struct field {
	unsigned int number;
	const uint8_t *place;           /* of a varint's value */
	uint64_t value;
	struct message inner;           /* of a field that has a length */
};

static bool get_varint(struct message *message, uint64_t *value)
{
	*value = 0;
	for (unsigned int shift = 0; shift < 64 && message->at < message->end; shift += 7) {
		uint8_t byte = *message->at++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool skip(struct message *message, uint64_t bytes)
{
	if (bytes > (uint64_t)(message->end - message->at))
		return false;
	message->at += bytes;
	return true;
}

/* 1: there is one; 0: the end; -EBADMSG. */
static int get_field(struct message *message, struct field *field)
{
	uint64_t tag;
	bool good;

	if (message->at == message->end)
		return 0;
	if (!get_varint(message, &tag))
		return -EBADMSG;
	*field = (struct field){ .number = (unsigned int)(tag >> 3), .place = message->at };
	switch (tag & 7) {
	case 0:
		good = get_varint(message, &field->value);
		break;
	case 1:
		good = skip(message, 8);
		break;
	case 2:
		good = get_varint(message, &field->value);
		field->inner.at = message->at;
		good = good && skip(message, field->value);
		field->inner.end = message->at;
		break;
	case 5:
		good = skip(message, 4);
		break;
	default:
		good = false;
	}
	return good ? 1 : -EBADMSG;
}

/* The last field of that number, which has a length; without one it is empty. */
static int get_inner(struct message message, unsigned int number, struct message *inner)
{
	struct field field;
	int ret;

	*inner = (struct message){ 0 };
	while ((ret = get_field(&message, &field)) > 0)
		if (field.number == number)
			*inner = field.inner;
	return ret;
}

/* ---- images ---- */

static bool get_u32(struct message *image, uint32_t *value)
{
	if (image->end - image->at < 4)
		return false;
	memcpy(value, image->at, 4);
	*value = le32toh(*value);
	image->at += 4;
	return true;
}

static bool begins(struct message *image, uint32_t magic)
{
	uint32_t common, own;

	return get_u32(image, &common) && get_u32(image, &own) && common == MAGIC_COMMON && own == magic;
}

/* As get_field(). */
static int get_record(struct message *image, struct message *record)
{
	uint32_t size;

	if (image->at == image->end)
		return 0;
	if (!get_u32(image, &size))
		return -EBADMSG;
	record->at = image->at;
	if (!skip(image, size))
		return -EBADMSG;
	record->end = image->at;
	return 1;
}

/* 1: mended. A zero is one byte, and so is a one. */
static int mend_timerfd(struct message timerfd, uint8_t *bytes)
{
	struct field fields[TIMERFD_INTERVAL_NANOSECONDS + 1] = { 0 }, field;
	int ret;

	while ((ret = get_field(&timerfd, &field)) > 0)
		if (field.number <= TIMERFD_INTERVAL_NANOSECONDS)
			fields[field.number] = field;
	if (ret < 0 || !fields[TIMERFD_NANOSECONDS].place)
		return ret;
	if (!fields[TIMERFD_TICKS].value || fields[TIMERFD_SECONDS].value || fields[TIMERFD_NANOSECONDS].value ||
	    !(fields[TIMERFD_INTERVAL_SECONDS].value || fields[TIMERFD_INTERVAL_NANOSECONDS].value))
		return 0;
	bytes[fields[TIMERFD_NANOSECONDS].place - bytes] = 1;
	return 1;
}

int image_timers_mend_files(uint8_t *bytes, size_t length)
{
	struct message image = { bytes, bytes + length }, record, timerfd;
	int ret, mended = 0;

	if (!begins(&image, MAGIC_FILES))
		return -EBADMSG;
	while ((ret = get_record(&image, &record)) > 0) {
		ret = get_inner(record, FILE_TIMERFD, &timerfd);
		if (ret == 0 && timerfd.at)
			ret = mend_timerfd(timerfd, bytes);
		if (ret < 0)
			return ret;
		mended += ret;
	}
	return ret ? ret : mended;
}

static int fires_once(struct message itimer)
{
	uint64_t values[ITIMER_FIELDS + 1] = { 0 };
	struct field field;
	int ret;

	while ((ret = get_field(&itimer, &field)) > 0)
		if (field.number <= ITIMER_FIELDS)
			values[field.number] = field.value;
	return ret ? ret : !values[1] && !values[2] && (values[3] || values[4]);
}

int image_timers_fire_once(const uint8_t *bytes, size_t length)
{
	struct message image = { bytes, bytes + length }, record, task, timers;
	struct field field;
	int ret, once = 0;

	if (!begins(&image, MAGIC_CORE) || get_record(&image, &record) != 1)
		return -EBADMSG;
	ret = get_inner(record, CORE_TASK, &task);
	if (ret == 0)
		ret = get_inner(task, TASK_TIMERS, &timers);
	while (ret == 0 && !once && (ret = get_field(&timers, &field)) > 0) {
		ret = field.number <= TIMERS_ITIMERS ? fires_once(field.inner) : 0;
		once = ret > 0;
		ret = ret > 0 ? 0 : ret;
	}
	return ret < 0 ? ret : once;
}

/* ---- the directory ---- */

/* Calls look with the whole file, which it may change in place. */
static int with_image(int directory, const char *name, int (*look)(uint8_t *bytes, size_t length))
{
	cleanup_close int fd = openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	void *bytes;
	int ret;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!st.st_size)
		return 0;
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	ret = look(bytes, (size_t)st.st_size);
	munmap(bytes, (size_t)st.st_size);
	return ret;
}

static int look_once(uint8_t *bytes, size_t length)
{
	return image_timers_fire_once(bytes, length);
}

static int check_cores(DIR *dir, const struct criu_version *version, struct problem *problem)
{
	struct dirent *entry;
	int ret = 0, pid;

	while (ret == 0 && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "core-%d.img", &pid) != 1)
			continue;
		ret = with_image(dirfd(dir), entry->d_name, look_once);
		if (ret > 0)
			return problem_set(problem, ENOTSUP, "process %d of the job has a timer that fires once "
					   "(alarm, setitimer), which CRIU %s would lose: install CRIU 4.1 or "
					   "later", pid, version->text);
	}
	return ret;
}

int image_timers_mend(const char *directory, const struct criu_version *version, struct problem *problem)
{
	DIR *dir = opendir(directory);
	int ret = dir ? with_image(dirfd(dir), "files.img", image_timers_mend_files) : -errno;

	if (ret >= 0)
		ret = version->major > 4 || (version->major == 4 && version->minor >= 1) ? 0 :
		      check_cores(dir, version, problem);
	if (ret < 0 && ret != -ENOTSUP)
		problem_set(problem, -ret, "cannot look for timers in CRIU's images in %s: %s", directory,
			    strerror(-ret));
	if (dir)
		closedir(dir);
	return ret;
}
