/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A job's place on shared storage: immutable objects with flat names, written once, made durable,
 * listed, read and removed; and the terms that decide who owns the job.
 *
 * Every call does its input and output with the file system ids of the class's store_user, so that
 * no root access ever reaches the server, and returns with the caller's ids restored.
 */
#ifndef CKPT_STORE_H
#define CKPT_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "key.h"
#include "problem.h"

struct store;

enum store_use {
	STORE_MAKE,                     /* the job's directory is made when it is missing */
	STORE_KNOWN,                    /* -ENOENT when there is none */
	STORE_READ,                     /* the same, and nothing will be written */
};

struct store_options {
	const char *directory;          /* the class's store; must exist */
	enum store_use use;
	uid_t uid;                      /* store_user's */
	gid_t gid;
	const struct keys *keys;        /* the cluster's; copied */
	const char *compress;           /* "none", "lz4", "zstd", "zstd:LEVEL" */
	const char *seal;               /* "auto", "none" */
	size_t buffer_bytes;            /* bound of all buffers of this job's stream */
	uint64_t pages_max;             /* in one checkpoint that is read; 0: what this node can hold */
	struct backend *backend;        /* NULL, or used in directory's place and then closed */
};

/*
 * Opens the job's directory (mode 0700) below options->directory: backend.h.
 * job is "UID-NAME": letters, digits, '.', '_', '-'; not starting with '.'; at most 128 bytes.
 */
int store_open(struct store **store, const struct store_options *options, const char *job,
	       struct problem *problem);
void store_close(struct store *store);
/* Segments of epochs are not divided into shorter ones than this. */
size_t store_segment_bytes(const struct store *store);
/* How segments are written, for people; "": none was yet. */
void store_describe_writes(const struct store *store, char text[128]);

/*
 * Terms (fencing).  A term is a number > 0; owning the highest one is owning the job.  Taking a term
 * fixes the checkpoint that its owner starts from, so that what an older owner commits later is
 * never restored.  The term object's mtime (of the server) is a lease that its owner renews.
 */
struct term {
	uint64_t number;                /* 0: the job has no term yet */
	char node[64];                  /* host name of the owner */
	char base[64];                  /* manifest that the owner started from; "": none */
	bool released;                  /* its newest checkpoint is final: nobody runs the job */
	bool damaged;                   /* node and base are not known, the problem says why */
	int64_t age_ms;                 /* since the lease was renewed, by the server's clock */
};

#define TERM_LEASE_RENEW_MS 10000
#define TERM_LEASE_MS 35000

/*
 * The newest term.  Of one whose object is damaged, what is needed to take the next: checkpoints that
 * it committed itself can still be restored.
 */
int store_read_term(struct store *store, struct term *term, struct problem *problem);
/*
 * Takes the term after previous (as store_read_term gave it) with the given base.
 * -EEXIST: another node was faster.
 */
int store_take_term(struct store *store, const struct term *previous, const char *node,
		    const char *base, struct term *taken, struct problem *problem);
/*
 * Renews the lease. -ESTALE: a newer term exists, the job is no longer ours. -ENOENT: there is no term
 * at all: nobody else has it, but this store does not know it.
 */
int store_renew_term(struct store *store, const struct term *own, struct problem *problem);
/* The owner gives up: the job does not run here any more, and nobody need wait for the lease to end. */
int store_release_term(struct store *store, const struct term *own, struct problem *problem);

/*
 * The names of the checkpoints that may be restored, newest first: those of the newest term, then
 * those up to its base, and so on. names is freed with free() of each and of the list.
 */
int store_list_checkpoints(struct store *store, char ***names, size_t *count,
			   struct problem *problem);

/* Removes what neither a kept checkpoint (the newest keep) nor the live page map refers to. */
struct pagemap;
int store_clean(struct store *store, const struct term *own, unsigned int keep,
		const struct pagemap *live, uint64_t *bytes_used, struct problem *problem);
/* Whether cleaning may find anything that it did not find the last time. */
bool store_is_dirty(struct store *store);
/*
 * The job has ended: manifests first, then segments, terms and the directory. -ESTALE: it has another
 * owner by now, and nothing is removed.
 */
int store_retire(struct store *store, const struct term *own, struct problem *problem);

/*
 * The job has ended and its checkpoints are kept for a while, where no run finds them: as a term of no
 * node and without a base.  Without that term object, the newest, they can be restored again.  -ESTALE
 * as above.
 */
int store_put_away(struct store *store, const struct term *own, uint64_t keep_s,
		   struct problem *problem);
/* Whether the term is one of those, and how long after its beginning the checkpoints are kept. */
bool term_ended(const struct term *term, uint64_t *keep_s);
/* How long nothing was written, by the server's clock. -ENODATA: there is nothing. */
int store_idle_ms(struct store *store, int64_t *idle_ms, struct problem *problem);
/*
 * Removes what nobody will restore any more, unless somebody just does, or has written anything within
 * idle_ms: -EBUSY.  It takes the job's next term first, as an owner would, so that no restore begins
 * meanwhile; one that has begun has renewed the lease of the term that it starts from.
 */
int store_give_up(struct store *store, const char *node, int64_t idle_ms, struct problem *problem);

#endif
