/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where jobs lie in the stores, for root's commands on them.  A job's directory is read as its owner,
 * who is store_user: on a server that squashes root, root could not.
 */
#ifndef CKPT_PLACES_H
#define CKPT_PLACES_H

#include <stddef.h>
#include <sys/types.h>

#include "config.h"
#include "key.h"
#include "problem.h"
#include "store.h"

struct place {
	char *store;
	char *job; /* "UID-NAME" */
	uid_t uid;
	gid_t gid;
};

struct places {
	struct place *list;
	size_t count;
};

/*
 * The jobs in that store, or, when it is NULL, in those of all classes; only those of that name, with
 * or without "UID-", unless it is NULL.  Sorted.
 */
int places_find(struct places *places, const struct config *config, const char *store,
		const char *job, struct problem *problem);
void places_free(struct places *places);
int place_open(const struct place *place, const struct keys *keys, enum store_use use,
	       struct store **store, struct problem *problem);

/* Which jobs a command is about. */
struct places_query {
	const char *config;      /* ckptd's, a path */
	const char *store;
	const char *job;
	enum store_use use;
};

/*
 * store: NULL when the place cannot be opened, which the problem then tells. What it returns ends the
 * visit, unless it is 0.
 */
typedef int (*place_visit)(void *arg, const struct place *place, struct store *store,
			   const struct config *config, struct problem *problem);
/* Calls visit for each job, in their order. Those that are gone meanwhile are passed by. */
int places_visit(const struct places_query *query, place_visit visit, void *arg,
		 struct problem *problem);

#endif
