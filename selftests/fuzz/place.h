/* SPDX-License-Identifier: GPL-2.0 */
/* A store in memory that a target makes once: a term, and one checkpoint of fixed content. */
#ifndef CKPT_FUZZ_PLACE_H
#define CKPT_FUZZ_PLACE_H

#define MODEL_PAGES 24
#include "store_fixture.h"

#include "fuzz.h"
#include "object.h"

/* More pages than the fixed checkpoint has; what a mutation asks for beyond is refused. */
#define PLACE_PAGES 65536

static struct store *place;
static struct term place_term;
static char place_manifest[64];

static inline void place_quiet(void)
{
	log_set_level(LOG_EMERG);
}

/* One worker: the blocks lie at the same places each time, as the corpus has them. */
static inline void place_open(void)
{
	static struct model none, model;
	struct pagemap *map = pagemap_create();
	uint64_t state = 3;

	options.uid = geteuid();
	options.gid = getegid();
	options.compress = "lz4";
	options.seal = "auto";
	options.buffer_bytes = 0;
	options.pages_max = PLACE_PAGES;
	in_memory = true;
	memory_server_init(&memory_server);
	place_quiet();
	place = open_store();
	place_term = take_term(place, "");
	model_change(&model, &state, 6);
	model.file_seed = 5;
	model.file_bytes = 300;
	assert_ok(model_commit(&none, &model, place, &place_term, map, 1, place_manifest));
	pagemap_destroy(map);
}

/* An object whose content is the bytes, in blocks of that kind. */
static inline int place_put(const struct object_id *id, enum block_kind kind, const uint8_t *data,
			    size_t length)
{
	static struct block_codec *codec;
	static uint8_t plain[BLOCK_PLAIN_BYTES];
	struct block_header header = { .kind = kind };
	struct object_writer writer;
	struct problem unheard;
	int err;

	if (!codec)
		codec = block_codec_create((struct compression){ .method = COMPRESSION_NONE },
					   BLOCK_CONTENT_MAX);
	err = object_create(&writer, place, id, &unheard);
	while (!err && length) {
		header.content_length = length < BLOCK_CONTENT_MAX ? length : BLOCK_CONTENT_MAX;
		header.last = header.content_length == length;
		memcpy(plain, data, header.content_length);
		err = object_add(&writer, codec, &header, plain, &unheard);
		data += header.content_length;
		length -= header.content_length;
	}
	if (!err)
		err = object_finish(&writer, 0, &unheard);
	if (!err)
		err = object_publish(&writer, &unheard);
	object_discard(&writer);
	return err;
}

#endif
