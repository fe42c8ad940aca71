// SPDX-License-Identifier: GPL-2.0
/*
 * What is left of a job that nobody runs any more: checkpoints that are kept for a while after its
 * end, and those of jobs that were given up.
 *
 * An ended job has a term of its own after its last one, owned by no node, without a base: so there is
 * nothing that a run would go on from.  Without that term, the newest term-* object, there is again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "store_private.h"

/* The node of the term: no host's name has a colon. */
#define ENDED_NODE ":ended:%" PRIu64

bool term_ended(const struct term *term, uint64_t *keep_s)
{
	char again[sizeof(term->node)];

	*keep_s = 0;
	if (sscanf(term->node, ENDED_NODE, keep_s) != 1)
		return false;
	snprintf(again, sizeof(again), ENDED_NODE, *keep_s);
	return !strcmp(again, term->node);
}

static void free_names(char **names, size_t count)
{
	while (count)
		free(names[--count]);
	free(names);
}

/* base: the newest checkpoint, or "". */
static int newest_checkpoint(struct store *store, char base[OBJECT_NAME_MAX], struct problem *problem)
{
	char **names;
	size_t count;
	int err = store_list_checkpoints(store, &names, &count, problem);

	if (err)
		return err;
	snprintf(base, OBJECT_NAME_MAX, "%s", count ? names[0] : "");
	free_names(names, count);
	return 0;
}

int store_put_away(struct store *store, const struct term *own, uint64_t keep_s,
		   struct problem *problem)
{
	char base[OBJECT_NAME_MAX], node[sizeof(own->node)];
	struct term ended;
	uint64_t kept_s;
	int err = store_read_term(store, &ended, problem);

	/* By a ckptd that died then. */
	if (!err && ended.number == own->number + 1 && term_ended(&ended, &kept_s))
		return 0;
	if (!err)
		err = newest_checkpoint(store, base, problem);
	if (err)
		return err;
	if (!*base || !keep_s)
		return store_retire(store, own, problem);
	snprintf(node, sizeof(node), ENDED_NODE, keep_s);
	err = store_take_term(store, own, node, "", &ended, problem);
	return err == -EEXIST ? -ESTALE : err;
}

/* When anything was last written there, by the server's clock; a lease that was given up is not. */
static int64_t last_written_ns(struct store *store, const struct object_list *list)
{
	int64_t newest = 0;

	for (size_t i = 0; i < list->count; i++) {
		struct backend_stat stat;

		if (store_stat(store, &list->ids[i], &stat, NULL) == 0 && stat.modified_ns > newest)
			newest = stat.modified_ns;
	}
	return newest;
}

int store_idle_ms(struct store *store, int64_t *idle_ms, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_list list = { 0 };
	int64_t now_ns, last_ns;
	int err = store_enter(store, &caller, problem);

	if (!err)
		err = store_list(store, &list, problem);
	if (!err)
		err = store_server_time(store, list_newest_term(&list), &now_ns, problem);
	last_ns = err ? 0 : last_written_ns(store, &list);
	free(list.ids);
	if (err)
		return err;
	if (!last_ns)
		return problem_set(problem, ENODATA, "%s holds nothing", store->path);
	*idle_ms = now_ns > last_ns ? (now_ns - last_ns) / 1000000 : 0;
	return 0;
}

int store_give_up(struct store *store, const char *node, int64_t idle_ms, struct problem *problem)
{
	char base[OBJECT_NAME_MAX];
	struct term previous, own, again;
	uint64_t keep_s;
	int64_t now_idle_ms;
	int err = store_idle_ms(store, &now_idle_ms, problem);

	if (!err && now_idle_ms < idle_ms)
		return -EBUSY;
	if (!err)
		err = store_read_term(store, &previous, problem);
	if (!err && (previous.age_ms < TERM_LEASE_MS && !term_ended(&previous, &keep_s)))
		return -EBUSY;
	if (!err)
		err = newest_checkpoint(store, base, problem);
	if (!err)
		err = store_take_term(store, &previous, node, base, &own, problem);
	if (err)
		return err == -EEXIST ? -EBUSY : err;
	/* A restore says that it has begun by renewing the lease of the term that it starts from. */
	err = store_read_older_term(store, previous.number, &again, problem);
	if (err || again.age_ms < previous.age_ms) {
		store_release_term(store, &own, NULL);
		return err ? err : -EBUSY;
	}
	return store_retire(store, &own, problem);
}
