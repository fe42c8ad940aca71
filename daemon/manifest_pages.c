// SPDX-License-Identifier: GPL-2.0
/* What a manifest refers to: reads pages and files from the segments. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "cleanup.h"
#include "manifest.h"
#include "object.h"
#include "packed_file.h"
#include "pagemap_private.h"

#define SEGMENTS_OPEN 32
#define CACHE_BLOCKS_MIN 8
#define CACHE_BLOCKS_MAX 4096

struct open_segment {
	const struct segment *segment; /* NULL: not in use */
	struct object_reader object;
	uint64_t used;
};

struct cached_block {
	uint32_t block; /* BLOCK_ZERO: not in use */
	uint64_t used;
	uint8_t *plain;
};

/*
 * Only opening needs the store user's ids: sinks and the caller's descriptors are served with the
 * caller's.
 *
 * Segments that are open and blocks that were read, those used longest ago given up first.
 */
struct reader {
	struct store *store;
	struct block_codec *codec;
	uint8_t *buffer;
	uint64_t clock;
	struct open_segment segments[SEGMENTS_OPEN];
	struct cached_block *blocks;
	size_t block_count;
	uint32_t *places; /* of each block of the map in blocks[], + 1; 0: not there */
	struct cached_block *recent; /* the block that was got last */
};

static int reader_no_memory(const struct reader *reader, struct problem *problem)
{
	return problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s",
			   reader->store->path);
}

static void reader_close(struct reader *reader)
{
	size_t i;

	for (i = 0; i < SEGMENTS_OPEN; i++)
		if (reader->segments[i].segment)
			object_close(&reader->segments[i].object);
	for (i = 0; i < reader->block_count; i++) {
		if (reader->blocks[i].plain)
			seal_wipe(reader->blocks[i].plain, BLOCK_PLAIN_BYTES);
		free(reader->blocks[i].plain);
	}
	free(reader->blocks);
	free(reader->places);
	free(reader->buffer);
	block_codec_destroy(reader->codec);
}

#define cleanup_reader __attribute__((cleanup(reader_close)))

static int reader_open(struct reader *reader, struct store *store, const struct pagemap *map,
		       struct problem *problem)
{
	size_t count = store->buffer_bytes / BLOCK_PLAIN_BYTES, i;

	count = count < CACHE_BLOCKS_MIN ? CACHE_BLOCKS_MIN : count;
	count = count > CACHE_BLOCKS_MAX ? CACHE_BLOCKS_MAX : count;
	reader->store = store;
	reader->codec = block_codec_create(store->compression);
	reader->buffer = malloc(BLOCK_STORED_MAX);
	reader->blocks = calloc(count, sizeof(*reader->blocks));
	reader->places = calloc(map->block_count + 1ULL, sizeof(*reader->places));
	if (!reader->codec || !reader->buffer || !reader->blocks || !reader->places)
		return reader_no_memory(reader, problem);
	reader->block_count = count;
	for (i = 0; i < count; i++)
		reader->blocks[i].block = BLOCK_ZERO;
	return 0;
}

static int segment_open(struct reader *reader, struct open_segment *open,
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
	if (!err)
		open->segment = segment;
	return err;
}

static int segment_find(struct reader *reader, const struct segment *segment,
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

/* ---- pages ---- */

static int block_fill(struct reader *reader, const struct block *block, uint8_t *plain,
		      struct problem *problem)
{
	struct object_reader *object;
	struct block_header header;
	int err = segment_find(reader, block->segment, &object, problem);

	if (!err)
		err = object_read(object, reader->codec, block->offset, block->stored,
				  reader->buffer, &header, plain, problem);
	if (!err && header.pages != block->pages)
		err = store_damaged(reader->store, problem, object->name,
				    "the block at %" PRIu64 " has %u pages, not %u", block->offset,
				    header.pages, block->pages);
	return err;
}

static struct cached_block *cache_oldest(struct reader *reader)
{
	struct cached_block *oldest = reader->blocks;
	size_t i;

	for (i = 0; i < reader->block_count; i++)
		if (reader->blocks[i].used < oldest->used)
			oldest = &reader->blocks[i];
	return oldest;
}

static int block_load(struct reader *reader, const struct pagemap *map, uint32_t number,
		      struct problem *problem)
{
	struct cached_block *cached = cache_oldest(reader);
	int err;

	if (cached->block != BLOCK_ZERO)
		reader->places[cached->block] = 0;
	cached->block = BLOCK_ZERO;
	if (!cached->plain)
		cached->plain = malloc(BLOCK_PLAIN_BYTES);
	if (!cached->plain)
		return reader_no_memory(reader, problem);
	err = block_fill(reader, &map->blocks[number], cached->plain, problem);
	if (err)
		return err;
	cached->block = number;
	reader->places[number] = cached - reader->blocks + 1;
	reader->recent = cached;
	return 0;
}

static int block_get(struct reader *reader, const struct pagemap *map, uint32_t number,
		     struct problem *problem)
{
	int err = 0;

	if (reader->recent && reader->recent->block == number)
		return 0;
	if (reader->places[number])
		reader->recent = &reader->blocks[reader->places[number] - 1];
	else
		err = block_load(reader, map, number, problem);
	if (!err)
		reader->recent->used = ++reader->clock;
	return err;
}

struct page_reader {
	struct reader *reader;
	struct space *space;
	page_sink sink;
	void *arg;
};

static int page_give(struct page_reader *pages, struct leaf *leaf, unsigned int i,
		     uint64_t address, struct problem *problem)
{
	static const uint8_t zero[PAGE_BYTES];
	const struct pagemap *map = pages->space->map;
	const uint8_t *hash, *plain;
	int err;

	if (leaf->block[i] == BLOCK_ZERO)
		return pages->sink(pages->arg, address, zero);
	err = block_get(pages->reader, map, leaf->block[i], problem);
	if (err)
		return err;
	plain = pages->reader->recent->plain;
	hash = plain + map->blocks[leaf->block[i]].pages * PAGE_BYTES +
	       leaf->index[i] * BLOCK_HASH_BYTES;
	leaf->hash[i] = (struct page_hash){ .low = get_le64(hash), .high = get_le64(hash + 8) };
	return pages->sink(pages->arg, address, plain + leaf->index[i] * PAGE_BYTES);
}

static int leaf_give(struct page_reader *pages, struct leaf *leaf, uint64_t number,
		     struct problem *problem)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < LEAF_PAGES && !err; i++)
		if (leaf->held & (1ULL << i))
			err = page_give(pages, leaf, i, (number * LEAF_PAGES + i) * PAGE_BYTES,
					problem);
	return err;
}

