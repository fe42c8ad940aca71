// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench report: one page of HTML from the reports that benchmarks have printed with --json. It needs nothing else:
 * plots are SVG in it, and there is no script.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "cleanup.h"
#include "commands.h"
#include "plot.h"

#define MOST_REPORTS 64
#define MOST_GROUPS 24
#define LABEL 40

struct source {
	char *file;
	json_t *report;
};

/* ---- what is in a report ---- */

static double number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static double at(const json_t *list, size_t index)
{
	const json_t *value = json_array_get(list, index);

	return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Names of groups of bars, each once. */
struct groups {
	char names[MOST_GROUPS][LABEL];
	const char *list[MOST_GROUPS];
	size_t count;
};

/* NAN: there is no room. */
static double group_of(struct groups *groups, const char *name)
{
	size_t i;

	for (i = 0; i < groups->count; i++)
		if (!strcmp(groups->names[i], name))
			return (double)i;
	if (i == MOST_GROUPS)
		return NAN;
	snprintf(groups->names[i], LABEL, "%s", name);
	groups->list[i] = groups->names[i];
	groups->count++;
	return (double)i;
}

static void finish_bars(struct plot *plot, const struct groups *groups, FILE *out)
{
	plot->groups = groups->list;
	plot->group_count = groups->count;
	if (groups->count)
		plot_draw(plot, out);
	plot_free(plot);
}

/* The series of that name, which is made if there is none. */
static struct plot_series *series_of(struct plot *plot, const char *name)
{
	for (size_t i = 0; i < plot->series_count; i++)
		if (!strcmp(plot->series[i].name, name))
			return &plot->series[i];
	return plot_add(plot, name);
}

/* ---- plots, by benchmark ---- */

/* How many times faster than the peer, by memory and share of it that was written. */
static void page_track_peer(const json_t *cells, const char *peer, bool thp, FILE *out)
{
	char title[128];
	struct plot plot = { .title = title, .x_label = "memory, share written", .y_label = "times faster than the peer", .log_y = true };
	struct groups groups = { .count = 0 };
	json_t *cell;
	size_t i;

	snprintf(title, sizeof(title), "Finding written pages: against %s, pages of %s", peer, thp ? "2 MiB" : "4 KiB");
	json_array_foreach(cells, i, cell) {
		char group[LABEL];

		if (strcmp(text(cell, "peer"), peer) || json_is_true(json_object_get(cell, "thp")) != thp)
			continue;
		snprintf(group, sizeof(group), "%.0f MiB, %g %%", number(cell, "mapped_bytes") / (1 << 20),
			 100 * number(cell, "density"));
		plot_point(series_of(&plot, text(cell, "mechanism")),
			   (struct plot_point){ .x = group_of(&groups, group), .y = number(cell, "ratio") });
	}
	finish_bars(&plot, &groups, out);
}

static void page_track(const json_t *report, FILE *out)
{
	const json_t *cells = json_object_get(report, "cells");

	for (unsigned int thp = 0; thp < 2; thp++) {
		page_track_peer(cells, "pagemap+clear_refs", thp, out);
		page_track_peer(cells, "PAGEMAP_SCAN", thp, out);
	}
}

static void page_dump_figure(const json_t *cells, const char *key, const char *title, const char *label, FILE *out)
{
	static const char *const kinds[] = { "criu", "criu_incremental", "ours" };
	static const char *const names[] = { "criu dump", "criu, incremental", "ckpt" };
	struct plot plot = { .title = title, .x_label = "memory, share written since the last one", .y_label = label, .log_y = true };
	struct groups groups = { .count = 0 };
	json_t *cell;
	size_t i;

	json_array_foreach(cells, i, cell) {
		char group[LABEL];

		snprintf(group, sizeof(group), "%.0f MiB, %g %%", number(cell, "mib"), 100 * number(cell, "written"));
		for (size_t kind = 0; kind < 3; kind++)
			plot_point(series_of(&plot, names[kind]), (struct plot_point){ .x = group_of(&groups, group),
				   .y = number(json_object_get(cell, kinds[kind]), key) });
	}
	finish_bars(&plot, &groups, out);
}

static void page_dump(const json_t *report, FILE *out)
{
	const json_t *cells = json_object_get(report, "cells");

	page_dump_figure(cells, "frozen_ms", "How long the job stands still", "ms", out);
	page_dump_figure(cells, "durable_ms", "From there until durable", "ms", out);
	page_dump_figure(cells, "mib_written", "Written while it stands still", "MiB", out);
}

static void page_stream(const json_t *report, FILE *out)
{
	struct plot plot = { .title = "On the way to the store", .x_label = "case and store",
			     .y_label = "ours to the peer's: more is better for rates, less for the rest" };
	struct groups groups = { .count = 0 };
	json_t *cell;
	size_t i;

	json_array_foreach(json_object_get(report, "cells"), i, cell) {
		char group[LABEL];

		snprintf(group, sizeof(group), "%s, %s", text(cell, "case"), text(cell, "store"));
		plot_point(series_of(&plot, text(cell, "peer_name")),
			   (struct plot_point){ .x = group_of(&groups, group), .y = number(cell, "ratio") });
	}
	finish_bars(&plot, &groups, out);
}

/* Rows of one unit are one plot, in the order in which they were measured. */
static void page_rows(const json_t *report, FILE *out, const char *unit, const char *title)
{
	struct plot plot = { .title = title, .x_label = "", .y_label = unit };
	struct groups groups = { .count = 0 };
	struct plot_series *series = plot_add(&plot, "median");
	json_t *cell;
	size_t i;

	json_array_foreach(json_object_get(report, "cells"), i, cell) {
		char group[LABEL];
		const char *colon = strstr(text(cell, "case"), ": ");

		if (strcmp(text(cell, "unit"), unit))
			continue;
		/* The plot has two lines for it. */
		snprintf(group, sizeof(group), "%.*s, %s", colon ? (int)(colon - text(cell, "case")) : 20, text(cell, "case"),
			 colon ? colon + 2 : "");
		plot_point(series, (struct plot_point){ .x = group_of(&groups, group), .y = number(cell, "median"),
			   .low = number(cell, "min"), .high = number(cell, "max") });
	}
	finish_bars(&plot, &groups, out);
}

static void page_restore(const json_t *report, FILE *out)
{
	page_rows(report, out, "MiB/s", "Reading a checkpoint, and making images of it");
	page_rows(report, out, "s", "Until the process runs again");
}

static void page_dump_job(const json_t *report, FILE *out)
{
	page_rows(report, out, "MiB", "Written, against the job's memory");
	page_rows(report, out, "ms", "How long the job stands still, and until durable");
}

static void page_policy(const json_t *report, FILE *out)
{
	struct plot plot = { .title = "Interruptions that make the window, of those that could", .x_label = "memory, GiB",
			     .y_label = "percent", .log_x = true };
	json_t *cell;
	size_t i;

	json_array_foreach(json_object_get(report, "cells"), i, cell)
		if (number(cell, "feasible") > 0)
			plot_point(series_of(&plot, text(cell, "trace")), (struct plot_point){ .x = number(cell, "memory_gib"),
				   .y = 100 * number(cell, "made") / number(cell, "feasible") });
	plot_draw(&plot, out);
	plot_free(&plot);
}

static void page_ladder(const json_t *report, FILE *out)
{
	struct plot plot = { .title = "What a run costs against the command by itself, with the interval of 95 %",
			     .x_label = "step", .y_label = "overhead in percent" };
	struct groups groups = { .count = 0 };
	struct plot_series *series = plot_add(&plot, "overhead");
	json_t *cell;
	size_t i;

	json_array_foreach(json_object_get(report, "cells"), i, cell) {
		const json_t *interval = json_object_get(cell, "interval_percent");

		if (i)
			plot_point(series, (struct plot_point){ .x = group_of(&groups, text(cell, "case")), .low = at(interval, 0),
				   .y = number(cell, "overhead_percent"), .high = at(interval, 1) });
	}
	finish_bars(&plot, &groups, out);
}

static void page_curves(const json_t *cells, FILE *out)
{
	struct plot written = { .title = "What is written in an interval", .x_label = "interval, s", .y_label = "MiB", .log_x = true };
	struct plot overhead = { .title = "Overhead by interval", .x_label = "interval, s", .y_label = "percent of the time",
				 .log_x = true, .log_y = true };
	struct plot_series *usual = plot_add(&written, "usually"), *most = plot_add(&written, "at most");
	struct plot_series *busy = plot_add(&overhead, "epochs at work"), *stopped = plot_add(&overhead, "stopped by checkpoints");
	struct plot_series *lost = plot_add(&overhead, "losses without notice"), *both = plot_add(&overhead, "the last two");
	json_t *cell;
	size_t i;

	json_array_foreach(cells, i, cell) {
		double x = number(cell, "interval_s");

		/* The last one is that which is recommended. */
		if (!strcmp(text(cell, "case"), "epoch")) {
			plot_point(usual, (struct plot_point){ .x = x, .y = number(cell, "usual_mib") });
			plot_point(most, (struct plot_point){ .x = x, .y = number(cell, "most_mib") });
			plot_point(busy, (struct plot_point){ .x = x, .y = 100 * number(cell, "busy") });
		} else if (i + 1 < json_array_size(cells)) {
			plot_point(stopped, (struct plot_point){ .x = x, .y = 100 * number(cell, "stopped") });
			plot_point(lost, (struct plot_point){ .x = x, .y = 100 * number(cell, "lost") });
			plot_point(both, (struct plot_point){ .x = x, .y = 100 * (number(cell, "stopped") + number(cell, "lost")) });
		}
	}
	plot_draw(&written, out);
	plot_draw(&overhead, out);
	plot_free(&written);
	plot_free(&overhead);
}

static void page_series(const json_t *samples, FILE *out)
{
	struct plot forecast = { .title = "Flush forecast: if the notice came now", .x_label = "time, s", .y_label = "s until durable" };
	struct plot bytes = { .title = "Bytes written against memory", .x_label = "time, s", .y_label = "MiB" };
	struct plot_series *durable = plot_add(&forecast, "forecast"), *outstanding = plot_add(&bytes, "outstanding");
	struct plot_series *memory = plot_add(&bytes, "memory (RSS)"), *written = plot_add(&bytes, "written, in all");
	json_t *sample;
	size_t i;

	json_array_foreach(samples, i, sample) {
		double x = number(sample, "s");

		plot_point(durable, (struct plot_point){ .x = x, .y = number(sample, "forecast_ms") / 1000 });
		plot_point(outstanding, (struct plot_point){ .x = x, .y = number(sample, "outstanding_mib") });
		plot_point(memory, (struct plot_point){ .x = x, .y = number(sample, "memory_mib") });
		plot_point(written, (struct plot_point){ .x = x, .y = number(sample, "written_mib") });
	}
	plot_draw(&forecast, out);
	plot_draw(&bytes, out);
	plot_free(&forecast);
	plot_free(&bytes);
}

static void page_advise(const json_t *report, FILE *out)
{
	page_curves(json_object_get(report, "cells"), out);
	page_series(json_object_get(report, "samples"), out);
}

static const struct {
	const char *benchmark;
	const char *title;
	void (*page)(const json_t *report, FILE *out);
} pages[] = {
	{ "ladder", "What a run costs", page_ladder },
	{ "dump", "Checkpoints against criu dump", page_dump },
	{ "dump-job", "A job's checkpoints against criu dump", page_dump_job },
	{ "restore", "Restores", page_restore },
	{ "advise", "Intervals", page_advise },
	{ "track", "Finding written pages", page_track },
	{ "stream", "Streaming", page_stream },
	{ "policy", "The deadline, simulated", page_policy },
};

#define PAGES (sizeof(pages) / sizeof(*pages))

/* ---- tables ---- */

static void page_value(const json_t *value, FILE *out)
{
	cleanup_free char *dumped = NULL;

	if (json_is_real(value)) {
		fprintf(out, "%.4g", json_real_value(value));
		return;
	}
	dumped = json_is_string(value) ? strdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
	plot_escape(dumped ?: "", out);
}

static void page_environment(const json_t *environment, FILE *out)
{
	const char *key;
	json_t *value;

	fputs("<p class=\"environment\">", out);
	json_object_foreach((json_t *)environment, key, value) {
		plot_escape(key, out);
		fputs(" <b>", out);
		page_value(value, out);
		fputs("</b> ", out);
	}
	fputs("</p>\n", out);
}

static void page_table(const json_t *cells, FILE *out)
{
	const char *key;
	json_t *cell, *value;
	size_t i;

	fputs("<details><summary>all figures</summary><table>\n<tr>", out);
	json_object_foreach(json_array_get(cells, 0), key, value) {
		fputs("<th>", out);
		plot_escape(key, out);
		fputs("</th>", out);
	}
	fputs("</tr>\n", out);
	json_array_foreach(cells, i, cell) {
		fputs("<tr>", out);
		json_object_foreach(json_array_get(cells, 0), key, value) {
			fputs("<td>", out);
			page_value(json_object_get(cell, key), out);
			fputs("</td>", out);
		}
		fputs("</tr>\n", out);
	}
	fputs("</table></details>\n", out);
}

/* ---- the page ---- */

static void page_section(const struct source *source, size_t page, FILE *out)
{
	fprintf(out, "<h2>%s</h2>\n<p><code>", pages[page].title);
	plot_escape(source->file, out);
	fputs("</code></p>\n", out);
	page_environment(json_object_get(source->report, "environment"), out);
	pages[page].page(source->report, out);
	page_table(json_object_get(source->report, "cells"), out);
}

static void page_write(const struct source *sources, size_t count, FILE *out)
{
	char when[32];
	time_t now = time(NULL);
	struct tm tm;

	strftime(when, sizeof(when), "%F %H:%M", localtime_r(&now, &tm));
	fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ckptbench</title>\n<style>\n"
		"body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }\n"
		"svg { display: block; max-width: 100%%; height: auto; margin: 1.5em 0 }\n"
		"table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 8px; text-align: right; border-bottom: 1px solid #ddd }\n"
		"details { overflow-x: auto; margin: 1em 0 } .environment { color: #555; font-size: 13px }\n"
		"h2 { border-top: 1px solid #ccc; padding-top: 1em }\n"
		"</style></head><body>\n<h1>ckptbench</h1>\n<p>ckpt %s, %s</p>\n", CKPT_VERSION, when);
	for (size_t page = 0; page < PAGES; page++)
		for (size_t i = 0; i < count; i++)
			if (!strcmp(text(sources[i].report, "benchmark"), pages[page].benchmark))
				page_section(&sources[i], page, out);
	fputs("</body></html>\n", out);
}

