/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One checkpoint, end to end.  Read checkpoint_take() first: it is the product in a paragraph.
 *
 * The manifest's meta is a JSON object.  It is valid if and only if "uid" is that of the job's user,
 * "host" is valid (host.h), "cwd" is a string, and "files", where it is there, is a list of objects with
 * an absolute "path" and an integer "size"; what else is missing counts as 0, false or none.
 *   "job", "class"        names
 *   "uid", "gid", "groups"
 *   "command"             argument list, for people
 *   "time"                CLOCK_REALTIME seconds
 *   "host"                see host.h
 *   "criu", "mechanism"   what was used
 *   "tcp"                 "close" or "established": what the job's connections were saved as; else none
 *   "mechanism_reason"    why none before it in the order; "" when it is the first
 *   "files"               [{"path", "size", "inode"}]: see files.h; "inode" 0: not known
 *   "programs"            [{"path", "size", "modified", "low", "high"}]: see programs.h
 *   "stdout", "stderr"    bytes of output at the checkpoint; no "stderr" when both go to one file
 *   "outputs"             {"stdout", "stderr"}: {"path", "inode"} of the caller's own; null: no regular file
 *   "bases"               {"stdout", "stderr"}: where in those files byte 0 of the job's output would be, if
 *                         nothing stood between; null: not known. See job_set_output_bases()
 *   "pace"                see pace.h
 *   "sequence_of_job"     counts the job's checkpoints over all terms
 *   "stats"               see struct checkpoint_stats
 */
#ifndef CKPT_CHECKPOINT_H
#define CKPT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "criu.h"
#include "pageserver.h"
#include "pace.h"
#include "reader.h"

struct checkpoint_stats {
	char name[64];
	bool final;
	unsigned int rounds;            /* epochs right before it; the caller's */
	uint64_t pages;                 /* of the job */
	uint64_t pages_written;         /* by the frozen pass and criu */
	uint64_t bytes_written;         /* in the frozen pass, with CRIU's images */
	int64_t frozen_ms;              /* from freeze to thaw, or to the end of the job */
	int64_t criu_ms;                /* of it, CRIU's */
	int64_t pass_ms;                /* of it, the frozen pass */
	int64_t flush_ms;               /* from freeze to committed */
	int64_t total_ms;               /* from the start of the first round to committed; the caller's */
	int64_t collected_ms;           /* when the frozen pass collected; CLOCK_BOOTTIME */
};

struct checkpoint_options {
	bool final;                     /* leave the job frozen when committed: the caller ends it */
	int64_t frozen_at_ms;           /* CLOCK_BOOTTIME; 0: it runs and is to be frozen */
	struct pace *pace;              /* gets the frozen pass, and becomes part of meta */
	unsigned int keep;
	int criu_timeout_ms;
	const char *stdout_path;
	const char *stderr_path;        /* NULL: with stdout */
	const char *mark;               /* a file that exists from before a final commit on; see init_spec.h */
	const char *mechanism_reason;   /* see meta */
	const json_t *facts;            /* what the job knows of itself; becomes part of meta */
	json_t *(*bases)(void *arg);    /* "bases" of meta, as they are now; NULL: not known */
	void *bases_arg;
	uint64_t sequence;              /* in the term */
};

/*
 * 0: committed, and the job runs on (or stands frozen after a final one).
 * Else nothing was committed, the job runs on, and what was committed before stays valid;
 * -ESTALE: the job belongs to another node; -EOWNERDEAD: criu died with the job's tasks in its hands:
 * end them and go back to the last checkpoint.
 */
int checkpoint_take(struct reader *reader, struct criu_job *criu,
		    const struct checkpoint_options *options, struct checkpoint_stats *stats,
		    struct problem *problem);

#endif
