// SPDX-License-Identifier: GPL-2.0
/*
 * The space that a job uses over hundreds of short epochs, whose hot pages are now here, now there:
 * never more than 1.5 times its live data and one epoch.  Live is what the page map or a kept
 * checkpoint has, each content of a page once.
 */
#define MODEL_PAGES 64
#include "store_fixture.h"

#include "reader.h"
#include "store_private.h"
#include "tracker_mechanism.h"

#define PAGES 1024
#define EPOCHS 800
#define EPOCHS_PER_CHECKPOINT 10
#define KEEP 2
#define STORED_BYTES (4096 + 16) /* of a page: with its hash */

static uint8_t *memory; /* the job's: this process's */
static uint32_t version[KEEP + 1][PAGES]; /* now, and in the kept checkpoints; 0: not written yet */
static struct store *store;
static struct term own;
static struct reader reader;
static struct regions written; /* since the last epoch */
static uint64_t random_state;

struct figures {
	uint64_t used, live, epoch; /* bytes */
	uint64_t dirty, written;    /* all epochs' */
	double worst;               /* (used - epoch) / live */
	double sum;
	unsigned int count;
};

static void page_write(unsigned int page)
{
	uint64_t address = (uintptr_t)memory + page * 4096ULL;

	version[0][page]++;
	seed_fill(4 * (version[0][page] * PAGES + page) + 4, (void *)address, 4096);
	assert_int_equal(regions_add(&written, address, address + 4096, 0), 0);
}

/* Hot pages are together, most of the time, and others are written now and then. */
static void job_runs(unsigned int epoch, unsigned int hot_pages, unsigned int stay)
{
	unsigned int hot = epoch / stay * 7919 % PAGES, i;

	for (i = 0; i < hot_pages; i++)
		if (next_random(&random_state) % 2)
			page_write((hot + i) % PAGES);
	for (i = 0; i < hot_pages / 8; i++)
		page_write(next_random(&random_state) % PAGES);
	assert_int_equal(regions_normalise(&written), 0);
}

/* ---- the reader, with a tracker that knows what was written ---- */

static uint64_t generation;

static int known_open(struct tracker *tracker, struct problem *unused)
{
	generation++;
	return 0;
}

static int known_collect(struct tracker *tracker, struct regions *regions, struct problem *unused)
{
	size_t i;
	int err = 0;

	for (i = 0; i < written.count && !err; i++)
		err = regions_add(regions, written.list[i].start, written.list[i].end, 0);
	tracker->generation = generation;
	return err;
}

static void known_close(struct tracker *tracker)
{
}

static const struct tracker_mechanism known = { .name = "known", .open = known_open,
						.collect = known_collect, .close = known_close,
						.collects_while_running = true };

static void reader_begin(void)
{
	FILE *tasks;

	reader = (struct reader){ .store = store, .term = own, .tasks.mechanism = &known };
	snprintf(reader.cgroup, sizeof(reader.cgroup), "%s", directory);
	assert_non_null(tasks = fopen(object_path("../cgroup.procs"), "w"));
	fprintf(tasks, "%d\n", getpid());
	fclose(tasks);
	assert_ok(reader_init(&reader, &problem));
}

static void stream_epoch(bool last, struct figures *figures)
{
	struct pass_stats stats;

	figures->epoch = regions_pages(&written) * STORED_BYTES;
	figures->dirty += figures->epoch;
	reader.cleans = last ? READER_CLEANS_FOR_CHECKPOINT : READER_CLEANS;
	assert_ok(reader_epoch(&reader, &stats, &problem));
	assert_int_equal(stats.pages_dirty, regions_pages(&written));
	/* The job writes nothing that was there before. */
	assert_int_equal(stats.packed.pages_packed - stats.packed.pages_moved, regions_pages(&written));
	figures->written += stats.packed.bytes_written;
}

