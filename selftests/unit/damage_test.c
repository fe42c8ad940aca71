// SPDX-License-Identifier: GPL-2.0
/*
 * Whatever is damaged, cut, exchanged or missing in a store is found and named, by a restore before
 * CRIU would start and by verify, and the newest checkpoint that is whole is the one that is restored,
 * bit for bit.
 */
#include <dirent.h>
#include <pthread.h>

#define MODEL_PAGES 24
#include "store_fixture.h"

#include "host.h"
#include "object.h"
#include "restore.h"
#include "verify.h"

#define CHECKPOINTS 4
#define FILES_MAX 32
#define BLOCKS_MAX 64

static struct model models[CHECKPOINTS];
static char newest_first[CHECKPOINTS][64];

/* A file of the store, as it was written. */
struct file {
	char name[64];
	uint8_t *content;
	size_t length;
	size_t blocks[BLOCKS_MAX + 1]; /* where they begin, and the end */
	unsigned int block_count;
};

static struct file files[FILES_MAX];
static unsigned int file_count;

/* ---- a store: two terms, two checkpoints each ---- */

static void make_meta(void)
{
	json_t *meta = json_pack("{s:o, s:i}", "host", host_facts(), "uid", 1000);

	model_meta = json_dumps(meta, JSON_COMPACT);
	json_decref(meta);
}

static void make_models(void)
{
	uint64_t state = 7;
	unsigned int i;

	memset(models, 0, sizeof(models));
	for (i = 0; i < CHECKPOINTS; i++) {
		if (i)
			models[i] = models[i - 1];
		model_change(&models[i], &state, i ? 2 : 12);
		models[i].file_seed = 4 + i;
		models[i].file_bytes = 5000;
	}
}

static void make_checkpoints(const char *job)
{
	static const struct model none;
	struct pagemap *map = pagemap_create();
	struct store *store;
	struct term own;
	unsigned int i;

	assert_ok(store_open(&store, &options, job, &problem));
	for (i = 0; i < CHECKPOINTS; i++) {
		if (i % 2 == 0)
			own = take_term(store, i ? newest_first[CHECKPOINTS - i] : "");
		assert_ok(model_commit(i ? &models[i - 1] : &none, &models[i], store, &own, map,
				       i % 2 + 1, newest_first[CHECKPOINTS - 1 - i]));
	}
	pagemap_destroy(map);
	store_close(store);
}

static void find_blocks(struct file *file)
{
	struct block_header header;
	const char *reason;
	size_t at = OBJECT_HEADER_BYTES;

	file->block_count = 0;
	while (at < file->length) {
		assert_true(file->block_count < BLOCKS_MAX);
		assert_int_equal(block_parse(file->content + at, &header, &reason), 0);
		file->blocks[file->block_count++] = at;
		at += block_stored(&header);
	}
	assert_int_equal(at, file->length);
	file->blocks[file->block_count] = at;
}

static void write_content(const char *name, const void *content, size_t length)
{
	int fd = open(object_path(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, length), length);
	close(fd);
}

static void read_content(struct file *file)
{
	int fd = open(object_path(file->name), O_RDONLY);
	struct stat stat_buffer;

	assert_int_equal(fstat(fd, &stat_buffer), 0);
	file->length = stat_buffer.st_size;
	file->content = malloc(file->length);
	assert_int_equal(read(fd, file->content, file->length), file->length);
	close(fd);
}

