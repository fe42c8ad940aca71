// SPDX-License-Identifier: GPL-2.0
/* ckptctl prune: removes now what ckptd would remove in time, or what root says. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "job.h"
#include "overview.h"
#include "places.h"
#include "progress.h"
#include "retain.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"

static const char usage[] =
	"Usage: ckptctl prune [--older AGE] [--dry-run] [--store DIR] [--json] [--config FILE] [JOB]\n"
	"Removes the checkpoints of jobs that have ended or were given up, when their time has come: what each\n"
	"node does every clean_interval, by keep_after_end and keep_abandoned. With --older AGE: of all jobs\n"
	"that nobody has run for that long. With JOB (NAME, or UID-NAME): of this one, whatever its age. A job\n"
	"that runs, or is just being restored, is never touched. Root only.\n\n"
	"  -o, --older AGE    a number with its unit: s, m, h, d\n"
	"  -n, --dry-run      only say what would be removed\n"
	"  -s, --store DIR    only this store, instead of those of all classes\n"
	"      --json         as JSON\n"
	"  -c, --config FILE  ckptd's configuration (" CONFIG_FILE ")\n\n"
	"Exit status: 0, 1 something could not be read or removed, 125 nothing could be.\n";

struct request {
	struct places_query query;
	bool json;
	bool dry;
	bool aged;               /* --older, or a job was named */
	int64_t older_ms;
	char node[64];
	json_t *jobs;
	unsigned int removed, left;
	bool failed;
};

static int parse_age(const char *text, int64_t *ms)
{
	static const struct {
		char unit;
		int64_t ms;
	} units[] = { { 's', 1000 }, { 'm', 60000 }, { 'h', 3600000 }, { 'd', 86400000 } };
	char *end;
	long number;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	number = strtol(text, &end, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(*units) && !errno && number < 100000; i++)
		if (end[0] == units[i].unit && !end[1]) {
			*ms = number * units[i].ms;
			return 0;
		}
	return -EINVAL;
}

/* How long it may have been idle; < 0: it stays, whatever that is. */
static int idle_limit(const struct request *request, const struct place *place, struct store *store,
		      const struct config *config, int64_t *limit_ms, struct problem *problem)
{
	struct retain_pass pass = { .classes = config->classes, .class_count = config->class_count };
	uint64_t keep_ms;
	int ret;

	*limit_ms = request->older_ms;
	if (request->aged)
		return 0;
	ret = retain_time_to_keep(&pass, place->store, store, &keep_ms, problem);
	if (ret == 0)
		*limit_ms = keep_ms ? (int64_t)keep_ms : -1;
	return ret;
}

static void tell(struct request *request, const struct place *place, const struct overview *overview,
		 const char *what, const char *text)
{
	json_t *object = json_pack("{s:s, s:s, s:s, s:s*}", "store", place->store, "job", place->job, "result",
				   what, "text", text);
	char size[32];

	if (overview)
		json_object_set_new(object, "bytes", json_integer((json_int_t)overview->bytes));
	json_array_append_new(request->jobs, object);
	if (request->json)
		return;
	if (!overview)
		say("%s/%s: %s: %s", place->store, place->job, what, text);
	else
		printf("%s/%s: %s%s%s, %s\n", place->store, place->job, what, text ? ": " : "", text ? text : "",
		       bytes_text(size, overview->bytes));
}

/* Why it is left alone; NULL: it may go. */
static const char *left_why(const struct overview *overview, int64_t limit_ms)
{
	if (overview->state == OVERVIEW_RUNNING)
		return "a node runs it";
	if (limit_ms < 0)
		return "it waits to be run again, and keep_abandoned is not set";
	if (overview->idle_s * 1000 < limit_ms)
		return "its time has not come";
	return NULL;
}

static int prune_one(struct request *request, const struct place *place, struct store *store,
		     const struct config *config, struct problem *problem)
{
	struct overview overview;
	int64_t limit_ms;
	const char *why;
	int ret = overview_read(store, &overview, problem);

	if (ret == 0)
		ret = idle_limit(request, place, store, config, &limit_ms, problem);
	why = ret ? NULL : left_why(&overview, limit_ms);
	if (ret == 0 && !why && !request->dry) {
		ret = store_give_up(store, request->node, limit_ms, problem);
		why = ret == -EBUSY ? "somebody runs or restores it, or did a moment ago: try again in a minute" : NULL;
		ret = why ? 0 : ret;
	}
	if (ret == 0)
		tell(request, place, &overview, why ? "left" : request->dry ? "would be removed" : "removed", why);
	request->left += ret == 0 && why;
	request->removed += ret == 0 && !why;
	overview_free(&overview);
	return ret;
}

static int prune_place(void *arg, const struct place *place, struct store *store, const struct config *config,
		       struct problem *problem)
{
	struct request *request = arg;
	int ret = store ? prune_one(request, place, store, config, problem) : -EIO;

	/* What is gone by itself is no failure. */
	if (ret && ret != -ENOENT && ret != -ENODATA) {
		request->failed = true;
		tell(request, place, NULL, "failed", problem->text);
	}
	return 0;
}

static int prune(struct request *request)
{
	struct problem problem;
	int ret;

	gethostname(request->node, sizeof(request->node) - 1);
	request->jobs = json_array();
	ret = places_visit(&request->query, prune_place, request, &problem);
	if (ret)
		say("%s", problem.text);
	else if (request->json)
		print_json(request->jobs);
	else
		printf("%u %s, %u left\n", request->removed, request->dry ? "would be removed" : "removed",
		       request->left);
	json_decref(request->jobs);
	return ret ? JOB_STATUS_FAILED : request->failed ? 1 : 0;
}

int command_prune(int argc, char **argv)
{
	static const struct option options[] = {
		{ "older", required_argument, NULL, 'o' },
		{ "dry-run", no_argument, NULL, 'n' },
		{ "store", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'J' },
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct request request = { .query = { .config = CONFIG_FILE, .use = STORE_KNOWN } };
	bool good = true;
	int option;

	while ((option = getopt_long(argc, argv, "o:ns:c:h", options, NULL)) != -1) {
		switch (option) {
		case 'o':
			request.aged = true;
			good = good && parse_age(optarg, &request.older_ms) == 0;
			break;
		case 'n': request.dry = true; break;
		case 's': request.query.store = optarg; break;
		case 'J': request.json = true; break;
		case 'c': request.query.config = optarg; break;
		case 'h': fputs(usage, stdout); return 0;
		default: good = false;
		}
	}
	if (!good || argc - optind > 1 || geteuid() != 0) {
		fputs(good && argc - optind <= 1 ? "ckptctl prune must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	request.query.job = argv[optind];
	request.aged |= request.query.job != NULL;
	return prune(&request);
}
