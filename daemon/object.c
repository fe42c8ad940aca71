// SPDX-License-Identifier: GPL-2.0
#include "object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "faults.h"
#include "log.h"
#include "pread_fully.h"

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
	if (named && fits)
		return 0;
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
	if (length != reader->length)
		return store_damaged(reader->store, problem, reader->name,
				     "it has %llu bytes and should have %llu",
				     (unsigned long long)reader->length,
				     (unsigned long long)length);
	reader->flags = flags;
	return 0;
}

/* ---- writing ---- */

int write_at(int fd, const void *data, size_t length, uint64_t offset)
{
	const uint8_t *at = data;

	while (length) {
		ssize_t done = pwrite(fd, at, length, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		at += done;
		length -= done;
		offset += done;
	}
	return 0;
}

/* A term that is being taken is not there yet: what is left of it belongs to the term before. */
static int create_unfinished(struct object_writer *writer)
{
	struct object_id id = { .kind = OBJECT_UNFINISHED, .instance = store_instance(),
				.term = writer->id.term - (writer->id.kind == OBJECT_TERM) };
	int err;

	do {
		seal_random(&id.number, sizeof(id.number));
		object_name(writer->unfinished, &id);
		err = try_call("store.create",
			       writer->fd = openat(writer->store->fd, writer->unfinished,
						   O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
							   O_CLOEXEC,
						   0600));
	} while (err == -EEXIST);
	if (err)
		writer->unfinished[0] = 0;
	return err;
}

int object_create(struct object_writer *writer, struct store *store, const struct object_id *id,
		  struct problem *problem)
{
	int err;

	*writer = (struct object_writer){ .store = store, .id = *id, .fd = -1,
					  .length = OBJECT_HEADER_BYTES };
	object_name(writer->name, id);
	seal_random(writer->salt, sizeof(writer->salt));
	writer->sealer = sealer_create(store->keys[0].job_key, writer->salt, store->job, writer->name);
	if (!writer->sealer)
		return problem_set(problem, ENOMEM, "no memory to write %s/%s", store->path,
				   writer->name);
	err = create_unfinished(writer);
	return err ? store_problem(store, problem, -err, "create", writer->name) : 0;
}

int object_add(struct object_writer *writer, struct block_codec *codec,
	       struct block_header *header, uint8_t *plain, struct problem *problem)
{
	uint32_t stored;
	int err;

	if (!writer->buffer)
		writer->buffer = malloc(BLOCK_STORED_MAX);
	if (!writer->buffer)
		return problem_set(problem, ENOMEM, "no memory to write %s/%s", writer->store->path,
				   writer->name);
	header->algorithm = seal_preferred();
	block_pack(codec, header, plain, &stored);
	err = block_seal(codec, writer->sealer, header, writer->length, writer->buffer);
	if (err)
		return problem_set(problem, -err, "cannot seal a block of %s/%s: libcrypto fails: %s",
				   writer->store->path, writer->name, strerror(-err));
	err = fault("store.write");
	if (!err)
		err = write_at(writer->fd, writer->buffer, stored, writer->length);
	if (err)
		return store_problem(writer->store, problem, -err, "write", writer->name);
	writer->length += stored;
	return 0;
}

static int check_length(const struct object_writer *writer)
{
	struct stat stat;
	int err = try_call("store.length", fstat(writer->fd, &stat));

	if (err)
		return err;
	return (uint64_t)stat.st_size == writer->length ? 0 : -EIO;
}

/* With a whole page around it where that is known: a part of one would have to be read first. */
static int header_write(struct object_writer *writer, uint32_t flags)
{
	uint8_t header[OBJECT_HEADER_BYTES];
	int err = fault("store.write");

	header_put(header, writer, flags);
	if (err)
		return err;
	if (!writer->head)
		return write_at(writer->fd, header, sizeof(header), 0);
	memcpy(writer->head, header, sizeof(header));
	return write_at(writer->fd, writer->head, writer->head_bytes, 0);
}

int object_finish(struct object_writer *writer, uint32_t flags, struct problem *problem)
{
	const char *operation = "write the header of";
	int err = header_write(writer, flags), fd;

	if (!err) {
		operation = "check the length of";
		err = check_length(writer);
	}
	if (!err) {
		operation = "fsync";
		err = try_call("store.fsync", fsync(writer->fd));
	}
	if (!err) {
		operation = "close";
		fd = writer->fd;
		writer->fd = -1;
		err = try_call("store.close", close(fd));
	}
	return err ? store_problem(writer->store, problem, -err, operation, writer->name) : 0;
}

/* An answer of the server that was lost makes the client ask again and see its own link. */
static bool is_our_link(const struct object_writer *writer)
{
	struct stat unfinished, named;
	int dir = writer->store->fd;

	return !fstatat(dir, writer->unfinished, &unfinished, AT_SYMLINK_NOFOLLOW) &&
	       !fstatat(dir, writer->name, &named, AT_SYMLINK_NOFOLLOW) &&
	       unfinished.st_ino == named.st_ino && unfinished.st_dev == named.st_dev;
}

static int give_name_by_link(const struct object_writer *writer)
{
	int dir = writer->store->fd;
	int err = fault("store.no_link");

	if (err)
		return -EOPNOTSUPP;
	err = try_call("store.link", linkat(dir, writer->unfinished, dir, writer->name, 0));
	if (err == -EEXIST && is_our_link(writer))
		return 0;
	return err;
}

/* Never over another object: link(2) refuses, and where there is none, RENAME_NOREPLACE does. */
static int give_name(struct object_writer *writer)
{
	int dir = writer->store->fd;
	int err = give_name_by_link(writer);

	if (!err) {
		err = try_call("store.unlink", unlinkat(dir, writer->unfinished, 0));
		if (err)
			log_warn("%s/%s stays until the store is cleaned: %s", writer->store->path,
				 writer->unfinished, strerror(-err));
		writer->unfinished[0] = 0;
		return 0;
	}
	if (err != -EPERM && err != -EOPNOTSUPP && err != -ENOSYS && err != -EMLINK)
		return err;
	err = try_call("store.rename", renameat2(dir, writer->unfinished, dir, writer->name,
						 RENAME_NOREPLACE));
	if (!err)
		writer->unfinished[0] = 0;
	return err == -EINVAL || err == -ENOSYS ? -EOPNOTSUPP : err;
}

int object_publish(struct object_writer *writer, struct problem *problem)
{
	struct store *store = writer->store;
	int err = give_name(writer);

	if (err == -EOPNOTSUPP)
		return problem_set(problem, EOPNOTSUPP,
				   "the file system of %s has neither hard links nor "
				   "renameat2(RENAME_NOREPLACE), so a job cannot be owned safely: use "
				   "another file system for the store", store->path);
	if (err)
		return store_problem(store, problem, -err, "give its name to", writer->name);
	err = store_sync_directory(store, problem);
	if (err)
		store_remove(store, &writer->id, NULL);
	return err;
}

void object_discard(struct object_writer *writer)
{
	if (writer->fd >= 0)
		close(writer->fd);
	if (writer->unfinished[0] && writer->store)
		unlinkat(writer->store->fd, writer->unfinished, 0);
	sealer_destroy(writer->sealer);
	free(writer->buffer);
	free(writer->head);
	*writer = (struct object_writer){ .fd = -1 };
}

/* ---- reading ---- */

static ssize_t read_at(int fd, void *to, size_t length, uint64_t offset)
{
	int err = fault("store.read");

	return err ? err : pread_fully(fd, to, length, offset);
}

static int header_read(struct object_reader *reader, struct problem *problem)
{
	uint8_t header[OBJECT_HEADER_BYTES];
	ssize_t got = read_at(reader->fd, header, sizeof(header), 0);
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

static int stat_reader(struct object_reader *reader, struct problem *problem)
{
	struct stat stat;

	if (fstat(reader->fd, &stat))
		return store_problem(reader->store, problem, errno, "stat", reader->name);
	if (!S_ISREG(stat.st_mode))
		return store_damaged(reader->store, problem, reader->name, "it is not a file");
	reader->length = stat.st_size;
	reader->modified_ns = stat.st_mtim.tv_sec * 1000000000LL + stat.st_mtim.tv_nsec;
	return 0;
}

int object_open(struct object_reader *reader, struct store *store, const struct object_id *id,
		struct problem *problem)
{
	int err;

	*reader = (struct object_reader){ .store = store, .id = *id, .fd = -1 };
	object_name(reader->name, id);
	err = try_call("store.read", reader->fd = openat(store->fd, reader->name,
							 O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
								 O_CLOEXEC));
	if (err)
		return store_problem(store, problem, -err, "open", reader->name);
	err = stat_reader(reader, problem);
	if (!err)
		err = header_read(reader, problem);
	if (err)
		object_close(reader);
	return err;
}

void object_close(struct object_reader *reader)
{
	if (reader->fd >= 0)
		close(reader->fd);
	reader->fd = -1;
	sealer_destroy(reader->sealer);
	reader->sealer = NULL;
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
	int err = -EBADMSG;

	if (stored > BLOCK_STORED_MAX || offset > reader->length ||
	    stored > reader->length - offset)
		return block_problem(reader, err, offset, reason, problem);
	got = read_at(reader->fd, buffer, stored, offset);
	if (got < 0)
		return store_problem(reader->store, problem, -got, "read", reader->name);
	if ((size_t)got == stored)
		err = block_open(codec, reader->sealer, offset, buffer, stored, header, plain,
				 &reason);
	return err ? block_problem(reader, err, offset, reason, problem) : 0;
}

int object_read_next(struct object_reader *reader, struct block_codec *codec, uint64_t offset,
		     uint32_t *stored, uint8_t *buffer, struct block_header *header,
		     uint8_t *plain, struct problem *problem)
{
	const char *reason = "is cut short";
	ssize_t got = read_at(reader->fd, buffer, BLOCK_HEADER_BYTES, offset);
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
