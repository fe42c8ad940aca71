/* SPDX-License-Identifier: GPL-2.0 */
/* Makes images as CRIU does (daemon/image_reader.h): messages of protobuf, and directories with one image in them. */
#ifndef CKPT_IMAGE_MAKER_H
#define CKPT_IMAGE_MAKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"

#define IMAGE_MAGIC 0x54564319u

/* Bytes of a message, or of an image. */
struct image {
	uint8_t bytes[512];
	size_t length;
};

static inline void put_bytes(struct image *image, const void *bytes, size_t length)
{
	assert_true(image->length + length <= sizeof(image->bytes));
	memcpy(image->bytes + image->length, bytes, length);
	image->length += length;
}

static inline void put_u32(struct image *image, uint32_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, value);
	put_bytes(image, bytes, sizeof(bytes));
}

static inline void put_plain(struct image *image, uint64_t value)
{
	uint8_t bytes[VARINT_MAX_BYTES];

	put_bytes(image, bytes, put_varint(bytes, value));
}

static inline void put_number(struct image *image, unsigned int field, uint64_t value)
{
	put_plain(image, field << 3);
	put_plain(image, value);
}

static inline void put_message(struct image *image, unsigned int field, const struct image *inner)
{
	put_plain(image, field << 3 | 2);
	put_plain(image, inner->length);
	put_bytes(image, inner->bytes, inner->length);
}

static inline struct image image_begin(uint32_t magic)
{
	struct image image = { .length = 0 };

	put_u32(&image, IMAGE_MAGIC);
	put_u32(&image, magic);
	return image;
}

static inline void put_record(struct image *image, const struct image *record)
{
	put_u32(image, (uint32_t)record->length);
	put_bytes(image, record->bytes, record->length);
}

/* An image of one record, of which the last bytes are missing. */
static inline struct image image_of(uint32_t magic, const struct image *record, size_t missing)
{
	struct image image = image_begin(magic);

	put_record(&image, record);
	image.length -= missing;
	return image;
}

/* ---- a directory ---- */

static char image_directory[32];

static inline const char *image_path(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/%s", image_directory, name);
	return path;
}

static inline void image_save(const char *name, const struct image *image)
{
	FILE *file;

	strcpy(image_directory, "/tmp/ckpt-image-XXXXXX");
	assert_non_null(mkdtemp(image_directory));
	assert_non_null(file = fopen(image_path(name), "w"));
	assert_int_equal(fwrite(image->bytes, 1, image->length, file), image->length);
	fclose(file);
}

/* What is there now takes the place of *image. */
static inline void image_load(const char *name, struct image *image)
{
	FILE *file = fopen(image_path(name), "r");

	assert_non_null(file);
	image->length = fread(image->bytes, 1, sizeof(image->bytes), file);
	fclose(file);
}

static inline void image_remove(const char *name)
{
	unlink(image_path(name));
	rmdir(image_directory);
}

#endif
