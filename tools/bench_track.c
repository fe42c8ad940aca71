// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench track: what it costs to learn which pages a process wrote, with each mechanism that
 * works here, and with what /proc offers everybody: read pagemap, then write clear_refs.  Same
 * memory, same writes, in turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "cleanup.h"
#include "commands.h"
#include "proc.h"
#include "region.h"
#include "tracker.h"

/* A process that holds memory and writes some of it when told. */
struct victim {
	pid_t pid;
	int pidfd;
	int command;            /* a byte: write; hang-up: end */
	int answer;
	char *memory;
	size_t bytes;
	unsigned int step_pages; /* every step_pages-th page is written */
};

static void victim_main(const struct victim *victim, int command, int answer)
{
	char byte;

	memset(victim->memory, 1, victim->bytes);
	if (write(answer, "r", 1) != 1)
		_exit(1);
	while (read(command, &byte, 1) == 1) {
		for (size_t page = 0; victim->step_pages && page * PAGE_BYTES < victim->bytes;
		     page += victim->step_pages)
			victim->memory[page * PAGE_BYTES]++;
		if (write(answer, "w", 1) != 1)
			break;
	}
	_exit(0);
}

static void victim_write(const struct victim *victim)
{
	char byte = 'w';

	if (write(victim->command, &byte, 1) != 1 || read(victim->answer, &byte, 1) != 1)
		say("the measured process died");
}

static int victim_start(struct victim *victim)
{
	int command[2], answer[2];
	char byte;

	victim->memory = mmap(NULL, victim->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
	if (victim->memory == MAP_FAILED || pipe2(command, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		return -errno;
	madvise(victim->memory, victim->bytes, MADV_NOHUGEPAGE);
	victim->pid = fork();
	if (victim->pid < 0)
		return -errno;
	if (victim->pid == 0) {
		close(command[1]);
		close(answer[0]);
		victim_main(victim, command[0], answer[1]);
	}
	close(command[0]);
	close(answer[1]);
	victim->command = command[1];
	victim->answer = answer[0];
	victim->pidfd = pidfd_of(victim->pid);
	return victim->pidfd < 0 || read(victim->answer, &byte, 1) != 1 ? -EIO : 0;
}

static void victim_end(struct victim *victim)
{
	close(victim->command);
	close(victim->answer);
	close(victim->pidfd);
	waitpid(victim->pid, NULL, 0);
	munmap(victim->memory, victim->bytes);
}

/* The peer: the only interface without a module, for the one mapping. */
static int procfs_collect(const struct victim *victim, uint64_t *pages)
{
	char path[64];
	size_t count = victim->bytes / PAGE_BYTES;
	cleanup_free uint64_t *entries = malloc(count * sizeof(*entries));
	cleanup_close int pagemap = -1, clear = -1;

	*pages = 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", victim->pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", victim->pid);
	clear = open(path, O_WRONLY | O_CLOEXEC);
	if (!entries || pagemap < 0 || clear < 0)
		return -errno;
	if (pread(pagemap, entries, count * sizeof(*entries),
		  (off_t)((uintptr_t)victim->memory / PAGE_BYTES * sizeof(*entries))) !=
	    (ssize_t)(count * sizeof(*entries)))
		return -EIO;
	if (write(clear, "4", 1) != 1)
		return -errno;
	for (size_t i = 0; i < count; i++)
		*pages += entries[i] >> 55 & 1;
	return 0;
}

static int measure_procfs(struct victim *victim, struct samples *samples, unsigned int runs)
{
	uint64_t pages;
	int ret = procfs_collect(victim, &pages);

	for (unsigned int run = 0; run < runs && ret == 0; run++) {
		int64_t begin;

		victim_write(victim);
		begin = bench_now_us();
		ret = procfs_collect(victim, &pages);
		samples_add(samples, (double)(bench_now_us() - begin) / 1000);
	}
	return ret;
}

static int measure_mechanism(struct victim *victim, const struct tracker_mechanism *mechanism,
			     struct samples *samples, unsigned int runs)
{
	struct problem problem;
	struct tracker *tracker;
	struct regions regions = { 0 };
	bool full;
	int ret = tracker_open(&tracker, mechanism, victim->pidfd, victim->pid, &problem);

	if (ret)
		return ret;
	ret = tracker_collect(tracker, &regions, &full, &problem);
	for (unsigned int run = 0; run < runs && ret == 0; run++) {
		int64_t begin;

		regions_clear(&regions);
		victim_write(victim);
		begin = bench_now_us();
		ret = tracker_collect(tracker, &regions, &full, &problem);
		samples_add(samples, (double)(bench_now_us() - begin) / 1000);
	}
	regions_free(&regions);
	tracker_close(tracker);
	return ret;
}

static void bench_case(struct table *table, size_t bytes, unsigned int step, const char *name,
		       unsigned int runs)
{
	struct victim victim = { .bytes = bytes, .step_pages = step };
	struct samples samples = { 0 };
	char row[80];

	if (victim_start(&victim)) {
		say("cannot start the process to measure");
		return;
	}
	snprintf(row, sizeof(row), "%s: pagemap + clear_refs", name);
	if (measure_procfs(&victim, &samples, runs) == 0)
		table_row(table, row, &samples);
	samples_free(&samples);
	for (const struct tracker_mechanism *const *mechanism = tracker_mechanisms; *mechanism;
	     mechanism++) {
		if ((*mechanism)->probe(NULL))
			continue;
		snprintf(row, sizeof(row), "%s: %s", name, (*mechanism)->name);
		if (measure_mechanism(&victim, *mechanism, &samples, runs) == 0)
			table_row(table, row, &samples);
		samples_free(&samples);
	}
	victim_end(&victim);
}

int bench_track(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] =
		"Usage: ckptbench track [--mib N] [--repeat N] [--json]\n"
		"Time to find the written pages of N MiB (256), in ms, by each mechanism and by /proc, with\n"
		"nothing, 1 % and everything written. The ratio is to the first row.\n";
	struct table table = { .unit = "ms" };
	unsigned int mib = 256, runs = 5;
	int option;

	while ((option = getopt_long(argc, argv, "m:r:h", options, NULL)) != -1) {
		switch (option) {
		case 'm': mib = (unsigned int)atoi(optarg); break;
		case 'r': runs = (unsigned int)atoi(optarg); break;
		case 'J': table.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || mib < 1 || mib > 1 << 20 || runs < 1 || runs > 1000) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	bench_case(&table, (size_t)mib << 20, 0, "nothing written", runs);
	bench_case(&table, (size_t)mib << 20, 100, "1 % written", runs);
	bench_case(&table, (size_t)mib << 20, 1, "all written", runs);
	table_end(&table);
	return table.begun ? 0 : 1;
}
