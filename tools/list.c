// SPDX-License-Identifier: GPL-2.0
/* ckptctl list, show: what jobs have in the stores, without reading their pages. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "job.h"
#include "manifest.h"
#include "overview.h"
#include "places.h"
#include "progress.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"

struct request {
	struct places_query query;
	bool json;
	json_t *jobs;            /* the answer, with --json */
	size_t count;
	bool failed;             /* something could not be read */
};

static const char *time_text(char text[32], int64_t seconds)
{
	time_t time = (time_t)seconds;

	strftime(text, 32, "%F %T", localtime(&time));
	return text;
}

/* ---- list ---- */

static json_t *place_json(const struct place *place)
{
	return json_pack("{s:s, s:s}", "store", place->store, "job", place->job);
}

static void take_problem(struct request *request, const struct place *place, const struct problem *problem)
{
	json_t *object = place_json(place);

	request->failed = true;
	if (!request->json)
		say("%s/%s: %s", place->store, place->job, problem->text);
	json_object_set_new(object, "problem", json_string(problem->text));
	json_array_append_new(request->jobs, object);
}

static json_t *overview_json(const struct place *place, const struct overview *overview)
{
	json_t *object = place_json(place), *names = json_array();

	for (size_t i = 0; i < overview->checkpoint_count; i++)
		json_array_append_new(names, json_pack("{s:s, s:I}", "name", overview->checkpoints[i].name, "written",
						       (json_int_t)overview->checkpoints[i].written_s));
	json_object_set_new(object, "state", json_string(overview_state_name(overview->state)));
	json_object_set_new(object, "node", *overview->node ? json_string(overview->node) : json_null());
	json_object_set_new(object, "idle_s", json_integer(overview->idle_s));
	json_object_set_new(object, "kept_s", json_integer(overview->kept_s));
	json_object_set_new(object, "files", json_integer(overview->objects));
	json_object_set_new(object, "bytes", json_integer((json_int_t)overview->bytes));
	json_object_set_new(object, "checkpoints", names);
	return object;
}

static void print_overview(const struct request *request, const struct place *place,
			   const struct overview *overview)
{
	char size[32], when[32] = "-";

	if (!request->count)
		printf("%-32s %-8s %-16s %11s %-19s %10s  %s\n", "JOB", "STATE", "NODE", "CHECKPOINTS", "NEWEST",
		       "SIZE", "STORE");
	if (overview->checkpoint_count)
		time_text(when, overview->checkpoints[0].written_s);
	printf("%-32s %-8s %-16s %11zu %-19s %10s  %s\n", place->job, overview_state_name(overview->state),
	       *overview->node ? overview->node : "-", overview->checkpoint_count, when,
	       bytes_text(size, overview->bytes), place->store);
}

static int list_place(void *arg, const struct place *place, struct store *store, const struct config *config,
		      struct problem *problem)
{
	struct request *request = arg;
	struct overview overview = { 0 };
	int ret = store ? overview_read(store, &overview, problem) : -EIO;

	if (ret == 0 && request->json)
		json_array_append_new(request->jobs, overview_json(place, &overview));
	else if (ret == 0)
		print_overview(request, place, &overview);
	else if (ret != -ENOENT && ret != -ENODATA)
		take_problem(request, place, problem);
	request->count += ret == 0;
	overview_free(&overview);
	return 0;
}

/* ---- show ---- */

static const char *string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "-";
}

static void print_command(const json_t *meta)
{
	const json_t *word;
	size_t i;

	printf("      command ");
	json_array_foreach(json_object_get(meta, "command"), i, word)
		printf(" %s", json_string_value(word) ?: "?");
	putchar('\n');
}

static void print_checkpoint(const char *name, const struct manifest *manifest, const json_t *meta,
			     uint64_t pages)
{
	const json_t *host = json_object_get(meta, "host");
	char when[32], size[32];

	printf("  %s  %s on %s, %s of memory%s\n", name,
	       time_text(when, json_integer_value(json_object_get(meta, "time"))), string(host, "node"),
	       bytes_text(size, pages * PAGE_BYTES), manifest->final ? ", final" : "");
	print_command(meta);
	printf("      in       %s, class %s\n", string(meta, "cwd"), string(meta, "class"));
	printf("      with     kernel %s, CRIU %s, mechanism %s, %zu open files", string(host, "kernel"),
	       string(meta, "criu"), string(meta, "mechanism"),
	       json_array_size(json_object_get(meta, "files")));
	if (json_object_get(meta, "tcp"))
		printf(", TCP connections %s", strcmp(string(meta, "tcp"), "close") ? "as they were" : "closed");
	putchar('\n');
}

static int count_pages(struct space *space, void *arg)
{
	if (space_kind(space) != SPACE_FILE)
		*(uint64_t *)arg += space_pages(space);
	return 0;
}

/* A checkpoint that is damaged is told of; whatever else is wrong is the same for all. */
static int show_checkpoint(struct request *request, struct store *store, const char *name, json_t *list,
			   struct problem *problem)
{
	struct manifest *manifest;
	uint64_t pages = 0;
	json_t *meta;
	int ret = manifest_read(store, name, &manifest, problem);

