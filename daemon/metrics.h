/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Prometheus collects: the figures of `ckptctl status` in its text format, in a file for the textfile
 * collector of node_exporter. Names, types and meanings stand in one table in metrics.c, from which
 * `ckptd --help-metrics` prints the manual.
 */
#ifndef CKPT_METRICS_H
#define CKPT_METRICS_H

#include <jansson.h>
#include <stdio.h>

#include "problem.h"

/* How often the file is written: as often as Prometheus asks, by default. */
#define METRICS_INTERVAL_MS 15000

/* status: as root gets it. */
void metrics_print(FILE *out, const json_t *status);
/*
 * Who reads it sees the old one or the new one, whole, and everybody may read it. It need not survive a crash, so it is
 * not made durable.
 */
int metrics_write(const char *path, const json_t *status, struct problem *problem);
void metrics_print_manual(void);

#endif
