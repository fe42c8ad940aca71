// SPDX-License-Identifier: GPL-2.0
/*
 * Known tables: where each page table was when it was armed last.
 *
 *	chunks		address >> 30 -> 512 entries, one for each 2 MiB: what was armed there
 *	places		identity of a table -> the 2 MiB where it was armed last, a hash with open addressing
 *
 * An entry is 0, or the table's identity, whether it is fresh, and the stamp of its last collect (see walk.c). A table
 * moves with mremap(), and its page may be freed and be a table elsewhere: what is armed in one place is not known in
 * another any more. So an identity is in one entry at most, and places tells in which before it gets into a second.
 * It is asked only when a table is seen in a place for the first time.
 *
 * Both together take 8 bytes and, depending on where the hash is between two doublings, 11 to 32 bytes more for each
 * 2 MiB of memory.
 */
#include <linux/bitops.h>
#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "internal.h"

#define CHUNK_TABLES	((unsigned long)PTRS_PER_PMD)
#define CHUNK(index)	((index) / CHUNK_TABLES)
#define PLACES_MIN	(2 * CHUNK_TABLES)

static u64 *table_entry(struct ckpt_tables *tables, unsigned long index)
{
	u64 *chunk = xa_load(&tables->chunks, CHUNK(index));

	return chunk ? chunk + index % CHUNK_TABLES : NULL;
}

/* All huge pages that have their entries in one table have its identity. */
static u64 place_key(u64 identity, unsigned long index)
{
	return identity * CHUNK_TABLES + (CKPT_TABLE_IS_HUGE(identity) ? index % CHUNK_TABLES : 0);
}

static void place_insert(struct ckpt_tables *tables, u64 key, unsigned long index)
{
	unsigned long i = hash_64(key, tables->places_bits);

	while (tables->places[i])
		i = (i + 1) & ((1UL << tables->places_bits) - 1);
	tables->places[i] = index + 1;
	tables->places_used++;
}

/* The entry that has the key. A place may be in the hash for a table that is not known there any more. */
static u64 *place_find(struct ckpt_tables *tables, u64 key)
{
	unsigned long i = hash_64(key, tables->places_bits);
	unsigned long index;
	u64 *entry;

	for (; tables->places[i]; i = (i + 1) & ((1UL << tables->places_bits) - 1)) {
		index = tables->places[i] - 1;
		entry = table_entry(tables, index);
		if (entry && *entry && place_key(CKPT_TABLE_IDENTITY(*entry), index) == key)
			return entry;
	}
	return NULL;
}

static unsigned long tables_count(struct ckpt_tables *tables)
{
	unsigned long index, i, count = 0;
	u64 *chunk;

	xa_for_each(&tables->chunks, index, chunk)
		for (i = 0; i < CHUNK_TABLES; i++)
			count += chunk[i] != 0;
	return count;
}

static void places_fill(struct ckpt_tables *tables)
{
	unsigned long index, i;
	u64 *chunk;

	xa_for_each(&tables->chunks, index, chunk) {
		for (i = 0; i < CHUNK_TABLES; i++)
			if (chunk[i])
				place_insert(tables, place_key(CKPT_TABLE_IDENTITY(chunk[i]), i),
					     index * CHUNK_TABLES + i);
		cond_resched();
	}
}

/* Room for the places of one more chunk. */
static int places_reserve(struct ckpt_tables *tables)
{
	unsigned long size;
	u64 *places;

	if (tables->places && tables->places_used + CHUNK_TABLES <= (1UL << tables->places_bits) / 4 * 3)
		return 0;
	size = roundup_pow_of_two(max(PLACES_MIN, 2 * (tables_count(tables) + CHUNK_TABLES)));
	places = kvcalloc(size, sizeof(*places), GFP_KERNEL_ACCOUNT);
	if (!places)
		return -ENOMEM;
	kvfree(tables->places);
	tables->places = places;
	tables->places_bits = ilog2(size);
	tables->places_used = 0;
	places_fill(tables);
	return 0;
}

u64 *ckpt_tables_chunk(struct ckpt_tables *tables, unsigned long index)
{
	u64 *chunk = xa_load(&tables->chunks, CHUNK(index));

	if (places_reserve(tables))
		return NULL;
	if (chunk)
		return chunk;
	chunk = kcalloc(CHUNK_TABLES, sizeof(*chunk), GFP_KERNEL_ACCOUNT);
	if (chunk && xa_err(xa_store(&tables->chunks, CHUNK(index), chunk, GFP_KERNEL_ACCOUNT))) {
		kfree(chunk);
		return NULL;
	}
	return chunk;
}

void ckpt_tables_take(struct ckpt_tables *tables, u64 identity, unsigned long index)
{
	u64 *entry = place_find(tables, place_key(identity, index));

	if (entry)
		*entry = 0;
}

void ckpt_tables_set(struct ckpt_tables *tables, u64 *entry, unsigned long index, u64 value)
{
	u64 identity = CKPT_TABLE_IDENTITY(value);

	if (CKPT_TABLE_IDENTITY(*entry) != identity) {
		ckpt_tables_take(tables, identity, index);
		place_insert(tables, place_key(identity, index), index);
	}
	*entry = value;
}

/* Of the chunk at the index: what is in [first, last]. */
static unsigned long chunk_begin(unsigned long index, unsigned long first)
{
	return index == CHUNK(first) ? first % CHUNK_TABLES : 0;
}

static unsigned long chunk_end(unsigned long index, unsigned long last)
{
	return index == CHUNK(last) ? last % CHUNK_TABLES + 1 : CHUNK_TABLES;
}

void ckpt_tables_freshen(struct ckpt_tables *tables, unsigned long first, unsigned long last)
{
	unsigned long index, i;
	u64 *chunk;

	xa_for_each_range(&tables->chunks, index, chunk, CHUNK(first), CHUNK(last)) {
		for (i = chunk_begin(index, first); i < chunk_end(index, last); i++)
			if (chunk[i])
				chunk[i] |= CKPT_TABLE_FRESH;
		cond_resched();
	}
}

void ckpt_tables_unknown(struct ckpt_tables *tables, unsigned long first, unsigned long last)
{
	unsigned long index, begin;
	u64 *chunk;

	xa_for_each_range(&tables->chunks, index, chunk, CHUNK(first), CHUNK(last)) {
		begin = chunk_begin(index, first);
		memset(chunk + begin, 0, (chunk_end(index, last) - begin) * sizeof(*chunk));
	}
}

void ckpt_tables_expire(struct ckpt_tables *tables)
{
	unsigned long index, i;
	u64 *chunk;

	xa_for_each(&tables->chunks, index, chunk)
		for (i = 0; i < CHUNK_TABLES; i++)
			chunk[i] &= ~CKPT_TABLE_STAMP_MASK;
}

void ckpt_tables_forget(struct ckpt_tables *tables, unsigned long first, unsigned long end)
{
	unsigned long index;
	u64 *chunk;

	if (first >= end)
		return;
	xa_for_each_range(&tables->chunks, index, chunk, first, end - 1) {
		xa_erase(&tables->chunks, index);
		kfree(chunk);
	}
}

void ckpt_tables_init(struct ckpt_tables *tables)
{
	xa_init_flags(&tables->chunks, XA_FLAGS_ACCOUNT);
}

void ckpt_tables_destroy(struct ckpt_tables *tables)
{
	unsigned long index;
	u64 *chunk;

	xa_for_each(&tables->chunks, index, chunk)
		kfree(chunk);
	xa_destroy(&tables->chunks);
	kvfree(tables->places);
	tables->places = NULL;
	tables->places_used = 0;
}
