// SPDX-License-Identifier: GPL-2.0
/* What is said of things whose names a user chose is text, whatever they are. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>

#include "problem.h"

static void expect(const char *name, const char *said)
{
	struct problem problem;
	json_t *text;

	assert_int_equal(problem_set(&problem, ENOENT, "%s: not there", name), -ENOENT);
	assert_memory_equal(problem.text, said, strlen(said));
	assert_string_equal(problem.text + strlen(said), ": not there");
	text = json_string(problem.text);
	assert_non_null(text);
	json_decref(text);
}

static void test_names(void **state)
{
	expect("/home/caf\303\251", "/home/caf\303\251");
	expect("/home/caf\351", "/home/caf?");
	expect("a\nb\033[2Jc\177", "a?b?[2Jc?");
	expect("\303\251\377", "???");
}

/* Cut within a character. */
static void test_long(void **state)
{
	char name[2 * sizeof(((struct problem *)0)->text)];
	struct problem problem;
	json_t *text;

	for (int shift = 0; shift < 2; shift++) {
		memset(name, 'x', sizeof(name));
		for (size_t i = (size_t)shift; i + 2 < sizeof(name); i += 2)
			memcpy(name + i, "\303\251", 2);
		name[sizeof(name) - 1] = '\0';
		problem_set(&problem, EINVAL, "%s", name);
		text = json_string(problem.text);
		assert_non_null(text);
		json_decref(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
