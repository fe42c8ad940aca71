/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages one process still misses, and where they belong now.  The program goes on meanwhile: it
 * moves memory (mremap), drops it (munmap, MADV_DONTNEED) and forks.
 *
 *   at the checkpoint:   ---AAAAAA-----BBBB----      a range: pages that have moved together, or not
 *   now:                 BB--AAA-AA------------      by where it begins now and where it began then
 *
 * Every missing page is in exactly one range.  A page that is not missing has come, is gone, or never
 * was: whoever asks for it gets zeros.
 */
#ifndef CKPT_LAZY_MEMORY_H
#define CKPT_LAZY_MEMORY_H

#include "lazy_table.h"

struct lazy_range {
	uint64_t start;                 /* now */
	uint64_t end;
	uint64_t then;                  /* where start was at the checkpoint */
};

struct lazy_memory {
	const struct lazy_table *table;
	const struct lazy_space *space; /* NULL: it misses nothing */
	uint64_t *missing;              /* a bit for each page of the space */
	uint32_t missing_count;
	struct lazy_range *ranges;      /* sorted by start */
	size_t count;
	size_t room;
	size_t recent;                  /* the range that was used last */
};

/* 0 or -ENOMEM, all of them. */
int lazy_memory_init(struct lazy_memory *memory, const struct lazy_table *table, uint64_t id);
/* As a fork does. */
int lazy_memory_copy(struct lazy_memory *memory, const struct lazy_memory *from);
void lazy_memory_free(struct lazy_memory *memory);

/* Pages are named by their number in the table. The one that is missing at the address, or LAZY_NONE. */
uint32_t lazy_memory_find(const struct lazy_memory *memory, uint64_t address);
bool lazy_memory_misses(const struct lazy_memory *memory, uint32_t page);
/* Where a page that is missing belongs. */
uint64_t lazy_memory_address(struct lazy_memory *memory, uint32_t page);
bool lazy_memory_misses_any(const struct lazy_memory *memory, uint64_t start, uint64_t end);
void lazy_memory_given(struct lazy_memory *memory, uint32_t page);
int lazy_memory_drop(struct lazy_memory *memory, uint64_t start, uint64_t end);
/* What was at the target is gone. */
int lazy_memory_move(struct lazy_memory *memory, uint64_t from, uint64_t to, uint64_t length);

#endif
