// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench ladder: the steps by which checkpointing is judged, from the command by itself to a run that is saved and
 * restored on other nodes again and again. Runs of all steps take turns, so that what changes on the nodes meets all.
 */
#include "bench_ladder.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench_environment.h"
#include "bench_report.h"
#include "commands.h"

#define MOST_REPEATS 1000
#define MOST_CHECKPOINTS 100

static const struct {
	const char *name;
	const char *describe;
} steps[] = {
	[STEP_BASELINE] = { "baseline", "by itself, without ckpt" },
	[STEP_INSTALLED] = { "installed", "by itself, ckptd and module are there" },
	[STEP_RUN] = { "run", "under ckptctl run" },
	[STEP_SAME_NODE] = { "same-node", "saved, and restored here" },
	[STEP_OTHER_NODE] = { "other-node", "saved, and restored on another node" },
	[STEP_CHAIN] = { "chain", "several times, each on the next node" },
};

/* All runs of a step. */
struct rung {
	bool wanted;
	struct samples seconds, away_s, frozen_ms, flush_ms, restore_ms, mib;
	unsigned int differ;
};

struct climb {
	struct ladder ladder;
	struct rung rungs[STEPS];
	const char *off, *on;           /* commands; NULL: ckpt stays as it is */
	bool is_off;
	unsigned int repeat;
	uint64_t seed;                  /* of the order of runs */
	bool json;
};

/* ---- ckpt on this node, off and on ---- */

static int switch_to(struct climb *climb, bool off)
{
	const char *command = off ? climb->off : climb->on;
	int status;

	if (!climb->off || off == climb->is_off)
		return 0;
	status = system(command);
	if (status) {
		say("'%s' failed with status %d", command, WIFEXITED(status) ? WEXITSTATUS(status) : status);
		return -EIO;
	}
	climb->is_off = off;
	return 0;
}

/* Their ckptd would be taken away. */
static int check_alone(const struct climb *climb)
{
	json_t *request = json_pack("{s:s}", "op", "status"), *answer = ask(request);
	size_t jobs = json_array_size(json_object_get(answer, "jobs"));
	bool answers = answer;

	json_decref(request);
	json_decref(answer);
	if (!answers)
		return -ENOENT;
	if (!jobs || !climb->off)
		return 0;
	say("%zu jobs are on this node, and ckptd is to be stopped again and again: choose another node, or leave --off out",
	    jobs);
	return -EBUSY;
}

/* ---- runs ---- */

static void rung_add(struct rung *rung, enum step step, const struct run_result *result)
{
	samples_add(&rung->seconds, result->seconds);
	rung->differ += result->differs;
	if (step < STEP_SAME_NODE)
		return;
	samples_add(&rung->away_s, result->away_s);
	samples_add(&rung->frozen_ms, result->frozen_ms);
	samples_add(&rung->flush_ms, result->flush_ms);
	samples_add(&rung->restore_ms, result->restore_ms);
	samples_add(&rung->mib, result->bytes / (1 << 20));
}

static int take(struct climb *climb, enum step step, unsigned int round)
{
	struct run_result result;
	int ret = switch_to(climb, step == STEP_BASELINE);

	if (ret)
		return ret;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kround %u of %u: %s", round + 1, climb->repeat, steps[step].describe);
	ret = ladder_run(&climb->ladder, step, &result);
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	if (ret)
		return ret;
	rung_add(&climb->rungs[step], step, &result);
	if (step == STEP_BASELINE)
		climb->ladder.expect_s = samples_median(&climb->rungs[step].seconds);
	return 0;
}

/* The baseline is first in the first round, since the others need its length; from then on all come in any order. */
static void shuffle(enum step *order, unsigned int first, uint64_t *seed)
{
	for (unsigned int i = STEPS - 1; i > first; i--) {
		unsigned int other;
		enum step swapped = order[i];

		*seed = *seed * 6364136223846793005 + 1442695040888963407;
		other = first + (unsigned int)((*seed >> 33) % (i - first + 1));
		order[i] = order[other];
		order[other] = swapped;
	}
}

