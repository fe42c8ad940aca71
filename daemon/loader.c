// SPDX-License-Identifier: GPL-2.0
#include "loader.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "segment_reader.h"

#define WORKERS_MAX 16
#define SLOTS_MIN 8
#define SLOTS_MAX 4096

enum slot_state {
	SLOT_EMPTY,
	SLOT_QUEUED,
	SLOT_LOADING,
	SLOT_LOADED, /* or failed: err */
};

struct slot {
	enum slot_state state; /* under the lock, like err and problem */
	int err;
	struct problem problem;
	uint32_t block;
	bool ahead;    /* nobody has asked for it yet */
	uint64_t used;
	uint8_t *plain;
};

struct loader {
	struct store *store;
	const struct pagemap *map;
	block_source source;
	void *arg;

	/* the owner's */
	struct segment_reader *reader;
	struct slot *slots;
	uint32_t slot_count;
	uint32_t *places; /* slot + 1 of each block of the map; 0: none */
	uint32_t ahead;   /* slots that nobody has asked for yet */
	uint64_t clock;
	struct slot *recent;
	unsigned int workers_max;
	unsigned int worker_count;
	pthread_t workers[WORKERS_MAX];

	pthread_mutex_t lock; /* of what follows and the slots' state */
	pthread_cond_t queued;
	pthread_cond_t loaded;
	uint32_t *queue; /* a ring of slots */
	uint32_t queue_first;
	uint32_t queue_length;
	bool closing;
};

static int no_memory(const struct loader *loader, struct problem *problem)
{
	return problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s",
			   loader->store->path);
}

/* ---- loading, by workers and by an owner who waits ---- */

static struct slot *queue_pop_locked(struct loader *loader)
{
	struct slot *slot;

	if (!loader->queue_length)
		return NULL;
	slot = &loader->slots[loader->queue[loader->queue_first]];
	loader->queue_first = (loader->queue_first + 1) % loader->slot_count;
	loader->queue_length--;
	slot->state = SLOT_LOADING;
	return slot;
}

/* Drops the lock while it reads. */
static void slot_load_locked(struct loader *loader, struct segment_reader *reader,
			     struct slot *slot)
{
	struct problem problem;
	int err;

	pthread_mutex_unlock(&loader->lock);
	if (!slot->plain)
		slot->plain = malloc(BLOCK_PLAIN_BYTES);
	if (slot->plain)
		err = segment_reader_block(reader, &loader->map->blocks[slot->block], slot->plain,
					   &problem);
	else
		err = no_memory(loader, &problem);
	pthread_mutex_lock(&loader->lock);
	slot->err = err;
	if (err)
		slot->problem = problem;
	slot->state = SLOT_LOADED;
	pthread_cond_signal(&loader->loaded);
}

static void *worker(void *arg)
{
	struct loader *loader = arg;
	struct segment_reader *reader = segment_reader_create(loader->store);
	struct slot *slot;

	pthread_mutex_lock(&loader->lock);
	while (reader && !loader->closing) {
		slot = queue_pop_locked(loader);
		if (slot)
			slot_load_locked(loader, reader, slot);
		else
			pthread_cond_wait(&loader->queued, &loader->lock);
	}
	pthread_mutex_unlock(&loader->lock);
	segment_reader_destroy(reader);
	return NULL;
}

/* Without a worker all still works: the owner loads what it waits for. */
static void worker_start(struct loader *loader)
{
	sigset_t all, old;

	if (loader->worker_count == loader->workers_max)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&loader->workers[loader->worker_count], NULL, worker, loader))
		loader->workers_max = loader->worker_count;
	else
		loader->worker_count++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- the owner's side ---- */

/* The slot that was used longest ago and is not waited for. */
static struct slot *slot_oldest(struct loader *loader)
{
	struct slot *oldest = NULL, *slot;
	uint32_t i;

	pthread_mutex_lock(&loader->lock);
	for (i = 0; i < loader->slot_count; i++) {
		slot = &loader->slots[i];
		if (slot == loader->recent || slot->ahead || slot->state == SLOT_QUEUED ||
		    slot->state == SLOT_LOADING)
			continue;
		if (!oldest || slot->used < oldest->used)
			oldest = slot;
	}
	pthread_mutex_unlock(&loader->lock);
	return oldest;
}

static bool slot_assign(struct loader *loader, uint32_t block, struct slot **assigned)
{
	struct slot *slot = slot_oldest(loader);
	uint32_t length;

	if (!slot)
		return false;
	if (slot->state != SLOT_EMPTY)
		loader->places[slot->block] = 0;
	slot->block = block;
	slot->used = ++loader->clock;
	loader->places[block] = slot - loader->slots + 1;
	segment_reader_announce(loader->reader, &loader->map->blocks[block]);
	pthread_mutex_lock(&loader->lock);
	slot->state = SLOT_QUEUED;
	length = loader->queue_length++;
	loader->queue[(loader->queue_first + length) % loader->slot_count] = slot - loader->slots;
	pthread_cond_signal(&loader->queued);
	pthread_mutex_unlock(&loader->lock);
	if (length)
		worker_start(loader);
	*assigned = slot;
	return true;
}