static bool is_known(const json_t *report)
{
	for (size_t i = 0; i < PAGES; i++)
		if (!strcmp(text(report, "benchmark"), pages[i].benchmark) && json_is_array(json_object_get(report, "cells")))
			return true;
	return false;
}

static int is_json(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && !strcmp(dot, ".json");
}

/* How many; what else is there is told, and left out. */
static size_t load(const char *directory, struct source *sources)
{
	struct dirent **list;
	int found = scandir(directory, &list, is_json, alphasort);
	size_t count = 0;

	if (found < 0) {
		say("%s: %s", directory, strerror(errno));
		return 0;
	}
	for (int i = 0; i < found; i++) {
		cleanup_free char *path = NULL;
		json_error_t error = { .text = "" };
		json_t *report;

		report = asprintf(&path, "%s/%s", directory, list[i]->d_name) < 0 ? NULL : json_load_file(path, 0, &error);
		if (count < MOST_REPORTS && is_known(report)) {
			sources[count++] = (struct source){ strdup(list[i]->d_name), report };
		} else {
			say("%s is left out: %s", path, report ? "it is no report of ckptbench's --json" : error.text);
			json_decref(report);
		}
		free(list[i]);
	}
	free(list);
	return count;
}

static int write_page(const struct source *sources, size_t count, const char *path)
{
	cleanup_fclose FILE *out = fopen(path, "we");

	if (out)
		page_write(sources, count, out);
	if (out && !ferror(out) && fflush(out) == 0) {
		printf("%s\n", path);
		return 0;
	}
	say("%s: %s", path, strerror(errno));
	return 1;
}

