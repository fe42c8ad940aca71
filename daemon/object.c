// SPDX-License-Identifier: GPL-2.0
#include "object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

#define OBJECT_VERSION 1u
#define KEY_OFFSET 48
#define SALT_OFFSET 64
#define MAC_OFFSET 96
_Static_assert(MAC_OFFSET + SEAL_MAC_BYTES == OBJECT_HEADER_BYTES, "header");

static const uint8_t magic[8] = { 'C', 'K', 'P', 'T', 'O', 'B', 'J', '\n' };

/* ---- header ---- */

static void header_put(uint8_t *to, const struct object_writer *writer, uint32_t flags)
{
	memset(to, 0, OBJECT_HEADER_BYTES);
	memcpy(to, magic, sizeof(magic));
	put_le32(to + 8, OBJECT_VERSION);
	put_le32(to + 12, writer->id.kind);
	put_le64(to + 16, writer->id.term);
	put_le64(to + 24, writer->id.number);
	put_le32(to + 32, flags);
	put_le64(to + 40, writer->length);
	memcpy(to + KEY_OFFSET, writer->store->keys[0].check, SEAL_CHECK_BYTES);
	memcpy(to + SALT_OFFSET, writer->salt, SEAL_SALT_BYTES);
	sealer_mac(writer->sealer, to + MAC_OFFSET, to, MAC_OFFSET);
}

static int header_damaged(const struct object_reader *reader, const char *what,
			  struct problem *problem)
{
	return store_damaged(reader->store, problem, reader->name, "%s", what);
}

static int header_check_version(struct object_reader *reader, const uint8_t *from,
				struct problem *problem)
{
	if (memcmp(from, magic, sizeof(magic)))
		return header_damaged(reader, "it does not begin as an object of a store", problem);
	if (get_le32(from + 8) != OBJECT_VERSION)
		return store_damaged(reader->store, problem, reader->name,
				     "its format is version %u, this ckpt knows version %u",
				     get_le32(from + 8), OBJECT_VERSION);
	return 0;
}

/* Whether the key made this header, apart from its key check if that is not the key's. */
static int key_fits(struct object_reader *reader, const uint8_t *from, const struct store_key *key,
		    bool *fits)
{
	uint8_t header[MAC_OFFSET], mac[SEAL_MAC_BYTES];

	sealer_destroy(reader->sealer);
	reader->sealer = sealer_create(key->job_key, from + SALT_OFFSET, reader->store->job,
				       reader->name);
	if (!reader->sealer)
		return -ENOMEM;
	memcpy(header, from, sizeof(header));
	memcpy(header + KEY_OFFSET, key->check, SEAL_CHECK_BYTES);
	sealer_mac(reader->sealer, mac, header, sizeof(header));
	*fits = seal_equal(mac, from + MAC_OFFSET, SEAL_MAC_BYTES);
	return 0;
}

static int key_unknown(struct object_reader *reader, const uint8_t *from, struct problem *problem)
{
	struct store *store = reader->store;
	char sealed[17], own[17];

	seal_key_name(sealed, from + KEY_OFFSET);
	seal_key_name(own, store->keys[0].check);
	return problem_set(problem, ENOKEY,
			   "%s/%s was sealed with the cluster key %s, which this node has not (it seals with "
			   "%s): give this node the key file (/etc/ckpt/key) of the node that wrote it",
			   store->path, reader->name, sealed, own);
}

/*
 * A key check that no key has may be a damaged one: if the MAC is right with the check of one of
 * the keys, it is.
 */
static int header_check_key(struct object_reader *reader, const uint8_t *from,
			    struct problem *problem)
{
	struct store *store = reader->store;
	bool named = false, fits = false;
	unsigned int i;

	for (i = 0; i < store->key_count && !fits && !named; i++) {
		named = seal_equal(from + KEY_OFFSET, store->keys[i].check, SEAL_CHECK_BYTES);
		if (key_fits(reader, from, &store->keys[i], &fits))
			return problem_set(problem, ENOMEM, "no memory to read %s/%s", store->path,
					   reader->name);
	}
	if (named && fits) {
		reader->key = &store->keys[i - 1];
		return 0;
	}
	if (named || fits)
		return header_damaged(reader, "its header is not what ckpt wrote for this job and name",
				      problem);
	return key_unknown(reader, from, problem);
}

static int header_check_values(struct object_reader *reader, const uint8_t *from,
			       struct problem *problem)
{
	uint32_t flags = get_le32(from + 32);
	uint64_t length = get_le64(from + 40);

