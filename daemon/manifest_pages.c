// SPDX-License-Identifier: GPL-2.0
/* What a manifest refers to: reads pages and files from the segments. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "cleanup.h"
#include "lazy_table.h"
#include "loader.h"
#include "manifest.h"
#include "segment_reader.h"

/* ---- pages ---- */

/* The blocks of a space in the order of address, each run of pages of one block once. */
struct lookahead {
	const struct space *space;
	const struct regions *without;
	size_t region;
	struct leaf *leaf; /* NULL: at number the next one is to be found */
	uint64_t number;
	unsigned int i;
	uint32_t last;
};

static bool lookahead_leaf(struct lookahead *ahead)
{
	if (ahead->leaf)
		return true;
	ahead->i = 0;
	ahead->leaf = space_next_leaf(ahead->space, &ahead->number);
	return ahead->leaf;
}

static uint64_t leaf_address(uint64_t number, unsigned int i)
{
	return (number * LEAF_PAGES + i) * PAGE_BYTES;
}

static uint32_t lookahead_next(void *arg)
{
	struct lookahead *ahead = arg;
	uint32_t block;

	for (; lookahead_leaf(ahead); ahead->number++, ahead->leaf = NULL) {
		for (; ahead->i < LEAF_PAGES; ahead->i++) {
			block = ahead->leaf->block[ahead->i];
			if (!(ahead->leaf->held & (1ULL << ahead->i)) || block == BLOCK_ZERO ||
			    block == ahead->last ||
			    regions_hold(ahead->without, &ahead->region, leaf_address(ahead->number, ahead->i)))
				continue;
			ahead->last = block;
			return block;
		}
	}
	return BLOCK_ZERO;
}

struct giver {
	struct space *space;
	const struct regions *without;
	size_t region;
	struct loader *loader;
	page_sink sink;
	void *arg;
	struct problem *problem;
};

static int page_give(struct giver *giver, struct leaf *leaf, unsigned int i, uint64_t address)
{
	static const uint8_t zero[PAGE_BYTES];
	const uint8_t *hash, *plain;
	unsigned int index = leaf->index[i];
	int err;

	if (regions_hold(giver->without, &giver->region, address))
		return leaf->block[i] == BLOCK_ZERO ? 0 : giver->sink(giver->arg, address, NULL);
	if (leaf->block[i] == BLOCK_ZERO)
		return giver->sink(giver->arg, address, zero);
	err = loader_get(giver->loader, leaf->block[i], &plain, giver->problem);
	if (err)
		return err;
	hash = plain + giver->space->map->blocks[leaf->block[i]].pages * PAGE_BYTES +
	       index * BLOCK_HASH_BYTES;
	leaf->hash[i] = (struct page_hash){ .low = get_le64(hash), .high = get_le64(hash + 8) };
	return giver->sink(giver->arg, address, plain + index * PAGE_BYTES);
}

static int leaf_give(struct giver *giver, struct leaf *leaf, uint64_t number)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < LEAF_PAGES && !err; i++)
		if (leaf->held & (1ULL << i))
			err = page_give(giver, leaf, i, leaf_address(number, i));
	return err;
}

int manifest_read_space_without(struct store *store, struct manifest *manifest, struct space *space,
				const struct regions *without, page_sink sink, void *arg,
				struct problem *problem)
{
	struct lookahead ahead = { .space = space, .without = without, .last = BLOCK_ZERO };
	struct giver giver = { .space = space, .without = without, .sink = sink, .arg = arg,
			       .problem = problem };
	struct leaf *leaf;
	uint64_t number;
	int err = loader_create(&giver.loader, store, manifest->map, lookahead_next, &ahead, problem);

	if (err)
		return err;
	for (number = 0; !err && (leaf = space_next_leaf(space, &number)); number++)
		err = leaf_give(&giver, leaf, number);
	loader_destroy(giver.loader);
	return err;
}

int manifest_read_space(struct store *store, struct manifest *manifest, struct space *space,
			page_sink sink, void *arg, struct problem *problem)
{
	static const struct regions none;

	return manifest_read_space_without(store, manifest, space, &none, sink, arg, problem);
}

/* ---- files ---- */

