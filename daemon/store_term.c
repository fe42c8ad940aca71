// SPDX-License-Identifier: GPL-2.0
/*
 * Terms and the chain of checkpoints.  The content of a term object is one block:
 *
 *    0  u8[64]  node, zero-terminated
 *   64  u8[64]  base: name of a manifest of an older term, or empty; zero-terminated
 *
 * It is valid if and only if (1) its length is 128; (2) both texts end in a zero; (3) base is empty or
 * the name of a manifest whose term is less than this one.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "faults.h"
#include "log.h"
#include "object.h"

#define TERM_BYTES 128
_Static_assert(sizeof(((struct term *)0)->node) + sizeof(((struct term *)0)->base) == TERM_BYTES,
	       "content of a term object");

/* The time of the server, not of this node. */
static const struct timespec lease_now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };

/* What reading or writing a small object takes. */
struct workspace {
	struct block_codec *codec;
	uint8_t *plain;
	uint8_t *buffer;
};

static int workspace_create(struct workspace *workspace, const struct store *store,
			    struct problem *problem)
{
	workspace->codec = block_codec_create(store->compression);
	workspace->plain = malloc(BLOCK_PLAIN_BYTES);
	workspace->buffer = malloc(BLOCK_STORED_MAX);
	if (workspace->codec && workspace->plain && workspace->buffer)
		return 0;
	return problem_set(problem, ENOMEM, "no memory for the terms of %s", store->path);
}

static void workspace_destroy(struct workspace *workspace)
{
	block_codec_destroy(workspace->codec);
	free(workspace->plain);
	free(workspace->buffer);
}

#define cleanup_workspace __attribute__((cleanup(workspace_destroy)))

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
	    plain[63] || plain[127] ||
	    reader->length != OBJECT_HEADER_BYTES + block_stored(header))
		return store_damaged(reader->store, problem, reader->name,
				     "its content is not that of a term");
	memcpy(term->node, plain, sizeof(term->node));
	memcpy(term->base, plain + 64, sizeof(term->base));
	if (!base_valid(term->base, reader->id.term, &base))
		return store_damaged(reader->store, problem, reader->name,
				     "its base is not an older checkpoint");
	return 0;
}

static int term_read(struct store *store, uint64_t number, struct term *term,
		     int64_t *modified_ns, struct problem *problem)
{
	struct object_id id = { .kind = OBJECT_TERM, .term = number };
	cleanup_workspace struct workspace workspace = { 0 };
	struct block_header header;
	struct object_reader reader;
	uint32_t stored;
	int err = workspace_create(&workspace, store, problem);

	if (!err)
		err = object_open(&reader, store, &id, problem);
	if (err)
		return err;
	err = object_read_next(&reader, workspace.codec, OBJECT_HEADER_BYTES, &stored,
			       workspace.buffer, &header, workspace.plain, problem);
	if (!err)
		err = term_unpack(&reader, &header, workspace.plain, term, problem);
	term->number = number;
	*modified_ns = reader.modified_ns;
	object_close(&reader);
	return err;
}

int store_server_time(struct store *store, uint64_t term, int64_t *now_ns, struct problem *problem)
{
	struct object_id id = { .kind = OBJECT_MANIFEST, .term = term };
	struct object_writer writer;
	struct stat stat = { 0 };
	int err = object_create(&writer, store, &id, problem);

	if (!err && (futimens(writer.fd, lease_now) || fstat(writer.fd, &stat)))
		err = store_problem(store, problem, errno, "ask the time of", writer.unfinished);
	object_discard(&writer);
	*now_ns = stat.st_mtim.tv_sec * 1000000000LL + stat.st_mtim.tv_nsec;
	return err;
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
		err = term_read(store, newest, term, &modified_ns, problem);
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
	cleanup_workspace struct workspace workspace = { 0 };
	struct block_header header = { .kind = BLOCK_OF_TERM, .last = true,
				       .content_length = TERM_BYTES };
	struct object_writer writer;
	int err = workspace_create(&workspace, store, problem);

	if (err)
		return err;
	memcpy(workspace.plain, term->node, sizeof(term->node));
	memcpy(workspace.plain + 64, term->base, sizeof(term->base));
	err = object_create(&writer, store, id, problem);
	if (!err)
		err = object_add(&writer, workspace.codec, &header, workspace.plain, problem);
	if (!err)
		err = object_finish(&writer, 0, problem);
	if (!err)
		err = object_publish(&writer, problem);
	object_discard(&writer);
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

static int touch_term(struct store *store, const struct term *own, const struct timespec times[2],
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
	err = try_call("store.renew", utimensat(store->fd, name, times, AT_SYMLINK_NOFOLLOW));
	return err ? store_problem(store, problem, -err, "change the lease", name) : 0;
}

int store_renew_term(struct store *store, const struct term *own, struct problem *problem)
{
	return touch_term(store, own, lease_now, problem);
}

int store_release_term(struct store *store, const struct term *own, struct problem *problem)
{
	/* As old as a lease can be: nobody waits for it. */
	static const struct timespec long_ago[2] = { { 0, UTIME_OMIT }, { 1, 0 } };

	return touch_term(store, own, long_ago, problem);
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
