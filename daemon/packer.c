// SPDX-License-Identifier: GPL-2.0
#include "packer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "cleanup.h"
#include "object.h"
#include "packed_file.h"
#include "pagemap_private.h"
#include "stream.h"

/* What a block of the stream is for. */
struct purpose {
	struct packed_file *file; /* NULL: pages */
	uint32_t number;          /* of the block in the map, or in the file */
};

struct packer {
	struct store *store;
	struct pagemap *map;
	struct object_id id;
	struct segment *segment;
	struct packer_stats stats;
	int err; /* sticky; the pages are forgotten then */
	struct problem problem;

	struct object_writer writer;
	struct stream *stream; /* NULL: nothing was packed */
	struct stream_buffer *filling;
	uint32_t filling_block;
	struct page_hash hashes[BLOCK_PAGES]; /* of the pages in filling */
	struct purpose *purposes; /* of the blocks that were sent */
	uint32_t count;
	uint32_t space;
};

int packer_create(struct packer **created, struct store *store, const struct term *term,
		  struct pagemap *map, struct problem *problem)
{
	struct packer *packer = calloc(1, sizeof(*packer));

	if (!packer)
		return problem_set(problem, ENOMEM, "no memory to pack pages");
	packer->store = store;
	packer->map = map;
	packer->id = (struct object_id){ .kind = OBJECT_SEGMENT, .term = term->number };
	packer->writer.put.fd = -1;
	*created = packer;
	return 0;
}

static void purposes_drop(struct packer *packer)
{
	while (packer->count)
		packed_file_free(packer->purposes[--packer->count].file);
}

/* The map's blocks of this packer are given back once no page is in them. */
static void blocks_settle(struct packer *packer)
{
	uint32_t i;

	for (i = 0; i < packer->count; i++)
		if (!packer->purposes[i].file)
			pagemap_settle_block(packer->map, packer->purposes[i].number);
}

static void pages_forget(struct packer *packer)
{
	if (!packer->segment || packer->segment->state != SEGMENT_PENDING)
		return;
	pagemap_forget_segment(packer->map, packer->segment);
	packer->segment->state = SEGMENT_FAILED;
	blocks_settle(packer);
	if (packer->filling)
		pagemap_settle_block(packer->map, packer->filling_block);
	purposes_drop(packer);
}

static int packer_fail(struct packer *packer, int err, const struct problem *problem)
{
	packer->err = err;
	packer->problem = *problem;
	pages_forget(packer);
	return err;
}

static int sticky(const struct packer *packer, struct problem *problem)
{
	if (!packer->err)
		return 0;
	return problem_set(problem, -packer->err, "%s", packer->problem.text);
}

static int object_begin(struct packer *packer, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	int err = store_enter(packer->store, &caller, problem);

	if (!err)
		err = store_next_number(packer->store, packer->id.term, &packer->id.number, problem);
	if (!err)
		err = object_create(&packer->writer, packer->store, &packer->id, problem);
	if (err)
		return err;
	packer->segment = segment_create(packer->store, packer->id.term, packer->id.number,
					 SEGMENT_PENDING);
	if (!packer->segment)
		return problem_set(problem, ENOMEM, "no memory to write %s", packer->writer.name);
	return stream_create(&packer->stream, &packer->writer, problem);
}

/* Room for the block that is being filled and for one of a file. */
static int purposes_grow(struct packer *packer)
{
	uint32_t space = packer->space ? packer->space * 2 : 64;
	struct purpose *purposes;

	if (packer->count + 2 <= packer->space)
		return 0;
	purposes = space ? realloc(packer->purposes, space * sizeof(*purposes)) : NULL;
	if (!purposes)
		return -ENOMEM;
	packer->purposes = purposes;
	packer->space = space;
	return 0;
}

static int buffer_get(struct packer *packer, struct stream_buffer **buffer,
		      struct problem *problem)
{
	int err = packer->stream ? 0 : object_begin(packer, problem);

	if (err)
		return err;
	if (purposes_grow(packer))
		return problem_set(problem, ENOMEM, "no memory to write %s", packer->writer.name);
	*buffer = stream_buffer(packer->stream);
	return *buffer ? 0 : stream_failure(packer->stream, problem);
}

static int buffer_send(struct packer *packer, struct stream_buffer *buffer,
		       const struct purpose *purpose, struct problem *problem)
{
	uint32_t number;

	packer->purposes[packer->count++] = *purpose;
	return stream_send(packer->stream, buffer, &number) ?
		stream_failure(packer->stream, problem) : 0;
}

