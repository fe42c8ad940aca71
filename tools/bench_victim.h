/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The process that is measured: it holds one mapping and does with it what it is told, while the benchmark looks at it
 * from outside as ckptd would.
 */
#ifndef CKPT_BENCH_VICTIM_H
#define CKPT_BENCH_VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HUGE_BYTES (2ul << 20)

struct victim {
	pid_t pid;
	int pidfd;
	int socket;
	char *memory;		/* aligned to HUGE_BYTES; the same address in the process */
	size_t bytes;
	bool huge;		/* in transparent huge pages, if the kernel has them */
};

/* Which pages to write: count of them at random, or all if that is as many as there are. */
struct writes {
	uint64_t count;
	uint64_t seed;
};

typedef void writes_page(void *argument, uint64_t page);

/* Calls once for each write, in order. */
void writes_each(const struct writes *writes, uint64_t pages, writes_page *call, void *argument);

/* All return 0 or -errno. The memory is populated when it has started. */
int victim_start(struct victim *victim, size_t bytes, bool huge);
void victim_end(struct victim *victim);
/* How long the writes took in the process, without the way there, in ns; may be NULL. */
int victim_write(const struct victim *victim, const struct writes *writes, int64_t *took_ns);
/* Makes the memory anew, as at the start. */
int victim_renew(const struct victim *victim);
/* Writes one byte each, in every step_bytes of an untouched mapping. Only these pages are then there. */
int victim_start_sparse(struct victim *victim, size_t bytes, size_t step_bytes);
/* The process registers its mapping with a userfaultfd for asynchronous write-protection, and takes it back. */
int victim_register(const struct victim *victim);
int victim_unregister(const struct victim *victim);
/* Is all of it in huge pages? */
bool victim_is_huge(const struct victim *victim);

/*
 * A thread of the process writes to pages of its memory at random and measures each write, from victim_stir() until
 * victim_rest(); now and then it maps and unmaps a page, which needs the lock that a collection holds while it is in a
 * window. A write that took longer than WAIT_MIN_NS is a fault.
 */
#define WAIT_MIN_NS 1000

struct waits {
	uint64_t count;
	int64_t max_ns;
	uint64_t histogram[64][16]; /* by power of two, and 16 steps in between */
};

struct stirred {
	uint64_t writes;
	struct waits faults;
	struct waits maps;
};

int victim_stir(const struct victim *victim);
int victim_rest(const struct victim *victim, struct stirred *stirred);
/* The wait that a fraction of all is not longer than. */
int64_t waits_quantile_ns(const struct waits *waits, double fraction);

#endif