static int file_order(const void *a, const void *b)
{
	return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static void read_files(void)
{
	DIR *dir = opendir(object_path(""));
	struct dirent *entry;
	unsigned int i;

	file_count = 0;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			strcpy(files[file_count++].name, entry->d_name);
	closedir(dir);
	qsort(files, file_count, sizeof(*files), file_order);
	for (i = 0; i < file_count; i++) {
		read_content(&files[i]);
		find_blocks(&files[i]);
	}
}

static void make_store(void)
{
	make_checkpoints(JOB);
	read_files();
}

static void forget_files(void)
{
	while (file_count)
		free(files[--file_count].content);
}

static bool is_kind(const struct file *file, const char *start)
{
	return !strncmp(file->name, start, strlen(start));
}

/* ---- what a restore makes of it ---- */

struct outcome {
	int first;        /* of the newest checkpoint that is listed, or of what comes before */
	char text[1024];  /* and why */
	int restored;     /* index in newest_first; -1: none */
	unsigned int count; /* that are listed */
};

static int unpack(struct store *store, const char *name)
{
	struct restore_facts facts;
	struct manifest *manifest;
	char images[100];
	int err = manifest_read(store, name, &manifest, &problem);

	if (err)
		return err;
	snprintf(images, sizeof(images), "%s/images", directory);
	err = restore_read(manifest, &facts, &problem);
	if (!err)
		err = restore_unpack(store, manifest, images, NULL, NULL, NULL, &problem);
	restore_free(&facts);
	manifest_free(manifest);
	return err;
}

static int index_of(const char *name)
{
	int i;

	for (i = 0; i < CHECKPOINTS; i++)
		if (!strcmp(newest_first[i], name))
			return i;
	fail_msg("%s is listed", name);
	return -1;
}

static void note_failure(struct outcome *outcome, int err)
{
	if (outcome->first)
		return;
	outcome->first = err;
	strcpy(outcome->text, problem.text);
}

static void check_restored(struct store *store, const char *name, int index)
{
	struct manifest *manifest;

	assert_ok(manifest_read(store, name, &manifest, &problem));
	assert_ok(model_check(&models[CHECKPOINTS - 1 - index], store, manifest));
	manifest_free(manifest);
}

/* As ckptd does it: from the newest on, past those that are damaged. */
static void try_restore(struct outcome *outcome)
{
	struct store *store = open_store();
	struct term term;
	char **names = NULL;
	size_t i;
	size_t count = 0;
	int err = store_read_term(store, &term, &problem);

	*outcome = (struct outcome){ .restored = -1 };
	if (err || term.damaged)
		note_failure(outcome, -EBADMSG);
	if (!err)
		err = store_list_checkpoints(store, &names, &count, &problem);
	if (err)
		note_failure(outcome, err);
	for (i = 0; i < count && outcome->restored < 0; i++) {
		err = unpack(store, names[i]);
		if (err)
			note_failure(outcome, err);
		if (!err)
			outcome->restored = index_of(names[i]);
		else if (err != -EBADMSG)
			break;
	}
	if (outcome->restored >= 0)
		check_restored(store, newest_first[outcome->restored], outcome->restored);
	outcome->count = count;
	free_names(names, count);
	store_close(store);
}

static int restore_one(const char *name)
{
	struct store *store = open_store();
	int err = unpack(store, name);

	store_close(store);
	return err;
}

/* ---- what verify makes of it ---- */

static void verify(struct verify_report *report)
{
	struct store *store = open_store();

	assert_ok(verify_job(store, report, NULL, NULL, &problem));
	store_close(store);
}

static void assert_whole(void)
{
	struct verify_report report;
	struct outcome outcome;
	size_t i;

	verify(&report);
	if (report.damage_count)
		fail_msg("%s: %s", report.damages[0].name, report.damages[0].text);
	assert_int_equal(report.checkpoint_count, CHECKPOINTS);
	for (i = 0; i < CHECKPOINTS; i++) {
		assert_true(report.checkpoints[i].whole && report.checkpoints[i].restorable);
		assert_string_equal(report.checkpoints[i].name, newest_first[i]);
	}
	assert_int_equal(report.objects, file_count);
	verify_report_free(&report);
	try_restore(&outcome);
	assert_int_equal(outcome.first, 0);
	assert_int_equal(outcome.restored, 0);
}

/* Each checkpoint is whole for verify if and only if it can be restored. */
static void assert_same_verdict(const struct verify_report *report, const char *how)
{
	size_t i;
	int err;

	assert_int_equal(report->checkpoint_count, CHECKPOINTS);
	for (i = 0; i < CHECKPOINTS; i++) {
		err = restore_one(report->checkpoints[i].name);
		if (err && err != -EBADMSG)
			fail_msg("%s: %d, %s", how, err, problem.text);
		if (!err != report->checkpoints[i].whole)
			fail_msg("%s: %s is %s for verify, a restore gives %d", how,
				 report->checkpoints[i].name,
				 report->checkpoints[i].whole ? "whole" : "not whole", err);
	}
}

/* The newest one that can be restored is, and what was wrong with a newer one was said. */
static void assert_fallback(const struct verify_report *report, const char *name, const char *how)
{
	struct outcome outcome;
	int wanted = 0;

	try_restore(&outcome);
	if (outcome.first && !strstr(outcome.text, name))
		fail_msg("%s is not named: %s", how, outcome.text);
	while (wanted < (int)outcome.count && !report->checkpoints[wanted].whole)
		wanted++;
	if (wanted == (int)outcome.count)
		wanted = -1;
	if (outcome.restored != wanted)
		fail_msg("%s: %d was restored, %d is the newest whole one", how, outcome.restored, wanted);
	if (wanted && !outcome.first)
		fail_msg("%s: nothing was said", how);
}

/* Found at its place, by its name, as the only damage. */
static void assert_found(const struct file *file, size_t offset, const char *how)
{
	struct verify_report report;

	verify(&report);
	if (report.damage_count != 1 || strcmp(report.damages[0].name, file->name) ||
	    report.damages[0].offset != offset)
		fail_msg("%s (block %zu): %zu damages, %s at %llu: %s", how, offset,
			 report.damage_count, report.damage_count ? report.damages[0].name : "",
			 report.damage_count ? (unsigned long long)report.damages[0].offset : 0,
			 report.damage_count ? report.damages[0].text : "");
	assert_same_verdict(&report, how);
	assert_fallback(&report, file->name, how);
	verify_report_free(&report);
}

/* ---- flipped bits ---- */

static size_t block_of(const struct file *file, size_t where)
{
	unsigned int i;

	for (i = 0; i < file->block_count; i++)
		if (where < file->blocks[i + 1] && where >= file->blocks[i])
			return file->blocks[i];
	return 0;
}

static void flip_one(const struct file *file, size_t where)
{
	uint8_t *content = malloc(file->length);
	char how[128];

	snprintf(how, sizeof(how), "%s flipped at %zu", file->name, where);
	memcpy(content, file->content, file->length);
	content[where] ^= 1 << where % 8;
	write_content(file->name, content, file->length);
	free(content);
	assert_found(file, block_of(file, where), how);
	write_content(file->name, file->content, file->length);
}

/* One byte of each field of the object's header, of a block's, of its content, hashes and tag. */
static void flip_fields(const struct file *file)
{
	static const uint8_t object[] = { 3, 9, 12, 17, 24, 32, 37, 41, 50, 70, 100 };
	static const uint8_t block[] = { 0, 4, 5, 6, 7, 9, 13, 16, 25 };
	unsigned int last = file->block_count - 1, i;

	for (i = 0; i < sizeof(object); i++)
		flip_one(file, object[i]);
	for (i = 0; i < sizeof(block); i++)
		flip_one(file, file->blocks[i % file->block_count] + block[i]);
	flip_one(file, file->blocks[0] + BLOCK_HEADER_BYTES);
	flip_one(file, file->blocks[last + 1] - SEAL_TAG_BYTES - 1);
	flip_one(file, file->length - 1);
}

/* And anywhere. */
static void flip_some(const struct file *file, uint64_t *random)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		flip_one(file, next_random(random) % file->length);
}

