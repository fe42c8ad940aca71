// SPDX-License-Identifier: GPL-2.0
/*
 * A job's owner dies, or has one call fail, at each fault point in turn: what was committed last is
 * restored bit for bit, the next owner goes on, and nothing is left behind.
 *
 * With CKPT_TEST_POWER, a command, it runs in CKPT_TEST_DIRECTORY, on a disk, and the power goes with the
 * owner: the command takes what was not synced from the disk and mounts it again. See unsynced.sh.
 * CKPT_TEST_STEP is 4: at every fourth point.
 */
#define MODEL_PAGES 24
#include "store_fixture.h"
#include "store_private.h"

#define CHECKPOINTS 2

static struct model models[CHECKPOINTS + 2]; /* [0] is committed before, the last one after */
static int *committed; /* shared with the child: models up to this one are durable */
static int restored; /* the model that own_job() found */

static void make_models(void)
{
	uint64_t state = 42;
	unsigned int i;

	memset(models, 0, sizeof(models));
	for (i = 0; i < CHECKPOINTS + 2; i++) {
		if (i)
			models[i] = models[i - 1];
		model_change(&models[i], &state, 5);
	}
}

static int commit(struct store *store, const struct term *own, struct pagemap *map,
		  uint64_t sequence, unsigned int m)
{
	static const struct model none;
	struct packed_file *file = NULL;
	struct packer *packer;
	char name[64], meta[16];
	struct manifest manifest = { .term = own->number, .sequence = sequence, .meta = meta,
				     .map = map, .files = &file, .file_count = 1 };
	unsigned int i, p;
	int err = packer_create(&packer, store, own, map, &problem);

	if (err)
		return err;
	snprintf(meta, sizeof(meta), "%u", m);
	/* All pages, as after a failure: those that are held cost nothing. */
	for (i = 0; i < MODEL_SPACES; i++)
		for (p = 0; p < MODEL_PAGES; p++)
			if (!models[m].seeds[i][p])
				space_forget(model_space(map, i), model_address(i, p),
					     model_address(i, p) + 4096);
	err = model_pack(&none, &models[m], map, packer);
	if (!err)
		err = model_pack_file(&models[m], packer, &file);
	if (!err)
		err = packer_commit(packer, NULL, &problem);
	if (err)
		packer_abort(packer);
	if (!err)
		err = manifest_commit(store, own, &manifest, name, &problem);
	packed_file_free(file);
	return err;
}

/* What can fail and is then done again, at most once as a fault fires once. */
#define again(call)                                                                                \
	({                                                                                         \
		int again_ = (call);                                                               \
		again_ ? (call) : 0;                                                               \
	})

static int read_newest(struct store *store, struct manifest **manifest, char base[64])
{
	char **names = NULL;
	size_t count = 0;
	int err = again(store_list_checkpoints(store, &names, &count, &problem));

	if (err)
		return err;
	assert_true(count > 0);
	strcpy(base, names[0]);
	err = again(manifest_read(store, names[0], manifest, &problem));
	free_names(names, count);
	return err;
}

static int read_and_take(struct store *store, const char *base, struct term *own)
{
	struct term previous;
	int err = store_read_term(store, &previous, &problem);

	return err ? err : store_take_term(store, &previous, "node", base, own, &problem);
}

static int check_content(struct store *store, struct manifest *manifest)
{
	return model_check(&models[atoi(manifest->meta)], store, manifest);
}

static int own_checkpoints(struct store *store, struct manifest *manifest, const char *base,
			   unsigned int first, unsigned int count)
{
	struct term own;
	uint64_t sequence = 0;
	unsigned int m;
	int err = again(check_content(store, manifest));

	restored = atoi(manifest->meta);
	if (!err)
		err = again(read_and_take(store, base, &own));
	for (m = first; m < first + count && !err; m++) {
		err = again(commit(store, &own, manifest->map, ++sequence, m));
		if (err)
			break;
		*committed = m;
		err = again(store_renew_term(store, &own, &problem));
		if (!err)
			err = again(store_clean(store, &own, 1, manifest->map, NULL, &problem));
	}
	return err;
}

/* An owner's life: restore, take over, commit, clean. */
static int own_job(unsigned int first, unsigned int count)
{
	struct store *store = NULL;
	struct manifest *manifest = NULL;
	char base[64];
	int err = 0;

	if (in_memory)
		store = open_store();
	else
		err = again(store_open(&store, &options, JOB, &problem));
	if (!err)
		err = read_newest(store, &manifest, base);
	if (!err)
		err = own_checkpoints(store, manifest, base, first, count);
	manifest_free(manifest);
	store_close(store);
	return err;
}

static void count_objects(struct store *store, unsigned int counts[OBJECT_UNFINISHED + 1])
{
	struct object_list list;
	size_t i;

	memset(counts, 0, sizeof(*counts) * (OBJECT_UNFINISHED + 1));
	assert_ok(store_list(store, &list, &problem));
	for (i = 0; i < list.count; i++)
		counts[list.ids[i].kind]++;
	free(list.ids);
}

/* Segments of a cleaned store are those that its one checkpoint and the map of its reader know. */
static void check_clean(void)
{
	unsigned int counts[OBJECT_UNFINISHED + 1];
	struct store *store = open_store();
	struct manifest *manifest;
	struct term own;
	char base[64];

	assert_ok(store_read_term(store, &own, &problem));
	assert_ok(read_newest(store, &manifest, base));
	assert_ok(manifest_verify(store, manifest, &problem));
	assert_int_equal(atoi(manifest->meta), CHECKPOINTS + 1);
	assert_ok(check_content(store, manifest));
	count_objects(store, counts);
	assert_int_equal(counts[OBJECT_MANIFEST], 1);
	assert_int_equal(counts[OBJECT_UNFINISHED], 0);
	assert_in_range(counts[OBJECT_SEGMENT], 1, CHECKPOINTS + 3);
	manifest_free(manifest);
	assert_ok(store_retire(store, &own, &problem));
	store_close(store);
	assert_int_equal(access(object_path(""), F_OK), -1);
}

