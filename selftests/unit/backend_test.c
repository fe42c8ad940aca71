// SPDX-License-Identifier: GPL-2.0
/*
 * What every backend must do, asked of each: the promises of backend.h one after the other, and a job's
 * life on top of it.  A new backend is a new pair of setup and teardown here.
 */
#include <pthread.h>

#define MODEL_PAGES 100
#include "store_fixture.h"
#include "store_private.h"

#define BIG (5u << 20)

static struct store *store;
static const struct backend_kind *kind;
static struct backend *backend;

static void open_place(void)
{
	store = open_store();
	backend = store->backend;
	kind = backend->kind;
}

static int setup_file(void **state)
{
	int err = directory_create(state);

	open_place();
	return err;
}

static int teardown_file(void **state)
{
	store_close(store);
	return directory_remove(state);
}

static int setup_memory(void **state)
{
	int err = memory_create(state);

	open_place();
	return err;
}

static int teardown_memory(void **state)
{
	store_close(store);
	return memory_clear(state);
}

/* ---- short forms ---- */

static void begin(struct backend_put *put, const char *name)
{
	char unfinished[OBJECT_NAME_MAX];

	store_unfinished_name(unfinished, 1);
	assert_ok(kind->put_begin(backend, name, unfinished, put));
}

static int put(const char *name, const void *data, size_t length)
{
	struct backend_put one;
	int err;

	begin(&one, name);
	assert_ok(kind->put_write(&one, data, length, 0));
	assert_ok(kind->put_finish(&one, length));
	err = kind->put_commit(&one);
	kind->put_end(&one);
	return err;
}

static void assert_content(const char *name, const void *data, size_t length)
{
	uint8_t *found = malloc(length + 1);
	struct backend_object object;

	assert_ok(kind->open(backend, name, &object));
	assert_int_equal(object.length, length);
	assert_int_equal(kind->read(&object, found, length + 1, 0), length);
	assert_memory_equal(found, data, length);
	kind->close_object(&object);
	free(found);
}

static void assert_absent(const char *name)
{
	struct backend_object object;
	struct backend_stat stat;

	assert_err(kind->open(backend, name, &object), ENOENT);
	assert_err(kind->stat(backend, name, &stat), ENOENT);
}

struct count {
	const char *start;
	unsigned int count;
};

static int count_one(void *arg, const char *name)
{
	struct count *count = arg;

	count->count += !strncmp(name, count->start, strlen(count->start));
	return 0;
}

static unsigned int listed(const char *start)
{
	struct count count = { .start = start };

	assert_ok(kind->list(backend, count_one, &count));
	return count.count;
}

static uint8_t *make_big(void)
{
	uint8_t *big = malloc(BIG);

	seed_fill(8, big, BIG);
	return big;
}

/* ---- puts ---- */

static void test_put(void **state)
{
	uint8_t *big = make_big();

	assert_ok(put("a", "content", 7));
	assert_ok(put("b", big, BIG));
	assert_ok(put("seg-0000000000000001-0000000000000002", "", 0));
	assert_content("a", "content", 7);
	assert_content("b", big, BIG);
	assert_content("seg-0000000000000001-0000000000000002", "", 0);
	assert_int_equal(listed(""), 3);
	free(big);
}

static void test_not_before_commit(void **state)
{
	struct backend_put one;

	begin(&one, "a");
	assert_absent("a");
	assert_ok(kind->put_write(&one, "content", 7, 0));
	assert_absent("a");
	assert_ok(kind->put_finish(&one, 7));
	assert_absent("a");
	assert_int_equal(listed("a"), 0);
	assert_ok(kind->put_commit(&one));
	assert_content("a", "content", 7);
	assert_int_equal(listed("a"), 1);
	kind->put_end(&one);
	assert_content("a", "content", 7);
	assert_int_equal(listed(""), 1);
}

/* Ended at each of its steps. */
static void test_no_commit(void **state)
{
	struct backend_put one;
	unsigned int steps;

	for (steps = 0; steps < 3; steps++) {
		begin(&one, "a");
		if (steps > 0)
			assert_ok(kind->put_write(&one, "content", 7, 0));
		if (steps > 1)
			assert_ok(kind->put_finish(&one, 7));
		kind->put_end(&one);
		assert_absent("a");
		assert_int_equal(listed(""), 0);
	}
}

