/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Puts the captured directories of a checkpoint back, before the job is restored: each entry as the
 * catalog has it, with its content, size, times, mode, owner, attributes, links and holes.
 *
 *   same inode, size, mtime, ctime     nothing was written since: not touched
 *   anything else                      compared with the store page by page; what differs is written
 *   not in the checkpoint              moved into .ckpt-aside below the root: nobody's file is deleted
 *
 * Files are written in place, so that other names and descriptors of them stay.  Whatever interrupts
 * it, it can be done again: the checkpoint is not touched.
 */
#ifndef CKPT_PUTBACK_H
#define CKPT_PUTBACK_H

#include "capture.h"
#include "catalog.h"
#include "manifest.h"
#include "store.h"

struct putback_stats {
	uint64_t entries;
	uint64_t files_compared;
	uint64_t bytes_written;
	uint64_t moved_aside;
};

/*
 * options: whose rights, where, and what is not to be touched; its roots are not looked at.  The
 * catalog's inodes and times are then those that are there.  After an error some files are as at the
 * checkpoint and some not yet.
 */
int putback_run(struct store *store, struct manifest *manifest, struct catalog *catalog,
		const struct capture_options *options, struct putback_stats *stats,
		struct problem *problem);
/* The catalog of a checkpoint; -ENOENT: it has none. */
int putback_read_catalog(struct store *store, struct manifest *manifest, struct catalog *catalog,
			 struct problem *problem);

#endif
