// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench policy: how many interruptions make the window, by the daemon's own policy, by epochs at
 * fixed intervals and without epochs, and what each writes.  Simulated: see simulate.h.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_report.h"
#include "cleanup.h"
#include "commands.h"
#include "region.h"
#include "race.h"
#include "trace_made.h"

/* Which of the fixed intervals the table shows. */
static const size_t shown[] = { 3, 6, 12, 15 };
#define SHOWN (sizeof(shown) / sizeof(*shown))
#define MOST_INTERRUPTIONS 100000

struct settings {
	struct race_settings race;
	json_t *cells;
	bool json;
	bool begun;
};

/* ---- what is printed ---- */

static double share(const struct race_result *result, const struct tally *tally)
{
	return result->feasible ? 100.0 * tally->made / result->feasible : 100;
}

static double gib(double pages)
{
	return pages * PAGE_BYTES / (1 << 30);
}

static void print_head(void)
{
	printf("%-18s %8s %8s | %6s %7s %7s | %6s", "trace", "memory", "feasible", "auto", "epochs", "GiB",
	       "none");
	for (size_t i = 0; i < SHOWN; i++)
		printf(" %5.0fs", race_intervals_s[shown[i]]);
	printf(" | %6s %7s %6s\n", "best", "GiB", "ratio");
}

static void print_row(const char *name, double memory, const struct race_result *result,
		      const struct settings *settings)
{
	if (!settings->begun)
		print_head();
	printf("%-18s %7.0fG %7.1f%% | %5.1f%% %7u %7.0f | %5.1f%%", name, memory,
	       100.0 * result->feasible / settings->race.interruptions, share(result, &result->automatic),
	       result->epochs, gib(result->automatic.pages), share(result, &result->none));
	for (size_t i = 0; i < SHOWN; i++)
		printf(" %5.1f%%", share(result, &result->fixed[shown[i]]));
	if (result->best < 0)
		printf(" | %6s %7s %6s\n", "none", "-", "-");
	else
		printf(" | %5.0fs %7.0f %6.2f\n", race_intervals_s[result->best],
		       gib(result->fixed[result->best].pages), race_ratio(result));
}

static json_t *bytes_json(double pages)
{
	return json_integer((json_int_t)(pages * PAGE_BYTES));
}

static json_t *cell_json(const char *name, double memory, const struct race_result *result)
{
	json_t *fixed = json_array();
	int best = result->best;

	for (size_t i = 0; i < RACE_INTERVALS; i++)
		json_array_append_new(fixed, json_pack("{s:f, s:i, s:o}", "interval_s", race_intervals_s[i],
						       "made", (int)result->fixed[i].made, "bytes",
						       bytes_json(result->fixed[i].pages)));
	return json_pack("{s:s, s:f, s:i, s:i, s:i, s:i, s:o, s:f, s:i, s:o, s:o, s:o, s:o}", "trace", name,
			 "memory_gib", memory, "feasible", (int)result->feasible,
			 "made", (int)result->automatic.made,
			 "made_without_epochs", (int)result->none.made, "epochs", (int)result->epochs,
			 "bytes", bytes_json(result->automatic.pages), "ran_on_s", result->run_s,
			 "learnt_percent", (int)result->learnt_percent, "best_fixed_s",
			 best < 0 ? json_null() : json_real(race_intervals_s[best]), "best_fixed_bytes",
			 best < 0 ? json_null() : bytes_json(result->fixed[best].pages), "bytes_ratio",
			 best < 0 ? json_null() : json_real(race_ratio(result)), "fixed", fixed);
}

static int run_trace(const char *name, const struct trace *trace, struct settings *settings)
{
	double memory = gib(trace_memory(trace, settings->race.hours * 3600));
	struct race_result result;

	if (race_run(&result, trace, &settings->race)) {
		say("out of memory");
		return -1;
	}
	json_array_append_new(settings->cells, cell_json(name, memory, &result));
	if (!settings->json)
		print_row(name, memory, &result, settings);
	settings->begun = true;
	fflush(stdout);
	return 0;
}

static int run_made(struct settings *settings)
{
	struct problem problem;
	struct trace trace;
	int ret = 0;

	for (size_t shape = 0; trace_shape(shape) && ret == 0; shape++)
		for (const struct trace_node *node = trace_nodes; node->memory_gib && ret == 0; node++) {
			ret = trace_make(&trace, shape, node, &problem);
			if (ret) {
				say("%s", problem.text);
				return ret;
			}
			ret = run_trace(trace_shape(shape), &trace, settings);
			trace_free(&trace);
		}
	return ret;
}

