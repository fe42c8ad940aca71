/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The captured directories of a job: those that the class names (capture =) and those that the job
 * has for itself (private =).  They become part of every checkpoint, so that a restored job finds its
 * files as they were, also those that it writes in place.
 *
 *   walk      every entry below the roots: kind, owner, times, attributes (catalog.h)
 *   compare   a file with the inode, size, mtime and ctime of the pass before was not written
 *   read      the others, page by page into a space of the page map: a page with the same hash costs
 *             no data, a hole costs nothing
 *
 * A file that is written twice within one tick of its server's clock has the same times after both.
 * So a file counts as known only when the times that it was read with had been seen on it at least
 * CAPTURE_SETTLE_MS before it was read; until then each pass reads it again.  A write through a
 * shared mapping sets the times only when the page was clean, and on tmpfs never: what is mapped by
 * the job, and all of tmpfs, is read by each pass.
 *
 * Everything is read with the rights of the job's user: what that user may not read, the job cannot
 * have written; it is listed, and left alone at a restore.  Other file systems mounted below a root
 * are not entered, links are not followed.
 */
#ifndef CKPT_CAPTURE_H
#define CKPT_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "catalog.h"
#include "numbers.h"
#include "packer.h"
#include "pagemap.h"
#include "problem.h"

#define CAPTURE_SETTLE_MS CATALOG_TICK_MS
/* Where a restore moves what it finds and the checkpoint does not have; below each root. */
#define CAPTURE_ASIDE ".ckpt-aside"

struct capture;

/* A file or directory that is the job's neighbour, not its own: the store, the caller's output. */
struct capture_skip {
	dev_t device;
	ino_t inode;
};

struct capture_options {
	const char *const *roots;       /* absolute paths, as the job sees them */
	size_t root_count;
	pid_t init_pid;                 /* whose /proc/PID/root is the job's */
	const char *root;               /* unless NULL: that directory is, for putback_run() */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t group_count;
	const struct capture_skip *skip;
	size_t skip_count;
	/* Asked between windows of a long pass; true: stop. May be NULL. */
	bool (*stopped)(void *arg);
	void *stopped_arg;
};

/* Whether the options name it. */
bool capture_skips(const struct capture_options *options, const struct stat *st);

/* A write to a file there need not change its times: tmpfs, of mapped files. */
bool capture_is_timeless(int directory);

struct capture_stats {
	uint64_t entries;
	uint64_t files_read;
	uint64_t bytes_read;
};

/* The options' lists are copied. A root within another one is left out. */
int capture_create(struct capture **capture, const struct capture_options *options,
		   struct problem *problem);
void capture_destroy(struct capture *capture);
/* What a restore has put back is known, but for what it has just written.  Takes the catalog's content over; map holds its spaces. */
void capture_adopt(struct capture *capture, struct catalog *catalog, struct pagemap *map);
/* What was read is not durable: everything is read again. */
void capture_restart(struct capture *capture);

/*
 * mapped: the inodes of files that the job has mapped shared and for writing, from before the call.
 * -ECANCELED: stopped. After any error: capture_restart().
 */
int capture_pass(struct capture *capture, const struct numbers *mapped, struct packer *packer,
		 struct pagemap *map, struct capture_stats *stats, struct problem *problem);
/* As the last pass found it. */
const struct catalog *capture_catalog(const struct capture *capture);

#endif
