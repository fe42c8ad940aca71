// SPDX-License-Identifier: GPL-2.0
/* The packer's threads: they read pages, decide what becomes of them, pack, seal. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "cleanup.h"
#include "faults.h"
#include "packed_file.h"
#include "packer_private.h"

/* ---- blocks ---- */

struct block_buffer *block_buffer_create(void)
{
	struct block_buffer *buffer = calloc(1, sizeof(*buffer));

	if (!buffer)
		return NULL;
	buffer->number = BLOCK_ZERO;
	buffer->plain = malloc(BLOCK_PLAIN_BYTES);
	if (buffer->plain)
		return buffer;
	free(buffer);
	return NULL;
}

void block_buffer_destroy(struct block_buffer *buffer)
{
	if (!buffer)
		return;
	seal_wipe(buffer->plain, buffer->used);
	free(buffer->plain);
	free(buffer);
}

static void hashes_put(struct block_buffer *buffer)
{
	unsigned int pages = buffer->header.pages, i;
	uint8_t *to = buffer->plain + pages * PAGE_BYTES;

	for (i = 0; i < pages; i++, to += BLOCK_HASH_BYTES) {
		put_le64(to, buffer->hashes[i].low);
		put_le64(to + 8, buffer->hashes[i].high);
	}
	buffer->header.kind = BLOCK_OF_PAGES;
	buffer->header.content_length = pages * PAGE_BYTES;
}

static void place_set(struct packer *packer, const struct block_buffer *buffer, uint64_t offset,
		      uint32_t stored)
{
	struct block *block;

	pagemap_lock(packer->map);
	if (buffer->file) {
		buffer->file->blocks[buffer->number].offset = offset;
		buffer->file->blocks[buffer->number].stored = stored;
	} else {
		block = &packer->map->blocks[buffer->number];
		block->offset = offset;
		block->stored = stored;
		block->pages = buffer->header.pages;
	}
	pagemap_unlock(packer->map);
}

/* What was claimed of the stream is filled in any case: others wait for it. */
static void block_seal_into(struct packer *packer, struct block_codec *codec,
			    struct block_buffer *buffer, uint32_t stored)
{
	struct problem problem;
	uint64_t offset;
	uint8_t *to = stream_claim(packer->stream, stored, &offset);
	int err;

	if (!to) {
		packer_fail(packer, stream_failure(packer->stream, &problem), &problem);
		return;
	}
	err = block_seal(codec, packer->writer.sealer, &buffer->header, offset, to);
	stream_fill(packer->stream, offset, stored);
	if (!err)
		place_set(packer, buffer, offset, stored);
	else
		packer_fail(packer, store_problem(packer->store, &problem, -err, "seal",
						  packer->writer.name), &problem);
}

/* The buffer is empty then. */
static void block_finish(struct packer *packer, struct block_codec *codec,
			 struct block_buffer *buffer)
{
	uint32_t stored;

	buffer->header.algorithm = packer->store->algorithm;
	if (!buffer->file)
		hashes_put(buffer);
	block_pack(codec, &buffer->header, buffer->plain, &stored);
	block_seal_into(packer, codec, buffer, stored);
	buffer->header = (struct block_header){ 0 };
	buffer->number = BLOCK_ZERO;
}

/* ---- pages ---- */

enum fate { FATE_ZERO, FATE_SAME, FATE_KEPT };

static bool page_zero(const uint8_t *page)
{
	static const uint8_t zero[16];

	return !memcmp(page, zero, sizeof(zero)) &&
	       !memcmp(page, page + sizeof(zero), PAGE_BYTES - sizeof(zero));
}

void verdict_make(struct packer *packer, struct space *space, const uint64_t *addresses,
		  const uint8_t *data, unsigned int count, struct verdict *verdict)
{
	enum sameness same;
	unsigned int i;

	verdict->count = count;
	verdict->kept = verdict->moved = 0;
	for (i = 0; i < count; i++, data += PAGE_BYTES) {
		verdict->fate[i] = page_zero(data) ? FATE_ZERO : FATE_KEPT;
		if (verdict->fate[i] != FATE_ZERO)
			verdict->hashes[i] = page_hash(data);
	}
	pagemap_lock(packer->map);
	for (i = 0; i < count; i++) {
		if (verdict->fate[i] == FATE_ZERO)
			continue;
		same = space_compare(space, addresses[i], verdict->hashes[i]);
		if (same == SPACE_SAME) {
			verdict->fate[i] = FATE_SAME;
			continue;
		}
		verdict->kept++;
		verdict->moved += same == SPACE_MOVES;
	}
	pagemap_unlock(packer->map);
}

