// SPDX-License-Identifier: GPL-2.0
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void samples_add(struct samples *samples, double value)
{
	double *grown = reallocarray(samples->list, samples->count + 1, sizeof(*grown));

	if (!grown) {
		fputs("ckptbench: out of memory\n", stderr);
		exit(1);
	}
	samples->list = grown;
	samples->list[samples->count++] = value;
}

static int compare(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

double samples_median(struct samples *samples)
{
	size_t half = samples->count / 2;

	if (!samples->count)
		return 0;
	qsort(samples->list, samples->count, sizeof(*samples->list), compare);
	return samples->count % 2 ? samples->list[half]
				  : (samples->list[half - 1] + samples->list[half]) / 2;
}

double samples_min(const struct samples *samples)
{
	double min = samples->count ? samples->list[0] : 0;

	for (size_t i = 1; i < samples->count; i++)
		min = samples->list[i] < min ? samples->list[i] : min;
	return min;
}

double samples_max(const struct samples *samples)
{
	double max = 0;

	for (size_t i = 0; i < samples->count; i++)
		max = samples->list[i] > max ? samples->list[i] : max;
	return max;
}

/* ---- overhead ---- */

#define RESAMPLES 2000

static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static double resampled_median(const struct samples *samples, struct samples *scratch, uint64_t *state)
{
	scratch->count = 0;
	for (size_t i = 0; i < samples->count; i++)
		samples_add(scratch, samples->list[draw(state) % samples->count]);
	return samples_median(scratch);
}

static double percent_more(double base, double other)
{
	return base > 0 ? 100 * (other - base) / base : 0;
}

struct overhead samples_overhead(struct samples *base, struct samples *other)
{
	struct overhead overhead = { .percent = percent_more(samples_median(base), samples_median(other)) };
	struct samples differences = { 0 }, scratch = { 0 };
	uint64_t state = 88172645463325252;

	if (!base->count || !other->count)
		return overhead;
	for (unsigned int i = 0; i < RESAMPLES; i++) {
		double one = resampled_median(base, &scratch, &state);

		samples_add(&differences, percent_more(one, resampled_median(other, &scratch, &state)));
	}
	samples_median(&differences);
	overhead.low = differences.list[RESAMPLES / 40];
	overhead.high = differences.list[RESAMPLES - 1 - RESAMPLES / 40];
	samples_free(&differences);
	samples_free(&scratch);
	return overhead;
}

bool overhead_is_noise(const struct overhead *overhead)
{
	return overhead->low <= 0 && overhead->high >= 0;
}

void samples_free(struct samples *samples)
{
	free(samples->list);
	*samples = (struct samples){ 0 };
}

void bench_fill(uint64_t *words, size_t bytes, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;

	for (size_t i = 0; i < bytes / sizeof(*words); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = state;
	}
}

int64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t bench_now_us(void)
{
	return bench_now_ns() / 1000;
}

size_t parse_sizes(const char *text, size_t *sizes, size_t most)
{
	size_t count = 0;
	char *end;

	for (; count < most; text = end + 1) {
		unsigned long mib = strtoul(text, &end, 10);

		if (end == text || (*end && *end != ',') || mib < 2 || mib > 1ul << 24 || mib % 2)
			return 0;
		sizes[count++] = mib << 20;
		if (!*end)
			return count;
	}
	return 0;
}

static void row_json(struct table *table, const char *name, struct samples *samples, double ratio)
{
	json_array_append_new(table->cells, json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:f}", "case", name, "unit", table->unit,
			      "median", samples_median(samples), "min", samples_min(samples), "max", samples_max(samples),
			      "runs", (int)samples->count, "ratio", ratio));
}

void table_group(struct table *table, const char *unit)
{
	table->unit = unit;
	table->grouped = false;
}

void table_row(struct table *table, const char *name, struct samples *samples)
{
	double median = samples_median(samples), ratio;

	if (!table->grouped)
		table->first = median;
	ratio = table->first > 0 ? median / table->first : 0;
	row_json(table, name, samples, ratio);
	if (!table->json) {
		if (!table->grouped)
			printf("%-44s %12s %12s %12s %6s %8s\n", table->unit, "median", "min", "max",
			       "runs", "ratio");
		printf("%-44s %12.3f %12.3f %12.3f %6zu %8.2f\n", name, median, samples_min(samples),
		       samples_max(samples), samples->count, ratio);
	}
	table->grouped = true;
	fflush(stdout);
}