static int climb_all(struct climb *climb)
{
	enum step order[STEPS] = { 0, 1, 2, 3, 4, 5 };
	int ret = 0;

	for (unsigned int round = 0; ret == 0 && round < climb->repeat; round++) {
		shuffle(order, round == 0, &climb->seed);
		for (unsigned int i = 0; ret == 0 && i < STEPS; i++)
			if (climb->rungs[order[i]].wanted)
				ret = take(climb, order[i], round);
	}
	return switch_to(climb, false) ?: ret;
}

/* ---- what is printed ---- */

static const char *verdict(const struct rung *rung, const struct overhead *overhead)
{
	if (rung->seconds.count < 5)
		return "too few runs to tell";
	return overhead_is_noise(overhead) ? "no difference that could be told from noise" : "";
}

static void print_row(struct climb *climb, enum step step)
{
	struct rung *rung = &climb->rungs[step];
	struct overhead overhead = samples_overhead(&climb->rungs[STEP_BASELINE].seconds, &rung->seconds);
	double median = samples_median(&rung->seconds);

	printf("%u %-38s %9.2f %9.2f %9.2f", (unsigned int)step + 1, steps[step].describe, median, samples_min(&rung->seconds),
	       samples_max(&rung->seconds));
	if (step != STEP_BASELINE)
		printf(" %7.1f %% [%.1f, %.1f] %s", overhead.percent, overhead.low, overhead.high, verdict(rung, &overhead));
	putchar('\n');
	if (step >= STEP_SAME_NODE)
		printf("  %-38s %9.2f s; frozen %.0f ms, durable after %.0f ms, restored in %.0f ms, %.1f MiB written\n",
		       "of that away, from asking to running", samples_median(&rung->away_s), samples_median(&rung->frozen_ms),
		       samples_median(&rung->flush_ms), samples_median(&rung->restore_ms), samples_median(&rung->mib));
	if (rung->differ)
		printf("  the output was another one than at first in %u of %zu runs\n", rung->differ, rung->seconds.count);
}

static void print_table(struct climb *climb)
{
	printf("%-40s %9s %9s %9s %9s\n", "seconds", "median", "min", "max", "overhead [95 %]");
	for (unsigned int step = 0; step < STEPS; step++)
		if (climb->rungs[step].wanted)
			print_row(climb, step);
}

static json_t *rung_json(struct climb *climb, enum step step)
{
	struct rung *rung = &climb->rungs[step];
	struct overhead overhead = samples_overhead(&climb->rungs[STEP_BASELINE].seconds, &rung->seconds);
	json_t *row = json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:[f,f], s:b, s:i}", "case", steps[step].name, "samples",
				(int)rung->seconds.count, "median_s", samples_median(&rung->seconds), "min_s",
				samples_min(&rung->seconds), "max_s", samples_max(&rung->seconds), "overhead_percent",
				overhead.percent, "interval_percent", overhead.low, overhead.high, "noise",
				overhead_is_noise(&overhead), "output_differs", (int)rung->differ);

	if (step >= STEP_SAME_NODE)
		json_object_update_new(row, json_pack("{s:f, s:f, s:f, s:f, s:f}", "away_s", samples_median(&rung->away_s),
				       "frozen_ms", samples_median(&rung->frozen_ms), "flush_ms",
				       samples_median(&rung->flush_ms), "restore_ms", samples_median(&rung->restore_ms),
				       "mib_written", samples_median(&rung->mib)));
	return row;
}

static int report(struct climb *climb)
{
	json_t *cells = json_array(), *environment = bench_environment(), *report;
	int status;

	for (unsigned int step = 0; step < STEPS; step++)
		if (climb->rungs[step].wanted)
			json_array_append_new(cells, rung_json(climb, step));
	json_object_set_new(environment, "class", json_string(climb->ladder.class));
	json_object_set_new(environment, "nodes", json_integer((json_int_t)climb->ladder.node_count));
	json_object_set_new(environment, "checkpoints", json_integer(climb->ladder.checkpoints));
	report = json_pack("{s:o, s:o}", "environment", environment, "cells", cells);
	status = bench_report(report, "ladder", climb->json);
	json_decref(report);
	return status;
}

/* ---- */

