// SPDX-License-Identifier: GPL-2.0
/* Terms and the chain of checkpoints. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "object.h"
#include "term_format.h"

_Static_assert(sizeof(((struct term *)0)->node) == TERM_NODE_BYTES, "content of a term object");
_Static_assert(sizeof(((struct term *)0)->base) == TERM_BASE_BYTES, "content of a term object");

static struct block_codec *term_codec(const struct store *store, struct problem *problem)
{
	static const struct compression none = { .method = COMPRESSION_NONE };
	struct block_codec *codec = block_codec_create(none, TERM_BYTES);

	if (!codec)
		problem_set(problem, ENOMEM, "no memory for the terms of %s", store->path);
	return codec;
}

/* ---- one term object ---- */

static bool base_valid(const char *base, uint64_t term, struct object_id *id)
{
	*id = (struct object_id){ 0 };
	return !*base || (object_parse(base, id) && id->kind == OBJECT_MANIFEST && id->term < term);
}

static int term_unpack(struct object_reader *reader, const struct block_header *header,
		       const uint8_t *plain, struct term *term, struct problem *problem)
{
	struct object_id base;

	if (header->kind != BLOCK_OF_TERM || !header->last || header->content_length != TERM_BYTES ||
	    plain[TERM_NODE_BYTES - 1] || plain[TERM_BYTES - 1] ||
	    reader->object.length != OBJECT_HEADER_BYTES + block_stored(header))
		return store_damaged(reader->store, problem, reader->name,
				     "its content is not that of a term");
	memcpy(term->node, plain, sizeof(term->node));
	memcpy(term->base, plain + TERM_NODE_BYTES, sizeof(term->base));
	if (!base_valid(term->base, reader->id.term, &base))
		return store_damaged(reader->store, problem, reader->name,
				     "its base is not an older checkpoint");
	return 0;
}

static int term_read(struct store *store, uint64_t number, struct term *term,
		     int64_t *modified_ns, struct problem *problem)
{
	struct object_id id = { .kind = OBJECT_TERM, .term = number };
	struct block_codec *codec = term_codec(store, problem);
	uint8_t plain[TERM_BYTES], buffer[TERM_STORED_MAX];
	struct block_header header;
	struct object_reader reader;
	uint32_t stored;
	int err = codec ? object_open(&reader, store, &id, problem) : -ENOMEM;

	if (!err) {
		err = object_read_next(&reader, codec, OBJECT_HEADER_BYTES, &stored, buffer, &header,
				       plain, problem);
		if (!err)
			err = term_unpack(&reader, &header, plain, term, problem);
		term->number = number;
		*modified_ns = reader.object.modified_ns;
		object_close(&reader);
	}
	block_codec_destroy(codec);
	return err;
}

int store_verify_term(struct store *store, uint64_t number, struct problem *problem)
{
	struct term term;
	int64_t modified_ns;

	return term_read(store, number, &term, &modified_ns, problem);
}

/* The time of its object is also that of a damaged one. */
static int term_read_any(struct store *store, uint64_t number, struct term *term,
			 int64_t *modified_ns, struct problem *problem)
{
	struct object_id id = { .kind = OBJECT_TERM, .term = number };
	struct backend_stat stat;
	int err = term_read(store, number, term, modified_ns, problem);

	if (err != -EBADMSG)
		return err;
	*term = (struct term){ .number = number, .damaged = true };
	strcpy(term->node, "(unknown)");
	err = store_stat(store, &id, &stat, problem);
	*modified_ns = stat.modified_ns;
	return err;
}

int store_server_time(struct store *store, uint64_t term, int64_t *now_ns, struct problem *problem)
{
	char unfinished[OBJECT_NAME_MAX];
	int err;

	store_unfinished_name(unfinished, term);
	err = store->backend->kind->time(store->backend, unfinished, now_ns);
	return err ? store_problem(store, problem, -err, "ask the time of", "") : 0;
}

static bool is_final(struct store *store, const struct object_id *manifest)
{
	struct object_reader reader;
	struct problem problem;
	bool final;

	if (object_open(&reader, store, manifest, &problem)) {
		log_warn("%s", problem.text);
		return false;
	}
	final = reader.flags & OBJECT_FINAL;
	object_close(&reader);
	return final;
}

static bool term_released(struct store *store, const struct object_list *list, uint64_t term)
{
	size_t i = list->count;

	while (i--)
		if (list->ids[i].kind == OBJECT_MANIFEST && list->ids[i].term == term)
			return is_final(store, &list->ids[i]);
	return false;
}

