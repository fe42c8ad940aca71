// SPDX-License-Identifier: GPL-2.0
/* CRIU's images of threads: what is read and changed in them, and that of what is cut nothing is believed. */
#include "image_maker.h"

#include <errno.h>
#include <stdbool.h>

#include "core_image.h"

#define P(n) ((uint64_t)(n) * PAGE_BYTES)
#define MAGIC_CORE 0x55053847
#define THREAD 301
#define NAME "core-301.img"

static struct problem problem;

/* As CRIU writes it; fields that are 0 are left out. */
struct thread {
	uint64_t clear_tid, robust_list, address;
	uint64_t subreaper, death_signal;
};

static void put_given(struct image *message, unsigned int field, uint64_t value)
{
	if (value)
		put_number(message, field, value);
}

static struct image record_of(const struct thread *thread)
{
	struct image info = { .length = 0 }, registers = info, task = info, entry = info, ids = info, record = info;

	put_number(&ids, 1, P(90));
	put_number(&registers, 1, 42);
	put_given(&registers, 15, thread->address);
	put_number(&registers, 19, 1ULL << 60);
	put_given(&info, 1, thread->clear_tid);
	put_message(&info, 2, &registers);
	put_number(&task, 1, 1);
	put_given(&task, 18, thread->subreaper);
	put_given(&entry, 1, thread->robust_list);
	put_number(&entry, 2, P(90));
	put_given(&entry, 8, thread->death_signal);
	put_number(&record, 1, 1);
	put_message(&record, 2, &info);
	put_message(&record, 3, &task);
	put_message(&record, 4, &ids);
	put_message(&record, 5, &entry);
	return record;
}

static struct image save(const struct thread *thread, size_t missing)
{
	struct image record = record_of(thread), image = image_of(MAGIC_CORE, &record, missing);

	image_save(NAME, &image);
	return image;
}

static void threads_point_to_pages(void **state)
{
	const struct thread thread = { .clear_tid = P(7) + 8, .robust_list = P(9) + 16, .address = P(8) + 4095 };
	struct regions regions = { 0 };

	for (size_t missing = 0; missing < 10; missing++) {
		save(&thread, missing);
		assert_int_equal(core_images_pointed(image_directory, &regions, &problem), missing ? -EBADMSG : 0);
		image_remove(NAME);
		if (missing)
			continue;
		assert_int_equal(regions.count, 1);
		assert_int_equal(regions.list[0].start, P(7));
		assert_int_equal(regions.list[0].end, P(10));
	}
	regions_free(&regions);
}

static void only_the_signal_at_its_parents_end_is_cleared(void **state)
{
	const struct thread with = { .robust_list = P(9), .death_signal = 15 }, without = { .robust_list = P(9) };
	struct image before, after;

	for (int changes = 1; changes >= 0; changes--) {
		before = save(changes ? &with : &without, 0);
		assert_int_equal(core_image_outlives_parent(image_directory, THREAD, &problem), 0);
		image_load(NAME, &after);
		image_remove(NAME);
		assert_int_equal(after.length, before.length);
		if (changes) {
			assert_int_equal(before.bytes[before.length - 1], 15);
			before.bytes[before.length - 1] = 0;
		}
		assert_memory_equal(after.bytes, before.bytes, before.length);
	}
}

static void who_adopts_is_told(void **state)
{
	static const struct thread not = { .subreaper = 0 }, adopts = { .subreaper = 1 };
	bool told;

	for (int expected = 0; expected < 2; expected++) {
		save(expected ? &adopts : &not, 0);
		told = !expected;
		assert_int_equal(core_image_adopts(image_directory, THREAD, &told, &problem), 0);
		assert_int_equal(told, expected);
		assert_int_equal(core_image_adopts(image_directory, THREAD + 1, &told, &problem), -ENOENT);
		image_remove(NAME);
	}
}

/* The message is whole for its record, and the message in it is not. */
static void damage_is_named(void **state)
{
	const struct thread thread = { .subreaper = 1, .death_signal = 15 };
	struct image record = record_of(&thread), image;
	bool told;

	for (size_t missing = 1; missing < record.length; missing++) {
		save(&thread, missing);
		assert_int_equal(core_image_adopts(image_directory, THREAD, &told, &problem), -EBADMSG);
		assert_non_null(strstr(problem.text, NAME));
		assert_int_equal(core_image_outlives_parent(image_directory, THREAD, &problem), -EBADMSG);
		image_remove(NAME);
	}
	for (size_t at = 0; at < record.length; at++) {
		record = record_of(&thread);
		record.bytes[at] = 0xff;
		image = image_of(MAGIC_CORE, &record, 0);
		image_save(NAME, &image);
		/* Some bytes are values. */
		core_image_adopts(image_directory, THREAD, &told, &problem);
		core_image_outlives_parent(image_directory, THREAD, &problem);
		image_remove(NAME);
	}
	image = image_of(MAGIC_CORE + 1, &record, 0);
	image_save(NAME, &image);
	assert_int_equal(core_image_adopts(image_directory, THREAD, &told, &problem), -EBADMSG);
	image_remove(NAME);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_point_to_pages),
		cmocka_unit_test(only_the_signal_at_its_parents_end_is_cleared),
		cmocka_unit_test(who_adopts_is_told),
		cmocka_unit_test(damage_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
