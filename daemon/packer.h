/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages in, sealed blocks in a segment out.  One packer writes one segment: pages that are zero or
 * whose content is already held cost no data, the rest is gathered into blocks, compressed, sealed
 * and written with io_uring while the next block is being filled.
 *
 * The page map is updated as pages are packed; until packer_commit() returns 0 the new places are
 * not durable.  On failure or abort those pages are forgotten in the map, and the caller must
 * stream them again before it commits a checkpoint.
 */
#ifndef CKPT_PACKER_H
#define CKPT_PACKER_H

#include <stddef.h>
#include <stdint.h>

#include "pagemap.h"
#include "problem.h"
#include "store.h"

struct packer;

struct packer_stats {
	uint64_t pages;         /* given */
	uint64_t pages_zero;
	uint64_t pages_same;    /* content as already held */
	uint64_t pages_packed;  /* written */
	uint64_t bytes_written; /* to the store, with headers */
};

/* term: the owner's; it is part of the segment's name. No object exists before a page is packed. */
int packer_create(struct packer **packer, struct store *store, const struct term *term,
		  struct pagemap *map, struct problem *problem);
/* data is PAGE_BYTES long and is taken before the call returns. */
int packer_page(struct packer *packer, struct space *space, uint64_t address, const void *data,
		struct problem *problem);
/*
 * A named file of the checkpoint (CRIU's images, captured files) read from fd to its end.
 * It becomes part of the manifest that is written with this packer's files.
 */
struct packed_file;
int packer_file(struct packer *packer, const char *name, int fd, struct packed_file **file,
		struct problem *problem);
void packed_file_free(struct packed_file *file);

/* Waits for all writes, fsyncs, renames into place, fsyncs the directory. Frees the packer if 0. */
int packer_commit(struct packer *packer, struct packer_stats *stats, struct problem *problem);
/* Frees the packer and removes what it wrote. */
void packer_abort(struct packer *packer);

#endif
