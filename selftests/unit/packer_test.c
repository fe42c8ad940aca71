// SPDX-License-Identifier: GPL-2.0
/* What a packer counts, what it leaves out, and what it leaves behind when it fails. */
#include <dirent.h>

#include "store_fixture.h"

static struct store *store;
static struct term own;
static struct pagemap *map;
static struct space *space;

static int setup(void **state)
{
	if (directory_create(state))
		return -1;
	store = open_store();
	own = take_term(store, "");
	map = pagemap_create();
	space = pagemap_space(map, SPACE_TASK, 1);
	return 0;
}

static int teardown(void **state)
{
	pagemap_destroy(map);
	store_close(store);
	return directory_remove(state);
}

static struct packer *create(void)
{
	struct packer *packer;

	assert_ok(packer_create(&packer, store, &own, map, &problem));
	return packer;
}

static unsigned int objects(void)
{
	DIR *dir = opendir(object_path(""));
	unsigned int count = 0;
	struct dirent *entry;

	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.' && strncmp(entry->d_name, "term-", 5);
	closedir(dir);
	return count;
}

static int pack(struct packer *packer, uint64_t page, uint32_t seed)
{
	uint8_t data[4096];

	seed_fill(seed, data, sizeof(data));
	return packer_page(packer, space, page * 4096, data, &problem);
}

static void test_counts(void **state)
{
	struct packer *packer = create();
	struct packer_stats stats;
	unsigned int i;

	for (i = 0; i < 300; i++)
		assert_ok(pack(packer, i, i % 3 ? 100 + i : 1));
	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(stats.pages, 300);
	assert_int_equal(stats.pages_zero, 100);
	assert_int_equal(stats.pages_same, 0);
	assert_int_equal(stats.pages_packed, 200);
	assert_in_range(stats.bytes_written, 50 * 4096, 200 * 4096);

	packer = create();
	for (i = 0; i < 300; i++)
		assert_ok(pack(packer, i, i == 7 ? 5000 : i % 3 ? 100 + i : 1));
	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(stats.pages_zero, 100);
	assert_int_equal(stats.pages_same, 199);
	assert_int_equal(stats.pages_packed, 1);
	assert_in_range(stats.bytes_written, 1, 2 * 4096);
}

static void test_nothing_packed(void **state)
{
	struct packer *packer = create();
	struct packer_stats stats;
	struct packed_file *file;
	int fd = memfd_create("zero", 0);

	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(stats.pages, 0);
	packer = create();
	assert_ok(pack(packer, 1, 1));
	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(stats.bytes_written, 0);
	assert_int_equal(objects(), 0);
	packer_abort(create());

	/* A file of a hole costs no data either. */
	packer = create();
	assert_int_equal(ftruncate(fd, 1000000), 0);
	assert_ok(packer_file(packer, "hole", fd, &file, &problem));
	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(objects(), 0);
	packed_file_free(file);
	close(fd);
}

static void test_abort(void **state)
{
	struct packer *packer = create();
	unsigned int i;

	for (i = 0; i < 200; i++)
		assert_ok(pack(packer, i, 2 + i));
	assert_ok(packer_commit(packer, NULL, &problem));
	packer = create();
	for (i = 100; i < 300; i++)
		assert_ok(pack(packer, i, 10000 + i));
	assert_int_equal(space_pages(space), 300);
	packer_abort(packer);
	assert_int_equal(objects(), 1);
	assert_int_equal(space_pages(space), 100);
	for (i = 0; i < 300; i++)
		assert_int_equal(space_holds(space, i * 4096), i < 100);
}

static void test_sticky(void **state)
{
	struct packer *packer = create();
	struct problem first;
	unsigned int i;
	int err = 0;

	fault_arm("packer.write:2=EDQUOT");
	for (i = 0; i < 20000 && !err; i++)
		err = pack(packer, i, 4 * i + 4);
	assert_int_equal(err, -EDQUOT);
	first = problem;
	assert_non_null(strstr(first.text, "quota"));
	assert_int_equal(space_pages(space), 0);
	assert_err(pack(packer, 1, 1), EDQUOT);
	assert_string_equal(problem.text, first.text);
	assert_err(packer_commit(packer, NULL, &problem), EDQUOT);
	assert_string_equal(problem.text, first.text);
	packer_abort(packer);
	assert_int_equal(objects(), 0);
}