/* ---- pages ---- */

static bool page_zero(const uint8_t *page)
{
	static const uint8_t zero[16];

	return !memcmp(page, zero, sizeof(zero)) &&
	       !memcmp(page, page + sizeof(zero), PAGE_BYTES - sizeof(zero));
}

static int filling_begin(struct packer *packer, struct problem *problem)
{
	struct stream_buffer *buffer;
	int err = buffer_get(packer, &buffer, problem);

	if (err)
		return err;
	err = pagemap_add_block(packer->map, packer->segment, &packer->filling_block);
	if (err) {
		stream_return(packer->stream, buffer);
		return problem_set(problem, -err, "no memory for the page map");
	}
	buffer->header.kind = BLOCK_OF_PAGES;
	packer->filling = buffer;
	return 0;
}

static int filling_send(struct packer *packer, struct problem *problem)
{
	struct stream_buffer *buffer = packer->filling;
	unsigned int pages = buffer->header.pages, i;
	uint8_t *to = buffer->plain + pages * PAGE_BYTES;

	for (i = 0; i < pages; i++, to += BLOCK_HASH_BYTES) {
		put_le64(to, packer->hashes[i].low);
		put_le64(to + 8, packer->hashes[i].high);
	}
	buffer->header.content_length = pages * PAGE_BYTES;
	packer->map->blocks[packer->filling_block].pages = pages;
	packer->filling = NULL;
	return buffer_send(packer, buffer, &(struct purpose){ .number = packer->filling_block },
			   problem);
}

static int page_add(struct packer *packer, struct space *space, uint64_t address,
		    const void *data, struct page_hash hash, struct problem *problem)
{
	struct block_header *header;
	int err = packer->filling ? 0 : filling_begin(packer, problem);

	if (err)
		return err;
	header = &packer->filling->header;
	err = space_put(space, address, packer->filling_block, header->pages, hash);
	if (err)
		return problem_set(problem, -err, "the page map cannot take the page at %#llx: %s",
				   (unsigned long long)address, strerror(-err));
	memcpy(packer->filling->plain + header->pages * PAGE_BYTES, data, PAGE_BYTES);
	packer->hashes[header->pages++] = hash;
	packer->stats.pages_packed++;
	return header->pages == BLOCK_PAGES ? filling_send(packer, problem) : 0;
}

static int zero_add(struct packer *packer, struct space *space, uint64_t address,
		    struct problem *problem)
{
	int err = space_put(space, address, BLOCK_ZERO, 0, (struct page_hash){ 0 });

	if (err)
		return problem_set(problem, -err, "the page map cannot take the page at %#llx: %s",
				   (unsigned long long)address, strerror(-err));
	packer->stats.pages_zero++;
	return 0;
}

int packer_page(struct packer *packer, struct space *space, uint64_t address, const void *data,
		struct problem *problem)
{
	struct problem own = { 0 };
	struct page_hash hash;
	int err = sticky(packer, problem);

	if (err)
		return err;
	if (page_zero(data)) {
		err = zero_add(packer, space, address, &own);
	} else {
		hash = page_hash(data);
		if (space_same(space, address, hash))
			packer->stats.pages_same++;
		else
			err = page_add(packer, space, address, data, hash, &own);
	}
	if (err) {
		packer_fail(packer, err, &own);
		return sticky(packer, problem);
	}
	packer->stats.pages++;
	return 0;
}

/* ---- files ---- */

/* Bytes read, less than length only at the end; or -errno. */
static ssize_t read_fully(int fd, uint8_t *to, size_t length)
{
	size_t got = 0;

	while (got < length) {
		ssize_t done = read(fd, to + got, length - got);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (!done)
			break;
		got += done;
	}
	return got;
}

static bool all_zero(const uint8_t *data, size_t length)
{
	return !data[0] && !memcmp(data, data + 1, length - 1);
}

static int file_block_send(struct packer *packer, struct packed_file *file,
			   struct stream_buffer *buffer, uint32_t length, struct problem *problem)
{
	struct purpose purpose = { .file = file, .number = file->count };
	bool zero = all_zero(buffer->plain, length);
	/* The real length in the segment is known when the packer commits. */
	int err = packed_file_add(file, &(struct file_block){ .length = length, .stored = !zero });

