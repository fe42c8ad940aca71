// SPDX-License-Identifier: GPL-2.0
/*
 * A job's owner dies, or has one call fail, at each fault point in turn: what was committed last is
 * restored bit for bit, the next owner goes on, and nothing is left behind.
 */
#include <dirent.h>

#define MODEL_PAGES 100
#include "store_fixture.h"

#define CHECKPOINTS 2

static struct model models[CHECKPOINTS + 2]; /* [0] is committed before, the last one after */
static int *committed; /* shared with the child: models up to this one are durable */

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
	do {                                                                                       \
		if ((call) && (call))                                                              \
			fail_msg("%s: failed again: %s", #call, problem.text);                     \
	} while (0)

static struct manifest *read_newest(struct store *store, char base[64])
{
	struct manifest *manifest;
	char **names = NULL;
	size_t count = 0;

	again(store_list_checkpoints(store, &names, &count, &problem));
	assert_true(count > 0);
	strcpy(base, names[0]);
	again(manifest_read(store, names[0], &manifest, &problem));
	free_names(names, count);
	return manifest;
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

/* An owner's life: restore, take over, commit, clean. */
static void own_job(unsigned int first, unsigned int count)
{
	struct store *store = NULL;
	struct manifest *manifest;
	struct term own;
	uint64_t sequence = 0;
	char base[64];
	unsigned int m;

	again(store_open(&store, &options, JOB, &problem));
	manifest = read_newest(store, base);
	again(check_content(store, manifest));
	again(read_and_take(store, base, &own));
	for (m = first; m < first + count; m++) {
		again(commit(store, &own, manifest->map, ++sequence, m));
		*committed = m;
		again(store_renew_term(store, &own, &problem));
		again(store_clean(store, &own, 1, manifest->map, NULL, &problem));
	}
	manifest_free(manifest);
	store_close(store);
}

static void count_objects(unsigned int *manifests, unsigned int *segments, unsigned int *unfinished)
{
	DIR *dir = opendir(object_path(""));
	struct dirent *entry;

	*manifests = *segments = *unfinished = 0;
	while ((entry = readdir(dir))) {
		*manifests += !strncmp(entry->d_name, "manifest-", 9);
		*segments += !strncmp(entry->d_name, "seg-", 4);
		*unfinished += !strncmp(entry->d_name, "tmp.", 4);
	}
	closedir(dir);
}

/* Segments of a cleaned store are those that its one checkpoint and the map of its reader know. */
static void check_clean(void)
{
	unsigned int manifests, segments, unfinished;
	struct store *store = open_store();
	struct manifest *manifest;
	struct term own;
	char **names;
	size_t count;

	assert_ok(store_read_term(store, &own, &problem));
	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	assert_int_equal(count, 1);
	assert_ok(manifest_read(store, names[0], &manifest, &problem));
	assert_ok(manifest_verify(store, manifest, &problem));
	assert_int_equal(atoi(manifest->meta), CHECKPOINTS + 1);
	assert_ok(check_content(store, manifest));
	free_names(names, count);
	count_objects(&manifests, &segments, &unfinished);
	assert_int_equal(manifests, 1);
	assert_int_equal(unfinished, 0);
	assert_true(segments > 0 && segments <= CHECKPOINTS + 3);
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

/* Whether the fault fired. */
static bool child_lives(const char *spec)
{
	pid_t child = fork();
	int status;

	if (!child) {
		log_set_level(LOG_CRIT);
		fault_arm(spec);
		own_job(1, CHECKPOINTS);
		_exit(fault_fired() ? 3 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	if (!WIFEXITED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != 3))
		fail_msg("%s: the child ended with %#x", spec, status);
	return WEXITSTATUS(status) == 3;
}

static void check_restorable(const char *spec)
{
	struct store *store = open_store();
	struct manifest *manifest;
	char base[64];
	int newest;

	manifest = read_newest(store, base);
	newest = atoi(manifest->meta);
	if (newest != *committed && newest != *committed + 1)
		fail_msg("%s: %d was committed, %d is the newest", spec, *committed, newest);
	if (check_content(store, manifest))
		fail_msg("%s: checkpoint %d is not what was committed: %s", spec, newest,
			 problem.text);
	manifest_free(manifest);
	store_close(store);
}

/* Each action in turn, at one more place. */
static void sweep(const char *const *actions, unsigned int count)
{
	unsigned int hit;
	char spec[64];
	bool fired = true;

	for (hit = 1; fired && hit < 1000; hit++) {
		first_checkpoint();
		snprintf(spec, sizeof(spec), "*:%u=%s", hit, actions[hit % count]);
		fired = child_lives(spec);
		check_restorable(spec);
		own_job(CHECKPOINTS + 1, 1);
		check_clean();
	}
	print_message("fired at %u places\n", hit - 2);
	assert_true(hit > 20 && hit < 1000);
}

static void test_kill(void **state)
{
	sweep((const char *const[]){ "kill" }, 1);
}

static void test_errors(void **state)
{
	sweep((const char *const[]){ "EIO", "ENOSPC", "ESTALE" }, 3);
}

#define row(test) cmocka_unit_test_setup_teardown(test, directory_create, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_kill),
		row(test_errors),
	};

	committed = mmap(NULL, sizeof(*committed), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	make_models();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
