// SPDX-License-Identifier: GPL-2.0
/*
 * Traces of the shapes that simulation codes have, for any size of memory: a hot set of a few percent
 * that is rewritten all the time, and state that changes slowly.  memory in MiB, store in MiB/s.
 */
#include "trace_made.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"

/* Shared storage that a node of that size may get: what its network does, more or less. */
const struct trace_node trace_nodes[] = {
	{ 1, 250 }, { 16, 500 }, { 64, 1000 }, { 256, 1250 }, { 1024, 3000 }, { 4096, 6000 }, { 0, 0 },
};

/* 20 ms a GiB: CRIU with huge pages, or with PAGEMAP_SCAN. With pages of 4 KiB it was 150 ms. */
static void write_head(FILE *file, double share, double memory, double store)
{
	fprintf(file, "memory %.0fM\nfixed 1s 20ms\n0s store %.0fM\n", share * memory, store);
	fprintf(file, "set hot random %.1fM\n0s hot %.1fM\n", memory * 0.02, memory * 0.01);
}

static void write_steady(FILE *file, double memory, double store)
{
	write_head(file, 1, memory, store);
	fprintf(file, "set state sweep %.0fM\n0s state %.0fM\n", memory * 0.6, store * 0.05);
}

static void write_phases(FILE *file, double memory, double store)
{
	write_head(file, 1, memory, store);
	fprintf(file, "repeat 40m\nset state sweep %.0fM\n0s state %.0fM\n", memory * 0.6, store * 0.02);
	fprintf(file, "30m state %.0fM\n30m hot %.0fM\n", store * 0.35, memory * 0.05);
}

static void write_growing(FILE *file, double memory, double store)
{
	write_head(file, 0.1, memory, store);
	fprintf(file, "set new grow %.0fM\n0s new %.3fM\n", memory * 0.9, memory * 0.9 / (4 * 3600));
}

static void write_bursts(FILE *file, double memory, double store)
{
	write_head(file, 1, memory, store);
	fprintf(file, "repeat 10m\nset state sweep %.0fM\n0s state %.0fM\n", memory * 0.4, store * 0.02);
	fprintf(file, "set burst sweep %.0fM\n7m burst %.0fM\n440s burst 0\n", memory * 0.3, store * 1.5);
}

static void write_slow(FILE *file, double memory, double store)
{
	write_steady(file, memory, store);
	fprintf(file, "notice store 10%%\n");
}

static void write_slow_seen(FILE *file, double memory, double store)
{
	write_slow(file, memory, store);
	fprintf(file, "notice seen 10%%\n");
}

static void write_uneven(FILE *file, double memory, double store)
{
	write_steady(file, memory, store);
	fprintf(file, "repeat 5m\n2m store %.0fM\n150s store %.0fM\n", store * 0.4, store * 0.8);
}

static const struct {
	const char *name;
	void (*write)(FILE *file, double memory, double store);
} shapes[] = {
	{ "steady", write_steady }, { "phases", write_phases }, { "growing", write_growing },
	{ "bursts", write_bursts }, { "uneven store", write_uneven }, { "slow after notice", write_slow },
	{ "slow, seen before", write_slow_seen },
};

const char *trace_shape(size_t shape)
{
	return shape < sizeof(shapes) / sizeof(*shapes) ? shapes[shape].name : NULL;
}

int trace_make(struct trace *trace, size_t shape, const struct trace_node *node, struct problem *problem)
{
	cleanup_free char *text = NULL;
	cleanup_fclose FILE *in = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return problem_set(problem, ENOMEM, "out of memory");
	shapes[shape].write(out, node->memory_gib * 1024, node->store_mib);
	fclose(out);
	in = fmemopen(text, length, "r");
	if (!in)
		return problem_set(problem, ENOMEM, "out of memory");
	return trace_read(trace, in, shapes[shape].name, problem);
}
