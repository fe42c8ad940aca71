// SPDX-License-Identifier: GPL-2.0
/*
 * Captured directories: what was there at the checkpoint is there after the restore, whatever was done
 * in between, and what did not change costs nothing. As root, the files are another user's, as in life.
 */
#define MODEL_PAGES 1
#include "store_fixture.h"

#include <dirent.h>
#include <sys/un.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <time.h>

#include "bytes.h"
#include "capture.h"
#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "putback.h"

#define USER 65534
#define MIB (1u << 20)

static char work[64];	/* the captured directory, on a disk's file system: its times are to be relied on */
static char tree[80];	/* the same, or a part of it */
static const char *roots[2] = { tree };
static struct capture_options choice = { .roots = roots, .root_count = 1 };
static struct capture_stats stats;
static struct packer_stats packed;
static struct putback_stats back;
static struct store *store;
static struct term own;
static struct pagemap *map;
static struct capture *capture;
static char name[64];
static uint64_t sequence;
static const struct numbers nothing_mapped;

/* ---- files ---- */

static const char *in(const char *path)
{
	static char paths[4][400];
	static unsigned int next;
	char *whole = paths[next++ % 4];

	snprintf(whole, 400, "%s/%s", tree, path);
	return whole;
}

static void give(const char *path)
{
	assert_int_equal(lchown(path, choice.uid, choice.gid), 0);
}

static void write_at_offset(const char *path, off_t offset, uint32_t seed, size_t bytes)
{
	uint8_t *content = malloc(bytes);
	int fd = open(in(path), O_WRONLY | O_CREAT, 0644);

	seed_fill(seed, content, bytes);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, content, bytes, offset), bytes);
	close(fd);
	give(in(path));
	free(content);
}

static void make_directory(const char *path)
{
	assert_int_equal(mkdir(in(path), 0755), 0);
	give(in(path));
}

static void make_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, in(path), sizeof(address.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	give(in(path));
}

static void make_tree(void)
{
	static const struct timespec long_ago[2] = { { .tv_sec = 86400 }, { .tv_sec = 1000000000, .tv_nsec = 7 } };

	make_directory("empty");
	make_directory("a");
	make_directory("a/deep");
	write_at_offset("a/deep/data", 0, 5, 3 * MIB + 123);
	write_at_offset("a/deep/grows", 0, 6, 100);
	write_at_offset("a.txt", 0, 7, 10);
	write_at_offset("nothing", 0, 2, 0);
	write_at_offset("holes", 16 * MIB, 8, 5000);
	write_at_offset("holes", 4 * MIB, 9, 4096);
	assert_int_equal(truncate(in("holes"), 20 * MIB + 1), 0);
	write_at_offset("many", 0, 11, 9000);
	assert_int_equal(link(in("many"), in("a/names")), 0);
	assert_int_equal(symlink("a/deep/data", in("link")), 0);
	assert_int_equal(symlink("nowhere", in("dangling")), 0);
	give(in("link"));
	give(in("dangling"));
	assert_int_equal(mkfifo(in("fifo"), 0640), 0);
	give(in("fifo"));
	make_socket("socket");
	write_at_offset("readonly", 0, 12, 7000);
	assert_int_equal(chmod(in("readonly"), 0444), 0);
	assert_int_equal(setxattr(in("a.txt"), "user.note", "kept", 4, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, in("a.txt"), long_ago, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, in("empty"), long_ago, 0), 0);
	assert_int_equal(chmod(in("a/deep"), 0700), 0);
}

/* ---- what a tree is, in words, to be compared ---- */

static void describe_content(FILE *out, const char *path, off_t size)
{
	cleanup_free uint8_t *content = malloc(size + 1);
	int fd = open(path, O_RDONLY);
	off_t hole, data = 0;
	uint64_t sum = 0;

	assert_int_equal(read(fd, content, size + 1), size);
	for (off_t i = 0; i < size; i++)
		sum = sum * 1099511628211 + content[i];
	fprintf(out, " sum %lx holes", sum);
	while (data < size && (hole = lseek(fd, data, SEEK_HOLE)) >= 0 && hole < size) {
		data = lseek(fd, hole, SEEK_DATA);
		data = data < 0 ? size : data;
		fprintf(out, " %ld-%ld", hole, data);
	}
	close(fd);
}

