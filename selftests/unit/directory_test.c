// SPDX-License-Identifier: GPL-2.0
/* Directories that somebody changes while they are removed. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "directory.h"

/* Paths in it would be far longer than the kernel takes. */
#define LEVELS 5000
#define ROUNDS 300
#define DIRECTORIES 20

static char place[] = "/tmp/directory_test.XXXXXX";

static int begin(void **state)
{
	return mkdtemp(place) && !chdir(place) ? 0 : -1;
}

static int end(void **state)
{
	return chdir("/") || rmdir(place);
}

static void make_file(int at, const char *name)
{
	int fd = openat(at, name, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void test_all(void **state)
{
	assert_int_equal(mkdir("kept", 0700), 0);
	make_file(AT_FDCWD, "kept/file");
	assert_int_equal(mkdir("tree", 0700), 0);
	assert_int_equal(mkdir("tree/empty", 0700), 0);
	assert_int_equal(mkdir("tree/full", 0700), 0);
	make_file(AT_FDCWD, "tree/full/file");
	make_file(AT_FDCWD, "tree/.removed-0");
	assert_int_equal(symlink("../kept", "tree/link"), 0);
	assert_int_equal(mkfifo("tree/full/fifo", 0600), 0);
	directory_remove("tree");
	assert_int_not_equal(access("tree", F_OK), 0);
	assert_int_equal(access("kept/file", F_OK), 0);
	directory_remove("kept");
	directory_remove("kept");
	assert_int_not_equal(access("kept", F_OK), 0);
}

static void test_deep(void **state)
{
	int at = open(".", O_RDONLY | O_DIRECTORY), next;

	for (int i = 0; i < LEVELS; i++) {
		assert_int_equal(mkdirat(at, "down", 0700), 0);
		make_file(at, "file");
		next = openat(at, "down", O_RDONLY | O_DIRECTORY);
		assert_true(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	assert_int_equal(unlink("file"), 0);
	directory_remove("down");
	assert_int_not_equal(access("down", F_OK), 0);
}

/* As a job's user who keeps a descriptor of the directory. */
static void *swap(void *arg)
{
	const bool *stop = arg;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		for (int i = 0; i < DIRECTORIES; i++) {
			char name[32];

			snprintf(name, sizeof(name), "tree/%d", i);
			renameat2(AT_FDCWD, name, AT_FDCWD, "link", RENAME_EXCHANGE);
			renameat2(AT_FDCWD, name, AT_FDCWD, "link", RENAME_EXCHANGE);
		}
	return NULL;
}

static void make_tree(void)
{
	char name[32];

	mkdir("tree", 0700);
	for (int i = 0; i < DIRECTORIES; i++) {
		snprintf(name, sizeof(name), "tree/%d", i);
		mkdir(name, 0700);
		snprintf(name, sizeof(name), "tree/%d/file", i);
		close(open(name, O_WRONLY | O_CREAT, 0600));
	}
}

static void test_swapped(void **state)
{
	bool stop = false, kept = true;
	pthread_t thread;

	assert_int_equal(mkdir("kept", 0700), 0);
	make_file(AT_FDCWD, "kept/file");
	symlink("kept", "link");
	assert_int_equal(pthread_create(&thread, NULL, swap, &stop), 0);
	for (int i = 0; i < ROUNDS && kept; i++) {
		make_tree();
		directory_remove("tree");
		kept = access("kept/file", F_OK) == 0;
		unlink("link");
		directory_remove("link");
		symlink("kept", "link");
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(kept);
	unlink("link");
	directory_remove("link");
	directory_remove("tree");
	directory_remove("kept");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_swapped),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