static void load_ahead(struct loader *loader)
{
	struct slot *slot;
	uint32_t block;

	while (loader->source && loader->ahead < loader->slot_count / 2) {
		block = loader->source(loader->arg);
		if (block == BLOCK_ZERO) {
			loader->source = NULL;
			return;
		}
		if (loader->places[block])
			continue;
		if (!slot_assign(loader, block, &slot))
			return;
		slot->ahead = true;
		loader->ahead++;
	}
}

static void slot_wait(struct loader *loader, struct slot *slot)
{
	struct slot *other;

	pthread_mutex_lock(&loader->lock);
	while (slot->state != SLOT_LOADED) {
		other = queue_pop_locked(loader);
		if (other)
			slot_load_locked(loader, loader->reader, other);
		else
			pthread_cond_wait(&loader->loaded, &loader->lock);
	}
	pthread_mutex_unlock(&loader->lock);
}

static int slot_get(struct loader *loader, uint32_t block, struct problem *problem)
{
	struct slot *slot = NULL;

	if (loader->places[block])
		slot = &loader->slots[loader->places[block] - 1];
	else if (!slot_assign(loader, block, &slot))
		return no_memory(loader, problem); /* cannot be: half of the slots are not ahead */
	if (slot->ahead)
		loader->ahead--;
	slot->ahead = false;
	slot->used = ++loader->clock;
	loader->recent = slot;
	load_ahead(loader);
	slot_wait(loader, slot);
	return slot->err ? problem_set(problem, -slot->err, "%s", slot->problem.text) : 0;
}

int loader_get(struct loader *loader, uint32_t block, const uint8_t **plain,
	       struct problem *problem)
{
	int err = 0;

	if (!loader->recent || loader->recent->block != block || loader->recent->err)
		err = slot_get(loader, block, problem);
	*plain = loader->recent ? loader->recent->plain : NULL;
	return err;
}

static uint32_t slots_wanted(const struct store *store)
{
	size_t count = store->buffer_bytes / BLOCK_PLAIN_BYTES;

	return count < SLOTS_MIN ? SLOTS_MIN : count > SLOTS_MAX ? SLOTS_MAX : count;
}

int loader_create(struct loader **created, struct store *store, const struct pagemap *map,
		  block_source source, void *arg, struct problem *problem)
{
	struct loader *loader = calloc(1, sizeof(*loader));

	if (!loader)
		return problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s",
				   store->path);
	loader->store = store;
	loader->map = map;
	loader->source = source;
	loader->arg = arg;
	loader->slot_count = slots_wanted(store);
	/* More than processors: most of them wait for the storage. */
	loader->workers_max = WORKERS_MAX;
	pthread_mutex_init(&loader->lock, NULL);
	pthread_cond_init(&loader->queued, NULL);
	pthread_cond_init(&loader->loaded, NULL);
	loader->reader = segment_reader_create(store);
	loader->slots = calloc(loader->slot_count, sizeof(*loader->slots));
	loader->queue = calloc(loader->slot_count, sizeof(*loader->queue));
	loader->places = calloc(map->block_count + 1ULL, sizeof(*loader->places));
	*created = loader;
	if (loader->reader && loader->slots && loader->queue && loader->places)
		return 0;
	loader_destroy(loader);
	return problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s", store->path);
}

static void slots_destroy(struct loader *loader)
{
	uint32_t i;

	for (i = 0; loader->slots && i < loader->slot_count; i++) {
		if (loader->slots[i].plain)
			seal_wipe(loader->slots[i].plain, BLOCK_PLAIN_BYTES);
		free(loader->slots[i].plain);
	}
	free(loader->slots);
}

void loader_destroy(struct loader *loader)
{
	if (!loader)
		return;
	pthread_mutex_lock(&loader->lock);
	loader->closing = true;
	pthread_cond_broadcast(&loader->queued);
	pthread_mutex_unlock(&loader->lock);
	while (loader->worker_count)
		pthread_join(loader->workers[--loader->worker_count], NULL);
	slots_destroy(loader);
	segment_reader_destroy(loader->reader);
	pthread_cond_destroy(&loader->loaded);
	pthread_cond_destroy(&loader->queued);
	pthread_mutex_destroy(&loader->lock);
	free(loader->places);
	free(loader->queue);
	free(loader);
}