int store_read_term(struct store *store, struct term *term, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_list list;
	cleanup_free struct object_id *ids = NULL;
	int64_t modified_ns, now_ns;
	uint64_t newest;
	int err = store_enter(store, &caller, problem);

	*term = (struct term){ 0 };
	if (!err)
		err = store_list(store, &list, problem);
	if (err)
		return err;
	ids = list.ids;
	newest = list_newest_term(&list);
	if (!newest)
		return 0;
	err = store_server_time(store, newest, &now_ns, problem);
	if (!err)
		err = term_read_any(store, newest, term, &modified_ns, problem);
	if (err)
		return err;
	term->age_ms = now_ns > modified_ns ? (now_ns - modified_ns) / 1000000 : 0;
	term->released = term_released(store, &list, newest);
	return 0;
}

int store_read_older_term(struct store *store, uint64_t number, struct term *term,
			  struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	int64_t modified_ns, now_ns;
	int err = store_enter(store, &caller, problem);

	*term = (struct term){ 0 };
	if (!err)
		err = store_server_time(store, number, &now_ns, problem);
	if (!err)
		err = term_read(store, number, term, &modified_ns, problem);
	if (!err)
		term->age_ms = now_ns > modified_ns ? (now_ns - modified_ns) / 1000000 : 0;
	return err;
}

/* ---- taking and renewing ---- */

static int term_stale(const struct store *store, uint64_t own, uint64_t newest,
		      struct problem *problem)
{
	return problem_set(problem, ESTALE,
			   "job %s was taken over by another node: the store %s has term %llu, this "
			   "node had %llu; nothing more of this node is committed",
			   store->job, store->path, (unsigned long long)newest,
			   (unsigned long long)own);
}

int store_check_term(struct store *store, uint64_t own, struct problem *problem)
{
	struct object_list list;
	uint64_t newest;
	int err = store_list(store, &list, problem);

	if (err)
		return err;
	newest = list_newest_term(&list);
	free(list.ids);
	if (!newest)
		return problem_set(problem, ENOENT,
				   "term %llu of job %s is not in the store %s any more: it was removed, "
				   "or another store is mounted there; nothing is committed",
				   (unsigned long long)own, store->job, store->path);
	return newest != own ? term_stale(store, own, newest, problem) : 0;
}

static int term_write(struct store *store, const struct object_id *id, const struct term *term,
		      struct problem *problem)
{
	struct block_codec *codec = term_codec(store, problem);
	struct block_header header = { .kind = BLOCK_OF_TERM, .last = true,
				       .content_length = TERM_BYTES };
	struct object_writer writer;
	uint8_t plain[TERM_BYTES];
	int err = codec ? object_create(&writer, store, id, problem) : -ENOMEM;

	if (codec) {
		memcpy(plain, term->node, sizeof(term->node));
		memcpy(plain + TERM_NODE_BYTES, term->base, sizeof(term->base));
		if (!err)
			err = object_add(&writer, codec, &header, plain, problem);
		if (!err)
			err = object_finish(&writer, 0, problem);
		if (!err)
			err = object_publish(&writer, problem);
		object_discard(&writer);
	}
	block_codec_destroy(codec);
	return err;
}

static int term_fill(const struct store *store, struct term *term, const struct term *previous,
		     const char *node, const char *base, struct problem *problem)
{
	struct object_id id;

	*term = (struct term){ .number = previous->number + 1 };
	if (!term->number || strlen(node) >= sizeof(term->node) ||
	    strlen(base) >= sizeof(term->base) || !base_valid(base, term->number, &id))
		return problem_set(problem, EINVAL,
				   "term %llu of job %s cannot be taken by node '%s' from checkpoint '%s': "
				   "a name is bad", (unsigned long long)term->number, store->job, node,
				   base);
	strcpy(term->node, node);
	strcpy(term->base, base);
	return 0;
}

static int term_lost(const struct store *store, uint64_t number, struct problem *problem)
{
	return problem_set(problem, EEXIST,
			   "job %s was taken by another node at the same time (term %llu in %s)",
			   store->job, (unsigned long long)number, store->path);
}

int store_take_term(struct store *store, const struct term *previous, const char *node,
		    const char *base, struct term *taken, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_id id = { .kind = OBJECT_TERM, .term = previous->number + 1 };
	struct term term;
	int err = term_fill(store, &term, previous, node, base, problem);

	if (!err)
		err = store_enter(store, &caller, problem);
	if (!err)
		err = term_write(store, &id, &term, problem);
	/* ENOENT: the owner that was faster has cleaned up what we were writing. */
	if (err == -EEXIST || (err == -ENOENT && store_check_term(store, id.term - 1, NULL) == -ESTALE))
		return term_lost(store, id.term, problem);
	if (err)
		return err;
	/* The number may be one that was used and cleaned since previous was read. */
	err = store_check_term(store, id.term, problem);
	if (err) {
		store_remove(store, &id, NULL);
		return err == -ESTALE ? term_lost(store, id.term, problem) : err;
	}
	*taken = term;
	return 0;
}