static const char usage[] =
	"Usage: ckptbench ladder [OPTION]... -- COMMAND [ARGUMENT]...\n"
	"\n"
	"Runs the command again and again, in six ways in turn, and says what each costs against the first:\n"
	"  1 baseline    by itself, with ckptd and the module away (see --off)\n"
	"  2 installed   by itself, with both there\n"
	"  3 run         under 'ckptctl run': with the epochs and checkpoints that its class has, and none besides\n"
	"  4 same-node   saved and ended halfway ('ckptctl checkpoint --end'), and restored here\n"
	"  5 other-node  the same, restored on the first other node\n"
	"  6 chain       saved --checkpoints times in one run, each time restored on the next node\n"
	"The command must end by itself, take some seconds, and always do the same; that it prints the same is checked.\n"
	"\n"
	"  --class CLASS     of the jobs (default)\n"
	"  --repeat N        runs of each (15)\n"
	"  --checkpoints N   of step 6 (3)\n"
	"  --node ssh:HOST   another node, that has the same directories; may be given several times. Without it steps 5\n"
	"                    and 6 are left out. exec:PROGRAM is any program that takes a shell's line as ssh does\n"
	"  --off COMMAND     what takes ckpt away from this node before step 1, and\n"
	"  --on COMMAND      brings it back; without them step 1 runs with all there, as step 2. For instance\n"
	"                    --off 'systemctl stop ckptd && modprobe -r ckpt' --on 'systemctl start ckptd'\n"
	"  --json            all as JSON\n"
	"\n"
	"Printed are medians in seconds, overhead in percent of the baseline's, and the interval that holds 95 % of bootstrap\n"
	"samples of it; if that has 0 in it, the difference may be noise.\n";

static void choose_steps(struct climb *climb)
{
	for (unsigned int step = 0; step < STEPS; step++)
		climb->rungs[step].wanted = step < STEP_OTHER_NODE || climb->ladder.node_count > 1;
	if (climb->ladder.node_count == 1)
		say("there is no other node (--node): what is restored elsewhere is left out");
}

static bool valid(const struct climb *climb)
{
	return climb->ladder.command[0] && climb->repeat >= 1 && climb->repeat <= MOST_REPEATS &&
	       climb->ladder.checkpoints >= 1 && climb->ladder.checkpoints <= MOST_CHECKPOINTS && !climb->off == !climb->on;
}

static int add_node(struct ladder *ladder, const char *text)
{
	if (ladder->node_count < LADDER_NODES && node_parse(text, &ladder->nodes[ladder->node_count]) == 0) {
		ladder->node_count++;
		return 0;
	}
	say("'%s' is no node, or there are more than %u: ssh:HOST or exec:PROGRAM", text, LADDER_NODES - 1);
	return -EINVAL;
}

static int climb_and_print(struct climb *climb)
{
	int ret = check_alone(climb);

	choose_steps(climb);
	/* Those that are measured hear it, and end; what follows from that is ours. */
	signal(SIGINT, SIG_IGN);
	if (ret == 0)
		ret = climb_all(climb);
	if (ret)
		return 1;
	if (!climb->json)
		print_table(climb);
	return report(climb);
}

int bench_ladder(int argc, char **argv)
{
	static const struct option options[] = {
		{ "class", required_argument, NULL, 'c' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "checkpoints", required_argument, NULL, 'k' },
		{ "node", required_argument, NULL, 'n' },
		{ "off", required_argument, NULL, 'x' },
		{ "on", required_argument, NULL, 'o' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct climb climb = {
		.ladder = { .class = "default", .nodes = { { .name = "this node" } }, .node_count = 1, .checkpoints = 3 },
		.repeat = 15,
		.seed = (uint64_t)bench_now_ns(),
	};
	int option, ret = 0;

	while ((option = getopt_long(argc, argv, "+c:r:k:n:h", options, NULL)) != -1) {
		switch (option) {
		case 'c': climb.ladder.class = optarg; break;
		case 'r': climb.repeat = (unsigned int)atoi(optarg); break;
		case 'k': climb.ladder.checkpoints = (unsigned int)atoi(optarg); break;
		case 'n': ret = add_node(&climb.ladder, optarg) ?: ret; break;
		case 'x': climb.off = optarg; break;
		case 'o': climb.on = optarg; break;
		case 'J': climb.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	climb.ladder.command = argv + optind;
	if (ret || !valid(&climb)) {
		fputs(ret ? "" : usage, stderr);
		return STATUS_USAGE;
	}
	return climb_and_print(&climb);
}
