// SPDX-License-Identifier: GPL-2.0
#include "trace.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "region.h"

/* Until the last page of a pass is durable, whatever its size: fsync and rename on a file server. */
#define STORE_LATENCY_S 0.05

struct unit {
	const char *name;
	double factor;
};

static const struct unit times[] = {
	{ "ms", 0.001 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { NULL, 0 },
};
static const struct unit sizes[] = {
	{ "K", 1024.0 / PAGE_BYTES },
	{ "M", 1048576.0 / PAGE_BYTES },
	{ "G", 1073741824.0 / PAGE_BYTES },
	{ "T", 1099511627776.0 / PAGE_BYTES },
	{ NULL, 0 },
};

/* ---- reading ---- */

static bool parse_number(const char *text, const struct unit *units, double *value)
{
	char *end;
	double number = text ? strtod(text, &end) : -1;

	if (!text || end == text || !(number >= 0 && number <= 1e15))
		return false;
	*value = number;
	if (!number && !*end)
		return true;
	for (; units->name; units++)
		if (!strcmp(end, units->name)) {
			*value = number * units->factor;
			return true;
		}
	return false;
}

static struct trace_set *find_set(struct trace *trace, const char *name)
{
	for (size_t i = 0; name && i < trace->set_count; i++)
		if (!strcmp(trace->sets[i].name, name))
			return &trace->sets[i];
	return NULL;
}

static int read_set(struct trace *trace, char *words[4])
{
	static const char *const kinds[] = { "random", "sweep", "grow" };
	struct trace_set *set = &trace->sets[trace->set_count];
	size_t kind;

	if (trace->set_count == TRACE_SETS || !words[1] || !words[2] || find_set(trace, words[1]) ||
	    !strcmp(words[1], "store") || strlen(words[1]) >= sizeof(set->name))
		return -EINVAL;
	for (kind = 0; kind < 3 && strcmp(words[2], kinds[kind]); kind++)
		;
	if (kind == 3 || !parse_number(words[3], sizes, &set->pages) || set->pages < 1)
		return -EINVAL;
	strcpy(set->name, words[1]);
	set->kind = (enum trace_kind)kind;
	trace->set_count++;
	return 0;
}

/* The step at that time: a new one goes on as the one before. */
static struct trace_step *step_at(struct trace *trace, double at_s)
{
	struct trace_step *last = trace->step_count ? &trace->steps[trace->step_count - 1] : NULL, *steps;

	if (last && last->at_s == at_s)
		return last;
	if (last ? at_s < last->at_s : at_s != 0)
		return NULL;
	steps = reallocarray(trace->steps, trace->step_count + 1, sizeof(*steps));
	if (!steps)
		return NULL;
	trace->steps = steps;
	steps[trace->step_count] = trace->step_count ? steps[trace->step_count - 1]
						     : (struct trace_step){ 0 };
	steps[trace->step_count].at_s = at_s;
	return &steps[trace->step_count++];
}

static int read_rate(struct trace *trace, char *words[4])
{
	double at_s, rate;
	struct trace_set *set = find_set(trace, words[1]);
	struct trace_step *step;

	if (!parse_number(words[0], times, &at_s) || !parse_number(words[2], sizes, &rate) || words[3] ||
	    (!set && (!words[1] || strcmp(words[1], "store"))) || (!set && rate <= 0))
		return -EINVAL;
	step = step_at(trace, at_s);
	if (!step)
		return -EINVAL;
	if (set)
		step->rates[set - trace->sets] = rate;
	else
		step->store = rate;
	return 0;
}

static int read_notice(struct trace *trace, char *words[4])
{
	char *end;
	double percent = words[2] ? strtod(words[2], &end) : 0;

	if (!words[1] || words[3] || !(percent > 0 && percent <= 100) || strcmp(end, "%"))
		return -EINVAL;
	if (!strcmp(words[1], "store"))
		trace->notice_share = percent / 100;
	else if (!strcmp(words[1], "seen"))
		trace->seen_share = percent / 100;
	else
		return -EINVAL;
	return 0;
}

static int read_line(struct trace *trace, char *line)
{
	char *words[4] = { NULL }, *place, *word = strtok_r(line, " \t\n", &place);
	size_t count;

	for (count = 0; word && *word != '#'; word = strtok_r(NULL, " \t\n", &place)) {
		if (count == 4)
			return -EINVAL;
		words[count++] = word;
	}
	if (!count)
		return 0;
	if (!strcmp(words[0], "set"))
		return read_set(trace, words);
	if (!strcmp(words[0], "notice"))
		return read_notice(trace, words);
	if (!strcmp(words[0], "memory"))
		return parse_number(words[1], sizes, &trace->memory_pages) && !words[2] ? 0 : -EINVAL;
	if (!strcmp(words[0], "fixed"))
		return parse_number(words[1], times, &trace->fixed_s) && !words[3] &&
		       (!words[2] || parse_number(words[2], times, &trace->fixed_per_gib_s)) ? 0 : -EINVAL;
	if (!strcmp(words[0], "repeat"))
		return parse_number(words[1], times, &trace->repeat_s) && !words[2] ? 0 : -EINVAL;
	return read_rate(trace, words);
}

static int check(const struct trace *trace, const char *name, struct problem *problem)
{
	const struct trace_step *last = trace->step_count ? &trace->steps[trace->step_count - 1] : NULL;

	if (trace->memory_pages < 1)
		return problem_set(problem, EINVAL, "%s: 'memory SIZE' is missing", name);
	if (!last || !trace->steps[0].store)
		return problem_set(problem, EINVAL, "%s: '0s store RATE' is missing", name);
	if (trace->repeat_s && trace->repeat_s <= last->at_s)
		return problem_set(problem, EINVAL, "%s: 'repeat' comes before the last line's time", name);
	return 0;
}

int trace_read(struct trace *trace, FILE *file, const char *name, struct problem *problem)
{
	char *line = NULL;
	size_t space = 0;
	unsigned int number = 0;
	int ret = 0;

	memset(trace, 0, sizeof(*trace));
	snprintf(trace->name, sizeof(trace->name), "%s", name);
	trace->fixed_s = 1;
	trace->notice_share = trace->seen_share = 1;
	while (ret == 0 && getline(&line, &space, file) > 0) {
		number++;
		if (read_line(trace, line))
			ret = problem_set(problem, EINVAL, "%s:%u: not a line of a trace; 'ckptbench policy "
					  "--help' shows what is", name, number);
	}
	free(line);
	if (ret == 0)
		ret = check(trace, name, problem);
	if (ret)
		trace_free(trace);
	return ret;
}

void trace_free(struct trace *trace)
{
	free(trace->steps);
	trace->steps = NULL;
	trace->step_count = 0;
}

/* ---- what it says ---- */

/* The step that holds at at_s, and when it ends. */
static const struct trace_step *step_of(const struct trace *trace, double at_s, double *end_s)
{
	double round_s = trace->repeat_s ? floor(at_s / trace->repeat_s) * trace->repeat_s : 0;
	size_t i = trace->step_count - 1;

	while (i && trace->steps[i].at_s > at_s - round_s)
		i--;
	*end_s = i + 1 < trace->step_count ? round_s + trace->steps[i + 1].at_s :
		 trace->repeat_s	   ? round_s + trace->repeat_s :
					     INFINITY;
	/* A time that rounding puts on the border belongs to what begins there. */
	if (*end_s <= at_s)
		*end_s = nextafter(at_s, INFINITY);
	return &trace->steps[i];
}

/* How often pages of each set are written in [from_s, to_s). */
static void writes(const struct trace *trace, double from_s, double to_s, double sums[TRACE_SETS])
{
	for (size_t i = 0; i < trace->set_count; i++)
		sums[i] = 0;
	while (from_s < to_s) {
		double end_s;
		const struct trace_step *step = step_of(trace, from_s, &end_s);

		end_s = end_s < to_s ? end_s : to_s;
		for (size_t i = 0; i < trace->set_count; i++)
			sums[i] += step->rates[i] * (end_s - from_s);
		from_s = end_s;
	}
}

static double grown(const struct trace *trace, size_t set, double at_s)
{
	double sums[TRACE_SETS];

	writes(trace, 0, at_s, sums);
	return fmin(sums[set], trace->sets[set].pages);
}

double trace_written(const struct trace *trace, double from_s, double to_s)
{
	double sums[TRACE_SETS], pages = 0;

	writes(trace, from_s, to_s, sums);
	for (size_t i = 0; i < trace->set_count; i++) {
		const struct trace_set *set = &trace->sets[i];

		if (set->kind == TRACE_RANDOM)
			pages += set->pages * (1 - exp(-sums[i] / set->pages));
		else if (set->kind == TRACE_SWEEP)
			pages += fmin(sums[i], set->pages);
		else if (sums[i] > 0)
			pages += grown(trace, i, to_s) - grown(trace, i, from_s);
	}
	return pages;
}

double trace_memory(const struct trace *trace, double at_s)
{
	double pages = trace->memory_pages;

	for (size_t i = 0; i < trace->set_count; i++)
		if (trace->sets[i].kind == TRACE_GROW)
			pages += grown(trace, i, at_s);
	return pages;
}

double trace_fixed(const struct trace *trace, double at_s)
{
	return trace->fixed_s + trace->fixed_per_gib_s * trace_memory(trace, at_s) * PAGE_BYTES / (1 << 30);
}

static double store_rate(const struct trace *trace, double at_s, double notice_s, double *end_s)
{
	double rate = step_of(trace, at_s, end_s)->store;

	if (at_s >= notice_s)
		return rate * trace->notice_share;
	*end_s = fmin(*end_s, notice_s);
	return rate;
}

double trace_stored(const struct trace *trace, double from_s, double pages, double notice_s)
{
	from_s += STORE_LATENCY_S;
	while (pages > 0) {
		double end_s, rate = store_rate(trace, from_s, notice_s, &end_s);

		if (rate * (end_s - from_s) >= pages)
			return from_s + pages / rate;
		pages -= rate * (end_s - from_s);
		from_s = end_s;
	}
	return from_s;
}

double trace_streamed(const struct trace *trace, double from_s, double to_s, double notice_s)
{
	double pages = 0;

	while (from_s < to_s) {
		double end_s, rate = store_rate(trace, from_s, notice_s, &end_s);

		end_s = fmin(end_s, to_s);
		pages += rate * (end_s - from_s);
		from_s = end_s;
	}
	return pages;
}
