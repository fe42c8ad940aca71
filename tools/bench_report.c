// SPDX-License-Identifier: GPL-2.0
#include "bench_report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "commands.h"

/* Changes below are not told. */
#define TOLERANCE 0.1

static json_t *compared;

enum better {
	LESS,
	MORE,
	BY_UNIT,                /* a rate: more; else less */
	BY_PEER,                /* with a unit, ours to the peer's; else the peer's to ours */
};

static const struct {
	const char *key;
	enum better better;
} figures[] = {
	{ "median", BY_UNIT }, { "median_us", LESS }, { "missed_pages", LESS }, { "ratio", BY_PEER }, { "ours", BY_UNIT },
	{ "bytes_written", LESS }, { "made", MORE }, { "bytes", LESS }, { "bytes_ratio", LESS },
	{ "median_s", LESS }, { "away_s", LESS }, { "frozen_ms", LESS }, { "flush_ms", LESS }, { "durable_ms", LESS },
	{ "restore_ms", LESS }, { "pages_written", LESS }, { "mib_written", LESS }, { "output_differs", LESS },
};

/* Numbers that say what was measured. */
static const char *const sizes[] = { "density", "mapped_bytes", "mib", "written", "memory_gib" };

struct comparison {
	FILE *out;
	unsigned int figures, worse, better;
	char cell[256];
};

static bool is_size(const char *key)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		if (!strcmp(key, sizes[i]))
			return true;
	return false;
}

/* "0.01 67108864 soft-dirty": what names the cell, in the order of the keys. */
static void cell_name(const json_t *cell, char *name, size_t size)
{
	cleanup_free char *text = json_dumps(cell, JSON_SORT_KEYS);
	json_t *sorted = text ? json_loads(text, 0, NULL) : NULL, *value;
	FILE *out = fmemopen(name, size, "w");
	const char *key;

	*name = '\0';
	json_object_foreach(sorted, key, value) {
		if (json_is_string(value))
			fprintf(out, "%s ", json_string_value(value));
		else if (json_is_true(value))
			fprintf(out, "%s ", key);
		else if (is_size(key))
			fprintf(out, "%g ", json_number_value(value));
	}
	fclose(out);
	json_decref(sorted);
}

static bool more_is_better(const json_t *cell, enum better better)
{
	const char *unit = json_string_value(json_object_get(cell, "unit"));

	if (better == BY_UNIT || (better == BY_PEER && unit))
		return unit && strstr(unit, "/s");
	return better == MORE || better == BY_PEER;
}

static void compare_figure(struct comparison *comparison, const char *name, double before, double now, bool more)
{
	double change = before ? (now - before) / fabs(before) : now ? INFINITY : 0;
	bool worse = more ? change < 0 : change > 0;

	comparison->figures++;
	if (fabs(change) <= TOLERANCE)
		return;
	comparison->worse += worse;
	comparison->better += !worse;
	fprintf(comparison->out, "%-6s %-52s%-16s %12.4g -> %-12.4g %+7.1f %%\n", worse ? "worse" : "better",
		comparison->cell, name, before, now, 100 * change);
}

static void compare_figures(struct comparison *comparison, const json_t *old, const json_t *cell)
{
	for (size_t i = 0; i < sizeof(figures) / sizeof(*figures); i++) {
		const json_t *before = json_object_get(old, figures[i].key), *now = json_object_get(cell, figures[i].key);

		if (json_is_number(before) && json_is_number(now))
			compare_figure(comparison, figures[i].key, json_number_value(before), json_number_value(now),
				       more_is_better(cell, figures[i].better));
		else if (json_is_object(before) && json_is_object(now))
			compare_figures(comparison, before, now);
	}
}

static const json_t *find_cell(const json_t *report, const char *wanted)
{
	char name[256];
	json_t *cell;
	size_t i;

	json_array_foreach(json_object_get(report, "cells"), i, cell) {
		cell_name(cell, name, sizeof(name));
		if (!strcmp(name, wanted))
			return cell;
	}
	return NULL;
}

static void compare_environments(const json_t *old, const json_t *now, FILE *out)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)now, key, value) {
		cleanup_free char *before = json_dumps(json_object_get(old, key), JSON_ENCODE_ANY);
		cleanup_free char *after = json_dumps(value, JSON_ENCODE_ANY);

		if (strcmp(before ?: "nothing", after ?: "nothing"))
			fprintf(out, "other  %s: %s -> %s\n", key, before ?: "nothing", after ?: "nothing");
	}
}

unsigned int bench_compare(const json_t *old, const json_t *report, FILE *out)
{
	struct comparison comparison = { .out = out };
	unsigned int unmatched = 0;
	json_t *cell;
	size_t i;

	compare_environments(json_object_get(old, "environment"), json_object_get(report, "environment"), out);
	json_array_foreach(json_object_get(report, "cells"), i, cell) {
		const json_t *before;

		cell_name(cell, comparison.cell, sizeof(comparison.cell));
		before = find_cell(old, comparison.cell);
		if (before)
			compare_figures(&comparison, before, cell);
		else
			unmatched++;
	}
	fprintf(out, "%u figures compared: %u worse, %u better by more than %.0f %%", comparison.figures, comparison.worse,
		comparison.better, 100 * TOLERANCE);
	if (unmatched)
		fprintf(out, "; %u cells are not in the older report", unmatched);
	fputc('\n', out);
	return comparison.worse;
}

int bench_compare_with(const char *path)
{
	json_error_t error;

	json_decref(compared);
	compared = json_load_file(path, 0, &error);
	if (json_is_array(json_object_get(compared, "cells")))
		return 0;
	say("%s is no report of ckptbench's --json%s%s", path, compared ? "" : ": ", compared ? "" : error.text);
	return -EINVAL;
}

int bench_report(json_t *report, const char *benchmark, bool json)
{
	json_object_set_new(report, "benchmark", json_string(benchmark));
	if (json)
		print_json(report);
	if (!compared)
		return 0;
	return bench_compare(compared, report, json ? stderr : stdout) ? STATUS_WORSE : 0;
}
