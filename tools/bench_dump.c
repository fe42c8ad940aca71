// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench dump: a running job's epochs and checkpoints by ckptd against full dumps of it by criu, in
 * turn, in the same run: what each writes against the job's memory, how long the job stands still, and
 * how long until its state is durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "cleanup.h"
#include "commands.h"
#include "directory.h"
#include "init_spec.h"
#include "problem.h"

/* Of one kind of saving: an epoch, a checkpoint, criu dump. */
struct figures {
	struct samples frozen;
	struct samples durable;
	struct samples pages;
	struct samples mib;
};

struct comparison {
	const char *job;
	const char *directory;
	pid_t pid;
	struct samples memory_mib;
	struct samples memory_pages;
	struct figures epoch;
	struct figures ours;
	struct figures criu;
};

/* Epochs come at the class's interval, at most every hour. */
#define EPOCH_PATIENCE_S 4000

static double number(const json_t *object, const char *key)
{
	return (double)json_integer_value(json_object_get(object, key));
}

static json_t *find_job(const char *name)
{
	json_t *request = json_pack("{s:s}", "op", "status");
	json_t *answer = ask(request);
	json_t *job, *found = NULL;
	size_t i;

	json_decref(request);
	json_array_foreach(json_object_get(answer, "jobs"), i, job)
		if (!strcmp(json_string_value(json_object_get(job, "job")), name))
			found = json_incref(job);
	json_decref(answer);
	return found;
}

/* The next one that begins now or later; the first of a job, and one after an error, reads everything. */
static int take_epoch(struct comparison *comparison)
{
	json_t *job = find_job(comparison->job), *epoch;
	double seen = number(job, "epochs");

	for (int tries = 0; job && number(job, "epochs") < seen + 1; tries++) {
		json_decref(job);
		poll(NULL, 0, 100);
		job = tries < EPOCH_PATIENCE_S * 10 ? find_job(comparison->job) : NULL;
	}
	if (!job) {
		say("the job '%s' makes no epochs any more: 'ckptctl status' says why", comparison->job);
		return -ESRCH;
	}
	epoch = json_object_get(job, "last_epoch");
	samples_add(&comparison->memory_mib, number(job, "memory_kib") / 1024);
	samples_add(&comparison->memory_pages, number(job, "memory_kib") / 4);
	samples_add(&comparison->epoch.pages, number(epoch, "pages_written"));
	samples_add(&comparison->epoch.mib, number(epoch, "bytes_written") / (1 << 20));
	json_decref(job);
	return 0;
}

static int take_ours(struct comparison *comparison)
{
	struct figures *figures = &comparison->ours;
	json_t *request = json_pack("{s:s, s:s}", "op", "checkpoint", "job", comparison->job);
	json_t *answer = ask(request), *stats;

	json_decref(request);
	if (!answer)
		return -EIO;
	stats = json_object_get(answer, "checkpoint");
	samples_add(&figures->frozen, number(stats, "frozen_ms"));
	samples_add(&figures->durable, number(stats, "flush_ms"));
	samples_add(&figures->pages, number(stats, "pages_written"));
	samples_add(&figures->mib, number(stats, "bytes_written") / (1 << 20));
	json_decref(answer);
	return 0;
}

static pid_t parent_of(pid_t pid)
{
	char path[64];
	cleanup_fclose FILE *stat = NULL;
	pid_t parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	stat = fopen(path, "re");
	if (!stat || fscanf(stat, "%*d (%*[^)]) %*c %d", &parent) != 1)
		return 0;
	return parent;
}

static uint64_t read_varint(const uint8_t **at, const uint8_t *end)
{
	uint64_t value = 0;

	for (int shift = 0; *at < end && shift < 64; shift += 7) {
		uint8_t byte = *(*at)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			break;
	}
	return value;
}

enum dump_stat {
	DUMP_FROZEN_US = 2,
	DUMP_PAGES_WRITTEN = 7,
};

/* stats-dump: two magics, a size, stats_entry { dump_stats = 1 { frozen_time = 2, pages_written = 7 … } }. */
static double read_stat(const char *directory, enum dump_stat wanted)
{
	char path[4096];
	uint8_t bytes[512];
	cleanup_close int fd = -1;
	const uint8_t *at = bytes + 12, *end;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/stats-dump", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
	if (n < 14 || *at++ != 0x0a)
		return -1;
	read_varint(&at, end = bytes + n);
	while (at < end) {
		uint64_t key = read_varint(&at, end), value = read_varint(&at, end);

		if (key == (uint64_t)wanted << 3)
			return (double)value;
	}
	return -1;
}

static double directory_mib(const char *directory)
{
	char command[4200], text[64] = "";
	FILE *out;

	snprintf(command, sizeof(command), "du -sb '%s'", directory);
	out = popen(command, "re");
	if (!out)
		return 0;
	if (!fgets(text, sizeof(text), out))
		text[0] = '\0';
	pclose(out);
	return atof(text) / (1 << 20);
}