int manifest_read_space(struct store *store, struct manifest *manifest, struct space *space,
			page_sink sink, void *arg, struct problem *problem)
{
	cleanup_reader struct reader reader = { 0 };
	struct page_reader pages = { .reader = &reader, .space = space, .sink = sink, .arg = arg };
	struct leaf *leaf;
	uint64_t number;
	int err = reader_open(&reader, store, manifest->map, problem);

	for (number = 0; !err && (leaf = space_next_leaf(space, &number)); number++)
		err = leaf_give(&pages, leaf, number, problem);
	return err;
}

/* ---- files ---- */

static int write_fully(int fd, const uint8_t *data, size_t length)
{
	while (length) {
		ssize_t done = write(fd, data, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		data += done;
		length -= done;
	}
	return 0;
}

static int file_block_read(struct reader *reader, const struct packed_file *file,
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
	err = segment_find(reader, file->segment, &object, problem);
	if (!err)
		err = object_read(object, reader->codec, block->offset, block->stored,
				  reader->buffer, &header, plain, problem);
	if (!err && (header.kind != BLOCK_OF_FILE || header.content_length != block->length))
		err = store_damaged(reader->store, problem, object->name,
				    "the block at %" PRIu64 " is not that of file %s", block->offset,
				    file->name);
	return err;
}

/* fd < 0: only reads. */
static int file_read(struct reader *reader, const struct packed_file *file, int fd,
		     struct problem *problem)
{
	cleanup_free uint8_t *plain = malloc(BLOCK_PLAIN_BYTES);
	size_t i;
	int err = plain ? 0 : reader_no_memory(reader, problem);

	for (i = 0; i < file->count && !err; i++) {
		err = file_block_read(reader, file, &file->blocks[i], plain, problem);
		if (err || fd < 0)
			continue;
		err = write_fully(fd, plain, file->blocks[i].length);
		if (err)
			problem_set(problem, -err, "cannot write the content of %s: %s", file->name,
				    strerror(-err));
	}
	return err;
}

static const struct packed_file *file_find(const struct manifest *manifest, const char *name)
{
	size_t i;

	for (i = 0; i < manifest->file_count; i++)
		if (!strcmp(manifest->files[i]->name, name))
			return manifest->files[i];
	return NULL;
}

int manifest_read_file(struct store *store, struct manifest *manifest, const char *name, int fd,
		       struct problem *problem)
{
	cleanup_reader struct reader reader = { 0 };
	const struct packed_file *file = file_find(manifest, name);
	int err;

	if (!file)
		return problem_set(problem, ENOENT, "the checkpoint in %s has no file %s",
				   store->path, name);
	err = reader_open(&reader, store, manifest->map, problem);
	return err ? err : file_read(&reader, file, fd, problem);
}

/* ---- everything ---- */

static int block_order(const void *a, const void *b)
{
	const struct block *first = *(const struct block *const *)a;
	const struct block *second = *(const struct block *const *)b;
	int order = segment_compare(first->segment, second->segment);

	if (order)
		return order;
	return first->offset < second->offset ? -1 : first->offset > second->offset;
}

/* In the order of the segments' bytes, each once. */
static int verify_blocks(struct reader *reader, const struct pagemap *map,
			 struct problem *problem)
{
	cleanup_free const struct block **blocks = calloc(map->block_count + 1ULL, sizeof(*blocks));
	cleanup_free uint8_t *plain = malloc(BLOCK_PLAIN_BYTES);
	uint32_t i, count = 0;
	int err = blocks && plain ? 0 : reader_no_memory(reader, problem);

	for (i = 0; !err && i < map->block_count; i++)
		if (map->blocks[i].segment && map->blocks[i].live)
			blocks[count++] = &map->blocks[i];
	if (count)
		qsort(blocks, count, sizeof(*blocks), block_order);
	for (i = 0; !err && i < count; i++)
		err = block_fill(reader, blocks[i], plain, problem);
	return err;
}

int manifest_verify(struct store *store, struct manifest *manifest, struct problem *problem)
{
	cleanup_reader struct reader reader = { 0 };
	size_t i;
	int err = reader_open(&reader, store, manifest->map, problem);

	if (!err)
		err = verify_blocks(&reader, manifest->map, problem);
	for (i = 0; i < manifest->file_count && !err; i++)
		err = file_read(&reader, manifest->files[i], -1, problem);
	return err;
}
