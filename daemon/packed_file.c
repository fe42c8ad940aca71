// SPDX-License-Identifier: GPL-2.0
#include "packed_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"

struct packed_file *packed_file_create(const char *name, struct segment *segment)
{
	struct packed_file *file = calloc(1, sizeof(*file));

	if (!file)
		return NULL;
	file->references = 1;
	file->segment = segment ? segment_get(segment) : NULL;
	file->name = strdup(name);
	if (file->name)
		return file;
	packed_file_free(file);
	return NULL;
}

struct packed_file *packed_file_get(struct packed_file *file)
{
	file->references++;
	return file;
}

void packed_file_free(struct packed_file *file)
{
	if (!file || --file->references)
		return;
	segment_put(file->segment);
	free(file->blocks);
	free(file->name);
	free(file);
}

int packed_file_add(struct packed_file *file, const struct file_block *block)
{
	struct file_block *blocks = file->blocks;
	size_t space = file->space ? file->space * 2 : 16;

	if (file->count == file->space) {
		blocks = realloc(blocks, space * sizeof(*blocks));
		if (!blocks)
			return -ENOMEM;
		file->blocks = blocks;
		file->space = space;
	}
	blocks[file->count++] = *block;
	file->length += block->length;
	return 0;
}

const char *packed_file_name(const struct packed_file *file)
{
	return file->name;
}