static const struct file *first_of(const char *start)
{
	unsigned int i;

	for (i = 0; i < file_count; i++)
		if (is_kind(&files[i], start))
			return &files[i];
	fail_msg("no %s", start);
	return NULL;
}

static void flip_all(void)
{
	uint64_t random = 11;
	unsigned int i;

	make_store();
	assert_whole();
	for (i = 0; i < file_count; i++)
		flip_some(&files[i], &random);
	assert_whole();
	forget_files();
}

static void test_flip_fields(void **state)
{
	make_store();
	flip_fields(first_of("term-"));
	flip_fields(first_of("seg-"));
	flip_fields(first_of("manifest-"));
	assert_whole();
	forget_files();
}

static void test_flip(void **state)
{
	flip_all();
}

static void test_flip_unsealed(void **state)
{
	options.seal = "none";
	options.compress = "none";
	flip_all();
}

/* Of the newest term, which says where to begin. */
static void test_damaged_newest_term(void **state)
{
	struct store *store;
	struct outcome outcome;
	char **names;
	size_t count;

	make_store();
	store = open_store();
	take_term(store, newest_first[0]);
	store_close(store);
	assert_int_equal(truncate(object_path("term-0000000000000003"), 100), 0);
	try_restore(&outcome);
	assert_int_equal(outcome.restored, -1);
	assert_non_null(strstr(outcome.text, "term-0000000000000003"));
	store = open_store();
	assert_err(store_list_checkpoints(store, &names, &count, &problem), EBADMSG);
	assert_non_null(strstr(problem.text, "remove that file"));
	store_close(store);
	assert_int_equal(unlink(object_path("term-0000000000000003")), 0);
	assert_whole();
	forget_files();
}

