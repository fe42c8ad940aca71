// SPDX-License-Identifier: GPL-2.0
#include "verify.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "manifest.h"
#include "object.h"
#include "packed_file.h"
#include "pagemap_private.h"
#include "processors.h"

#define WORKERS_MAX 16
#define AHEAD_BYTES (8u << 20)

/* A block as a checkpoint wants it. */
struct reference {
	uint64_t term;
	uint64_t number;
	uint64_t offset;
	uint32_t stored;
	uint32_t length;     /* of the content */
	uint32_t checkpoint; /* its index */
	bool met;            /* such a block was found there, and it is good */
};

struct verification {
	struct store *store;
	struct verify_report *report;
	struct object_list all;
	struct reference *references; /* sorted by segment, offset */
	size_t reference_count;
	size_t reference_space;
	verify_progress progress;
	void *arg;
	uint64_t bytes_all;
	uint64_t bytes_done;

	pthread_mutex_t lock; /* of what follows, the report, bytes_done and progress */
	size_t next;          /* object of all that nobody has taken yet */
	size_t damage_space;
	int err;
	struct problem *problem;
};

/* ---- the report ---- */

static void fail_locked(struct verification *verification, int err, const char *text)
{
	if (!verification->err)
		verification->err = problem_set(verification->problem, -err, "%s", text);
}

static void no_memory(struct verification *verification)
{
	pthread_mutex_lock(&verification->lock);
	fail_locked(verification, -ENOMEM, "no memory to verify the job's store");
	pthread_mutex_unlock(&verification->lock);
}

static void done(struct verification *verification, uint64_t bytes)
{
	pthread_mutex_lock(&verification->lock);
	verification->bytes_done += bytes;
	if (verification->progress)
		verification->progress(verification->arg, verification->bytes_done,
				       verification->bytes_all);
	pthread_mutex_unlock(&verification->lock);
}

static void damage_add_locked(struct verification *verification, const char *name, uint64_t offset,
			      const char *text)
{
	struct verify_report *report = verification->report;
	struct verify_damage *damages = report->damages, *damage;

	if (report->damage_count == verification->damage_space) {
		verification->damage_space = verification->damage_space * 2 + 16;
		damages = reallocarray(damages, verification->damage_space, sizeof(*damages));
		if (!damages) {
			fail_locked(verification, -ENOMEM, "no memory to verify the job's store");
			return;
		}
		report->damages = damages;
	}
	damage = &damages[report->damage_count++];
	damage->offset = offset;
	snprintf(damage->name, sizeof(damage->name), "%s", name);
	snprintf(damage->text, sizeof(damage->text), "%s", text);
}

/* What is damaged goes into the report, what cannot be read at all ends the verification. */
static void object_bad(struct verification *verification, const struct object_id *id, uint64_t offset,
		       int err, const struct problem *problem)
{
	char name[OBJECT_NAME_MAX];

	object_name(name, id);
	pthread_mutex_lock(&verification->lock);
	if (err == -EBADMSG || err == -EIO)
		damage_add_locked(verification, name, offset, problem->text);
	else
		fail_locked(verification, err, problem->text);
	pthread_mutex_unlock(&verification->lock);
}

static void key_count(struct verification *verification, const struct object_reader *reader)
{
	struct verify_report *report = verification->report;
	char id[17];
	unsigned int i;

	seal_key_name(id, reader->key->check);
	pthread_mutex_lock(&verification->lock);
	for (i = 0; i < report->key_count && strcmp(report->keys[i].id, id); i++)
		;
	if (i == report->key_count) {
		strcpy(report->keys[i].id, id);
		report->key_count++;
	}
	report->keys[i].objects++;
	pthread_mutex_unlock(&verification->lock);
}

/* ---- what the checkpoints want ---- */

static int reference_order(const void *a, const void *b)
{
	const struct reference *first = a, *second = b;

	if (first->term != second->term)
		return first->term < second->term ? -1 : 1;
	if (first->number != second->number)
		return first->number < second->number ? -1 : 1;
	return first->offset < second->offset ? -1 : first->offset > second->offset;
}

