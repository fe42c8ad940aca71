/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ways of protecting one job, side by side over the same trace and the same interruptions: by the
 * daemon's policy, by epochs at fixed intervals, and without epochs.
 */
#ifndef CKPT_RACE_H
#define CKPT_RACE_H

#include "simulate.h"

#define RACE_INTERVALS 20

extern const double race_intervals_s[RACE_INTERVALS];

struct race_settings {
	struct class class;             /* window, margin, reserve */
	double poll_s;
	double hours;
	unsigned int interruptions;     /* at random moments of the hours */
	uint64_t seed;
};

/* What one way came to. */
struct tally {
	unsigned int made;              /* of those that could be made */
	double final_pages;             /* after notices, all together */
	double pages;                   /* of the hours, that end in one interruption */
};

struct race_result {
	unsigned int feasible;          /* could be made by who knows the moment */
	struct tally automatic;
	struct tally none;
	struct tally fixed[RACE_INTERVALS];
	int best;                       /* of fixed: makes all, with the fewest bytes; -1: none does */
	unsigned int epochs;            /* of automatic */
	double run_s;                   /* that jobs ran on after a notice, on average */
	unsigned int learnt_percent;    /* what those that were made would tell the next node of the store */
};

void race_settings_init(struct race_settings *settings);
/* 0 or -ENOMEM. */
int race_run(struct race_result *result, const struct trace *trace,
	     const struct race_settings *settings);
/* Of automatic's bytes to those of the best; 0: there is no best. */
double race_ratio(const struct race_result *result);

#endif
