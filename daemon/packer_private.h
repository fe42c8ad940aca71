/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The packer's insides.  Its owner gives it work; its threads do it:
 *
 *   packer_read()  ─> batches of page ranges ──> thread: read, zero? same?, gather into its block ─┐
 *   packer_page()  ─> the owner's block ─┐                                                         │
 *   packer_file()  ─> blocks of files ───┴─────> thread: ───────────────────> pack, seal into the stream
 *
 * A page is in one batch at a time, so no two threads decide about one page.  The page map's lock is
 * taken twice for each read of up to 64 pages, and once for each block.
 *
 * Memory: each thread has one block and a codec; the owner has as many blocks as there are threads,
 * and one more; the rest of the class's buffer_memory is the stream's window.
 */
#ifndef CKPT_PACKER_PRIVATE_H
#define CKPT_PACKER_PRIVATE_H

#include <pthread.h>

#include "packer.h"
#include "pagemap_private.h"
#include "stream.h"

#define PACKER_THREADS_MAX 64
#define BATCH_PIECES 64
#define BATCH_PAGES 256

/* A block that is being filled, or waits to be packed. */
struct block_buffer {
	struct block_buffer *next;
	struct block_header header;
	struct packed_file *file;       /* NULL: a block of pages */
	uint32_t number;                /* in the file, or in the page map (BLOCK_ZERO: not there yet) */
	struct page_hash hashes[BLOCK_PAGES];
	uint8_t *plain;
	uint32_t used;                  /* bytes of plain, at most, ever */
};

struct piece {
	uint64_t start;
	uint32_t pages;
};

struct batch {
	struct batch *next;
	struct packer_source *source;
	uint32_t pages;
	unsigned int count;
	struct piece pieces[BATCH_PIECES];
};

struct packer_thread {
	struct packer *packer;
	pthread_t thread;
	unsigned int index;
	struct block_codec *codec;
	struct block_buffer *buffer;
	uint64_t cpu_us;
};

struct packer {
	struct store *store;
	struct pagemap *map;
	const struct limits *limits;
	struct object_id id;
	size_t buffer_bytes;            /* of the store's, for this packer */
	size_t window_bytes;
	unsigned int threads_max;

	/* the owner's */
	struct batch *gathering;
	struct block_buffer *filling;
	struct packed_file **files;
	size_t file_count;
	bool forgotten;                 /* its pages, in the map */

	pthread_mutex_t begin_lock;     /* of the next three; they stay once they are there */
	struct object_writer writer;
	struct segment *segment;
	struct stream *stream;          /* NULL: nothing was packed */

	/* under the map's lock */
	struct packer_stats stats;
	uint32_t *blocks;               /* of the map, that this packer made */
	uint32_t block_count;
	uint32_t block_space;

	pthread_mutex_t lock;           /* of what follows */
	pthread_cond_t work_added;
	pthread_cond_t lifted;          /* of threads that the limits let not work */
	pthread_cond_t work_done;
	struct batch *batches;
	struct batch **batches_end;
	unsigned int batch_count;       /* waiting or being read */
	struct block_buffer *sent;
	struct block_buffer **sent_end;
	struct block_buffer *free;
	unsigned int buffer_count;      /* of the owner's, that were made */
	unsigned int thread_count;
	bool full_speed;                /* limits were seen to be lifted */
	bool closing;
	int err;                        /* the first failure; sticky */
	struct problem problem;
	struct packer_thread threads[PACKER_THREADS_MAX];
};

struct block_buffer *block_buffer_create(void);
void block_buffer_destroy(struct block_buffer *buffer);

/* 0, or a failure that stays; problem may be NULL. */
int packer_fail(struct packer *packer, int err, const struct problem *problem);
bool packer_failed(struct packer *packer);
/* Makes the object and the stream, once. */
int packer_begin(struct packer *packer, struct problem *problem);

/* What becomes of pages that lie one after the other at data. */
struct verdict {
	unsigned int count;
	unsigned int kept;
	unsigned int moved;     /* of them, those that only leave a thin segment */
	uint8_t fate[BLOCK_PAGES];
	struct page_hash hashes[BLOCK_PAGES];
};
void verdict_make(struct packer *packer, struct space *space, const uint64_t *addresses,
		  const uint8_t *data, unsigned int count, struct verdict *verdict);
/* Puts them into the map, and those that are kept into the buffer, which has room. */
int verdict_apply(struct packer *packer, struct space *space, const uint64_t *addresses,
		  const uint8_t *data, const struct verdict *verdict, struct block_buffer *buffer,
		  struct problem *problem);

/* 0, also when they run already. */
int packer_threads_start(struct packer *packer, struct problem *problem);
/* Waits until they have done all that was sent, unless the packer has failed. */
void packer_threads_end(struct packer *packer);

#endif
