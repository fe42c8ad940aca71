/* SPDX-License-Identifier: GPL-2.0 */
/* The store's insides, for its parts (store_*.c), objects, the packer and the manifest. */
#ifndef CKPT_STORE_PRIVATE_H
#define CKPT_STORE_PRIVATE_H

#include <pthread.h>
#include <stddef.h>

#include "backend.h"
#include "block.h"
#include "identity.h"
#include "seal.h"
#include "store.h"

#define JOB_NAME_MAX 128

enum object_kind {
	OBJECT_TERM = 1,
	OBJECT_SEGMENT = 2,
	OBJECT_MANIFEST = 3,
	OBJECT_UNFINISHED = 4, /* never in a header: only a name */
};

/*
 * term-TERM, seg-TERM-NUMBER, manifest-TERM-NUMBER and, while it is being written,
 * tmp.TERM.INSTANCE.NUMBER; all numbers as 16 hexadecimal digits.
 */
struct object_id {
	enum object_kind kind;
	uint64_t term;
	uint64_t number;   /* of segments and manifests; 0 for terms */
	uint64_t instance; /* of unfinished objects: the process that writes it */
};

/* A cluster key as this job has it. */
struct store_key {
	uint8_t job_key[SEAL_KEY_BYTES];
	uint8_t check[SEAL_CHECK_BYTES];
};

struct store {
	char *path; /* the place of the job's objects */
	char *job;
	struct backend *backend;
	uid_t uid;
	gid_t gid;
	struct store_key keys[KEYS_MAX]; /* the first seals */
	unsigned int key_count;
	enum seal_algorithm algorithm; /* of blocks of pages and files */
	struct compression compression;
	size_t buffer_bytes;
	size_t segment_bytes;
	uint64_t pages_max;
	int direct_err;      /* why there are no direct writes, once that is known; atomic */
	bool direct_written; /* atomic */

	pthread_mutex_t lock; /* of what follows */
	size_t buffer_bytes_used; /* by the packers that there are */
	struct segment *segments;
	bool segments_dropped;  /* one is not known any more, since the last cleaning */
	uint64_t numbered_term; /* next_number is a number of this term */
	uint64_t next_number;
};

/* The thread's file system ids are the store user's until caller's scope ends (identity_scope). */
int store_enter(const struct store *store, struct identity *caller, struct problem *problem);

void object_name(char name[OBJECT_NAME_MAX], const struct object_id *id);
/* Whether the name is that of an object. */
bool object_parse(const char *name, struct object_id *id);
int object_compare(const void *a, const void *b); /* by kind, term, number, instance */
/* The number of this process in the names of what it has not finished. */
uint64_t store_instance(void);

/* What failed, where, why, what to do. Returns -err. */
int store_problem(const struct store *store, struct problem *problem, int err,
		  const char *operation, const char *name);
/* The same for damage: -EBADMSG. */
int store_damaged(const struct store *store, struct problem *problem, const char *name,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* All objects, sorted. Ids are the caller's to free. */
struct object_list {
	struct object_id *ids;
	size_t count;
};
int store_list(struct store *store, struct object_list *list, struct problem *problem);
uint64_t list_newest_term(const struct object_list *list);
/* Whether the object of the term is as it should be. -ENOENT: it is not there. */
int store_verify_term(struct store *store, uint64_t number, struct problem *problem);
/* -ESTALE: the job has another owner. -ENOENT: it has none, own is gone from the store. */
int store_check_term(struct store *store, uint64_t own, struct problem *problem);
/*
 * The restorable manifests, newest first. -EBADMSG: the chain is cut by a damaged term object, and
 * has what is newer than that.  Its ids are the caller's to free, also after an error.
 */
int store_chain(struct store *store, const struct object_list *list, struct object_list *chain,
		struct problem *problem);
/* The server's clock, as the time of an object that is made now. */
int store_server_time(struct store *store, uint64_t term, int64_t *now_ns, struct problem *problem);
/* As store_read_term(), of a term that need not be the newest; whether it was released is not said. */
int store_read_older_term(struct store *store, uint64_t number, struct term *term,
			  struct problem *problem);
/* 0 too when it did not exist. */
int store_remove(struct store *store, const struct object_id *id, struct problem *problem);
int store_stat(struct store *store, const struct object_id *id, struct backend_stat *stat,
	       struct problem *problem);
/* A name that nothing has, for what this process puts in the term. */
void store_unfinished_name(char name[OBJECT_NAME_MAX], uint64_t term);
/* A number that no segment of the term has. */
int store_next_number(struct store *store, uint64_t term, uint64_t *number,
		      struct problem *problem);

#endif
