/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The manifest: the one object that makes a checkpoint exist.  It is sealed with the job's key,
 * holds the facts about the job and the host (a JSON text), CRIU's files and the page map, and is
 * put last.
 */
#ifndef CKPT_MANIFEST_H
#define CKPT_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "packer.h"
#include "pagemap.h"
#include "problem.h"
#include "store.h"

struct manifest {
	uint64_t term;
	uint64_t sequence;           /* counts up within a term from 1 */
	bool final;                  /* the job was ended with this checkpoint: the term is released */
	char *meta;                  /* JSON object, specified where it is made (checkpoint.c) */
	struct pagemap *map;
	struct packed_file **files;
	size_t file_count;
};

/* The name of the checkpoint with this number in this term. */
void manifest_name(char name[64], const struct term *term, uint64_t sequence);
/*
 * Durable when it returns 0, and then the checkpoint is committed; name gets its name.
 * -ESTALE: a newer term exists and nothing was committed.
 */
int manifest_commit(struct store *store, const struct term *own, const struct manifest *manifest,
		    char name[64], struct problem *problem);
/* Reads and authenticates; manifest_free() what it gives. -EBADMSG: damaged or not ours. */
int manifest_read(struct store *store, const char *name, struct manifest **manifest,
		  struct problem *problem);
void manifest_free(struct manifest *manifest);
/* 0 or -EINVAL. */
int manifest_parse_name(const char *name, uint64_t *term, uint64_t *sequence);

/*
 * Reads every page of the space in the order of address (of all blocks, each authenticated) and
 * hands it over.  Also fills the map's content hashes of this space.
 */
typedef int (*page_sink)(void *arg, uint64_t address, const void *page);
int manifest_read_space(struct store *store, struct manifest *manifest, struct space *space,
			page_sink sink, void *arg, struct problem *problem);
/*
 * The same, but of pages in the regions only zero ones are left out, of the others only the address is told
 * (page is NULL), and nothing is read.
 */
int manifest_read_space_without(struct store *store, struct manifest *manifest, struct space *space,
				const struct regions *without, page_sink sink, void *arg,
				struct problem *problem);
/* Writes the content of a named file to fd, of a new file; zeros become holes. -ENOENT: there is none. */
int manifest_read_file(struct store *store, struct manifest *manifest, const char *name, int fd,
		       struct problem *problem);
/* Reads and authenticates everything that the manifest refers to. */
int manifest_verify(struct store *store, struct manifest *manifest, struct problem *problem);

const char *packed_file_name(const struct packed_file *file);

#endif
