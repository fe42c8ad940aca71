// SPDX-License-Identifier: GPL-2.0
#include "image_timers.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "directory.h"
#include "image_reader.h"

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
	ITIMER_INTERVAL_SECONDS = 1,
	ITIMER_FIELDS = 4,              /* interval's seconds and microseconds, then what is left */
};

/* As good as never again. */
#define ONCE_SECONDS (10ull * 365 * 86400)

/* ---- messages ---- */

/* 1: there is one; 0: the end; -EBADMSG. */
static int get_field(struct image_reader *message, struct image_field *field)
{
	return image_next(message, field) ? 1 : message->bad ? -EBADMSG : 0;
}

/* As image_inner(), and 0 or -EBADMSG. */
static int get_inner(const struct image_reader *message, unsigned int number, struct image_reader *inner)
{
	*inner = image_inner(message, number);
	return inner->bad ? -EBADMSG : 0;
}

/* ---- images ---- */

static bool get_u32(struct image_reader *image, uint32_t *value)
{
	if (image->end - image->at < 4)
		return false;
	memcpy(value, image->at, 4);
	*value = le32toh(*value);
	image->at += 4;
	return true;
}

static bool begins(struct image_reader *image, uint32_t magic)
{
	uint32_t common, own;

	return get_u32(image, &common) && get_u32(image, &own) && common == MAGIC_COMMON && own == magic;
}

/* As get_field(). */
static int get_record(struct image_reader *image, struct image_reader *record)
{
	uint32_t size;

	if (image->at == image->end)
		return 0;
	if (!get_u32(image, &size))
		return -EBADMSG;
	if (size > (uint64_t)(image->end - image->at))
		return -EBADMSG;
	*record = (struct image_reader){ .at = image->at, .end = image->at + size };
	image->at += size;
	return 1;
}

/* 1: mended. A zero is one byte, and so is a one. */
static int mend_timerfd(struct image_reader timerfd, uint8_t *bytes)
{
	struct image_field fields[TIMERFD_INTERVAL_NANOSECONDS + 1] = { 0 }, field;
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
	struct image_reader image = { .at = bytes, .end = bytes + length }, record, timerfd;
	int ret, mended = 0;

	if (!begins(&image, MAGIC_FILES))
		return -EBADMSG;
	while ((ret = get_record(&image, &record)) > 0) {
		ret = get_inner(&record, FILE_TIMERFD, &timerfd);
		if (ret == 0 && timerfd.at)
			ret = mend_timerfd(timerfd, bytes);
		if (ret < 0)
			return ret;
		mended += ret;
	}
	return ret ? ret : mended;
}

static int fires_once(struct image_reader itimer)
{
	uint64_t values[ITIMER_FIELDS + 1] = { 0 };
	struct image_field field;
	int ret;

	while ((ret = get_field(&itimer, &field)) > 0)
		if (field.number <= ITIMER_FIELDS)
			values[field.number] = field.value;
	return ret ? ret : !values[1] && !values[2] && (values[3] || values[4]);
}

static void put_varint(FILE *out, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		fputc((int)(value & 0x7f) | 0x80, out);
	fputc((int)value, out);
}

/* 1: mended. */
static int copy_itimer(struct image_reader itimer, FILE *out)
{
	struct image_field field;
	int ret, once = fires_once(itimer);

	for (const uint8_t *begin = itimer.at; (ret = get_field(&itimer, &field)) > 0; begin = itimer.at) {
		if (once > 0 && field.number == ITIMER_INTERVAL_SECONDS) {
			put_varint(out, ITIMER_INTERVAL_SECONDS << 3);
			put_varint(out, ONCE_SECONDS);
		} else {
			fwrite(begin, 1, (size_t)(itimer.at - begin), out);
		}
	}
	return ret ? ret : once;
}

static int copy_message(struct image_reader message, unsigned int depth, FILE *out);

static int copy_inner(const struct image_field *field, unsigned int depth, FILE *out)
{
	cleanup_free char *bytes = NULL;
	size_t length = 0;
	FILE *inner = open_memstream(&bytes, &length);
	int ret;

	if (!inner)
		return -ENOMEM;
	ret = copy_message(field->inner, depth, inner);
	if (fclose(inner))
		return -ENOMEM;
	put_varint(out, field->number << 3 | 2);
	put_varint(out, length);
	fwrite(bytes, 1, length, out);
	return ret;
}

