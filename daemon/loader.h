/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loads blocks of a page map ahead of who wants them: several threads read, open and unpack, and the
 * blocks that were used last are kept.
 *
 *   source: 4 5 6 9 4 ...  (the order in which blocks will be wanted)
 *             └─> queue ─> workers ─> slots: | 4 loaded | 5 loaded | 6 loading | 9 queued |
 *   loader_get(4) ──────────────────────────────┘ waits, and helps, until it is there
 */
#ifndef CKPT_LOADER_H
#define CKPT_LOADER_H

#include "pagemap_private.h"
#include "problem.h"
#include "store.h"

struct loader;

/* The number of the next block that will be wanted; BLOCK_ZERO: no more. */
typedef uint32_t (*block_source)(void *arg);

int loader_create(struct loader **loader, struct store *store, const struct pagemap *map,
		  block_source source, void *arg, struct problem *problem);
/*
 * The block's pages and hashes (block.h), until the next call.  Blocks may be wanted in any order, but
 * only what the source said is loaded ahead.
 */
int loader_get(struct loader *loader, uint32_t block, const uint8_t **plain,
	       struct problem *problem);
void loader_destroy(struct loader *loader);

#endif
