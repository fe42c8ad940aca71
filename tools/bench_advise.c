// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench advise: looks at a job for some minutes, with what ckptd measures of it, and says what intervals of epochs
 * and checkpoints would cost and save, and which to configure.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "advice.h"
#include "bench.h"
#include "bench_dump.h"
#include "bench_environment.h"
#include "bench_node.h"
#include "bench_report.h"
#include "cleanup.h"
#include "commands.h"
#include "config.h"
#include "pace.h"
#include "region.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"
#define ASK_MS 500
#define CHECKPOINTS 3
/* Until a command runs. */
#define START_S 120

static const unsigned int epoch_intervals_s[] = { 5, 10, 30, 60, 120, 300, 600, 1800, 3600 };
static const unsigned int checkpoint_intervals_s[] = { 300, 900, 1800, 3600, 7200, 14400, 28800 };

#define EPOCHS (sizeof(epoch_intervals_s) / sizeof(*epoch_intervals_s))
#define CHECKPOINT_INTERVALS (sizeof(checkpoint_intervals_s) / sizeof(*checkpoint_intervals_s))

struct inquiry {
	char job[160];          /* as in ckptctl status */
	char *const *command;   /* NULL: the job is there */
	pid_t run;              /* of the command */
	const char *class_name;
	struct class *class;
	struct config *config;
	double minutes;
	double mtbf_hours;      /* 0: the class's */
	struct advice_input input;
	struct samples frozen_ms, stream_ms;
	json_t *cells;
	json_t *samples;        /* what status told over the time */
	int64_t begin_us;
	bool json;
};

/* ---- measuring ---- */

/* The command has ended. */
static bool run_ended(struct inquiry *inquiry)
{
	if (!inquiry->run || waitpid(inquiry->run, NULL, WNOHANG) != inquiry->run)
		return false;
	inquiry->run = 0;
	return true;
}

static int start_command(struct inquiry *inquiry)
{
	const struct node here = { .name = "this node" };
	cleanup_close int output = open("/dev/null", O_WRONLY | O_CLOEXEC);
	char name[64], *arguments[1024] = { "ckptctl", "run", "--class", (char *)inquiry->class_name, "--job", name, "--" };
	size_t count = 7;

	snprintf(name, sizeof(name), "advise-%d", getpid());
	snprintf(inquiry->job, sizeof(inquiry->job), "%u-%s", getuid(), name);
	for (char *const *argument = inquiry->command; *argument && count < 1023; argument++)
		arguments[count++] = *argument;
	inquiry->run = node_start(&here, arguments, output);
	for (int tries = 0; tries < START_S * 1000 / ASK_MS && !run_ended(inquiry); tries++) {
		json_t *job = dump_job_status(inquiry->job);
		bool runs = !strcmp(json_string_value(json_object_get(job, "state")) ?: "", "running");

		json_decref(job);
		if (runs)
			return 0;
		poll(NULL, 0, ASK_MS);
	}
	say("'%s' does not run under ckptd; 'ckptctl run' has said why", inquiry->command[0]);
	return -ESRCH;
}

static void end_command(struct inquiry *inquiry)
{
	/* For good: another signal would leave its checkpoints. */
	if (inquiry->run > 0 && kill(inquiry->run, SIGINT) == 0)
		waitpid(inquiry->run, NULL, 0);
}

static int take_checkpoint(struct inquiry *inquiry)
{
	json_t *request = json_pack("{s:s, s:s}", "op", "checkpoint", "job", inquiry->job), *answer = ask(request), *stats;

	json_decref(request);
	if (!answer)
		return -EIO;
	stats = json_object_get(answer, "checkpoint");
	samples_add(&inquiry->frozen_ms, (double)json_integer_value(json_object_get(stats, "frozen_ms")));
	samples_add(&inquiry->stream_ms, (double)(json_integer_value(json_object_get(stats, "total_ms")) -
						  json_integer_value(json_object_get(stats, "flush_ms"))));
	json_decref(answer);
	return 0;
}