static int run_file(const char *path, struct settings *settings)
{
	cleanup_fclose FILE *file = fopen(path, "re");
	struct problem problem;
	struct trace trace;
	int ret;

	if (!file) {
		say("%s: %m", path);
		return -1;
	}
	ret = trace_read(&trace, file, path, &problem);
	if (ret) {
		say("%s", problem.text);
		return ret;
	}
	ret = run_trace(path, &trace, settings);
	trace_free(&trace);
	return ret;
}

static const char usage[] =
	"Usage: ckptbench policy [--json] [--trace FILE]... [--interruptions N] [--hours H] [--seed N]\n"
	"                        [--reserve N|auto] [--window S] [--margin S]\n"
	"Simulates jobs that are interrupted at random moments, and counts which make the window: with\n"
	"epoch_interval = auto, with epochs at fixed intervals, and without epochs. feasible: those that\n"
	"could be made by who knows the moment beforehand. best: the fixed interval that makes all of\n"
	"those with the fewest bytes; ratio: of auto's bytes to it. Bytes are those of H hours that end in\n"
	"one interruption.\n"
	"\n"
	"A trace is what a job writes and its store takes, one thing a line:\n"
	"  memory SIZE                      of the job, at first\n"
	"  fixed TIME [TIME]                of a checkpoint: freeze, CRIU, fsync; and per GiB of memory (1s)\n"
	"  set NAME random|sweep|grow SIZE  pages that are written: at random, in turn, or new ones in turn\n"
	"  repeat TIME                      then the lines below start over\n"
	"  TIME NAME RATE                   from then on the set is written at RATE a second\n"
	"  TIME store RATE                  from then on the store takes RATE a second\n"
	"  notice store N%                  what of that is left after a notice (100%)\n"
	"  notice seen N%                   and what the job has seen of it after earlier ones (100%)\n"
	"SIZE and RATE: bytes with K, M, G or T; TIME: ms, s, m or h. Times ascend and begin with 0s.\n";

static bool settings_valid(const struct race_settings *settings)
{
	return settings->interruptions >= 1 && settings->interruptions <= MOST_INTERRUPTIONS &&
	       settings->hours > 0 && settings->hours <= 1000 && settings->class.reserve >= 1 &&
	       (settings->class.reserve <= 100 || settings->class.reserve == CONFIG_AUTO) && settings->class.margin_ms < settings->class.window_ms;
}

static int report(const struct settings *settings)
{
	const struct race_settings *race = &settings->race;
	json_t *environment = json_pack("{s:s, s:i, s:f, s:i, s:i, s:i, s:i, s:f}", "version", CKPT_VERSION,
					"interruptions", (int)race->interruptions, "hours", race->hours,
					"seed", (int)race->seed, "reserve", (int)race->class.reserve,
					"window_ms", (int)race->class.window_ms, "margin_ms",
					(int)race->class.margin_ms, "poll_s", race->poll_s);
	json_t *all = json_pack("{s:o, s:O}", "environment", environment, "cells", settings->cells);
	int status = bench_report(all, "policy", settings->json);

	json_decref(all);
	return status;
}

int bench_policy(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "trace", required_argument, NULL, 't' },
		{ "interruptions", required_argument, NULL, 'n' },
		{ "hours", required_argument, NULL, 'H' },
		{ "seed", required_argument, NULL, 's' },
		{ "reserve", required_argument, NULL, 'r' },
		{ "window", required_argument, NULL, 'w' },
		{ "margin", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	cleanup_free const char **traces = calloc((size_t)argc, sizeof(*traces));
	struct settings settings = { 0 };
	struct race_settings *race = &settings.race;
	size_t count = 0;
	int option, ret = 0;

	race_settings_init(race);
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'J': settings.json = true; break;
		case 't': traces[count++] = optarg; break;
		case 'n': race->interruptions = (unsigned int)atoi(optarg); break;
		case 'H': race->hours = atof(optarg); break;
		case 's': race->seed = strtoull(optarg, NULL, 10); break;
		case 'r': race->class.reserve = strcmp(optarg, "auto") ? (unsigned int)atoi(optarg) : CONFIG_AUTO; break;
		case 'w': race->class.window_ms = (unsigned int)atoi(optarg) * 1000; break;
		case 'm': race->class.margin_ms = (unsigned int)atoi(optarg) * 1000; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || !settings_valid(race)) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	settings.cells = json_array();
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = run_file(traces[i], &settings);
	if (!count)
		ret = run_made(&settings);
	ret = ret ? 1 : report(&settings);
	json_decref(settings.cells);
	return ret;
}
