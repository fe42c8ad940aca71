// SPDX-License-Identifier: GPL-2.0
/* Timers in CRIU's images: which are mended, and that damage is no crash. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "image_timers.h"

struct image {
	uint8_t bytes[512];
	size_t length;
};

static void put(struct image *image, uint8_t byte)
{
	image->bytes[image->length++] = byte;
}

static void put_u32(struct image *image, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		put(image, (uint8_t)(value >> 8 * i));
}

static void put_varint(struct image *image, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		put(image, (uint8_t)(value | 0x80));
	put(image, (uint8_t)value);
}

static void put_number(struct image *image, unsigned int field, uint64_t value)
{
	put_varint(image, field << 3);
	put_varint(image, value);
}

static void put_message(struct image *image, unsigned int field, const struct image *inner)
{
	put_varint(image, field << 3 | 2);
	put_varint(image, inner->length);
	memcpy(image->bytes + image->length, inner->bytes, inner->length);
	image->length += inner->length;
}

static void put_record(struct image *image, const struct image *record)
{
	put_u32(image, (uint32_t)record->length);
	memcpy(image->bytes + image->length, record->bytes, record->length);
	image->length += record->length;
}

static struct image begin(uint32_t magic)
{
	struct image image = { .length = 0 };

	put_u32(&image, 0x54564319);
	put_u32(&image, magic);
	return image;
}

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
	struct image image = begin(0x56303138), expected = begin(0x56303138);
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
	struct image image = begin(0x55053847), virtual = itimer(0, 0, 0), timers = { .length = 0 },
		     task = { .length = 0 }, record = { .length = 0 };

	put_message(&timers, 1, &real);
	put_message(&timers, 2, &virtual);
	put_message(&timers, 3, &prof);
	put_number(&task, 1, 1);
	put_message(&task, 7, &timers);
	put_number(&record, 1, 1);
	put_message(&record, 3, &task);
	put_record(&image, &record);
	return image;
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
	struct image whole = core(itimer(0, 0, 20), itimer(0, 0, 0)), files = begin(0x56303138), record = timerfd(1, 0, 0, 9);

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