static FILE *description;

static int describe_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	char text[400] = "";

	if (strstr(path, CAPTURE_ASIDE))
		return 0;
	fprintf(description, "%s: %o %u:%u links %lu %ld.%09ld", path, st->st_mode, st->st_uid, st->st_gid,
		S_ISDIR(st->st_mode) ? 0 : st->st_nlink, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	if (S_ISREG(st->st_mode)) {
		fprintf(description, " size %ld", st->st_size);
		describe_content(description, path, st->st_size);
		if (getxattr(path, "user.note", text, sizeof(text)) > 0)
			fprintf(description, " note %s", text);
	}
	if (S_ISLNK(st->st_mode) && readlink(path, text, sizeof(text) - 1) > 0)
		fprintf(description, " to %s", text);
	fputc('\n', description);
	return 0;
}

static int line_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted: the order of a directory's entries is not ours. */
static char *describe(void)
{
	char *lines[400], *text, *sorted, *line, *place;
	size_t bytes, count = 0;
	FILE *out;

	description = open_memstream(&text, &bytes);
	nftw(tree, describe_entry, 16, FTW_PHYS);
	fclose(description);
	for (line = strtok_r(text, "\n", &place); line; line = strtok_r(NULL, "\n", &place))
		lines[count++] = line;
	qsort(lines, count, sizeof(*lines), line_order);
	out = open_memstream(&sorted, &bytes);
	for (size_t i = 0; i < count; i++)
		fprintf(out, "%s\n", lines[i]);
	fclose(out);
	free(text);
	return sorted;
}

static void expect_tree(const char *wanted)
{
	char *found = describe();

	if (strcmp(wanted, found))
		fail_msg("--- wanted\n%s--- found\n%s", wanted, found);
	free(found);
}

/* ---- checkpoints ---- */

static int try_pass(const struct numbers *mapped, struct packer **packer)
{
	int err;

	memset(&stats, 0, sizeof(stats));
	assert_ok(packer_create(packer, store, &own, map, &problem));
	err = capture_pass(capture, mapped, *packer, map, &stats, &problem);
	if (err) {
		packer_abort(*packer);
		capture_restart(capture);
	}
	return err;
}

static void pass_with(const struct numbers *mapped)
{
	struct packer *packer;

	assert_ok(try_pass(mapped, &packer));
	assert_ok(packer_commit(packer, &packed, &problem));
}

static void pass(void)
{
	pass_with(&nothing_mapped);
}

static void checkpoint(void)
{
	struct packed_file *file = NULL;
	struct manifest manifest = { .term = own.number, .sequence = ++sequence, .meta = "{}", .map = map,
				     .files = &file, .file_count = 1 };
	struct packer *packer;
	uint8_t *bytes;
	size_t length;
	int fd = memfd_create("catalog", 0);

	assert_ok(try_pass(&nothing_mapped, &packer));
	assert_int_equal(catalog_pack(capture_catalog(capture), &bytes, &length), 0);
	assert_int_equal(write(fd, bytes, length), length);
	lseek(fd, 0, SEEK_SET);
	assert_ok(packer_file(packer, CATALOG_NAME, fd, &file, &problem));
	assert_ok(packer_commit(packer, &packed, &problem));
	assert_ok(manifest_commit(store, &own, &manifest, name, &problem));
	packed_file_free(file);
	free(bytes);
	close(fd);
}

static int try_put_back(struct manifest **manifest, struct catalog *catalog)
{
	int err;

	assert_ok(manifest_read(store, name, manifest, &problem));
	err = putback_read_catalog(store, *manifest, catalog, &problem);
	return err ? err : putback_run(store, *manifest, catalog, &choice, &back, &problem);
}

