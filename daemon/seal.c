// SPDX-License-Identifier: GPL-2.0
#include "seal.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "faults.h"
#include "gcm.h"

#define CONTEXT_MAX 256
#define NONCE_BYTES 12

struct sealer {
	uint8_t keys[SEAL_AES_256_GMAC + 1][SEAL_KEY_BYTES]; /* by algorithm */
	uint8_t mac[SEAL_KEY_BYTES];
	struct gcm *gcm[SEAL_AES_256_GMAC + 1]; /* by algorithm; NULL: libcrypto does it */
	size_t context_length;
	uint8_t context[CONTEXT_MAX]; /* job and object name, with their terminating zeros */
};

/* ---- what the libraries can ---- */

static int try_algorithm(enum seal_algorithm algorithm)
{
	static const uint8_t key[SEAL_KEY_BYTES] = { 1 }, salt[SEAL_SALT_BYTES] = { 2 };
	static const uint8_t data[3] = { 1, 2, 3 };
	uint8_t sealed[sizeof(data) + SEAL_TAG_BYTES], opened[sizeof(data)];
	struct sealer *sealer = sealer_create(key, salt, "job", "object");
	int err = sealer ? sealer_seal(sealer, algorithm, 1, data, 1, data, sizeof(data), sealed) :
			   -ENOMEM;

	if (!err)
		err = sealer_open(sealer, algorithm, 1, data, 1, sealed, sizeof(sealed), opened);
	if (!err && memcmp(opened, data, sizeof(data)))
		err = -EIO;
	sealer_destroy(sealer);
	return err;
}

int seal_init(struct problem *problem)
{
	enum seal_algorithm algorithm;
	int err;

	if (sodium_init() < 0)
		return problem_set(problem, EIO, "libsodium does not start");
	for (algorithm = SEAL_AES_256_GCM; algorithm <= SEAL_AES_256_GMAC; algorithm++) {
		err = try_algorithm(algorithm);
		if (err)
			return problem_set(problem, -err, "libcrypto (OpenSSL) does not give %s: %s; is it set to "
					   "allow only some algorithms (openssl.cnf)?",
					   algorithm == SEAL_AES_256_GCM ? "AES-256-GCM" : "ChaCha20-Poly1305",
					   strerror(-err));
	}
	return 0;
}

enum seal_algorithm seal_preferred(void)
{
	return crypto_aead_aes256gcm_is_available() && !fault("seal.no_aes") ?
		SEAL_AES_256_GCM : SEAL_CHACHA20_POLY1305;
}

int seal_parse(enum seal_algorithm *algorithm, const char *text, struct problem *problem)
{
	if (!strcmp(text, "auto"))
		*algorithm = seal_preferred();
	else if (!strcmp(text, "none"))
		*algorithm = SEAL_AES_256_GMAC;
	else
		return problem_set(problem, EINVAL, "seal = %s: want auto or none", text);
	return 0;
}

bool seal_algorithm_known(unsigned int algorithm)
{
	return algorithm >= SEAL_AES_256_GCM && algorithm <= SEAL_AES_256_GMAC;
}

/* ---- keys ---- */

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

