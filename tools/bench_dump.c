// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench dump: a running job's epochs and checkpoints by ckptd against dumps of it by criu, in turn, in
 * the same run: what each writes against the job's memory, how long the job stands still, and how long until
 * its state is durable.  The job is one that is there, or some are made for it.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_dump.h"
#include "bench_environment.h"
#include "bench_report.h"
#include "commands.h"
#include "directory.h"

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

/* The next one that begins now or later; the first of a job, and one after an error, reads everything. */
static int take_epoch(struct comparison *comparison)
{
	json_t *job = dump_job_status(comparison->job), *epoch;
	double seen = number(job, "epochs");

	for (int tries = 0; job && number(job, "epochs") < seen + 1; tries++) {
		json_decref(job);
		poll(NULL, 0, 100);
		job = tries < EPOCH_PATIENCE_S * 10 ? dump_job_status(comparison->job) : NULL;
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

static int take_ours(const char *job, struct figures *figures)
{
	json_t *request = json_pack("{s:s, s:s}", "op", "checkpoint", "job", job);
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

static int print(struct comparison *comparison, bool json)
{
	struct figures *criu = &comparison->criu, *ours = &comparison->ours, *epoch = &comparison->epoch;
	struct table table = { .json = json, .cells = json_array() };
	json_t *report;
	int status;

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
	report = json_pack("{s:o, s:o}", "environment", bench_environment(), "cells", table.cells);
	status = bench_report(report, "dump-job", json);
	json_decref(report);
	return status;
}

static int measure(struct comparison *comparison, unsigned int runs, bool json)
{
	json_t *job = dump_job_status(comparison->job);
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
			ret = take_ours(comparison->job, &comparison->ours);
		if (ret == 0)
			ret = peer_take(PEER_FULL, comparison->pid, comparison->directory, &comparison->criu);
	}
	directory_remove(comparison->directory);
	return ret ? 1 : print(comparison, json);
}

/* ---- jobs that are made for it ---- */

#define SIZES_MAX 8

struct series {
	const char *class;
	const char *directory;
	size_t sizes[SIZES_MAX];
	size_t size_count;
	double shares[SIZES_MAX];       /* of the pages, that are written before each */
	size_t share_count;
	unsigned int repeat;
	bool huge;
	bool json;
	json_t *cells;
};

/* One size and share. */
struct cell {
	struct figures ours;
	struct figures full;
	struct figures incremental;
};

static json_t *figures_json(struct figures *figures)
{
	return json_pack("{s:f, s:f, s:f, s:f}", "frozen_ms", samples_median(&figures->frozen), "durable_ms",
			 samples_median(&figures->durable), "pages_written", samples_median(&figures->pages),
			 "mib_written", samples_median(&figures->mib));
}

static void cell_report(const struct series *series, struct cell *cell, const struct dump_job *job, double share)
{
	struct table table = { .cells = json_array() };

	json_array_append_new(series->cells, json_pack("{s:s, s:I, s:f, s:b, s:i, s:o, s:o, s:o}", "case", "dump", "mib",
		(json_int_t)(job->bytes >> 20), "written", share, "thp", series->huge, "samples", (int)series->repeat,
		"ours", figures_json(&cell->ours), "criu", figures_json(&cell->full), "criu_incremental",
		figures_json(&cell->incremental)));
	if (series->json)
		return;
	printf("%s%zu MiB, %g %% of its pages written\n", json_array_size(series->cells) > 1 ? "\n" : "", job->bytes >> 20,
	       share * 100);
	print_group(&table, "ms", (const struct row[]){
		{ "job stands still: criu dump", &cell->full.frozen },
		{ "job stands still: criu dump, incremental", &cell->incremental.frozen },
		{ "job stands still: checkpoint of ckptd", &cell->ours.frozen }, { 0 } });
	print_group(&table, "ms", (const struct row[]){
		{ "until durable: criu dump", &cell->full.durable },
		{ "until durable: criu dump, incremental", &cell->incremental.durable },
		{ "until durable: checkpoint of ckptd", &cell->ours.durable }, { 0 } });
	json_decref(table.cells);
}

/* Each finds the same share written since the one before of its kind. */
static int cell_take(const struct series *series, struct cell *cell, struct dump_job *job, double share)
{
	int ret = dump_job_write(job, share);

	if (ret == 0)
		ret = take_ours(job->name, &cell->ours);
	if (ret == 0)
		ret = peer_take(PEER_FULL, job->pid, series->directory, &cell->full);
	if (ret == 0)
		ret = peer_take(PEER_BASE, job->pid, series->directory, NULL);
	if (ret == 0)
		ret = dump_job_write(job, share);
	if (ret == 0)
		ret = peer_take(PEER_INCREMENTAL, job->pid, series->directory, &cell->incremental);
	return ret;
}

static int measure_share(const struct series *series, struct dump_job *job, double share)
{
	struct cell cell = { 0 };
	int ret = 0;

	for (unsigned int i = 0; i < series->repeat && ret == 0; i++)
		ret = cell_take(series, &cell, job, share);
	if (ret == 0)
		cell_report(series, &cell, job, share);
	figures_free(&cell.ours);
	figures_free(&cell.full);
	figures_free(&cell.incremental);
	return ret;
}

static int measure_size(const struct series *series, size_t bytes)
{
	struct figures unheard = { 0 };
	struct dump_job job;
	int ret = dump_job_start(&job, series->class, bytes, series->huge);

	if (ret)
		return ret;
	/* The first one streams everything, and criu learns what this kernel has. */
	ret = take_ours(job.name, &unheard);
	for (size_t i = 0; i < series->share_count && ret == 0; i++)
		ret = measure_share(series, &job, series->shares[i]);
	figures_free(&unheard);
	dump_job_end(&job);
	return ret;
}

static json_t *environment(const struct series *series)
{
	json_t *facts = bench_environment();

	json_object_set_new(facts, "class", json_string(series->class));
	return facts;
}

static int measure_series(struct series *series)
{
	json_t *report;
	int ret = 0, status;

	series->cells = json_array();
	report = json_pack("{s:o, s:o}", "environment", environment(series), "cells", series->cells);
	for (size_t i = 0; i < series->size_count && ret == 0; i++)
		ret = measure_size(series, series->sizes[i]);
	directory_remove(series->directory);
	if (ret)
		say("the measurement failed: %s", strerror(-ret));
	status = ret ? 1 : bench_report(report, "dump", series->json);
	json_decref(report);
	return status;
}

static size_t parse_shares(const char *text, double *shares)
{
	size_t count = 0;
	char *end;

	for (; count < SIZES_MAX; text = end + 1) {
		double percent = strtod(text, &end);

		if (end == text || (*end && *end != ',') || !(percent >= 0 && percent <= 100))
			return 0;
		shares[count++] = percent / 100;
		if (!*end)
			return count;
	}
	return 0;
}

static const char usage[] =
	"Usage: ckptbench dump [--repeat N] [--directory DIR] [--json] JOB\n"
	"       ckptbench dump --mib N[,N]... [--class CLASS] [--written PERCENT[,PERCENT]...] [--thp]\n"
	"                      [--repeat N] [--directory DIR] [--json]\n"
	"       ckptbench dump --hold MIB [--thp]\n"
	"\n"
	"The first awaits an epoch of a running job (its full name, as in 'ckptctl status'), takes a checkpoint and\n"
	"a full dump of it with 'criu dump', in turn, and compares what they wrote and how long they took.\n"
	"The second does so with jobs that it starts and ends, and with incremental dumps by criu as well.\n"
	"The third is what these jobs run: it fills its memory, and writes when it gets a signal.\n"
	"\n"
	"  --repeat N        times that each is taken (5)\n"
	"  --directory DIR   for criu's images, on the file system to compare with, best that of the store\n"
	"                    (/var/lib/ckpt/bench); what is in it is removed\n"
	"  --mib N[,N]...    memory of the jobs: incompressible, in pages of 4 KiB; even numbers\n"
	"  --thp             in transparent huge pages\n"
	"  --written P[,P]   percent of the pages, at random, that the job writes before each (0,1)\n"
	"  --class CLASS     of the jobs (default). Best with an epoch_interval of hours: epochs are in the way.\n"
	"                    criu takes soft-dirty bits that ckptd needs, so these jobs cannot be gone on with\n"
	"  --hold MIB        that memory\n"
	"  --json            all as JSON\n"
	"\n"
	"A checkpoint of ckptd streams first, while the job runs; criu, when it stands still. criu's incremental is\n"
	"'criu dump --track-mem --prev-images-dir' after a pre-dump, which is not counted.\n";

static bool valid(const struct series *series, int arguments)
{
	return arguments == (series->size_count ? 0 : 1) && series->repeat >= 1 && series->repeat <= 1000 &&
	       *series->directory == '/' && series->share_count;
}

int bench_dump(int argc, char **argv)
{
	static const struct option options[] = {
		{ "directory", required_argument, NULL, 'd' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "mib", required_argument, NULL, 'm' },
		{ "written", required_argument, NULL, 'w' },
		{ "class", required_argument, NULL, 'c' },
		{ "thp", no_argument, NULL, 't' },
		{ "hold", required_argument, NULL, 'H' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct series series = { .class = "default", .directory = "/var/lib/ckpt/bench", .repeat = 5 };
	struct comparison comparison = { 0 };
	size_t hold = 0;
	int option;

	series.share_count = parse_shares("0,1", series.shares);
	while ((option = getopt_long(argc, argv, "d:r:m:w:c:h", options, NULL)) != -1) {
		switch (option) {
		case 'd': series.directory = optarg; break;
		case 'r': series.repeat = (unsigned int)atoi(optarg); break;
		case 'm': series.size_count = parse_sizes(optarg, series.sizes, SIZES_MAX); break;
		case 'w': series.share_count = parse_shares(optarg, series.shares); break;
		case 'c': series.class = optarg; break;
		case 't': series.huge = true; break;
		case 'H': hold = (size_t)atoi(optarg) << 20; break;
		case 'J': series.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (hold)
		return dump_job_main(hold, series.huge);
	if (geteuid() || !valid(&series, argc - optind)) {
		fputs(geteuid() ? "ckptbench dump must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	if (series.size_count)
		return measure_series(&series);
	comparison.job = argv[optind];
	comparison.directory = series.directory;
	return measure(&comparison, series.repeat, series.json);
}