/* The next passes go on from what was put back, as after a restore. */
static void put_back(void)
{
	struct catalog catalog = { 0 };
	struct manifest *manifest;

	assert_ok(try_put_back(&manifest, &catalog));
	pagemap_destroy(map);
	map = manifest->map;
	manifest->map = NULL;
	capture_destroy(capture);
	assert_ok(capture_create(&capture, &choice, &problem));
	capture_adopt(capture, &catalog, map);
	catalog_clear(&catalog);
	manifest_free(manifest);
}

static int try_put_back_only(void)
{
	struct catalog catalog = { 0 };
	struct manifest *manifest;
	int err = try_put_back(&manifest, &catalog);

	catalog_clear(&catalog);
	manifest_free(manifest);
	return err;
}

/* Until times have been seen long enough to be relied on. */
static void pass_until_known(void)
{
	int64_t until_ms = clock_ms() + 60000;

	do {
		assert_true(clock_ms() < until_ms);
		usleep(20000);
		pass();
	} while (stats.files_read);
}

static int begin_in(const char *where)
{
	if (directory_create(NULL))
		return -1;
	snprintf(work, sizeof(work), "%s/ckpt-capture-XXXXXX", where);
	if (!mkdtemp(work))
		return -1;
	snprintf(tree, sizeof(tree), "%s", work);
	choice.uid = geteuid() ? geteuid() : USER;
	choice.gid = geteuid() ? getegid() : USER;
	choice.init_pid = getpid();
	choice.skip_count = 0;
	if (lchown(work, choice.uid, choice.gid))
		return -1;
	store = open_store();
	own = take_term(store, "");
	map = pagemap_create();
	sequence = 0;
	return capture_create(&capture, &choice, &problem);
}

static int begin(void **state)
{
	return begin_in("/var/tmp");
}

static int begin_in_memory(void **state)
{
	return begin_in("/dev/shm");
}

static int end(void **state)
{
	capture_destroy(capture);
	pagemap_destroy(map);
	store_close(store);
	remove_tree(work);
	return directory_remove(NULL);
}

/* ---- everything comes back ---- */

static void test_unchanged(void **state)
{
	char *before;

	make_tree();
	checkpoint();
	before = describe();
	put_back();
	expect_tree(before);
	assert_int_equal(back.files_compared, 0);
	assert_int_equal(back.bytes_written, 0);
	assert_int_equal(back.moved_aside, 0);
	free(before);
}

static bool holds(const char *path, off_t offset, uint32_t seed, size_t bytes)
{
	cleanup_free uint8_t *content = malloc(bytes), *found = malloc(bytes);
	cleanup_close int fd = open(in(path), O_RDONLY);

	seed_fill(seed, content, bytes);
	return pread(fd, found, bytes, offset) == (ssize_t)bytes && !memcmp(found, content, bytes);
}

/* A file that was written just before the checkpoint, and again within the same tick: its times are the same. */
static void test_within_a_tick(void **state)
{
	struct catalog catalog = { 0 };
	struct catalog_entry *entry;
	struct manifest *manifest;
	struct stat st;

	write_at_offset("file", 0, 1, MIB);
	checkpoint();
	write_at_offset("file", 0, 2, MIB);
	assert_ok(manifest_read(store, name, &manifest, &problem));
	assert_ok(putback_read_catalog(store, manifest, &catalog, &problem));
	entry = catalog_find(&catalog, 0, "file");
	assert_int_equal(stat(in("file"), &st), 0);
	entry->modified = st.st_mtim;
	entry->changed = st.st_ctim;
	assert_ok(putback_run(store, manifest, &catalog, &choice, &back, &problem));
	assert_int_equal(back.files_compared, 1);
	assert_true(holds("file", 0, 1, MIB));
	catalog_clear(&catalog);
	manifest_free(manifest);
}

/* What was just put back may be written again within the same tick, so it is read once more. */
static void test_put_back_and_written(void **state)
{
	write_at_offset("file", 0, 1, MIB);
	checkpoint();
	write_at_offset("file", 0, 2, MIB);
	put_back();
	pass();
	assert_int_equal(stats.files_read, 1);
	assert_int_equal(packed.pages_packed, 0);
}

