// SPDX-License-Identifier: GPL-2.0
#include "vma_image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "bytes.h"
#include "cleanup.h"
#include "pread_fully.h"

#define MAGIC_COMMON 0x54564319u
#define MAGIC_MM 0x57492820u
#define HEADER_BYTES 12
#define IMAGE_MAX (1u << 30)

/* CRIU's status of an ordinary private anonymous mapping; any other bit but these two keeps it from being lazy. */
#define STATUS_REGULAR (1u << 0)
#define STATUS_HEAP (1u << 5)
#define STATUS_ANON_PRIVATE (1u << 9)

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_BYTES = 2,
	WIRE_FIXED32 = 5,
};

struct reader {
	const uint8_t *at;
	const uint8_t *end;
	bool bad;
};

struct field {
	uint64_t number;
	uint64_t value;         /* of a varint */
	struct reader bytes;    /* of bytes */
};

static uint64_t read_varint(struct reader *reader)
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

static void skip(struct reader *reader, uint64_t bytes)
{
	if (bytes > (uint64_t)(reader->end - reader->at))
		reader->bad = true;
	else
		reader->at += bytes;
}

static bool next_field(struct reader *reader, struct field *field)
{
	uint64_t key, length;

	if (reader->bad || reader->at == reader->end)
		return false;
	key = read_varint(reader);
	*field = (struct field){ .number = key >> 3 };
	switch (key & 7) {
	case WIRE_VARINT:
		field->value = read_varint(reader);
		break;
	case WIRE_BYTES:
		length = read_varint(reader);
		field->bytes = (struct reader){ .at = reader->at };
		skip(reader, length);
		field->bytes.end = reader->bad ? field->bytes.at : reader->at;
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

struct vma {
	uint64_t start, end, flags, status, advice;
};

static bool read_vma(struct reader *bytes, struct vma *vma)
{
	struct field field;

	*vma = (struct vma){ 0 };
	while (next_field(bytes, &field)) {
		switch (field.number) {
		case 1: vma->start = field.value; break;
		case 2: vma->end = field.value; break;
		case 6: vma->flags = field.value; break;
		case 7: vma->status = field.value; break;
		case 9: vma->advice = field.value; break;
		}
	}
	return !bytes->bad && vma->start < vma->end && !(vma->start % PAGE_BYTES) && !(vma->end % PAGE_BYTES);
}

static bool may_be_lazy(const struct vma *vma)
{
	return vma->flags & MAP_ANONYMOUS && vma->flags & MAP_PRIVATE &&
	       !(vma->flags & (MAP_LOCKED | MAP_HUGETLB)) && vma->status & STATUS_ANON_PRIVATE &&
	       !(vma->status & ~(STATUS_REGULAR | STATUS_HEAP | STATUS_ANON_PRIVATE)) &&
	       !(vma->advice & 1u << MADV_WIPEONFORK);
}

static int parse(const uint8_t *image, size_t length, struct regions *regions)
{
	struct reader reader = { .at = image + HEADER_BYTES, .end = image + length };
	struct field field;
	struct vma vma;
	int ret = 0;

	if (length < HEADER_BYTES || get_le32(image) != MAGIC_COMMON || get_le32(image + 4) != MAGIC_MM ||
	    get_le32(image + 8) != length - HEADER_BYTES)
		return -EBADMSG;
	while (ret == 0 && next_field(&reader, &field)) {
		if (field.number != 14)
			continue;
		if (!read_vma(&field.bytes, &vma))
			return -EBADMSG;
		/* The category keeps neighbours apart. */
		if (may_be_lazy(&vma))
			ret = regions_add(regions, vma.start, vma.end, (uint32_t)regions->count & 1);
	}
	return reader.bad ? -EBADMSG : ret;
}

int vma_image_lazy(const char *directory, uint64_t id, struct regions *regions, struct problem *problem)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	cleanup_free uint8_t *image = NULL;
	struct stat st;
	ssize_t got;
	int ret;

	snprintf(path, sizeof(path), "%s/mm-%lu.img", directory, id);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st))
		return problem_set(problem, errno, "cannot read %s: %s", path, strerror(errno));
	if (st.st_size > IMAGE_MAX)
		return problem_set(problem, EBADMSG, "%s is larger than such an image can be", path);
	image = malloc((size_t)st.st_size + 1);
	if (!image)
		return problem_set(problem, ENOMEM, "no memory to read %s", path);
	got = pread_fully(fd, image, (size_t)st.st_size, 0);
	ret = got < 0 ? (int)got : parse(image, (size_t)got, regions);
	if (ret == -EBADMSG)
		return problem_set(problem, EBADMSG, "%s is no image of mappings that this version of ckpt "
				   "knows", path);
	return ret ? problem_set(problem, -ret, "cannot read %s: %s", path, strerror(-ret)) : 0;
}
