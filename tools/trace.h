/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A trace is what a job writes and what its store takes, over time.  As text, one thing a line:
 *
 *	# comment
 *	memory SIZE                     of the job, at first
 *	fixed TIME [TIME]               of a checkpoint: freeze, CRIU, fsync; and per GiB of memory (1s)
 *	set NAME random|sweep|grow SIZE pages that are written: at random; in turn; or new ones in turn
 *	                                up to SIZE, by which the memory grows
 *	repeat TIME                     then the lines below start over (grown memory stays)
 *	TIME NAME RATE                  from then on the set is written at RATE a second
 *	TIME store RATE                 from then on the store takes RATE a second
 *	notice store N%                 what of that is left after a notice (100%)
 *	notice seen N%                  and what the job has seen of it after earlier notices (100%)
 *
 * SIZE and RATE: bytes with K, M, G or T; TIME: ms, s, m or h.  Times ascend; the first is 0s.
 */
#ifndef CKPT_TRACE_H
#define CKPT_TRACE_H

#include <stdint.h>
#include <stdio.h>

#include "problem.h"

#define TRACE_SETS 8

enum trace_kind {
	TRACE_RANDOM,
	TRACE_SWEEP,
	TRACE_GROW,
};

struct trace_set {
	char name[32];
	enum trace_kind kind;
	double pages;
};

/* From at_s on; pages a second. */
struct trace_step {
	double at_s;
	double rates[TRACE_SETS];
	double store;
};

struct trace {
	char name[64];
	double memory_pages;
	double fixed_s;
	double fixed_per_gib_s;
	double repeat_s;                /* 0: never */
	double notice_share;            /* of the store's rate, after a notice */
	double seen_share;              /* as seen after earlier ones */
	struct trace_set sets[TRACE_SETS];
	size_t set_count;
	struct trace_step *steps;
	size_t step_count;
};

int trace_read(struct trace *trace, FILE *file, const char *name, struct problem *problem);
void trace_free(struct trace *trace);

/* Pages, each counted once, that are written in [from_s, to_s). */
double trace_written(const struct trace *trace, double from_s, double to_s);
double trace_memory(const struct trace *trace, double at_s);
/* What a checkpoint takes besides streaming. */
double trace_fixed(const struct trace *trace, double at_s);
/* When so many pages are durable whose streaming began at from_s, with a notice at notice_s. */
double trace_stored(const struct trace *trace, double from_s, double pages, double notice_s);
/* How many of them are streamed at to_s. */
double trace_streamed(const struct trace *trace, double from_s, double to_s, double notice_s);

#endif
