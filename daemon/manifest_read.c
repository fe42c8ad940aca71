// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "manifest.h"
#include "manifest_format.h"
#include "packed_file.h"
#include "pagemap_private.h"

#define SEGMENTS_MAX (1u << 24)
#define FILES_MAX (1u << 24)
#define SPACES_MAX (1u << 22)
#define PAGES_MAX (1ULL << 38) /* of a space: 1 PiB */

/* The content of all blocks as one stream. The first error stays; after it everything reads as 0. */
struct body {
	struct object_reader object;
	struct block_codec *codec;
	uint8_t *buffer;
	uint8_t *plain;
	uint32_t filled;
	uint32_t used; /* bytes of plain, at most, ever */
	uint32_t at;
	uint64_t offset; /* of the next block */
	bool last;       /* plain is of the last block */
	int err;
	struct problem *problem;
};

static int body_damaged(struct body *body, const char *what)
{
	if (!body->err)
		body->err = store_damaged(body->object.store, body->problem, body->object.name, "%s",
					  what);
	return body->err;
}

static int body_no_memory(struct body *body)
{
	if (!body->err)
		body->err = problem_set(body->problem, ENOMEM, "no memory to read %s",
					body->object.name);
	return body->err;
}

static int body_next_block(struct body *body)
{
	struct block_header header;
	uint32_t stored;

	if (body->err)
		return body->err;
	if (body->last)
		return body_damaged(body, "its content ends too early");
	body->err = object_read_next(&body->object, body->codec, body->offset, &stored, body->buffer,
				     &header, body->plain, body->problem);
	if (body->err)
		return body->err;
	if (header.kind != BLOCK_OF_MANIFEST)
		return body_damaged(body, "it has a block of another kind");
	body->offset += stored;
	body->last = header.last;
	body->filled = header.content_length;
	body->used = body->filled > body->used ? body->filled : body->used;
	body->at = 0;
	if (body->last != (body->offset == body->object.object.length))
		return body_damaged(body, "its last block is not at its end");
	return 0;
}

static int get_bytes(struct body *body, void *to, size_t length)
{
	uint8_t *at = to;
	size_t part;

	while (length) {
		if (body->at == body->filled && body_next_block(body)) {
			memset(at, 0, length);
			return body->err;
		}
		part = body->filled - body->at;
		part = part < length ? part : length;
		memcpy(at, body->plain + body->at, part);
		body->at += part;
		at += part;
		length -= part;
	}
	return 0;
}

static uint64_t get_number(struct body *body)
{
	uint64_t value = 0;
	unsigned int shift;
	uint8_t byte;

	for (shift = 0; shift < 64; shift += 7) {
		if (body->at < body->filled)
			byte = body->plain[body->at++];
		else if (get_bytes(body, &byte, 1))
			return 0;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return value;
	}
	body_damaged(body, "it has a number that does not end");
	return 0;
}

/* A count of what follows, so that memory is not asked for what cannot be there. */
static uint64_t get_bounded(struct body *body, uint64_t max, const char *what)
{
	uint64_t value = get_number(body);

	if (value <= max)
		return value;
	body_damaged(body, what);
	return 0;
}

static int body_open(struct body *body, struct store *store, const struct object_id *id)
{
	int err = object_open(&body->object, store, id, body->problem);

	if (err)
		return err;
	body->offset = OBJECT_HEADER_BYTES;
	body->codec = block_codec_create(store->compression, BLOCK_CONTENT_MAX);
	body->buffer = malloc(BLOCK_STORED_MAX);
	body->plain = malloc(BLOCK_PLAIN_BYTES);
	return body->codec && body->buffer && body->plain ? 0 : body_no_memory(body);
}

static void body_close(struct body *body)
{
	object_close(&body->object);
	block_codec_destroy(body->codec);
	if (body->plain)
		seal_wipe(body->plain, body->used);
	free(body->buffer);
	free(body->plain);
}

static void get_magic(struct body *body, const char *magic)
{
	char found[MANIFEST_MAGIC_BYTES];

	get_bytes(body, found, sizeof(found));
	if (!body->err && memcmp(found, magic, sizeof(found)))
		body_damaged(body, "a mark in its content is missing");
}

/* ---- tables ---- */

