// SPDX-License-Identifier: GPL-2.0
/*
 * Objects that are damaged, cut, exchanged or of another key are refused by name, and nothing of them
 * is believed.
 */
#include <dirent.h>

#define MODEL_PAGES 300
#include "store_fixture.h"

static struct model models[3];

struct names {
	char list[16][64];
	unsigned int count;
};

static void make_store(const char *job, struct names *names)
{
	static const struct model none;
	struct store *store;
	struct pagemap *map = pagemap_create();
	uint64_t state = 7;
	struct dirent *entry;
	struct term own;
	unsigned int i;
	char name[64], path[128];
	DIR *dir;

	assert_ok(store_open(&store, &options, job, &problem));
	own = take_term(store, "");
	memset(models, 0, sizeof(models));
	for (i = 0; i < 3; i++) {
		if (i)
			models[i] = models[i - 1];
		model_change(&models[i], &state, 6);
		assert_ok(model_commit(i ? &models[i - 1] : &none, &models[i], store, &own, map,
				       i + 1, name));
	}
	pagemap_destroy(map);
	store_close(store);
	snprintf(path, sizeof(path), "%s/%s", directory, job);
	dir = opendir(path);
	names->count = 0;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			strcpy(names->list[names->count++], entry->d_name);
	closedir(dir);
}

/* Everything that a restore does: 0 only when all that comes out is right. */
static int restore(void)
{
	struct manifest *manifest;
	struct store *store = open_store();
	struct term term;
	char **names;
	size_t count = 0;
	int err = store_read_term(store, &term, &problem);

	if (!err)
		err = store_list_checkpoints(store, &names, &count, &problem);
	if (!err)
		err = manifest_read(store, names[0], &manifest, &problem);
	if (!err) {
		err = model_check(&models[2], store, manifest);
		/* A segment's header may be intact where a page of it is not, and the reverse. */
		if (!err)
			err = manifest_verify(store, manifest, &problem);
		manifest_free(manifest);
	}
	if (count)
		free_names(names, count);
	store_close(store);
	return err;
}

static void assert_refused(const char *name, const char *how, off_t where)
{
	int err;

	problem.text[0] = 0;
	err = restore();
	if (err != -EBADMSG)
		fail_msg("%s %s at %lld: %d, %s", name, how, (long long)where, err, problem.text);
	if (!strstr(problem.text, name))
		fail_msg("%s %s at %lld is not named: %s", name, how, (long long)where, problem.text);
}

static void flip(const char *name, off_t where)
{
	int fd = open(object_path(name), O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, where), 1);
	byte ^= 1 << where % 8;
	assert_int_equal(pwrite(fd, &byte, 1, where), 1);
	close(fd);
}

static off_t size_of(const char *name)
{
	struct stat stat_buffer;

	assert_int_equal(stat(object_path(name), &stat_buffer), 0);
	return stat_buffer.st_size;
}

/* Older manifests are not read by a restore. */
static bool restore_reads(const char *name)
{
	return strcmp(name, "manifest-0000000000000001-0000000000000001") &&
	       strcmp(name, "manifest-0000000000000001-0000000000000002");
}

/* Offsets in a segment may lie in blocks that no checkpoint needs any more. */
static bool in_use(const char *name, off_t where)
{
	int err;

	if (strncmp(name, "seg-", 4) || where < 128)
		return true;
	err = restore();
	return err;
}

static void flip_all(const char *name)
{
	off_t size = size_of(name), where, step = size / 40 + 1;
	unsigned int refused = 0;

	for (where = 0; where < size; where += where < 200 ? 1 : step) {
		flip(name, where);
		if (in_use(name, where)) {
			assert_refused(name, "flipped", where);
			refused++;
		}
		flip(name, where);
	}
	assert_true(refused > 128);
	assert_ok(restore());
}

static void test_flip(void **state)
{
	struct names names;
	unsigned int i;

	make_store(JOB, &names);
	assert_ok(restore());
	for (i = 0; i < names.count; i++)
		if (restore_reads(names.list[i]))
			flip_all(names.list[i]);
}

static void copy(const char *from, const char *to)
{
	char command[600];

	snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
	assert_int_equal(system(command), 0);
}

