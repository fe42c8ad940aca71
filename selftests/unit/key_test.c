// SPDX-License-Identifier: GPL-2.0
/* The key file, and a change of the cluster's key under a job that lives on. */
#define MODEL_PAGES 100
#include "store_fixture.h"

static const char *key_path(void)
{
	static char path[100];

	snprintf(path, sizeof(path), "%s/key", directory);
	return path;
}

static void write_file(const void *data, size_t length, mode_t mode)
{
	int fd;

	unlink(key_path());
	fd = open(key_path(), O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, data, length), length);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void test_file(void **state)
{
	struct keys some = { 0 }, found;
	unsigned int i;

	for (i = 0; i < KEYS_MAX; i++)
		assert_ok(keys_new(&some, &problem));
	assert_err(keys_new(&some, &problem), E2BIG);
	assert_ok(keys_write(&some, key_path(), &problem));
	assert_ok(keys_read(&found, key_path(), &problem));
	assert_memory_equal(&some, &found, sizeof(some));
	some.count = 3;
	memset(some.list[3], 0, sizeof(some) - offsetof(struct keys, list[3]));
	assert_ok(keys_write(&some, key_path(), &problem));
	assert_ok(keys_read(&found, key_path(), &problem));
	assert_memory_equal(&some, &found, sizeof(some));
}

static void test_bad_files(void **state)
{
	struct keys found;
	uint8_t bytes[KEYS_MAX * 32 + 32];
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = i / 32 + 1;
	assert_err(keys_read(&found, key_path(), &problem), ENOENT);
	assert_non_null(strstr(problem.text, "ckptctl key new"));
	for (i = 0; i <= sizeof(bytes); i += i % 32 == 31 ? 1 : 31) {
		write_file(bytes, i, 0600);
		if (i % 32 || !i || i > KEYS_MAX * 32)
			assert_err(keys_read(&found, key_path(), &problem), EINVAL);
		else
			assert_ok(keys_read(&found, key_path(), &problem));
	}
	write_file(bytes, 64, 0640);
	assert_err(keys_read(&found, key_path(), &problem), EPERM);
	write_file(bytes, 64, 0602);
	assert_err(keys_read(&found, key_path(), &problem), EPERM);
	memset(bytes + 32, 0, 32);
	write_file(bytes, 64, 0600);
	assert_err(keys_read(&found, key_path(), &problem), EINVAL);
	assert_non_null(strstr(problem.text, "zero"));
	memcpy(bytes + 64, bytes, 32);
	memset(bytes + 32, 9, 32);
	write_file(bytes, 96, 0600);
	assert_err(keys_read(&found, key_path(), &problem), EINVAL);
	assert_non_null(strstr(problem.text, "twice"));
	unlink(key_path());
	assert_int_equal(symlink("/dev/zero", key_path()), 0);
	assert_err(keys_read(&found, key_path(), &problem), ELOOP);
}

static void test_find(void **state)
{
	struct keys some = { 0 };
	char id[KEY_ID_BYTES];
	unsigned int i;

	for (i = 0; i < KEYS_MAX; i++)
		assert_ok(keys_new(&some, &problem));
	for (i = 0; i < some.count; i++) {
		key_id(id, some.list[i]);
		assert_int_equal(strlen(id), 16);
		assert_int_equal(keys_find(&some, id, &problem), i);
	}
	id[12] = 0;
	assert_int_equal(keys_find(&some, id, &problem), KEYS_MAX - 1);
	assert_err(keys_find(&some, "", &problem), EINVAL);
	assert_err(keys_find(&some, "xyz", &problem), ENOENT);
	some.count = 0;
	assert_err(keys_find(&some, "", &problem), ENOENT);
}