/* On tmpfs no time tells of it, however long ago it was. */
static void test_tmpfs_mapped(void **state)
{
	int fd;
	uint8_t *memory;

	write_at_offset("file", 0, 1, MIB);
	fd = open(in("file"), O_RDWR);
	memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	*(volatile uint8_t *)memory = memory[0];
	usleep((CATALOG_TICK_MS + 100) * 1000);
	write_at_offset("other", 0, 3, 10);
	checkpoint();
	memory[5]++;
	munmap(memory, MIB);
	put_back();
	assert_int_equal(back.files_compared, 1);
	assert_true(holds("file", 0, 1, MIB));
}

static void change_tree(void)
{
	write_at_offset("a/deep/data", 5000, 77, 300);
	write_at_offset("a/deep/grows", 100, 78, MIB);
	assert_int_equal(truncate(in("nothing"), 12345), 0);
	write_at_offset("holes", 0, 79, 20 * MIB);
	assert_int_equal(unlink(in("many")), 0);
	write_at_offset("many", 0, 80, 9000);
	assert_int_equal(unlink(in("link")), 0);
	assert_int_equal(symlink("a.txt", in("link")), 0);
	assert_int_equal(unlink(in("dangling")), 0);
	write_at_offset("dangling", 0, 81, 10);
	assert_int_equal(unlink(in("fifo")), 0);
	make_directory("fifo");
	assert_int_equal(unlink(in("readonly")), 0);
	assert_int_equal(rename(in("empty"), in("renamed")), 0);
	assert_int_equal(setxattr(in("a.txt"), "user.note", "changed", 7, 0), 0);
	assert_int_equal(chmod(in("a.txt"), 0600), 0);
	assert_int_equal(chmod(in("a/deep"), 0711), 0);
	write_at_offset("new", 0, 82, 100);
	make_directory("newer");
	write_at_offset("newer/file", 0, 83, 100);
}

static void test_changed(void **state)
{
	char *before;

	make_tree();
	checkpoint();
	before = describe();
	change_tree();
	put_back();
	expect_tree(before);
	/* dangling, fifo, link, new, newer, renamed: nobody's file is deleted */
	assert_true(back.moved_aside >= 6);
	assert_int_equal(access(in(CAPTURE_ASIDE "/newer.1/file"), F_OK), 0);
	assert_int_equal(access(in(CAPTURE_ASIDE "/new.1"), F_OK), 0);
	/* And once more, with names that are taken there. */
	change_tree();
	put_back();
	expect_tree(before);
	assert_int_equal(access(in(CAPTURE_ASIDE "/new.2"), F_OK), 0);
	free(before);
}

/* A file system may give less than what was asked for, and there is more. */
static void test_little_at_a_time(void **state)
{
	char *before;

	make_tree();
	assert_int_equal(fault_arm("pread.no_more"), 0);
	checkpoint();
	fault_arm(NULL);
	before = describe();
	change_tree();
	put_back();
	expect_tree(before);
	free(before);
}

static void test_lost(void **state)
{
	char *before;

	snprintf(tree, sizeof(tree), "%s/scratch", work);
	assert_int_equal(mkdir(tree, 0755), 0);
	give(tree);
	capture_destroy(capture);
	assert_ok(capture_create(&capture, &choice, &problem));
	make_tree();
	checkpoint();
	before = describe();
	remove_tree(tree);
	put_back();
	/* Sockets are made by who binds them. */
	make_socket("socket");
	free(before);
	checkpoint();
	before = describe();
	put_back();
	expect_tree(before);
	free(before);
}

static void test_interrupted(void **state)
{
	char *before;

	make_tree();
	checkpoint();
	before = describe();
	change_tree();
	assert_int_equal(fault_arm("putback.content:3=EIO"), 0);
	assert_err(try_put_back_only(), EIO);
	fault_arm(NULL);
	put_back();
	expect_tree(before);
	free(before);
}