void seal_key_name(char name[17], const uint8_t check[SEAL_CHECK_BYTES])
{
	sodium_bin2hex(name, 17, check, 8);
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

struct sealer *sealer_create(const uint8_t job_key[SEAL_KEY_BYTES],
			     const uint8_t salt[SEAL_SALT_BYTES], const char *job,
			     const char *object)
{
	static const char *const purposes[] = {
		[SEAL_AES_256_GCM] = "ckpt aes256gcm",
		[SEAL_CHACHA20_POLY1305] = "ckpt chacha20",
		[SEAL_AES_256_GMAC] = "ckpt aes256gmac",
	};
	size_t job_length = strlen(job) + 1, object_length = strlen(object) + 1;
	struct sealer *sealer;
	unsigned int i;

	if (job_length + object_length > CONTEXT_MAX)
		return NULL;
	sealer = calloc(1, sizeof(*sealer));
	if (!sealer)
		return NULL;
	memcpy(sealer->context, job, job_length);
	memcpy(sealer->context + job_length, object, object_length);
	sealer->context_length = job_length + object_length;
	for (i = SEAL_AES_256_GCM; i <= SEAL_AES_256_GMAC; i++)
		derive(sealer->keys[i], SEAL_KEY_BYTES, job_key, purposes[i], salt, SEAL_SALT_BYTES);
	sealer->gcm[SEAL_AES_256_GCM] = gcm_create(sealer->keys[SEAL_AES_256_GCM]);
	sealer->gcm[SEAL_AES_256_GMAC] = gcm_create(sealer->keys[SEAL_AES_256_GMAC]);
	derive(sealer->mac, sizeof(sealer->mac), job_key, "ckpt header mac", salt, SEAL_SALT_BYTES);
	return sealer;
}

void sealer_destroy(struct sealer *sealer)
{
	if (!sealer)
		return;
	gcm_destroy(sealer->gcm[SEAL_AES_256_GCM]);
	gcm_destroy(sealer->gcm[SEAL_AES_256_GMAC]);
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

/* ---- blocks ---- */

/* One block on its way through libcrypto, from which the first failure stays. */
struct passage {
	const struct sealer *sealer;
	enum seal_algorithm algorithm;
	EVP_CIPHER_CTX *context;
	bool failed;
};

static void passage_step(struct passage *passage, int result)
{
	passage->failed |= result != 1;
}

static void passage_associate(struct passage *passage, const uint8_t *data, size_t length)
{
	int done;

	if (!passage->failed)
		passage_step(passage,
			     EVP_CipherUpdate(passage->context, NULL, &done, data, (int)length));
}

/* After it, data may pass. */
static int passage_begin(struct passage *passage, bool sealing, uint64_t nonce,
			 const uint8_t *header, size_t header_length)
{
	const EVP_CIPHER *cipher = passage->algorithm == SEAL_CHACHA20_POLY1305 ?
		EVP_chacha20_poly1305() : EVP_aes_256_gcm();
	uint8_t number[NONCE_BYTES] = { 0 };

	passage->context = EVP_CIPHER_CTX_new();
	if (!passage->context)
		return -ENOMEM;
	put_le64(number, nonce);
	passage_step(passage, EVP_CipherInit_ex(passage->context, cipher, NULL,
						passage->sealer->keys[passage->algorithm], number,
						sealing));
	passage_associate(passage, passage->sealer->context, passage->sealer->context_length);
	passage_associate(passage, header, header_length);
	return 0;
}

static void passage_data(struct passage *passage, const uint8_t *data, size_t length, uint8_t *out)
{
	int done = 0;

	if (passage->algorithm == SEAL_AES_256_GMAC) {
		passage_associate(passage, data, length);
		memcpy(out, data, length);
	} else if (!passage->failed) {
		passage_step(passage, EVP_CipherUpdate(passage->context, out, &done, data, (int)length));
		passage->failed |= done != (int)length;
	}
}

static void passage_finish(struct passage *passage)
{
	uint8_t none[EVP_MAX_BLOCK_LENGTH];
	int done;

	if (!passage->failed)
		passage_step(passage, EVP_CipherFinal_ex(passage->context, none, &done));
}

static void passage_tag(struct passage *passage, int operation, uint8_t *tag)
{
	if (!passage->failed)
		passage_step(passage, EVP_CIPHER_CTX_ctrl(passage->context, operation, SEAL_TAG_BYTES,
							  tag));
}

/* What gcm.h wants beside the data. */
struct envelope {
	uint8_t nonce[NONCE_BYTES];
	uint8_t associated[CONTEXT_MAX + SEAL_HEADER_MAX];
	size_t length;
};

static void envelope_make(struct envelope *envelope, const struct sealer *sealer, uint64_t nonce,
			  const uint8_t *header, size_t header_length)
{
	memset(envelope->nonce, 0, NONCE_BYTES);
	put_le64(envelope->nonce, nonce);
	memcpy(envelope->associated, sealer->context, sealer->context_length);
	memcpy(envelope->associated + sealer->context_length, header, header_length);
	envelope->length = sealer->context_length + header_length;
}

static void seal_wide(const struct gcm *gcm, enum seal_algorithm algorithm,
		      const struct envelope *envelope, const uint8_t *data, size_t length,
		      uint8_t *sealed)
{
	if (algorithm == SEAL_AES_256_GCM) {
		gcm_seal(gcm, envelope->nonce, envelope->associated, envelope->length, data, length,
			 sealed);
	} else {
		gcm_mac(gcm, envelope->nonce, envelope->associated, envelope->length, data, length,
			sealed + length);
		memcpy(sealed, data, length);
	}
}

static int open_wide(const struct gcm *gcm, enum seal_algorithm algorithm,
		     const struct envelope *envelope, const uint8_t *sealed, size_t length,
		     uint8_t *data)
{
	size_t data_length = length - SEAL_TAG_BYTES;
	uint8_t tag[SEAL_TAG_BYTES];

	if (algorithm == SEAL_AES_256_GCM)
		return gcm_open(gcm, envelope->nonce, envelope->associated, envelope->length, sealed,
				length, data);
	gcm_mac(gcm, envelope->nonce, envelope->associated, envelope->length, sealed, data_length,
		tag);
	if (!seal_equal(tag, sealed + data_length, SEAL_TAG_BYTES))
		return -EBADMSG;
	memcpy(data, sealed, data_length);
	return 0;
}

static int seal_by_libcrypto(const struct sealer *sealer, enum seal_algorithm algorithm,
			     uint64_t nonce, const uint8_t *header, size_t header_length,
			     const uint8_t *data, size_t length, uint8_t *sealed)
{
	struct passage passage = { .sealer = sealer, .algorithm = algorithm };
	int err = passage_begin(&passage, true, nonce, header, header_length);

	if (err)
		return err;
	passage_data(&passage, data, length, sealed);
	passage_finish(&passage);
	passage_tag(&passage, EVP_CTRL_AEAD_GET_TAG, sealed + length);
	EVP_CIPHER_CTX_free(passage.context);
	return passage.failed ? -EIO : 0;
}

static int open_by_libcrypto(const struct sealer *sealer, enum seal_algorithm algorithm,
			     uint64_t nonce, const uint8_t *header, size_t header_length,
			     const uint8_t *sealed, size_t length, uint8_t *data)
{
	struct passage passage = { .sealer = sealer, .algorithm = algorithm };
	size_t data_length = length - SEAL_TAG_BYTES;
	int err = passage_begin(&passage, false, nonce, header, header_length);

	if (err)
		return err;
	passage_data(&passage, sealed, data_length, data);
	passage_tag(&passage, EVP_CTRL_AEAD_SET_TAG, (uint8_t *)sealed + data_length);
	if (passage.failed)
		err = -EIO;
	passage_finish(&passage);
	EVP_CIPHER_CTX_free(passage.context);
	return err ? err : passage.failed ? -EBADMSG : 0;
}

int sealer_seal(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *data, size_t length,
		uint8_t *sealed)
{
	struct envelope envelope;

	if (!sealer->gcm[algorithm])
		return seal_by_libcrypto(sealer, algorithm, nonce, header, header_length, data, length,
					 sealed);
	envelope_make(&envelope, sealer, nonce, header, header_length);
	seal_wide(sealer->gcm[algorithm], algorithm, &envelope, data, length, sealed);
	return 0;
}

int sealer_open(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *sealed, size_t length,
		uint8_t *data)
{
	struct envelope envelope;

	if (!sealer->gcm[algorithm])
		return open_by_libcrypto(sealer, algorithm, nonce, header, header_length, sealed,
					 length, data);
	envelope_make(&envelope, sealer, nonce, header, header_length);
	return open_wide(sealer->gcm[algorithm], algorithm, &envelope, sealed, length, data);
}