static int write_fully(int fd, const uint8_t *data, size_t length)
{
	while (length) {
		ssize_t done = write(fd, data, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		data += done;
		length -= done;
	}
	return 0;
}

/* What costs nothing in the store shall not fill a disk either. */
static int write_hole(int fd, uint32_t length)
{
	off_t end = lseek(fd, length, SEEK_CUR);

	return end < 0 || ftruncate(fd, end) ? -errno : 0;
}

/* fd < 0: only reads. */
static int file_read(struct segment_reader *reader, const struct packed_file *file, uint8_t *plain,
		     int fd, struct problem *problem)
{
	size_t i;
	int err = 0;

	for (i = 0; i < file->count && !err; i++) {
		err = segment_reader_file_block(reader, file, &file->blocks[i], plain, problem);
		if (err || fd < 0)
			continue;
		err = file->blocks[i].stored ? write_fully(fd, plain, file->blocks[i].length) :
					       write_hole(fd, file->blocks[i].length);
		if (err)
			problem_set(problem, -err, "cannot write the content of %s: %s", file->name,
				    strerror(-err));
	}
	return err;
}

static int files_read(struct store *store, struct packed_file *const *files, size_t count, int fd,
		      struct problem *problem)
{
	struct segment_reader *reader = segment_reader_create(store);
	cleanup_free uint8_t *plain = malloc(BLOCK_PLAIN_BYTES);
	size_t i;
	int err = 0;

	if (!reader || !plain)
		err = problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s",
				  store->path);
	for (i = 0; i < count && !err; i++)
		err = file_read(reader, files[i], plain, fd, problem);
	segment_reader_destroy(reader);
	return err;
}

int manifest_read_file(struct store *store, struct manifest *manifest, const char *name, int fd,
		       struct problem *problem)
{
	size_t i;

	for (i = 0; i < manifest->file_count; i++)
		if (!strcmp(manifest->files[i]->name, name))
			return files_read(store, &manifest->files[i], 1, fd, problem);
	return problem_set(problem, ENOENT, "the checkpoint in %s has no file %s", store->path, name);
}

/* ---- everything ---- */

struct block_list {
	const struct pagemap *map;
	uint32_t *numbers;
	uint32_t count;
	uint32_t next;
};

static int block_order(const void *a, const void *b, void *arg)
{
	const struct pagemap *map = arg;
	const struct block *first = &map->blocks[*(const uint32_t *)a];
	const struct block *second = &map->blocks[*(const uint32_t *)b];
	int order = segment_compare(first->segment, second->segment);

	if (order)
		return order;
	return first->offset < second->offset ? -1 : first->offset > second->offset;
}

/* In the order of the segments' bytes. */
static int blocks_list(struct block_list *list, struct pagemap *map)
{
	uint32_t i;

	list->map = map;
	list->numbers = calloc(map->block_count + 1ULL, sizeof(*list->numbers));
	if (!list->numbers)
		return -ENOMEM;
	for (i = 0; i < map->block_count; i++)
		if (map->blocks[i].segment && map->blocks[i].live)
			list->numbers[list->count++] = i;
	qsort_r(list->numbers, list->count, sizeof(*list->numbers), block_order, map);
	return 0;
}

static uint32_t block_list_next(void *arg)
{
	struct block_list *list = arg;

	return list->next < list->count ? list->numbers[list->next++] : BLOCK_ZERO;
}

static int blocks_verify(struct store *store, struct pagemap *map, struct problem *problem)
{
	struct block_list list = { 0 };
	struct loader *loader = NULL;
	const uint8_t *plain;
	uint32_t i;
	int err;

	if (blocks_list(&list, map))
		return problem_set(problem, ENOMEM, "no memory to read the checkpoint in %s",
				   store->path);
	err = loader_create(&loader, store, map, block_list_next, &list, problem);
	for (i = 0; i < list.count && !err; i++)
		err = loader_get(loader, list.numbers[i], &plain, problem);
	if (loader)
		loader_destroy(loader);
	free(list.numbers);
	return err;
}

int manifest_verify(struct store *store, struct manifest *manifest, struct problem *problem)
{
	int err = blocks_verify(store, manifest->map, problem);

	return err ? err : files_read(store, manifest->files, manifest->file_count, -1, problem);
}