/* Each byte of a header, in each kind: all that is read before any block. */
static void test_every_header_byte(void **state)
{
	struct object_reader reader;
	struct store *store;
	struct object_id id;
	unsigned int i;
	size_t where;

	make_store();
	store = open_store();
	for (i = 0; i < file_count; i++) {
		assert_true(object_parse(files[i].name, &id));
		for (where = 0; where < OBJECT_HEADER_BYTES; where++) {
			files[i].content[where] ^= 1 << where % 8;
			write_content(files[i].name, files[i].content, files[i].length);
			assert_err(object_open(&reader, store, &id, &problem), EBADMSG);
			assert_non_null(strstr(problem.text, files[i].name));
			files[i].content[where] ^= 1 << where % 8;
		}
		write_content(files[i].name, files[i].content, files[i].length);
	}
	store_close(store);
	assert_whole();
	forget_files();
}

/* ---- other lengths, other places ---- */

/* The header says the length: a wrong one is found before any block. */
static void cut_one(const struct file *file, size_t length)
{
	char how[128];

	snprintf(how, sizeof(how), "%s cut to %zu", file->name, length);
	assert_int_equal(truncate(object_path(file->name), length), 0);
	assert_found(file, 0, how);
	write_content(file->name, file->content, file->length);
}

static void test_cut(void **state)
{
	unsigned int i, block;

	make_store();
	for (i = 0; i < file_count; i++) {
		block = i % files[i].block_count;
		cut_one(&files[i], i % 2 ? 0 : OBJECT_HEADER_BYTES - 1);
		cut_one(&files[i], files[i].blocks[block] + (i % 3 ? 0 : BLOCK_HEADER_BYTES + 1));
		cut_one(&files[i], i % 2 ? files[i].length - 1 : files[i].length + 1);
	}
	assert_whole();
	forget_files();
}

/* An object under the name of another, and the same object of another job. */
static void test_exchange(void **state)
{
	static struct file others[FILES_MAX];
	unsigned int i, j, k;
	char how[160];

	make_store();
	for (i = 0; i < file_count; i++) {
		others[i] = files[i];
		snprintf(others[i].name, sizeof(others[i].name), "../1000-other/%.45s", files[i].name);
	}
	make_checkpoints("1000-other");
	for (i = 0; i < file_count; i++) {
		read_content(&others[i]);
		write_content(files[i].name, others[i].content, others[i].length);
		free(others[i].content);
		snprintf(how, sizeof(how), "%.63s of another job", files[i].name);
		assert_found(&files[i], 0, how);
		for (k = 1; k < 3; k++) {
			j = (i + k * 3) % file_count;
			if (i == j)
				continue;
			write_content(files[i].name, files[j].content, files[j].length);
			snprintf(how, sizeof(how), "%.63s in place of %.63s", files[j].name,
				 files[i].name);
			assert_found(&files[i], 0, how);
		}
		write_content(files[i].name, files[i].content, files[i].length);
	}
	assert_whole();
	forget_files();
}