/* Checkpoints in a row, each with something else; back to the last, then on. */
static void test_rounds(void **state)
{
	char *before = NULL;

	make_tree();
	for (unsigned int round = 0; round < 8; round++) {
		char path[32];

		snprintf(path, sizeof(path), "round%u", round);
		write_at_offset(path, 0, 100 + round, 10000);
		write_at_offset("a/deep/data", round * 50000, 200 + round, 5000);
		checkpoint();
		free(before);
		before = describe();
		write_at_offset("a/deep/data", round * 70000, 300 + round, 9000);
		unlink(in(path));
		if (round % 2) {
			put_back();
			expect_tree(before);
		}
	}
	free(before);
}

/* ---- what it costs ---- */

#define SCRATCH		(1024 * MIB)

static void test_little_changed(void **state)
{
	uint64_t random = 99;
	unsigned int i;

	write_at_offset("big", 0, 4, SCRATCH);
	checkpoint();
	assert_true(packed.bytes_written > SCRATCH / 4);
	pass_until_known();
	assert_int_equal(packed.bytes_written, 0);
	for (i = 0; i < SCRATCH / 4096 / 100; i++)
		write_at_offset("big", next_random(&random) % (SCRATCH / 4096) * 4096, 1000 + 4 * i, 4096);
	checkpoint();
	print_message("1 %% of 1 GiB changed: %lu bytes written\n", packed.bytes_written);
	assert_true(packed.bytes_written < SCRATCH / 50);
}

static void test_renamed(void **state)
{
	write_at_offset("old", 0, 4, MIB);
	checkpoint();
	assert_int_equal(rename(in("old"), in("new")), 0);
	assert_int_equal(link(in("new"), in("other")), 0);
	pass();
	assert_int_equal(packed.pages_packed, 0);
}

static void test_after_restore(void **state)
{
	write_at_offset("kept", 0, 4, MIB);
	write_at_offset("written", 0, 8, MIB);
	checkpoint();
	write_at_offset("written", 0, 12, 4096);
	put_back();
	pass();
	assert_int_equal(packed.pages_packed, 0);
	write_at_offset("written", 8192, 16, 4096);
	pass();
	assert_int_equal(packed.pages_packed, 1);
}

static void test_removed(void **state)
{
	write_at_offset("gone", 0, 4, MIB);
	pass();
	assert_int_equal(pagemap_pages(map), 256);
	assert_int_equal(unlink(in("gone")), 0);
	pass();
	assert_int_equal(pagemap_pages(map), 0);
}

/* ---- what times do not tell ---- */

static void test_known(void **state)
{
	write_at_offset("file", 0, 4, MIB);
	pass();
	assert_int_equal(stats.files_read, 1);
	pass();
	assert_int_equal(stats.files_read, 1);
	pass_until_known();
	pass();
	assert_int_equal(stats.files_read, 0);
	write_at_offset("file", 4096, 8, 1);
	pass();
	assert_int_equal(stats.files_read, 1);
	assert_int_equal(packed.pages_packed, 1);
}

static void test_mapped(void **state)
{
	struct numbers mapped = { .count = 1 };
	struct stat st;
	uint8_t *memory;
	int fd;

	write_at_offset("file", 0, 4, MIB);
	fd = open(in("file"), O_RDWR);
	memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memory[0]++;
	pass_until_known();
	assert_int_equal(fstat(fd, &st), 0);
	mapped.list = &st.st_ino;
	pass_with(&mapped);
	assert_int_equal(stats.files_read, 1);
	/* The page is dirty already: this sets no times. */
	memory[1]++;
	pass_with(&mapped);
	assert_int_equal(packed.pages_packed, 1);
	munmap(memory, MIB);
	close(fd);
	/* It may have been written after the pass before this one. */
	pass();
	assert_int_equal(stats.files_read, 1);
}

static void test_tmpfs(void **state)
{
	write_at_offset("file", 0, 4, MIB);
	pass();
	for (unsigned int i = 0; i < 3; i++) {
		pass();
		assert_int_equal(stats.files_read, 1);
		assert_int_equal(packed.pages_packed, 0);
	}
}

static void test_failed_pass(void **state)
{
	struct packer *packer;
	char *before;

	make_tree();
	assert_ok(try_pass(&nothing_mapped, &packer));
	packer_abort(packer);
	capture_restart(capture);
	checkpoint();
	before = describe();
	remove_tree(in("a"));
	put_back();
	expect_tree(before);
	free(before);
}

