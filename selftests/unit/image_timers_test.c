// SPDX-License-Identifier: GPL-2.0
/* Timers in CRIU's images: which are mended, and that damage is no crash. */
#include "image_maker.h"

#include <errno.h>

#include "image_timers.h"

static struct image timerfd(uint64_t ticks, uint64_t seconds, uint64_t nanoseconds, uint64_t interval)
{
	struct image inner = { .length = 0 }, owner = { .length = 0 }, record = { .length = 0 };

	put_number(&owner, 1, 0);
	put_number(&inner, 1, 300);
	put_number(&inner, 2, 0x80002);
	put_message(&inner, 3, &owner);
	put_number(&inner, 4, 1);
	put_number(&inner, 5, ticks);
	put_number(&inner, 6, 0);
	put_number(&inner, 7, seconds);
	put_number(&inner, 8, nanoseconds);
	put_number(&inner, 9, 0);
	put_number(&inner, 10, interval);
	put_number(&record, 1, 17);
	put_number(&record, 2, 300);
	put_message(&record, 12, &inner);
	return record;
}

static struct image other_file(void)
{
	struct image inner = { .length = 0 }, record = { .length = 0 };

	put_number(&inner, 1, 7);
	put_number(&inner, 8, 0);
	put_number(&record, 1, 1);
	put_message(&record, 3, &inner);
	return record;
}

static void test_timerfds(void **state)
{
	struct image image = image_begin(0x56303138), expected = image_begin(0x56303138);
	struct image records[] = {
		other_file(),
		timerfd(1, 0, 0, 50000000),             /* expired, not read */
		timerfd(0, 0, 40000000, 50000000),      /* runs */
		timerfd(3, 0, 40000000, 50000000),
		timerfd(1, 0, 0, 0),                    /* fired once */
		timerfd(0, 0, 0, 50000000),             /* not armed */
	};

	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++)
		put_record(&image, &records[i]);
	records[1] = timerfd(1, 0, 1, 50000000);
	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++)
		put_record(&expected, &records[i]);
	assert_int_equal(image_timers_mend_files(image.bytes, image.length), 1);
	assert_memory_equal(image.bytes, expected.bytes, image.length);
	assert_int_equal(image_timers_mend_files(image.bytes, image.length), 0);
}

static struct image itimer(uint64_t interval_s, uint64_t interval_us, uint64_t left)
{
	struct image inner = { .length = 0 };

	put_number(&inner, 1, interval_s);
	put_number(&inner, 2, interval_us);
	put_number(&inner, 3, left);
	put_number(&inner, 4, 0);
	return inner;
}

static struct image core(struct image real, struct image prof)
{
	struct image virtual = itimer(0, 0, 0), timers = { .length = 0 }, task = timers, record = timers;

	put_message(&timers, 1, &real);
	put_message(&timers, 2, &virtual);
	put_message(&timers, 3, &prof);
	put_number(&task, 1, 1);
	put_message(&task, 7, &timers);
	put_number(&record, 1, 1);
	put_message(&record, 3, &task);
	return image_of(0x55053847, &record, 0);
}

static void expect_mended(struct image image, int mended, struct image expected)
{
	char *bytes;
	size_t length;

	assert_int_equal(image_timers_mend_core(image.bytes, image.length, &bytes, &length), mended);
	assert_int_equal(length, expected.length);
	assert_memory_equal(bytes, expected.bytes, length);
	free(bytes);
}

static void expect_same(struct image image)
{
	expect_mended(image, 0, image);
}

static void test_itimers(void **state)
{
	expect_same(core(itimer(0, 0, 0), itimer(0, 0, 0)));
	expect_same(core(itimer(0, 500, 20), itimer(0, 0, 0)));
	expect_mended(core(itimer(0, 0, 20), itimer(0, 0, 0)), 1, core(itimer(315360000, 0, 20), itimer(0, 0, 0)));
	expect_mended(core(itimer(0, 500, 20), itimer(0, 0, 900)), 1,
		      core(itimer(0, 500, 20), itimer(315360000, 0, 900)));
	expect_mended(core(itimer(0, 0, 1), itimer(0, 0, 2)), 2, core(itimer(315360000, 0, 1), itimer(315360000, 0, 2)));
}

static void expect_damaged(const struct image *image, size_t length)
{
	char *bytes;
	size_t mended;

	assert_int_equal(image_timers_mend_core(image->bytes, length, &bytes, &mended), -EBADMSG);
	free(bytes);
}

static void test_damage(void **state)
{
	struct image whole = core(itimer(0, 0, 20), itimer(0, 0, 0)), files = image_begin(0x56303138), record = timerfd(1, 0, 0, 9);

	put_record(&files, &record);
	for (size_t length = 0; length < whole.length; length++)
		expect_damaged(&whole, length);
	/* Between two records is an end. */
	for (size_t length = 0; length < files.length; length++)
		assert_int_equal(image_timers_mend_files(files.bytes, length), length == 8 ? 0 : -EBADMSG);
	expect_damaged(&files, files.length);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timerfds),
		cmocka_unit_test(test_itimers),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
