// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "faults.h"
#include "log.h"
#include "manifest.h"
#include "manifest_format.h"
#include "packed_file.h"
#include "pagemap_private.h"

/* The content goes into blocks as it is made. The first error stays. */
struct body {
	struct object_writer object;
	struct block_codec *codec;
	uint8_t *plain;
	uint32_t filled;
	int err;
	struct problem *problem;
};

static void body_flush(struct body *body, bool last)
{
	struct block_header header = { .kind = BLOCK_OF_MANIFEST, .last = last,
				       .content_length = body->filled };

	if (!body->err)
		body->err = object_add(&body->object, body->codec, &header, body->plain,
				       body->problem);
	body->filled = 0;
}

/* A full block waits for the byte after it, so that the last block is never empty. */
static void put_bytes(struct body *body, const void *data, size_t length)
{
	const uint8_t *at = data;
	size_t part;

	while (length && !body->err) {
		if (body->filled == BLOCK_CONTENT_MAX)
			body_flush(body, false);
		part = BLOCK_CONTENT_MAX - body->filled;
		part = part < length ? part : length;
		memcpy(body->plain + body->filled, at, part);
		body->filled += part;
		at += part;
		length -= part;
	}
}

static void put_number(struct body *body, uint64_t value)
{
	uint8_t text[VARINT_MAX_BYTES];

	put_bytes(body, text, put_varint(text, value));
}

/* ---- segments ---- */

struct segment_table {
	struct segment **list; /* sorted, each once */
	size_t count;
	size_t space;
};

static int segment_order(const void *a, const void *b)
{
	return segment_compare(*(const struct segment *const *)a,
			       *(const struct segment *const *)b);
}

static int table_add(struct segment_table *table, struct segment *segment)
{
	struct segment **list = table->list;

	if (table->count && list[table->count - 1] == segment)
		return 0;
	if (table->count == table->space) {
		table->space = table->space ? table->space * 2 : 64;
		list = realloc(list, table->space * sizeof(*list));
		if (!list)
			return -ENOMEM;
		table->list = list;
	}
	list[table->count++] = segment;
	return 0;
}

static void table_sort(struct segment_table *table)
{
	size_t i, kept = 0;

	if (!table->count)
		return;
	qsort(table->list, table->count, sizeof(*table->list), segment_order);
	for (i = 1; i < table->count; i++)
		if (segment_compare(table->list[kept], table->list[i]))
			table->list[++kept] = table->list[i];
	table->count = kept + 1;
}

static size_t table_index(const struct segment_table *table, const struct segment *segment)
{
	struct segment **found = bsearch(&segment, table->list, table->count,
					       sizeof(*table->list), segment_order);

	return found - table->list;
}

static int table_fill(struct segment_table *table, const struct manifest *manifest)
{
	const struct pagemap *map = manifest->map;
	uint32_t i;
	size_t f;
	int err = 0;

	for (i = 0; i < map->block_count && !err; i++)
		if (map->blocks[i].segment && map->blocks[i].live)
			err = table_add(table, map->blocks[i].segment);
	for (f = 0; f < manifest->file_count && !err; f++)
		if (manifest->files[f]->segment)
			err = table_add(table, manifest->files[f]->segment);
	table_sort(table);
	return err;
}

static int table_check(const struct segment_table *table, struct problem *problem)
{
	size_t i;

	for (i = 0; i < table->count; i++)
		if (table->list[i]->state != SEGMENT_COMMITTED)
			return problem_set(problem, EINVAL,
					   "a checkpoint cannot refer to segment %llx-%llx, which is "
					   "not durable: a packer was not committed",
					   (unsigned long long)table->list[i]->term,
					   (unsigned long long)table->list[i]->number);
	return 0;
}

static void put_segments(struct body *body, const struct segment_table *table)
{
	size_t i;

	put_number(body, table->count);
	for (i = 0; i < table->count; i++) {
		put_number(body, table->list[i]->term);
		put_number(body, table->list[i]->number);
	}
}

/* ---- files ---- */