/* The class of a job that is there is its own. */
static int find_class(struct inquiry *inquiry)
{
	struct problem problem;
	json_t *job = inquiry->command ? NULL : dump_job_status(inquiry->job);
	const char *name = json_string_value(json_object_get(job, "class")) ?: inquiry->class_name;
	int ret = 0;

	if (!inquiry->command && !job) {
		say("there is no job '%s' here; 'ckptctl status' lists them", inquiry->job);
		return -ESRCH;
	}
	if (config_load(&inquiry->config, CONFIG_FILE, &problem)) {
		say("%s", problem.text);
		ret = -EINVAL;
	} else {
		inquiry->class = config_class(inquiry->config, name);
		if (!inquiry->class) {
			say("%s has no class '%s'", CONFIG_FILE, name);
			ret = -ENOENT;
		}
	}
	json_decref(job);
	return ret;
}

/* What was not measured yet is left out. */
static void take_sample(struct inquiry *inquiry, const json_t *job)
{
	json_t *sample = json_pack("{s:f, s:f, s:f, s:f}", "s", (double)(bench_now_us() - inquiry->begin_us) / 1e6, "outstanding_mib",
				   json_number_value(json_object_get(job, "outstanding_kib")) / 1024, "memory_mib",
				   json_number_value(json_object_get(job, "memory_kib")) / 1024, "written_mib",
				   json_number_value(json_object_get(job, "bytes_written")) / (1 << 20));

	if (json_is_integer(json_object_get(job, "forecast_ms")))
		json_object_set(sample, "forecast_ms", json_object_get(job, "forecast_ms"));
	json_array_append_new(inquiry->samples, sample);
}

static int look_at(struct inquiry *inquiry)
{
	json_t *job = dump_job_status(inquiry->job);
	struct pace pace = { 0 };

	if (!job) {
		say("the job '%s' has ended before it was looked at for %g minutes", inquiry->job, inquiry->minutes);
		return -ESRCH;
	}
	pace_from_json(&pace, json_object_get(job, "pace"));
	take_sample(inquiry, job);
	inquiry->input.policy = pace_input(&pace, inquiry->class, inquiry->config->imds_poll_ms, 0);
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Klooking at %s: %lld epochs, %zu of %d checkpoints", inquiry->job,
			(long long)json_integer_value(json_object_get(job, "epochs")), inquiry->frozen_ms.count, CHECKPOINTS);
	json_decref(job);
	return 0;
}

/* Checkpoints are spread over the time, the last one at its end. */
static int measure(struct inquiry *inquiry)
{
	int64_t length = (int64_t)(inquiry->minutes * 60e6);
	int ret;

	inquiry->samples = json_array();
	inquiry->begin_us = bench_now_us();
	ret = look_at(inquiry);

	while (ret == 0 && inquiry->frozen_ms.count < CHECKPOINTS) {
		poll(NULL, 0, ASK_MS);
		if (bench_now_us() - inquiry->begin_us >= length * (int64_t)(inquiry->frozen_ms.count + 1) / CHECKPOINTS)
			ret = take_checkpoint(inquiry);
		if (ret == 0)
			ret = look_at(inquiry);
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	if (ret == 0 && !inquiry->input.policy.pass_count) {
		say("no epoch of '%s' has ended in that time: look at it for longer (--minutes)", inquiry->job);
		ret = -ENODATA;
	}
	return ret;
}

static void conclude(struct inquiry *inquiry)
{
	struct advice_input *input = &inquiry->input;
	int64_t restore_ms = policy_stream_ms(&input->policy, input->policy.memory_pages);

	input->frozen_ms = (uint64_t)samples_median(&inquiry->frozen_ms);
	input->stream_ms = (uint64_t)samples_median(&inquiry->stream_ms);
	input->restore_ms = input->policy.fixed_ms + (restore_ms == POLICY_NEVER ? 0 : (uint64_t)restore_ms);
	input->mtbf_ms = inquiry->mtbf_hours > 0 ? (uint64_t)(inquiry->mtbf_hours * 3600e3) : inquiry->class->mtbf_ms;
}

/* ---- what is printed ---- */

static double mib(double pages)
{
	return pages * PAGE_BYTES / (1 << 20);
}

static void epoch_row(struct inquiry *inquiry, uint64_t interval_ms)
{
	struct advice_epoch epoch = advice_epoch(&inquiry->input, interval_ms);

	json_array_append_new(inquiry->cells, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:s}", "case", "epoch", "interval_s",
		(double)interval_ms / 1000, "usual_mib", mib((double)epoch.usual_pages), "most_mib",
		mib((double)epoch.most_pages), "busy", epoch.busy, "mib_per_hour", mib(epoch.pages_per_hour), "forecast_ms",
		(json_int_t)epoch.forecast_ms, "safety", policy_safety_name(epoch.safety)));
	if (!inquiry->json)
		printf("%8.0f s %12.1f %12.1f %10.1f %% %12.0f %11.1f  %s\n", (double)interval_ms / 1000,
		       mib((double)epoch.usual_pages), mib((double)epoch.most_pages), 100 * epoch.busy,
		       mib(epoch.pages_per_hour), (double)epoch.forecast_ms / 1000, policy_safety_name(epoch.safety));
}