	if (get_le32(from + 12) != reader->id.kind || get_le64(from + 16) != reader->id.term ||
	    get_le64(from + 24) != reader->id.number)
		return header_damaged(reader, "its header is that of another object", problem);
	if (flags & ~(reader->id.kind == OBJECT_MANIFEST ? OBJECT_FINAL : 0u) || get_le32(from + 36))
		return header_damaged(reader, "its header has unknown flags", problem);
	if (length != reader->object.length)
		return store_damaged(reader->store, problem, reader->name,
				     "it has %llu bytes and should have %llu",
				     (unsigned long long)reader->object.length,
				     (unsigned long long)length);
	reader->flags = flags;
	return 0;
}

/* ---- writing ---- */

/* A term that is being taken is not there yet: what is left of it belongs to the term before. */
static int begin_put(struct object_writer *writer)
{
	struct backend *backend = writer->store->backend;
	uint64_t term = writer->id.term - (writer->id.kind == OBJECT_TERM);
	char unfinished[OBJECT_NAME_MAX];
	int err;

	do {
		store_unfinished_name(unfinished, term);
		err = backend->kind->put_begin(backend, writer->name, unfinished, &writer->put);
	} while (err == -EEXIST);
	writer->begun = !err;
	return err;
}

int object_create(struct object_writer *writer, struct store *store, const struct object_id *id,
		  struct problem *problem)
{
	int err;

	*writer = (struct object_writer){ .store = store, .id = *id, .put.fd = -1,
					  .length = OBJECT_HEADER_BYTES };
	object_name(writer->name, id);
	seal_random(writer->salt, sizeof(writer->salt));
	writer->sealer = sealer_create(store->keys[0].job_key, writer->salt, store->job, writer->name);
	if (!writer->sealer)
		return problem_set(problem, ENOMEM, "no memory to write %s/%s", store->path,
				   writer->name);
	err = begin_put(writer);
	return err ? store_problem(store, problem, -err, "create", writer->name) : 0;
}

int object_write(struct object_writer *writer, const void *data, size_t length, uint64_t offset)
{
	return writer->store->backend->kind->put_write(&writer->put, data, length, offset);
}

int object_add(struct object_writer *writer, struct block_codec *codec,
	       struct block_header *header, uint8_t *plain, struct problem *problem)
{
	uint32_t stored;
	int err;

	if (!writer->buffer)
		writer->buffer = malloc(block_stored_max(codec));
	if (!writer->buffer)
		return problem_set(problem, ENOMEM, "no memory to write %s/%s", writer->store->path,
				   writer->name);
	header->algorithm = seal_preferred();
	block_pack(codec, header, plain, &stored);
	err = block_seal(codec, writer->sealer, header, writer->length, writer->buffer);
	if (err)
		return problem_set(problem, -err, "cannot seal a block of %s/%s: libcrypto fails: %s",
				   writer->store->path, writer->name, strerror(-err));
	err = object_write(writer, writer->buffer, stored, writer->length);
	if (err)
		return store_problem(writer->store, problem, -err, "write", writer->name);
	writer->length += stored;
	return 0;
}

/* With a whole page around it where that is known: a part of one would have to be read first. */
static int header_write(struct object_writer *writer, uint32_t flags)
{
	uint8_t header[OBJECT_HEADER_BYTES];

	header_put(header, writer, flags);
	if (!writer->head)
		return object_write(writer, header, sizeof(header), 0);
	memcpy(writer->head, header, sizeof(header));
	return object_write(writer, writer->head, writer->head_bytes, 0);
}

int object_finish(struct object_writer *writer, uint32_t flags, struct problem *problem)
{
	int err;

	writer->put.operation = "write the header of";
	err = header_write(writer, flags);
	if (!err)
		err = writer->store->backend->kind->put_finish(&writer->put, writer->length);
	return err ? store_problem(writer->store, problem, -err, writer->put.operation,
				   writer->name) : 0;
}

/*
 * After an error the name may be there all the same.  A segment or manifest of that name is ours,
 * since the term is; a term may be that of another node, so it stays.
 */
int object_publish(struct object_writer *writer, struct problem *problem)
{
	struct store *store = writer->store;
	int err = store->backend->kind->put_commit(&writer->put);

	if (!err)
		return 0;
	store_problem(store, problem, -err, writer->put.operation, writer->name);
	if (err != -EEXIST && writer->id.kind != OBJECT_TERM)
		store_remove(store, &writer->id, NULL);
	return err;
}

void object_discard(struct object_writer *writer)
{
	if (writer->begun)
		writer->store->backend->kind->put_end(&writer->put);
	sealer_destroy(writer->sealer);
	free(writer->buffer);
	free(writer->head);
	*writer = (struct object_writer){ .put.fd = -1 };
}

