/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A capture's insides.  A pass goes down the roots and makes a new listing; only when it has come to its end does that
 * take the place of the one before.
 *
 *   capture.c          beginning and end, and a pass as a whole
 *   capture_walk.c     what entries there are, and what is to be known of them
 *   capture_content.c  what files contain: read into their spaces, or known from before
 *
 * The capture owns its listing, the pass owns what it has found until then.
 */
#ifndef CKPT_CAPTURE_PRIVATE_H
#define CKPT_CAPTURE_PRIVATE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture.h"
#include "listing.h"

#define CAPTURE_WINDOW_BYTES (1u << 20)

struct capture {
	struct capture_options options; /* its lists are these: */
	char **roots;
	gid_t *groups;
	struct capture_skip *skip;
	struct listing listing; /* of the last pass that succeeded */
	uint64_t last_space;
	uint8_t *window;
	bool told_unreadable;
};

/* One pass. */
struct pass {
	struct capture *capture;
	const struct numbers *mapped;
	struct packer *packer;
	struct pagemap *map;
	struct capture_stats *stats;
	struct problem *problem;
	struct listing found;
	struct numbers spaces; /* of the files that were found */
	void *links; /* tsearch()'s */
	uint32_t root;
	dev_t device;  /* of the root */
	bool timeless; /* tmpfs: writes need not change the times */
	int64_t now_ms;
	char path[CATALOG_PATH_MAX + 1]; /* below the root, of what is looked at */
};

/* Gone since it was listed, or not for the job's user. */
static inline bool is_absence(int err)
{
	return err == ENOENT || err == ELOOP || err == ENOTDIR || err == ESTALE;
}

/* capture.c */
int pass_no_memory(struct pass *pass);
/* Says that the operation on what is at pass->path has failed. */
int pass_fail(struct pass *pass, int err, const char *operation);

/* capture_walk.c: with the rights of the job's user */
int pass_walk(struct pass *pass);

/* capture_content.c */
/* The last entry, a file that no earlier one of this pass is a link to: has its content in its space. */
int pass_take_file(struct pass *pass, int directory, const char *name, struct catalog_entry *entry);
/* What belonged to files that are gone. */
int pass_forget_spaces(struct pass *pass);

#endif
