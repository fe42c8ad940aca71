/* SPDX-License-Identifier: GPL-2.0 */
/* Sorted lists of half-open address ranges [start,end), as the tracker reports them. */
#ifndef CKPT_REGION_H
#define CKPT_REGION_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

struct region {
	uint64_t start;      /* bytes, page aligned */
	uint64_t end;        /* bytes, page aligned, > start */
	uint32_t categories; /* CKPT_PAGE_*, uapi/linux/ckpt.h */
};

struct regions {
	struct region *list; /* sorted by start, not overlapping */
	size_t count;
	size_t space;
};

/* Appends; joins with the last region when they touch and have the same categories. 0 or -ENOMEM. */
int regions_add(struct regions *regions, uint64_t start, uint64_t end, uint32_t categories);
/* Sorts and joins; overlapping regions get the union of their categories. 0 or -ENOMEM. */
int regions_normalise(struct regions *regions);
/* The list as it is now, and back to it when only regions_add() was called since. */
struct regions_mark {
	size_t count;
	uint64_t end;
};
struct regions_mark regions_mark(const struct regions *regions);
void regions_cut(struct regions *regions, struct regions_mark mark);
uint64_t regions_pages(const struct regions *regions);
void regions_clear(struct regions *regions);
void regions_free(struct regions *regions);

#endif
