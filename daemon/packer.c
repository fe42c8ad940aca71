// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "object.h"
#include "packed_file.h"
#include "packer_private.h"
#include "processors.h"

/* Batches that may wait for each thread. */
#define BATCHES_AHEAD 4
/* A window need not be larger than this, unless a quarter of all is. */
#define WINDOW_ENOUGH (32u << 20)

/* ---- memory ---- */

static size_t maximum(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t minimum(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* All packers of a job share its buffer memory; the least that one can work with it always gets. */
static void memory_take(struct packer *packer)
{
	struct store *store = packer->store;
	size_t thread = 2 * BLOCK_PLAIN_BYTES + block_codec_bytes(store->compression), least, left;

	least = thread + BLOCK_PLAIN_BYTES + STREAM_WINDOW_MIN;
	pthread_mutex_lock(&store->lock);
	left = store->buffer_bytes - minimum(store->buffer_bytes, store->buffer_bytes_used);
	packer->buffer_bytes = maximum(left, least);
	store->buffer_bytes_used += packer->buffer_bytes;
	pthread_mutex_unlock(&store->lock);

	packer->threads_max = minimum(maximum(packer->buffer_bytes / 2 / thread, 1),
				      PACKER_THREADS_MAX);
	packer->threads_max = processors(packer->threads_max);
	left = packer->buffer_bytes - packer->threads_max * thread - BLOCK_PLAIN_BYTES;
	packer->window_bytes = minimum(maximum(WINDOW_ENOUGH, packer->buffer_bytes / 4), left);
}

static void memory_give_back(struct packer *packer)
{
	pthread_mutex_lock(&packer->store->lock);
	packer->store->buffer_bytes_used -= packer->buffer_bytes;
	pthread_mutex_unlock(&packer->store->lock);
}

/* ---- beginning and failing ---- */

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
	packer->batches_end = &packer->batches;
	packer->sent_end = &packer->sent;
	pthread_mutex_init(&packer->begin_lock, NULL);
	pthread_mutex_init(&packer->lock, NULL);
	pthread_cond_init(&packer->work_added, NULL);
	pthread_cond_init(&packer->work_done, NULL);
	pthread_cond_init(&packer->lifted, NULL);
	memory_take(packer);
	*created = packer;
	return 0;
}

void packer_limit(struct packer *packer, const struct limits *limits)
{
	packer->limits = limits;
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
	return stream_create(&packer->stream, &packer->writer, packer->window_bytes, packer->limits,
			     problem);
}

int packer_begin(struct packer *packer, struct problem *problem)
{
	int err = 0;

	pthread_mutex_lock(&packer->begin_lock);
	if (packer_failed(packer))
		err = problem_set(problem, ECANCELED, "the packer has failed");
	else if (!packer->stream)
		err = object_begin(packer, problem);
	if (err)
		packer_fail(packer, err, problem);
	pthread_mutex_unlock(&packer->begin_lock);
	return err;
}

int packer_fail(struct packer *packer, int err, const struct problem *problem)
{
	pthread_mutex_lock(&packer->lock);
	if (!packer->err) {
		packer->err = err;
		packer->problem = *problem;
	}
	pthread_cond_broadcast(&packer->work_done);
	pthread_mutex_unlock(&packer->lock);
	return err;
}

bool packer_failed(struct packer *packer)
{
	return __atomic_load_n(&packer->err, __ATOMIC_RELAXED);
}

/* The map's blocks of this packer are given back once no page is in them. */
static void blocks_settle(struct packer *packer)
{
	uint32_t i;

	for (i = 0; i < packer->block_count; i++)
		pagemap_settle_block(packer->map, packer->blocks[i]);
}

static void pages_forget(struct packer *packer)
{
	if (packer->forgotten || !packer->segment || packer->segment->state != SEGMENT_PENDING)
		return;
	packer->forgotten = true;
	pagemap_lock(packer->map);
	pagemap_forget_segment(packer->map, packer->segment);
	packer->segment->state = SEGMENT_FAILED;
	blocks_settle(packer);
	pagemap_unlock(packer->map);
}

/* After a failure no thread runs and the map does not know of this packer's pages. */
static int sticky(struct packer *packer, struct problem *problem)
{
	if (!packer_failed(packer))
		return 0;
	packer_threads_end(packer);
	pages_forget(packer);
	return problem_set(problem, -packer->err, "%s", packer->problem.text);
}

/* ---- the owner's blocks ---- */

static void buffer_send(struct packer *packer, struct block_buffer *buffer)
{
	pthread_mutex_lock(&packer->lock);
	buffer->next = NULL;
	*packer->sent_end = buffer;
	packer->sent_end = &buffer->next;
	pthread_cond_signal(&packer->work_added);
	pthread_mutex_unlock(&packer->lock);
}

static void buffer_return(struct packer *packer, struct block_buffer *buffer)
{
	buffer->used = BLOCK_PLAIN_BYTES; /* how much of it is not known here */
	pthread_mutex_lock(&packer->lock);
	buffer->next = packer->free;
	packer->free = buffer;
	pthread_mutex_unlock(&packer->lock);
}

/* Waits for one; NULL: the packer has failed, or there is no memory for the first one. */
static struct block_buffer *buffer_wait(struct packer *packer)
{
	struct block_buffer *buffer = NULL;

	pthread_mutex_lock(&packer->lock);
	while (!packer->err) {
		buffer = packer->free;
		if (buffer) {
			packer->free = buffer->next;
			break;
		}
		if (packer->buffer_count <= packer->threads_max)
			buffer = block_buffer_create();
		packer->buffer_count += !!buffer;
		if (buffer || !packer->buffer_count)
			break;
		pthread_cond_wait(&packer->work_done, &packer->lock);
	}
	pthread_mutex_unlock(&packer->lock);
	return buffer;
}

static int buffer_get(struct packer *packer, struct block_buffer **buffer,
		      struct problem *problem)
{
	int err = packer_threads_start(packer, problem);

	if (!err)
		err = packer_begin(packer, problem);
	if (err)
		return err;
	*buffer = buffer_wait(packer);
	if (*buffer)
		(*buffer)->file = NULL;
	else if (!packer_failed(packer))
		return problem_set(problem, ENOMEM, "no memory to write %s", packer->writer.name);
	return *buffer ? 0 : -ECANCELED;
}

/* ---- pages ---- */

static int page_pack(struct packer *packer, struct space *space, uint64_t address,
		     const void *data, struct problem *problem)
{
	struct verdict verdict;
	int err = 0;

	verdict_make(packer, space, &address, data, 1, &verdict);
	if (verdict.kept && !packer->filling)
		err = buffer_get(packer, &packer->filling, problem);
	if (!err)
		err = verdict_apply(packer, space, &address, data, &verdict, packer->filling,
				    problem);
	if (err || !packer->filling)
		return err;
	packer->filling->used = BLOCK_PLAIN_BYTES;
	if (packer->filling->header.pages == BLOCK_PAGES)
		buffer_send(packer, take_ptr(packer->filling));
	return 0;
}

int packer_page(struct packer *packer, struct space *space, uint64_t address, const void *data,
		struct problem *problem)
{
	struct problem own = { 0 };
	int err = sticky(packer, problem);

	if (err)
		return err;
	err = page_pack(packer, space, address, data, &own);
	if (err)
		packer_fail(packer, err, &own);
	return sticky(packer, problem);
}

/* ---- reading ---- */

static void batch_send(struct packer *packer)
{
	struct batch *batch = packer->gathering;

	if (!batch)
		return;
	packer->gathering = NULL;
	pthread_mutex_lock(&packer->lock);
	while (packer->batch_count >= packer->thread_count * BATCHES_AHEAD && !packer->err)
		pthread_cond_wait(&packer->work_done, &packer->lock);
	if (!packer->err) {
		*packer->batches_end = take_ptr(batch);
		packer->batches_end = &(*packer->batches_end)->next;
		packer->batch_count++;
		pthread_cond_signal(&packer->work_added);
	}
	pthread_mutex_unlock(&packer->lock);
	free(batch); /* of a packer that has failed */
}

static struct batch *batch_get(struct packer *packer, struct packer_source *source)
{
	struct batch *batch = packer->gathering;

	if (batch && (batch->source != source || batch->count == BATCH_PIECES ||
		      batch->pages == BATCH_PAGES)) {
		batch_send(packer);
		batch = NULL;
	}
	if (!batch)
		batch = malloc(sizeof(*batch));
	if (batch && !packer->gathering)
		*batch = (struct batch){ .source = source };
	packer->gathering = batch;
	return batch;
}

int packer_read(struct packer *packer, struct packer_source *source, uint64_t start, uint64_t end,
		struct problem *problem)
{
	struct problem own = { 0 };
	int err = packer_failed(packer) ? 0 : packer_threads_start(packer, &own);

	while (start < end && !err && !packer_failed(packer)) {
		struct batch *batch = batch_get(packer, source);
		uint64_t pages = (end - start) / PAGE_BYTES;

		if (!batch) {
			err = problem_set(&own, ENOMEM, "no memory to pack pages");
			break;
		}
		pages = minimum(pages, BATCH_PAGES - batch->pages);
		batch->pieces[batch->count++] = (struct piece){ start, pages };
		batch->pages += pages;
		start += pages * PAGE_BYTES;
	}
	if (err)
		packer_fail(packer, err, &own);
	return sticky(packer, problem);
}

int packer_wait(struct packer *packer, struct problem *problem)
{
	batch_send(packer);
	pthread_mutex_lock(&packer->lock);
	while (packer->batch_count)
		pthread_cond_wait(&packer->work_done, &packer->lock);
	pthread_mutex_unlock(&packer->lock);
	return sticky(packer, problem);
}

uint64_t packer_pages(struct packer *packer)
{
	uint64_t pages;

	pagemap_lock(packer->map);
	pages = packer->stats.pages_packed;
	pagemap_unlock(packer->map);
	return pages;
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

static int file_add_block(struct packer *packer, struct packed_file *file, uint32_t length,
			  bool zero)
{
	int err;

	pagemap_lock(packer->map);
	/* The real length in the segment is known when the block is packed. */
	err = packed_file_add(file, &(struct file_block){ .length = length, .stored = !zero });
	pagemap_unlock(packer->map);
	return err;
}

static int file_block_send(struct packer *packer, struct packed_file *file,
			   struct block_buffer *buffer, uint32_t length, struct problem *problem)
{
	bool zero = all_zero(buffer->plain, length);
	int err = file_add_block(packer, file, length, zero);

	if (err || zero) {
		buffer_return(packer, buffer);
		return err ? problem_set(problem, -err, "no memory to pack %s", file->name) : 0;
	}
	if (!file->segment)
		file->segment = segment_get(packer->segment);
	buffer->file = file;
	buffer->number = file->count - 1;
	buffer->header.kind = BLOCK_OF_FILE;
	buffer->header.content_length = length;
	buffer->used = BLOCK_PLAIN_BYTES;
	buffer_send(packer, buffer);
	return 0;
}

/* *unreadable: the file, not the store, is the cause of the error. */
static int file_pack(struct packer *packer, struct packed_file *file, int fd, bool *unreadable,
		     struct problem *problem)
{
	struct block_buffer *buffer;
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
			buffer_return(packer, buffer);
	} while (!err && got == BLOCK_CONTENT_MAX);
	*unreadable = got < 0;
	return got < 0 ? problem_set(problem, -got, "cannot read %s: %s", file->name,
				     strerror(-got)) : err;
}

/* The threads use it until the packer has ended. */
static int file_keep(struct packer *packer, struct packed_file *file)
{
	struct packed_file **files = reallocarray(packer->files, packer->file_count + 1,
						  sizeof(*files));

	if (!files)
		return -ENOMEM;
	packer->files = files;
	files[packer->file_count++] = packed_file_get(file);
	return 0;
}

static void files_drop(struct packer *packer)
{
	while (packer->file_count)
		packed_file_free(packer->files[--packer->file_count]);
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
	if (!file || file_keep(packer, file)) {
		packed_file_free(file);
		return problem_set(problem, ENOMEM, "no memory to pack %s", name);
	}
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

static int segment_publish(struct packer *packer, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	int err = store_enter(packer->store, &caller, problem);

	if (!err)
		err = object_finish(&packer->writer, 0, problem);
	return err ? err : object_publish(&packer->writer, problem);
}

static void stats_add_stream(struct packer *packer)
{
	struct stream_stats stats = stream_stats(packer->stream);

	packer->stats.busy_us = stats.busy_us;
	packer->stats.chunk_bytes = stats.chunk_bytes;
	packer->stats.chunks = stats.chunks;
	packer->stats.direct = stats.direct;
}

static int packer_flush(struct packer *packer, struct problem *problem)
{
	int err;

	batch_send(packer);
	if (packer->filling)
		buffer_send(packer, take_ptr(packer->filling));
	packer_threads_end(packer);
	if (packer_failed(packer) || !packer->stream)
		return sticky(packer, problem);
	err = stream_end(packer->stream, problem);
	stats_add_stream(packer);
	if (err || packer->writer.length == OBJECT_HEADER_BYTES)
		return err;
	packer->stats.bytes_written = packer->writer.length;
	return segment_publish(packer, problem);
}

static void batches_free(struct packer *packer)
{
	struct batch *batch;

	while ((batch = packer->batches)) {
		packer->batches = batch->next;
		free(batch);
	}
	free(packer->gathering);
}

static void buffers_free(struct block_buffer *buffer)
{
	while (buffer) {
		struct block_buffer *next = buffer->next;

		block_buffer_destroy(buffer);
		buffer = next;
	}
}

static void packer_free(struct packer *packer)
{
	identity_scope struct identity caller = { 0 };

	if (packer->stream)
		stream_destroy(packer->stream);
	if (store_enter(packer->store, &caller, NULL))
		packer->writer.begun = false;
	object_discard(&packer->writer);
	batches_free(packer);
	buffers_free(packer->sent);
	buffers_free(packer->free);
	block_buffer_destroy(packer->filling);
	files_drop(packer);
	segment_put(packer->segment);
	memory_give_back(packer);
	pthread_cond_destroy(&packer->lifted);
	pthread_cond_destroy(&packer->work_done);
	pthread_cond_destroy(&packer->work_added);
	pthread_mutex_destroy(&packer->lock);
	pthread_mutex_destroy(&packer->begin_lock);
	free(packer->files);
	free(packer->blocks);
	free(packer);
}

int packer_commit(struct packer *packer, struct packer_stats *stats, struct problem *problem)
{
	struct problem own = { 0 };
	int err = sticky(packer, problem);

	if (err)
		return err;
	err = packer_flush(packer, &own);
	if (err) {
		packer_fail(packer, err, &own);
		return sticky(packer, problem);
	}
	if (packer->segment) {
		packer->segment->state = SEGMENT_COMMITTED;
		packer->segment->bytes = packer->stats.bytes_written;
		packer->segment->measured = true;
		blocks_settle(packer);
	}
	if (stats)
		*stats = packer->stats;
	packer_free(packer);
	return 0;
}

void packer_abort(struct packer *packer)
{
	static const struct problem aborted = { "given up" };

	packer_fail(packer, -ECANCELED, &aborted);
	packer_threads_end(packer);
	pages_forget(packer);
	packer_free(packer);
}
