// SPDX-License-Identifier: GPL-2.0
#include "block.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#define ZSTD_STATIC_LINKING_ONLY /* for the size of a context */
#include <zstd.h>

#include "bytes.h"
#include "pagemap_private.h"

#define BLOCK_MAGIC 0x31426b63u
#define FLAG_LAST 1u

_Static_assert(BLOCK_CONTENT_MAX == BLOCK_PAGES_MAX * PAGE_BYTES, "block of pages");
_Static_assert(BLOCK_PAGES_MAX == BLOCK_PAGES, "block of pages");
_Static_assert(BLOCK_HASH_BYTES == sizeof(struct page_hash), "hash");
_Static_assert(BLOCK_HEADER_BYTES <= SEAL_HEADER_MAX, "header is authenticated");

struct block_codec {
	struct compression compression;
	ZSTD_CCtx *zstd;
	ZSTD_DCtx *unzstd;
	const uint8_t *packed; /* what block_seal() seals: scratch or the caller's plain */
	uint32_t packed_length;
	uint32_t content_max;
	uint32_t scratch_used; /* at most, ever */
	uint8_t scratch[];     /* content_max, and the hashes */
};

int compression_parse(struct compression *compression, const char *text, struct problem *problem)
{
	char *end = "";

	*compression = (struct compression){ .method = COMPRESSION_ZSTD, .level = 1 };
	if (!strcmp(text, "zstd"))
		return 0;
	if (!strncmp(text, "zstd:", 5))
		compression->level = strtol(text + 5, &end, 10);
	else if (!strcmp(text, "none"))
		compression->method = COMPRESSION_NONE;
	else if (!strcmp(text, "lz4"))
		compression->method = COMPRESSION_LZ4;
	else
		compression->level = 0;
	if (*end || compression->level < 1 || compression->level > 19)
		return problem_set(problem, EINVAL,
				   "compress = %s: want none, lz4, zstd, or zstd:1 to zstd:19", text);
	return 0;
}

static uint32_t plain_bytes(uint32_t content_max)
{
	return content_max + content_max / PAGE_BYTES * BLOCK_HASH_BYTES;
}

struct block_codec *block_codec_create(struct compression compression, uint32_t content_max)
{
	struct block_codec *codec = malloc(sizeof(*codec) + plain_bytes(content_max));

	if (!codec)
		return NULL;
	memset(codec, 0, sizeof(*codec));
	codec->compression = compression;
	codec->content_max = content_max;
	if (compression.method != COMPRESSION_ZSTD)
		return codec;
	codec->zstd = ZSTD_createCCtx();
	if (codec->zstd)
		return codec;
	block_codec_destroy(codec);
	return NULL;
}

void block_codec_destroy(struct block_codec *codec)
{
	if (!codec)
		return;
	ZSTD_freeCCtx(codec->zstd);
	ZSTD_freeDCtx(codec->unzstd);
	seal_wipe(codec->scratch, codec->scratch_used);
	free(codec);
}

size_t block_codec_bytes(struct compression compression)
{
	size_t bytes = sizeof(struct block_codec) + plain_bytes(BLOCK_CONTENT_MAX);

	if (compression.method == COMPRESSION_ZSTD)
		bytes += ZSTD_estimateCCtxSize_usingCParams(
			ZSTD_getCParams(compression.level, BLOCK_CONTENT_MAX, 0));
	return bytes;
}

uint32_t block_stored_max(const struct block_codec *codec)
{
	return BLOCK_HEADER_BYTES + plain_bytes(codec->content_max) + SEAL_TAG_BYTES;
}

static void scratch_use(struct block_codec *codec, uint32_t length)
{
	if (codec->scratch_used < length)
		codec->scratch_used = length;
}

/* The packed length, or 0 when it would not be a 16th less than the content. */
static uint32_t compress(struct block_codec *codec, const uint8_t *content, uint32_t length)
{
	uint32_t room = length - length / 16;
	size_t packed = 0;

	if (length < 64)
		return 0;
	if (codec->compression.method == COMPRESSION_LZ4)
		return LZ4_compress_default((const char *)content, (char *)codec->scratch, length,
					    room);
	if (codec->compression.method == COMPRESSION_ZSTD)
		packed = ZSTD_compressCCtx(codec->zstd, codec->scratch, room, content, length,
					   codec->compression.level);
	return ZSTD_isError(packed) ? 0 : packed;
}

void block_pack(struct block_codec *codec, struct block_header *header, uint8_t *plain,
		uint32_t *stored)
{
	uint32_t hashes = header->pages * BLOCK_HASH_BYTES;
	uint32_t packed = compress(codec, plain, header->content_length);

	codec->packed = packed ? codec->scratch : plain;
	if (packed)
		memcpy(codec->scratch + packed, plain + header->content_length, hashes);
	scratch_use(codec, header->content_length + hashes);
	header->method = packed ? codec->compression.method : COMPRESSION_NONE;
	codec->packed_length = (packed ? packed : header->content_length) + hashes;
	header->sealed_length = codec->packed_length + SEAL_TAG_BYTES;
	*stored = block_stored(header);
}

static void header_put(uint8_t *to, const struct block_header *header)
{
	memset(to, 0, BLOCK_HEADER_BYTES);
	put_le32(to, BLOCK_MAGIC);
	to[4] = header->kind;
	to[5] = header->algorithm;
	to[6] = header->method;
	to[7] = header->last ? FLAG_LAST : 0;
	put_le32(to + 8, header->sealed_length);
	put_le32(to + 12, header->content_length);
	put_le16(to + 16, header->pages);
}

