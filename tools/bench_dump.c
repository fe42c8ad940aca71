// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench dump: a running job's checkpoints by ckptd against full dumps of it by criu, in turn, in
 * the same run: how long the job stands still, and how long until the state is durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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

struct figures {
	struct samples frozen;
	struct samples durable;
	struct samples mib;
};

static json_t *find_job(const char *name, pid_t *pid)
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
	*pid = (pid_t)json_integer_value(json_object_get(found, "pid"));
	return found;
}

static int take_ours(const char *name, struct figures *figures)
{
	json_t *request = json_pack("{s:s, s:s}", "op", "checkpoint", "job", name);
	json_t *answer = ask(request), *stats;

	json_decref(request);
	if (!answer)
		return -EIO;
	stats = json_object_get(answer, "checkpoint");
	samples_add(&figures->frozen,
		    (double)json_integer_value(json_object_get(stats, "frozen_ms")));
	samples_add(&figures->durable,
		    (double)json_integer_value(json_object_get(stats, "flush_ms")));
	samples_add(&figures->mib,
		    (double)json_integer_value(json_object_get(stats, "bytes_written")) / (1 << 20));
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

/* stats-dump: two magics, a size, stats_entry { dump_stats = 1 { frozen_time = 2 (us) … } }. */
static double read_frozen_ms(const char *directory)
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

		if (key == (2 << 3))
			return (double)value / 1000;
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

static int take_criu(pid_t pid, const char *directory, struct figures *figures)
{
	char cgroup[4200];
	cleanup_close int fd = -1;
	int64_t begin;
	double frozen;
	int ret = directory_make_empty(directory, NULL);

	if (ret == 0)
		ret = job_cgroup(pid, cgroup, sizeof(cgroup));
	if (ret)
		return ret;
	begin = bench_now_us();
	ret = run_criu(parent_of(pid), cgroup, directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret || fd < 0 || syncfs(fd)) {
		say("criu dump failed: see %s/dump.log", directory);
		return -EIO;
	}
	samples_add(&figures->durable, (double)(bench_now_us() - begin) / 1000);
	frozen = read_frozen_ms(directory);
	if (frozen >= 0)
		samples_add(&figures->frozen, frozen);
	samples_add(&figures->mib, directory_mib(directory));
	return 0;
}

static void print_pair(bool json, const char *unit, const char *what, struct samples *criu,
		       struct samples *ours)
{
	struct table table = { .unit = unit, .json = json };
	char name[80];

	snprintf(name, sizeof(name), "%s: criu dump", what);
	table_row(&table, name, criu);
	snprintf(name, sizeof(name), "%s: ckptd", what);
	table_row(&table, name, ours);
	table_end(&table);
}

static int measure(const char *name, const char *directory, unsigned int runs, bool json)
{
	struct figures ours = { 0 }, criu = { 0 };
	pid_t pid;
	json_t *job = find_job(name, &pid);
	int ret = 0;

	if (!job || pid <= 0) {
		say("there is no running job '%s' here; 'ckptctl status' lists them", name);
		return 1;
	}
	json_decref(job);
	for (unsigned int run = 0; run < runs && ret == 0; run++) {
		ret = take_ours(name, &ours);
		if (ret == 0)
			ret = take_criu(pid, directory, &criu);
	}
	directory_remove(directory);
	if (ret == 0) {
		print_pair(json, "ms", "job stands still", &criu.frozen, &ours.frozen);
		print_pair(json, "ms", "until durable", &criu.durable, &ours.durable);
		print_pair(json, "MiB", "written", &criu.mib, &ours.mib);
	}
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
		"Takes checkpoints of a running job (its full name, as in 'ckptctl status') and full dumps\n"
		"of it with 'criu dump', in turn, and compares them. DIR: for criu's images, on the file\n"
		"system to compare with (/var/lib/ckpt/bench); it is removed.\n";
	const char *directory = "/var/lib/ckpt/bench";
	unsigned int runs = 5;
	bool json = false;
	int option;

	while ((option = getopt_long(argc, argv, "d:r:h", options, NULL)) != -1) {
		switch (option) {
		case 'd': directory = optarg; break;
		case 'r': runs = (unsigned int)atoi(optarg); break;
		case 'J': json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind + 1 != argc || geteuid() != 0 || runs < 1 || runs > 1000 || *directory != '/') {
		fputs(geteuid() ? "ckptbench dump must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	return measure(argv[optind], directory, runs, json);
}
