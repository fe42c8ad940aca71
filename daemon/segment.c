// SPDX-License-Identifier: GPL-2.0
#include "segment.h"

#include <pthread.h>
#include <stdlib.h>

#include "store_private.h"

struct segment *segment_create(struct store *store, uint64_t term, uint64_t number,
			       enum segment_state state)
{
	struct segment *segment = calloc(1, sizeof(*segment));

	if (!segment)
		return NULL;
	segment->term = term;
	segment->number = number;
	segment->state = state;
	segment->references = 1;
	segment->store = store;
	if (!store)
		return segment;
	pthread_mutex_lock(&store->lock);
	segment->next = store->segments;
	store->segments = segment;
	pthread_mutex_unlock(&store->lock);
	return segment;
}

struct segment *segment_get(struct segment *segment)
{
	__atomic_add_fetch(&segment->references, 1, __ATOMIC_RELAXED);
	return segment;
}

static void unlist(struct segment *segment)
{
	struct store *store = segment->store;
	struct segment **link;

	pthread_mutex_lock(&store->lock);
	for (link = &store->segments; *link != segment; link = &(*link)->next)
		;
	*link = segment->next;
	store->segments_dropped = true;
	pthread_mutex_unlock(&store->lock);
}

void segment_put(struct segment *segment)
{
	if (!segment || __atomic_sub_fetch(&segment->references, 1, __ATOMIC_ACQ_REL))
		return;
	if (segment->store)
		unlist(segment);
	free(segment);
}

int segment_compare(const struct segment *a, const struct segment *b)
{
	if (a->term != b->term)
		return a->term < b->term ? -1 : 1;
	return a->number == b->number ? 0 : a->number < b->number ? -1 : 1;
}
