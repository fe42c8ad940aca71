// SPDX-License-Identifier: GPL-2.0
#include "store_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "segment.h"

#define SEGMENT_BYTES (16u << 20)

/* ---- the store user's identity ---- */

int store_enter(const struct store *store, struct identity *caller, struct problem *problem)
{
	if (!identity_enter(caller, store->uid, store->gid))
		return 0;
	return problem_set(problem, EPERM,
			   "cannot use the store as user %u, group %u: ckptd runs as user %u without "
			   "CAP_SETUID and CAP_SETGID", store->uid, store->gid, geteuid());
}

/* ---- what went wrong, in words ---- */

static const char *remedy(const struct store *store, int err, char *text, size_t length)
{
	switch (err) {
	case ENOSPC:
		return "the store is full: free space, enlarge it, or keep fewer checkpoints";
	case EDQUOT:
		snprintf(text, length, "raise the disk quota of user %u or keep fewer checkpoints",
			 store->uid);
		return text;
	case EROFS:
		return "the store is mounted read-only: mount it read-write";
	case ESTALE:
		return "the server no longer knows this directory: mount the store again";
	case EACCES:
	case EPERM:
		snprintf(text, length, "user %u, group %u (store_user, or else the job's own) must own the "
			 "directory or be allowed to write it: chown or chmod it", store->uid, store->gid);
		return text;
	case EIO:
		return "look for errors of the disk or the server in the kernel log";
	case ENOENT:
		return "it was removed, or the store is not mounted";
	case EEXIST:
		return "another owner of the job wrote it";
	case EOPNOTSUPP:
		return "the file system has neither hard links nor renameat2(RENAME_NOREPLACE), so a job "
		       "cannot be owned safely: use another one for the store";
	}
	return "see errno(3)";
}

int store_problem(const struct store *store, struct problem *problem, int err,
		  const char *operation, const char *name)
{
	char text[160];

	return problem_set(problem, err, "cannot %s %s%s%s: %s; %s", operation, store->path,
			   *name ? "/" : "", name, strerror(err),
			   remedy(store, err, text, sizeof(text)));
}

int store_damaged(const struct store *store, struct problem *problem, const char *name,
		  const char *format, ...)
{
	char what[256];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return problem_set(problem, EBADMSG,
			   "%s/%s is damaged or was tampered with: %s; check the storage", store->path,
			   name, what);
}

/* ---- names ---- */

void object_name(char name[OBJECT_NAME_MAX], const struct object_id *id)
{
	switch (id->kind) {
	case OBJECT_TERM:
		snprintf(name, OBJECT_NAME_MAX, "term-%016" PRIx64, id->term);
		break;
	case OBJECT_SEGMENT:
		snprintf(name, OBJECT_NAME_MAX, "seg-%016" PRIx64 "-%016" PRIx64, id->term,
			 id->number);
		break;
	case OBJECT_MANIFEST:
		snprintf(name, OBJECT_NAME_MAX, "manifest-%016" PRIx64 "-%016" PRIx64, id->term,
			 id->number);
		break;
	case OBJECT_UNFINISHED:
		snprintf(name, OBJECT_NAME_MAX, "tmp.%016" PRIx64 ".%016" PRIx64 ".%016" PRIx64,
			 id->term, id->instance, id->number);
		break;
	}
}

static bool starts_with(const char *text, const char *start)
{
	return !strncmp(text, start, strlen(start));
}

