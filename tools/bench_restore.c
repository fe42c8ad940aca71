// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench restore: how fast a checkpoint is read, and a process made of it, against fio and against
 * `criu restore` of the chain of dumps that criu makes of the same process at the same moments.  In turn,
 * in one run, and each time from storage: the page cache is emptied before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "bench_environment.h"
#include "bench_report.h"
#include "cleanup.h"
#include "commands.h"
#include "directory.h"
#include "log.h"
#include "manifest.h"
#include "packed_file.h"
#include "packer.h"
#include "restore.h"
#include "store.h"

#define MIB (1u << 20)
#define DUMPS 4                 /* in the chain; between them a tenth of the memory is written */
#define FILES_MAX 64
#define FIO_BLOCK "256k"        /* as large as our blocks are */

struct bench {
	const char *directory;
	size_t bytes;
	unsigned int repeat;
	bool json;
	bool has_criu;
	pid_t pid;
	uint8_t *memory;        /* the same address in the process */
	struct store *store;
	struct term term;
	struct pagemap *map;
	char name[64];          /* of the checkpoint */
	struct problem problem;
	struct samples fio, read, unpack, ours, criu;
};

/* ---- the process ---- */

/* Nothing of it is connected with us, so that criu can dump it. */
__attribute__((noreturn)) static void process_main(const struct bench *bench, int ready)
{
	size_t part = bench->bytes / 10 / PAGE_BYTES * PAGE_BYTES;
	sigset_t order;
	int number;

	setsid();
	sigemptyset(&order);
	sigaddset(&order, SIGUSR1);
	sigprocmask(SIG_SETMASK, &order, NULL);
	bench_fill((uint64_t *)bench->memory, bench->bytes, 1);
	if (chdir("/") || write(ready, "+", 1) != 1)
		_exit(1);
	for (int fd = 0; fd < 3; fd++)
		dup2(open("/dev/null", O_RDWR), fd);
	syscall(SYS_close_range, 3, ~0U, 0);
	for (uint64_t round = 0; sigwait(&order, &number) == 0; round++) {
		bench_fill((uint64_t *)(bench->memory + round % 10 * part), part, round + 2);
		raise(SIGSTOP);
	}
	_exit(0);
}

static int process_start(struct bench *bench)
{
	int ready[2];
	char byte;

	bench->memory = mmap(NULL, bench->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bench->memory == MAP_FAILED || pipe2(ready, O_CLOEXEC))
		return -errno;
	bench->pid = fork();
	if (bench->pid == 0)
		process_main(bench, ready[1]);
	close(ready[1]);
	if (bench->pid < 0 || read(ready[0], &byte, 1) != 1)
		return -EIO;
	close(ready[0]);
	return 0;
}

static int process_write(const struct bench *bench)
{
	int status;

	if (kill(bench->pid, SIGUSR1) || waitpid(bench->pid, &status, WUNTRACED) != bench->pid ||
	    !WIFSTOPPED(status))
		return -EIO;
	return kill(bench->pid, SIGCONT) ? -errno : 0;
}

static void process_end(struct bench *bench)
{
	if (bench->pid <= 0)
		return;
	kill(bench->pid, SIGKILL);
	waitpid(bench->pid, NULL, 0);
}

/* ---- what is restored ---- */

