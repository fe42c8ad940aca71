// SPDX-License-Identifier: GPL-2.0
/* The workers of lazy_serve.h: read blocks of pages and put them in place. */
#include "lazy_serve.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "block.h"
#include "bytes.h"
#include "clock.h"
#include "faults.h"
#include "segment.h"
#include "segment_reader.h"
#include "store_private.h"

/* Blocks of the order whose reading begins before they are wanted. */
#define AHEAD 32
#define STORE_RETRY_S 1
/* Until the event that keeps pages from being put in place has been read. */
#define BUSY_NS 100000
#define BUSY_MS 60000

struct worker {
	struct lazy_server *server;
	struct segment_reader *reader;
	uint8_t *plain;
	bool early;                     /* the block has pages that have no place yet */
};

/* ---- which block ---- */

void lazy_fill_urgent_locked(struct lazy_server *server, uint32_t block)
{
	uint32_t count = server->table.head->block_count;

	if (server->states[block] != LAZY_BLOCK_AWAY)
		return;
	server->states[block] = LAZY_BLOCK_URGENT;
	server->urgent[(server->urgent_first + server->urgent_count++) % count] = block;
	pthread_cond_signal(&server->work);
}

static bool next_block_locked(struct worker *worker, uint32_t *block)
{
	struct lazy_server *server = worker->server;
	const struct lazy_head *head = server->table.head;

	if (server->urgent_count) {
		*block = server->urgent[server->urgent_first];
		server->urgent_first = (server->urgent_first + 1) % head->block_count;
		server->urgent_count--;
		return true;
	}
	while (server->restored && server->next < head->block_count && !fault("lazy.no_ahead")) {
		*block = server->table.order[server->next++];
		if (server->states[*block] == LAZY_BLOCK_AWAY)
			return true;
	}
	return false;
}

static void announce_ahead(struct worker *worker, uint32_t next)
{
	struct lazy_server *server = worker->server;

	if (next + AHEAD < server->table.head->block_count)
		segment_reader_announce(worker->reader, &server->blocks[server->table.order[next + AHEAD]]);
}

/* ---- putting pages in place ---- */

struct run {
	struct lazy_process *process;
	uint32_t first;                 /* ref */
	uint32_t pages;
	uint64_t address;
	uint32_t index;                 /* in the block */
};

static void run_given(struct lazy_server *server, const struct run *run, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		lazy_memory_given(&run->process->memory, server->table.refs[run->first + i]);
	if (!run->process->memory.missing_count)
		lazy_wake(server);
}

/*
 * From 6.9 on the kernel looks for the mapping before it looks for events that are under way: what is not
 * found may have been moved, or its place taken, by what is yet to be told.  Events are read under the lock,
 * so one that was under way then still is.
 */
static bool is_conclusive(struct lazy_server *server, const struct run *run)
{
	return lazy_settle_locked(server, run->process);
}

/* Returns how many pages of the run are settled; 0: the kernel is busy. */
static uint32_t run_copy_locked(struct worker *worker, struct run *run)
{
	struct lazy_server *server = worker->server;
	struct uffdio_copy copy = {
		.dst = run->address, .src = (uintptr_t)worker->plain + (uint64_t)run->index * PAGE_BYTES,
		.len = (uint64_t)run->pages * PAGE_BYTES,
	};
	uint32_t done;
	int err = ioctl(run->process->uffd, UFFDIO_COPY, &copy) ? errno : 0;

	done = !err ? run->pages : copy.copy > 0 ? (uint32_t)(copy.copy / PAGE_BYTES) : 0;
	run_given(server, run, done);
	/* Some were copied: the rest is tried again, and then says why not. */
	if (done || !err || err == EAGAIN)
		return done;
	/* Several mappings are refused like none. */
	if (err == ENOENT && run->pages > 1) {
		run->pages = 1;
		return run_copy_locked(worker, run);
	}
	if ((err == ENOENT || err == EEXIST) && !is_conclusive(server, run))
		return 0;
	switch (err) {
	case ESRCH:
		lazy_process_gone_locked(server, run->process);
		break;
	case ENOENT:
		/* All was watched once, so its mapping is gone, or a child never had it (MADV_DONTFORK). */
		if (server->restored)
			run_given(server, run, 1);
		else
			worker->early = true;
		break;
	case EEXIST:
		lazy_fail_locked(server, "a page of the job at %#lx is there that should be missing", run->address);
		break;
	default:
		lazy_fail_locked(server, "the job's memory cannot be put in place at %#lx: %s", run->address,
				 strerror(err));
	}
	return 1;
}