static void test_wrong_length(void **state)
{
	struct backend_put one;

	begin(&one, "a");
	assert_ok(kind->put_write(&one, "content", 7, 0));
	assert_err(kind->put_finish(&one, 8), EIO);
	kind->put_end(&one);
	assert_absent("a");
}

static void test_no_replacing(void **state)
{
	struct backend_put one;

	begin(&one, "a");
	assert_ok(kind->put_write(&one, "mine", 4, 0));
	assert_ok(kind->put_finish(&one, 4));
	assert_ok(put("a", "other", 5));
	assert_err(kind->put_commit(&one), EEXIST);
	kind->put_end(&one);
	assert_content("a", "other", 5);
	assert_err(put("a", "third", 5), EEXIST);
	assert_content("a", "other", 5);
	assert_int_equal(listed(""), 1);
}

static void test_any_order(void **state)
{
	uint8_t *big = make_big();
	struct backend_put one;
	size_t part = 100000, at, count = (BIG + part - 1) / part, i;

	begin(&one, "a");
	for (i = 0; i < count; i++) {
		at = (i * 17 % count) * part;
		assert_ok(kind->put_write(&one, big + at, at + part < BIG ? part : BIG - at, at));
	}
	assert_ok(kind->put_finish(&one, BIG));
	assert_ok(kind->put_commit(&one));
	kind->put_end(&one);
	assert_content("a", big, BIG);
	free(big);
}

#define WRITERS 4

struct writer {
	pthread_t thread;
	struct backend_put *put;
	const uint8_t *data;
	size_t first;
	int err;
};

static void *write_part(void *arg)
{
	struct writer *writer = arg;
	size_t part = 65536, at;

	for (at = writer->first * part; at < BIG && !writer->err; at += WRITERS * part)
		writer->err = kind->put_write(writer->put, writer->data + at,
					      at + part < BIG ? part : BIG - at, at);
	return NULL;
}

static void test_several_threads(void **state)
{
	struct writer writers[WRITERS];
	uint8_t *big = make_big();
	struct backend_put one;
	unsigned int i;

	begin(&one, "a");
	for (i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ .put = &one, .data = big, .first = i };
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_part, &writers[i]),
				 0);
	}
	for (i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		assert_int_equal(writers[i].err, 0);
	}
	assert_ok(kind->put_finish(&one, BIG));
	assert_ok(kind->put_commit(&one));
	kind->put_end(&one);
	assert_content("a", big, BIG);
	free(big);
}

/* ---- one name, several nodes ---- */

struct racer {
	pthread_t thread;
	struct store *node;
	unsigned int number;
	int err;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	struct backend *own = racer->node->backend;
	char unfinished[OBJECT_NAME_MAX];
	struct backend_put one;
	uint8_t content = racer->number;

	store_unfinished_name(unfinished, 1);
	racer->err = own->kind->put_begin(own, "prize", unfinished, &one);
	if (racer->err)
		return NULL;
	racer->err = own->kind->put_write(&one, &content, 1, 0);
	if (!racer->err)
		racer->err = own->kind->put_finish(&one, 1);
	if (!racer->err)
		racer->err = own->kind->put_commit(&one);
	own->kind->put_end(&one);
	return NULL;
}

static void test_one_wins(void **state)
{
	struct racer racers[WRITERS];
	unsigned int round, i, winner;
	uint8_t content;

	for (i = 0; i < WRITERS; i++)
		racers[i] = (struct racer){ .node = open_store(), .number = i };
	for (round = 0; round < 30; round++) {
		for (i = 0; i < WRITERS; i++)
			pthread_create(&racers[i].thread, NULL, race, &racers[i]);
		for (i = 0, winner = WRITERS; i < WRITERS; i++) {
			pthread_join(racers[i].thread, NULL);
			if (!racers[i].err && winner == WRITERS)
				winner = i;
			else if (racers[i].err != -EEXIST)
				fail_msg("racer %u got %d", i, racers[i].err);
		}
		assert_true(winner < WRITERS);
		content = winner;
		assert_content("prize", &content, 1);
		assert_int_equal(listed(""), 1);
		assert_ok(kind->remove(backend, "prize"));
	}
	for (i = 0; i < WRITERS; i++)
		store_close(racers[i].node);
}

