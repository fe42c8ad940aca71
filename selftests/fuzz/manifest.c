// SPDX-License-Identifier: GPL-2.0
/* The content of a manifest, sealed with the right key, and all that a restore and verify do with it. */
#include "place.h"

#include "manifest_format.h"
#include "packed_file.h"
#include "restore.h"
#include "verify.h"

static int drop_page(void *arg, uint64_t address, const void *page)
{
	return 0;
}

static int read_space(struct space *space, void *arg)
{
	struct problem unheard;

	manifest_read_space(place, arg, space, drop_page, NULL, &unheard);
	return 0;
}

static void read_all(struct manifest *manifest)
{
	static int null = -1;
	struct restore_facts facts;
	struct problem unheard;
	size_t i;

	if (null < 0)
		null = memfd_create("null", 0);
	pagemap_for_each(manifest->map, read_space, manifest);
	for (i = 0; i < manifest->file_count; i++) {
		manifest_read_file(place, manifest, manifest->files[i]->name, null, &unheard);
		if (ftruncate(null, 0) || lseek(null, 0, SEEK_SET))
			abort();
	}
	manifest_verify(place, manifest, &unheard);
	restore_read(manifest, &facts, &unheard);
	restore_free(&facts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	struct object_id id = { .kind = OBJECT_MANIFEST, .term = 1, .number = 2 };
	struct object_list segments = { 0 };
	struct verify_report report;
	struct manifest *manifest;
	struct problem unheard;
	char name[OBJECT_NAME_MAX];

	if (!place)
		place_open();
	if (!length || place_put(&id, BLOCK_OF_MANIFEST, data, length))
		return 0;
	object_name(name, &id);
	if (!manifest_read(place, name, &manifest, &unheard)) {
		read_all(manifest);
		manifest_free(manifest);
		if (verify_job(place, &report, NULL, NULL, &unheard))
			abort();
		verify_report_free(&report);
	}
	manifest_segments(place, &id, &segments, &unheard);
	free(segments.ids);
	store_remove(place, &id, NULL);
	return 0;
}

/* What the fixed checkpoint's manifest holds. */
void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	struct block_codec *codec = block_codec_create((struct compression){ 0 }, BLOCK_CONTENT_MAX);
	struct block_header header;
	struct object_reader reader;
	struct object_id id;
	uint8_t *plain = malloc(BLOCK_PLAIN_BYTES), *buffer = malloc(BLOCK_STORED_MAX);
	uint32_t stored;

	place_open();
	object_parse(place_manifest, &id);
	assert_ok(object_open(&reader, place, &id, &problem));
	assert_ok(object_read_next(&reader, codec, OBJECT_HEADER_BYTES, &stored, buffer, &header, plain,
				   &problem));
	seed("checkpoint", plain, header.content_length);
	seed("empty", "CKPTMAN1\0\0\0\0\0CKPTEND1", 21);
	object_close(&reader);
	block_codec_destroy(codec);
	free(plain);
	free(buffer);
}
