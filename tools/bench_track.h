/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of `ckptbench track` share: one run, and what it has found. */
#ifndef CKPT_BENCH_TRACK_H
#define CKPT_BENCH_TRACK_H

#include <jansson.h>

#include "bench_method.h"

struct track_run {
	const struct method *methods;	/* our mechanisms first, then the peers */
	size_t count;
	unsigned int repeat;
	bool json;
	json_t *report;
};

/* Tells on a terminal how far it is. */
void track_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints one line of the table for people; nothing with --json. */
void track_print(const struct track_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds a row to one of the report's lists; takes the row. */
void track_row(const struct track_run *run, const char *list, json_t *row);
/* Is there memory for a process with that much? Else says what is left out. */
bool track_has_memory(const struct track_run *run, size_t bytes);

/* The cells: each mechanism against each peer. */
int track_cells(struct track_run *run, const size_t *sizes, size_t count);
/* What the job feels: the first write to a page after a collection, and waits while one runs. */
int track_first_writes(struct track_run *run);
int track_fault_waits(struct track_run *run, size_t bytes);
/* What the module keeps for one tracker. */
int track_memory(struct track_run *run);

#endif
