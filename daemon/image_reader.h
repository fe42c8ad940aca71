/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRIU's images of one record: u32 0x54564319, u32 its own magic, u32 size, and that many bytes of protobuf,
 * of which the fields are read one after the other.
 */
#ifndef CKPT_IMAGE_READER_H
#define CKPT_IMAGE_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "problem.h"

/* A message; what does not make sense makes it bad, and ends it. */
struct image_reader {
	const uint8_t *at;
	const uint8_t *end;
	bool bad;
};

struct image_field {
	uint64_t number;
	const uint8_t *place;           /* of what follows its number */
	uint64_t value;                 /* of a varint */
	struct image_reader inner;      /* of a field with a length; else empty */
};

/* The record's message, in *bytes, which is to be freed. */
int image_read(const char *path, uint32_t magic, uint8_t **bytes, struct image_reader *reader, struct problem *problem);
bool image_next(struct image_reader *reader, struct image_field *field);
/* The last field of that number, which has a length; without one it is empty. */
struct image_reader image_inner(const struct image_reader *reader, uint64_t number);
/* For an image that says what it should not. */
int image_unknown(const char *path, struct problem *problem);

#endif
