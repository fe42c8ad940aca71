// SPDX-License-Identifier: GPL-2.0
/* Terms, the chain of checkpoints, cleaning, the store user, and what is said when the store fails. */
#include <dirent.h>
#include <pthread.h>
#include <sys/fsuid.h>

#define MODEL_PAGES 100
#include "store_fixture.h"

#define SKIP_UNLESS_ROOT()                                                                         \
	do {                                                                                       \
		if (geteuid())                                                                     \
			skip();                                                                    \
	} while (0)

static const struct model none;
static struct model model_a, model_b;

static void make_models(void)
{
	uint64_t state = 3;

	memset(&model_a, 0, sizeof(model_a));
	model_change(&model_a, &state, 10);
	model_b = model_a;
	model_change(&model_b, &state, 5);
}

/* A checkpoint of all of the model by an owner that knows nothing of others. */
static void commit(struct store *store, const struct term *own, uint64_t sequence, char name[64])
{
	struct pagemap *map = pagemap_create();

	assert_ok(model_commit(&none, &model_a, store, own, map, sequence, name));
	pagemap_destroy(map);
}

static unsigned int count_objects(const char *start)
{
	DIR *dir = opendir(object_path(""));
	unsigned int count = 0;
	struct dirent *entry;

	while ((entry = readdir(dir)))
		count += !strncmp(entry->d_name, start, strlen(start));
	closedir(dir);
	return count;
}

/* The list is "TERM-SEQUENCE TERM-SEQUENCE ...". */
static void assert_listed(struct store *store, const char *wanted)
{
	unsigned long long term, sequence;
	char found[256] = "";
	char **names;
	size_t count, i;

	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	for (i = 0; i < count; i++) {
		assert_int_equal(sscanf(names[i], "manifest-%llx-%llx", &term, &sequence), 2);
		sprintf(found + strlen(found), "%s%llu-%llu", i ? " " : "", term, sequence);
	}
	free_names(names, count);
	assert_string_equal(found, wanted);
}

/* ---- terms ---- */

static void test_terms(void **state)
{
	struct store *store = open_store();
	struct term term, own;

	assert_ok(store_read_term(store, &term, &problem));
	assert_int_equal(term.number, 0);
	assert_ok(store_take_term(store, &term, "first", "", &own, &problem));
	assert_int_equal(own.number, 1);
	assert_err(store_take_term(store, &term, "second", "", &own, &problem), EEXIST);
	assert_ok(store_read_term(store, &term, &problem));
	assert_int_equal(term.number, 1);
	assert_string_equal(term.node, "first");
	assert_string_equal(term.base, "");
	assert_false(term.released);
	assert_in_range(term.age_ms, 0, 5000);
	assert_ok(store_renew_term(store, &term, &problem));
	assert_ok(store_take_term(store, &term, "second", "", &own, &problem));
	assert_int_equal(own.number, 2);
	assert_err(store_renew_term(store, &term, &problem), ESTALE);
	assert_non_null(strstr(problem.text, "taken over"));
	assert_int_equal(count_objects("tmp."), 0);
	/* Nobody's: not the same as somebody else's. */
	assert_int_equal(unlink(object_path("term-0000000000000001")), 0);
	assert_int_equal(unlink(object_path("term-0000000000000002")), 0);
	assert_err(store_renew_term(store, &own, &problem), ENOENT);
	assert_non_null(strstr(problem.text, "another store is mounted"));
	take_term(store, "");
	assert_err(store_renew_term(store, &own, &problem), ESTALE);
	store_close(store);
}

static void test_lease_age(void **state)
{
	struct timespec old[2] = { { .tv_sec = time(NULL) - 100 }, { .tv_sec = time(NULL) - 100 } };
	struct store *store = open_store();
	struct term own = take_term(store, ""), term;

	assert_int_equal(utimensat(AT_FDCWD, object_path("term-0000000000000001"), old, 0), 0);
	assert_ok(store_read_term(store, &term, &problem));
	assert_in_range(term.age_ms, 95000, 110000);
	assert_ok(store_renew_term(store, &own, &problem));
	assert_ok(store_read_term(store, &term, &problem));
	assert_in_range(term.age_ms, 0, 5000);
	store_close(store);
}

