// SPDX-License-Identifier: GPL-2.0
/* The list of mappings, as the kernel may print it while the job changes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "mappings.h"

static struct mappings read_text(const char *text)
{
	struct mappings mappings = {};
	int fd = memfd_create("maps", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(mappings_read(&mappings, fd, getpid()), 0);
	close(fd);
	return mappings;
}

static void expect(const struct mappings *mappings, size_t index, uint64_t start, uint64_t end, enum mapping_kind kind)
{
	assert_true(index < mappings->count);
	assert_int_equal(mappings->list[index].start, start);
	assert_int_equal(mappings->list[index].end, end);
	assert_int_equal(mappings->list[index].kind, kind);
}

static void test_kinds(void **state)
{
	struct mappings mappings = read_text("10000-12000 rw-p 00000000 00:00 0 \n"
					     "12000-13000 rw-s 00000000 00:01 7                  /dev/zero (deleted)\n"
					     "14000-15000 r--p 00000000 00:00 0                  [vvar]\n"
					     "15000-16000 r-xp 00000000 00:00 0                  [vdso]\n");

	expect(&mappings, 0, 0x10000, 0x12000, MAPPING_ANON);
	expect(&mappings, 1, 0x12000, 0x13000, MAPPING_SHARED);
	expect(&mappings, 2, 0x14000, 0x15000, MAPPING_KERNEL);
	expect(&mappings, 3, 0x15000, 0x16000, MAPPING_PRIVATE);
	assert_int_equal(mappings.count, 4);
	mappings_free(&mappings);
}

/* One that was printed has been joined with the next one, which is then printed with both. */
static void test_joined_meanwhile(void **state)
{
	struct mappings mappings = read_text("10000-12000 rw-p 00000000 00:00 0 \n"
					     "10000-15000 rw-p 00000000 00:00 0 \n"
					     "13000-14000 rw-p 00000000 00:00 0 \n"
					     "16000-17000 rw-p 00000000 00:00 0 \n");

	expect(&mappings, 0, 0x10000, 0x12000, MAPPING_ANON);
	expect(&mappings, 1, 0x12000, 0x15000, MAPPING_ANON);
	expect(&mappings, 2, 0x16000, 0x17000, MAPPING_ANON);
	assert_int_equal(mappings.count, 3);
	mappings_free(&mappings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_joined_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