static void test_no_threads(void **state)
{
	struct packer *packer = create();

	fault_arm("packer.thread=EAGAIN");
	assert_err(pack(packer, 1, 2), EAGAIN);
	packer_abort(packer);
	assert_int_equal(objects(), 0);
	assert_int_equal(space_pages(space), 0);
}

static void test_uncommitted_is_refused(void **state)
{
	struct manifest manifest = { .term = 1, .sequence = 1, .map = map };
	struct packer *packer = create();
	char name[64];

	assert_ok(pack(packer, 1, 2));
	assert_err(manifest_commit(store, &own, &manifest, name, &problem), EINVAL);
	assert_non_null(strstr(problem.text, "not durable"));
	packer_abort(packer);
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
}

/* Files of all sizes around a block's, also from a pipe. */
static void test_files(void **state)
{
	static const size_t sizes[] = { 0,	1,	4095,	262143, 262144,
					262145, 524288, 1000000 };
	struct packed_file *files[8];
	struct manifest manifest = { .term = 1, .sequence = 1, .map = map, .files = files,
				     .file_count = 8 }, *found;
	struct packer *packer = create();
	char name[64], command[100], text[32];
	static uint8_t content[1000000], back[1000001];
	FILE *pipe;
	unsigned int i;
	int fd;

	for (i = 0; i < sizeof(content); i++)
		content[i] = i < 300000 ? i * i >> 8 : 0;
	fd = open(object_path("../content"), O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, content, sizeof(content)), sizeof(content));
	close(fd);
	for (i = 0; i < 8; i++) {
		snprintf(command, sizeof(command), "head -c %zu %s/content", sizes[i], directory);
		snprintf(text, sizeof(text), "dir/file %u", i);
		pipe = popen(command, "r");
		assert_ok(packer_file(packer, text, fileno(pipe), &files[i], &problem));
		assert_string_equal(packed_file_name(files[i]), text);
		pclose(pipe);
	}
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	assert_ok(manifest_read(store, name, &found, &problem));
	for (i = 0; i < 8; i++) {
		fd = memfd_create("back", 0);
		assert_ok(manifest_read_file(store, found, packed_file_name(files[i]), fd,
					     &problem));
		assert_int_equal(pread(fd, back, sizeof(back), 0), sizes[i]);
		assert_memory_equal(back, content, sizes[i]);
		close(fd);
		packed_file_free(files[i]);
	}
	assert_err(manifest_read_file(store, found, "other", 1, &problem), ENOENT);
	assert_ok(manifest_verify(store, found, &problem));
	manifest_free(found);
}

/* A file that cannot be read is no failure of the store. */
static void test_unreadable_file(void **state)
{
	struct packer *packer = create();
	struct packed_file *file;
	int fd = open(directory, O_RDONLY);

	assert_err(packer_file(packer, "x", fd, &file, &problem), EISDIR);
	assert_err(packer_file(packer, "", fd, &file, &problem), EINVAL);
	assert_ok(pack(packer, 1, 2));
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_int_equal(objects(), 1);
	close(fd);
}

/* Many writes in flight are given up at once. */
static void test_abort_in_flight(void **state)
{
	struct packer *packer;
	unsigned int round, i;

	for (round = 0; round < 20; round++) {
		packer = create();
		for (i = 0; i < 70 * round; i++)
			assert_ok(pack(packer, i, 4 * i + 4));
		packer_abort(packer);
		assert_int_equal(space_pages(space), 0);
	}
	assert_int_equal(objects(), 0);
}

#define row(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_counts),
		row(test_nothing_packed),
		row(test_abort),
		row(test_sticky),
		row(test_no_threads),
		row(test_uncommitted_is_refused),
		row(test_files),
		row(test_unreadable_file),
		row(test_abort_in_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
