/* SPDX-License-Identifier: GPL-2.0 */
/* The benchmarks of ckptbench, and what they share: repeated figures and one table style. */
#ifndef CKPT_BENCH_H
#define CKPT_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

int bench_track(int argc, char **argv);
int bench_dump(int argc, char **argv);
int bench_stream(int argc, char **argv);
int bench_policy(int argc, char **argv);
int bench_ladder(int argc, char **argv);
int bench_advise(int argc, char **argv);
int bench_page(int argc, char **argv);
int bench_restore(int argc, char **argv);

/* One figure, measured several times. */
struct samples {
	double *list;
	size_t count;
};

void samples_add(struct samples *samples, double value);
double samples_median(struct samples *samples);
double samples_min(const struct samples *samples);
double samples_max(const struct samples *samples);
void samples_free(struct samples *samples);

/* How much more than the base, in percent of it: of the medians, with the interval that holds 95 % of bootstrap samples. */
struct overhead {
	double percent;
	double low, high;
};

struct overhead samples_overhead(struct samples *base, struct samples *other);
/* The samples do not tell the two apart. */
bool overhead_is_noise(const struct overhead *overhead);

/* "N[,N]...": even numbers of MiB, as bytes. How many; 0: it is something else, or too many. */
size_t parse_sizes(const char *text, size_t *sizes, size_t most);

/* With what no compressor makes smaller, the same for the same seed. */
void bench_fill(uint64_t *words, size_t bytes, uint64_t seed);

int64_t bench_now_us(void);
int64_t bench_now_ns(void);

/*
 * Rows become cells of a report, and are printed as they come; ratio: of the row's median to that of the group's first row.
 */
struct table {
	json_t *cells;
	bool json;              /* nothing is printed yet */
	bool grouped;           /* the group */
	double first;
	const char *unit;
};

/* A table may have several groups, each with its unit. */
void table_group(struct table *table, const char *unit);
void table_row(struct table *table, const char *name, struct samples *samples);

#endif
