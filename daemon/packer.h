/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages in, sealed blocks in a segment out.  One packer writes one segment: pages that are zero or
 * whose content is already held cost no data, the rest is gathered into blocks, compressed, sealed
 * and written, by several threads, while more pages are being read.
 *
 * The page map is updated as pages are packed; until packer_commit() returns 0 the new places are
 * not durable.  On failure or abort those pages are forgotten in the map, and the caller must
 * stream them again before it commits a checkpoint.
 */
#ifndef CKPT_PACKER_H
#define CKPT_PACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "limit.h"
#include "pagemap.h"
#include "problem.h"
#include "store.h"

struct packer;

struct packer_stats {
	uint64_t pages;         /* given */
	uint64_t pages_zero;
	uint64_t pages_same;    /* content as already held */
	uint64_t pages_packed;  /* written */
	uint64_t pages_moved;   /* of them, those that only leave a thin segment: see thin.h */
	uint64_t bytes_written; /* to the store, with headers */
	uint64_t cpu_us;        /* of the packer's threads */
	uint64_t busy_us;       /* time in which the store had something to write */
	uint32_t chunk_bytes;   /* written at once; 0: nothing was written */
	unsigned int chunks;    /* that could be on their way at a time */
	bool direct;            /* with O_DIRECT */
};

/* term: the owner's; it is part of the segment's name. No object exists before a page is packed. */
int packer_create(struct packer **packer, struct store *store, const struct term *term,
		  struct pagemap *map, struct problem *problem);
/* From now on; without, there are none. limits must outlive the packer. */
void packer_limit(struct packer *packer, const struct limits *limits);
/* data is PAGE_BYTES long and is taken before the call returns. */
int packer_page(struct packer *packer, struct space *space, uint64_t address, const void *data,
		struct problem *problem);

/* Memory of a process that packer_read() reads. */
struct packer_source {
	pid_t pid;
	struct space *space;
	bool gone;              /* the process has ended; set until packer_wait() returns */
};

/*
 * Reads and packs the pages of [start,end) some time before packer_wait() returns; the source must
 * live until then.  A page that cannot be read is held no longer.
 */
int packer_read(struct packer *packer, struct packer_source *source, uint64_t start, uint64_t end,
		struct problem *problem);
/* Waits until all that packer_read() was given has been read. Sources are not used after it. */
int packer_wait(struct packer *packer, struct problem *problem);

/* That were packed so far. */
uint64_t packer_pages(struct packer *packer);

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
