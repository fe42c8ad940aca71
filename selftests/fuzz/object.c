// SPDX-License-Identifier: GPL-2.0
/*
 * A whole file of the store, under each kind of name: as it is, and with a header that the key has
 * signed; and, as the content of a term, sealed rightly.
 */
#include "place.h"

#include "term_format.h"
#include "verify.h"

#define KEY_OFFSET 48
#define SALT_OFFSET 64
#define MAC_OFFSET 96

static const struct object_id ids[] = {
	{ .kind = OBJECT_TERM, .term = 2 },
	{ .kind = OBJECT_SEGMENT, .term = 1, .number = 9 },
	{ .kind = OBJECT_MANIFEST, .term = 1, .number = 9 },
};

/* Under its name without any of our checks. */
static void put_raw(const char *name, const uint8_t *data, size_t length)
{
	struct backend *backend = place->backend;
	char unfinished[OBJECT_NAME_MAX];
	struct backend_put put;

	store_unfinished_name(unfinished, 1);
	if (backend->kind->put_begin(backend, name, unfinished, &put) ||
	    backend->kind->put_write(&put, data, length, 0) ||
	    backend->kind->put_finish(&put, length) || backend->kind->put_commit(&put))
		abort();
	backend->kind->put_end(&put);
}

static void use_store(void)
{
	struct verify_report report;
	struct problem unheard;
	struct term term;
	char **names;
	size_t count;

	store_read_term(place, &term, &unheard);
	if (!store_list_checkpoints(place, &names, &count, &unheard))
		free_names(names, count);
	if (!verify_job(place, &report, NULL, NULL, &unheard))
		verify_report_free(&report);
}

static void use_object(const struct object_id *id, const uint8_t *data, size_t length)
{
	char name[OBJECT_NAME_MAX];

	object_name(name, id);
	put_raw(name, data, length);
	use_store();
	store_remove(place, id, NULL);
}

static void sign(const struct object_id *id, uint8_t *header)
{
	char name[OBJECT_NAME_MAX];
	struct sealer *sealer;

	object_name(name, id);
	memcpy(header + KEY_OFFSET, place->keys[0].check, SEAL_CHECK_BYTES);
	sealer = sealer_create(place->keys[0].job_key, header + SALT_OFFSET, JOB, name);
	sealer_mac(sealer, header + MAC_OFFSET, header, MAC_OFFSET);
	sealer_destroy(sealer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	const struct object_id *id = &ids[length % 3];
	uint8_t *copy;

	if (!place)
		place_open();
	if (!length)
		return 0;
	use_object(id, data, length);
	if (length >= OBJECT_HEADER_BYTES) {
		copy = malloc(length);
		memcpy(copy, data, length);
		sign(id, copy);
		use_object(id, copy, length);
		free(copy);
	}
	if (!place_put(&ids[0], BLOCK_OF_TERM, data, length < TERM_BYTES ? length : TERM_BYTES)) {
		use_store();
		store_remove(place, &ids[0], NULL);
	}
	return 0;
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	const struct memory_object *object;
	uint8_t term[TERM_BYTES] = "node";

	place_open();
	for (object = memory_server.objects; object; object = object->next)
		if (object->content->length < 20000)
			seed(object->name, object->content->bytes, object->content->length);
	strcpy((char *)term + TERM_NODE_BYTES, place_manifest);
	seed("content-of-a-term", term, sizeof(term));
}