static int run_criu(pid_t init, const char *cgroup, const char *directory)
{
	char target[16], root[16];
	int status;
	pid_t pid;

	snprintf(target, sizeof(target), "%d", init);
	snprintf(root, sizeof(root), "%d", INIT_ROOT_PID);
	pid = fork();
	if (pid == 0) {
		execlp("nsenter", "nsenter", "-t", target, "-p", "-m", "criu", "dump",
		       "--no-default-config", "-t", root, "-D", directory, "-o", "dump.log", "-v1",
		       "--leave-running", "--manage-cgroups=ignore", "--file-locks", "--ghost-limit",
		       "1073741824", "--freeze-cgroup", cgroup, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int job_cgroup(pid_t pid, char *path, size_t bytes)
{
	char file[64], line[4096];
	cleanup_fclose FILE *groups = NULL;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", pid);
	groups = fopen(file, "re");
	while (groups && fgets(line, sizeof(line), groups)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3)) {
			snprintf(path, bytes, "/sys/fs/cgroup%s", line + 3);
			return 0;
		}
	}
	return -ESRCH;
}

static int take_criu(struct comparison *comparison)
{
	const char *directory = comparison->directory;
	struct figures *figures = &comparison->criu;
	char cgroup[4200];
	cleanup_close int fd = -1;
	int64_t begin;
	double frozen_us;
	int ret = directory_make_empty(directory, NULL);

	if (ret == 0)
		ret = job_cgroup(comparison->pid, cgroup, sizeof(cgroup));
	if (ret)
		return ret;
	begin = bench_now_us();
	ret = run_criu(parent_of(comparison->pid), cgroup, directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret || fd < 0 || syncfs(fd)) {
		say("criu dump failed: see %s/dump.log", directory);
		return -EIO;
	}
	samples_add(&figures->durable, (double)(bench_now_us() - begin) / 1000);
	frozen_us = read_stat(directory, DUMP_FROZEN_US);
	if (frozen_us < 0) {
		say("criu's %s/stats-dump cannot be read: is this version of CRIU known to ckpt?", directory);
		return -EPROTO;
	}
	samples_add(&figures->frozen, frozen_us / 1000);
	samples_add(&figures->pages, read_stat(directory, DUMP_PAGES_WRITTEN));
	samples_add(&figures->mib, directory_mib(directory));
	return 0;
}

struct row {
	const char *name;
	struct samples *samples;
};

/* The first row is what the others are compared with. */
static void print_group(struct table *table, const char *unit, const struct row *rows)
{
	table_group(table, unit);
	for (; rows->name; rows++)
		table_row(table, rows->name, rows->samples);
}

static void print(struct comparison *comparison, bool json)
{
	struct figures *criu = &comparison->criu, *ours = &comparison->ours, *epoch = &comparison->epoch;
	struct table table = { .json = json };

	print_group(&table, "pages", (const struct row[]){
		{ "pages: the job's memory (RSS)", &comparison->memory_pages },
		{ "pages written: epoch of ckptd", &epoch->pages },
		{ "pages written: checkpoint of ckptd", &ours->pages },
		{ "pages written: criu dump", &criu->pages }, { 0 } });
	print_group(&table, "MiB", (const struct row[]){
		{ "MiB: the job's memory (RSS)", &comparison->memory_mib },
		{ "MiB written: epoch of ckptd", &epoch->mib },
		{ "MiB written: checkpoint of ckptd", &ours->mib },
		{ "MiB written: criu dump", &criu->mib }, { 0 } });
	print_group(&table, "ms", (const struct row[]){
		{ "job stands still: criu dump", &criu->frozen },
		{ "job stands still: checkpoint of ckptd", &ours->frozen }, { 0 } });
	print_group(&table, "ms", (const struct row[]){
		{ "from there until durable: criu dump", &criu->durable },
		{ "from there until durable: checkpoint of ckptd", &ours->durable }, { 0 } });
	table_end(&table);
}

static int measure(struct comparison *comparison, unsigned int runs, bool json)
{
	json_t *job = find_job(comparison->job);
	int ret = 0;

	comparison->pid = (pid_t)number(job, "pid");
	json_decref(job);
	if (comparison->pid <= 0) {
		say("there is no running job '%s' here; 'ckptctl status' lists them", comparison->job);
		return 1;
	}
	for (unsigned int run = 0; run < runs && ret == 0; run++) {
		say("run %u of %u", run + 1, runs);
		ret = take_epoch(comparison);
		if (ret == 0)
			ret = take_ours(comparison);
		if (ret == 0)
			ret = take_criu(comparison);
	}
	directory_remove(comparison->directory);
	if (ret == 0)
		print(comparison, json);
	return ret ? 1 : 0;
}

int bench_dump(int argc, char **argv)
{
	static const struct option options[] = {
		{ "directory", required_argument, NULL, 'd' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] =
		"Usage: ckptbench dump [--repeat N] [--directory DIR] [--json] JOB\n"
		"Awaits an epoch of a running job (its full name, as in 'ckptctl status'), takes a checkpoint\n"
		"and a full dump of it with 'criu dump', in turn N times (5), and compares what they wrote\n"
		"and how long they took. DIR: for criu's images, on the file system to compare with, best\n"
		"that of the store (/var/lib/ckpt/bench); it is removed.\n";
	struct comparison comparison = { .directory = "/var/lib/ckpt/bench" };
	unsigned int runs = 5;
	bool json = false;
	int option;

	while ((option = getopt_long(argc, argv, "d:r:h", options, NULL)) != -1) {
		switch (option) {
		case 'd': comparison.directory = optarg; break;
		case 'r': runs = (unsigned int)atoi(optarg); break;
		case 'J': json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind + 1 != argc || geteuid() != 0 || runs < 1 || runs > 1000 ||
	    *comparison.directory != '/') {
		fputs(geteuid() ? "ckptbench dump must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	comparison.job = argv[optind];
	return measure(&comparison, runs, json);
}
