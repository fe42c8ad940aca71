// SPDX-License-Identifier: GPL-2.0
/* criu, as the peer of `ckptbench dump`. */
#include "bench_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "commands.h"
#include "directory.h"
#include "init_spec.h"
#include "proc.h"

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

static int run_criu(enum peer_dump how, pid_t init, const char *cgroup, const char *directory)
{
	static const char *const options[][5] = {
		[PEER_FULL] = { "dump", "--leave-running" },
		[PEER_BASE] = { "pre-dump", "--track-mem" },
		[PEER_INCREMENTAL] = { "dump", "--leave-running", "--track-mem", "--prev-images-dir", "../base" },
	};
	const char *const *chosen = options[how];
	char target[16], root[16];
	int status;
	pid_t pid;

	snprintf(target, sizeof(target), "%d", init);
	snprintf(root, sizeof(root), "%d", INIT_ROOT_PID);
	pid = fork();
	if (pid == 0) {
		execlp("nsenter", "nsenter", "-t", target, "-p", "-m", "criu", chosen[0],
		       "--no-default-config", "-t", root, "-D", directory, "-o", "dump.log", "-v1",
		       "--manage-cgroups=ignore", "--file-locks", "--ghost-limit", "1073741824",
		       "--freeze-cgroup", cgroup, chosen[1], chosen[2], chosen[3], chosen[4], NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int figures_read(struct figures *figures, const char *directory)
{
	double frozen_us = read_stat(directory, DUMP_FROZEN_US);

	if (frozen_us < 0) {
		say("criu's %s/stats-dump cannot be read: is this version of CRIU known to ckpt?", directory);
		return -EPROTO;
	}
	samples_add(&figures->frozen, frozen_us / 1000);
	samples_add(&figures->pages, read_stat(directory, DUMP_PAGES_WRITTEN));
	samples_add(&figures->mib, directory_mib(directory));
	return 0;
}

static int take(enum peer_dump how, pid_t pid, const char *directory, struct figures *figures)
{
	cleanup_close int fd = -1;
	char cgroup[4200];
	int64_t begin;
	int ret = cgroup_of(pid, cgroup, sizeof(cgroup), NULL);

	if (ret)
		return ret;
	begin = bench_now_us();
	ret = run_criu(how, proc_parent(pid), cgroup, directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret || fd < 0 || syncfs(fd)) {
		say("criu failed: see %s/dump.log", directory);
		return -EIO;
	}
	if (how == PEER_BASE)
		return 0;
	samples_add(&figures->durable, (double)(bench_now_us() - begin) / 1000);
	return figures_read(figures, directory);
}

int peer_take(enum peer_dump how, pid_t pid, const char *directory, struct figures *figures)
{
	static const char *const names[] = {
		[PEER_FULL] = "full", [PEER_BASE] = "base", [PEER_INCREMENTAL] = "incremental",
	};
	char path[4000];
	int ret = how == PEER_INCREMENTAL ? 0 : directory_make_empty(directory, NULL);

	snprintf(path, sizeof(path), "%s/%s", directory, names[how]);
	if (ret == 0)
		ret = directory_make_empty(path, NULL);
	return ret ? ret : take(how, pid, path, figures);
}

void figures_free(struct figures *figures)
{
	samples_free(&figures->frozen);
	samples_free(&figures->durable);
	samples_free(&figures->pages);
	samples_free(&figures->mib);
}