static void test_bad_names(void **state)
{
	struct store *store = open_store();
	struct term term = { 0 }, own;
	char long_name[200];

	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	assert_err(store_take_term(store, &term, long_name, "", &own, &problem), EINVAL);
	assert_err(store_take_term(store, &term, "n", "manifest-1-1", &own, &problem), EINVAL);
	assert_err(store_take_term(store, &term, "n", "manifest-0000000000000001-0000000000000001",
				   &own, &problem), EINVAL);
	store_close(store);
	assert_err(store_open(&store, &options, long_name, &problem), EINVAL);
	assert_err(store_open(&store, &options, "../x", &problem), EINVAL);
	assert_err(store_open(&store, &options, "a/b", &problem), EINVAL);
	assert_err(store_open(&store, &options, "", &problem), EINVAL);
}

#define TAKERS 8

static struct term race_previous;
static int winners;

static void *taker(void *arg)
{
	struct store *store;
	struct term own;
	int err = store_open(&store, &options, JOB, NULL);

	if (!err) {
		err = store_take_term(store, &race_previous, "node", "", &own, NULL);
		store_close(store);
	}
	if (!err)
		__atomic_add_fetch(&winners, 1, __ATOMIC_RELAXED);
	return (void *)(intptr_t)err;
}

static void test_term_race(void **state)
{
	pthread_t threads[TAKERS];
	struct store *store = open_store();
	unsigned int round, i;
	void *result;

	for (round = 0; round < 20; round++) {
		assert_ok(store_read_term(store, &race_previous, &problem));
		winners = 0;
		for (i = 0; i < TAKERS; i++)
			pthread_create(&threads[i], NULL, taker, NULL);
		for (i = 0; i < TAKERS; i++) {
			pthread_join(threads[i], &result);
			if (result && (intptr_t)result != -EEXIST)
				fail_msg("a taker got %ld", (long)(intptr_t)result);
		}
		assert_int_equal(winners, 1);
	}
	store_close(store);
}

/* The number after an old term may be free again because it was cleaned. */
static void test_take_cleaned_term(void **state)
{
	struct store *store = open_store();
	struct term old = take_term(store, ""), own;
	char name[64];

	take_term(store, "");
	own = take_term(store, "");
	commit(store, &own, 1, name);
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	assert_int_equal(count_objects("term-"), 1);
	assert_err(store_take_term(store, &old, "late", "", &own, &problem), EEXIST);
	assert_int_equal(count_objects("term-"), 1);
	store_close(store);
}

static void test_released(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, ""), term;
	struct pagemap *map = pagemap_create();
	struct manifest manifest = { .term = 1, .sequence = 1, .map = map, .final = true };
	char name[64];
	int fd;

	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	assert_ok(store_read_term(store, &term, &problem));
	assert_true(term.released);
	manifest.sequence = 2;
	manifest.final = false;
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	assert_ok(store_read_term(store, &term, &problem));
	assert_false(term.released);
	manifest.sequence = 3;
	manifest.final = true;
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	fd = open(object_path(name), O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 70), 1);
	close(fd);
	assert_ok(store_read_term(store, &term, &problem));
	assert_false(term.released);
	pagemap_destroy(map);
	store_close(store);
}

/* ---- the chain ---- */

static void test_chain(void **state)
{
	struct store *store = open_store();
	struct term first = take_term(store, ""), second, third;
	char name[64], base[64], late[64];
	struct pagemap *map = pagemap_create();

	assert_listed(store, "");
	commit(store, &first, 1, name);
	commit(store, &first, 2, base);
	commit(store, &first, 3, name);
	assert_listed(store, "1-3 1-2 1-1");
	second = take_term(store, base);
	assert_listed(store, "1-2 1-1");
	assert_err(model_commit(&none, &model_a, store, &first, map, 4, late), ESTALE);
	assert_listed(store, "1-2 1-1");
	third = take_term(store, base);
	commit(store, &third, 1, name);
	assert_err(model_commit(&none, &model_a, store, &second, map, 1, late), ESTALE);
	assert_listed(store, "3-1 1-2 1-1");
	pagemap_destroy(map);
	store_close(store);
}

/* A manifest of an old owner that came through between its check and the new term. */
static void test_late_manifest(void **state)
{
	struct store *store = open_store();
	struct term first = take_term(store, ""), second;
	char base[64], late[64], away[300];

	commit(store, &first, 1, base);
	commit(store, &first, 2, late);
	snprintf(away, sizeof(away), "%s/away", directory);
	rename(object_path(late), away);
	second = take_term(store, base);
	rename(away, object_path(late));
	assert_listed(store, "1-1");
	assert_ok(store_clean(store, &second, KEEP_ALL, NULL, NULL, &problem));
	assert_int_equal(count_objects("manifest-"), 1);
	assert_int_equal(count_objects("seg-"), 1);
	assert_listed(store, "1-1");
	store_close(store);
}

