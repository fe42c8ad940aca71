// SPDX-License-Identifier: GPL-2.0
/* ckptctl verify: whether all that jobs have in the stores can be restored. */
#include "verify.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "job.h"
#include "places.h"
#include "progress.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"

static const char usage[] =
	"Usage: ckptctl verify [--job NAME] [--store DIR] [--json] [--config FILE]\n"
	"Reads everything that jobs have in the stores, and says what is damaged and which checkpoints are\n"
	"whole. Jobs may run meanwhile; nothing is changed. Root only: it takes the cluster's key.\n\n"
	"  -j, --job NAME     only this job: NAME, or UID-NAME as 'ckptctl status' shows it\n"
	"  -s, --store DIR    only this store, instead of those of all classes\n"
	"      --json         print what was found as JSON\n"
	"  -c, --config FILE  ckptd's configuration (" CONFIG_FILE ")\n\n"
	"Exit status: 0 all is whole, 1 something is damaged, 125 it could not be read.\n";

struct request {
	const char *job;
	const char *store;
	const char *config;
	bool json;
	json_t *jobs; /* the answer, with --json */
	unsigned int damaged; /* jobs */
};

static void show(void *arg, uint64_t bytes_done, uint64_t bytes_all)
{
	progress_show(arg, bytes_done, bytes_all);
}

/* Where a restore would go on: the newest whole one of those that it looks at. */
static const struct verify_checkpoint *newest_whole(const struct verify_report *report)
{
	for (size_t i = 0; i < report->checkpoint_count; i++)
		if (report->checkpoints[i].whole && report->checkpoints[i].restorable)
			return &report->checkpoints[i];
	return NULL;
}

/* ---- for programs ---- */

static json_t *checkpoint_json(const struct verify_checkpoint *checkpoint)
{
	json_t *meta = checkpoint->meta ? json_loads(checkpoint->meta, 0, NULL) : NULL;
	json_t *object = json_pack("{s:s, s:b, s:b, s:b, s:I, s:O?, s:O?}", "name", checkpoint->name,
				   "whole", checkpoint->whole, "restorable", checkpoint->restorable, "final",
				   checkpoint->final, "pages", (json_int_t)checkpoint->pages, "time",
				   json_object_get(meta, "time"), "node",
				   json_object_get(json_object_get(meta, "host"), "node"));

	if (!checkpoint->whole)
		json_object_set_new(object, "text", json_string(checkpoint->text));
	json_decref(meta);
	return object;
}

static json_t *report_json(const struct place *place, const struct verify_report *report)
{
	const struct verify_checkpoint *newest = newest_whole(report);
	json_t *damages = json_array(), *checkpoints = json_array(), *keys = json_object();

	for (size_t i = 0; i < report->damage_count; i++)
		json_array_append_new(damages, json_pack("{s:s, s:I, s:s}", "file", report->damages[i].name,
							 "offset", (json_int_t)report->damages[i].offset,
							 "text", report->damages[i].text));
	for (size_t i = 0; i < report->checkpoint_count; i++)
		json_array_append_new(checkpoints, checkpoint_json(&report->checkpoints[i]));
	for (size_t i = 0; i < report->key_count; i++)
		json_object_set_new(keys, report->keys[i].id, json_integer(report->keys[i].objects));
	return json_pack("{s:s, s:s, s:i, s:I, s:o, s:o, s:o, s:s?}", "store", place->store, "job",
			 place->job, "files", (int)report->objects, "bytes", (json_int_t)report->bytes,
			 "damages", damages, "checkpoints", checkpoints, "keys", keys, "restores",
			 newest ? newest->name : NULL);
}

/* ---- for people ---- */

static void print_checkpoint(const struct verify_checkpoint *checkpoint)
{
	json_t *meta = checkpoint->meta ? json_loads(checkpoint->meta, 0, NULL) : NULL;
	const char *node = json_string_value(json_object_get(json_object_get(meta, "host"), "node"));
	time_t seconds = json_integer_value(json_object_get(meta, "time"));
	char when[32] = "", size[32];

	if (meta)
		strftime(when, sizeof(when), "%F %T", localtime(&seconds));
	printf("  %s  %s", checkpoint->name, checkpoint->whole ? "whole" : "NOT WHOLE");
	if (meta)
		printf("  %s on %s, %s%s", when, node ? node : "?",
		       bytes_text(size, checkpoint->pages * 4096), checkpoint->final ? ", final" : "");
	if (!checkpoint->restorable)
		printf(", is never restored: its owner had lost the job");
	putchar('\n');
	if (!checkpoint->whole)
		printf("      %s\n", checkpoint->text);
	json_decref(meta);
}

