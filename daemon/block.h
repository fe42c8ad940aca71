/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A block is the unit that is compressed, sealed, written and read: up to 256 KiB.  In an object:
 *
 *    0  u32  magic "ckB1"
 *    4  u8   kind: 1 pages, 2 file, 3 manifest, 4 term
 *    5  u8   algorithm: 1 AES-256-GCM, 2 ChaCha20-Poly1305, 3 AES-256-GMAC: not secret (seal.h)
 *    6  u8   compression: 0 none, 1 LZ4 block, 2 Zstandard frame
 *    7  u8   flags: 1 last block of the object
 *    8  u32  sealed length
 *   12  u32  content length
 *   16  u16  pages: > 0 in blocks of pages only
 *   18  u8[14] zero
 *   32  sealed: packed content, then 16 bytes of XXH3-128 (low, high) of each page, then the tag
 *
 * The nonce is the block's offset in the object.  Job name, object name and header are authenticated.
 *
 * A block is valid if and only if (1) the magic is right; (2) kind, algorithm, compression and flags
 * are known and the rest of the header is zero; (3) the algorithm is 3 only if kind is pages or
 * file; (4) content length is 1 to 262144; (5) kind is pages if and only if pages > 0, and then
 * content length is pages * 4096; (6) sealed length is more than pages * 16 + 16 and at most content
 * length + pages * 16 + 16; (7) the sealed part opens; (8) the packed content unpacks to exactly
 * content length, or has it when it is not compressed; (9) each page has its hash.
 *
 * A change of any of this is another magic, or another version of the object (object.h).
 */
#ifndef CKPT_BLOCK_H
#define CKPT_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "problem.h"
#include "seal.h"

#define BLOCK_CONTENT_MAX (256u * 1024)
#define BLOCK_PAGES_MAX 64
#define BLOCK_HASH_BYTES 16
#define BLOCK_HEADER_BYTES 32
/* Bytes in a buffer for content and hashes, and in one for a whole block. */
#define BLOCK_PLAIN_BYTES (BLOCK_CONTENT_MAX + BLOCK_PAGES_MAX * BLOCK_HASH_BYTES)
#define BLOCK_STORED_MAX (BLOCK_HEADER_BYTES + BLOCK_PLAIN_BYTES + SEAL_TAG_BYTES)

enum block_kind {
	BLOCK_OF_PAGES = 1,
	BLOCK_OF_FILE = 2,
	BLOCK_OF_MANIFEST = 3,
	BLOCK_OF_TERM = 4,
};

enum compression_method {
	COMPRESSION_NONE = 0,
	COMPRESSION_LZ4 = 1,
	COMPRESSION_ZSTD = 2,
};

struct compression {
	enum compression_method method;
	int level;
};

/* "none", "lz4", "zstd", "zstd:1" to "zstd:19". 0 or -EINVAL. */
int compression_parse(struct compression *compression, const char *text,
		      struct problem *problem);

/*
 * What one thread needs to pack or unpack blocks of up to that much content; larger ones are taken for
 * damaged.  plain, wherever it is asked for, has room for that and for the hashes of its pages.
 */
struct block_codec;
struct block_codec *block_codec_create(struct compression compression, uint32_t content_max);
void block_codec_destroy(struct block_codec *codec);
/* Memory of one that packs the largest blocks. */
size_t block_codec_bytes(struct compression compression);
/* Bytes of the largest block, stored. */
uint32_t block_stored_max(const struct block_codec *codec);

struct block_header {
	enum block_kind kind;
	enum seal_algorithm algorithm;
	enum compression_method method;
	bool last;
	uint32_t sealed_length;
	uint32_t content_length;
	uint16_t pages;
};

/*
 * plain has the content, and the hashes right after it.  Packing keeps the result in the codec;
 * *stored is the length that block_seal() will write.
 */
void block_pack(struct block_codec *codec, struct block_header *header, uint8_t *plain,
		uint32_t *stored);
/* -ENOMEM, -EIO: libcrypto fails. */
int block_seal(struct block_codec *codec, const struct sealer *sealer,
	       const struct block_header *header, uint64_t offset, uint8_t *out);
/*
 * Opens the block that was read from the offset; plain gets content and hashes.  A damaged one gives
 * -EBADMSG and *reason, words that complete "the block ...".  -ENOMEM, -EIO: as above.
 */
int block_open(struct block_codec *codec, const struct sealer *sealer, uint64_t offset,
	       const uint8_t *stored, size_t length, struct block_header *header, uint8_t *plain,
	       const char **reason);
/* Only checks and reads the header. */
int block_parse(const uint8_t header_bytes[BLOCK_HEADER_BYTES], struct block_header *header,
		const char **reason);
static inline uint32_t block_stored(const struct block_header *header)
{
	return BLOCK_HEADER_BYTES + header->sealed_length;
}

#endif