/* The old owner notices right after it published. */
static void test_taken_while_committing(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	struct pagemap *map = pagemap_create();
	char name[64];

	take_term(store, "");
	assert_err(model_commit(&none, &model_a, store, &own, map, 1, name), ESTALE);
	assert_int_equal(count_objects("manifest-"), 0);
	assert_int_equal(count_objects("tmp."), 0);
	pagemap_destroy(map);
	store_close(store);
}

static void test_damaged_old_term(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	char name[64];

	commit(store, &own, 1, name);
	own = take_term(store, name);
	commit(store, &own, 1, name);
	own = take_term(store, name);
	assert_int_equal(truncate(object_path("term-0000000000000002"), 100), 0);
	assert_listed(store, "2-1");
	/* Which older ones belong to the chain is not known: none of them goes, unless enough are newer. */
	assert_err(store_clean(store, &own, 2, NULL, NULL, &problem), EBADMSG);
	assert_int_equal(count_objects("manifest-"), 2);
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	assert_int_equal(count_objects("manifest-"), 1);
	assert_int_equal(count_objects("term-"), 2);
	assert_listed(store, "2-1");
	store_close(store);
}

static void test_sequence_used(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	struct pagemap *map = pagemap_create();
	struct manifest manifest = { .term = 1, .sequence = 1, .map = map };
	char name[64];

	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	assert_err(manifest_commit(store, &own, &manifest, name, &problem), EEXIST);
	manifest.term = 2;
	assert_err(manifest_commit(store, &own, &manifest, name, &problem), EINVAL);
	pagemap_destroy(map);
	store_close(store);
}

/* ---- cleaning ---- */

static void test_clean(void **state)
{
	struct store *store = open_store();
	struct pagemap *map = pagemap_create();
	struct term own = take_term(store, "");
	const struct model *last = &none, *next;
	uint64_t used, s, bytes = 0;
	struct stat stat_buffer;
	struct dirent *entry;
	char name[64];
	DIR *dir;

	for (s = 1; s <= 6; s++, last = next) {
		next = s % 2 ? &model_a : &model_b;
		assert_ok(model_commit(last, next, store, &own, map, s, name));
	}
	assert_int_equal(count_objects("manifest-"), 6);
	assert_ok(store_clean(store, &own, 2, map, &used, &problem));
	assert_listed(store, "1-6 1-5");
	dir = opendir(object_path(""));
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !stat(object_path(entry->d_name), &stat_buffer))
			bytes += stat_buffer.st_size;
	closedir(dir);
	assert_int_equal(used, bytes);
	pagemap_destroy(map);
	store_close(store);
}

/* Segments that no checkpoint has yet: the live map's, and those of files that are packed. */
static void test_clean_spares_live(void **state)
{
	struct store *store = open_store();
	struct pagemap *map = pagemap_create();
	struct term own = take_term(store, "");
	struct packed_file *file;
	struct packer *packer, *other;
	struct manifest manifest = { .term = 1, .sequence = 1, .map = map, .files = &file,
				     .file_count = 1 }, *found;
	char name[64];

	assert_ok(packer_create(&packer, store, &own, map, &problem));
	assert_ok(model_pack(&none, &model_a, map, packer));
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_ok(packer_create(&packer, store, &own, map, &problem));
	assert_ok(model_pack_file(&model_a, packer, &file));
	assert_ok(packer_create(&other, store, &own, map, &problem));
	assert_ok(model_pack(&model_a, &model_b, map, other));
	assert_ok(store_clean(store, &own, 1, map, NULL, &problem));
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	assert_ok(packer_commit(other, NULL, &problem));
	assert_ok(store_clean(store, &own, 1, map, NULL, &problem));
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	packed_file_free(file);
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	assert_ok(manifest_read(store, name, &found, &problem));
	model_b.file_seed = model_a.file_seed;
	model_b.file_bytes = model_a.file_bytes;
	assert_ok(model_check(&model_b, store, found));
	manifest_free(found);
	pagemap_destroy(map);
	store_close(store);
}

