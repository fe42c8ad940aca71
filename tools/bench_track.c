// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench track: what it costs to learn which pages a process wrote, with each mechanism that works here and with
 * what the kernel offers everybody. Same memory, same writes, in turn.
 */
#include "bench_track.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "bench_environment.h"
#include "bench_report.h"
#include "cleanup.h"
#include "commands.h"

#define SIZES_MAX 16
#define WAITS_BYTES (1ul << 30)

void track_progress(const char *format, ...)
{
	va_list list;

	if (!isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
}

void track_print(const struct track_run *run, const char *format, ...)
{
	va_list list;

	if (run->json)
		return;
	track_progress("%s", "");
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	fflush(stdout);
}

void track_row(const struct track_run *run, const char *list, json_t *row)
{
	json_t *rows = json_object_get(run->report, list);

	if (!rows) {
		rows = json_array();
		json_object_set_new(run->report, list, rows);
	}
	json_array_append_new(rows, row);
}

bool track_has_memory(const struct track_run *run, size_t bytes)
{
	cleanup_fclose FILE *meminfo = fopen("/proc/meminfo", "re");
	unsigned long kib = 0;
	char line[128];

	while (meminfo && fgets(line, sizeof(line), meminfo))
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	if (kib * 1024 >= bytes + bytes / 32 + (64ul << 20))
		return true;
	say("%zu MiB are left out: only %lu MiB of memory are available", bytes >> 20, kib >> 10);
	return false;
}

/* Leaves only one of our mechanisms. */
static size_t methods_only(struct method *methods, size_t count, const char *name)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (methods[i].peer || !strcmp(methods[i].name, name))
			methods[kept++] = methods[i];
	return kept;
}

static bool has_both(const struct track_run *run)
{
	return run->count && !run->methods[0].peer && run->methods[run->count - 1].peer;
}

static void environment_print(const struct track_run *run)
{
	const json_t *environment = json_object_get(run->report, "environment");
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)environment, key, value) {
		if (json_is_string(value))
			track_print(run, "%s %s, ", key, json_string_value(value));
		else if (json_is_integer(value))
			track_print(run, "%s %lld, ", key, (long long)json_integer_value(value));
	}
	track_print(run, "medians of %u\n\n", run->repeat);
}

static int track_all(struct track_run *run, const size_t *sizes, size_t count)
{
	int err, status;

	run->report = json_object();
	json_object_set_new(run->report, "environment", bench_environment());
	environment_print(run);
	err = track_cells(run, sizes, count);
	if (!err)
		err = track_first_writes(run);
	if (!err)
		err = track_fault_waits(run, WAITS_BYTES);
	if (!err)
		err = track_memory(run);
	if (err)
		say("the measurement failed: %s", strerror(-err));
	status = err ? 1 : bench_report(run->report, "track", run->json);
	json_decref(run->report);
	return status;
}

static const char usage[] =
	"Usage: ckptbench track [--mib N[,N]...] [--repeat N] [--mechanism NAME] [--json]\n"
	"\n"
	"How long it takes to learn which pages of a process were written: the mechanisms of ckpt against what the\n"
	"kernel offers by itself (the peers), with nothing, 1 % at random pages and everything written, with 4 KiB pages\n"
	"and transparent huge pages. As root.\n"
	"\n"
	"  --mib N[,N]...    memory of the measured process in MiB, even numbers (64,512,4096)\n"
	"  --repeat N        times that each figure is measured (9); the median is told\n"
	"  --mechanism NAME  only this one of ours\n"
	"  --json            all as JSON\n"
	"\n"
	"All ways to collect take turns on the same memory. Each time: begin to track; collect once, so that all pages\n"
	"are known; the process writes; collect: this is timed, from before the first system call until the caller has the\n"
	"list of written regions and every page is tracked again. Pages that were written and not reported are missed.\n"
	"\n"
	"soft-dirty is the ioctl of the module, and the peers are given the same range, the one mapping. The other\n"
	"mechanisms are measured as ckptd uses them: the whole process, with its list of mappings, some 2 MiB more.\n"
	"  pagemap+clear_refs   reads /proc/PID/pagemap, then writes 4 to /proc/PID/clear_refs. What is written between\n"
	"                       the two is lost unless the process is stopped; it is not written to here\n"
	"  PAGEMAP_SCAN         the ioctl (6.7) with write-protection, on a mapping that the process itself registered with\n"
	"                       a userfaultfd\n"
	"\n"
	"Then: what the first write to a page costs the process after a collection; how long writes wait at most while\n"
	"collections run without a pause, at 1 GiB; how much memory the module needs for a tracker.\n";

int bench_track(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "mechanism", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	size_t sizes[SIZES_MAX], count = parse_sizes("64,512,4096", sizes, SIZES_MAX);
	cleanup_free struct method *methods = NULL;
	struct track_run run = { .repeat = 9 };
	const char *mechanism = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "m:r:n:h", options, NULL)) != -1) {
		switch (option) {
		case 'm': count = parse_sizes(optarg, sizes, SIZES_MAX); break;
		case 'r': run.repeat = (unsigned int)atoi(optarg); break;
		case 'n': mechanism = optarg; break;
		case 'J': run.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || !count || run.repeat < 1 || run.repeat > 1000) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	run.count = methods_here(&methods);
	if (mechanism)
		run.count = methods_only(methods, run.count, mechanism);
	run.methods = methods;
	if (!has_both(&run)) {
		say("there is nothing to compare: ckptctl doctor says which mechanisms work here, and why others do not");
		return 1;
	}
	return track_all(&run, sizes, count);
}
