// SPDX-License-Identifier: GPL-2.0
/* What a packer counts, what it leaves out, and what it leaves behind when it fails. */
#include <dirent.h>
#include <pthread.h>

#include "store_fixture.h"
#include "store_private.h"

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

/* ---- pages that the packer's threads read ---- */

#define MEMORY_PAGES 1500

static uint8_t *memory; /* of this process */

/* Far below what the kernel gives when it is not asked: nothing else comes into what is unmapped of it. */
static void memory_map(void)
{
	memory = mmap((void *)0x200000000000, MEMORY_PAGES * 4096, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_true(memory != MAP_FAILED);
}

static void memory_write(unsigned int page, uint32_t seed)
{
	seed_fill(seed, memory + page * 4096, 4096);
}

static uint64_t memory_address(unsigned int page)
{
	return (uintptr_t)memory + page * 4096ULL;
}

/* Each step-th page by itself; 1: all in one piece. */
static struct packer_stats memory_pack(unsigned int step)
{
	struct packer_source source = { .pid = getpid(), .space = space };
	struct packer *packer = create();
	struct packer_stats stats;
	unsigned int i;

	if (step == 1)
		assert_ok(packer_read(packer, &source, memory_address(0),
				      memory_address(MEMORY_PAGES), &problem));
	for (i = 0; i < MEMORY_PAGES && step > 1; i += step)
		assert_ok(packer_read(packer, &source, memory_address(i), memory_address(i + 1),
				      &problem));
	assert_ok(packer_wait(packer, &problem));
	assert_false(source.gone);
	assert_ok(packer_commit(packer, &stats, &problem));
	return stats;
}

static int compare_page(void *arg, uint64_t address, const void *page)
{
	unsigned int *left = arg;

	(*left)--;
	return memcmp((void *)address, page, 4096) ? -EDOM : 0;
}

/* What is held is what the memory has, page by page, as a restore would see it. */
static void memory_check(unsigned int pages)
{
	static uint64_t sequence;
	struct manifest manifest = { .term = own.number, .sequence = ++sequence, .map = map }, *found;
	char name[64];

	assert_int_equal(space_pages(space), pages);
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	assert_ok(manifest_read(store, name, &found, &problem));
	assert_ok(manifest_read_space(store, found, pagemap_find(found->map, SPACE_TASK, 1),
				      compare_page, &pages, &problem));
	assert_int_equal(pages, 0);
	manifest_free(found);
}

static void test_read(void **state)
{
	struct packer_stats stats;
	unsigned int i;

	memory_map();
	for (i = 0; i < MEMORY_PAGES; i++)
		memory_write(i, i % 5 ? 100 + i : 1);
	stats = memory_pack(1);
	assert_int_equal(stats.pages, MEMORY_PAGES);
	assert_int_equal(stats.pages_zero, MEMORY_PAGES / 5);
	assert_int_equal(stats.pages_packed, MEMORY_PAGES / 5 * 4);
	memory_check(MEMORY_PAGES);

	/* Some change, some become zero, most stay. */
	for (i = 0; i < MEMORY_PAGES; i += 7)
		memory_write(i, i % 2 ? 1 : 5000 + i);
	stats = memory_pack(1);
	assert_int_equal(stats.pages, MEMORY_PAGES);
	assert_int_equal(stats.pages_packed, (MEMORY_PAGES / 7 + 2) / 2);
	assert_true(stats.bytes_written < 150 * 4096);
	memory_check(MEMORY_PAGES);

	stats = memory_pack(1);
	assert_int_equal(stats.pages_packed, 0);
	assert_int_equal(stats.bytes_written, 0);
	munmap(memory, MEMORY_PAGES * 4096);
}

static void test_read_pieces(void **state)
{
	struct packer_stats stats;
	unsigned int i;

	memory_map();
	for (i = 0; i < MEMORY_PAGES; i++)
		memory_write(i, 4 * i + 4);
	stats = memory_pack(3);
	assert_int_equal(stats.pages_packed, MEMORY_PAGES / 3);
	memory_check(MEMORY_PAGES / 3);
	assert_int_equal(objects(), 2);
	munmap(memory, MEMORY_PAGES * 4096);
}

/* Pages that went away after they were reported are held no longer. */
static void test_read_unmapped(void **state)
{
	unsigned int i;

	memory_map();
	for (i = 0; i < MEMORY_PAGES; i++)
		memory_write(i, 4 * i + 4);
	memory_pack(1);
	for (i = 10; i < 400; i += 13)
		munmap(memory + i * 4096, 4096);
	munmap(memory + 1000 * 4096, 500 * 4096);
	for (i = 11; i < 400; i += 13)
		memory_write(i, 8 * i + 4);
	memory_pack(1);
	memory_check(1000 - 30);
	munmap(memory, 1000 * 4096);
}

static void test_read_gone(void **state)
{
	struct packer_source source = { .space = space };
	struct packer *packer = create();
	pid_t child = fork();

	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	source.pid = child;
	assert_ok(packer_read(packer, &source, 0x10000, 0x10000 + (600 << 12), &problem));
	assert_ok(packer_wait(packer, &problem));
	assert_true(source.gone);
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_int_equal(objects(), 0);
}

static void test_read_fails(void **state)
{
	static const char *const faults[] = { "packer.read:3=EIO", "packer.write:1=EIO",
					      "store.create=EIO", "packer.thread=EIO" };
	struct packer_source source = { .pid = getpid(), .space = space };
	struct packer *packer;
	unsigned int i, round;
	int err;

	memory_map();
	for (i = 0; i < MEMORY_PAGES; i++)
		memory_write(i, 4 * i + 4);
	for (i = 0; i < 4; i++) {
		fault_arm(faults[i]);
		packer = create();
		for (err = round = 0; !err && round < 3; round++)
			err = packer_read(packer, &source, memory_address(0),
					  memory_address(MEMORY_PAGES), &problem);
		if (!err)
			err = packer_wait(packer, &problem);
		if (!err)
			err = packer_commit(packer, NULL, &problem);
		assert_int_equal(err, -EIO);
		assert_err(packer_wait(packer, &problem), EIO);
		assert_int_equal(space_pages(space), 0);
		packer_abort(packer);
		assert_int_equal(objects(), 0);
	}
	munmap(memory, MEMORY_PAGES * 4096);
}

static void *lift(void *arg)
{
	limits_lift(arg);
	return NULL;
}

/* A byte a second, and one thread: none of it counts when the limits are lifted. */
static void test_limits_lifted(void **state)
{
	struct limits limits = { .io_bytes_per_s = 1, .threads = 1 };
	struct packer_source source = { .pid = getpid(), .space = space };
	struct packer *packer = create();
	pthread_t lifter;
	unsigned int i;

	memory_map();
	for (i = 0; i < MEMORY_PAGES; i++)
		memory_write(i, 4 * i + 4);
	packer_limit(packer, &limits);
	assert_ok(packer_read(packer, &source, memory_address(0), memory_address(500), &problem));
	assert_int_equal(pthread_create(&lifter, NULL, lift, &limits), 0);
	assert_ok(packer_read(packer, &source, memory_address(500), memory_address(MEMORY_PAGES),
			      &problem));
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_int_equal(pthread_join(lifter, NULL), 0);
	memory_check(MEMORY_PAGES);
	munmap(memory, MEMORY_PAGES * 4096);
}

/* Several at a time share the job's memory, and each gets enough to work with. */
static void test_shared_memory(void **state)
{
	struct packer *packers[4];
	unsigned int i, page;

	for (i = 0; i < 4; i++)
		packers[i] = create();
	assert_true(store->buffer_bytes_used >= options.buffer_bytes);
	assert_true(store->buffer_bytes_used < options.buffer_bytes + 4 * (4 << 20));
	for (page = 0; page < 3000; page++)
		assert_ok(pack(packers[page % 4], page, 4 * page + 4));
	for (i = 0; i < 4; i++)
		assert_ok(packer_commit(packers[i], NULL, &problem));
	assert_int_equal(store->buffer_bytes_used, 0);
	assert_int_equal(space_pages(space), 3000);
	assert_int_equal(objects(), 4);
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
		row(test_read),
		row(test_read_pieces),
		row(test_read_unmapped),
		row(test_read_gone),
		row(test_read_fails),
		row(test_limits_lifted),
		row(test_shared_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