struct tables {
	struct segment **segments;
	size_t segment_count;
	uint32_t *blocks; /* their numbers in the map */
	size_t block_count;
};

static void tables_free(struct tables *tables)
{
	while (tables->segment_count)
		segment_put(tables->segments[--tables->segment_count]);
	free(tables->segments);
	free(tables->blocks);
}

/* Grows with what was read, not with what a count says. */
static void *grow(void *list, size_t count, size_t size)
{
	size_t space = 16;

	if (count >= space && count & (count - 1))
		return list;
	if (count && count < space)
		return list;
	while (space <= count)
		space *= 2;
	return realloc(list, space * size);
}

static void get_segment_id(struct body *body, struct object_id *id)
{
	id->kind = OBJECT_SEGMENT;
	id->term = get_number(body);
	id->number = get_number(body);
}

static void get_segments(struct body *body, struct tables *tables)
{
	uint64_t count = get_bounded(body, SEGMENTS_MAX, "it has too many segments");
	struct segment **list, *segment;
	struct object_id id = { 0 };

	while (tables->segment_count < count && !body->err) {
		get_segment_id(body, &id);
		list = grow(tables->segments, tables->segment_count, sizeof(*list));
		if (list)
			tables->segments = list;
		segment = list ? segment_create(body->object.store, id.term, id.number,
						SEGMENT_COMMITTED) : NULL;
		if (segment)
			tables->segments[tables->segment_count++] = segment;
		else
			body_no_memory(body);
	}
}

static void get_meta(struct body *body, struct manifest *manifest)
{
	uint64_t length = get_bounded(body, MANIFEST_META_MAX, "its meta text is too long");

	manifest->meta = calloc(1, length + 1);
	if (!manifest->meta)
		body_no_memory(body);
	else
		get_bytes(body, manifest->meta, length);
}

/* ---- files ---- */

static bool place_valid(uint64_t stored, uint64_t offset)
{
	return stored > BLOCK_HEADER_BYTES && stored <= BLOCK_STORED_MAX &&
	       offset >= OBJECT_HEADER_BYTES && offset < 1ULL << 62;
}

static void get_file_block(struct body *body, struct packed_file *file, bool last)
{
	uint64_t length = get_bounded(body, BLOCK_CONTENT_MAX, "a file has a block that is too long");
	uint64_t stored = get_bounded(body, BLOCK_STORED_MAX, "a file has a block that is too long");
	uint64_t offset = stored ? get_number(body) : 0;
	struct file_block block = { .offset = offset, .stored = stored, .length = length };

	if (body->err)
		return;
	if (!length || (!last && length != BLOCK_CONTENT_MAX) ||
	    (stored && (!file->segment || !place_valid(stored, offset))))
		body_damaged(body, "a file has a block in no place");
	else if (packed_file_add(file, &block))
		body_no_memory(body);
}

static struct packed_file *get_file_head(struct body *body, const struct tables *tables)
{
	uint64_t length = get_bounded(body, PACKED_FILE_NAME_MAX, "a file's name is too long");
	char name[PACKED_FILE_NAME_MAX + 1] = "";
	struct segment *segment = NULL;
	struct packed_file *file;
	uint64_t index;

	get_bytes(body, name, length);
	name[length] = 0;
	index = get_bounded(body, tables->segment_count, "a file is in an unknown segment");
	if (!body->err && (!length || strlen(name) != length))
		body_damaged(body, "a file has no proper name");
	if (body->err)
		return NULL;
	if (index)
		segment = tables->segments[index - 1];
	file = packed_file_create(name, segment);
	if (!file)
		body_no_memory(body);
	return file;
}

static void get_file(struct body *body, const struct tables *tables, struct manifest *manifest)
{
	struct packed_file **files = grow(manifest->files, manifest->file_count, sizeof(*files));
	struct packed_file *file;
	uint64_t blocks;

	if (!files) {
		body_no_memory(body);
		return;
	}
	manifest->files = files;
	file = get_file_head(body, tables);
	if (!file)
		return;
	files[manifest->file_count++] = file;
	for (blocks = get_number(body); blocks && !body->err; blocks--)
		get_file_block(body, file, blocks == 1);
}

static void get_files(struct body *body, const struct tables *tables, struct manifest *manifest)
{
	uint64_t count = get_bounded(body, FILES_MAX, "it has too many files");

	while (count-- && !body->err)
		get_file(body, tables, manifest);
}