static int blocks_grow(struct packer *packer)
{
	uint32_t space = packer->block_space ? packer->block_space * 2 : 64;
	uint32_t *blocks;

	if (packer->block_count < packer->block_space)
		return 0;
	blocks = space ? realloc(packer->blocks, space * sizeof(*blocks)) : NULL;
	if (!blocks)
		return -ENOMEM;
	packer->blocks = blocks;
	packer->block_space = space;
	return 0;
}

/* Under the map's lock. */
static int block_begin(struct packer *packer, struct block_buffer *buffer)
{
	int err = blocks_grow(packer);

	if (!err)
		err = pagemap_add_block(packer->map, packer->segment, &buffer->number);
	if (err)
		return err;
	packer->blocks[packer->block_count++] = buffer->number;
	return 0;
}

static int page_put(struct packer *packer, struct space *space, uint64_t address,
		    enum fate fate, const struct page_hash *hash, struct block_buffer *buffer)
{
	int err = 0;

	switch (fate) {
	case FATE_ZERO:
		err = space_put(space, address, BLOCK_ZERO, 0, (struct page_hash){ 0 });
		packer->stats.pages_zero++;
		break;
	case FATE_SAME:
		packer->stats.pages_same++;
		break;
	case FATE_KEPT:
		err = space_put(space, address, buffer->number, buffer->header.pages, *hash);
		if (!err)
			buffer->hashes[buffer->header.pages++] = *hash;
		packer->stats.pages_packed++;
		break;
	}
	packer->stats.pages++;
	return err;
}

/* Those that are kept lie next to each other behind what the buffer has; data may lie there, too. */
static void pages_move(const struct verdict *verdict, const uint8_t *data, uint8_t *to)
{
	unsigned int i;

	for (i = 0; i < verdict->count; i++, data += PAGE_BYTES) {
		if (verdict->fate[i] != FATE_KEPT)
			continue;
		if (to != data)
			memmove(to, data, PAGE_BYTES);
		to += PAGE_BYTES;
	}
}

int verdict_apply(struct packer *packer, struct space *space, const uint64_t *addresses,
		  const uint8_t *data, const struct verdict *verdict, struct block_buffer *buffer,
		  struct problem *problem)
{
	uint8_t *to = buffer ? buffer->plain + buffer->header.pages * PAGE_BYTES : NULL;
	unsigned int i;
	int err = 0;

	pagemap_lock(packer->map);
	if (verdict->kept && buffer->number == BLOCK_ZERO)
		err = block_begin(packer, buffer);
	for (i = 0; i < verdict->count && !err; i++)
		err = page_put(packer, space, addresses[i], verdict->fate[i], &verdict->hashes[i],
			       buffer);
	packer->stats.pages_moved += verdict->moved;
	pagemap_unlock(packer->map);
	if (err)
		return problem_set(problem, -err, "the page map cannot take the pages at %#llx: %s",
				   (unsigned long long)addresses[0], strerror(-err));
	if (verdict->kept)
		pages_move(verdict, data, to);
	return 0;
}

/* ---- reading ---- */

/* Where a batch is being read: pages from done on, of the piece. */
struct place {
	unsigned int piece;
	uint32_t done;
};

/* What is to be read next, as many pages as the block has room for. */
static unsigned int next_pages(const struct batch *batch, struct place place, unsigned int room,
			       struct iovec *pieces, unsigned int *count, uint64_t *addresses)
{
	unsigned int pages = 0, i;

	for (*count = 0; pages < room && place.piece < batch->count; place.piece++, place.done = 0) {
		const struct piece *piece = &batch->pieces[place.piece];
		uint64_t start = piece->start + (uint64_t)place.done * PAGE_BYTES;
		unsigned int take = piece->pages - place.done;

		if (take > room - pages)
			take = room - pages;
		pieces[(*count)++] = (struct iovec){ (void *)start, (size_t)take * PAGE_BYTES };
		for (i = 0; i < take; i++)
			addresses[pages++] = start + (uint64_t)i * PAGE_BYTES;
	}
	return pages;
}