/* ---- whose it is ---- */

static void test_skipped(void **state)
{
	struct capture_skip skip[2];
	struct stat st;

	write_at_offset("output", 0, 4, 100);
	make_directory("store");
	write_at_offset("store/segment", 0, 8, 100);
	assert_int_equal(stat(in("output"), &st), 0);
	skip[0] = (struct capture_skip){ st.st_dev, st.st_ino };
	assert_int_equal(stat(in("store"), &st), 0);
	skip[1] = (struct capture_skip){ st.st_dev, st.st_ino };
	choice.skip = skip;
	choice.skip_count = 2;
	capture_destroy(capture);
	assert_ok(capture_create(&capture, &choice, &problem));
	checkpoint();
	assert_int_equal(stats.files_read, 0);
	write_at_offset("output", 100, 12, 100);
	write_at_offset("store/manifest", 0, 16, 100);
	put_back();
	assert_int_equal(stat(in("output"), &st), 0);
	assert_int_equal(st.st_size, 200);
	assert_int_equal(access(in("store/manifest"), F_OK), 0);
	assert_int_equal(back.moved_aside, 0);
}

static void test_not_readable(void **state)
{
	struct stat st;
	int fd;

	if (geteuid()) {
		skip();
		return;
	}
	fd = open(in("roots"), O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "secret", 6), 6);
	checkpoint();
	assert_int_equal(stats.files_read, 0);
	assert_int_equal(write(fd, " more", 5), 5);
	close(fd);
	put_back();
	assert_int_equal(stat(in("roots"), &st), 0);
	assert_int_equal(st.st_size, 11);
}

/* A directory that has become a link must not lead root out of the tree. */
static void test_link_away(void **state)
{
	char outside[128], path[160];
	char *before;

	snprintf(outside, sizeof(outside), "%s-outside", work);
	assert_int_equal(mkdir(outside, 0777), 0);
	assert_int_equal(chmod(outside, 0777), 0);
	make_directory("d");
	write_at_offset("d/file", 0, 4, 100);
	checkpoint();
	before = describe();
	remove_tree(in("d"));
	assert_int_equal(symlink(outside, in("d")), 0);
	put_back();
	snprintf(path, sizeof(path), "%s/file", outside);
	assert_int_equal(access(path, F_OK), -1);
	expect_tree(before);
	remove_tree(outside);
	free(before);
}

static void test_root_gone(void **state)
{
	struct packer *packer;

	remove_tree(work);
	assert_err(try_pass(&nothing_mapped, &packer), ENOENT);
	assert_non_null(strstr(problem.text, work));
}

static unsigned int count_descriptors(void)
{
	DIR *descriptors = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (readdir(descriptors))
		count++;
	closedir(descriptors);
	return count;
}

static void test_too_deep(void **state)
{
	int at = open(tree, O_PATH | O_CLOEXEC);
	unsigned int before;
	struct packer *packer;

	for (unsigned int i = 0; i < 260; i++) {
		int inner;

		assert_int_equal(mkdirat(at, "d", 0755), 0);
		inner = openat(at, "d", O_PATH | O_CLOEXEC);
		close(at);
		at = inner;
	}
	close(at);
	before = count_descriptors();
	assert_err(try_pass(&nothing_mapped, &packer), ELOOP);
	assert_int_equal(count_descriptors(), before);
}

static void test_roots_within(void **state)
{
	roots[1] = "/var/tmp";
	choice.root_count = 2;
	capture_destroy(capture);
	assert_ok(capture_create(&capture, &choice, &problem));
	choice.root_count = 1;
	roots[1] = NULL;
	capture_destroy(capture);
	roots[1] = tree;
	choice.root_count = 2;
	assert_ok(capture_create(&capture, &choice, &problem));
	choice.root_count = 1;
	pass();
	assert_int_equal(capture_catalog(capture)->root_count, 1);
}

/* ---- damage ---- */