static int reference_add(struct verification *verification, const struct segment *segment,
			 const struct reference *like)
{
	struct reference *references = verification->references;
	size_t space = verification->reference_space * 2 + 1024;

	if (verification->reference_count == verification->reference_space) {
		references = reallocarray(references, space, sizeof(*references));
		if (!references)
			return -ENOMEM;
		verification->references = references;
		verification->reference_space = space;
	}
	references[verification->reference_count] = *like;
	references[verification->reference_count].term = segment->term;
	references[verification->reference_count++].number = segment->number;
	return 0;
}

static int references_add_pages(struct verification *verification, const struct pagemap *map,
				uint32_t checkpoint)
{
	uint32_t i;
	int err = 0;

	for (i = 0; i < map->block_count && !err; i++) {
		const struct block *block = &map->blocks[i];

		if (block->segment && block->live)
			err = reference_add(verification, block->segment,
					    &(struct reference){ .offset = block->offset,
								 .stored = block->stored,
								 .length = block->pages * PAGE_BYTES,
								 .checkpoint = checkpoint });
	}
	return err;
}

static int references_add_file(struct verification *verification, const struct packed_file *file,
			       uint32_t checkpoint)
{
	size_t i;
	int err = 0;

	for (i = 0; i < file->count && !err; i++)
		if (file->blocks[i].stored)
			err = reference_add(verification, file->segment,
					    &(struct reference){ .offset = file->blocks[i].offset,
								 .stored = file->blocks[i].stored,
								 .length = file->blocks[i].length,
								 .checkpoint = checkpoint });
	return err;
}

static int references_add(struct verification *verification, const struct manifest *manifest,
			  uint32_t checkpoint)
{
	size_t i;
	int err = references_add_pages(verification, manifest->map, checkpoint);

	for (i = 0; i < manifest->file_count && !err; i++)
		err = references_add_file(verification, manifest->files[i], checkpoint);
	return err;
}

/* ---- objects, from front to end ---- */

/* One object and what is wanted of it: a slice of the references. */
struct walk {
	struct verification *verification;
	struct object_reader reader;
	struct reference *next;
	struct reference *end;
	uint64_t offset;
	bool good;
	struct block_codec *codec;
	uint8_t *plain;
	uint8_t *buffer;
};

static int walk_create(struct walk *walk, struct verification *verification)
{
	walk->verification = verification;
	walk->codec = block_codec_create((struct compression){ .method = COMPRESSION_NONE },
					 BLOCK_CONTENT_MAX);
	walk->plain = malloc(BLOCK_PLAIN_BYTES);
	walk->buffer = malloc(BLOCK_STORED_MAX);
	if (walk->codec && walk->plain && walk->buffer)
		return 0;
	no_memory(verification);
	return -ENOMEM;
}

static void walk_destroy(struct walk *walk)
{
	if (walk->plain)
		seal_wipe(walk->plain, BLOCK_PLAIN_BYTES);
	block_codec_destroy(walk->codec);
	free(walk->plain);
	free(walk->buffer);
}