static const char usage[] =
	"Usage: ckptbench report [--output FILE] DIR\n"
	"\n"
	"Makes one page of HTML, with plots, from the files DIR/*.json, each of which a benchmark has printed with --json:\n"
	"overhead by interval, what is written by interval, the flush forecast over time, bytes against memory (advise),\n"
	"criu's dumps beside checkpoints (dump), the ladder, and the others. The page needs no other file and no network.\n"
	"\n"
	"  --output FILE   (DIR/report.html)\n";

int bench_page(int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct source sources[MOST_REPORTS];
	cleanup_free char *path = NULL;
	int option, status = 1;
	size_t count;

	while ((option = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
		if (option == 'o') {
			free(path);
			path = strdup(optarg);
			continue;
		}
		fputs(usage, option == 'h' ? stdout : stderr);
		return option == 'h' ? 0 : STATUS_USAGE;
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	if (!path && asprintf(&path, "%s/report.html", argv[optind]) < 0)
		return 1;
	count = load(argv[optind], sources);
	if (count)
		status = write_page(sources, count, path);
	else
		say("there is no report in %s: 'ckptbench BENCHMARK --json >%s/BENCHMARK.json' makes one", argv[optind], argv[optind]);
	for (size_t i = 0; i < count; i++) {
		free(sources[i].file);
		json_decref(sources[i].report);
	}
	return status;
}
