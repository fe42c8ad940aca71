// SPDX-License-Identifier: GPL-2.0
/* One run of the command that `ckptbench ladder` measures, with its checkpoints and restores. */
#include "bench_ladder.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "cleanup.h"
#include "commands.h"
#include "job.h"

/* How often a node is asked whether the job runs there. */
#define ASK_MS 100
#define MOST_ARGUMENTS 4096

/* The job between two of its ends. */
struct leg {
	const struct node *node;
	pid_t pid;
	int output;
	char name[64];
};

/* ---- what it prints ---- */

static uint64_t digest(int output)
{
	XXH3_state_t *state = XXH3_createState();
	char buffer[65536];
	uint64_t sum;
	ssize_t n;

	XXH3_64bits_reset(state);
	for (off_t at = 0; (n = pread(output, buffer, sizeof(buffer), at)) > 0; at += n)
		XXH3_64bits_update(state, buffer, (size_t)n);
	sum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return sum;
}

/* All runs must end alike; else they are not the same work. */
static int compare(struct ladder *ladder, int status, int output, struct run_result *result)
{
	uint64_t sum = digest(output);

	if (!ladder->measured) {
		ladder->status = status;
		ladder->digest = sum;
		ladder->measured = true;
	}
	result->differs = sum != ladder->digest;
	if (status == ladder->status)
		return 0;
	say("'%s' ended with status %d, and with %d when it ran first", ladder->command[0], status, ladder->status);
	return -EPROTO;
}

/* ---- processes ---- */

static int exit_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Whether it has ended within that time. */
static bool ends_within(pid_t pid, double seconds)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = { .fd = pidfd, .events = POLLIN };

	return poll(&end, 1, seconds > 0 ? (int)(seconds * 1000) : 0) > 0;
}

/* ---- the command by itself ---- */

static int run_plain(struct ladder *ladder, int output, struct run_result *result)
{
	int64_t begin = bench_now_us();
	pid_t pid = node_start(&ladder->nodes[0], ladder->command, output);
	int status = pid < 0 ? pid : exit_status(pid);

	result->seconds = (double)(bench_now_us() - begin) / 1e6;
	if (status == 126 || status == 127) {
		say("'%s' cannot be executed", ladder->command[0]);
		return -ENOENT;
	}
	return status < 0 ? status : compare(ladder, status, output, result);
}

/* ---- under ckptctl run ---- */

static int leg_start(const struct ladder *ladder, struct leg *leg)
{
	char *arguments[MOST_ARGUMENTS] = { "ckptctl", "run", "--class", (char *)ladder->class, "--job", leg->name, "--" };
	size_t count = 7;

	for (char *const *argument = ladder->command; *argument; argument++) {
		if (count == MOST_ARGUMENTS - 1)
			return -E2BIG;
		arguments[count++] = *argument;
	}
	leg->pid = node_start(leg->node, arguments, leg->output);
	return leg->pid < 0 ? leg->pid : 0;
}

/* It is waited for once. */
static pid_t take_pid(struct leg *leg)
{
	pid_t pid = leg->pid;

	leg->pid = 0;
	return pid;
}

static json_t *leg_status(const struct leg *leg)
{
	json_t *answer = node_ask(leg->node, (char *[]){ "ckptctl", "status", "--json", NULL });
	json_t *job, *found = NULL;
	size_t i;

	json_array_foreach(json_object_get(answer, "jobs"), i, job) {
		const char *name = json_string_value(json_object_get(job, "job"));

		if (name && strchr(name, '-') && !strcmp(strchr(name, '-') + 1, leg->name))
			found = json_incref(job);
	}
	json_decref(answer);
	return found;
}

static int leg_failed(const struct leg *leg, const char *what)
{
	say("%s on %s: 'ckptctl run' has said why, or 'ckptctl doctor' and the log of ckptd there do", what,
	    leg->node->name);
	return -EIO;
}

static int leg_too_short(const struct ladder *ladder)
{
	say("'%s' ended before it could be saved: it is too short to be measured so", ladder->command[0]);
	return -ENODATA;
}