static void print_keys(const struct verify_report *report)
{
	printf("  sealed with");
	for (size_t i = 0; i < report->key_count; i++)
		printf("%s key %s: %u files", i ? "," : "", report->keys[i].id, report->keys[i].objects);
	putchar('\n');
}

static void print_report(const struct place *place, const struct verify_report *report)
{
	const struct verify_checkpoint *newest = newest_whole(report);
	char size[32];

	printf("%s/%s: %u files, %s, %s\n", place->store, place->job, report->objects,
	       bytes_text(size, report->bytes), report->damage_count ? "DAMAGED" : "whole");
	for (size_t i = 0; i < report->damage_count; i++)
		printf("  damaged: %s at %llu: %s\n", report->damages[i].name,
		       (unsigned long long)report->damages[i].offset, report->damages[i].text);
	for (size_t i = 0; i < report->checkpoint_count; i++)
		print_checkpoint(&report->checkpoints[i]);
	if (report->key_count)
		print_keys(report);
	if (newest)
		printf("  a restore goes on from %s\n", newest->name);
	else
		printf("  there is nothing that can be restored%s\n",
		       report->checkpoint_count ? "" : ": no checkpoint was committed yet");
	fflush(stdout);
}

/* ---- the work ---- */

static int verify_one(struct request *request, const struct place *place, const struct keys *keys,
		      struct problem *problem)
{
	struct verify_report report;
	struct progress progress;
	struct store *store;
	int ret = place_open(place, keys, STORE_READ, &store, problem);

	/* A job that has ended meanwhile is retired, which is no damage. */
	if (ret == -ENOENT)
		return 0;
	if (ret)
		return ret;
	progress_begin(&progress, place->job, request->json);
	ret = verify_job(store, &report, show, &progress, problem);
	progress_end(&progress);
	store_close(store);
	if (ret)
		return ret;
	request->damaged += report.damage_count > 0;
	if (request->json)
		json_array_append_new(request->jobs, report_json(place, &report));
	else
		print_report(place, &report);
	verify_report_free(&report);
	return 0;
}

static int verify_places(struct request *request, const struct config *config,
			 struct problem *problem)
{
	struct places places;
	struct keys keys;
	int ret = keys_read(&keys, config->key_file, problem);

	if (ret == 0)
		ret = places_find(&places, config, request->store, request->job, problem);
	if (ret)
		return ret;
	for (size_t i = 0; i < places.count && ret == 0; i++)
		ret = verify_one(request, &places.list[i], &keys, problem);
	if (ret == 0 && !request->json && !places.count)
		printf("there are no jobs in the stores\n");
	places_free(&places);
	keys_wipe(&keys);
	return ret;
}

static int verify(struct request *request)
{
	struct problem problem;
	struct config *config;
	int ret = config_load(&config, request->config, &problem);

	if (ret == 0) {
		ret = verify_places(request, config, &problem);
		config_free(config);
	}
	if (ret) {
		say("%s", problem.text);
		return JOB_STATUS_FAILED;
	}
	if (request->json)
		print_json(request->jobs);
	return request->damaged ? 1 : 0;
}

int command_verify(int argc, char **argv)
{
	static const struct option options[] = {
		{ "job", required_argument, NULL, 'j' },
		{ "store", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'J' },
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct request request = { .config = CONFIG_FILE };
	int option, status;

	while ((option = getopt_long(argc, argv, "j:s:c:h", options, NULL)) != -1) {
		switch (option) {
		case 'j': request.job = optarg; break;
		case 's': request.store = optarg; break;
		case 'J': request.json = true; break;
		case 'c': request.config = optarg; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || geteuid() != 0) {
		fputs(optind != argc ? usage : "ckptctl verify must be run as root\n", stderr);
		return STATUS_USAGE;
	}
	request.jobs = json_array();
	status = verify(&request);
	json_decref(request.jobs);
	return status;
}
