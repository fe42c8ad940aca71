// SPDX-License-Identifier: GPL-2.0
/* On which node a job may be restored, and what is said of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host.h"
#include "pagemap_private.h"
#include "restore.h"

#define GIB_KIB (1024 * 1024)

static json_t *node(const char *flags, const char *kernel)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s}", "node", "node7", "kernel", kernel, "memory_kib",
			 (json_int_t)16 * GIB_KIB, "cpu_vendor", "GenuineIntel", "cpu_family", "6", "cpu_flags", flags, "zone",
			 "eu-central-1a", "instance_type", "c5.large");
}

/* What is refused is named; else what is warned of. */
static void compare(json_t *there, json_t *here, uint64_t memory_kib, int expected, const char *words)
{
	char warning[HOST_WARNING];
	struct problem problem = { "" };
	int ret = host_compare(there, here, memory_kib, warning, &problem);
	const char *said = ret ? problem.text : warning;

	assert_int_equal(ret, expected);
	if (*words ? !strstr(said, words) : *said)
		fail_msg("'%s' is said, expected '%s'", said, words);
	json_decref(there);
	json_decref(here);
}

static json_t *with(json_t *facts, const char *key, const char *value)
{
	json_object_set_new(facts, key, json_string(value));
	return facts;
}

static void test_same(void **state)
{
	compare(node("fpu sse2 avx2", "6.1.0"), node("fpu sse2 avx2", "6.1.0"), GIB_KIB, 0, "");
	/* More is no harm, a newer kernel neither. */
	compare(node("fpu sse2", "6.1.0-44-amd64"), node("fpu sse2 avx512f", "6.12.1"), GIB_KIB, 0, "");
}

static void test_flags(void **state)
{
	compare(node("fpu avx512f avx512bw avx2", "6.1"), node("fpu avx2 avx512fp16", "6.1"), GIB_KIB, -ENOTSUP,
		"since it ran on node7: avx512f avx512bw; restore it on a node of the same type");
	/* The kernel's own concern. */
	compare(node("fpu pti ibrs hypervisor", "6.1"), node("fpu", "6.1"), GIB_KIB, 0, "");
	compare(with(node("", "6.1"), "cpu_flags", ""), node("fpu", "6.1"), GIB_KIB, -EBADMSG, "does not say what CPU");
	compare(json_object(), node("fpu", "6.1"), GIB_KIB, -EBADMSG, "does not say what CPU");
}

static void test_many_flags(void **state)
{
	char *flags = calloc(1, 4096);

	for (int i = 0; i < 200; i++)
		sprintf(flags + strlen(flags), "%sfeature%d", i ? " " : "", i);
	compare(node(flags, "6.1"), node("fpu", "6.1"), GIB_KIB, -ENOTSUP, "feature0 feature1 feature2");
	free(flags);
}

static void test_memory(void **state)
{
	json_t *swap;

	compare(node("fpu", "6.1"), node("fpu", "6.1"), 16 * GIB_KIB, -ENOTSUP,
		"this node has 16.0 GiB of memory and swap, and one of the job's processes needs 16.0");
	compare(node("fpu", "6.1"), node("fpu", "6.1"), 16 * GIB_KIB - 1, 0, "");
	/* A job may have run in both. */
	swap = node("fpu", "6.1");
	json_object_set_new(swap, "swap_kib", json_integer(4 * GIB_KIB));
	compare(node("fpu", "6.1"), json_incref(swap), 20 * GIB_KIB - 1, 0, "");
	compare(node("fpu", "6.1"), swap, 20 * GIB_KIB, -ENOTSUP, "this node has 20.0 GiB of memory and swap");
}

/* What processes share after a fork is in each of them; a job that ran must not be refused for the sum. */
static void test_processes(void **state)
{
	struct manifest manifest = { .meta = (char *)"{}", .map = pagemap_create() };
	static const uint64_t pages[] = { 3, 7, 5 };
	struct restore_facts facts;
	struct problem problem;

	for (size_t i = 0; i < 3; i++) {
		struct space *space = pagemap_space(manifest.map, SPACE_TASK, i + 1);

		for (uint64_t page = 0; page < pages[i]; page++)
			assert_int_equal(space_put(space, (16 + page) * PAGE_BYTES, BLOCK_ZERO, 0, (struct page_hash){ 0 }), 0);
	}
	assert_int_equal(restore_read(&manifest, &facts, &problem), 0);
	assert_int_equal(facts.pages, 15);
	assert_int_equal(facts.largest_pages, 7);
	restore_free(&facts);
	pagemap_destroy(manifest.map);
}

static void test_warnings(void **state)
{
	compare(node("fpu", "6.1"), with(node("fpu", "6.1"), "cpu_vendor", "AuthenticAMD"), 1, 0,
		"CPU of AuthenticAMD instead of GenuineIntel");
	compare(node("fpu", "6.1"), with(node("fpu", "6.1"), "cpu_family", "25"), 1, 0, "CPU family 25 instead of 6");
	compare(node("fpu", "6.1"), with(with(node("fpu", "6.1"), "zone", "eu-central-1b"), "instance_type", "m5.large"), 1, 0,
		"instance type m5.large instead of c5.large, availability zone eu-central-1b instead of eu-central-1a");
	compare(node("fpu", "6.12.3"), node("fpu", "6.1.99"), 1, 0, "an older kernel, 6.1.99 instead of 6.12.3");
	/* Checkpoints of nodes that did not know where they were. */
	compare(with(node("fpu", "6.1"), "zone", ""), node("fpu", "6.1"), 1, 0, "");
}

static void test_here(void **state)
{
	json_t *facts = host_facts();
	char warning[HOST_WARNING];
	struct problem problem;

	assert_null(json_object_get(facts, "zone"));
	assert_true(json_integer_value(json_object_get(facts, "memory_kib")) > 0);
	host_set_place("eu-central-1a", "");
	assert_int_equal(host_check(facts, 1, warning, &problem), 0);
	assert_string_equal(warning, "");
	json_decref(facts);
	facts = host_facts();
	assert_string_equal(json_string_value(json_object_get(facts, "zone")), "eu-central-1a");
	assert_null(json_object_get(facts, "instance_type"));
	json_decref(facts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_many_flags),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
