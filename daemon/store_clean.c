// SPDX-License-Identifier: GPL-2.0
/*
 * Cleaning.  What stays: the newest checkpoints of the chain, the segments that they or this process
 * refer to, the terms that the chain goes through, and what belongs to a term that is newer than ours.
 */
#include <errno.h>

#include "cleanup.h"
#include "log.h"
#include "manifest_format.h"
#include "pagemap_private.h"

/* An unfinished object of another process of our term is an orphan after this long. */
#define ORPHAN_NS (600 * 1000000000LL)

struct cleaning {
	struct store *store;
	uint64_t own;
	struct object_list all;
	struct object_list manifests; /* to be kept, newest first */
	struct object_list segments;  /* to be kept, sorted before they are looked up */
	size_t segment_space;
	uint64_t oldest_term;         /* that the chain needs */
	int64_t lease_ns;
	uint64_t bytes;
	struct problem *problem;
};

/* ---- what is kept ---- */

static int keep_segment(struct cleaning *cleaning, uint64_t term, uint64_t number)
{
	struct object_list *segments = &cleaning->segments;
	struct object_id *ids = segments->ids;
	size_t space = segments->count * 2 + 64;

	if (segments->count >= cleaning->segment_space) {
		ids = realloc(ids, space * sizeof(*ids));
		if (!ids)
			return problem_set(cleaning->problem, ENOMEM, "no memory to clean %s",
					   cleaning->store->path);
		segments->ids = ids;
		cleaning->segment_space = space;
	}
	ids[segments->count++] = (struct object_id){ .kind = OBJECT_SEGMENT, .term = term,
						     .number = number };
	return 0;
}

/* *readable: it can be restored as far as cleaning can see. */
static int keep_manifest(struct cleaning *cleaning, const struct object_id *id, bool *readable)
{
	struct object_list found = { 0 };
	struct problem problem;
	size_t i;
	int err = manifest_segments(cleaning->store, id, &found, &problem);

	*readable = !err;
	if (err == -EBADMSG) {
		log_warn("not counted as a checkpoint: %s", problem.text);
		err = 0;
	} else if (err) {
		problem_set(cleaning->problem, -err, "%s", problem.text);
	}
	for (i = 0; i < found.count && !err && *readable; i++)
		err = keep_segment(cleaning, found.ids[i].term, found.ids[i].number);
	free(found.ids);
	return err;
}

/*
 * The newest that can be read, and what is newer than those.  A chain that is cut by a damaged term
 * will do, when it has enough of them.
 */
static int keep_manifests(struct cleaning *cleaning, unsigned int keep)
{
	struct object_list *chain = &cleaning->manifests;
	unsigned int kept = 0;
	bool readable;
	size_t i;
	int cut = store_chain(cleaning->store, &cleaning->all, chain, cleaning->problem);
	int err = cut == -EBADMSG ? 0 : cut;

	cleaning->oldest_term = cleaning->own;
	for (i = 0; i < chain->count && kept < keep && !err; i++) {
		err = keep_manifest(cleaning, &chain->ids[i], &readable);
		kept += readable;
		if (chain->ids[i].term < cleaning->oldest_term)
			cleaning->oldest_term = chain->ids[i].term;
	}
	chain->count = i;
	return err ? err : kept < keep ? cut : 0;
}

static int keep_live(struct cleaning *cleaning, const struct pagemap *live)
{
	const struct segment *last = NULL, *segment;
	uint32_t i;
	int err = 0;

	for (i = 0; live && i < live->block_count && !err; i++) {
		segment = live->blocks[i].segment;
		if (segment && segment != last)
			err = keep_segment(cleaning, segment->term, segment->number);
		last = segment;
	}
	return err;
}

static uint64_t object_bytes(struct cleaning *cleaning, const struct object_id *id)
{
	struct backend_stat stat;

	return store_stat(cleaning->store, id, &stat, NULL) ? 0 : stat.length;
}

static void sort_segments(struct cleaning *cleaning)
{
	if (cleaning->segments.count)
		qsort(cleaning->segments.ids, cleaning->segments.count, sizeof(struct object_id),
		      object_compare);
}

static bool segment_kept(const struct cleaning *cleaning, const struct object_id *id)
{
	return cleaning->segments.count &&
	       bsearch(id, cleaning->segments.ids, cleaning->segments.count, sizeof(*id),
		       object_compare);
}

/* Those that are to be kept so far are those of checkpoints. */
static void pin_known(struct cleaning *cleaning)
{
	struct segment *segment;

	sort_segments(cleaning);
	pthread_mutex_lock(&cleaning->store->lock);
	for (segment = cleaning->store->segments; segment; segment = segment->next)
		segment->pinned = segment_kept(cleaning, &(struct object_id){
			.kind = OBJECT_SEGMENT, .term = segment->term, .number = segment->number });
	pthread_mutex_unlock(&cleaning->store->lock);
}

/* What a restore brought is measured here, once. */
static void measure(struct cleaning *cleaning, struct segment *segment)
{
	struct object_id id = { .kind = OBJECT_SEGMENT, .term = segment->term,
				.number = segment->number };

	if (segment->measured || segment->state != SEGMENT_COMMITTED)
		return;
	segment->bytes = object_bytes(cleaning, &id);
	segment->measured = true;
}

