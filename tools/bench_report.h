/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of a benchmark: its report, and what has changed since an older one.
 *
 * A report is {"benchmark": "track", "environment": {…}, "cells": [{…}, …]}. Of a cell, text, truth values and the size of what was measured
 * say which it is, the rest are its figures.
 */
#ifndef CKPT_BENCH_REPORT_H
#define CKPT_BENCH_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

/* Exit status: a figure is worse than in the older report. */
#define STATUS_WORSE 3

/* --compare FILE: each report from here on is compared with that one. -errno, and it was said. */
int bench_compare_with(const char *path);
/* Puts the benchmark's name in, prints it, if json, and what has changed. Returns the exit status. */
int bench_report(json_t *report, const char *benchmark, bool json);
/* How many figures are worse by more than a tenth; prints those that are worse or better by that. */
unsigned int bench_compare(const json_t *old, const json_t *report, FILE *out);

#endif