int block_seal(struct block_codec *codec, const struct sealer *sealer,
	       const struct block_header *header, uint64_t offset, uint8_t *out)
{
	header_put(out, header);
	return sealer_seal(sealer, header->algorithm, offset, out, BLOCK_HEADER_BYTES, codec->packed,
			   codec->packed_length, out + BLOCK_HEADER_BYTES);
}

static bool header_zero(const uint8_t *at)
{
	unsigned int i;

	for (i = 18; i < BLOCK_HEADER_BYTES; i++)
		if (at[i])
			return false;
	return true;
}

/* What says who owns the job, and what its memory is, is always secret. */
static bool algorithm_fits(const struct block_header *header)
{
	return seal_algorithm_known(header->algorithm) &&
	       (header->algorithm != SEAL_AES_256_GMAC || header->kind <= BLOCK_OF_FILE);
}

static void header_get(const uint8_t *from, struct block_header *header)
{
	header->kind = from[4];
	header->algorithm = from[5];
	header->method = from[6];
	header->last = from[7] & FLAG_LAST;
	header->sealed_length = get_le32(from + 8);
	header->content_length = get_le32(from + 12);
	header->pages = get_le16(from + 16);
}

static bool lengths_agree(const struct block_header *header)
{
	uint32_t around = header->pages * BLOCK_HASH_BYTES + SEAL_TAG_BYTES;

	if (!header->content_length || header->content_length > BLOCK_CONTENT_MAX)
		return false;
	if ((header->kind == BLOCK_OF_PAGES) != (header->pages > 0))
		return false;
	if (header->pages && header->content_length != header->pages * PAGE_BYTES)
		return false;
	return header->sealed_length > around &&
	       header->sealed_length - around <= header->content_length;
}

int block_parse(const uint8_t header_bytes[BLOCK_HEADER_BYTES], struct block_header *header,
		const char **reason)
{
	*reason = "has no block header";
	if (get_le32(header_bytes) != BLOCK_MAGIC)
		return -EBADMSG;
	header_get(header_bytes, header);
	*reason = "has a header with unknown values";
	if (header->kind < BLOCK_OF_PAGES || header->kind > BLOCK_OF_TERM ||
	    header->method > COMPRESSION_ZSTD || header_bytes[7] & ~FLAG_LAST ||
	    !header_zero(header_bytes) || !algorithm_fits(header))
		return -EBADMSG;
	*reason = "has lengths that do not agree";
	return lengths_agree(header) ? 0 : -EBADMSG;
}

static int unpack_zstd(struct block_codec *codec, uint32_t packed, uint8_t *plain,
		       uint32_t length)
{
	if (!codec->unzstd)
		codec->unzstd = ZSTD_createDCtx();
	if (!codec->unzstd)
		return -ENOMEM;
	return ZSTD_decompressDCtx(codec->unzstd, plain, length, codec->scratch, packed) == length ?
		0 : -EBADMSG;
}

static int unpack(struct block_codec *codec, const struct block_header *header, uint32_t packed,
		  uint8_t *plain)
{
	uint32_t length = header->content_length;

	if (header->method == COMPRESSION_ZSTD)
		return unpack_zstd(codec, packed, plain, length);
	if (header->method == COMPRESSION_LZ4)
		return LZ4_decompress_safe((char *)codec->scratch, (char *)plain, packed,
					   length) == (int)length ? 0 : -EBADMSG;
	if (packed != length)
		return -EBADMSG;
	memcpy(plain, codec->scratch, length);
	return 0;
}

static bool hashes_agree(const struct block_header *header, const uint8_t *plain)
{
	const uint8_t *at = plain + header->content_length;
	unsigned int i;

	for (i = 0; i < header->pages; i++, at += BLOCK_HASH_BYTES) {
		struct page_hash hash = page_hash(plain + i * PAGE_BYTES);

		if (get_le64(at) != hash.low || get_le64(at + 8) != hash.high)
			return false;
	}
	return true;
}

int block_open(struct block_codec *codec, const struct sealer *sealer, uint64_t offset,
	       const uint8_t *stored, size_t length, struct block_header *header, uint8_t *plain,
	       const char **reason)
{
	uint32_t packed, hashes;
	int err;

	*reason = "is cut short";
	if (length < BLOCK_HEADER_BYTES)
		return -EBADMSG;
	err = block_parse(stored, header, reason);
	if (err)
		return err;
	*reason = "has another length than its place";
	if (block_stored(header) != length)
		return -EBADMSG;
	*reason = "has more content than belongs there";
	if (header->content_length > codec->content_max)
		return -EBADMSG;
	scratch_use(codec, header->sealed_length - SEAL_TAG_BYTES);
	*reason = "does not open with the job's key";
	err = sealer_open(sealer, header->algorithm, offset, stored, BLOCK_HEADER_BYTES,
			  stored + BLOCK_HEADER_BYTES, header->sealed_length, codec->scratch);
	if (err)
		return err;
	hashes = header->pages * BLOCK_HASH_BYTES;
	packed = header->sealed_length - SEAL_TAG_BYTES - hashes;
	*reason = "does not unpack";
	err = unpack(codec, header, packed, plain);
	if (err)
		return err;
	memcpy(plain + header->content_length, codec->scratch + packed, hashes);
	*reason = "has a page whose content hash is wrong";
	return hashes_agree(header, plain) ? 0 : -EBADMSG;
}