/* Two blocks of a segment in each other's place: each one is authentic. */
static void test_blocks_exchanged(void **state)
{
	struct verify_report report;
	uint8_t *content;
	unsigned int i;

	options.compress = "none";
	models[0].file_bytes = 600000;
	make_store();
	models[0].file_bytes = 5000;
	for (i = 0; i < file_count; i++) {
		struct file *file = &files[i];
		size_t length = file->blocks[1] - file->blocks[0];

		if (!is_kind(file, "seg-") || file->block_count < 3 ||
		    file->blocks[2] - file->blocks[1] != length)
			continue;
		content = malloc(file->length);
		memcpy(content, file->content, file->length);
		memcpy(content + file->blocks[0], file->content + file->blocks[1], length);
		memcpy(content + file->blocks[1], file->content + file->blocks[0], length);
		write_content(file->name, content, file->length);
		free(content);
		verify(&report);
		assert_int_equal(report.damage_count, 2);
		assert_same_verdict(&report, "blocks exchanged");
		verify_report_free(&report);
		forget_files();
		return;
	}
	fail_msg("no segment has two blocks of one length");
}

static void test_missing_segment(void **state)
{
	unsigned int i;

	make_store();
	for (i = 0; i < file_count; i++) {
		if (!is_kind(&files[i], "seg-"))
			continue;
		unlink(object_path(files[i].name));
		assert_found(&files[i], 0, "a segment is missing");
		write_content(files[i].name, files[i].content, files[i].length);
	}
	assert_whole();
	forget_files();
}

/* What is no file where one should be. */
static void test_link(void **state)
{
	unsigned int i;

	make_store();
	for (i = 0; i < file_count; i += 3) {
		write_content("../elsewhere", files[i].content, files[i].length);
		unlink(object_path(files[i].name));
		assert_int_equal(symlink("../elsewhere", object_path(files[i].name)), 0);
		assert_found(&files[i], 0, "a link");
		unlink(object_path(files[i].name));
		assert_int_equal(mkfifo(object_path(files[i].name), 0600), 0);
		assert_found(&files[i], 0, "a fifo");
		unlink(object_path(files[i].name));
		write_content(files[i].name, files[i].content, files[i].length);
	}
	assert_whole();
	forget_files();
}

/* ---- while the job lives ---- */

static bool owner_ends;

static void *owner(void *arg)
{
	struct pagemap *map = pagemap_create();
	struct store *store = arg;
	struct term own = take_term(store, "");
	static struct model none, now, next;
	uint64_t random = 5, sequence = 0;
	char name[64];

	memset(&now, 0, sizeof(now));
	while (!__atomic_load_n(&owner_ends, __ATOMIC_RELAXED)) {
		next = now;
		model_change(&next, &random, 5);
		assert_ok(model_commit(sequence ? &now : &none, &next, store, &own, map, sequence + 1,
				       name));
		assert_ok(store_clean(store, &own, 1, map, NULL, &problem));
		now = next;
		sequence++;
	}
	pagemap_destroy(map);
	return (void *)(uintptr_t)sequence;
}

/* What is cleaned away under verify is no damage. */
static void test_verify_live(void **state)
{
	struct store *store = open_store(), *own = open_store();
	struct verify_report report;
	pthread_t thread;
	unsigned int i;
	void *commits;

	owner_ends = false;
	assert_int_equal(pthread_create(&thread, NULL, owner, own), 0);
	for (i = 0; i < 40; i++) {
		struct problem unheard;

		assert_int_equal(verify_job(store, &report, NULL, NULL, &unheard), 0);
		if (report.damage_count)
			fail_msg("%s: %s", report.damages[0].name, report.damages[0].text);
		verify_report_free(&report);
	}
	__atomic_store_n(&owner_ends, true, __ATOMIC_RELAXED);
	pthread_join(thread, &commits);
	print_message("verified 40 times during %lu commits\n", (unsigned long)(uintptr_t)commits);
	store_close(own);
	store_close(store);
}

struct seen {
	uint64_t done;
	uint64_t all;
	unsigned int calls;
};