static void place_move(const struct batch *batch, struct place *place, unsigned int pages)
{
	while (pages) {
		unsigned int left = batch->pieces[place->piece].pages - place->done;
		unsigned int part = pages < left ? pages : left;

		place->done += part;
		pages -= part;
		if (place->done < batch->pieces[place->piece].pages)
			continue;
		place->piece++;
		place->done = 0;
	}
}

/*
 * Also what the process itself may not read: PROT_NONE.  Kernels from 6.12 on can refuse that (proc_mem.force_override);
 * then it is not held, and CRIU sends it with each checkpoint, as our inventory asks for.
 */
static ssize_t read_forbidden(const struct packer_source *source, uint8_t *to, const struct iovec *piece)
{
	char path[64];
	cleanup_close int memory = -1;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/mem", source->pid);
	memory = open(path, O_RDONLY | O_CLOEXEC);
	if (memory < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	got = pread(memory, to, piece->iov_len, (off_t)(uintptr_t)piece->iov_base);
	if (got < 0)
		return errno == EIO || errno == EFAULT ? 0 : -errno;
	return got;
}

/* The number of whole pages that could be read; 0: not even the first; -ESRCH; another error. */
static int pages_read(const struct packer_source *source, uint8_t *to, unsigned int pages,
		      const struct iovec *pieces, unsigned int count)
{
	struct iovec local = { to, (size_t)pages * PAGE_BYTES };
	int err = fault("packer.read");
	ssize_t got;

	if (err)
		return err;
	got = process_vm_readv(source->pid, &local, 1, pieces, count, 0);
	if (got < 0)
		got = errno == EFAULT ? read_forbidden(source, to, pieces) : -errno;
	return got < 0 ? got : got / PAGE_BYTES;
}

/* Pages that lie behind what the block holds. */
static int pages_take(struct packer_thread *thread, struct packer_source *source,
		      const uint64_t *addresses, unsigned int count, struct problem *problem)
{
	struct packer *packer = thread->packer;
	struct block_buffer *buffer = thread->buffer;
	const uint8_t *data = buffer->plain + buffer->header.pages * PAGE_BYTES;
	struct verdict verdict;
	int err = 0;

	verdict_make(packer, source->space, addresses, data, count, &verdict);
	if (verdict.kept)
		err = packer_begin(packer, problem);
	if (!err)
		err = verdict_apply(packer, source->space, addresses, data, &verdict, buffer,
				    problem);
	if (!err && buffer->header.pages == BLOCK_PAGES)
		block_finish(packer, thread->codec, buffer);
	return err;
}

static int read_step(struct packer_thread *thread, const struct batch *batch, struct place *place,
		     struct problem *problem)
{
	struct packer_source *source = batch->source;
	struct block_buffer *buffer = thread->buffer;
	unsigned int room = BLOCK_PAGES - buffer->header.pages, count, pages;
	struct iovec pieces[BATCH_PIECES];
	uint64_t addresses[BLOCK_PAGES];
	int got, err = 0;

	pages = next_pages(batch, *place, room, pieces, &count, addresses);
	got = pages_read(source, buffer->plain + buffer->header.pages * PAGE_BYTES, pages, pieces,
			 count);
	if (got == -ESRCH)
		return got;
	if (got < 0)
		return problem_set(problem, -got, "cannot read the memory of process %d: %s",
				   source->pid, strerror(-got));
	buffer->used = BLOCK_PLAIN_BYTES;
	if (!got)
		/* Unmapped since it was reported: held no longer, whatever was held. */
		space_forget(source->space, addresses[0], addresses[0] + PAGE_BYTES);
	else
		err = pages_take(thread, source, addresses, got, problem);
	place_move(batch, place, got ? got : 1);
	return err;
}

static void batch_read(struct packer_thread *thread, const struct batch *batch)
{
	struct packer_source *source = batch->source;
	struct place place = { 0 };
	struct problem problem;
	int err = 0;

	while (!err && place.piece < batch->count && !packer_failed(thread->packer) &&
	       !__atomic_load_n(&source->gone, __ATOMIC_RELAXED))
		err = read_step(thread, batch, &place, &problem);
	if (err == -ESRCH)
		__atomic_store_n(&source->gone, true, __ATOMIC_RELAXED);
	else if (err)
		packer_fail(thread->packer, err, &problem);
}

/* ---- the threads ---- */

/* While the job runs only some may work; when the limits are lifted the others are told, once. */
static bool thread_may_work(struct packer_thread *thread)
{
	struct packer *packer = thread->packer;
	const struct limits *limits = packer->limits;

	if (limits_hold(limits) && limits->threads)
		return thread->index < limits->threads;
	if (limits && !packer->full_speed) {
		packer->full_speed = true;
		pthread_cond_broadcast(&packer->lifted);
	}
	return true;
}

struct work {
	struct batch *batch;
	struct block_buffer *buffer;
};

static bool work_take(struct packer_thread *thread, struct work *work)
{
	struct packer *packer = thread->packer;

	*work = (struct work){ 0 };
	if (!thread_may_work(thread))
		return false;
	work->buffer = packer->sent;
	if (work->buffer) {
		packer->sent = work->buffer->next;
		if (!packer->sent)
			packer->sent_end = &packer->sent;
		return true;
	}
	work->batch = packer->batches;
	if (!work->batch)
		return false;
	packer->batches = work->batch->next;
	if (!packer->batches)
		packer->batches_end = &packer->batches;
	return true;
}

/* Waits for work; false: there is none any more. */
static bool work_next(struct packer_thread *thread, struct work *work)
{
	struct packer *packer = thread->packer;
	bool taken;

	pthread_mutex_lock(&packer->lock);
	while (!(taken = work_take(thread, work)) && !packer->closing)
		pthread_cond_wait(thread_may_work(thread) ? &packer->work_added : &packer->lifted,
				  &packer->lock);
	pthread_mutex_unlock(&packer->lock);
	return taken;
}

static void work_done(struct packer *packer, const struct work *work)
{
	free(work->batch);
	pthread_mutex_lock(&packer->lock);
	if (work->batch)
		packer->batch_count--;
	if (work->buffer) {
		work->buffer->next = packer->free;
		packer->free = work->buffer;
	}
	pthread_cond_signal(&packer->work_done);
	pthread_mutex_unlock(&packer->lock);
}

static void work_do(struct packer_thread *thread, const struct work *work)
{
	struct packer *packer = thread->packer;

	if (work->batch)
		batch_read(thread, work->batch);
	else if (!packer_failed(packer))
		block_finish(packer, thread->codec, work->buffer);
	work_done(packer, work);
}

static uint64_t thread_cpu_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1000000ULL + time.tv_nsec / 1000;
}

