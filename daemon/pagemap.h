/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The page map of one job: for every page that the store holds, where its content is and the
 * XXH3-128 of it.  A job has several spaces: one per task (id = pid inside the job's PID namespace),
 * one per shared memory object (id = CRIU's shmid) and one per captured file (id: catalog.h).
 *
 *   space     ---+++-----+++++++-----+++++----      + held (in a block of a segment, or all zero)
 *                                                   - not held
 *
 * What is declared here may be called while a packer's threads fill the map.
 */
#ifndef CKPT_PAGEMAP_H
#define CKPT_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "region.h"

struct pagemap;
struct space;

enum space_kind {
	SPACE_TASK = 1,  /* the values are CRIU's page server types */
	SPACE_SHMEM = 2,
	SPACE_FILE = 3,  /* of a captured directory: the address is the offset */
};

struct pagemap *pagemap_create(void);
void pagemap_destroy(struct pagemap *map);

/* Finds or creates; NULL when memory is out. */
struct space *pagemap_space(struct pagemap *map, enum space_kind kind, uint64_t id);
/* Finds; NULL when there is none. */
struct space *pagemap_find(struct pagemap *map, enum space_kind kind, uint64_t id);
void pagemap_forget_space(struct pagemap *map, enum space_kind kind, uint64_t id);
/* Calls back for each space in order of kind, id. Stops at the first non-zero and returns it. */
int pagemap_for_each(struct pagemap *map, int (*each)(struct space *space, void *arg), void *arg);

enum space_kind space_kind(const struct space *space);
uint64_t space_id(const struct space *space);
bool space_holds(const struct space *space, uint64_t address);
/* From the page at address on: the end of those that are held, or are not held, like it; at most end. */
uint64_t space_run_end(const struct space *space, uint64_t address, uint64_t end);
/* The pages of [start,end) are no longer held. */
void space_forget(struct space *space, uint64_t start, uint64_t end);
/* Only the pages inside the regions stay held. */
void space_retain(struct space *space, const struct regions *regions);
uint64_t space_pages(const struct space *space);
uint64_t pagemap_pages(struct pagemap *map);

#endif
