// SPDX-License-Identifier: GPL-2.0
/* ckptctl status, checkpoint, drain: one question to ckptd, one answer. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "region.h"
#include "job.h"

static json_int_t integer(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "-";
}

static void print_job(const json_t *job)
{
	const json_t *epoch = json_object_get(job, "last_epoch");
	const json_t *checkpoint = json_object_get(job, "last_checkpoint");
	const char *problem = json_string_value(json_object_get(job, "problem"));
	const char *failure = json_string_value(json_object_get(job, "checkpoint_problem"));
	const char *lease = json_string_value(json_object_get(job, "lease_problem"));
	const char *unprotected = json_string_value(json_object_get(job, "unprotected"));
	char forecast[32] = "-";

	if (json_is_integer(json_object_get(job, "forecast_ms")))
		snprintf(forecast, sizeof(forecast), "%.1f %s",
			 (double)integer(job, "forecast_ms") / 1000, string(job, "safety"));
	printf("%-32s %-10s %-13s %-10s %9.1f %7lld %9.1f %11lld %9lld %8lld  %s\n", string(job, "job"),
	       string(job, "class"), string(job, "state"), string(job, "mechanism"),
	       (double)integer(job, "memory_kib") / 1024, (long long)integer(job, "epochs"),
	       (double)integer(epoch, "bytes_written") / (1 << 20),
	       (long long)integer(job, "checkpoints"), (long long)integer(checkpoint, "frozen_ms"),
	       (long long)integer(checkpoint, "flush_ms"), forecast);
	if (json_object_get(job, "mechanism_reason"))
		printf("  mechanism %s, because %s\n", string(job, "mechanism"), string(job, "mechanism_reason"));
	if (json_object_get(job, "restore_reason"))
		printf("  restored eagerly, because %s\n", string(job, "restore_reason"));
	if (integer(job, "lazy_pages") > integer(job, "lazy_pages_given"))
		printf("  %.1f of %.1f MiB of its memory are here, the rest comes while it runs\n",
		       (double)integer(job, "lazy_pages_given") * PAGE_BYTES / (1 << 20),
		       (double)integer(job, "lazy_pages") * PAGE_BYTES / (1 << 20));
	if (integer(epoch, "frozen_ms"))
		printf("  the last epoch stopped it for %lld ms\n", (long long)integer(epoch, "frozen_ms"));
	if (unprotected)
		printf("  cannot be saved: %s\n", unprotected);
	if (problem && (!unprotected || strcmp(problem, unprotected)))
		printf("  problem: %s\n", problem);
	if (failure && (!unprotected || strcmp(failure, unprotected)))
		printf("  problem: the last checkpoint failed: %s\n", failure);
	if (lease)
		printf("  problem: the job's lease is not renewed, so another node may take it over: %s\n", lease);
}

static void print_status(const json_t *answer)
{
	const json_t *jobs = json_object_get(answer, "jobs");
	const json_t *notice = json_object_get(answer, "notice");
	const json_t *config = json_object_get(answer, "config");
	const char *refused = json_string_value(json_object_get(config, "refused"));
	json_t *job;
	size_t i;

	printf("node %s, ckptd %s, CRIU %s, %zu jobs; classes:", string(answer, "node"),
	       string(answer, "version"), string(answer, "criu"), json_array_size(jobs));
	json_array_foreach(json_object_get(answer, "classes"), i, job)
		printf(" %s", json_string_value(job));
	putchar('\n');
	if (refused)
		printf("the last reload of the configuration was refused, the one before it holds: %s\n",
		       refused);
	if (*string(config, "waits_for_restart") && strcmp(string(config, "waits_for_restart"), "-"))
		printf("new values that wait for a restart of ckptd: %s\n",
		       string(config, "waits_for_restart"));
	if (json_is_false(json_object_get(answer, "criu_tracks_memory")))
		printf("%s\n", CRIU_SENDS_ALL);
	if (json_is_object(notice))
		printf("this node will be taken away: %s\n", string(notice, "text"));
	if (json_is_string(json_object_get(answer, "notices_problem")))
		printf("%s\n", string(answer, "notices_problem"));
	if (!json_array_size(jobs))
		return;
	printf("%-32s %-10s %-13s %-10s %9s %7s %9s %11s %9s %8s  %s\n", "JOB", "CLASS", "STATE",
	       "MECHANISM", "MEM MiB", "EPOCHS", "LAST MiB", "CHECKPOINTS", "FROZEN ms", "FLUSH ms",
	       "FORECAST s");
	json_array_foreach(jobs, i, job)
		print_job(job);
}

int parse_json(int argc, char **argv, bool *json, const char *usage)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'J') {
			*json = true;
			continue;
		}
		fputs(usage, option == 'h' ? stdout : stderr);
		if (option == 'h')
			exit(0);
		return -1;
	}
	return optind;
}

static int show_status(bool json)
{
	return ask_and_show(json_pack("{s:s}", "op", "status"), json, print_status);
}

/* Also while ckptd is restarted. */
__attribute__((noreturn)) static void watch_status(unsigned int seconds, bool json)
{
	bool screen = isatty(STDOUT_FILENO);

	for (;; sleep(seconds)) {
		if (screen)
			fputs("\033[H\033[2J", stdout);
		show_status(json);
		if (!screen)
			putchar('\n');
		fflush(stdout);
	}
}

