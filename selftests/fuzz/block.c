// SPDX-License-Identifier: GPL-2.0
/* A block as it lies there, and one whose header and content are the input and which is sealed rightly. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "bytes.h"
#include "fuzz.h"
#include "pagemap_private.h"

#define MAGIC 0x31426b63u
#define OFFSET 4096

static struct block_codec *codec;
static struct sealer *sealer;

static void begin(void)
{
	static const uint8_t key[SEAL_KEY_BYTES] = { 1 }, salt[SEAL_SALT_BYTES] = { 2 };
	struct compression compression = { .method = COMPRESSION_ZSTD, .level = 1 };

	if (seal_init(NULL))
		abort();
	codec = block_codec_create(compression, BLOCK_CONTENT_MAX);
	sealer = sealer_create(key, salt, "1000-job", "seg-1");
}

static void open_block(const uint8_t *stored, size_t length)
{
	static uint8_t plain[BLOCK_PLAIN_BYTES];
	struct block_header header;
	const char *reason;
	int err = block_open(codec, sealer, OFFSET, stored, length, &header, plain, &reason);

	if (err && err != -EBADMSG)
		abort();
	if (!err && header.content_length > BLOCK_CONTENT_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	static uint8_t stored[BLOCK_STORED_MAX];
	size_t sealed = length - BLOCK_HEADER_BYTES;

	if (!codec)
		begin();
	open_block(data, length);
	if (length <= BLOCK_HEADER_BYTES || sealed > BLOCK_PLAIN_BYTES || data[5] > SEAL_AES_256_GMAC)
		return 0;
	memcpy(stored, data, BLOCK_HEADER_BYTES);
	put_le32(stored, MAGIC);
	put_le32(stored + 8, sealed + SEAL_TAG_BYTES);
	if (data[5] && sealer_seal(sealer, data[5], OFFSET, stored, BLOCK_HEADER_BYTES,
				   data + BLOCK_HEADER_BYTES, sealed, stored + BLOCK_HEADER_BYTES))
		abort();
	open_block(stored, length + SEAL_TAG_BYTES);
	return 0;
}

/* Header and what is to be sealed. */
static void seed_one(void (*seed)(const char *name, const void *data, size_t length),
		     const char *name, const char *compress, unsigned int pages, uint32_t length)
{
	struct compression compression;
	struct block_codec *packer;
	struct block_header header = { .kind = pages ? BLOCK_OF_PAGES : BLOCK_OF_FILE,
				       .algorithm = SEAL_AES_256_GMAC, .pages = pages,
				       .content_length = length };
	uint8_t *plain = calloc(1, BLOCK_PLAIN_BYTES), *stored = calloc(1, BLOCK_STORED_MAX);
	uint32_t bytes;
	unsigned int i;

	compression_parse(&compression, compress, NULL);
	packer = block_codec_create(compression, BLOCK_CONTENT_MAX);
	for (i = 0; i < length; i += 64)
		plain[i] = i;
	for (i = 0; i < pages; i++) {
		struct page_hash hash = page_hash(plain + i * PAGE_BYTES);

		put_le64(plain + length + i * BLOCK_HASH_BYTES, hash.low);
		put_le64(plain + length + i * BLOCK_HASH_BYTES + 8, hash.high);
	}
	block_pack(packer, &header, plain, &bytes);
	if (block_seal(packer, sealer, &header, OFFSET, stored))
		abort();
	seed(name, stored, bytes - SEAL_TAG_BYTES);
	block_codec_destroy(packer);
	free(plain);
	free(stored);
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	begin();
	seed_one(seed, "pages-lz4", "lz4", 2, 2 * PAGE_BYTES);
	seed_one(seed, "pages-zstd", "zstd:3", 2, 2 * PAGE_BYTES);
	seed_one(seed, "file-lz4", "lz4", 0, 1000);
	seed_one(seed, "file-zstd", "zstd", 0, 1000);
	seed_one(seed, "file-none", "none", 0, 100);
}