static void put_file(struct body *body, const struct segment_table *table,
		     const struct packed_file *file)
{
	size_t i;

	put_number(body, strlen(file->name));
	put_bytes(body, file->name, strlen(file->name));
	put_number(body, file->segment ? table_index(table, file->segment) + 1 : 0);
	put_number(body, file->count);
	for (i = 0; i < file->count; i++) {
		put_number(body, file->blocks[i].length);
		put_number(body, file->blocks[i].stored);
		if (file->blocks[i].stored)
			put_number(body, file->blocks[i].offset);
	}
}

/* ---- the page map ---- */

/* Numbers the blocks that are in use, in new_numbers[]. */
static uint32_t blocks_number(const struct pagemap *map, uint32_t *new_numbers)
{
	uint32_t i, count = 0;

	for (i = 0; i < map->block_count; i++)
		if (map->blocks[i].segment && map->blocks[i].live)
			new_numbers[i] = count++;
	return count;
}

static void put_blocks(struct body *body, const struct segment_table *table,
		       const struct pagemap *map, uint32_t count)
{
	const struct segment *segment = NULL;
	uint64_t end = 0;
	size_t index = 0;
	uint32_t i;

	put_number(body, count);
	for (i = 0; i < map->block_count; i++) {
		const struct block *block = &map->blocks[i];

		if (!block->segment || !block->live)
			continue;
		if (block->segment != segment) {
			segment = block->segment;
			index = table_index(table, segment);
			end = 0;
		}
		put_number(body, index);
		put_number(body, zigzag(block->offset - end));
		put_number(body, block->stored);
		put_number(body, block->pages);
		end = block->offset + block->stored;
	}
}

struct run {
	uint64_t first; /* page */
	uint64_t pages;
	uint32_t block;
	unsigned int index;
};

struct run_writer {
	struct body *body;
	const uint32_t *new_numbers;
	struct run run;
	uint64_t end;    /* of the run that was put last */
	uint64_t number; /* of its block */
};

static void run_put(struct run_writer *writer)
{
	const struct run *run = &writer->run;
	uint64_t number;

	if (!run->pages)
		return;
	put_number(writer->body, run->pages);
	put_number(writer->body, run->first - writer->end);
	writer->end = run->first + run->pages;
	if (run->block == BLOCK_ZERO) {
		put_number(writer->body, 0);
		return;
	}
	number = writer->new_numbers[run->block];
	put_number(writer->body, 1 + zigzag(number - writer->number));
	put_number(writer->body, run->index);
	writer->number = number;
}

static void run_add(struct run_writer *writer, uint64_t page, uint32_t block, unsigned int index)
{
	struct run *run = &writer->run;

	if (run->pages && page == run->first + run->pages && block == run->block &&
	    (block == BLOCK_ZERO || index == run->index + run->pages)) {
		run->pages++;
		return;
	}
	run_put(writer);
	*run = (struct run){ .first = page, .pages = 1, .block = block, .index = index };
}

static void put_space(struct body *body, const struct space *space, const uint32_t *new_numbers)
{
	struct run_writer writer = { .body = body, .new_numbers = new_numbers };
	uint64_t number;
	struct leaf *leaf;
	unsigned int i;

	put_number(body, space->kind);
	put_number(body, space->id);
	put_number(body, space->pages);
	for (number = 0; (leaf = space_next_leaf(space, &number)); number++)
		for (i = 0; i < LEAF_PAGES; i++)
			if (leaf->held & (1ULL << i))
				run_add(&writer, number * LEAF_PAGES + i, leaf->block[i],
					leaf->index[i]);
	run_put(&writer);
	put_number(body, 0);
}

static void put_map(struct body *body, const struct segment_table *table,
		    const struct pagemap *map)
{
	cleanup_free uint32_t *new_numbers = calloc(map->block_count + 1ULL, sizeof(uint32_t));
	size_t i;

	if (!new_numbers) {
		body->err = problem_set(body->problem, ENOMEM, "no memory to write %s",
					body->object.name);
		return;
	}
	put_blocks(body, table, map, blocks_number(map, new_numbers));
	put_number(body, map->space_count);
	for (i = 0; i < map->space_count; i++)
		put_space(body, map->spaces[i], new_numbers);
}

static void table_pin(const struct segment_table *table)
{
	size_t i;

	for (i = 0; i < table->count; i++)
		table->list[i]->pinned = true;
}

