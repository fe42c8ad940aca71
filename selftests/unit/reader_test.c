// SPDX-License-Identifier: GPL-2.0
/* What the reader takes from a process is what is in its memory, also where the process itself may not look. */
#define MODEL_PAGES 1
#include "store_fixture.h"

#include <signal.h>
#include <sys/prctl.h>

#include "reader.h"

#define PAGES 700	/* more than a window of the reader */

static struct reader reader;
static struct packer *packer;
static struct space *space;
static struct packer_source task;
static uint8_t *memory;

/* What the pages are for the process, which is the test's child and stands still. */
static void start(void (*change)(void))
{
	int ready[2];
	uint8_t byte;

	memory = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED);
	for (uint32_t page = 0; page < PAGES; page++)
		seed_fill(page + 2, memory + page * PAGE_BYTES, PAGE_BYTES);
	assert_int_equal(pipe(ready), 0);
	task.pid = fork();
	if (!task.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		change();
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
}

static int begin(void **state)
{
	if (directory_create(NULL))
		return -1;
	reader = (struct reader){ .store = open_store() };
	reader.term = take_term(reader.store, "");
	if (reader_init(&reader, &problem) ||
	    packer_create(&packer, reader.store, &reader.term, reader.map, &problem))
		return -1;
	space = pagemap_space(reader.map, SPACE_TASK, 300);
	return 0;
}

static int end(void **state)
{
	kill(task.pid, SIGKILL);
	waitpid(task.pid, NULL, 0);
	munmap(memory, PAGES * PAGE_BYTES);
	packer_abort(packer);
	store_close(reader.store);
	reader_free(&reader);
	return directory_remove(NULL);
}

static void read_all(void)
{
	uint64_t at = (uintptr_t)memory;

	task.space = space;
	assert_ok(packer_read(packer, &task, at, at + PAGES * PAGE_BYTES, &problem));
	assert_ok(packer_wait(packer, &problem));
	assert_false(task.gone);
}

/* Packing the same once more costs nothing only if it is the same. */
static void expect_pages(uint32_t first, uint32_t last)
{
	struct packer_stats stats;
	uint8_t page[PAGE_BYTES];

	assert_ok(packer_commit(packer, &stats, &problem));
	assert_ok(packer_create(&packer, reader.store, &reader.term, reader.map, &problem));
	for (uint32_t number = first; number < last; number++) {
		uint64_t at = (uintptr_t)memory + number * PAGE_BYTES;

		assert_true(space_holds(space, at));
		seed_fill(number + 2, page, sizeof(page));
		assert_ok(packer_page(packer, space, at, page, &problem));
	}
	assert_ok(packer_commit(packer, &stats, &problem));
	assert_int_equal(stats.pages_same, last - first);
	assert_ok(packer_create(&packer, reader.store, &reader.term, reader.map, &problem));
}

static void nothing(void)
{
}

static void test_all(void **state)
{
	start(nothing);
	read_all();
	expect_pages(0, PAGES);
}

static void forbid(void)
{
	mprotect(memory + 3 * PAGE_BYTES, 300 * PAGE_BYTES, PROT_NONE);
}

static void test_forbidden(void **state)
{
	start(forbid);
	read_all();
	expect_pages(0, PAGES);
}

static void unmap(void)
{
	munmap(memory + 5 * PAGE_BYTES, PAGE_BYTES);
	munmap(memory + 100 * PAGE_BYTES, 300 * PAGE_BYTES);
}

static void test_unmapped(void **state)
{
	start(unmap);
	read_all();
	expect_pages(0, 5);
	expect_pages(6, 100);
	expect_pages(400, PAGES);
	assert_false(space_holds(space, (uintptr_t)memory + 5 * PAGE_BYTES));
	assert_int_equal(space_pages(space), PAGES - 301);
}

static void test_ended(void **state)
{
	uint64_t at;

	start(nothing);
	at = (uintptr_t)memory;
	kill(task.pid, SIGKILL);
	assert_int_equal(waitpid(task.pid, NULL, 0), task.pid);
	task.space = space;
	assert_ok(packer_read(packer, &task, at, at + PAGE_BYTES, &problem));
	assert_ok(packer_wait(packer, &problem));
	assert_true(task.gone);
	task.pid = fork();
	if (!task.pid)
		_exit(0);
}

#define row(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_all), row(test_forbidden), row(test_unmapped), row(test_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
