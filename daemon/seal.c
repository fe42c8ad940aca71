// SPDX-License-Identifier: GPL-2.0
#include "seal.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "faults.h"

#define CONTEXT_MAX 256

struct sealer {
	crypto_aead_aes256gcm_state aes; /* first: wants 16-byte alignment */
	uint8_t xchacha[crypto_aead_xchacha20poly1305_ietf_KEYBYTES];
	uint8_t mac[SEAL_KEY_BYTES];
	bool has_aes;
	size_t context_length;
	uint8_t context[CONTEXT_MAX]; /* job and object name, with their terminating zeros */
};

_Static_assert(crypto_aead_aes256gcm_ABYTES == SEAL_TAG_BYTES, "tag of AES-GCM");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == SEAL_TAG_BYTES, "tag of XChaCha");
_Static_assert(crypto_aead_aes256gcm_NPUBBYTES == 12, "nonce of AES-GCM");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == 24, "nonce of XChaCha");

int seal_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

static bool cpu_has_aes(void)
{
	return crypto_aead_aes256gcm_is_available() && !fault("seal.no_aes");
}

enum seal_algorithm seal_preferred(void)
{
	return cpu_has_aes() ? SEAL_AES_256_GCM : SEAL_XCHACHA20_POLY1305;
}

int seal_supported(unsigned int algorithm)
{
	switch (algorithm) {
	case SEAL_AES_256_GCM:
		return cpu_has_aes() ? 0 : -ENOTSUP;
	case SEAL_XCHACHA20_POLY1305:
		return 0;
	}
	return -EBADMSG;
}

/* purpose has at most 16 characters. */
static void derive(uint8_t *out, size_t out_length, const uint8_t key[SEAL_KEY_BYTES],
		   const char *purpose, const void *input, size_t input_length)
{
	uint8_t personal[crypto_generichash_blake2b_PERSONALBYTES] = { 0 };
	uint8_t salt[crypto_generichash_blake2b_SALTBYTES] = { 0 };

	memcpy(personal, purpose, strnlen(purpose, sizeof(personal)));
	crypto_generichash_blake2b_salt_personal(out, out_length, input, input_length, key,
						 SEAL_KEY_BYTES, salt, personal);
}

void seal_check_value(uint8_t check[SEAL_CHECK_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES])
{
	derive(check, SEAL_CHECK_BYTES, cluster_key, "ckpt key check", "", 0);
}

void seal_job_key(uint8_t job_key[SEAL_KEY_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES],
		  const char *job)
{
	derive(job_key, SEAL_KEY_BYTES, cluster_key, "ckpt job", job, strlen(job));
}

void seal_random(void *to, size_t length)
{
	randombytes_buf(to, length);
}

void seal_wipe(void *secret, size_t length)
{
	sodium_memzero(secret, length);
}

bool seal_equal(const void *a, const void *b, size_t length)
{
	return !sodium_memcmp(a, b, length);
}

static void derive_keys(struct sealer *sealer, const uint8_t job_key[SEAL_KEY_BYTES],
			const uint8_t salt[SEAL_SALT_BYTES])
{
	uint8_t aes[crypto_aead_aes256gcm_KEYBYTES];

	derive(sealer->xchacha, sizeof(sealer->xchacha), job_key, "ckpt xchacha20", salt,
	       SEAL_SALT_BYTES);
	derive(sealer->mac, sizeof(sealer->mac), job_key, "ckpt header mac", salt, SEAL_SALT_BYTES);
	sealer->has_aes = crypto_aead_aes256gcm_is_available();
	if (!sealer->has_aes)
		return;
	derive(aes, sizeof(aes), job_key, "ckpt aes256gcm", salt, SEAL_SALT_BYTES);
	crypto_aead_aes256gcm_beforenm(&sealer->aes, aes);
	sodium_memzero(aes, sizeof(aes));
}

struct sealer *sealer_create(const uint8_t job_key[SEAL_KEY_BYTES],
			     const uint8_t salt[SEAL_SALT_BYTES], const char *job,
			     const char *object)
{
	size_t job_length = strlen(job) + 1, object_length = strlen(object) + 1;
	struct sealer *sealer;

	if (job_length + object_length > CONTEXT_MAX)
		return NULL;
	sealer = aligned_alloc(16, (sizeof(*sealer) + 15) & ~15UL);
	if (!sealer)
		return NULL;
	memset(sealer, 0, sizeof(*sealer));
	memcpy(sealer->context, job, job_length);
	memcpy(sealer->context + job_length, object, object_length);
	sealer->context_length = job_length + object_length;
	derive_keys(sealer, job_key, salt);
	return sealer;
}

void sealer_destroy(struct sealer *sealer)
{
	if (!sealer)
		return;
	sodium_memzero(sealer, sizeof(*sealer));
	free(sealer);
}

void sealer_mac(const struct sealer *sealer, uint8_t mac[SEAL_MAC_BYTES], const void *data,
		size_t length)
{
	crypto_generichash_blake2b_state state;

	crypto_generichash_blake2b_init(&state, sealer->mac, sizeof(sealer->mac), SEAL_MAC_BYTES);
	crypto_generichash_blake2b_update(&state, sealer->context, sealer->context_length);
	crypto_generichash_blake2b_update(&state, data, length);
	crypto_generichash_blake2b_final(&state, mac, SEAL_MAC_BYTES);
	sodium_memzero(&state, sizeof(state));
}

static size_t associate(const struct sealer *sealer, uint8_t *to, const uint8_t *header,
			size_t length)
{
	memcpy(to, sealer->context, sealer->context_length);
	memcpy(to + sealer->context_length, header, length);
	return sealer->context_length + length;
}

void sealer_seal(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		 const uint8_t *header, size_t header_length, const uint8_t *data, size_t length,
		 uint8_t *sealed)
{
	uint8_t associated[CONTEXT_MAX + SEAL_HEADER_MAX];
	size_t associated_length = associate(sealer, associated, header, header_length);
	uint8_t number[24] = { 0 };

	put_le64(number, nonce);
	if (algorithm == SEAL_AES_256_GCM)
		crypto_aead_aes256gcm_encrypt_afternm(sealed, NULL, data, length, associated,
						      associated_length, NULL, number,
						      &sealer->aes);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt(sealed, NULL, data, length, associated,
							   associated_length, NULL, number,
							   sealer->xchacha);
}

int sealer_open(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *sealed, size_t length,
		uint8_t *data)
{
	uint8_t associated[CONTEXT_MAX + SEAL_HEADER_MAX];
	size_t associated_length = associate(sealer, associated, header, header_length);
	uint8_t number[24] = { 0 };
	int err;

	put_le64(number, nonce);
	if (algorithm == SEAL_AES_256_GCM && !sealer->has_aes)
		return -ENOTSUP;
	if (algorithm == SEAL_AES_256_GCM)
		err = crypto_aead_aes256gcm_decrypt_afternm(data, NULL, NULL, sealed, length,
							    associated, associated_length, number,
							    &sealer->aes);
	else
		err = crypto_aead_xchacha20poly1305_ietf_decrypt(data, NULL, NULL, sealed, length,
								 associated, associated_length,
								 number, sealer->xchacha);
	return err ? -EBADMSG : 0;
}