static void test_order(void **state)
{
	struct keys some = { .count = 3, .list = { { 1 }, { 2 }, { 3 } } };

	keys_use(&some, 2);
	assert_int_equal(some.list[0][0] * 100 + some.list[1][0] * 10 + some.list[2][0], 312);
	keys_use(&some, 1);
	assert_int_equal(some.list[0][0] * 100 + some.list[1][0] * 10 + some.list[2][0], 132);
	keys_remove(&some, 1);
	assert_int_equal(some.count, 2);
	assert_int_equal(some.list[0][0] * 100 + some.list[1][0] * 10 + some.list[2][0], 120);
}

/* ---- a job's life over a change ---- */

static struct model model_a, model_b;

static char *newest(struct store *store)
{
	char **names, *name;
	size_t count;

	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	assert_true(count > 0);
	name = strdup(names[0]);
	free_names(names, count);
	return name;
}

/* Another node's owner with these keys: reads the newest, takes over, writes the next one. */
static void own(const struct model *last, const struct model *next)
{
	struct store *store = open_store();
	char *base = newest(store), name[64];
	struct manifest *manifest;
	struct term term = take_term(store, base);

	assert_ok(manifest_read(store, base, &manifest, &problem));
	assert_ok(model_check(last, store, manifest));
	assert_ok(model_commit(last, next, store, &term, manifest->map, 1, name));
	manifest_free(manifest);
	free(base);
	store_close(store);
}

static void assert_readable(const struct model *model)
{
	struct store *store = open_store();
	char *name = newest(store);
	struct manifest *manifest;

	assert_ok(manifest_read(store, name, &manifest, &problem));
	assert_ok(model_check(model, store, manifest));
	manifest_free(manifest);
	free(name);
	store_close(store);
}

static void assert_no_key(void)
{
	struct store *store = open_store();
	struct term term;

	assert_err(store_read_term(store, &term, &problem), ENOKEY);
	store_close(store);
}

static void begin(void)
{
	static const struct model none;
	struct store *store = open_store();
	struct pagemap *map = pagemap_create();
	struct term term = take_term(store, "");
	uint64_t random = 3;
	char name[64];

	memset(&model_a, 0, sizeof(model_a));
	model_change(&model_a, &random, 10);
	model_b = model_a;
	model_change(&model_b, &random, 5);
	assert_ok(model_commit(&none, &model_a, store, &term, map, 1, name));
	pagemap_destroy(map);
	store_close(store);
}

static void test_change(void **state)
{
	struct keys old = keys, both = keys;
	struct store *store;
	char **names;
	size_t count;

	begin();
	assert_ok(keys_new(&both, &problem));
	keys = both;
	own(&model_a, &model_a);
	keys = old; /* the new key does not seal yet: nodes without it are not shut out */
	assert_readable(&model_a);
	keys = both;
	keys_use(&keys, 1);
	own(&model_a, &model_b); /* pages of both keys in one checkpoint */
	assert_readable(&model_b);
	keys = both;
	assert_readable(&model_b);
	keys = old;
	assert_no_key();
	keys = both;
	keys_remove(&keys, 0); /* too early: older checkpoints need it */
	store = open_store();
	assert_err(store_list_checkpoints(store, &names, &count, &problem), ENOKEY);
	store_close(store);
}

/* A checkpoint in the new key next to pages that only the old one opens is not taken for damaged. */
static void test_removed_too_early(void **state)
{
	struct store *store;
	char *name;
	struct manifest *manifest;

	begin();
	assert_ok(keys_new(&keys, &problem));
	keys_use(&keys, 1);
	own(&model_a, &model_b);
	store = open_store();
	name = newest(store);
	store_close(store);
	keys_remove(&keys, 1);
	store = open_store();
	assert_ok(manifest_read(store, name, &manifest, &problem));
	assert_err(model_check(&model_b, store, manifest), ENOKEY);
	manifest_free(manifest);
	free(name);
	store_close(store);
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_file),  row(test_bad_files), row(test_find),
		row(test_order), row(test_change),    row(test_removed_too_early),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