static void damage_segments(void)
{
	DIR *list;
	struct dirent *entry;
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", directory, JOB);
	list = opendir(path);
	while ((entry = readdir(list))) {
		uint8_t byte;
		int fd;

		if (strncmp(entry->d_name, "seg-", 4))
			continue;
		fd = openat(dirfd(list), entry->d_name, O_RDWR);
		if (fd < 0) {
			fchmodat(dirfd(list), entry->d_name, 0600, 0);
			fd = openat(dirfd(list), entry->d_name, O_RDWR);
		}
		if (pread(fd, &byte, 1, 5000) == 1) {
			byte ^= 1;
			assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
		}
		close(fd);
	}
	closedir(list);
}

static void test_damaged(void **state)
{
	write_at_offset("file", 0, 4, MIB);
	pass();
	checkpoint();
	write_at_offset("file", 0, 8, MIB);
	damage_segments();
	assert_err(try_put_back_only(), EBADMSG);
	assert_non_null(strstr(problem.text, "seg-"));
}

static void test_catalog_damaged(void **state)
{
	struct catalog catalog = { 0 };
	uint64_t random = 4711;
	uint8_t *bytes, *copy;
	size_t length;
	unsigned int valid = 0;

	make_tree();
	pass();
	assert_int_equal(catalog_pack(capture_catalog(capture), &bytes, &length), 0);
	assert_ok(catalog_parse(&catalog, bytes, length, &problem));
	assert_int_equal(catalog.entry_count, capture_catalog(capture)->entry_count);
	catalog_clear(&catalog);
	copy = malloc(length);
	for (size_t cut = 0; cut < length; cut++) {
		assert_err(catalog_parse(&catalog, bytes, cut, &problem), EBADMSG);
		catalog_clear(&catalog);
	}
	for (unsigned int i = 0; i < 20000; i++) {
		memcpy(copy, bytes, length);
		for (unsigned int n = 1 + next_random(&random) % 3; n; n--)
			copy[next_random(&random) % length] = next_random(&random);
		valid += !catalog_parse(&catalog, copy, length, &problem);
		catalog_clear(&catalog);
	}
	/* Times, numbers and names may be any. */
	assert_true(valid < 20000);
	free(copy);
	free(bytes);
}

/* Hand-made: what a path must not be. */
static void test_catalog_paths(void **state)
{
	static const char *const bad[] = { "..", "a/..", "../a", "a//b", "/a", "a/", ".", "a/./b", "x/y" };
	struct catalog catalog = { 0 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct catalog made = { 0 };
		struct catalog_entry *entry;
		uint8_t *bytes;
		size_t length;

		assert_int_equal(catalog_add_root(&made, "/r"), 0);
		entry = catalog_add(&made);
		*entry = (struct catalog_entry){ .mode = S_IFDIR | 0755, .path = strdup("") };
		entry = catalog_add(&made);
		*entry = (struct catalog_entry){ .mode = S_IFREG | 0644, .path = strdup(bad[i]) };
		assert_int_equal(catalog_pack(&made, &bytes, &length), 0);
		assert_err(catalog_parse(&catalog, bytes, length, &problem), EBADMSG);
		catalog_clear(&catalog);
		catalog_clear(&made);
		free(bytes);
	}
}

#define row(test) cmocka_unit_test_setup_teardown(test, begin, end)
#define row_in_memory(test) cmocka_unit_test_setup_teardown(test, begin_in_memory, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(test_unchanged),
		row(test_within_a_tick),
		row(test_put_back_and_written),
		row_in_memory(test_tmpfs_mapped),	row(test_changed),	 row(test_lost),
		row(test_interrupted),	row(test_rounds),	 row(test_little_changed),
		row(test_renamed),	row(test_after_restore), row(test_removed),
		row(test_known),	row(test_mapped),	 row_in_memory(test_tmpfs),
		row(test_failed_pass),	row(test_skipped),	 row(test_not_readable),
		row(test_link_away),	row(test_root_gone),	 row(test_roots_within),
		row(test_damaged),	row(test_catalog_damaged), row(test_catalog_paths),
		row(test_little_at_a_time), row(test_too_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