static void checkpoint_row(struct inquiry *inquiry, uint64_t interval_ms)
{
	struct advice_checkpoint checkpoint = advice_checkpoint(&inquiry->input, interval_ms);

	json_array_append_new(inquiry->cells, json_pack("{s:s, s:f, s:f, s:f, s:f}", "case", "checkpoint", "interval_s",
		(double)interval_ms / 1000, "stopped", checkpoint.stopped, "lost", checkpoint.lost, "cost_per_hour",
		checkpoint.cost_per_hour));
	if (inquiry->json)
		return;
	printf("%8.0f s %12.3f %% %12.3f %% %12.3f %%", (double)interval_ms / 1000, 100 * checkpoint.stopped,
	       100 * checkpoint.lost, 100 * (checkpoint.stopped + checkpoint.lost));
	if (inquiry->input.cost > 0)
		printf(" %12.4f", checkpoint.cost_per_hour);
	putchar('\n');
}

static void print_tables(struct inquiry *inquiry, uint64_t best_ms)
{
	if (!inquiry->json)
		printf("Epochs: what is written in an interval, and what a notice at the worst moment would find\n%10s %12s %12s "
		       "%12s %12s %11s\n", "interval", "usual MiB", "most MiB", "streaming", "MiB/hour", "forecast s");
	for (size_t i = 0; i < EPOCHS; i++)
		epoch_row(inquiry, epoch_intervals_s[i] * 1000ull);
	if (!inquiry->json)
		printf("\nCheckpoints: the share of time that they stop the job, and that losses without a notice, one in %.1f h, "
		       "cost\n%10s %14s %14s %14s%s\n", (double)inquiry->input.mtbf_ms / 3600e3, "interval", "stopped", "lost",
		       "both", inquiry->input.cost > 0 ? "   cost an hour" : "");
	for (size_t i = 0; i < CHECKPOINT_INTERVALS; i++)
		checkpoint_row(inquiry, checkpoint_intervals_s[i] * 1000ull);
	checkpoint_row(inquiry, best_ms);
}

static void print_verdict(const struct inquiry *inquiry, uint64_t longest_ms)
{
	const struct policy_input *policy = &inquiry->input.policy;

	if (longest_ms)
		printf("\nSafe at every moment with an epoch at least every %llu s; 'auto' sees what is outstanding, and begins one in "
		       "time.\n\n", (unsigned long long)longest_ms / 1000);
	else
		printf("\nNo interval makes this job safe: of the window of %.0f s, %.1f s are CRIU and fsync, %.0f s the margin, and "
		       "the rest is too short for what the job writes while an epoch is streamed. Faster storage would help, or "
		       "less memory; what is lost to an interruption then is what was done since the last checkpoint.\n\n",
		       (double)policy->window_ms / 1000, (double)policy->fixed_ms / 1000, (double)policy->margin_ms / 1000);
}

/* Without epochs that make it safe, checkpoints are all there is. */
static void print_config(const struct inquiry *inquiry, uint64_t longest_ms, uint64_t best_ms)
{
	printf("[class %s]\n", inquiry->class->name);
	printf("epoch_interval = auto\n");
	printf("checkpoint_interval = %llus\n", (unsigned long long)best_ms / 1000);
	printf("mtbf = %llus\n", (unsigned long long)inquiry->input.mtbf_ms / 1000);
	if (!longest_ms)
		printf("# unsafe: see on_forecast, which can ask for On-Demand capacity\n");
}