static void commit(uint64_t sequence)
{
	struct manifest manifest = { .term = own.number, .sequence = sequence, .meta = "{}", .map = reader.map };
	char name[64];
	unsigned int i;

	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	for (i = KEEP; i > 1; i--)
		memcpy(version[i], version[i - 1], sizeof(version[i]));
	memcpy(version[1], version[0], sizeof(version[1]));
}

static uint64_t live_bytes(void)
{
	uint64_t pages = 0;
	unsigned int page, i, j;

	for (page = 0; page < PAGES; page++)
		for (i = 0; i <= KEEP; i++) {
			for (j = 0; j < i && version[j][page] != version[i][page]; j++)
				;
			pages += j == i && version[i][page];
		}
	return pages * STORED_BYTES;
}

static void measure(struct figures *figures)
{
	double ratio;

	figures->live = live_bytes();
	ratio = ((double)figures->used - (double)figures->epoch) / (double)figures->live;
	figures->worst = ratio > figures->worst ? ratio : figures->worst;
	figures->sum += ratio;
	figures->count++;
}

static int compare_page(void *arg, uint64_t address, const void *page)
{
	return memcmp((void *)address, page, 4096) ? -EDOM : 0;
}

/* What is in the store is the job's memory still. */
static void check_newest(void)
{
	struct manifest *found;
	char **names;
	size_t count;

	assert_ok(store_list_checkpoints(store, &names, &count, &problem));
	assert_int_equal(count, KEEP);
	assert_ok(manifest_read(store, names[0], &found, &problem));
	assert_int_equal(pagemap_pages(found->map), PAGES);
	assert_ok(manifest_read_space(store, found, pagemap_find(found->map, SPACE_TASK, getpid()), compare_page,
				      NULL, &problem));
	manifest_free(found);
	free_names(names, count);
}

static void long_run(const char *name, unsigned int hot_pages, unsigned int stay, bool checkpoints)
{
	struct figures figures = { 0 };
	unsigned int epochs = EPOCHS / sweep_step() / EPOCHS_PER_CHECKPOINT * EPOCHS_PER_CHECKPOINT, epoch, page;
	bool last;

	for (page = 0; page < PAGES; page++)
		page_write(page);
	stream_epoch(false, &figures);
	figures.dirty = figures.written = 0;
	for (epoch = 1; epoch <= epochs; epoch++) {
		regions_clear(&written);
		job_runs(epoch, hot_pages, stay);
		last = checkpoints && epoch % EPOCHS_PER_CHECKPOINT == 0;
		stream_epoch(last, &figures);
		if (last)
			commit(epoch / EPOCHS_PER_CHECKPOINT);
		if (store_is_dirty(store) || epoch % EPOCHS_PER_CHECKPOINT == 0)
			assert_ok(store_clean(store, &own, KEEP, reader.map, &figures.used, &problem));
		measure(&figures);
	}
	print_message("%s: used at most %.2f, on average %.2f times the live data; %.2f bytes written for "
		      "each that changed\n", name, figures.worst, figures.sum / figures.count,
		      (double)figures.written / (double)figures.dirty);
	assert_true(figures.worst <= 1.5);
	if (checkpoints)
		check_newest();
	regions_free(&written);
}

static void test_slow_shift(void **state)
{
	long_run("hot set that stays for 50 epochs", 64, 50, true);
}

static void test_quick_shift(void **state)
{
	long_run("hot set that moves in each epoch", 64, 1, true);
}

/* A job with checkpoint_interval = 0. */
static void test_no_checkpoints(void **state)
{
	long_run("no checkpoints", 64, 20, false);
}

static int setup(void **state)
{
	if (directory_create(state))
		return -1;
	options.compress = "none";
	options.buffer_bytes = 4 << 20;
	memset(version, 0, sizeof(version));
	random_state = 7;
	store = open_store();
	own = take_term(store, "");
	store->segment_bytes = 64 << 10;
	reader_begin();
	memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	munmap(memory, PAGES * 4096);
	reader_free(&reader);
	store_close(store);
	return directory_remove(state);
}

#define row(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_slow_shift),
		row(test_quick_shift),
		row(test_no_checkpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