static struct reference *reference_first(const struct verification *verification,
					 const struct object_id *id, uint64_t offset)
{
	struct reference key = { .term = id->term, .number = id->number, .offset = offset };
	size_t low = 0, high = verification->reference_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (reference_order(&verification->references[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return verification->references + low;
}

/* Several checkpoints may want the block, and what is wanted before it is in no block. */
static void walk_meet(struct walk *walk, const struct block_header *header, uint32_t stored)
{
	while (walk->next < walk->end && walk->next->offset < walk->offset)
		walk->next++;
	for (; walk->next < walk->end && walk->next->offset == walk->offset; walk->next++)
		walk->next->met = walk->next->stored == stored &&
				  walk->next->length == header->content_length;
}

/* To the next block that is wanted, or to the end. */
static void walk_skip(struct walk *walk)
{
	while (walk->next < walk->end && walk->next->offset <= walk->offset)
		walk->next++;
	walk->offset = walk->next < walk->end && walk->next->offset < walk->reader.object.length ?
		walk->next->offset : walk->reader.object.length;
}

/* Whether a block of that kind may be there in an object of its kind. */
static bool walk_fits(const struct walk *walk, const struct block_header *header, uint32_t stored)
{
	bool at_end = walk->offset + stored == walk->reader.object.length;

	switch (walk->reader.id.kind) {
	case OBJECT_SEGMENT:
		return header->kind <= BLOCK_OF_FILE && !header->last;
	case OBJECT_MANIFEST:
		return header->kind == BLOCK_OF_MANIFEST && header->last == at_end;
	case OBJECT_TERM:
		return header->kind == BLOCK_OF_TERM && header->last && at_end;
	case OBJECT_UNFINISHED:
		break;
	}
	return false;
}

static void walk_block(struct walk *walk)
{
	struct block_header header;
	struct problem problem;
	uint32_t stored;
	int err = object_read_next(&walk->reader, walk->codec, walk->offset, &stored, walk->buffer,
				   &header, walk->plain, &problem);

	if (!err && !walk_fits(walk, &header, stored))
		err = store_damaged(walk->reader.store, &problem, walk->reader.name,
				    "the block at %llu does not belong there",
				    (unsigned long long)walk->offset);
	if (err) {
		walk->good = false;
		object_bad(walk->verification, &walk->reader.id, walk->offset, err, &problem);
		walk_skip(walk);
		return;
	}
	walk_meet(walk, &header, stored);
	walk->offset += stored;
}

static void walk_blocks(struct walk *walk)
{
	struct verification *verification = walk->verification;
	uint64_t length = walk->reader.object.length, announced = 0, before;

	walk->offset = OBJECT_HEADER_BYTES;
	walk->next = walk->end = NULL;
	if (walk->reader.id.kind == OBJECT_SEGMENT) {
		walk->next = reference_first(verification, &walk->reader.id, 0);
		walk->end = reference_first(verification, &walk->reader.id, UINT64_MAX);
	}
	done(verification, walk->offset);
	while (walk->offset < length) {
		if (walk->offset + AHEAD_BYTES / 2 > announced) {
			object_announce(&walk->reader, walk->offset, AHEAD_BYTES);
			announced = walk->offset + AHEAD_BYTES;
		}
		before = walk->offset;
		walk_block(walk);
		done(verification, walk->offset - before);
	}
}

/* Whether all of it is good. What was cleaned since it was listed, or is wanted in vain, is not. */
static bool walk_object(struct walk *walk, const struct object_id *id)
{
	struct verification *verification = walk->verification;
	identity_scope struct identity caller = { 0 };
	struct problem problem;
	int err = store_enter(verification->store, &caller, &problem);

	if (!err)
		err = object_open(&walk->reader, verification->store, id, &problem);
	if (err) {
		if (err != -ENOENT)
			object_bad(verification, id, 0, err, &problem);
		return false;
	}
	key_count(verification, &walk->reader);
	walk->good = true;
	walk_blocks(walk);
	object_close(&walk->reader);
	return walk->good;
}

/* ---- terms and manifests ---- */

static void content_bad(struct verification *verification, const struct object_id *id, int err,
			const struct problem *problem)
{
	if (err != -ENOENT)
		object_bad(verification, id, OBJECT_HEADER_BYTES, err, problem);
}

static void term_check(struct walk *walk, const struct object_id *id)
{
	struct verification *verification = walk->verification;
	identity_scope struct identity caller = { 0 };
	struct problem problem;
	int err;

	if (!walk_object(walk, id))
		return;
	err = store_enter(verification->store, &caller, &problem);
	if (!err)
		err = store_verify_term(verification->store, id->term, &problem);
	if (err)
		content_bad(verification, id, err, &problem);
}

__attribute__((format(printf, 2, 3)))
static void checkpoint_bad(struct verify_checkpoint *checkpoint, const char *format, ...)
{
	va_list args;

	if (!checkpoint->whole)
		return;
	checkpoint->whole = false;
	va_start(args, format);
	vsnprintf(checkpoint->text, sizeof(checkpoint->text), format, args);
	va_end(args);
}

static int checkpoint_fill(struct verification *verification, const struct manifest *manifest,
			   uint32_t index)
{
	struct verify_checkpoint *checkpoint = &verification->report->checkpoints[index];

	checkpoint->final = manifest->final;
	checkpoint->pages = pagemap_pages(manifest->map);
	checkpoint->meta = strdup(manifest->meta);
	return checkpoint->meta ? references_add(verification, manifest, index) : -ENOMEM;
}

static void manifest_check(struct walk *walk, const struct object_id *id)
{
	struct verification *verification = walk->verification;
	struct verify_report *report = verification->report;
	struct verify_checkpoint *checkpoint = &report->checkpoints[report->checkpoint_count++];
	struct manifest *manifest;
	struct problem problem;
	int err;

	*checkpoint = (struct verify_checkpoint){ .whole = true };
	object_name(checkpoint->name, id);
	err = walk_object(walk, id) ?
		manifest_read(verification->store, checkpoint->name, &manifest, &problem) : -ENOENT;
	if (err) {
		content_bad(verification, id, err, &problem);
		checkpoint_bad(checkpoint, "its manifest is damaged");
		return;
	}
	if (checkpoint_fill(verification, manifest, report->checkpoint_count - 1))
		no_memory(verification);
	manifest_free(manifest);
}

static size_t count_kind(const struct object_list *list, enum object_kind kind)
{
	size_t i, count = 0;

	for (i = 0; i < list->count; i++)
		count += list->ids[i].kind == kind;
	return count;
}

/* Newest first: the list is in the other order. */
static void small_check(struct walk *walk)
{
	struct verification *verification = walk->verification;
	size_t i = verification->all.count;

	while (i-- && !verification->err) {
		const struct object_id *id = &verification->all.ids[i];

		if (id->kind == OBJECT_TERM)
			term_check(walk, id);
		else if (id->kind == OBJECT_MANIFEST)
			manifest_check(walk, id);
	}
	if (verification->reference_count)
		qsort(verification->references, verification->reference_count,
		      sizeof(*verification->references), reference_order);
}

static int small_check_all(struct verification *verification)
{
	struct verify_report *report = verification->report;
	struct walk walk = { 0 };

	report->checkpoints = calloc(count_kind(&verification->all, OBJECT_MANIFEST) + 1,
				     sizeof(*report->checkpoints));
	if (!report->checkpoints)
		no_memory(verification);
	else if (!walk_create(&walk, verification))
		small_check(&walk);
	walk_destroy(&walk);
	return verification->err;
}

/* ---- segments ---- */

static const struct object_id *next_segment(struct verification *verification)
{
	const struct object_list *all = &verification->all;
	const struct object_id *id = NULL;

	pthread_mutex_lock(&verification->lock);
	while (verification->next < all->count && !id && !verification->err) {
		id = &all->ids[verification->next++];
		if (id->kind != OBJECT_SEGMENT)
			id = NULL;
	}
	pthread_mutex_unlock(&verification->lock);
	return id;
}

static void *segments_check(void *arg)
{
	const struct object_id *id;
	struct walk walk = { 0 };

	if (!walk_create(&walk, arg))
		while ((id = next_segment(arg)))
			walk_object(&walk, id);
	walk_destroy(&walk);
	return NULL;
}

/* This thread is one of those that check. */
static void segments_check_all(struct verification *verification)
{
	unsigned int wanted = processors(WORKERS_MAX), started = 0;
	pthread_t workers[WORKERS_MAX];
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (started + 1 < wanted &&
	       !pthread_create(&workers[started], NULL, segments_check, verification))
		started++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	segments_check(verification);
	while (started)
		pthread_join(workers[--started], NULL);
}

/* ---- the verdict ---- */

static struct object_id segment_of(const struct reference *reference)
{
	return (struct object_id){ .kind = OBJECT_SEGMENT, .term = reference->term,
				   .number = reference->number };
}

static void checkpoints_judge(struct verification *verification)
{
	const struct reference *reference;
	char name[OBJECT_NAME_MAX];
	struct object_id id;
	size_t i;

	for (i = 0; i < verification->reference_count; i++) {
		reference = &verification->references[i];
		if (reference->met)
			continue;
		id = segment_of(reference);
		object_name(name, &id);
		checkpoint_bad(&verification->report->checkpoints[reference->checkpoint],
			       "the block at %llu of %s, which it needs, is damaged or missing",
			       (unsigned long long)reference->offset, name);
	}
}

static bool is_missing(struct verification *verification, const struct object_id *id)
{
	struct backend_stat stat;

	return store_stat(verification->store, id, &stat, NULL) == -ENOENT;
}

/* A checkpoint that was cleaned away meanwhile is none; its segments went with it. */
static void cleaned_find(struct verification *verification)
{
	struct verify_report *report = verification->report;
	struct object_id id;
	size_t i;

	for (i = 0; i < report->checkpoint_count; i++) {
		object_parse(report->checkpoints[i].name, &id);
		if (!report->checkpoints[i].whole && is_missing(verification, &id))
			report->checkpoints[i].name[0] = 0;
	}
}

/* What is missing is damage too, and has a name. */
static void missing_name(struct verification *verification)
{
	struct object_id id = { .kind = OBJECT_SEGMENT }, last = id;
	const struct reference *reference;
	char name[OBJECT_NAME_MAX];
	size_t i;

	for (i = 0; i < verification->reference_count; i++, last = id) {
		reference = &verification->references[i];
		id = segment_of(reference);
		if (reference->met || !object_compare(&id, &last) ||
		    !verification->report->checkpoints[reference->checkpoint].name[0] ||
		    !is_missing(verification, &id))
			continue;
		object_name(name, &id);
		damage_add_locked(verification, name, 0, "it is missing");
	}
}

static void cleaned_forget(struct verify_report *report)
{
	size_t i, kept = 0;

	for (i = 0; i < report->checkpoint_count; i++) {
		if (report->checkpoints[i].name[0])
			report->checkpoints[kept++] = report->checkpoints[i];
		else
			free(report->checkpoints[i].meta);
	}
	report->checkpoint_count = kept;
}

/* Those of a chain that is cut by a damaged term are those that a restore finds, too. */
static int chain_mark(struct verification *verification)
{
	struct verify_report *report = verification->report;
	struct object_list chain = { 0 };
	char name[OBJECT_NAME_MAX];
	size_t i, j;
	int err = store_chain(verification->store, &verification->all, &chain, verification->problem);

	for (i = 0; i < chain.count; i++) {
		object_name(name, &chain.ids[i]);
		for (j = 0; j < report->checkpoint_count; j++)
			report->checkpoints[j].restorable |= !strcmp(report->checkpoints[j].name, name);
	}
	free(chain.ids);
	return err == -EBADMSG ? 0 : err;
}

static int judge(struct verification *verification)
{
	identity_scope struct identity caller = { 0 };
	int err = store_enter(verification->store, &caller, verification->problem);

	if (err)
		return err;
	checkpoints_judge(verification);
	cleaned_find(verification);
	missing_name(verification);
	cleaned_forget(verification->report);
	return verification->err ? verification->err : chain_mark(verification);
}

/* ---- the whole ---- */

static int list_all(struct verification *verification)
{
	identity_scope struct identity caller = { 0 };
	struct backend_stat stat;
	int err = store_enter(verification->store, &caller, verification->problem);
	size_t i;

	if (!err)
		err = store_list(verification->store, &verification->all, verification->problem);
	for (i = 0; i < verification->all.count && !err; i++) {
		const struct object_id *id = &verification->all.ids[i];

		if (id->kind == OBJECT_UNFINISHED ||
		    store_stat(verification->store, id, &stat, NULL))
			continue;
		verification->report->objects++;
		verification->bytes_all += stat.length;
	}
	verification->report->bytes = verification->bytes_all;
	return err;
}

int verify_job(struct store *store, struct verify_report *report, verify_progress progress,
	       void *arg, struct problem *problem)
{
	struct verification verification = { .store = store, .report = report, .progress = progress,
					     .arg = arg, .problem = problem };
	int err;

	*report = (struct verify_report){ 0 };
	pthread_mutex_init(&verification.lock, NULL);
	err = list_all(&verification);
	if (!err)
		err = small_check_all(&verification);
	if (!err) {
		segments_check_all(&verification);
		err = verification.err;
	}
	if (!err)
		err = judge(&verification);
	pthread_mutex_destroy(&verification.lock);
	free(verification.references);
	free(verification.all.ids);
	if (err)
		verify_report_free(report);
	return err;
}

void verify_report_free(struct verify_report *report)
{
	while (report->checkpoint_count)
		free(report->checkpoints[--report->checkpoint_count].meta);
	free(report->checkpoints);
	free(report->damages);
	*report = (struct verify_report){ 0 };
}
