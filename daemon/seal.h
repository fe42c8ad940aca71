/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sealing: what makes an object of the store secret and authentic.
 *
 *   cluster key (32 bytes, /etc/ckpt/key)
 *     └─ BLAKE2b(job name) = job key
 *          └─ BLAKE2b(salt of the object, purpose) = AES key, XChaCha key, MAC key of the object
 *
 * Each object has 32 random bytes of salt, so its keys are its own; the nonce of a block is its
 * offset in the object, where nothing is written twice.  So no nonce repeats under a key.  The data
 * that is authenticated with each block names the job, the object and the block's header.
 */
#ifndef CKPT_SEAL_H
#define CKPT_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEAL_KEY_BYTES 32
#define SEAL_SALT_BYTES 32
#define SEAL_CHECK_BYTES 16
#define SEAL_TAG_BYTES 16
#define SEAL_MAC_BYTES 32

enum seal_algorithm {
	SEAL_AES_256_GCM = 1,
	SEAL_XCHACHA20_POLY1305 = 2,
};

struct sealer;

int seal_init(void);
/* AES where the CPU has it. */
enum seal_algorithm seal_preferred(void);
/* -ENOTSUP: known, but not on this CPU.  -EBADMSG: unknown. */
int seal_supported(unsigned int algorithm);
/* Tells objects of another cluster key from damaged ones; says nothing about the key. */
void seal_check_value(uint8_t check[SEAL_CHECK_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES]);
void seal_job_key(uint8_t job_key[SEAL_KEY_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES],
		  const char *job);
void seal_random(void *to, size_t length);
void seal_wipe(void *secret, size_t length);

/* The keys of one object; may be used by several threads. NULL when memory is out. */
struct sealer *sealer_create(const uint8_t job_key[SEAL_KEY_BYTES],
			     const uint8_t salt[SEAL_SALT_BYTES], const char *job,
			     const char *object);
void sealer_destroy(struct sealer *sealer);
void sealer_mac(const struct sealer *sealer, uint8_t mac[SEAL_MAC_BYTES], const void *data,
		size_t length);
bool seal_equal(const void *a, const void *b, size_t length);

/* header is authenticated with the data; at most SEAL_HEADER_MAX bytes. sealed: length + SEAL_TAG_BYTES. */
#define SEAL_HEADER_MAX 64
void sealer_seal(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		 const uint8_t *header, size_t header_length, const uint8_t *data, size_t length,
		 uint8_t *sealed);
/* data: length - SEAL_TAG_BYTES.  -EBADMSG: not what was sealed. */
int sealer_open(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *sealed, size_t length,
		uint8_t *data);

#endif