static int run_criu(const struct bench *bench, const char *action, const char *images, const char *const more[])
{
	const char *arguments[32] = { "criu", action, "--no-default-config", "-D", images, "-o", "log", "-v1",
				      "--manage-cgroups=ignore" };
	size_t count = 9;
	int status;
	pid_t pid;

	for (; *more; more++)
		arguments[count++] = *more;
	pid = fork();
	if (pid == 0) {
		execvp("criu", (char *const *)arguments);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

static void chain_path(const struct bench *bench, unsigned int number, char *path, size_t bytes)
{
	snprintf(path, bytes, "%s/chain-%u", bench->directory, number);
}

static int chain_dump(struct bench *bench, unsigned int number)
{
	char path[4096], parent[32], pid[16];
	const char *more[] = { "-t", pid, "--leave-running", "--track-mem", number ? "--prev-images-dir" : NULL,
			       parent, NULL };

	chain_path(bench, number, path, sizeof(path));
	snprintf(parent, sizeof(parent), "../chain-%u", number - 1);
	snprintf(pid, sizeof(pid), "%d", bench->pid);
	if (directory_make_empty(path, &bench->problem)) {
		say("%s", bench->problem.text);
		return -EIO;
	}
	return run_criu(bench, "dump", path, more);
}

static int stream(struct bench *bench, struct packer *packer)
{
	struct packer_source pages = { .pid = bench->pid,
				       .space = pagemap_space(bench->map, SPACE_TASK, (uint64_t)bench->pid) };
	uint64_t start = (uintptr_t)bench->memory;
	int err = packer_read(packer, &pages, start, start + bench->bytes, &bench->problem);

	return err ? err : packer_wait(packer, &bench->problem);
}

static int epoch(struct bench *bench)
{
	struct packer *packer;
	int err = packer_create(&packer, bench->store, &bench->term, bench->map, &bench->problem);

	if (err)
		return err;
	err = stream(bench, packer);
	if (!err)
		err = packer_commit(packer, NULL, &bench->problem);
	if (err)
		packer_abort(packer);
	return err;
}

/* criu's pages of the process besides the large mapping: its stack, its libraries' data. */
struct image_entry {
	uint64_t address, pages;
};

static uint64_t read_varint(FILE *file, uint32_t *left)
{
	uint64_t value = 0;

	for (int shift = 0; *left && shift < 64; shift += 7) {
		int byte = fgetc(file);

		--*left;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			break;
	}
	return value;
}

/* pagemap_entry: vaddr = 1, nr_pages = 2, or 5 from 4.2 on. */
static bool read_entry(FILE *file, struct image_entry *entry)
{
	uint32_t left;

	*entry = (struct image_entry){ 0 };
	if (fread(&left, sizeof(left), 1, file) != 1)
		return false;
	while (left) {
		uint64_t field = read_varint(file, &left), value = read_varint(file, &left);

		if (field == 1 << 3)
			entry->address = value;
		else if ((field == 2 << 3 || field == 5 << 3) && value)
			entry->pages = value;
	}
	return true;
}

static int stream_other(struct bench *bench, const char *images, struct packer *packer)
{
	struct packer_source pages = { .pid = bench->pid,
				       .space = pagemap_space(bench->map, SPACE_TASK, (uint64_t)bench->pid) };
	cleanup_fclose FILE *file = NULL;
	struct image_entry entry;
	char path[4200];
	int err = 0;

	snprintf(path, sizeof(path), "%s/pagemap-%d.img", images, bench->pid);
	file = fopen(path, "re");
	/* Two magics, and the record of the head. */
	if (!file || fseek(file, 8, SEEK_SET) || !read_entry(file, &entry))
		return -EIO;
	while (!err && read_entry(file, &entry)) {
		uint64_t end = entry.address + entry.pages * PAGE_BYTES, start = (uintptr_t)bench->memory;

		if (entry.address < start || entry.address >= start + bench->bytes)
			err = packer_read(packer, &pages, entry.address, end, &bench->problem);
	}
	return err ? err : packer_wait(packer, &bench->problem);
}

static bool is_small_image(const char *name)
{
	return strstr(name, ".img") && strncmp(name, "pages", 5) && strncmp(name, "pagemap", 7);
}

static int pack_images(struct bench *bench, const char *images, struct packer *packer, struct packed_file **files,
		       size_t *count)
{
	struct dirent *entry;
	DIR *dir = opendir(images);
	int err = dir ? 0 : -errno;

	while (!err && (entry = readdir(dir))) {
		cleanup_close int fd = -1;

		if (!is_small_image(entry->d_name) || *count == FILES_MAX)
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		err = fd < 0 ? -errno : packer_file(packer, entry->d_name, fd, &files[*count], &bench->problem);
		*count += !err;
	}
	if (dir)
		closedir(dir);
	return err;
}

/* The last dump of the chain says what there is besides the pages. */
static int checkpoint(struct bench *bench)
{
	struct packed_file *files[FILES_MAX];
	struct manifest manifest = { .term = bench->term.number, .sequence = 1, .meta = (char *)"{}",
				     .map = bench->map, .files = files };
	struct packer *packer;
	char images[4096];
	int err = packer_create(&packer, bench->store, &bench->term, bench->map, &bench->problem);

	if (err)
		return err;
	chain_path(bench, DUMPS - 1, images, sizeof(images));
	err = stream(bench, packer);
	if (!err && bench->has_criu)
		err = stream_other(bench, images, packer);
	if (!err && bench->has_criu)
		err = pack_images(bench, images, packer, files, &manifest.file_count);
	if (!err)
		err = packer_commit(packer, NULL, &bench->problem);
	if (err)
		packer_abort(packer);
	else
		err = manifest_commit(bench->store, &bench->term, &manifest, bench->name, &bench->problem);
	while (manifest.file_count)
		packed_file_free(files[--manifest.file_count]);
	return err;
}

static int store_make(struct bench *bench, const char *seal)
{
	static const struct keys keys = { .count = 1, .list = { { 1 } } };
	struct store_options options = { .directory = bench->directory, .keys = &keys, .seal = seal,
					 .uid = geteuid(), .gid = getegid(), .compress = "lz4",
					 .buffer_bytes = 64 * MIB };
	struct term previous;
	int err = store_open(&bench->store, &options, "0-ckptbench", &bench->problem);

	bench->map = pagemap_create();
	if (!err)
		err = store_read_term(bench->store, &previous, &bench->problem);
	if (!err)
		err = store_take_term(bench->store, &previous, "bench", "", &bench->term, &bench->problem);
	return err;
}

/* The same moments for both. */
static int prepare(struct bench *bench)
{
	int err = process_start(bench);

	for (unsigned int number = 0; number < DUMPS && !err; number++) {
		if (number)
			err = process_write(bench);
		if (!err)
			err = epoch(bench);
		if (!err && bench->has_criu && chain_dump(bench, number)) {
			say("criu dump does not work here: it is not compared with");
			bench->has_criu = false;
		}
	}
	return err ? err : checkpoint(bench);
}

/* ---- restoring ---- */

static void forget_caches(void)
{
	cleanup_close int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	sync();
	if (fd < 0 || write(fd, "3", 1) != 1)
		say("the page cache cannot be emptied: what is read may come from memory");
}

static double seconds_since(int64_t begin_us)
{
	return (double)(bench_now_us() - begin_us) / 1e6;
}

static double speed(const struct bench *bench, double seconds)
{
	return (double)bench->bytes / MIB / seconds;
}

static int take_fio(struct bench *bench)
{
	char command[4600];
	json_t *report, *job;
	FILE *output;
	double ms;

	snprintf(command, sizeof(command), "cd '%s' && fio --name=ckptbench --filename=ckptbench-fio --rw=read "
		 "--direct=1 --ioengine=io_uring --size=%zu --bs=" FIO_BLOCK " --iodepth=32 "
		 "--output-format=json 2>&1", bench->directory, bench->bytes);
	output = popen(command, "re");
	if (!output)
		return -errno;
	report = json_loadf(output, JSON_DISABLE_EOF_CHECK, NULL);
	job = json_array_get(json_object_get(report, "jobs"), 0);
	ms = json_number_value(json_object_get(job, "job_runtime"));
	json_decref(report);
	if (pclose(output) || ms <= 0)
		return -EIO;
	samples_add(&bench->fio, speed(bench, ms / 1000));
	return 0;
}

/* Reads, opens, unpacks and checks all of it, and writes nothing. */
static int take_read(struct bench *bench)
{
	struct manifest *manifest;
	int64_t begin;
	int err;

	forget_caches();
	begin = bench_now_us();
	err = manifest_read(bench->store, bench->name, &manifest, &bench->problem);
	if (err)
		return err;
	err = manifest_verify(bench->store, manifest, &bench->problem);
	samples_add(&bench->read, speed(bench, seconds_since(begin)));
	manifest_free(manifest);
	return err;
}

static int restore_criu(struct bench *bench, const char *images)
{
	const char *const more[] = { "-d", NULL };

	process_end(bench);
	return run_criu(bench, "restore", images, more);
}

static int take_ours(struct bench *bench)
{
	struct manifest *manifest;
	char images[4096];
	int64_t begin;
	int err;

	snprintf(images, sizeof(images), "%s/images", bench->directory);
	process_end(bench);
	forget_caches();
	begin = bench_now_us();
	err = manifest_read(bench->store, bench->name, &manifest, &bench->problem);
	if (err)
		return err;
	err = restore_unpack(bench->store, manifest, images, NULL, NULL, NULL, &bench->problem);
	samples_add(&bench->unpack, speed(bench, seconds_since(begin)));
	manifest_free(manifest);
	if (!err && bench->has_criu)
		err = restore_criu(bench, images);
	samples_add(&bench->ours, seconds_since(begin));
	directory_remove(images);
	return err;
}

static int take_criu(struct bench *bench)
{
	char images[4096];
	int64_t begin;
	int err;

	chain_path(bench, DUMPS - 1, images, sizeof(images));
	process_end(bench);
	forget_caches();
	begin = bench_now_us();
	err = restore_criu(bench, images);
	samples_add(&bench->criu, seconds_since(begin));
	return err;
}

static int measure(struct bench *bench)
{
	int err = 0;

	for (unsigned int round = 0; round < bench->repeat && !err; round++) {
		err = take_fio(bench);
		if (!err)
			err = take_read(bench);
		if (!err)
			err = take_ours(bench);
		if (!err && bench->has_criu)
			err = take_criu(bench);
	}
	return err;
}

static int print(struct bench *bench, const char *seal)
{
	struct table table = { .json = bench->json, .cells = json_array() };
	json_t *environment = bench_environment(), *report;
	int status;

	table_group(&table, "MiB/s");
	table_row(&table, "fio: read, io_uring, " FIO_BLOCK ", depth 32", &bench->fio);
	table_row(&table, "ckpt: read and checked", &bench->read);
	table_row(&table, "ckpt: the same, and images written", &bench->unpack);
	if (bench->has_criu) {
		table_group(&table, "s");
		table_row(&table, "criu restore: its chain of 4 dumps", &bench->criu);
		table_row(&table, "ckpt: all, with criu restore", &bench->ours);
	}
	json_object_set_new(environment, "directory", json_string(bench->directory));
	json_object_set_new(environment, "mib", json_integer((json_int_t)(bench->bytes / MIB)));
	json_object_set_new(environment, "seal", json_string(seal));
	report = json_pack("{s:o, s:o}", "environment", environment, "cells", table.cells);
	status = bench_report(report, "restore", bench->json);
	json_decref(report);
	return status;
}

static int run(struct bench *bench, const char *seal)
{
	int err = directory_make_empty(bench->directory, &bench->problem);

	log_set_level(LOG_ERR);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	bench->has_criu = system("criu check --feature mem_dirty_track >/dev/null 2>&1") == 0;
	if (!bench->has_criu)
		say("criu cannot make incremental dumps here: it is not compared with");
	if (!err)
		err = store_make(bench, seal);
	if (!err)
		err = prepare(bench);
	if (!err)
		err = measure(bench);
	process_end(bench);
	if (bench->store)
		store_close(bench->store);
	directory_remove(bench->directory);
	if (err)
		say("the measurement failed: %s", bench->problem.text[0] ? bench->problem.text : strerror(-err));
	return err ? 1 : print(bench, seal);
}

static const char usage[] =
	"Usage: ckptbench restore [--mib N] [--repeat N] [--directory DIR] [--seal auto|none] [--json]\n"
	"\n"
	"How fast a checkpoint is read from its store and a process made of it again; medians, each time with an\n"
	"empty page cache. As root. What it is compared with: fio reads as many bytes with O_DIRECT; criu restores\n"
	"the chain of 4 dumps that it made when ckpt streamed. A tenth of the memory is written between them.\n"
	"\n"
	"  --mib N                 memory of the process, incompressible (1024)\n"
	"  --repeat N              times that each figure is measured (5)\n"
	"  --directory DIR         on the storage to measure (/var/tmp/ckptbench); what is in it is removed\n"
	"  --seal auto|none        as in a class (auto)\n"
	"  --json                  all as JSON\n";

int bench_restore(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "directory", required_argument, NULL, 'd' },
		{ "seal", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct bench bench = { .directory = "/var/tmp/ckptbench", .repeat = 5 };
	const char *seal = "auto";
	unsigned int mib = 1024;
	int option;

	while ((option = getopt_long(argc, argv, "m:r:d:h", options, NULL)) != -1) {
		switch (option) {
		case 'm': mib = (unsigned int)atoi(optarg); break;
		case 'r': bench.repeat = (unsigned int)atoi(optarg); break;
		case 'd': bench.directory = optarg; break;
		case 's': seal = optarg; break;
		case 'J': bench.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || geteuid() || mib < 1 || mib > 1 << 20 || bench.repeat < 1 || bench.repeat > 1000 ||
	    *bench.directory != '/' || (strcmp(seal, "auto") && strcmp(seal, "none"))) {
		fputs(geteuid() ? "ckptbench restore must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	bench.bytes = (size_t)mib * MIB;
	return run(&bench, seal);
}
