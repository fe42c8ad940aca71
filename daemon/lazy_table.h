/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pages that a lazy restore gives after the job runs: made by ckptd from the page map, used by
 * ckpt-pages, in a memfd that both have.
 *
 *   spaces ──> pages: address, block, index     sorted by space and address
 *   blocks ──> where in which segment, and refs: which pages want it
 *   order  ──> all blocks: those that were written last come first, since what a program has just written
 *              it uses soon; within a segment as they lie in it
 *   hashes     of the pages' content, as ckpt-pages meets them: the next epoch then knows what is unchanged
 */
#ifndef CKPT_LAZY_TABLE_H
#define CKPT_LAZY_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "pagemap.h"
#include "pagemap_private.h"
#include "problem.h"
#include "region.h"

#define LAZY_NONE UINT32_MAX

struct lazy_head {
	uint32_t space_count;
	uint32_t page_count;
	uint32_t block_count;
	/* What ckpt-pages tells; atomic. */
	uint32_t given;                 /* pages that have come */
	uint32_t faults;                /* that asked for one of them */
	uint32_t waiting;               /* the store is away, and pages are waited for */
};

struct lazy_space {
	uint64_t id;                    /* the process's pid in its namespace */
	uint32_t first;                 /* page */
	uint32_t count;
};

struct lazy_page {
	uint64_t address;
	uint32_t block;
	uint32_t index;                 /* in the block */
};

struct lazy_block {
	uint64_t term;                  /* of the segment */
	uint64_t number;
	uint64_t offset;
	uint32_t stored;
	uint32_t pages;
	uint32_t first;                 /* of refs; the next block's first is the end */
	uint32_t zero;
};

struct lazy_table {
	struct lazy_head *head;
	struct lazy_space *spaces;
	struct lazy_page *pages;
	struct lazy_block *blocks;      /* and one more */
	uint32_t *refs;
	uint32_t *order;
	struct page_hash *hashes;       /* both zero: it was not met */
	size_t bytes;
};

/* The mappings of one space that may be lazy. */
struct lazy_areas {
	uint64_t id;
	struct regions regions;
};

/* A memfd with the table, which is also mapped; or -errno. */
int lazy_table_make(struct lazy_table *table, struct pagemap *map, const struct lazy_areas *areas,
		    size_t count, struct problem *problem);
int lazy_table_map(struct lazy_table *table, int fd);
void lazy_table_unmap(struct lazy_table *table);
/* The map gets the hashes of what came. */
void lazy_table_take_hashes(const struct lazy_table *table, struct pagemap *map);
/* Whether the page at the address is in one of the regions, for addresses that grow; *at begins with 0. */
bool regions_hold(const struct regions *regions, size_t *at, uint64_t address);

#endif