static void cut_all(const char *name)
{
	off_t size = size_of(name), where;
	char whole[300];

	snprintf(whole, sizeof(whole), "%s/whole", directory);
	copy(object_path(name), whole);
	for (where = 0; where < size; where += where < 170 ? 7 : size / 20 + 1) {
		assert_int_equal(truncate(object_path(name), where), 0);
		assert_refused(name, "cut", where);
		copy(whole, object_path(name));
	}
	assert_int_equal(truncate(object_path(name), size + 1), 0);
	assert_refused(name, "longer", size);
	copy(whole, object_path(name));
	assert_ok(restore());
}

static void test_cut(void **state)
{
	struct names names;
	unsigned int i;

	make_store(JOB, &names);
	for (i = 0; i < names.count; i++)
		if (restore_reads(names.list[i]))
			cut_all(names.list[i]);
}

/* An object under the name of another, and the same object of another job. */
static void test_exchange(void **state)
{
	struct names names, others;
	char path[300], whole[300], other[300];
	unsigned int i, j;

	make_store("1000-other", &others);
	make_store(JOB, &names);
	snprintf(whole, sizeof(whole), "%s/whole", directory);
	for (i = 0; i < names.count; i++) {
		if (!restore_reads(names.list[i]))
			continue;
		strcpy(path, object_path(names.list[i]));
		copy(path, whole);
		snprintf(other, sizeof(other), "%s/1000-other/%s", directory, names.list[i]);
		copy(other, path);
		assert_refused(names.list[i], "of another job", 0);
		for (j = 0; j < names.count; j++) {
			if (i == j)
				continue;
			copy(object_path(names.list[j]), path);
			assert_refused(names.list[i], names.list[j], 0);
		}
		copy(whole, path);
	}
	assert_ok(restore());
}

static void test_missing_segment(void **state)
{
	struct names names;
	unsigned int i;

	make_store(JOB, &names);
	for (i = 0; i < names.count; i++) {
		if (strncmp(names.list[i], "seg-", 4))
			continue;
		unlink(object_path(names.list[i]));
		assert_err(restore(), ENOENT);
		assert_non_null(strstr(problem.text, names.list[i]));
		return;
	}
	fail();
}

static void test_wrong_key(void **state)
{
	struct names names;
	char id[KEY_ID_BYTES];

	make_store(JOB, &names);
	keys.list[0][0] = 99;
	assert_err(restore(), ENOKEY);
	key_id(id, keys.list[0]);
	assert_non_null(strstr(problem.text, id));
	keys.list[0][0] = 1;
	key_id(id, keys.list[0]);
	assert_non_null(strstr(problem.text, id));
	assert_non_null(strstr(problem.text, "term-"));
}

/* What a node with AES wrote, one without it reads, and the reverse. */
static void test_other_cpu(void **state)
{
	struct names names;

	make_store(JOB, &names);
	fault_arm("seal.no_aes");
	assert_ok(restore());
	remove_tree(object_path(""));
	make_store(JOB, &names);
	fault_arm(NULL);
	assert_ok(restore());
}

/* Whether a page's content can be found in what lies in the store. */
static bool in_plain_text(const char *seal)
{
	static uint8_t page[4096];
	struct store *store;
	struct pagemap *map = pagemap_create();
	struct packer *packer;
	struct term own;
	char command[200];
	int found;

	options.compress = "none";
	options.seal = seal;
	store = open_store();
	own = take_term(store, "");
	memcpy(page + 100, "SECRETSECRETSECRET", 18);
	assert_ok(packer_create(&packer, store, &own, map, &problem));
	assert_ok(packer_page(packer, pagemap_space(map, SPACE_TASK, 1), 4096, page, &problem));
	assert_ok(packer_commit(packer, NULL, &problem));
	snprintf(command, sizeof(command), "grep -qr SECRETSECRET %s", directory);
	found = system(command);
	pagemap_destroy(map);
	assert_ok(store_retire(store, &own, &problem));
	store_close(store);
	return !found;
}

static void test_plain_text(void **state)
{
	assert_false(in_plain_text("auto"));
	assert_true(in_plain_text("none"));
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_flip),		   row(test_cut),	row(test_exchange),
		row(test_missing_segment), row(test_wrong_key), row(test_other_cpu),
		row(test_plain_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
