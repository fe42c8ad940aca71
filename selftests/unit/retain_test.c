// SPDX-License-Identifier: GPL-2.0
/* What becomes of checkpoints when their job has ended, or nobody runs it any more. */
#include <sys/time.h>

#define MODEL_PAGES 20
#include "store_fixture.h"

#include "config.h"
#include "retain.h"

#define HOUR_MS 3600000ll

static const struct model none;
static struct model model_a;

/* A job with so many checkpoints, of one owner. */
static struct store *make_job(struct term *own, unsigned int checkpoints)
{
	struct store *store = open_store();
	struct pagemap *map = pagemap_create();
	uint64_t state = 3;
	char name[64];

	memset(&model_a, 0, sizeof(model_a));
	model_change(&model_a, &state, 4);
	*own = take_term(store, "");
	for (unsigned int i = 1; i <= checkpoints; i++)
		assert_ok(model_commit(&none, &model_a, store, own, map, i, name));
	pagemap_destroy(map);
	return store;
}

static size_t listed(struct store *store)
{
	char **names;
	size_t count;

	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	free_names(names, count);
	return count;
}

static bool job_exists(void)
{
	return access(object_path(""), F_OK) == 0;
}

/* As if all of it had been written that long ago. */
static int age_entry(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
	struct timeval times[2] = { { stat->st_mtim.tv_sec - 7200, 0 }, { stat->st_mtim.tv_sec - 7200, 0 } };

	return utimes(path, times);
}

