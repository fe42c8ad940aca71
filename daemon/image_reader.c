// SPDX-License-Identifier: GPL-2.0
#include "image_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "cleanup.h"
#include "pread_fully.h"

#define MAGIC_COMMON 0x54564319u
#define HEADER_BYTES 12
#define IMAGE_MAX (1u << 30)

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_BYTES = 2,
	WIRE_FIXED32 = 5,
};

static uint64_t read_varint(struct image_reader *reader)
{
	uint64_t value = 0;

	for (int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
		uint8_t byte = *reader->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return value;
	}
	reader->bad = true;
	return 0;
}

static void skip(struct image_reader *reader, uint64_t bytes)
{
	if (bytes > (uint64_t)(reader->end - reader->at))
		reader->bad = true;
	else
		reader->at += bytes;
}

bool image_next(struct image_reader *reader, struct image_field *field)
{
	uint64_t key, length;

	if (reader->bad || reader->at == reader->end)
		return false;
	key = read_varint(reader);
	*field = (struct image_field){ .number = key >> 3, .place = reader->at };
	switch (key & 7) {
	case WIRE_VARINT:
		field->value = read_varint(reader);
		break;
	case WIRE_BYTES:
		length = read_varint(reader);
		field->inner.at = reader->at;
		skip(reader, length);
		field->inner.end = reader->bad ? field->inner.at : reader->at;
		break;
	case WIRE_FIXED64:
		skip(reader, 8);
		break;
	case WIRE_FIXED32:
		skip(reader, 4);
		break;
	default:
		reader->bad = true;
	}
	return !reader->bad;
}

struct image_reader image_inner(const struct image_reader *reader, uint64_t number)
{
	struct image_reader message = *reader, inner = { .bad = false };
	struct image_field field;

	while (image_next(&message, &field))
		if (field.number == number)
			inner = field.inner;
	inner.bad |= message.bad;
	return inner;
}

int image_unknown(const char *path, struct problem *problem)
{
	return problem_set(problem, EBADMSG, "%s is no image that this version of ckpt knows", path);
}

int image_read(const char *path, uint32_t magic, uint8_t **bytes, struct image_reader *reader, struct problem *problem)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_free uint8_t *image = NULL;
	struct stat st;
	ssize_t got;

	if (fd < 0 || fstat(fd, &st))
		return problem_set(problem, errno, "cannot read %s: %s", path, strerror(errno));
	if (st.st_size > IMAGE_MAX)
		return problem_set(problem, EBADMSG, "%s is larger than such an image can be", path);
	image = malloc((size_t)st.st_size + 1);
	if (!image)
		return problem_set(problem, ENOMEM, "no memory to read %s", path);
	got = pread_fully(fd, image, (size_t)st.st_size, 0);
	if (got < 0)
		return problem_set(problem, (int)-got, "cannot read %s: %s", path, strerror((int)-got));
	if (got < HEADER_BYTES || get_le32(image) != MAGIC_COMMON || get_le32(image + 4) != magic ||
	    get_le32(image + 8) != got - HEADER_BYTES)
		return image_unknown(path, problem);
	*reader = (struct image_reader){ .at = image + HEADER_BYTES, .end = image + got };
	*bytes = take_ptr(image);
	return 0;
}