/* ---- reading ---- */

static ssize_t read_at(struct object_reader *reader, void *to, size_t length, uint64_t offset)
{
	return reader->store->backend->kind->read(&reader->object, to, length, offset);
}

static int header_read(struct object_reader *reader, struct problem *problem)
{
	uint8_t header[OBJECT_HEADER_BYTES];
	ssize_t got = read_at(reader, header, sizeof(header), 0);
	int err;

	if (got < 0)
		return store_problem(reader->store, problem, -got, "read", reader->name);
	if ((size_t)got < sizeof(header))
		return store_damaged(reader->store, problem, reader->name,
				     "it has only %zd bytes", got);
	err = header_check_version(reader, header, problem);
	if (!err)
		err = header_check_key(reader, header, problem);
	return err ? err : header_check_values(reader, header, problem);
}

int object_open(struct object_reader *reader, struct store *store, const struct object_id *id,
		struct problem *problem)
{
	int err;

	*reader = (struct object_reader){ .store = store, .id = *id };
	object_name(reader->name, id);
	err = store->backend->kind->open(store->backend, reader->name, &reader->object);
	if (err == -EBADMSG)
		return header_damaged(reader, "it is not a file", problem);
	if (err)
		return store_problem(store, problem, -err, "open", reader->name);
	reader->open = true;
	err = header_read(reader, problem);
	if (err)
		object_close(reader);
	return err;
}

void object_close(struct object_reader *reader)
{
	if (reader->open)
		reader->store->backend->kind->close_object(&reader->object);
	reader->open = false;
	sealer_destroy(reader->sealer);
	reader->sealer = NULL;
}

void object_announce(struct object_reader *reader, uint64_t offset, uint64_t length)
{
	reader->store->backend->kind->announce(&reader->object, offset, length);
}

void object_go_direct(struct object_reader *reader)
{
	const struct backend_kind *kind = reader->store->backend->kind;

	if (kind->go_direct)
		kind->go_direct(&reader->object);
}

/* Where in the buffer it is: *at. */
static ssize_t read_block(struct object_reader *reader, uint8_t *buffer, size_t length, uint64_t offset,
			  size_t *at)
{
	*at = 0;
	if (reader->object.direct)
		return reader->store->backend->kind->read_direct(&reader->object, buffer, length, offset, at);
	return read_at(reader, buffer, length, offset);
}

static int block_problem(struct object_reader *reader, int err, uint64_t offset,
			 const char *reason, struct problem *problem)
{
	if (err != -EBADMSG)
		return problem_set(problem, -err, "cannot open a block of %s/%s: %s", reader->store->path,
				   reader->name, strerror(-err));
	return store_damaged(reader->store, problem, reader->name, "the block at %llu %s",
			     (unsigned long long)offset, reason);
}

int object_read(struct object_reader *reader, struct block_codec *codec, uint64_t offset,
		uint32_t stored, uint8_t *buffer, struct block_header *header, uint8_t *plain,
		struct problem *problem)
{
	const char *reason = "is cut short";
	ssize_t got;
	size_t at;
	int err = -EBADMSG;

	if (offset > reader->object.length || stored > reader->object.length - offset)
		return block_problem(reader, err, offset, reason, problem);
	if (stored > block_stored_max(codec))
		return block_problem(reader, err, offset, "is too long", problem);
	got = read_block(reader, buffer, stored, offset, &at);
	if (got < 0)
		return store_problem(reader->store, problem, -got, "read", reader->name);
	if ((size_t)got == stored)
		err = block_open(codec, reader->sealer, offset, buffer + at, stored, header, plain,
				 &reason);
	return err ? block_problem(reader, err, offset, reason, problem) : 0;
}

int object_read_next(struct object_reader *reader, struct block_codec *codec, uint64_t offset,
		     uint32_t *stored, uint8_t *buffer, struct block_header *header,
		     uint8_t *plain, struct problem *problem)
{
	const char *reason = "is cut short";
	ssize_t got = read_at(reader, buffer, BLOCK_HEADER_BYTES, offset);
	int err = -EBADMSG;

	if (got < 0)
		return store_problem(reader->store, problem, -got, "read", reader->name);
	if (got == BLOCK_HEADER_BYTES)
		err = block_parse(buffer, header, &reason);
	if (err)
		return block_problem(reader, err, offset, reason, problem);
	*stored = block_stored(header);
	return object_read(reader, codec, offset, *stored, buffer, header, plain, problem);
}