/* How many timers were mended on the way. */
static int copy_message(struct image_reader message, unsigned int depth, FILE *out)
{
	/* The first and the last number of the fields that lead to timers. */
	static const unsigned int way[][2] = {
		{ CORE_TASK, CORE_TASK }, { TASK_TIMERS, TASK_TIMERS }, { 1, TIMERS_ITIMERS },
	};
	struct image_field field;
	int ret, mended = 0;

	if (depth == sizeof(way) / sizeof(*way))
		return copy_itimer(message, out);
	for (const uint8_t *begin = message.at; (ret = get_field(&message, &field)) > 0; begin = message.at) {
		if (field.number < way[depth][0] || field.number > way[depth][1] || !field.inner.at) {
			fwrite(begin, 1, (size_t)(message.at - begin), out);
			continue;
		}
		ret = copy_inner(&field, depth + 1, out);
		if (ret < 0)
			return ret;
		mended += ret;
	}
	return ret ? ret : mended;
}

int image_timers_mend_core(const uint8_t *bytes, size_t length, char **mended, size_t *mended_length)
{
	struct image_reader image = { .at = bytes, .end = bytes + length }, record;
	uint32_t size = 0;
	FILE *out;
	int ret;

	*mended = NULL;
	if (!begins(&image, MAGIC_CORE) || get_record(&image, &record) != 1)
		return -EBADMSG;
	out = open_memstream(mended, mended_length);
	if (!out)
		return -ENOMEM;
	fwrite(bytes, 1, 2 * sizeof(uint32_t), out);
	fwrite(&size, sizeof(size), 1, out);
	ret = copy_message(record, 0, out);
	if (fclose(out))
		return -ENOMEM;
	size = htole32((uint32_t)(*mended_length - 3 * sizeof(uint32_t)));
	memcpy(*mended + 2 * sizeof(uint32_t), &size, sizeof(size));
	return ret;
}

/* ---- the directory ---- */

static int read_image(int fd, uint8_t **bytes, size_t *length)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*length = (size_t)st.st_size;
	*bytes = malloc(*length + 1);
	if (!*bytes)
		return -ENOMEM;
	return pread(fd, *bytes, *length, 0) == (ssize_t)*length ? 0 : -EIO;
}

static int write_image(int fd, const void *bytes, size_t length)
{
	return pwrite(fd, bytes, length, 0) != (ssize_t)length || ftruncate(fd, (off_t)length) ? -EIO : 0;
}

static int mend_files(int fd)
{
	cleanup_free uint8_t *bytes = NULL;
	size_t length;
	int ret = read_image(fd, &bytes, &length);

	if (ret == 0)
		ret = image_timers_mend_files(bytes, length);
	return ret > 0 ? write_image(fd, bytes, length) : ret;
}

static int mend_core(int fd)
{
	cleanup_free uint8_t *bytes = NULL;
	cleanup_free char *mended = NULL;
	size_t length, mended_length;
	int ret = read_image(fd, &bytes, &length);

	if (ret == 0)
		ret = image_timers_mend_core(bytes, length, &mended, &mended_length);
	return ret > 0 ? write_image(fd, mended, mended_length) : ret;
}

static int mend(DIR *dir, const char *name, bool loses_once)
{
	cleanup_close int fd = -1;
	bool files = !strcmp(name, "files.img");

	if (!files && (strncmp(name, "core-", 5) || !loses_once))
		return 0;
	fd = openat(dirfd(dir), name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : files ? mend_files(fd) : mend_core(fd);
}

int image_timers_mend(const char *directory, const struct criu_version *version, struct problem *problem)
{
	bool loses_once = version->major < 4 || (version->major == 4 && version->minor < 1);
	DIR *dir = opendir(directory);
	struct dirent *entry;
	int ret = dir ? 0 : -errno;

	while (ret == 0 && (ret = directory_next(dir, &entry)) == 0 && entry)
		ret = mend(dir, entry->d_name, loses_once);
	if (dir)
		closedir(dir);
	return ret ? problem_set(problem, -ret, "cannot look for timers in CRIU's images in %s: %s", directory,
				 strerror(-ret)) : 0;
}