static void test_clean_old_terms(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	struct manifest *manifest;
	char base[64], name[64];
	int fd;

	commit(store, &own, 1, base);
	close(open(object_path("tmp.0000000000000001.0000000000000005.0000000000000005"),
		   O_CREAT | O_WRONLY, 0600));
	own = take_term(store, base);
	fd = open(object_path("not-ours"), O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_ok(manifest_read(store, base, &manifest, &problem));
	assert_ok(store_clean(store, &own, 2, manifest->map, NULL, &problem));
	assert_listed(store, "1-1");
	assert_int_equal(count_objects("tmp."), 0);
	assert_int_equal(count_objects("not-ours"), 1);
	assert_ok(model_commit(&model_a, &model_b, store, &own, manifest->map, 1, name));
	assert_ok(store_clean(store, &own, 2, manifest->map, NULL, &problem));
	assert_listed(store, "2-1 1-1");
	assert_ok(model_commit(&model_b, &model_a, store, &own, manifest->map, 2, name));
	assert_ok(store_clean(store, &own, 2, manifest->map, NULL, &problem));
	assert_listed(store, "2-2 2-1");
	assert_int_equal(count_objects("term-"), 1);
	manifest_free(manifest);
	assert_ok(manifest_read(store, name, &manifest, &problem));
	assert_ok(model_check(&model_a, store, manifest));
	manifest_free(manifest);
	store_close(store);
}

static void test_clean_stale(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	char name[64];

	commit(store, &own, 1, name);
	commit(store, &own, 2, name);
	take_term(store, name);
	assert_err(store_clean(store, &own, 1, NULL, NULL, &problem), ESTALE);
	assert_int_equal(count_objects("manifest-"), 2);
	store_close(store);
}

static void test_clean_wrong_key(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	char name[64];

	commit(store, &own, 1, name);
	commit(store, &own, 2, name);
	store_close(store);
	keys.list[0][0] = 5;
	store = open_store();
	assert_err(store_clean(store, &own, 1, NULL, NULL, &problem), ENOKEY);
	assert_int_equal(count_objects("manifest-"), 2);
	assert_int_equal(count_objects("seg-"), 2);
	store_close(store);
}

/* The job of an old owner ends while a new one has it. */
static void test_retire_stale(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	char name[64];

	commit(store, &own, 1, name);
	take_term(store, name);
	assert_err(store_retire(store, &own, &problem), ESTALE);
	assert_listed(store, "1-1");
	store_close(store);
}

static void test_retire(void **state)
{
	struct store *store = open_store();
	struct term own = take_term(store, "");
	char name[64];

	commit(store, &own, 1, name);
	assert_ok(store_retire(store, &own, &problem));
	store_close(store);
	assert_int_equal(access(object_path(""), F_OK), -1);
	store = open_store();
	assert_ok(store_read_term(store, &own, &problem));
	assert_int_equal(own.number, 0);
	close(open(object_path("not-ours"), O_CREAT | O_WRONLY, 0600));
	assert_err(store_retire(store, &own, &problem), ENOTEMPTY);
	store_close(store);
}

/* ---- where the store fails ---- */

static void test_missing_directory(void **state)
{
	struct store *store;

	options.directory = "/nonexistent/store";
	assert_err(store_open(&store, &options, JOB, &problem), ENOENT);
	assert_non_null(strstr(problem.text, "/nonexistent/store"));
	options.directory = directory;
	options.use = STORE_KNOWN;
	assert_err(store_open(&store, &options, JOB, &problem), ENOENT);
	assert_non_null(strstr(problem.text, "not mounted"));
	options.use = STORE_MAKE;
	options.compress = "gzip";
	assert_err(store_open(&store, &options, JOB, &problem), EINVAL);
	assert_non_null(strstr(problem.text, "gzip"));
}

static void test_open_to_others(void **state)
{
	struct store *store = open_store();

	store_close(store);
	chmod(object_path(""), 0777);
	assert_err(store_open(&store, &options, JOB, &problem), EPERM);
	assert_non_null(strstr(problem.text, "chmod"));
}

static void test_store_user(void **state)
{
	struct store *store;
	struct term own;
	char name[64];
	struct stat stat_buffer;
	struct dirent *entry;
	DIR *dir;

	SKIP_UNLESS_ROOT();
	options.uid = options.gid = 12345;
	assert_err(store_open(&store, &options, JOB, &problem), EACCES);
	assert_non_null(strstr(problem.text, "12345"));
	assert_non_null(strstr(problem.text, directory));
	assert_int_equal(setfsuid(-1), 0);
	assert_int_equal(chown(directory, 12345, 12345), 0);
	store = open_store();
	own = take_term(store, "");
	commit(store, &own, 1, name);
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	assert_int_equal(setfsuid(-1), 0);
	assert_int_equal(setfsgid(-1), 0);
	dir = opendir(object_path(""));
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".."))
			continue;
		assert_int_equal(stat(object_path(entry->d_name), &stat_buffer), 0);
		assert_int_equal(stat_buffer.st_uid, 12345);
		assert_int_equal(stat_buffer.st_gid, 12345);
		assert_int_equal(stat_buffer.st_mode & 0777,
				 S_ISDIR(stat_buffer.st_mode) ? 0700 : 0600);
	}
	closedir(dir);
	/* What root may not write, store_user may not either. */
	assert_int_equal(chmod(object_path(""), 0500), 0);
	assert_err(store_take_term(store, &own, "node", "", &own, &problem), EACCES);
	assert_non_null(strstr(problem.text, "user 12345"));
	assert_int_equal(chmod(object_path(""), 0700), 0);
	assert_ok(store_retire(store, &own, &problem));
	store_close(store);
}