	if (ret == -EBADMSG) {
		request->failed = true;
		if (!request->json)
			printf("  %s  cannot be restored: %s\n", name, problem->text);
		json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "problem", problem->text));
		return 0;
	}
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	pagemap_for_each(manifest->map, count_pages, &pages);
	meta = json_loads(manifest->meta, 0, NULL);
	if (!request->json)
		print_checkpoint(name, manifest, meta, pages);
	json_array_append_new(list, json_pack("{s:s, s:b, s:I, s:o}", "name", name, "final", manifest->final,
					      "pages", (json_int_t)pages, "meta", meta ? meta : json_null()));
	manifest_free(manifest);
	return 0;
}

static void print_head(const struct place *place, const struct overview *overview)
{
	char size[32], when[32];

	printf("%s/%s: %s%s%s, %u files, %s\n", place->store, place->job, overview_state_name(overview->state),
	       *overview->node ? " on " : "", overview->node, overview->objects, bytes_text(size, overview->bytes));
	if (overview->state == OVERVIEW_ENDED)
		printf("  is kept until %s; no run goes on with it\n",
		       time_text(when, time(NULL) + overview->kept_s - overview->idle_s));
	else if (!overview->checkpoint_count)
		printf("  no checkpoint was committed yet\n");
}

static int show_place(void *arg, const struct place *place, struct store *store, const struct config *config,
		      struct problem *problem)
{
	struct request *request = arg;
	struct overview overview = { 0 };
	json_t *list = json_array(), *object;
	int ret = store ? overview_read(store, &overview, problem) : -EIO;

	if (ret == 0 && !request->json)
		print_head(place, &overview);
	for (size_t i = 0; i < overview.checkpoint_count && ret == 0; i++)
		ret = show_checkpoint(request, store, overview.checkpoints[i].name, list, problem);
	if (ret == 0) {
		object = overview_json(place, &overview);
		json_object_set(object, "checkpoints", list);
		json_array_append_new(request->jobs, object);
	} else if (ret != -ENOENT && ret != -ENODATA) {
		take_problem(request, place, problem);
	}
	request->count += ret == 0;
	json_decref(list);
	overview_free(&overview);
	return 0;
}

/* ---- the commands ---- */

static int visit(struct request *request, place_visit visitor)
{
	struct problem problem;
	int ret;

	request->jobs = json_array();
	ret = places_visit(&request->query, visitor, request, &problem);
	if (ret)
		say("%s", problem.text);
	else if (request->json)
		print_json(request->jobs);
	else if (!request->count && !request->failed)
		printf("there are no jobs in the stores\n");
	json_decref(request->jobs);
	return ret ? JOB_STATUS_FAILED : request->failed ? 1 : 0;
}

/* The index of the first argument; -1: an exit status is in *status. */
static int parse(struct request *request, int argc, char **argv, const char *usage, int *status)
{
	static const struct option options[] = {
		{ "store", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'J' },
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	request->query = (struct places_query){ .config = CONFIG_FILE, .use = STORE_KNOWN };
	while ((option = getopt_long(argc, argv, "s:c:h", options, NULL)) != -1) {
		switch (option) {
		case 's': request->query.store = optarg; break;
		case 'J': request->json = true; break;
		case 'c': request->query.config = optarg; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			*status = option == 'h' ? 0 : STATUS_USAGE;
			return -1;
		}
	}
	if (geteuid() != 0) {
		fprintf(stderr, "ckptctl %s must be run as root\n", argv[0]);
		*status = STATUS_USAGE;
		return -1;
	}
	return optind;
}

int command_list(int argc, char **argv)
{
	static const char usage[] =
		"Usage: ckptctl list [--store DIR] [--json] [--config FILE]\n"
		"Lists the jobs that have something in the stores. Root only: it takes the cluster's key.\n\n"
		"  -s, --store DIR    only this store, instead of those of all classes\n"
		"      --json         as JSON\n"
		"  -c, --config FILE  ckptd's configuration (" CONFIG_FILE ")\n\n"
		"STATE: running (a node has it), saved (by a final checkpoint: run it again), lost (its node went\n"
		"without one: it goes on from its newest), ended (the program has; kept for keep_after_end), empty\n"
		"(no checkpoint yet, and nobody runs it).\n"
		"Exit status: 0, 1 a job could not be read, 125 nothing could be.\n";
	struct request request = { 0 };
	int status, first = parse(&request, argc, argv, usage, &status);

	if (first < 0)
		return status;
	if (first != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	return visit(&request, list_place);
}

int command_show(int argc, char **argv)
{
	static const char usage[] =
		"Usage: ckptctl show [--store DIR] [--json] [--config FILE] JOB\n"
		"Shows the checkpoints of JOB (NAME, or UID-NAME) that can be restored, the newest first: when and\n"
		"where each was taken, of what, with what. Reads no pages: 'ckptctl verify' does. Root only.\n\n"
		"  -s, --store DIR    only this store, instead of those of all classes\n"
		"      --json         as JSON, with all that the checkpoint says of itself\n"
		"  -c, --config FILE  ckptd's configuration (" CONFIG_FILE ")\n\n"
		"Exit status: 0, 1 a checkpoint is damaged, 125 there is no such job or it cannot be read.\n";
	struct request request = { 0 };
	int status, first = parse(&request, argc, argv, usage, &status);

	if (first < 0)
		return status;
	if (first + 1 != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	request.query.job = argv[first];
	return visit(&request, show_place);
}
