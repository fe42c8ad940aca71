// SPDX-License-Identifier: GPL-2.0
#include "listing.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

void listing_clear(struct listing *listing)
{
	catalog_clear(&listing->catalog);
	free(listing->memory);
	free(listing->by_inode);
	*listing = (struct listing){ 0 };
}

static int file_order(uint64_t device, uint64_t inode, const struct catalog_entry *other)
{
	if (device != other->device)
		return device < other->device ? -1 : 1;
	return inode < other->inode ? -1 : inode > other->inode;
}

static int inode_order(const void *a, const void *b, void *arg)
{
	const struct catalog *catalog = arg;
	const struct catalog_entry *one = &catalog->entries[*(const uint32_t *)a];

	return file_order(one->device, one->inode, &catalog->entries[*(const uint32_t *)b]);
}

int listing_index(struct listing *listing)
{
	const struct catalog *catalog = &listing->catalog;

	listing->by_inode = calloc(catalog->entry_count + 1, sizeof(*listing->by_inode));
	if (!listing->by_inode)
		return -ENOMEM;
	for (uint32_t i = 0; i < catalog->entry_count; i++)
		if (S_ISREG(catalog->entries[i].mode) && !catalog->entries[i].link)
			listing->by_inode[listing->file_count++] = i;
	qsort_r(listing->by_inode, listing->file_count, sizeof(*listing->by_inode), inode_order,
		&listing->catalog);
	return 0;
}

int64_t listing_find_inode(const struct listing *listing, const struct catalog_entry *file)
{
	size_t low = 0, high = listing->file_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		uint32_t number = listing->by_inode[middle];
		int order = file_order(file->device, file->inode, &listing->catalog.entries[number]);

		if (!order)
			return number;
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

int listing_add(struct listing *listing, struct catalog_entry **entry)
{
	size_t space = listing->memory_space ? listing->memory_space * 2 : 64;
	struct listing_memory *memory;

	if (listing->catalog.entry_count == listing->memory_space) {
		memory = reallocarray(listing->memory, space, sizeof(*memory));
		if (!memory)
			return -ENOMEM;
		listing->memory = memory;
		listing->memory_space = space;
	}
	listing->memory[listing->catalog.entry_count] = (struct listing_memory){ 0 };
	*entry = catalog_add(&listing->catalog);
	return *entry ? 0 : -ENOMEM;
}

int listing_take(struct listing *listing, struct catalog *catalog)
{
	listing_clear(listing);
	listing->catalog = *catalog;
	*catalog = (struct catalog){ 0 };
	listing->memory_space = listing->catalog.entry_count;
	listing->memory = calloc(listing->memory_space + 1, sizeof(*listing->memory));
	if (!listing->memory || listing_index(listing)) {
		listing_clear(listing);
		return -ENOMEM;
	}
	return 0;
}