static void *thread_main(void *arg)
{
	static const struct problem no_memory = { "no memory to pack pages" };
	struct packer_thread *thread = arg;
	struct packer *packer = thread->packer;
	struct work work;

	pthread_setname_np(pthread_self(), "ckpt-pack");
	thread->codec = block_codec_create(packer->store->compression, BLOCK_CONTENT_MAX);
	thread->buffer = block_buffer_create();
	if (!thread->codec || !thread->buffer)
		packer_fail(packer, -ENOMEM, &no_memory);
	while (work_next(thread, &work))
		work_do(thread, &work);
	if (!packer_failed(packer) && thread->buffer->header.pages)
		block_finish(packer, thread->codec, thread->buffer);
	block_codec_destroy(thread->codec);
	block_buffer_destroy(thread->buffer);
	thread->cpu_us = thread_cpu_us();
	return NULL;
}

static int thread_start(struct packer *packer)
{
	struct packer_thread *thread = &packer->threads[packer->thread_count];
	int err = fault("packer.thread");

	*thread = (struct packer_thread){ .packer = packer, .index = packer->thread_count };
	if (!err)
		err = -pthread_create(&thread->thread, NULL, thread_main, thread);
	if (!err)
		packer->thread_count++;
	return err;
}

/* With fewer threads than wanted it is slower, no more. The daemon's signals are for its own. */
int packer_threads_start(struct packer *packer, struct problem *problem)
{
	sigset_t all, old;
	int err = 0;

	if (packer->thread_count)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && packer->thread_count < packer->threads_max)
		err = thread_start(packer);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (packer->thread_count)
		return 0;
	return problem_set(problem, -err, "cannot start the threads that pack pages: %s",
			   strerror(-err));
}

void packer_threads_end(struct packer *packer)
{
	pthread_mutex_lock(&packer->lock);
	packer->closing = true;
	pthread_cond_broadcast(&packer->work_added);
	pthread_cond_broadcast(&packer->lifted);
	pthread_mutex_unlock(&packer->lock);
	while (packer->thread_count) {
		struct packer_thread *thread = &packer->threads[--packer->thread_count];

		pthread_join(thread->thread, NULL);
		packer->stats.cpu_us += thread->cpu_us;
	}
}
