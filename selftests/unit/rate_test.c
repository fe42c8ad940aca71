// SPDX-License-Identifier: GPL-2.0
#include "rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void too_often(void **state)
{
	struct rate rate = { 0 };

	for (int i = 1; i < RATE_MOST; i++)
		assert_int_equal(rate_ask(&rate, "a", 1000), RATE_SAY);
	assert_int_equal(rate_ask(&rate, "a", 1000), RATE_LAST);
	assert_int_equal(rate_ask(&rate, "a", 1000 + RATE_MS - 1), RATE_LEAVE_OUT);
	/* Another kind is not touched by it. */
	assert_int_equal(rate_ask(&rate, "b", 1000 + RATE_MS - 1), RATE_SAY);
	assert_int_equal(rate_ask(&rate, "a", 1000 + RATE_MS), RATE_SAY);
}

/* Of more kinds than there is room for, the one that began first is forgotten. */
static void many_kinds(void **state)
{
	static const char kinds[RATE_KINDS];
	struct rate rate = { 0 };

	for (int i = 0; i < RATE_KINDS; i++)
		for (int again = 0; again < RATE_MOST; again++)
			assert_int_not_equal(rate_ask(&rate, &kinds[i], i), RATE_LEAVE_OUT);
	for (int i = 0; i < RATE_KINDS; i++)
		assert_int_equal(rate_ask(&rate, &kinds[i], RATE_KINDS), RATE_LEAVE_OUT);
	assert_int_equal(rate_ask(&rate, "one more", RATE_KINDS), RATE_SAY);
	assert_int_equal(rate_ask(&rate, &kinds[1], RATE_KINDS), RATE_LEAVE_OUT);
	assert_int_equal(rate_ask(&rate, &kinds[0], RATE_KINDS), RATE_SAY);
}

static void nothing_is_said_oftener(void **state)
{
	struct rate rate = { 0 };
	unsigned int said = 0;

	for (int64_t now = 0; now < 10 * RATE_MS; now += 10)
		said += rate_ask(&rate, "a", now) != RATE_LEAVE_OUT;
	assert_int_equal(said, 10 * RATE_MOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_often),
		cmocka_unit_test(many_kinds),
		cmocka_unit_test(nothing_is_said_oftener),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