/* Parses loosely; the name is an object's when it is exactly what its parts give. */
bool object_parse(const char *name, struct object_id *id)
{
	char again[OBJECT_NAME_MAX];

	*id = (struct object_id){ 0 };
	if (starts_with(name, "term-")) {
		id->kind = OBJECT_TERM;
		sscanf(name, "term-%16" SCNx64, &id->term);
	} else if (starts_with(name, "seg-")) {
		id->kind = OBJECT_SEGMENT;
		sscanf(name, "seg-%16" SCNx64 "-%16" SCNx64, &id->term, &id->number);
	} else if (starts_with(name, "manifest-")) {
		id->kind = OBJECT_MANIFEST;
		sscanf(name, "manifest-%16" SCNx64 "-%16" SCNx64, &id->term, &id->number);
	} else if (starts_with(name, "tmp.")) {
		id->kind = OBJECT_UNFINISHED;
		sscanf(name, "tmp.%16" SCNx64 ".%16" SCNx64 ".%16" SCNx64, &id->term,
		       &id->instance, &id->number);
	} else {
		return false;
	}
	object_name(again, id);
	return !strcmp(name, again);
}

static int compare_numbers(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

int object_compare(const void *a, const void *b)
{
	const struct object_id *first = a, *second = b;

	if (first->kind != second->kind)
		return compare_numbers(first->kind, second->kind);
	if (first->term != second->term)
		return compare_numbers(first->term, second->term);
	if (first->number != second->number)
		return compare_numbers(first->number, second->number);
	return compare_numbers(first->instance, second->instance);
}

static pthread_mutex_t instance_lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t store_instance(void)
{
	static uint64_t instance;
	static pid_t of;

	pthread_mutex_lock(&instance_lock);
	if (of != getpid()) {
		seal_random(&instance, sizeof(instance));
		of = getpid();
	}
	pthread_mutex_unlock(&instance_lock);
	return instance;
}

/* ---- listing ---- */

struct lister {
	struct object_list *list;
	size_t space;
};

/* Names that are no object's are left alone. */
static int list_add(void *arg, const char *name)
{
	struct lister *lister = arg;
	struct object_list *list = lister->list;
	struct object_id *ids = list->ids, id;

	if (!object_parse(name, &id))
		return 0;
	if (list->count == lister->space) {
		lister->space = lister->space ? lister->space * 2 : 64;
		ids = realloc(ids, lister->space * sizeof(*ids));
		if (!ids)
			return -ENOMEM;
		list->ids = ids;
	}
	ids[list->count++] = id;
	return 0;
}

int store_list(struct store *store, struct object_list *list, struct problem *problem)
{
	struct lister lister = { .list = list };
	int err;

	*list = (struct object_list){ 0 };
	err = store->backend->kind->list(store->backend, list_add, &lister);
	if (err) {
		free(list->ids);
		*list = (struct object_list){ 0 };
		return store_problem(store, problem, -err, "list", "");
	}
	if (list->count)
		qsort(list->ids, list->count, sizeof(*list->ids), object_compare);
	return 0;
}

uint64_t list_newest_term(const struct object_list *list)
{
	uint64_t newest = 0;
	size_t i;

	for (i = 0; i < list->count; i++)
		if (list->ids[i].kind == OBJECT_TERM && list->ids[i].term > newest)
			newest = list->ids[i].term;
	return newest;
}

int store_next_number(struct store *store, uint64_t term, uint64_t *number,
		      struct problem *problem)
{
	struct object_list list = { 0 };
	size_t i;
	int err = 0;

	pthread_mutex_lock(&store->lock);
	if (store->numbered_term != term) {
		err = store_list(store, &list, problem);
		store->next_number = 1;
		store->numbered_term = err ? 0 : term;
	}
	for (i = 0; i < list.count; i++)
		if (list.ids[i].kind == OBJECT_SEGMENT && list.ids[i].term == term &&
		    list.ids[i].number >= store->next_number)
			store->next_number = list.ids[i].number + 1;
	*number = store->next_number++;
	pthread_mutex_unlock(&store->lock);
	free(list.ids);
	return err;
}

int store_remove(struct store *store, const struct object_id *id, struct problem *problem)
{
	char name[OBJECT_NAME_MAX];
	int err;

	object_name(name, id);
	err = store->backend->kind->remove(store->backend, name);
	return err ? store_problem(store, problem, -err, "remove", name) : 0;
}

int store_stat(struct store *store, const struct object_id *id, struct backend_stat *stat,
	       struct problem *problem)
{
	char name[OBJECT_NAME_MAX];
	int err;

	object_name(name, id);
	err = store->backend->kind->stat(store->backend, name, stat);
	return err ? store_problem(store, problem, -err, "stat", name) : 0;
}

void store_unfinished_name(char name[OBJECT_NAME_MAX], uint64_t term)
{
	struct object_id id = { .kind = OBJECT_UNFINISHED, .term = term,
				.instance = store_instance() };

	seal_random(&id.number, sizeof(id.number));
	object_name(name, &id);
}

/* ---- opening ---- */

static bool job_name_valid(const char *job)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t length = strlen(job);

	return length && length <= JOB_NAME_MAX && job[0] != '.' && strspn(job, allowed) == length;
}