static int keep_known(struct cleaning *cleaning)
{
	struct segment *segment;
	int err = 0;

	pthread_mutex_lock(&cleaning->store->lock);
	cleaning->store->segments_dropped = false;
	for (segment = cleaning->store->segments; segment && !err; segment = segment->next) {
		err = keep_segment(cleaning, segment->term, segment->number);
		measure(cleaning, segment);
	}
	pthread_mutex_unlock(&cleaning->store->lock);
	return err;
}

/* ---- what goes ---- */

static bool manifest_kept(const struct cleaning *cleaning, const struct object_id *id)
{
	size_t i;

	for (i = 0; i < cleaning->manifests.count; i++)
		if (!object_compare(id, &cleaning->manifests.ids[i]))
			return true;
	return false;
}

static bool unfinished_kept(const struct cleaning *cleaning, const struct object_id *id)
{
	struct backend_stat stat;

	if (id->term != cleaning->own)
		return false;
	return id->instance == store_instance() || store_stat(cleaning->store, id, &stat, NULL) ||
	       stat.modified_ns + ORPHAN_NS > cleaning->lease_ns;
}

static bool kept(const struct cleaning *cleaning, const struct object_id *id)
{
	if (id->term > cleaning->own)
		return true;
	switch (id->kind) {
	case OBJECT_TERM:
		return id->term >= cleaning->oldest_term;
	case OBJECT_SEGMENT:
		return segment_kept(cleaning, id);
	case OBJECT_MANIFEST:
		return manifest_kept(cleaning, id);
	case OBJECT_UNFINISHED:
		return unfinished_kept(cleaning, id);
	}
	return true;
}

static int clean_kind(struct cleaning *cleaning, enum object_kind kind)
{
	const struct object_id *id;
	size_t i;
	int err = 0;

	for (i = 0; i < cleaning->all.count && !err; i++) {
		id = &cleaning->all.ids[i];
		if (id->kind != kind)
			continue;
		if (kept(cleaning, id))
			cleaning->bytes += object_bytes(cleaning, id);
		else
			err = store_remove(cleaning->store, id, cleaning->problem);
	}
	return err;
}

static int lease_read(struct cleaning *cleaning)
{
	struct object_id id = { .kind = OBJECT_TERM, .term = cleaning->own };
	struct backend_stat stat = { 0 };
	int err = store_stat(cleaning->store, &id, &stat, cleaning->problem);

	cleaning->lease_ns = stat.modified_ns;
	return err;
}

/*
 * Manifests go first, so that no checkpoint is ever listed whose segments are going.  A newer owner
 * that appears meanwhile started from one of the checkpoints that we keep, or ends us here.
 */
static int clean(struct cleaning *cleaning)
{
	static const enum object_kind order[] = { OBJECT_MANIFEST, OBJECT_SEGMENT, OBJECT_TERM,
						  OBJECT_UNFINISHED };
	size_t i;
	int err = 0;

	sort_segments(cleaning);
	for (i = 0; i < sizeof(order) / sizeof(*order) && !err; i++) {
		err = store_check_term(cleaning->store, cleaning->own, cleaning->problem);
		if (!err)
			err = clean_kind(cleaning, order[i]);
	}
	return err;
}

int store_clean(struct store *store, const struct term *own, unsigned int keep,
		const struct pagemap *live, uint64_t *bytes_used, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct cleaning cleaning = { .store = store, .own = own->number, .problem = problem };
	int err = store_enter(store, &caller, problem);

	if (!err)
		err = store_check_term(store, own->number, problem);
	if (!err)
		err = store_list(store, &cleaning.all, problem);
	if (!err)
		err = lease_read(&cleaning);
	if (!err)
		err = keep_manifests(&cleaning, keep ? keep : 1);
	if (!err)
		pin_known(&cleaning);
	if (!err)
		err = keep_live(&cleaning, live);
	if (!err)
		err = keep_known(&cleaning);
	if (!err)
		err = clean(&cleaning);
	if (!err && bytes_used)
		*bytes_used = cleaning.bytes;
	free(cleaning.all.ids);
	free(cleaning.manifests.ids);
	free(cleaning.segments.ids);
	return err;
}

bool store_is_dirty(struct store *store)
{
	bool dirty;

	pthread_mutex_lock(&store->lock);
	dirty = store->segments_dropped;
	pthread_mutex_unlock(&store->lock);
	return dirty;
}

/* ---- the end of a job ---- */

static int remove_kind(struct store *store, const struct object_list *list, enum object_kind kind,
		       struct problem *problem)
{
	size_t i;
	int err = 0;

	for (i = 0; i < list->count && !err; i++)
		if (list->ids[i].kind == kind)
			err = store_remove(store, &list->ids[i], problem);
	return err;
}

static int remove_all(struct store *store, const struct object_list *list,
		      struct problem *problem)
{
	static const enum object_kind order[] = { OBJECT_MANIFEST, OBJECT_SEGMENT,
						  OBJECT_UNFINISHED, OBJECT_TERM };
	size_t i;
	int err = 0;

	for (i = 0; i < sizeof(order) / sizeof(*order) && !err; i++)
		err = remove_kind(store, list, order[i], problem);
	if (err)
		return err;
	err = store->backend->kind->retire(store->backend);
	return err ? store_problem(store, problem, -err, "remove", "") : 0;
}

int store_retire(struct store *store, const struct term *own, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_list list = { 0 };
	int err = store_enter(store, &caller, problem);

	if (!err)
		err = store_check_term(store, own->number, problem);
	if (!err || err == -ENOENT)
		err = store_list(store, &list, problem);
	if (!err)
		err = remove_all(store, &list, problem);
	free(list.ids);
	return err;
}
