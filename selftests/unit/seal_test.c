// SPDX-License-Identifier: GPL-2.0
/* Sealing gives the same bytes whatever library does it, and opens nothing that was changed. */
#include "seal.h"
#include "store_fixture.h"

#define LENGTH_MAX 70000

static const uint8_t key[SEAL_KEY_BYTES] = { 5 }, salt[SEAL_SALT_BYTES] = { 6 };
static const uint8_t header[32] = { 7, 8, 9 };
static uint8_t data[LENGTH_MAX], opened[LENGTH_MAX];
static uint8_t sealed[LENGTH_MAX + SEAL_TAG_BYTES], other[LENGTH_MAX + SEAL_TAG_BYTES];
static const size_t lengths[] = { 1, 15, 16, 17, 255, 4096, 4113, 65536, LENGTH_MAX };

static struct sealer *create(const char *fault)
{
	struct sealer *sealer;

	fault_arm(fault);
	sealer = sealer_create(key, salt, "job", "object");
	assert_non_null(sealer);
	return sealer;
}

static void seal(const struct sealer *sealer, enum seal_algorithm algorithm, size_t length,
		 uint8_t *to)
{
	assert_int_equal(sealer_seal(sealer, algorithm, 77, header, sizeof(header), data, length, to),
			 0);
}

static int open_it(const struct sealer *sealer, enum seal_algorithm algorithm, size_t length,
		   const uint8_t *from)
{
	memset(opened, 0xaa, sizeof(opened));
	return sealer_open(sealer, algorithm, 77, header, sizeof(header), from,
			   length + SEAL_TAG_BYTES, opened);
}

static void check_length(const struct sealer *one, const struct sealer *two,
			 enum seal_algorithm algorithm, size_t length)
{
	seal(one, algorithm, length, sealed);
	seal(two, algorithm, length, other);
	assert_memory_equal(sealed, other, length + SEAL_TAG_BYTES);
	assert_int_equal(!memcmp(sealed, data, length), algorithm == SEAL_AES_256_GMAC);
	assert_int_equal(open_it(one, algorithm, length, other), 0);
	assert_memory_equal(opened, data, length);
	assert_int_equal(open_it(two, algorithm, length, sealed), 0);
	assert_memory_equal(opened, data, length);
}

static void test_same(void **state)
{
	struct sealer *wide = create(NULL), *libcrypto = create("seal.no_ipsec_mb");
	unsigned int i;

	seed_fill(4, data, sizeof(data));
	for (i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		check_length(wide, libcrypto, SEAL_AES_256_GCM, lengths[i]);
		check_length(wide, libcrypto, SEAL_CHACHA20_POLY1305, lengths[i]);
		check_length(wide, libcrypto, SEAL_AES_256_GMAC, lengths[i]);
	}
	sealer_destroy(wide);
	sealer_destroy(libcrypto);
}

static void check_changes(const struct sealer *sealer, enum seal_algorithm algorithm)
{
	static const size_t length = 5000, places[] = { 0, 1, 2500, 4999, 5000, 5015 };
	unsigned int i;

	seal(sealer, algorithm, length, sealed);
	for (i = 0; i < sizeof(places) / sizeof(*places); i++) {
		sealed[places[i]] ^= 1;
		assert_int_equal(open_it(sealer, algorithm, length, sealed), -EBADMSG);
		sealed[places[i]] ^= 1;
	}
	assert_int_equal(sealer_open(sealer, algorithm, 78, header, sizeof(header), sealed,
				     length + SEAL_TAG_BYTES, opened), -EBADMSG);
	assert_int_equal(sealer_open(sealer, algorithm, 77, header, sizeof(header) - 1, sealed,
				     length + SEAL_TAG_BYTES, opened), -EBADMSG);
	assert_int_equal(open_it(sealer, algorithm, length, sealed), 0);
}

static void test_changed(void **state)
{
	static const char *const faults[] = { NULL, "seal.no_ipsec_mb" };
	unsigned int i;

	seed_fill(4, data, sizeof(data));
	for (i = 0; i < 2; i++) {
		struct sealer *sealer = create(faults[i]);

		check_changes(sealer, SEAL_AES_256_GCM);
		check_changes(sealer, SEAL_CHACHA20_POLY1305);
		check_changes(sealer, SEAL_AES_256_GMAC);
		sealer_destroy(sealer);
	}
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_same),
		row(test_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