/* ---- the page map ---- */

struct block_place {
	uint64_t segment;
	uint64_t offset;
	uint64_t stored;
	uint64_t pages;
};

static void get_block_place(struct body *body, const struct tables *tables,
			    struct block_place *place)
{
	uint64_t end = place->offset + place->stored, segment = place->segment;

	place->segment = get_number(body);
	if (place->segment != segment)
		end = 0;
	place->offset = end + unzigzag(get_number(body));
	place->stored = get_number(body);
	place->pages = get_number(body);
	if (!body->err && (place->segment >= tables->segment_count ||
			   !place_valid(place->stored, place->offset) || !place->pages ||
			   place->pages > BLOCK_PAGES))
		body_damaged(body, "a block of pages is in no place");
}

static void block_add(struct body *body, struct tables *tables, struct pagemap *map,
		      const struct block_place *place)
{
	uint32_t *blocks = grow(tables->blocks, tables->block_count, sizeof(*blocks));
	struct block *block;
	uint32_t number;

	if (blocks)
		tables->blocks = blocks;
	if (!blocks || pagemap_add_block(map, tables->segments[place->segment], &number)) {
		body_no_memory(body);
		return;
	}
	block = &map->blocks[number];
	block->offset = place->offset;
	block->stored = place->stored;
	block->pages = place->pages;
	blocks[tables->block_count++] = number;
}

static void get_blocks(struct body *body, struct tables *tables, struct pagemap *map)
{
	uint64_t count = get_bounded(body, BLOCK_ZERO - 1, "it has too many blocks");
	struct block_place place = { .segment = UINT64_MAX };

	while (count-- && !body->err) {
		get_block_place(body, tables, &place);
		if (!body->err)
			block_add(body, tables, map, &place);
	}
}

struct run {
	uint64_t first; /* page */
	uint64_t pages;
	uint64_t block; /* in tables.blocks */
	unsigned int index;
	bool zero;
};

/* Fills all but pages; run is the run before. */
static void get_run(struct body *body, const struct tables *tables, const struct pagemap *map,
		    struct run *run, uint64_t pages)
{
	uint64_t gap = get_number(body), code, end = run->first + run->pages;

	run->first = end + gap;
	run->pages = pages;
	code = get_number(body);
	run->zero = !code;
	if (!run->zero) {
		run->block += unzigzag(code - 1);
		run->index = get_bounded(body, BLOCK_PAGES, "a page is past the end of its block");
	}
	if (body->err)
		return;
	if (gap >= SPACE_END / PAGE_BYTES - end || pages > SPACE_END / PAGE_BYTES - run->first)
		body_damaged(body, "pages are past the end of their space");
	else if (!run->zero && (run->block >= tables->block_count ||
				run->index + pages >
					map->blocks[tables->blocks[run->block]].pages))
		body_damaged(body, "a page is past the end of its block");
}

static void run_take(struct body *body, const struct tables *tables, struct space *space,
		     const struct run *run)
{
	uint32_t block = run->zero ? BLOCK_ZERO : tables->blocks[run->block];
	uint64_t i;

	for (i = 0; i < run->pages && !body->err; i++)
		if (space_put(space, (run->first + i) * PAGE_BYTES, block,
			      run->zero ? 0 : run->index + i, (struct page_hash){ 0 }))
			body_no_memory(body);
}

static void get_runs(struct body *body, const struct tables *tables, struct space *space,
		     uint64_t total)
{
	struct run run = { 0 };
	uint64_t pages;

	while ((pages = get_number(body)) && !body->err) {
		if (pages > total - space->pages) {
			body_damaged(body, "a space has more pages than it says");
			return;
		}
		get_run(body, tables, space->map, &run, pages);
		if (!body->err)
			run_take(body, tables, space, &run);
	}
	if (!body->err && space->pages != total)
		body_damaged(body, "a space has fewer pages than it says");
}

