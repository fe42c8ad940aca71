/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An object of the store: a header and blocks (block.h), written once, under a name that nothing had
 * before, and durable before it has that name.
 *
 *    0  u8[8]  magic "CKPTOBJ\n"
 *    8  u32    version: 1
 *   12  u32    kind: 1 term, 2 segment, 3 manifest
 *   16  u64    term
 *   24  u64    number (manifests: the sequence; terms: 0)
 *   32  u32    flags: 1 final (manifests only)
 *   36  u32    zero
 *   40  u64    length of the object, with this header
 *   48  u8[16] key check: which of the cluster's keys (key.h, seal.h)
 *   64  u8[32] salt
 *   96  u8[32] MAC of bytes 0 to 95, job name and object name
 *  128  blocks
 *
 * An object is valid if and only if (1) magic, version and kind are known, flags are those of the
 * kind and the spare field is zero; (2) kind, term and number are those of its name; (3) the key
 * check is that of a key of the cluster; (4) the MAC is right with it; (5) the file has the length of
 * the header; (6) the blocks from 128 on follow each other without gaps, are valid, and the last ends
 * at the length; (7) in manifests and terms exactly the last is marked as last, in segments none is.
 *
 * A restore looks at those blocks of segments only that its manifest refers to.
 *
 * A change of what is valid, here or in block.h and manifest_format.h, is a new version; what has an
 * unknown one is refused by its number.
 */
#ifndef CKPT_OBJECT_H
#define CKPT_OBJECT_H

#include "store_private.h"

#define OBJECT_HEADER_BYTES 128

enum object_flags {
	OBJECT_FINAL = 1,
};

/* ---- writing; the caller has entered the store ---- */

struct object_writer {
	struct store *store;
	struct object_id id;
	char name[OBJECT_NAME_MAX];
	struct backend_put put;
	bool begun;      /* put is to be ended */
	uint64_t length; /* written so far; the next block's offset for object_add() */
	uint8_t salt[SEAL_SALT_BYTES];
	struct sealer *sealer;
	uint8_t *buffer; /* of object_add() */
	uint8_t *head;   /* the first bytes, to be written again with the header in them; NULL: none */
	uint32_t head_bytes;
};

/* object_discard() what it made, always. */
int object_create(struct object_writer *writer, struct store *store, const struct object_id *id,
		  struct problem *problem);
/* Packs, seals and writes one block after the last. plain: see block_pack(). */
int object_add(struct object_writer *writer, struct block_codec *codec,
	       struct block_header *header, uint8_t *plain, struct problem *problem);
/* Bytes that the caller has sealed, at their offset.  With put.fd >= 0 it may also write them there. */
int object_write(struct object_writer *writer, const void *data, size_t length, uint64_t offset);
/* The header, and all is made durable; nobody sees it yet. */
int object_finish(struct object_writer *writer, uint32_t flags, struct problem *problem);
/* Gives it its name, durably. -EEXIST: the name is taken. After another error it may have it or not. */
int object_publish(struct object_writer *writer, struct problem *problem);
/* Frees the writer's, and what is not published goes. */
void object_discard(struct object_writer *writer);

/* ---- reading ---- */

struct object_reader {
	struct store *store;
	struct object_id id;
	char name[OBJECT_NAME_MAX];
	struct backend_object object;
	bool open;
	uint32_t flags;
	const struct store_key *key; /* that it is sealed with */
	struct sealer *sealer;
};

/* Opens and checks the header. -ENOENT: there is none. object_close() only after 0. */
int object_open(struct object_reader *reader, struct store *store, const struct object_id *id,
		struct problem *problem);
void object_close(struct object_reader *reader);
/* Much will be read, once. */
void object_go_direct(struct object_reader *reader);
/*
 * Reads the block at offset with the stored length into plain; buffer has block_stored_max(codec), and after
 * object_go_direct() DIRECT_ROOM more, aligned to DIRECT_ALIGN.
 */
int object_read(struct object_reader *reader, struct block_codec *codec, uint64_t offset,
		uint32_t stored, uint8_t *buffer, struct block_header *header, uint8_t *plain,
		struct problem *problem);
/* The same for the block whose length is not known; *stored gets it. */
int object_read_next(struct object_reader *reader, struct block_codec *codec, uint64_t offset,
		     uint32_t *stored, uint8_t *buffer, struct block_header *header,
		     uint8_t *plain, struct problem *problem);

/* What will be read soon. */
void object_announce(struct object_reader *reader, uint64_t offset, uint64_t length);

#endif