static void test_seen_by_others(void **state)
{
	struct store *other = open_store(), *own = store;

	assert_ok(put("a", "content", 7));
	store = other;
	backend = other->backend;
	assert_content("a", "content", 7);
	assert_int_equal(listed("a"), 1);
	assert_ok(kind->remove(backend, "a"));
	store = own;
	backend = own->backend;
	assert_absent("a");
	assert_int_equal(listed("a"), 0);
	store_close(other);
}

/* ---- reading, listing, removing ---- */

static void test_read(void **state)
{
	uint8_t *big = make_big(), *found = malloc(BIG);
	struct backend_object object;
	size_t offset;

	assert_ok(put("a", big, BIG));
	assert_ok(kind->open(backend, "a", &object));
	kind->announce(&object, 0, BIG);
	for (offset = 0; offset < BIG; offset += 333333) {
		assert_int_equal(kind->read(&object, found, 1000, offset),
				 offset + 1000 < BIG ? 1000 : BIG - offset);
		assert_memory_equal(found, big + offset,
				    offset + 1000 < BIG ? 1000 : BIG - offset);
	}
	assert_int_equal(kind->read(&object, found, 100, BIG - 50), 50);
	assert_int_equal(kind->read(&object, found, 100, BIG), 0);
	assert_int_equal(kind->read(&object, found, 100, BIG + 1000), 0);
	kind->close_object(&object);
	free(found);
	free(big);
}

static void test_read_removed(void **state)
{
	struct backend_object object;
	char found[8] = "";
	ssize_t got;

	assert_ok(put("a", "content", 7));
	assert_ok(kind->open(backend, "a", &object));
	assert_ok(kind->remove(backend, "a"));
	assert_absent("a");
	assert_ok(put("a", "another", 7));
	got = kind->read(&object, found, 7, 0);
	if (got >= 0) {
		assert_int_equal(got, 7);
		assert_string_equal(found, "content");
	}
	kind->close_object(&object);
	assert_content("a", "another", 7);
}

static void test_list(void **state)
{
	char name[OBJECT_NAME_MAX];
	struct backend_put one;
	unsigned int i;

	assert_int_equal(listed(""), 0);
	for (i = 0; i < 1500; i++) {
		sprintf(name, "seg-%016x-%016x", i % 3, i);
		assert_ok(put(name, name, i % 40));
	}
	assert_int_equal(listed("seg-"), 1500);
	assert_int_equal(listed("seg-0000000000000001"), 500);
	begin(&one, "b");
	assert_int_equal(listed("b"), 0);
	/* It need not be named while it is put; when it is, it can be removed by that name. */
	assert_true(listed("tmp.") <= 1);
	kind->put_end(&one);
	assert_int_equal(listed("tmp."), 0);
	for (i = 0; i < 1500; i += 2) {
		sprintf(name, "seg-%016x-%016x", i % 3, i);
		assert_ok(kind->remove(backend, name));
	}
	assert_int_equal(listed(""), 750);
}

static void test_remove(void **state)
{
	assert_ok(kind->remove(backend, "a"));
	assert_ok(put("a", "content", 7));
	assert_ok(put("b", "content", 7));
	assert_err(kind->retire(backend), ENOTEMPTY);
	assert_ok(kind->remove(backend, "a"));
	assert_ok(kind->remove(backend, "a"));
	assert_absent("a");
	assert_content("b", "content", 7);
	assert_ok(kind->remove(backend, "b"));
	assert_ok(kind->retire(backend));
}

/* ---- times ---- */

static void ask_time(int64_t *now_ns)
{
	char unfinished[OBJECT_NAME_MAX];

	store_unfinished_name(unfinished, 1);
	assert_ok(kind->time(backend, unfinished, now_ns));
	assert_int_equal(listed("tmp."), 0);
}