/* What fits, fits; what does not is refused, and when there is space again all goes on. */
static void test_store_full(void **state)
{
	static struct model big;
	struct pagemap *map = pagemap_create();
	struct packer *packer;
	struct packer_stats stats;
	struct store *store;
	struct manifest *manifest;
	struct term own;
	char name[64], first[64];
	uint64_t before;
	unsigned int p;

	SKIP_UNLESS_ROOT();
	if (mount("ckpt-test", directory, "tmpfs", 0, "size=3m,mode=700"))
		skip();
	options.compress = "none";
	store = open_store();
	own = take_term(store, "");
	assert_ok(model_commit(&none, &model_a, store, &own, map, 1, first));
	before = pagemap_pages(map);
	big = model_a;
	for (p = 0; p < MODEL_PAGES; p++)
		big.seeds[0][p] = big.seeds[1][p] = big.seeds[2][p] = 4 * p + 4;
	for (p = 0; p < 20; p++) {
		assert_ok(packer_create(&packer, store, &own, map, &problem));
		if (!model_pack(p % 2 ? &big : &model_a, p % 2 ? &model_a : &big, map, packer) &&
		    !packer_commit(packer, &stats, &problem))
			continue;
		packer_abort(packer);
		break;
	}
	assert_non_null(strstr(problem.text, "the store is full"));
	assert_int_equal(count_objects("tmp."), 0);
	assert_ok(manifest_read(store, first, &manifest, &problem));
	assert_ok(model_check(&model_a, store, manifest));
	manifest_free(manifest);
	assert_true(pagemap_pages(map) < before + 3 * MODEL_PAGES);
	pagemap_destroy(map);
	assert_ok(store_clean(store, &own, 1, NULL, NULL, &problem));
	commit(store, &own, 2, name);
	store_close(store);
	assert_int_equal(umount(directory), 0);
}

static void test_read_only(void **state)
{
	struct store *store;
	struct term own = { 0 };

	SKIP_UNLESS_ROOT();
	if (mount("ckpt-test", directory, "tmpfs", 0, "size=3m,mode=700"))
		skip();
	store = open_store();
	assert_int_equal(mount("ckpt-test", directory, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_err(store_take_term(store, &own, "node", "", &own, &problem), EROFS);
	assert_non_null(strstr(problem.text, "mount it read-write"));
	store_close(store);
	assert_err(store_open(&store, &options, JOB, &problem), EROFS);
	assert_int_equal(umount(directory), 0);
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_terms),
		row(test_lease_age),
		row(test_bad_names),
		row(test_term_race),
		row(test_take_cleaned_term),
		row(test_released),
		row(test_chain),
		row(test_late_manifest),
		row(test_taken_while_committing),
		row(test_damaged_old_term),
		row(test_sequence_used),
		row(test_clean),
		row(test_clean_spares_live),
		row(test_clean_old_terms),
		row(test_clean_stale),
		row(test_clean_wrong_key),
		row(test_retire),
		row(test_retire_stale),
		row(test_missing_directory),
		row(test_open_to_others),
		row(test_store_user),
		row(test_store_full),
		row(test_read_only),
	};

	make_models();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
