/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The page map's insides, for the packer that fills it and the manifest that saves it.
 *
 *   space ── 5 levels of 512 slots ── leaf: 64 pages, 21 bytes each
 *                                       │ block number, index
 *   map ──── blocks: 24 bytes each <────┘
 *              └── segment, offset
 *
 * Blocks are counted by the pages that are in them and their numbers are used again, so that memory
 * follows what is held, not how long the job runs.
 */
#ifndef CKPT_PAGEMAP_PRIVATE_H
#define CKPT_PAGEMAP_PRIVATE_H

#include <pthread.h>

#include "pagemap.h"
#include "segment.h"

#define LEAF_PAGES 64
#define BLOCK_PAGES 64
#define BLOCK_ZERO UINT32_MAX        /* the page's content is zero: it is in no block */
#define SPACE_END (1ULL << 63)       /* first address that no space can hold */

/* XXH3-128; both zero: not known. */
struct page_hash {
	uint64_t low;
	uint64_t high;
};

struct leaf {
	uint64_t held; /* a bit for each page */
	struct page_hash hash[LEAF_PAGES];
	uint32_t block[LEAF_PAGES];
	uint8_t index[LEAF_PAGES];
};
_Static_assert(sizeof(struct leaf) <= LEAF_PAGES * 22, "memory per page");

struct block {
	struct segment *segment; /* NULL: the number is free */
	uint64_t offset;         /* in the segment; the next free number when free */
	uint32_t stored;         /* bytes in the segment */
	uint16_t live;           /* pages of the map that are in it */
	uint16_t pages;
};
_Static_assert(sizeof(struct block) == 24, "memory per block");

struct pagemap {
	struct space **spaces; /* sorted by kind, id */
	size_t space_count;
	struct block *blocks;
	uint32_t block_count;
	uint32_t block_space;
	uint32_t free_block; /* BLOCK_ZERO: none */
	bool thin;           /* a segment is marked (thin.h) */
	pthread_mutex_t lock;
};

struct space {
	struct pagemap *map;
	enum space_kind kind;
	uint64_t id;
	uint64_t pages;
	void *root;
	uint64_t recent_number; /* of the leaf that was used last */
	struct leaf *recent;
};

struct page_hash page_hash(const void *page);

/* Around what follows, wherever a packer's threads may be at work. */
void pagemap_lock(struct pagemap *map);
void pagemap_unlock(struct pagemap *map);

/* Takes a reference of the segment. -ENOMEM, or -EOVERFLOW after 2^32 - 1 blocks. */
int pagemap_add_block(struct pagemap *map, struct segment *segment, uint32_t *number);
/* Gives the numbers of blocks without live pages back; a pending segment's are kept until then. */
void pagemap_settle_block(struct pagemap *map, uint32_t number);
/* Forgets the pages that are in the segment; its blocks stay until they are settled. */
void pagemap_forget_segment(struct pagemap *map, const struct segment *segment);

/* -ENOMEM, or -EINVAL for an address past SPACE_END. The old place is given up. */
int space_put(struct space *space, uint64_t address, uint32_t block, unsigned int index,
	      struct page_hash hash);
enum sameness {
	SPACE_DIFFERS,          /* the content is another */
	SPACE_SAME,             /* it is that already */
	SPACE_MOVES,            /* it is that already, in a thin segment: see thin.h */
};

enum sameness space_compare(struct space *space, uint64_t address, struct page_hash hash);
/* The first leaf from *number (of the leaf: address / 256 KiB) on, and its number; NULL: no more. */
struct leaf *space_next_leaf(const struct space *space, uint64_t *number);
void space_set_hash(struct space *space, uint64_t address, struct page_hash hash);

#endif