/* A second is the coarsest that a server may be. */
#define COARSE_NS 1000000000LL

static void test_times(void **state)
{
	int64_t before, after;
	struct backend_stat stat;
	struct backend_object object;

	ask_time(&before);
	assert_ok(put("a", "content", 7));
	ask_time(&after);
	assert_true(after >= before);
	assert_ok(kind->stat(backend, "a", &stat));
	assert_int_equal(stat.length, 7);
	assert_true(stat.modified_ns >= before - COARSE_NS && stat.modified_ns <= after + COARSE_NS);
	assert_ok(kind->renew(backend, "a", true));
	assert_ok(kind->stat(backend, "a", &stat));
	assert_true(stat.modified_ns < before - 3600 * COARSE_NS);
	assert_ok(kind->renew(backend, "a", false));
	ask_time(&after);
	assert_ok(kind->open(backend, "a", &object));
	assert_true(object.modified_ns >= before - COARSE_NS &&
		    object.modified_ns <= after + COARSE_NS);
	kind->close_object(&object);
	assert_content("a", "content", 7);
	assert_err(kind->renew(backend, "b", false), ENOENT);
	assert_absent("b");
}

/* ---- a job's life ---- */

static void assert_newest(const struct model *model)
{
	struct manifest *manifest;
	char **names;
	size_t count;

	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	assert_true(count > 0);
	assert_ok(manifest_read(store, names[0], &manifest, &problem));
	assert_ok(model_check(model, store, manifest));
	assert_ok(manifest_verify(store, manifest, &problem));
	free_names(names, count);
	manifest_free(manifest);
}

static void test_life(void **state)
{
	static struct model none, model, next;
	struct term own, previous;
	struct pagemap *map = pagemap_create();
	uint64_t random = 5, used, owner, sequence;
	char name[64] = "";

	memset(&model, 0, sizeof(model));
	for (owner = 1; owner <= 3; owner++) {
		assert_ok(store_read_term(store, &previous, &problem));
		assert_int_equal(previous.number, owner - 1);
		assert_ok(store_take_term(store, &previous, "node", name, &own, &problem));
		assert_err(store_take_term(store, &previous, "late", name, &previous, &problem), EEXIST);
		for (sequence = 1; sequence <= 4; sequence++) {
			next = model;
			model_change(&next, &random, 8);
			assert_ok(model_commit(owner * sequence == 1 ? &none : &model, &next, store, &own,
					       map, sequence, name));
			model = next;
			assert_newest(&model);
			assert_ok(store_renew_term(store, &own, &problem));
			assert_ok(store_clean(store, &own, 2, map, &used, &problem));
			assert_in_range(listed("manifest-"), 1, 2);
			assert_int_equal(listed("tmp."), 0);
			assert_newest(&model);
		}
		assert_ok(store_release_term(store, &own, &problem));
		assert_ok(store_read_term(store, &previous, &problem));
		assert_true(previous.age_ms > TERM_LEASE_MS);
	}
	pagemap_destroy(map);
	assert_ok(store_retire(store, &own, &problem));
	assert_int_equal(in_memory ? listed("") : 0, 0);
}

/* Of which much is written before its header. */
static void test_large_segment(void **state)
{
	static struct model none, large = { .file_seed = 8, .file_bytes = BIG };
	struct pagemap *map = pagemap_create();
	struct term own = take_term(store, "");
	char name[64];

	assert_ok(model_commit(&none, &large, store, &own, map, 1, name));
	assert_newest(&large);
	pagemap_destroy(map);
}

#define rows(place)                                                                                \
	row(test_put, place), row(test_not_before_commit, place), row(test_no_commit, place),     \
		row(test_wrong_length, place), row(test_no_replacing, place),                      \
		row(test_any_order, place), row(test_several_threads, place),                      \
		row(test_one_wins, place), row(test_seen_by_others, place), row(test_read, place), \
		row(test_read_removed, place), row(test_list, place), row(test_remove, place),     \
		row(test_times, place), row(test_life, place), row(test_large_segment, place)
#define row(test, place)                                                                           \
	{ #place " " #test, test, setup_##place, teardown_##place, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		rows(file),
		rows(memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
