/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What one pass over the captured directories found, for the next one to compare with: a catalog, what else is to be
 * known of its entries, and its files by inode.  The listing owns all of it; zero it to start.
 */
#ifndef CKPT_LISTING_H
#define CKPT_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog.h"

/* Of the entry with the same number. */
struct listing_memory {
	int64_t since_ms; /* its times have been seen since */
	uint64_t pages;   /* of its space, when it was read */
	bool known;       /* its content is in the space */
};

struct listing {
	struct catalog catalog;
	struct listing_memory *memory;
	size_t memory_space;
	uint32_t *by_inode; /* numbers of the regular files that are no links, by device and inode */
	size_t file_count;
};

/* The new last entry and its memory, zeroed. Pointers to others are not valid any more. -ENOMEM. */
int listing_add(struct listing *listing, struct catalog_entry **entry);
/* When all is added: then files are found. -ENOMEM. */
int listing_index(struct listing *listing);
/* The number of the file with this inode, whatever it was called; -1: there was none. */
int64_t listing_find_inode(const struct listing *listing, const struct catalog_entry *file);
/* Takes the catalog's content over, in place of what it has; nothing is known of the entries. -ENOMEM: it has none. */
int listing_take(struct listing *listing, struct catalog *catalog);
void listing_clear(struct listing *listing);

#endif
