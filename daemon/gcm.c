// SPDX-License-Identifier: GPL-2.0
#include "gcm.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "faults.h"

#if __has_include(<intel-ipsec-mb.h>)
#include <intel-ipsec-mb.h>
#endif

/* Before 1.0 its names were others. */
#if defined(IMB_VERSION_NUM) && IMB_VERSION_NUM >= 0x10000

struct gcm {
	struct gcm_key_data key; /* first: aligned to 64 bytes */
};

static IMB_MGR *library; /* its table of functions for this CPU; constant once it is there */
static char description[96];
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void library_open(void)
{
	static const char *const sets[IMB_ARCH_NUM] = { [IMB_ARCH_AVX2] = "AVX2",
							[IMB_ARCH_AVX512] = "AVX-512" };
	IMB_ARCH arch = IMB_ARCH_NONE;
	/* It knows the CPU only after it has been started, which may be anybody's first need of it. */
	bool can = sodium_init() >= 0 && crypto_aead_aes256gcm_is_available();
	IMB_MGR *manager = can ? alloc_mb_mgr(0) : NULL;

	if (!manager)
		return;
	init_mb_mgr_auto(manager, &arch);
	if (manager->features & IMB_FEATURE_AESNI && arch < IMB_ARCH_NUM && sets[arch]) {
		snprintf(description, sizeof(description), "libipsec-mb %s with %s",
			 imb_get_version_str(), sets[arch]);
		library = manager;
	} else {
		free_mb_mgr(manager);
	}
}

static bool library_there(void)
{
	pthread_once(&library_once, library_open);
	return library && !fault("seal.no_aes") && !fault("seal.no_ipsec_mb");
}

const char *gcm_describe(void)
{
	return library_there() ? description : NULL;
}

struct gcm *gcm_create(const uint8_t key[GCM_KEY_BYTES])
{
	struct gcm *gcm = library_there() ? aligned_alloc(64, (sizeof(*gcm) + 63) & ~63UL) : NULL;

	if (gcm)
		IMB_AES256_GCM_PRE(library, key, &gcm->key);
	return gcm;
}

void gcm_destroy(struct gcm *gcm)
{
	if (!gcm)
		return;
	sodium_memzero(gcm, sizeof(*gcm));
	free(gcm);
}

void gcm_seal(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	      size_t associated_length, const uint8_t *data, size_t length, uint8_t *sealed)
{
	struct gcm_context_data context;

	IMB_AES256_GCM_ENC(library, &gcm->key, &context, sealed, data, length, nonce, associated,
			   associated_length, sealed + length, GCM_TAG_BYTES);
}

int gcm_open(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *sealed, size_t length, uint8_t *data)
{
	struct gcm_context_data context;
	uint8_t tag[GCM_TAG_BYTES];

	length -= GCM_TAG_BYTES;
	IMB_AES256_GCM_DEC(library, &gcm->key, &context, data, sealed, length, nonce, associated,
			   associated_length, tag, GCM_TAG_BYTES);
	if (!sodium_memcmp(tag, sealed + length, GCM_TAG_BYTES))
		return 0;
	sodium_memzero(data, length);
	return -EBADMSG;
}

void gcm_mac(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *data, size_t length, uint8_t tag[GCM_TAG_BYTES])
{
	struct gcm_context_data context;

	IMB_AES256_GMAC_INIT(library, &gcm->key, &context, nonce, GCM_NONCE_BYTES);
	IMB_AES256_GMAC_UPDATE(library, &gcm->key, &context, associated, associated_length);
	IMB_AES256_GMAC_UPDATE(library, &gcm->key, &context, data, length);
	IMB_AES256_GMAC_FINALIZE(library, &gcm->key, &context, tag, GCM_TAG_BYTES);
}

#else

const char *gcm_describe(void)
{
	return NULL;
}

struct gcm *gcm_create(const uint8_t key[GCM_KEY_BYTES])
{
	return NULL;
}

void gcm_destroy(struct gcm *gcm)
{
}

void gcm_seal(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	      size_t associated_length, const uint8_t *data, size_t length, uint8_t *sealed)
{
	abort();
}

int gcm_open(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *sealed, size_t length, uint8_t *data)
{
	abort();
}

void gcm_mac(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *associated,
	     size_t associated_length, const uint8_t *data, size_t length, uint8_t tag[GCM_TAG_BYTES])
{
	abort();
}

#endif