static void see(void *arg, uint64_t bytes_done, uint64_t bytes_all)
{
	struct seen *seen = arg;

	assert_true(bytes_done >= seen->done && bytes_done <= bytes_all);
	*seen = (struct seen){ bytes_done, bytes_all, seen->calls + 1 };
}

static void test_progress(void **state)
{
	struct store *store;
	struct verify_report report;
	struct seen seen = { 0 };
	size_t bytes = 0;
	unsigned int i;

	make_store();
	for (i = 0; i < file_count; i++)
		bytes += files[i].length;
	store = open_store();
	assert_ok(verify_job(store, &report, see, &seen, &problem));
	assert_int_equal(seen.all, bytes);
	assert_int_equal(seen.done, bytes);
	assert_int_equal(report.bytes, bytes);
	assert_true(seen.calls > file_count);
	assert_int_equal(report.key_count, 1);
	assert_int_equal(report.keys[0].objects, file_count);
	verify_report_free(&report);
	store_close(store);
	forget_files();
}

/* ---- keys and secrecy ---- */

static void test_wrong_key(void **state)
{
	struct verify_report report;
	struct outcome outcome;
	struct store *store;
	char id[KEY_ID_BYTES];

	make_store();
	keys.list[0][0] = 99;
	try_restore(&outcome);
	assert_int_equal(outcome.restored, -1);
	key_id(id, keys.list[0]);
	assert_non_null(strstr(outcome.text, id));
	keys.list[0][0] = 1;
	key_id(id, keys.list[0]);
	assert_non_null(strstr(outcome.text, id));
	assert_non_null(strstr(outcome.text, "term-"));
	keys.list[0][0] = 99;
	store = open_store();
	assert_err(verify_job(store, &report, NULL, NULL, &problem), ENOKEY);
	assert_non_null(strstr(problem.text, id));
	store_close(store);
	forget_files();
}

/* What a node with AES wrote, one without it reads, and the reverse. */
static void test_other_cpu(void **state)
{
	struct outcome outcome;

	make_checkpoints(JOB);
	fault_arm("seal.no_aes");
	try_restore(&outcome);
	assert_int_equal(outcome.restored, 0);
	remove_tree(object_path(""));
	make_checkpoints(JOB);
	fault_arm(NULL);
	try_restore(&outcome);
	assert_int_equal(outcome.restored, 0);
}

/* Whether a page's content can be found in what lies in the store. */
static bool in_plain_text(const char *seal)
{
	static uint8_t page[4096];
	struct store *store;
	struct pagemap *map = pagemap_create();
	struct packer *packer;
	struct term own;
	char command[200];
	int found;

	options.compress = "none";
	options.seal = seal;
	store = open_store();
	own = take_term(store, "");
	memcpy(page + 100, "SECRETSECRETSECRET", 18);
	assert_ok(packer_create(&packer, store, &own, map, &problem));
	assert_ok(packer_page(packer, pagemap_space(map, SPACE_TASK, 1), 4096, page, &problem));
	assert_ok(packer_commit(packer, NULL, &problem));
	snprintf(command, sizeof(command), "grep -qr SECRETSECRET %s", directory);
	found = system(command);
	pagemap_destroy(map);
	assert_ok(store_retire(store, &own, &problem));
	store_close(store);
	return !found;
}

static void test_plain_text(void **state)
{
	assert_false(in_plain_text("auto"));
	assert_true(in_plain_text("none"));
}

static int small_directory(void **state)
{
	int err = directory_create(state);

	options.compress = "lz4";
	options.buffer_bytes = 0;
	log_set_level(LOG_CRIT);
	return err;
}

#define row(test) cmocka_unit_test_setup_teardown(test, small_directory, directory_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_flip_fields),
		row(test_flip),
		row(test_flip_unsealed),
		row(test_damaged_newest_term),
		row(test_every_header_byte),
		row(test_cut),
		row(test_exchange),
		row(test_blocks_exchanged),
		row(test_missing_segment),
		row(test_link),
		row(test_verify_live),
		row(test_progress),
		row(test_wrong_key),
		row(test_other_cpu),
		row(test_plain_text),
	};
	int failed;

	make_meta();
	make_models();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	free((char *)model_meta);
	return failed;
}