static void age_two_hours(void)
{
	assert_int_equal(nftw(object_path(""), age_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static struct retain_pass run_pass(unsigned int keep_abandoned_s, const char *user)
{
	struct class class = { .name = (char *)"a", .store = directory, .store_user = (char *)user,
			       .keep_abandoned_ms = keep_abandoned_s * 1000ull };
	struct class *classes[] = { &class };
	struct retain_pass pass = { .classes = classes, .class_count = 1, .keys = &keys,
				    .node = "cleaner" };

	retain_run(&pass);
	return pass;
}

/* ---- an ended job ---- */

static void ended_is_put_away(void **state)
{
	struct term own, term;
	struct store *store = make_job(&own, 2);
	uint64_t keep_s = 0;

	assert_int_equal(listed(store), 2);
	assert_ok(store_put_away(store, &own, 86400, &problem));
	/* No run finds them, or waits for anybody. */
	assert_int_equal(listed(store), 0);
	assert_ok(store_read_term(store, &term, &problem));
	assert_true(term_ended(&term, &keep_s));
	assert_int_equal(keep_s, 86400);
	/* The old owner is out of it. */
	assert_err(store_renew_term(store, &own, &problem), ESTALE);
	/* One that has died meanwhile does it again. */
	assert_ok(store_put_away(store, &own, 86400, &problem));
	/* By hand they are back. */
	assert_int_equal(unlink(object_path("term-0000000000000002")), 0);
	assert_int_equal(listed(store), 2);
	store_close(store);
}

static void nothing_to_put_away(void **state)
{
	struct term own;
	struct store *store = make_job(&own, 0);

	assert_ok(store_put_away(store, &own, 86400, &problem));
	assert_false(job_exists());
	store_close(store);
	store = make_job(&own, 1);
	assert_ok(store_put_away(store, &own, 0, &problem));
	assert_false(job_exists());
	store_close(store);
}

/* The same job run again begins anew; its first cleaning takes the old data. */
static void run_again_after_the_end(void **state)
{
	struct term own, next;
	struct store *store = make_job(&own, 2);
	struct pagemap *map = pagemap_create();
	uint64_t used;
	char name[64];

	assert_ok(store_put_away(store, &own, 86400, &problem));
	next = take_term(store, "");
	assert_int_equal(next.number, 3);
	assert_ok(model_commit(&none, &model_a, store, &next, map, 1, name));
	assert_ok(store_clean(store, &next, 2, map, &used, &problem));
	assert_int_equal(listed(store), 1);
	assert_int_equal(access(object_path("manifest-0000000000000001-0000000000000001"), F_OK), -1);
	pagemap_destroy(map);
	store_close(store);
}

static void names_of_nodes(void **state)
{
	static const char *const nodes[] = { "", "node1", ":ended:", ":ended:x", ":ended:5 ", ":ended:05",
					     ":ended:-5", "a:ended:5" };
	struct term term = { 0 };
	uint64_t keep_s;

	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++) {
		strcpy(term.node, nodes[i]);
		assert_false(term_ended(&term, &keep_s));
	}
	strcpy(term.node, ":ended:5");
	assert_true(term_ended(&term, &keep_s));
}

/* ---- what is removed, and what is not ---- */

static void ended_goes_in_time(void **state)
{
	struct retain_pass pass;
	struct term own;
	struct store *store = make_job(&own, 2);

	assert_ok(store_put_away(store, &own, 3600, &problem));
	pass = run_pass(0, "0");
	assert_int_equal(pass.kept, 1);
	assert_true(job_exists());
	age_two_hours();
	pass = run_pass(0, "0");
	assert_int_equal(pass.removed, 1);
	assert_false(job_exists());
	store_close(store);
}

static void abandoned_goes_if_wanted(void **state)
{
	struct term own;
	struct store *store = make_job(&own, 2);

	assert_int_equal(run_pass(3600, "0").removed, 0);
	age_two_hours();
	/* 0: for ever. */
	assert_int_equal(run_pass(0, "0").removed, 0);
	assert_int_equal(run_pass(86400, "0").removed, 0);
	assert_int_equal(listed(store), 2);
	assert_int_equal(run_pass(3600, "0").removed, 1);
	assert_false(job_exists());
	store_close(store);
}

/* One that runs renews its lease, whatever else it writes. */
static void running_stays(void **state)
{
	struct term own;
	struct store *store = make_job(&own, 2);

	age_two_hours();
	assert_ok(store_renew_term(store, &own, &problem));
	assert_int_equal(run_pass(3600, "0").removed, 0);
	assert_int_equal(run_pass(1, "0").removed, 0);
	assert_int_equal(listed(store), 2);
	/* And one that was given up only now is as old as what it wrote last. */
	assert_ok(store_release_term(store, &own, &problem));
	assert_int_equal(run_pass(10800, "0").removed, 0);
	assert_int_equal(run_pass(3600, "0").removed, 1);
	store_close(store);
}

/* Looking does not make anything younger. */
static void looks_change_nothing(void **state)
{
	struct term own;
	struct store *store = make_job(&own, 1);
	int64_t idle_ms;

	age_two_hours();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(run_pass(86400, "0").removed, 0);
		assert_ok(store_idle_ms(store, &idle_ms, &problem));
		assert_in_range(idle_ms, 2 * HOUR_MS, 3 * HOUR_MS);
	}
	store_close(store);
}

/* A directory of somebody else, or of no job, is not touched. */
static void others_stay(void **state)
{
	struct term own;
	struct store *store = make_job(&own, 1);
	char path[200];

	age_two_hours();
	/* Without store_user it would be user 1000's. */
	assert_int_equal(run_pass(3600, NULL).removed, 0);
	assert_int_equal(run_pass(3600, "1001").removed, 0);
	assert_int_equal(run_pass(3600, "1001").kept, 0);
	snprintf(path, sizeof(path), "%s/1000-link", directory);
	assert_int_equal(symlink(object_path(""), path), 0);
	snprintf(path, sizeof(path), "%s/tmp", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/1000-empty", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(run_pass(86400, "0").removed, 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_true(job_exists());
	store_close(store);
}

/* ---- races with a restore ---- */

/* A restore that has begun has renewed the lease, and has not taken its term yet. */
static void restore_has_begun(void **state)
{
	struct term own, previous;
	struct store *store = make_job(&own, 2);

	age_two_hours();
	assert_ok(store_read_term(store, &previous, &problem));
	assert_ok(store_renew_term(store, &previous, &problem));
	assert_err(store_give_up(store, "cleaner", HOUR_MS, &problem), EBUSY);
	assert_int_equal(listed(store), 2);
	assert_ok(store_take_term(store, &previous, "node", "manifest-0000000000000001-0000000000000002",
				  &own, &problem));
	store_close(store);
}

static void restore_begins_meanwhile(void **state)
{
	struct term own, previous, again;
	struct store *store = make_job(&own, 2), *cleaner = open_store();
	int status;
	pid_t pid;

	age_two_hours();
	assert_ok(store_read_term(store, &previous, &problem));
	/* The cleaner dies when it has its term: the point at which a restore could come between. */
	pid = fork();
	if (pid == 0) {
		fault_arm("store.remove=kill");
		store_give_up(cleaner, "cleaner", HOUR_MS, &problem);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	/* Then everything is still there, and somebody has the job: a run waits, and goes on. */
	assert_int_equal(listed(store), 2);
	assert_err(store_take_term(store, &previous, "node", "", &own, &problem), EEXIST);
	assert_ok(store_read_term(store, &again, &problem));
	assert_int_equal(again.number, 2);
	assert_string_equal(again.node, "cleaner");
	store_close(store);
	store_close(cleaner);
}

/* A run and a cleaner, again and again: the job is either whole and the run's, or gone. */
static void restore_against_cleaner(void **state)
{
	unsigned int won = 0, lost = 0;

	for (int round = 0; round < 60; round++) {
		struct term own, previous, taken;
		struct store *store = make_job(&own, 2);
		int ret, status;
		pid_t pid;

		age_two_hours();
		pid = fork();
		if (pid == 0) {
			struct store *cleaner = open_store();

			usleep((useconds_t)(round % 20) * 50);
			_exit(store_give_up(cleaner, "cleaner", HOUR_MS, &problem) == 0 ? 1 : 0);
		}
		ret = store_read_term(store, &previous, &problem);
		if (ret == 0 && previous.number)
			ret = store_renew_term(store, &previous, &problem);
		if (ret == 0 && previous.number)
			ret = store_take_term(store, &previous, "node",
					      "manifest-0000000000000001-0000000000000002", &taken, &problem);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (ret == 0 && previous.number == 1) {
			won++;
			assert_int_equal(WEXITSTATUS(status), 0);
			assert_int_equal(listed(store), 2);
		} else {
			lost++;
		}
		store_close(store);
		remove_tree(object_path(""));
	}
	print_message("the run won %u of %u times\n", won, won + lost);
	assert_true(won > 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, directory_create, directory_remove)
	const struct CMUnitTest tests[] = {
		TEST(ended_is_put_away),     TEST(nothing_to_put_away),	     TEST(run_again_after_the_end),
		TEST(names_of_nodes),	     TEST(ended_goes_in_time),	     TEST(abandoned_goes_if_wanted),
		TEST(running_stays),	     TEST(looks_change_nothing),     TEST(others_stay),
		TEST(restore_has_begun),     TEST(restore_begins_meanwhile), TEST(restore_against_cleaner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