static uint32_t block_end(const struct lazy_server *server, uint32_t block)
{
	return server->table.blocks[block + 1].first;
}

/* The pages from ref on that lie in the block as they lie in the process. */
static struct run run_at(struct lazy_server *server, struct lazy_process *process, uint32_t ref, uint32_t end)
{
	struct lazy_memory *memory = &process->memory;
	const uint32_t *refs = server->table.refs;
	const struct lazy_page *pages = server->table.pages;
	struct run run = { .process = process, .first = ref, .pages = 1,
			   .address = lazy_memory_address(memory, refs[ref]),
			   .index = pages[refs[ref]].index };

	while (ref + run.pages < end && lazy_memory_misses(memory, refs[ref + run.pages]) &&
	       pages[refs[ref + run.pages]].index == run.index + run.pages &&
	       lazy_memory_address(memory, refs[ref + run.pages]) == run.address + run.pages * PAGE_BYTES)
		run.pages++;
	return run;
}

/* False: some could not be put in place now. */
static bool give_process_locked(struct worker *worker, struct lazy_process *process, uint32_t block)
{
	struct lazy_server *server = worker->server;
	uint32_t ref = server->table.blocks[block].first, end = block_end(server, block);

	while (ref < end && !process->done && !server->failed) {
		struct run run;
		uint32_t done;

		if (!lazy_memory_misses(&process->memory, server->table.refs[ref])) {
			ref++;
			continue;
		}
		run = run_at(server, process, ref, end);
		done = run_copy_locked(worker, &run);
		if (!done)
			return false;
		ref += done;
	}
	return true;
}

static bool give_locked(struct worker *worker, uint32_t block)
{
	bool all = true;

	for (struct lazy_process *process = worker->server->processes; process; process = process->next)
		if (!process->done)
			all &= give_process_locked(worker, process, block);
	return all;
}

static void note_hashes(struct worker *worker, uint32_t block)
{
	struct lazy_table *table = &worker->server->table;

	for (uint32_t ref = table->blocks[block].first; ref < block_end(worker->server, block); ref++) {
		uint32_t page = table->refs[ref];
		const uint8_t *hash = worker->plain + table->blocks[block].pages * PAGE_BYTES +
				      table->pages[page].index * BLOCK_HASH_BYTES;

		table->hashes[page] = (struct page_hash){ .low = get_le64(hash), .high = get_le64(hash + 8) };
	}
}

/* Drops the lock while the kernel is busy with the process. */
static void block_give_locked(struct worker *worker, uint32_t block)
{
	const struct timespec busy = { .tv_nsec = BUSY_NS };
	struct lazy_server *server = worker->server;
	int64_t begin = clock_ms();

	worker->early = false;
	while (!give_locked(worker, block) && !server->failed && !server->closing) {
		if (clock_ms() - begin > BUSY_MS)
			lazy_fail_locked(server, "the kernel lets no memory be put in place for %d s", BUSY_MS / 1000);
		pthread_mutex_unlock(&server->lock);
		nanosleep(&busy, NULL);
		pthread_mutex_lock(&server->lock);
	}
	if (!worker->early)
		server->table.head->given += block_end(server, block) - server->table.blocks[block].first;
	server->states[block] = worker->early ? LAZY_BLOCK_AWAY : LAZY_BLOCK_GIVEN;
}

/* ---- reading ---- */

/* What is missing because the whole store is, is not damaged. */
static bool is_damaged(struct worker *worker, int err)
{
	struct term term;

	return err == -EBADMSG && store_read_term(worker->server->store, &term, NULL) == 0 && term.number;
}

