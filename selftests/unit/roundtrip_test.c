// SPDX-License-Identifier: GPL-2.0
/* What was packed and committed is what is read, over epochs, checkpoints and terms. */
#define MODEL_PAGES 512
#include "store_fixture.h"

#define CHECKPOINTS 4

static struct model models[12];

static void roundtrip(const char *compress, size_t buffer_bytes)
{
	static struct model none;
	const struct model *last = &none;
	uint64_t state = 88172645463325252ULL;
	char name[64] = "";
	struct manifest *manifest = NULL;
	struct pagemap *map = pagemap_create();
	unsigned int t, s, m = 0;

	options.compress = compress;
	options.buffer_bytes = buffer_bytes;
	for (t = 0; t < 3; t++) {
		struct store *store = open_store();
		struct term own = take_term(store, name);

		for (s = 1; s <= CHECKPOINTS; s++, last = &models[m++]) {
			models[m] = *last;
			model_change(&models[m], &state, s % 2 ? 100 : 3);
			assert_ok(model_commit(last, &models[m], store, &own, map, s, name));
		}
		manifest_free(manifest);
		if (!manifest)
			pagemap_destroy(map);
		assert_ok(manifest_read(store, name, &manifest, &problem));
		assert_ok(model_check(last, store, manifest));
		assert_ok(manifest_verify(store, manifest, &problem));
		map = manifest->map;
		manifest_free(manifest);
		store_close(store);

		store = open_store();
		assert_ok(manifest_read(store, name, &manifest, &problem));
		map = manifest->map;
		assert_string_equal(manifest->meta, "{}");
		assert_int_equal(manifest->sequence, CHECKPOINTS);
		store_close(store);
	}
	manifest_free(manifest);
}

static void test_none(void **state)
{
	roundtrip("none", 8 << 20);
}

static void test_lz4(void **state)
{
	roundtrip("lz4", 64 << 20);
}

static void test_zstd(void **state)
{
	roundtrip("zstd:3", 8 << 20);
}

static void test_smallest_buffers(void **state)
{
	roundtrip("zstd", 0);
}

static void test_no_uring(void **state)
{
	assert_int_equal(fault_arm("packer.no_uring=ENOSYS"), 0);
	roundtrip("lz4", 8 << 20);
}

static void test_short_writes(void **state)
{
	assert_int_equal(fault_arm("packer.short_write"), 0);
	roundtrip("lz4", 8 << 20);
}

static void test_no_aes(void **state)
{
	assert_int_equal(fault_arm("seal.no_aes"), 0);
	roundtrip("lz4", 8 << 20);
}

static void test_no_link(void **state)
{
	assert_int_equal(fault_arm("store.no_link"), 0);
	roundtrip("lz4", 8 << 20);
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_none),		row(test_lz4),	       row(test_zstd),
		row(test_smallest_buffers), row(test_no_uring), row(test_short_writes),
		row(test_no_aes),	row(test_no_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