static void get_space(struct body *body, const struct tables *tables, struct pagemap *map)
{
	uint64_t kind = get_bounded(body, SPACE_FILE, "it has a space of unknown kind");
	uint64_t id = get_number(body);
	uint64_t total = get_bounded(body, PAGES_MAX, "a space has too many pages");
	struct space *last = map->space_count ? map->spaces[map->space_count - 1] : NULL;
	struct space *space;

	if (!body->err && (kind < SPACE_TASK ||
			   (last && (last->kind > kind || (last->kind == kind && last->id >= id)))))
		body_damaged(body, "its spaces are not in order");
	if (body->err)
		return;
	if (total > body->object.store->pages_max - pagemap_pages(map)) {
		body->err = problem_set(body->problem, ENOTSUP,
					"%s/%s is of a job with more pages than this node can hold (%llu): restore it "
					"on one with more memory", body->object.store->path, body->object.name,
					(unsigned long long)body->object.store->pages_max);
		return;
	}
	space = pagemap_space(map, kind, id);
	if (space)
		get_runs(body, tables, space, total);
	else
		body_no_memory(body);
}

static void get_spaces(struct body *body, const struct tables *tables, struct pagemap *map)
{
	uint64_t count = get_bounded(body, SPACES_MAX, "it has too many spaces");

	while (count-- && !body->err)
		get_space(body, tables, map);
}

/* ---- the whole ---- */

static void get_end(struct body *body)
{
	get_magic(body, MANIFEST_END);
	if (!body->err && (!body->last || body->at != body->filled))
		body_damaged(body, "there is something after its end");
}

static int get_manifest(struct body *body, struct manifest *manifest)
{
	struct tables tables = { 0 };

	manifest->map = pagemap_create();
	if (!manifest->map)
		return body_no_memory(body);
	get_magic(body, MANIFEST_MAGIC);
	get_segments(body, &tables);
	get_meta(body, manifest);
	get_files(body, &tables, manifest);
	get_blocks(body, &tables, manifest->map);
	get_spaces(body, &tables, manifest->map);
	get_end(body);
	tables_free(&tables);
	return body->err;
}

static int manifest_load(struct store *store, const struct object_id *id,
			 struct manifest **loaded, struct problem *problem)
{
	struct body body = { .problem = problem };
	struct manifest *manifest = calloc(1, sizeof(*manifest));
	int err = manifest ? body_open(&body, store, id) : body_no_memory(&body);

	if (!err) {
		manifest->term = id->term;
		manifest->sequence = id->number;
		manifest->final = body.object.flags & OBJECT_FINAL;
		err = get_manifest(&body, manifest);
	}
	body_close(&body);
	if (err)
		manifest_free(manifest);
	else
		*loaded = manifest;
	return err;
}

int manifest_read(struct store *store, const char *name, struct manifest **manifest,
		  struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_id id;
	int err;

	if (!object_parse(name, &id) || id.kind != OBJECT_MANIFEST)
		return problem_set(problem, EINVAL, "'%s' is no name of a checkpoint", name);
	err = store_enter(store, &caller, problem);
	return err ? err : manifest_load(store, &id, manifest, problem);
}

int manifest_parse_name(const char *name, uint64_t *term, uint64_t *sequence)
{
	struct object_id id;

	if (!object_parse(name, &id) || id.kind != OBJECT_MANIFEST)
		return -EINVAL;
	*term = id.term;
	*sequence = id.number;
	return 0;
}

void manifest_free(struct manifest *manifest)
{
	if (!manifest)
		return;
	while (manifest->file_count)
		packed_file_free(manifest->files[--manifest->file_count]);
	free(manifest->files);
	free(manifest->meta);
	pagemap_destroy(manifest->map);
	free(manifest);
}

static int segments_add(struct body *body, struct object_list *segments)
{
	struct object_id *ids = grow(segments->ids, segments->count, sizeof(*ids));

	if (!ids)
		return body_no_memory(body);
	segments->ids = ids;
	get_segment_id(body, &ids[segments->count]);
	segments->count += !body->err;
	return body->err;
}

int manifest_segments(struct store *store, const struct object_id *id,
		      struct object_list *segments, struct problem *problem)
{
	struct body body = { .problem = problem };
	int err = body_open(&body, store, id);
	uint64_t count = 0;

	if (!err) {
		get_magic(&body, MANIFEST_MAGIC);
		count = get_bounded(&body, SEGMENTS_MAX, "it has too many segments");
		err = body.err;
	}
	while (count-- && !err)
		err = segments_add(&body, segments);
	body_close(&body);
	return err;
}