static int report(struct inquiry *inquiry)
{
	const struct advice_input *input = &inquiry->input;
	uint64_t longest_ms = advice_longest_ms(input);
	uint64_t best_ms = policy_checkpoint_ms(input->frozen_ms ?: 1, input->stream_ms, input->mtbf_ms);
	json_t *environment = bench_environment(), *all;
	int status;

	inquiry->cells = json_array();
	print_tables(inquiry, best_ms);
	if (!inquiry->json) {
		print_verdict(inquiry, longest_ms);
		print_config(inquiry, longest_ms, best_ms);
	}
	json_object_set_new(environment, "class", json_string(inquiry->class->name));
	all = json_pack("{s:o, s:o, s:O, s:{s:I, s:I, s:I, s:I, s:I, s:f}}", "environment", environment, "cells", inquiry->cells,
			"samples", inquiry->samples, "advice", "longest_epoch_interval_ms", (json_int_t)longest_ms, "checkpoint_interval_ms",
			(json_int_t)best_ms, "mtbf_ms", (json_int_t)input->mtbf_ms, "frozen_ms", (json_int_t)input->frozen_ms,
			"fixed_ms", (json_int_t)input->policy.fixed_ms, "memory_mib", mib((double)input->policy.memory_pages));
	status = bench_report(all, "advise", inquiry->json);
	json_decref(all);
	return status;
}

/* ---- */

static const char usage[] =
	"Usage: ckptbench advise [OPTION]... --job JOB\n"
	"       ckptbench advise [OPTION]... [--class CLASS] -- COMMAND [ARGUMENT]...\n"
	"\n"
	"Looks at a job for some minutes: how much it writes in how long, how fast the store takes it, and how long\n"
	"checkpoints, of which it takes three, stop it. Says what intervals of epochs and checkpoints cost and save, and\n"
	"prints what to configure.\n"
	"\n"
	"  --job JOB        a running job, by its full name as in 'ckptctl status'; it runs on. A COMMAND is run under\n"
	"                   ckptd and ended afterwards; what it prints is dropped\n"
	"  --class CLASS    of the command (default)\n"
	"  --minutes N      how long to look (10); what is not seen for longer intervals is reckoned from shorter ones\n"
	"  --mtbf HOURS     between losses of a node without a usable notice (the class's mtbf)\n"
	"  --cost N         of an hour of the job: node and licences, in any money; then the table has a cost\n"
	"  --json           all as JSON\n";

static int advise(struct inquiry *inquiry)
{
	int ret = find_class(inquiry);

	/* The command hears it as well. */
	signal(SIGINT, SIG_IGN);
	if (ret == 0 && inquiry->command)
		ret = start_command(inquiry);
	if (ret == 0)
		ret = measure(inquiry);
	end_command(inquiry);
	if (ret == 0) {
		conclude(inquiry);
		ret = report(inquiry);
	} else {
		ret = 1;
	}
	json_decref(inquiry->samples);
	samples_free(&inquiry->frozen_ms);
	samples_free(&inquiry->stream_ms);
	if (inquiry->config)
		config_free(inquiry->config);
	return ret;
}

int bench_advise(int argc, char **argv)
{
	static const struct option options[] = {
		{ "job", required_argument, NULL, 'j' },
		{ "class", required_argument, NULL, 'c' },
		{ "minutes", required_argument, NULL, 'm' },
		{ "mtbf", required_argument, NULL, 'f' },
		{ "cost", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct inquiry inquiry = { .class_name = "default", .minutes = 10 };
	const char *job = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "+j:c:m:h", options, NULL)) != -1) {
		switch (option) {
		case 'j': job = optarg; break;
		case 'c': inquiry.class_name = optarg; break;
		case 'm': inquiry.minutes = atof(optarg); break;
		case 'f': inquiry.mtbf_hours = atof(optarg); break;
		case 'p': inquiry.input.cost = atof(optarg); break;
		case 'J': inquiry.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	inquiry.command = optind < argc ? argv + optind : NULL;
	if (!job == !inquiry.command || !(inquiry.minutes > 0 && inquiry.minutes <= 1440) || inquiry.mtbf_hours < 0 ||
	    inquiry.input.cost < 0) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	snprintf(inquiry.job, sizeof(inquiry.job), "%s", job ?: "");
	return advise(&inquiry);
}