static int touch_term(struct store *store, const struct term *own, bool ended,
		      struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_id id = { .kind = OBJECT_TERM, .term = own->number };
	char name[OBJECT_NAME_MAX];
	int err = store_enter(store, &caller, problem);

	if (err)
		return err;
	err = store_check_term(store, own->number, problem);
	if (err)
		return err;
	object_name(name, &id);
	err = store->backend->kind->renew(store->backend, name, ended);
	return err ? store_problem(store, problem, -err, "change the lease", name) : 0;
}

int store_renew_term(struct store *store, const struct term *own, struct problem *problem)
{
	return touch_term(store, own, false, problem);
}

/* As old as a lease can be: nobody waits for it. */
int store_release_term(struct store *store, const struct term *own, struct problem *problem)
{
	return touch_term(store, own, true, problem);
}

/* ---- the chain ---- */

static bool list_has(const struct object_list *list, const struct object_id *id)
{
	return bsearch(id, list->ids, list->count, sizeof(*list->ids), object_compare);
}

/* Appends the manifests of the term up to a number, newest first. */
static void chain_add(struct object_list *chain, const struct object_list *list, uint64_t term,
		      uint64_t up_to)
{
	size_t i = list->count;

	while (i--)
		if (list->ids[i].kind == OBJECT_MANIFEST && list->ids[i].term == term &&
		    list->ids[i].number <= up_to)
			chain->ids[chain->count++] = list->ids[i];
}

/* *term and *up_to become those of the term's base; 0 when it has none. */
static int chain_step(struct store *store, uint64_t *term, uint64_t *up_to,
		      struct problem *problem)
{
	struct object_id base;
	struct term content;
	int64_t modified_ns;
	int err = term_read(store, *term, &content, &modified_ns, problem);

	if (err)
		return err;
	base_valid(content.base, *term, &base);
	*term = base.term;
	*up_to = base.number;
	return 0;
}

int store_chain(struct store *store, const struct object_list *list, struct object_list *chain,
		struct problem *problem)
{
	uint64_t newest = list_newest_term(list), term = newest, up_to = UINT64_MAX;
	struct object_id id = { .kind = OBJECT_TERM };
	int err = 0;

	chain->count = 0;
	chain->ids = calloc(list->count + 1, sizeof(*chain->ids));
	if (!chain->ids)
		return problem_set(problem, ENOMEM, "no memory to list %s", store->path);
	while (term && !err) {
		chain_add(chain, list, term, up_to);
		id.term = term;
		if (!list_has(list, &id))
			break; /* cleaned, with all that is older */
		err = chain_step(store, &term, &up_to, problem);
	}
	return err;
}

static int copy_names(const struct object_list *chain, char ***names, size_t *count)
{
	char name[OBJECT_NAME_MAX];

	*names = calloc(chain->count + 1, sizeof(**names));
	if (!*names)
		return -ENOMEM;
	for (*count = 0; *count < chain->count; (*count)++) {
		object_name(name, &chain->ids[*count]);
		(*names)[*count] = strdup(name);
		if (!(*names)[*count])
			return -ENOMEM;
	}
	return 0;
}

/* What is newer than a damaged term object can still be restored. */
static int list_chain(struct store *store, const struct object_list *list,
		      struct object_list *chain, struct problem *problem)
{
	struct problem damage;
	int err = store_chain(store, list, chain, &damage);

	if (err == -EBADMSG && chain->count) {
		log_warn("checkpoints from before it are not listed: %s", damage.text);
		return 0;
	}
	if (err == -EBADMSG)
		return problem_set(problem, EBADMSG,
				   "%s. It says which checkpoint is to be restored. If the job runs on no other "
				   "node, remove that file: then the newest checkpoint is restored", damage.text);
	return err ? problem_set(problem, -err, "%s", damage.text) : 0;
}

int store_list_checkpoints(struct store *store, char ***names, size_t *count,
			   struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_list list = { 0 }, chain = { 0 };
	int err = store_enter(store, &caller, problem);

	*names = NULL;
	*count = 0;
	if (!err)
		err = store_list(store, &list, problem);
	if (!err)
		err = list_chain(store, &list, &chain, problem);
	if (!err && copy_names(&chain, names, count)) {
		while (*names && *count)
			free((*names)[--*count]);
		free(*names);
		*names = NULL;
		err = problem_set(problem, ENOMEM, "no memory to list %s", store->path);
	}
	free(list.ids);
	free(chain.ids);
	return err;
}