/* The job's threads wait as long as the store is away. */
static int block_read(struct worker *worker, uint32_t block)
{
	const struct timespec later = { .tv_sec = STORE_RETRY_S };
	struct lazy_server *server = worker->server;
	struct problem problem;
	int err;

	while ((err = segment_reader_block(worker->reader, &server->blocks[block], worker->plain, &problem))) {
		if (is_damaged(worker, err) || err == -ENOMEM)
			break;
		__atomic_store_n(&server->table.head->waiting, 1, __ATOMIC_RELAXED);
		nanosleep(&later, NULL);
		if (__atomic_load_n(&server->closing, __ATOMIC_RELAXED))
			return -ECANCELED;
		segment_reader_forget(worker->reader);
	}
	if (err) {
		pthread_mutex_lock(&server->lock);
		lazy_fail_locked(server, "%s", problem.text);
		pthread_mutex_unlock(&server->lock);
		return err;
	}
	__atomic_store_n(&server->table.head->waiting, 0, __ATOMIC_RELAXED);
	return 0;
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct lazy_server *server = worker->server;
	uint32_t block, next;

	pthread_mutex_lock(&server->lock);
	while (!server->closing && !server->failed) {
		if (!next_block_locked(worker, &block)) {
			pthread_cond_wait(&server->work, &server->lock);
			continue;
		}
		server->states[block] = LAZY_BLOCK_LOADING;
		next = server->next;
		pthread_mutex_unlock(&server->lock);
		announce_ahead(worker, next);
		if (block_read(worker, block) == 0) {
			note_hashes(worker, block);
			pthread_mutex_lock(&server->lock);
			block_give_locked(worker, block);
		} else {
			pthread_mutex_lock(&server->lock);
		}
	}
	pthread_mutex_unlock(&server->lock);
	segment_reader_destroy(worker->reader);
	free(worker->plain);
	free(worker);
	return NULL;
}

/* ---- beginning and end ---- */

static struct worker *worker_create(struct lazy_server *server)
{
	struct worker *worker = calloc(1, sizeof(*worker));

	if (!worker)
		return NULL;
	worker->server = server;
	worker->reader = segment_reader_create(server->store);
	worker->plain = aligned_alloc(PAGE_BYTES, (BLOCK_PLAIN_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
	return worker->reader && worker->plain ? worker : NULL;
}

/* In the table's order blocks of one segment follow each other. */
static int make_blocks(struct lazy_server *server)
{
	const struct lazy_table *table = &server->table;
	struct segment *segment = NULL;

	server->blocks = calloc(table->head->block_count + 1ULL, sizeof(*server->blocks));
	if (!server->blocks)
		return -ENOMEM;
	for (uint32_t i = 0; i < table->head->block_count; i++) {
		const struct lazy_block *from = &table->blocks[table->order[i]];

		if (!segment || segment->term != from->term || segment->number != from->number)
			segment = segment_create(server->store, from->term, from->number, SEGMENT_COMMITTED);
		if (!segment)
			return -ENOMEM;
		server->blocks[table->order[i]] = (struct block){
			.segment = segment, .offset = from->offset, .stored = from->stored,
			.pages = (uint16_t)from->pages };
	}
	return 0;
}

int lazy_fill_start(struct lazy_server *server, struct problem *problem)
{
	uint32_t count = server->table.head->block_count;
	int ret = make_blocks(server);

	server->states = calloc(count + 1ULL, sizeof(*server->states));
	server->urgent = calloc(count + 1ULL, sizeof(*server->urgent));
	if (ret || !server->states || !server->urgent)
		return problem_set(problem, ENOMEM, "no memory to give the job its memory");
	/* More than processors: most of them wait for the storage. */
	for (unsigned int i = 0; i < LAZY_WORKERS_MAX; i++) {
		struct worker *worker = worker_create(server);

		if (!worker || pthread_create(&server->workers[i], NULL, work, worker))
			return problem_set(problem, ENOMEM, "cannot start threads that read the job's memory");
		server->worker_count++;
	}
	return 0;
}

void lazy_fill_end(struct lazy_server *server)
{
	pthread_mutex_lock(&server->lock);
	__atomic_store_n(&server->closing, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&server->work);
	pthread_mutex_unlock(&server->lock);
	while (server->worker_count)
		pthread_join(server->workers[--server->worker_count], NULL);
}
