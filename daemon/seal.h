/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sealing: what makes an object of the store secret and authentic.
 *
 *   cluster key (32 bytes; key.h)
 *     └─ BLAKE2b(job name) = job key
 *          └─ BLAKE2b(salt of the object, purpose) = a key for each algorithm, MAC key of the object
 *
 * Each object has 32 random bytes of salt, so its keys are its own; the nonce of a block is its
 * offset in the object, where nothing is written twice.  So no nonce repeats under a key.  The data
 * that is authenticated with each block names the job, the object and the block's header.
 *
 * All that is read from a store is authenticated, since a restore runs as root on it: `seal = none`
 * leaves out the secrecy of pages and files, and nothing else.  Its algorithm is AES-256-GCM with
 * the content among what is authenticated and no content to encrypt, which is called GMAC.
 *
 * AES is done by libipsec-mb where it can (gcm.h), else, like ChaCha20-Poly1305, by libcrypto, whose
 * code for current CPUs is faster than libsodium's; GB/s of one core (Zen 5, OpenSSL 3.0 and
 * libsodium 1.0.18 of Debian 12, blocks of 256 KiB): AES-256-GCM 2.7 and 1.7, ChaCha20-Poly1305 3.8
 * and 1.1.
 */
#ifndef CKPT_SEAL_H
#define CKPT_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "problem.h"

#define SEAL_KEY_BYTES 32
#define SEAL_SALT_BYTES 32
#define SEAL_CHECK_BYTES 16
#define SEAL_TAG_BYTES 16
#define SEAL_MAC_BYTES 32
#define SEAL_HEADER_MAX 64

/* The values are those of block headers. */
enum seal_algorithm {
	SEAL_AES_256_GCM = 1,
	SEAL_CHACHA20_POLY1305 = 2,
	SEAL_AES_256_GMAC = 3, /* authentic, but not secret */
};

struct sealer;

/* Whether the libraries do what is asked of them: libcrypto may be told to refuse algorithms. */
int seal_init(struct problem *problem);
/* AES where the CPU has it. */
enum seal_algorithm seal_preferred(void);
/* "auto": the preferred one; "none": authentic only. 0 or -EINVAL. */
int seal_parse(enum seal_algorithm *algorithm, const char *text, struct problem *problem);
bool seal_algorithm_known(unsigned int algorithm);

/* Tells objects of another cluster key from damaged ones; says nothing about the key. */
void seal_check_value(uint8_t check[SEAL_CHECK_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES]);
/* What people call the key of a check value: 16 hexadecimal digits. */
void seal_key_name(char name[17], const uint8_t check[SEAL_CHECK_BYTES]);
void seal_job_key(uint8_t job_key[SEAL_KEY_BYTES], const uint8_t cluster_key[SEAL_KEY_BYTES],
		  const char *job);
void seal_random(void *to, size_t length);
void seal_wipe(void *secret, size_t length);
bool seal_equal(const void *a, const void *b, size_t length);

/* The keys of one object; may be used by several threads. NULL when memory is out. */
struct sealer *sealer_create(const uint8_t job_key[SEAL_KEY_BYTES],
			     const uint8_t salt[SEAL_SALT_BYTES], const char *job,
			     const char *object);
void sealer_destroy(struct sealer *sealer);
void sealer_mac(const struct sealer *sealer, uint8_t mac[SEAL_MAC_BYTES], const void *data,
		size_t length);

/*
 * header, of at most SEAL_HEADER_MAX bytes, is authenticated with the data.  sealed: length + SEAL_TAG_BYTES.  -ENOMEM, or -EIO when
 * libcrypto fails.
 */
int sealer_seal(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *data, size_t length,
		uint8_t *sealed);
/* data: length - SEAL_TAG_BYTES.  -EBADMSG: not what was sealed. */
int sealer_open(const struct sealer *sealer, enum seal_algorithm algorithm, uint64_t nonce,
		const uint8_t *header, size_t header_length, const uint8_t *sealed, size_t length,
		uint8_t *data);

#endif
