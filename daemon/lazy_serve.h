/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Gives a lazily restored job its pages: one thread hears what happens to the job's memory, several read
 * blocks of pages from the store and put them in place.
 *
 *   userfaultfds ── faults ──> urgent blocks ─┐
 *        │                                    ├─> workers: read, open ─> UFFDIO_COPY, all pages of a block
 *        └─ fork, mremap, munmap, madvise     │                          wherever they are missing
 *           change what is missing   order ───┘ (once the job runs)
 *
 * How it stays right, with one lock over what is missing:
 *  - A page is put in place under the lock, and events are read under it.  From before the kernel changes
 *    anything until its event has been read UFFDIO_COPY gives EAGAIN, so what is put in place was decided
 *    by what the kernel has.
 *  - The descriptors are closed, all together, when nothing is missing anywhere and no event is under way: a
 *    fork that was would leave a child without its pages.
 *  - Events of two threads that were under way at once may come in another order than things happened.
 *    Where that would matter, the job is stopped; see lazy_order.h.
 */
#ifndef CKPT_LAZY_SERVE_H
#define CKPT_LAZY_SERVE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "lazy_memory.h"
#include "lazy_order.h"
#include "lazy_spec.h"
#include "lazy_table.h"
#include "lazy_vault.h"
#include "problem.h"
#include "store.h"

/* One address space. */
struct lazy_process {
	struct lazy_process *next;
	int uffd;
	pid_t pid;                      /* here; 0: not known, for what the job has forked since */
	pid_t inner_pid;
	bool alone;                     /* it had one thread before each event of the group was read */
	bool done;                      /* it is gone; the descriptor is closed */
	struct lazy_memory memory;
	struct lazy_order order;
	int64_t unsettled_ms;           /* since when the kernel says that events are under way; 0: it does not */
	uint64_t *zeros;                /* addresses that get a zero page as soon as none are */
	size_t zero_count;
	size_t zero_room;
};

enum lazy_block_state {
	LAZY_BLOCK_AWAY,
	LAZY_BLOCK_URGENT,
	LAZY_BLOCK_LOADING,
	LAZY_BLOCK_GIVEN,
};

#define LAZY_WORKERS_MAX 16

struct lazy_server {
	struct lazy_table table;
	const struct lazy_spec *spec;
	struct store *store;
	struct block *blocks;           /* as the segment reader wants them */
	int epoll;
	int wake;                       /* eventfd: workers to the thread of events */
	int connection;                 /* CRIU's; -1: not yet, or not any more */
	int gate;                       /* ckpt-gate's */
	int holder;                     /* pidfd */
	struct lazy_vault vault;

	pthread_mutex_t lock;           /* of all that follows */
	pthread_cond_t work;
	struct lazy_process *processes;
	uint8_t *states;                /* of blocks */
	uint32_t *urgent;               /* a ring of blocks */
	uint32_t urgent_first;
	uint32_t urgent_count;
	uint32_t next;                  /* in the table's order */
	bool restored;                  /* the job may run: the rest is read ahead */
	bool closing;
	bool failed;
	struct problem problem;
	unsigned int worker_count;
	pthread_t workers[LAZY_WORKERS_MAX];
};

/* Returns 0 when all pages have come, -ESRCH when the job has ended, else with a problem; the job still stands. */
int lazy_serve(const struct lazy_spec *spec, int holder, struct problem *problem);

/* lazy_fill.c: the workers */
int lazy_fill_start(struct lazy_server *server, struct problem *problem);
void lazy_fill_end(struct lazy_server *server);
void lazy_fill_urgent_locked(struct lazy_server *server, uint32_t block);

/* lazy_serve.c, for the workers */
void lazy_fail_locked(struct lazy_server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lazy_wake(struct lazy_server *server);
/* Whether no event of the process is under way; until one that is has been read this stays so. */
bool lazy_settle_locked(struct lazy_server *server, struct lazy_process *process);
void lazy_process_gone_locked(struct lazy_server *server, struct lazy_process *process);

#endif