	if (err || zero) {
		stream_return(packer->stream, buffer);
		return err ? problem_set(problem, -err, "no memory to pack %s", file->name) : 0;
	}
	if (!file->segment)
		file->segment = segment_get(packer->segment);
	packed_file_get(file);
	buffer->header.kind = BLOCK_OF_FILE;
	buffer->header.content_length = length;
	return buffer_send(packer, buffer, &purpose, problem);
}

/* *unreadable: the file, not the store, is the cause of the error. */
static int file_pack(struct packer *packer, struct packed_file *file, int fd, bool *unreadable,
		     struct problem *problem)
{
	struct stream_buffer *buffer;
	ssize_t got;
	int err;

	do {
		err = buffer_get(packer, &buffer, problem);
		if (err)
			return err;
		got = read_fully(fd, buffer->plain, BLOCK_CONTENT_MAX);
		if (got > 0)
			err = file_block_send(packer, file, buffer, got, problem);
		else
			stream_return(packer->stream, buffer);
	} while (!err && got == BLOCK_CONTENT_MAX);
	*unreadable = got < 0;
	return got < 0 ? problem_set(problem, -got, "cannot read %s: %s", file->name,
				     strerror(-got)) : err;
}

int packer_file(struct packer *packer, const char *name, int fd, struct packed_file **packed,
		struct problem *problem)
{
	bool unreadable = false;
	struct problem own = { 0 };
	struct packed_file *file;
	int err = sticky(packer, problem);

	if (err)
		return err;
	if (!*name || strlen(name) > PACKED_FILE_NAME_MAX)
		return problem_set(problem, EINVAL, "a packed file's name has 1 to %d bytes",
				   PACKED_FILE_NAME_MAX);
	file = packed_file_create(name, NULL);
	if (!file)
		return problem_set(problem, ENOMEM, "no memory to pack %s", name);
	err = file_pack(packer, file, fd, &unreadable, &own);
	if (!err) {
		*packed = file;
		return 0;
	}
	packed_file_free(file);
	if (unreadable)
		return problem_set(problem, -err, "%s", own.text);
	packer_fail(packer, err, &own);
	return sticky(packer, problem);
}

/* ---- the end ---- */

static void place_block(struct packer *packer, const struct purpose *purpose,
			const struct placement *placement)
{
	if (purpose->file) {
		purpose->file->blocks[purpose->number].offset = placement->offset;
		purpose->file->blocks[purpose->number].stored = placement->stored;
	} else {
		packer->map->blocks[purpose->number].offset = placement->offset;
		packer->map->blocks[purpose->number].stored = placement->stored;
	}
}

static void places_set(struct packer *packer)
{
	uint32_t i;

	for (i = 0; i < packer->count; i++)
		place_block(packer, &packer->purposes[i], stream_placement(packer->stream, i));
	packer->segment->state = SEGMENT_COMMITTED;
	blocks_settle(packer);
	purposes_drop(packer);
}

static int segment_publish(struct packer *packer, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	int err = store_enter(packer->store, &caller, problem);

	if (!err)
		err = object_finish(&packer->writer, 0, problem);
	return err ? err : object_publish(&packer->writer, problem);
}

static int packer_flush(struct packer *packer, struct problem *problem)
{
	int err = packer->filling ? filling_send(packer, problem) : 0;

	if (!err)
		err = stream_end(packer->stream, problem);
	if (err || !packer->count)
		return err;
	packer->stats.bytes_written = packer->writer.length;
	return segment_publish(packer, problem);
}

static void packer_free(struct packer *packer)
{
	identity_scope struct identity caller = { 0 };

	if (packer->filling)
		stream_return(packer->stream, packer->filling);
	if (packer->stream)
		stream_destroy(packer->stream);
	if (store_enter(packer->store, &caller, NULL))
		packer->writer.begun = false;
	object_discard(&packer->writer);
	purposes_drop(packer);
	segment_put(packer->segment);
	free(packer->purposes);
	free(packer);
}

int packer_commit(struct packer *packer, struct packer_stats *stats, struct problem *problem)
{
	struct problem own = { 0 };
	int err = sticky(packer, problem);

	if (err)
		return err;
	if (packer->stream) {
		err = packer_flush(packer, &own);
		if (err) {
			packer_fail(packer, err, &own);
			return sticky(packer, problem);
		}
		places_set(packer);
	}
	if (stats)
		*stats = packer->stats;
	packer_free(packer);
	return 0;
}

void packer_abort(struct packer *packer)
{
	pages_forget(packer);
	packer_free(packer);
}