static void first_checkpoint(void)
{
	struct store *store = open_store();
	struct pagemap *map = pagemap_create();
	struct term own = take_term(store, "");

	assert_ok(commit(store, &own, map, 1, 0));
	*committed = 0;
	pagemap_destroy(map);
	store_close(store);
}

/* ---- a directory: the process dies, or a system call fails ---- */

/* Whether the fault fired. */
static bool child_lives(const char *spec)
{
	pid_t child = fork();
	int status;

	if (!child) {
		log_set_level(LOG_CRIT);
		fault_arm(spec);
		if (own_job(1, CHECKPOINTS)) {
			fprintf(stderr, "%s: failed again: %s\n", spec, problem.text);
			_exit(1);
		}
		_exit(fault_fired() ? 3 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	if (!WIFEXITED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != 3))
		fail_msg("%s: the child ended with %#x", spec, status);
	return WEXITSTATUS(status) == 3;
}

/* The next owner restores what was committed last, and goes on. */
static void check_outcome(const char *spec)
{
	int before = *committed, err = own_job(CHECKPOINTS + 1, 1);

	if (restored != before && restored != before + 1)
		fail_msg("%s: %d was committed, %d is the newest", spec, before, restored);
	if (err)
		fail_msg("%s: checkpoint %d is not what was committed, or the next owner cannot go "
			 "on: %s", spec, restored, problem.text);
	check_clean();
}

static bool call_fails(const char *spec)
{
	bool fired;

	fault_arm(spec);
	if (own_job(1, CHECKPOINTS))
		fail_msg("%s: failed again: %s", spec, problem.text);
	fired = fault_fired();
	fault_arm(NULL);
	return fired;
}

/* Each action in turn, at one more place. */
static void sweep(bool (*live)(const char *spec), const char *const *actions, unsigned int count)
{
	unsigned int hit, places = 0;
	char spec[64];
	bool fired = true;

	for (hit = 1; fired && hit < 1000; hit += sweep_step()) {
		first_checkpoint();
		snprintf(spec, sizeof(spec), "*:%u=%s", hit, actions[hit % count]);
		fired = live(spec);
		check_outcome(spec);
		places += fired;
	}
	print_message("fired at %u places\n", places);
	assert_true(hit > 20 && hit < 1000);
}

static void test_kill(void **state)
{
	sweep(child_lives, (const char *const[]){ "kill" }, 1);
}

static void test_errors(void **state)
{
	sweep(call_fails, (const char *const[]){ "EIO", "ENOSPC", "ESTALE" }, 3);
}

/* ---- a disk: the power goes, and with it what was not synced ---- */

static bool power_stays(const char *spec)
{
	bool fired = child_lives(spec);

	if (fired && system(getenv("CKPT_TEST_POWER")))
		fail_msg("%s: the disk is not there again", spec);
	return fired;
}

static void test_power_goes(void **state)
{
	sweep(power_stays, (const char *const[]){ "kill" }, 1);
}

/* ---- a server: the node dies, a call fails, an answer is lost ---- */

static bool node_lives(unsigned long call, enum memory_fault fault, const char *spec)
{
	int err;

	memory_server_arm(&memory_server, call, fault, EIO);
	err = own_job(1, CHECKPOINTS);
	memory_server.fail_at = 0;
	if (err && fault != MEMORY_DIES)
		fail_msg("%s: failed again: %s", spec, problem.text);
	return memory_server.fired;
}

static void sweep_server(enum memory_fault fault, const char *what)
{
	unsigned long call, places = 0;
	char spec[64];
	bool fired = true;

	for (call = 1; fired && call < 1000; call += sweep_step()) {
		first_checkpoint();
		snprintf(spec, sizeof(spec), "%s at call %lu", what, call);
		fired = node_lives(call, fault, spec);
		check_outcome(spec);
		places += fired;
	}
	print_message("%s at %lu calls\n", what, places);
	assert_true(call > 20 && call < 1000);
}

static void test_node_dies(void **state)
{
	sweep_server(MEMORY_DIES, "the node dies");
}

static void test_call_fails(void **state)
{
	sweep_server(MEMORY_FAILS, "a failure");
}

static void test_answer_lost(void **state)
{
	sweep_server(MEMORY_DOUBTS, "a lost answer");
}

static int small_directory(void **state)
{
	int err = directory_create(state);

	options.compress = "lz4";
	options.buffer_bytes = 0;
	log_set_level(LOG_CRIT);
	return err;
}

static int small_memory(void **state)
{
	int err = memory_create(state);

	options.compress = "lz4";
	options.buffer_bytes = 0;
	log_set_level(LOG_CRIT);
	return err;
}

#define row(test) cmocka_unit_test_setup_teardown(test, small_directory, directory_remove)
#define memory_row(test) cmocka_unit_test_setup_teardown(test, small_memory, memory_clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_kill),
		row(test_errors),
		memory_row(test_node_dies),
		memory_row(test_call_fails),
		memory_row(test_answer_lost),
	};
	const struct CMUnitTest on_disk[] = {
		row(test_power_goes),
	};

	committed = mmap(NULL, sizeof(*committed), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	make_models();
	if (getenv("CKPT_TEST_POWER"))
		return cmocka_run_group_tests(on_disk, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