int command_status(int argc, char **argv)
{
	static const struct option options[] = {
		{ "watch", optional_argument, NULL, 'w' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] = "Usage: ckptctl status [--watch[=SECONDS]] [--json]\n"
				    "Shows the jobs on this node: all for root and the group ckpt, else one's own. With "
				    "--watch again\nevery 2 seconds, or as said, until it is interrupted.\n";
	unsigned int seconds = 0;
	bool json = false, good = true;
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'J') {
			json = true;
		} else if (option == 'w') {
			seconds = optarg ? (unsigned int)atoi(optarg) : 2;
			good = seconds >= 1 && seconds <= 86400;
		} else {
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (!good || optind != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	if (seconds)
		watch_status(seconds, json);
	return show_status(json);
}

int command_checkpoint(int argc, char **argv)
{
	static const struct option options[] = {
		{ "end", no_argument, NULL, 'e' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] = "Usage: ckptctl checkpoint [--end] [--json] JOB\n"
				    "Takes a checkpoint of a running job now.\n\n"
				    "  --end   and ends it, with status 75, as a notice would: the same line goes on with\n"
				    "          it, here or on another node\n"
				    "  --json  what was done as JSON\n";
	bool json = false, end = false;
	json_t *request, *answer;
	const json_t *stats;
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'e': end = true; break;
		case 'J': json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	request = json_pack("{s:s, s:s, s:b}", "op", "checkpoint", "job", argv[optind], "end", end);
	answer = ask(request);
	json_decref(request);
	if (!answer)
		return JOB_STATUS_FAILED;
	stats = json_object_get(answer, "checkpoint");
	if (json)
		print_json(stats);
	else
		printf("%s committed: %lld pages, %lld written, frozen %lld ms, durable after %lld ms\n",
		       string(stats, "name"), (long long)integer(stats, "pages"),
		       (long long)integer(stats, "pages_written"),
		       (long long)integer(stats, "frozen_ms"), (long long)integer(stats, "flush_ms"));
	json_decref(answer);
	return 0;
}

int command_drain(int argc, char **argv)
{
	static const struct option options[] = {
		{ "window", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] = "Usage: ckptctl drain [--window SECONDS]\n"
				    "As if the interruption of this node had been announced: every job is "
				    "saved and ended,\nand none is started any more until ckptd is "
				    "restarted. Default window: 120 s.\n";
	json_t *request, *answer;
	int option, seconds = 120;

	while ((option = getopt_long(argc, argv, "w:h", options, NULL)) != -1) {
		if (option == 'w') {
			seconds = atoi(optarg);
			continue;
		}
		fputs(usage, option == 'h' ? stdout : stderr);
		return option == 'h' ? 0 : STATUS_USAGE;
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	request = json_pack("{s:s, s:i}", "op", "drain", "seconds", seconds);
	answer = ask(request);
	json_decref(request);
	if (!answer)
		return JOB_STATUS_FAILED;
	json_decref(answer);
	return 0;
}