static int leg_await_running(const struct ladder *ladder, struct leg *leg, double *restore_ms)
{
	bool running = false;

	while (!running) {
		json_t *job;

		if (ends_within(leg->pid, ASK_MS / 1000.0)) {
			int status = exit_status(take_pid(leg));

			return status == ladder->status ? leg_too_short(ladder) : leg_failed(leg, "the job does not begin");
		}
		job = leg_status(leg);
		running = !strcmp(json_string_value(json_object_get(job, "state")) ?: "", "running");
		*restore_ms = (double)json_integer_value(json_object_get(job, "restore_ms"));
		json_decref(job);
	}
	return 0;
}

static int leg_save(const struct ladder *ladder, struct leg *leg, struct run_result *result)
{
	json_t *stats = node_ask(leg->node, (char *[]){ "ckptctl", "checkpoint", "--end", "--json", leg->name, NULL });
	int status;

	if (!stats)
		return ends_within(leg->pid, 1) ? leg_too_short(ladder) : leg_failed(leg, "there is no checkpoint of the job");
	result->frozen_ms += (double)json_integer_value(json_object_get(stats, "frozen_ms"));
	result->flush_ms += (double)json_integer_value(json_object_get(stats, "flush_ms"));
	result->bytes += (double)json_integer_value(json_object_get(stats, "bytes_written"));
	json_decref(stats);
	status = exit_status(take_pid(leg));
	return status == JOB_STATUS_INTERRUPTED ? 0 : leg_failed(leg, "the job was not ended after its checkpoint");
}

/* After running for that long; it goes on on the next node. */
static int leg_move(const struct ladder *ladder, struct leg *leg, const struct node *next, double after_s,
		    struct run_result *result)
{
	int64_t begin;
	double ms;
	int ret;

	if (ends_within(leg->pid, after_s))
		return leg_too_short(ladder);
	begin = bench_now_us();
	ret = leg_save(ladder, leg, result);
	leg->node = next;
	if (ret == 0)
		ret = leg_start(ladder, leg);
	if (ret == 0)
		ret = leg_await_running(ladder, leg, &ms);
	if (ret == 0) {
		result->restore_ms += ms;
		result->away_s += (double)(bench_now_us() - begin) / 1e6;
	}
	return ret;
}

static const struct node *next_node(const struct ladder *ladder, enum step step, unsigned int moves)
{
	if (step == STEP_SAME_NODE || ladder->node_count == 1)
		return &ladder->nodes[0];
	return &ladder->nodes[moves % ladder->node_count];
}

static int run_legs(struct ladder *ladder, enum step step, struct leg *leg, struct run_result *result)
{
	unsigned int moves = step == STEP_CHAIN ? ladder->checkpoints : step == STEP_RUN ? 0 : 1;
	int64_t begin = bench_now_us();
	double ms;
	int ret = leg_start(ladder, leg);

	if (ret == 0 && moves)
		ret = leg_await_running(ladder, leg, &ms);
	for (unsigned int i = 0; ret == 0 && i < moves; i++)
		ret = leg_move(ladder, leg, next_node(ladder, step, i + 1), ladder->expect_s / (moves + 1), result);
	if (ret)
		return ret;
	ret = exit_status(take_pid(leg));
	result->seconds = (double)(bench_now_us() - begin) / 1e6;
	return ret == JOB_STATUS_FAILED ? leg_failed(leg, "the job failed") : compare(ladder, ret, leg->output, result);
}

static int run_managed(struct ladder *ladder, enum step step, int output, struct run_result *result)
{
	struct leg leg = { .node = &ladder->nodes[0], .output = output };
	int ret;

	snprintf(leg.name, sizeof(leg.name), "ladder-%d-%u", getpid(), ++ladder->job);
	ret = run_legs(ladder, step, &leg, result);
	/* For good: another signal would leave its checkpoints. */
	if (leg.pid > 0 && kill(leg.pid, SIGINT) == 0)
		exit_status(leg.pid);
	return ret;
}

int ladder_run(struct ladder *ladder, enum step step, struct run_result *result)
{
	cleanup_close int output = memfd_create("output", MFD_CLOEXEC);

	*result = (struct run_result){ 0 };
	if (output < 0)
		return -errno;
	return step <= STEP_INSTALLED ? run_plain(ladder, output, result) : run_managed(ladder, step, output, result);
}
