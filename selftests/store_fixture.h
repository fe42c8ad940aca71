/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A store in a directory of its own, and a model that knows what each page of a checkpoint must be:
 * a page is made from its seed, so that the model is a seed for each page.
 */
#ifndef CKPT_STORE_FIXTURE_H
#define CKPT_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults.h"
#include "log.h"
#include "manifest.h"
#include "memory_backend.h"
#include "packer.h"
#include "pagemap.h"
#include "store.h"

#define JOB "1000-job"
#define KEEP_ALL 1000

static struct problem problem;

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		problem.text[0] = 0;                                                               \
		int result_ = (call);                                                              \
		if (result_)                                                                       \
			fail_msg("%s: %d: %s", #call, result_, problem.text);                      \
	} while (0)
#define assert_err(call, err)                                                                      \
	do {                                                                                       \
		problem.text[0] = 0;                                                               \
		int result_ = (call);                                                              \
		if (result_ != -(err))                                                             \
			fail_msg("%s: %d, not %d: %s", #call, result_, -(err), problem.text);      \
	} while (0)

/* ---- the place ---- */

static char directory[64];
static struct keys keys = { .count = 1, .list = { { 1, 2, 3 } } };
static struct store_options options = { .directory = directory, .keys = &keys,
					.compress = "zstd:1", .seal = "auto", .buffer_bytes = 8 << 20 };

static inline int remove_entry(const char *path, const struct stat *stat, int flag,
			       struct FTW *ftw)
{
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static inline int directory_create(void **state)
{
	const char *where = getenv("CKPT_TEST_DIRECTORY"); /* tmpfs unless set: fsync costs nothing */

	snprintf(directory, sizeof(directory), "%s/ckpt-test-XXXXXX", where ? where : "/dev/shm");
	options.uid = geteuid();
	options.gid = getegid();
	options.compress = "zstd:1";
	options.buffer_bytes = 8 << 20;
	options.seal = "auto";
	keys = (struct keys){ .count = 1, .list = { { 1, 2, 3 } } };
	log_set_level(LOG_ERR);
	fault_arm(NULL);
	return mkdtemp(directory) ? 0 : -1;
}

static inline int directory_remove(void **state)
{
	fault_arm(NULL);
	umount2(directory, MNT_DETACH); /* what a test that failed left */
	remove_tree(directory);
	return 0;
}

/* A server in memory is used instead of the directory where a test says so. */
static struct memory_server memory_server;
static bool in_memory;

static inline struct store *open_store(void)
{
	struct store *store;

	options.backend = in_memory ? memory_backend(&memory_server) : NULL;
	assert_ok(store_open(&store, &options, JOB, &problem));
	return store;
}

static inline int memory_create(void **state)
{
	int err = directory_create(state);

	memory_server_init(&memory_server);
	in_memory = true;
	return err;
}

static inline int memory_clear(void **state)
{
	memory_server_clear(&memory_server);
	in_memory = false;
	return directory_remove(state);
}

static inline const char *object_path(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s/%.100s", directory, JOB, name);
	return path;
}

static inline struct term take_term(struct store *store, const char *base)
{
	struct term previous, own;

	assert_ok(store_read_term(store, &previous, &problem));
	assert_ok(store_take_term(store, &previous, "node", base, &own, &problem));
	return own;
}

/* ---- the model ---- */

#define MODEL_SPACES 3
#define MODEL_FILE_MAX (MODEL_PAGES * 300)
#ifndef MODEL_PAGES
#define MODEL_PAGES 2048
#endif

struct model {
	uint32_t seeds[MODEL_SPACES][MODEL_PAGES]; /* 0: not held, 1: zero */
	uint32_t file_seed;
	uint32_t file_bytes;
};

static const struct model_space {
	enum space_kind kind;
	uint64_t id;
	uint64_t base;
	uint64_t stride; /* pages of the model are this many bytes apart, in groups of 16 */
} model_spaces[MODEL_SPACES] = {
	{ SPACE_TASK, 7, 0x400000, 0 },
	{ SPACE_TASK, 9, 0x7f0000000000, 1 << 30 },
	{ SPACE_SHMEM, 7, 0, 1 << 20 },
};

static inline uint64_t model_address(unsigned int space, unsigned int page)
{
	const struct model_space *where = &model_spaces[space];

	return where->base + page * 4096ULL + page / 16 * where->stride;
}

static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Of what a test does at each place in turn, or thousands of times, "check -q" has one in so many done. */
static inline unsigned int sweep_step(void)
{
	const char *step = getenv("CKPT_TEST_STEP");

	return step ? (unsigned int)atoi(step) : 1;
}

/* Every fourth seed's page does not compress. */
static inline void seed_fill(uint32_t seed, void *to, size_t length)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
	uint8_t *at = to;
	size_t i;

	memset(at, seed <= 1 ? 0 : seed, length);
	for (i = 0; seed > 1 && i + 8 <= length; i += seed % 4 ? 256 : 8) {
		next_random(&state);
		memcpy(at + i, &state, 8);
	}
}

static inline uint32_t random_seed(uint64_t *state)
{
	return next_random(state) % 8 ? 2 + (next_random(state) >> 16) % 1000000 : 1;
}

static inline struct space *model_space(struct pagemap *map, unsigned int i)
{
	struct space *space = pagemap_space(map, model_spaces[i].kind, model_spaces[i].id);

	assert_non_null(space);
	return space;
}

/* Gives the packer the pages that next has otherwise than last; the seeds of next stay next's. */
static inline int model_pack(const struct model *last, const struct model *next,
			     struct pagemap *map, struct packer *packer)
{
	uint8_t page[4096];
	unsigned int i, p;
	int err = 0;

	for (i = 0; i < MODEL_SPACES; i++) {
		struct space *space = model_space(map, i);

		for (p = 0; p < MODEL_PAGES && !err; p++) {
			uint64_t address = model_address(i, p);

			if (next->seeds[i][p] == last->seeds[i][p])
				continue;
			if (!next->seeds[i][p]) {
				space_forget(space, address, address + 4096);
				continue;
			}
			seed_fill(next->seeds[i][p], page, sizeof(page));
			err = packer_page(packer, space, address, page, &problem);
		}
	}
	return err;
}

static inline int model_pack_file(const struct model *model, struct packer *packer,
				  struct packed_file **file)
{
	void *content = malloc(model->file_bytes + 1);
	int fd = memfd_create("file", 0), err;

	seed_fill(model->file_seed, content, model->file_bytes);
	assert_int_equal(write(fd, content, model->file_bytes), model->file_bytes);
	lseek(fd, 0, SEEK_SET);
	err = packer_file(packer, "pages.img", fd, file, &problem);
	close(fd);
	free(content);
	return err;
}

/* Some pages get new content, some go away, some come back. */
static inline void model_change(struct model *model, uint64_t *state, unsigned int changes)
{
	while (changes--) {
		unsigned int space = next_random(state) % MODEL_SPACES;
		unsigned int first = next_random(state) % MODEL_PAGES;
		unsigned int count = 1 + next_random(state) % 40, i;
		bool gone = next_random(state) % 8 == 0;

		for (i = first; i < first + count && i < MODEL_PAGES; i++)
			model->seeds[space][i] = gone ? 0 : random_seed(state);
	}
	model->file_seed = random_seed(state);
	model->file_bytes = next_random(state) % MODEL_FILE_MAX;
}

struct checker {
	const struct model *model;
	unsigned int space;
	unsigned int next;
	bool differs;
};

static inline int check_page(void *arg, uint64_t address, const void *page)
{
	struct checker *checker = arg;
	uint8_t wanted[4096];

	while (checker->next < MODEL_PAGES && !checker->model->seeds[checker->space][checker->next])
		checker->next++;
	if (checker->next == MODEL_PAGES ||
	    address != model_address(checker->space, checker->next)) {
		checker->differs = true;
		return -ERANGE;
	}
	seed_fill(checker->model->seeds[checker->space][checker->next++], wanted, sizeof(wanted));
	checker->differs |= memcmp(wanted, page, sizeof(wanted)) != 0;
	return checker->differs ? -EDOM : 0;
}

static inline int model_check_space(const struct model *model, unsigned int i,
				    struct store *store, struct manifest *manifest)
{
	struct space *space = model_space(manifest->map, i);
	struct checker checker = { .model = model, .space = i };
	int err = manifest_read_space(store, manifest, space, check_page, &checker, &problem);

	while (!err && checker.next < MODEL_PAGES && !model->seeds[i][checker.next])
		checker.next++;
	return err ? err : checker.next == MODEL_PAGES ? 0 : -ENODATA;
}

static inline int model_check_file(const struct model *model, struct store *store,
				   struct manifest *manifest)
{
	uint8_t *content = malloc(model->file_bytes + 1), *found = malloc(model->file_bytes + 1);
	int fd = memfd_create("file", 0);
	int err = manifest_read_file(store, manifest, "pages.img", fd, &problem);

	seed_fill(model->file_seed, content, model->file_bytes);
	if (!err && (pread(fd, found, model->file_bytes + 1, 0) != model->file_bytes ||
		     memcmp(found, content, model->file_bytes)))
		err = -EDOM;
	close(fd);
	free(content);
	free(found);
	return err;
}

/* 0: the checkpoint is the model, bit for bit. -EDOM, -ERANGE, -ENODATA: it is not. */
static inline int model_check(const struct model *model, struct store *store,
			      struct manifest *manifest)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < MODEL_SPACES && !err; i++)
		err = model_check_space(model, i, store, manifest);
	return err ? err : model_check_file(model, store, manifest);
}

static const char *model_meta = "{}";

/* One checkpoint: pages that changed, the file, the manifest. */
static inline int model_commit(const struct model *last, const struct model *next,
			       struct store *store, const struct term *own, struct pagemap *map,
			       uint64_t sequence, char name[64])
{
	struct packed_file *file = NULL;
	struct packer *packer;
	struct manifest manifest = { .term = own->number, .sequence = sequence, .meta = (char *)model_meta,
				     .map = map, .files = &file, .file_count = 1 };
	int err = packer_create(&packer, store, own, map, &problem);

	if (err)
		return err;
	err = model_pack(last, next, map, packer);
	if (!err)
		err = model_pack_file(next, packer, &file);
	if (!err)
		err = packer_commit(packer, NULL, &problem);
	if (err)
		packer_abort(packer);
	if (!err)
		err = manifest_commit(store, own, &manifest, name, &problem);
	packed_file_free(file);
	return err;
}

static inline void free_names(char **names, size_t count)
{
	while (count)
		free(names[--count]);
	free(names);
}

#endif