/* ---- commit ---- */

static void put_manifest(struct body *body, const struct segment_table *table,
			 const struct manifest *manifest)
{
	const char *meta = manifest->meta ? manifest->meta : "";
	size_t i;

	put_bytes(body, MANIFEST_MAGIC, MANIFEST_MAGIC_BYTES);
	put_segments(body, table);
	put_number(body, strlen(meta));
	put_bytes(body, meta, strlen(meta));
	put_number(body, manifest->file_count);
	for (i = 0; i < manifest->file_count; i++)
		put_file(body, table, manifest->files[i]);
	put_map(body, table, manifest->map);
	put_bytes(body, MANIFEST_END, MANIFEST_MAGIC_BYTES);
	body_flush(body, true);
}

/*
 * A newer owner may come between the check before and the publishing; the check after it makes this
 * node know.  What was published then is not restorable: it is no part of the newer term's chain.
 */
static int publish(struct body *body, const struct manifest *manifest)
{
	struct store *store = body->object.store;
	int err;

	err = object_finish(&body->object, manifest->final ? OBJECT_FINAL : 0, body->problem);
	if (!err)
		err = store_check_term(store, manifest->term, body->problem);
	if (!err && (err = fault("manifest.publish")))
		err = store_problem(store, body->problem, -err, "publish", body->object.name);
	if (!err)
		err = object_publish(&body->object, body->problem);
	if (err)
		return err;
	err = store_check_term(store, manifest->term, body->problem);
	if (err == -ESTALE)
		return err;
	if (err)
		log_warn("%s is committed, but: %s", body->object.name, body->problem->text);
	fault("manifest.published");
	return 0;
}

static int body_write(struct body *body, struct store *store, const struct object_id *id,
		      const struct segment_table *table, const struct manifest *manifest)
{
	int err;

	body->codec = block_codec_create(store->compression, BLOCK_CONTENT_MAX);
	body->plain = malloc(BLOCK_PLAIN_BYTES);
	if (!body->codec || !body->plain)
		return problem_set(body->problem, ENOMEM, "no memory to write a manifest");
	err = object_create(&body->object, store, id, body->problem);
	if (err)
		return err;
	put_manifest(body, table, manifest);
	return body->err ? body->err : publish(body, manifest);
}

static int manifest_check(const struct term *own, const struct manifest *manifest,
			  struct problem *problem)
{
	if (!manifest->term || manifest->term != own->number || !manifest->sequence)
		return problem_set(problem, EINVAL,
				   "a checkpoint of term %llu with number %llu cannot be committed by the "
				   "owner of term %llu", (unsigned long long)manifest->term,
				   (unsigned long long)manifest->sequence,
				   (unsigned long long)own->number);
	if (manifest->meta && strlen(manifest->meta) > MANIFEST_META_MAX)
		return problem_set(problem, E2BIG, "the checkpoint's meta text has more than %u bytes",
				   MANIFEST_META_MAX);
	return 0;
}

void manifest_name(char name[64], const struct term *term, uint64_t sequence)
{
	object_name(name, &(struct object_id){ .kind = OBJECT_MANIFEST, .term = term->number, .number = sequence });
}

int manifest_commit(struct store *store, const struct term *own, const struct manifest *manifest,
		    char name[64], struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_id id = { .kind = OBJECT_MANIFEST, .term = manifest->term,
				.number = manifest->sequence };
	struct problem unheard;
	struct segment_table table = { 0 };
	struct body body = { .object.put.fd = -1, .problem = problem ? problem : &unheard };
	int err = manifest_check(own, manifest, problem);

	if (!err)
		err = store_enter(store, &caller, problem);
	if (!err && table_fill(&table, manifest))
		err = problem_set(problem, ENOMEM, "no memory to write a manifest");
	if (!err)
		err = table_check(&table, problem);
	if (!err)
		err = body_write(&body, store, &id, &table, manifest);
	if (!err)
		table_pin(&table);
	if (!err)
		object_name(name, &id);
	object_discard(&body.object);
	block_codec_destroy(body.codec);
	free(body.plain);
	free(table.list);
	return err;
}
