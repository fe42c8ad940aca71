// SPDX-License-Identifier: GPL-2.0
#include "segment_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS_OPEN 32
#define BUFFER_BYTES ((BLOCK_STORED_MAX + DIRECT_ROOM) / DIRECT_ALIGN * DIRECT_ALIGN + DIRECT_ALIGN)

struct open_segment {
	const struct segment *segment; /* NULL: not in use */
	struct object_reader object;
	uint64_t used;
};

/* The segment that was used longest ago is closed when there is no room. */
struct segment_reader {
	struct store *store;
	struct block_codec *codec; /* NULL, like buffer, before the first block */
	uint8_t *buffer;
	uint64_t clock;
	struct open_segment segments[SEGMENTS_OPEN];
};

struct segment_reader *segment_reader_create(struct store *store)
{
	struct segment_reader *reader = calloc(1, sizeof(*reader));

	if (reader)
		reader->store = store;
	return reader;
}

void segment_reader_forget(struct segment_reader *reader)
{
	size_t i;

	for (i = 0; i < SEGMENTS_OPEN; i++) {
		if (reader->segments[i].segment)
			object_close(&reader->segments[i].object);
		reader->segments[i].segment = NULL;
	}
}

void segment_reader_destroy(struct segment_reader *reader)
{
	if (!reader)
		return;
	segment_reader_forget(reader);
	block_codec_destroy(reader->codec);
	free(reader->buffer);
	free(reader);
}

static int segment_open(struct segment_reader *reader, struct open_segment *open,
			const struct segment *segment, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_id id = { .kind = OBJECT_SEGMENT, .term = segment->term,
				.number = segment->number };
	int err;

	if (open->segment)
		object_close(&open->object);
	open->segment = NULL;
	err = store_enter(reader->store, &caller, problem);
	if (!err)
		err = object_open(&open->object, reader->store, &id, problem);
	if (err == -ENOENT)
		return store_damaged(reader->store, problem, open->object.name, "it is missing");
	if (err)
		return err;
	object_go_direct(&open->object);
	open->segment = segment;
	return 0;
}

static int segment_find(struct segment_reader *reader, const struct segment *segment,
			struct object_reader **object, struct problem *problem)
{
	struct open_segment *oldest = reader->segments, *open;
	size_t i;
	int err = 0;

	for (i = 0; i < SEGMENTS_OPEN; i++) {
		open = &reader->segments[i];
		if (open->segment == segment)
			break;
		if (open->used < oldest->used)
			oldest = open;
	}
	if (i == SEGMENTS_OPEN) {
		open = oldest;
		err = segment_open(reader, open, segment, problem);
	}
	open->used = ++reader->clock;
	*object = &open->object;
	return err;
}

static int read_block(struct segment_reader *reader, const struct segment *segment,
		      uint64_t offset, uint32_t stored, struct object_reader **object,
		      struct block_header *header, uint8_t *plain, struct problem *problem)
{
	int err = segment_find(reader, segment, object, problem);

	if (err)
		return err;
	if (!reader->codec)
		reader->codec = block_codec_create((struct compression){ .method = COMPRESSION_NONE },
						   BLOCK_CONTENT_MAX);
	if (!reader->buffer)
		reader->buffer = aligned_alloc(DIRECT_ALIGN, BUFFER_BYTES);
	if (!reader->codec || !reader->buffer)
		return problem_set(problem, ENOMEM, "no memory to read %s/%s", reader->store->path,
				   (*object)->name);
	return object_read(*object, reader->codec, offset, stored, reader->buffer, header, plain,
			   problem);
}

int segment_reader_block(struct segment_reader *reader, const struct block *block, uint8_t *plain,
			 struct problem *problem)
{
	struct object_reader *object;
	struct block_header header;
	int err = read_block(reader, block->segment, block->offset, block->stored, &object, &header,
			     plain, problem);

	if (!err && header.pages != block->pages)
		err = store_damaged(reader->store, problem, object->name,
				    "the block at %" PRIu64 " has %u pages, not %u", block->offset,
				    header.pages, block->pages);
	return err;
}

int segment_reader_file_block(struct segment_reader *reader, const struct packed_file *file,
			      const struct file_block *block, uint8_t *plain,
			      struct problem *problem)
{
	struct object_reader *object;
	struct block_header header;
	int err;

	if (!block->stored) {
		memset(plain, 0, block->length);
		return 0;
	}
	err = read_block(reader, file->segment, block->offset, block->stored, &object, &header, plain,
			 problem);
	if (!err && (header.kind != BLOCK_OF_FILE || header.content_length != block->length))
		err = store_damaged(reader->store, problem, object->name,
				    "the block at %" PRIu64 " is not that of file %s", block->offset,
				    file->name);
	return err;
}

void segment_reader_announce(struct segment_reader *reader, const struct block *block)
{
	struct object_reader *object;

	if (!segment_find(reader, block->segment, &object, NULL))
		object_announce(object, block->offset, block->stored);
}