/*
 * Forked processes share pages, so a checkpoint may have more of them than the node has; but the map of
 * 64 times as many, at 22 bytes each, takes a third of its memory.
 */
static uint64_t node_pages_max(void)
{
	return 64ull * (uint64_t)sysconf(_SC_PHYS_PAGES);
}

static void keys_set(struct store *store, const struct keys *keys)
{
	unsigned int i;

	for (i = 0; i < keys->count; i++) {
		seal_job_key(store->keys[i].job_key, keys->list[i], store->job);
		seal_check_value(store->keys[i].check, keys->list[i]);
	}
	store->key_count = keys->count;
}

static int store_set(struct store *store, const struct store_options *options, const char *job,
		     struct problem *problem)
{
	int err;

	store->uid = options->uid;
	store->gid = options->gid;
	store->buffer_bytes = options->buffer_bytes;
	store->segment_bytes = SEGMENT_BYTES;
	store->pages_max = options->pages_max ? options->pages_max : node_pages_max();
	store->job = strdup(job);
	if (!store->job || asprintf(&store->path, "%s/%s", options->directory, job) < 0)
		return problem_set(problem, ENOMEM, "no memory to open the store of job %s", job);
	err = compression_parse(&store->compression, options->compress, problem);
	if (err)
		return err;
	err = seal_init(problem);
	if (!err)
		err = seal_parse(&store->algorithm, options->seal, problem);
	if (!err)
		keys_set(store, options->keys);
	return err;
}

int store_open(struct store **opened, const struct store_options *options, const char *job,
	       struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct store *store;
	int err;

	if (!job_name_valid(job))
		return problem_set(problem, EINVAL,
				   "'%s' is no name of a job: want letters, digits, '.', '_' and '-', at "
				   "most %d", job, JOB_NAME_MAX);
	store = calloc(1, sizeof(*store));
	if (!store)
		return problem_set(problem, ENOMEM, "no memory to open the store of job %s", job);
	store->backend = options->backend;
	pthread_mutex_init(&store->lock, NULL);
	err = store_set(store, options, job, problem);
	if (!err)
		err = store_enter(store, &caller, problem);
	if (!err && !store->backend)
		err = backend_file_open(&store->backend, store, options, problem);
	if (err)
		store_close(store);
	else
		*opened = store;
	return err;
}

void store_close(struct store *store)
{
	struct segment *segment;

	if (!store)
		return;
	for (segment = store->segments; segment; segment = segment->next)
		segment->store = NULL;
	if (store->backend)
		store->backend->kind->close(store->backend);
	pthread_mutex_destroy(&store->lock);
	seal_wipe(store->keys, sizeof(store->keys));
	free(store->path);
	free(store->job);
	free(store);
}

size_t store_segment_bytes(const struct store *store)
{
	return store->segment_bytes;
}

void store_describe_writes(const struct store *store, char text[128])
{
	int err = __atomic_load_n(&store->direct_err, __ATOMIC_RELAXED);

	text[0] = '\0';
	if (err)
		snprintf(text, 128, "through the page cache: no O_DIRECT (%.60s)", strerror(-err));
	else if (__atomic_load_n(&store->direct_written, __ATOMIC_RELAXED))
		snprintf(text, 128, "direct (O_DIRECT)");
}
