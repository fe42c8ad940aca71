/* SPDX-License-Identifier: GPL-2.0 */
/* A file of a checkpoint: where its content is. Counted, by the packer that writes it and its user. */
#ifndef CKPT_PACKED_FILE_H
#define CKPT_PACKED_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "segment.h"

#define PACKED_FILE_NAME_MAX 4096

struct file_block {
	uint64_t offset;  /* in the segment */
	uint32_t stored;  /* bytes there; 0: all content is zero and nothing is stored */
	uint32_t length;  /* of the content */
};

struct packed_file {
	unsigned int references;
	char *name;
	uint64_t length;
	struct segment *segment; /* NULL: nothing is stored */
	struct file_block *blocks;
	size_t count;
	size_t space;
};

/* With one reference. NULL when memory is out. */
struct packed_file *packed_file_create(const char *name, struct segment *segment);
struct packed_file *packed_file_get(struct packed_file *file);
int packed_file_add(struct packed_file *file, const struct file_block *block);

#endif
