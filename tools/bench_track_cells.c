// SPDX-License-Identifier: GPL-2.0
/* The cells of ckptbench track: mechanism × peer × density × kind of pages × size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_track.h"
#include "cleanup.h"

static const double densities[] = { 0, 0.01, 1 };

#define DENSITIES (sizeof(densities) / sizeof(*densities))

/* What one method has found at one density. */
struct found {
	struct samples us;
	uint64_t missed_pages;
};

/* ---- the oracle ---- */

static void expect_page(void *argument, uint64_t page)
{
	((uint8_t *)argument)[page] = 1;
}

/* How many of the pages that were written are in no region. */
static uint64_t missed_pages(const struct victim *victim, const struct writes *writes, const struct regions *regions,
			     uint8_t *expected)
{
	const uint64_t start = (uintptr_t)victim->memory, end = start + victim->bytes;
	uint64_t missed = 0;

	memset(expected, 0, victim->bytes / PAGE_BYTES);
	writes_each(writes, victim->bytes / PAGE_BYTES, expect_page, expected);
	for (size_t i = 0; i < regions->count; i++) {
		const struct region *region = &regions->list[i];
		uint64_t from = region->start > start ? region->start : start;
		uint64_t to = region->end < end ? region->end : end;

		if (from < to)
			memset(expected + (from - start) / PAGE_BYTES, 0, (to - from) / PAGE_BYTES);
	}
	for (size_t page = 0; page < victim->bytes / PAGE_BYTES; page++)
		missed += expected[page];
	return missed;
}

/* ---- one sample ---- */

/* Everything is known afterwards. */
static int settle(struct method_run *run, struct regions *regions)
{
	int err = method_collect(run, regions);

	regions_clear(regions);
	return err;
}

static int sample(const struct method *method, const struct victim *victim, const struct writes *writes,
		  uint8_t *expected, struct regions *regions, struct found *found)
{
	struct method_run run;
	int64_t begin;
	int err;

	err = method_open(&run, method, victim);
	if (err)
		return err;
	err = settle(&run, regions);
	if (!err)
		err = victim_write(victim, writes, NULL);
	begin = bench_now_ns();
	if (!err)
		err = method_collect(&run, regions);
	samples_add(&found->us, (double)(bench_now_ns() - begin) / 1000);
	method_close(&run);
	if (!err)
		found->missed_pages += missed_pages(victim, writes, regions, expected);
	regions_clear(regions);
	return err;
}

/* ---- cells ---- */

static void cell(const struct track_run *run, size_t ours, size_t peer, const struct victim *victim, double density,
		 struct found *found)
{
	double us = samples_median(&found[ours].us), peer_us = samples_median(&found[peer].us);

	track_row(run, "cells", json_pack("{s:s, s:s, s:f, s:b, s:I, s:f, s:f, s:f, s:I, s:i}",
		  "mechanism", run->methods[ours].name, "peer", run->methods[peer].name, "density", density,
		  "thp", victim->huge, "mapped_bytes", (json_int_t)victim->bytes, "median_us", us,
		  "peer_median_us", peer_us, "ratio", us > 0 ? peer_us / us : 0,
		  "missed_pages", (json_int_t)found[ours].missed_pages, "samples", (int)found[ours].us.count));
	track_print(run, "%-11s %-19s %5zu %5s %5.0f %% %12.1f %12.1f %8.1f %7lu\n", run->methods[ours].name,
		    run->methods[peer].name, victim->bytes >> 20, victim->huge ? "2M" : "4K", 100 * density, us, peer_us,
		    us > 0 ? peer_us / us : 0, found[ours].missed_pages);
}

static void cells_report(const struct track_run *run, const struct victim *victim, double density, struct found *found)
{
	for (size_t ours = 0; ours < run->count; ours++)
		for (size_t peer = 0; peer < run->count; peer++)
			if (!run->methods[ours].peer && run->methods[peer].peer)
				cell(run, ours, peer, victim, density, found);
}

static int density_measure(const struct track_run *run, const struct victim *victim, double density, uint8_t *expected)
{
	cleanup_free struct found *found = calloc(run->count, sizeof(*found));
	struct writes writes = { .count = (uint64_t)(density * (double)(victim->bytes / PAGE_BYTES)) };
	struct regions regions = {};
	int err = found ? 0 : -ENOMEM;

	for (unsigned int round = 0; !err && round < run->repeat; round++) {
		for (size_t i = 0; !err && i < run->count; i++) {
			track_progress("%zu MiB, %s pages, %g %% written: round %u of %u, %s", victim->bytes >> 20,
				       victim->huge ? "2 MiB" : "4 KiB", 100 * density, round + 1, run->repeat,
				       run->methods[i].name);
			writes.seed++;
			err = sample(&run->methods[i], victim, &writes, expected, &regions, &found[i]);
		}
	}
	if (!err)
		cells_report(run, victim, density, found);
	for (size_t i = 0; found && i < run->count; i++)
		samples_free(&found[i].us);
	regions_free(&regions);
	return err;
}

static int memory_measure(const struct track_run *run, const struct victim *victim)
{
	cleanup_free uint8_t *expected = malloc(victim->bytes / PAGE_BYTES);
	int err = expected ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < DENSITIES; i++)
		err = density_measure(run, victim, densities[i], expected);
	return err;
}

static int size_measure(const struct track_run *run, size_t bytes, bool huge)
{
	struct victim victim;
	int err = victim_start(&victim, bytes, huge);

	if (err)
		return err;
	if (huge && !victim_is_huge(&victim))
		track_print(run, "(the kernel gives no huge pages for %zu MiB)\n", bytes >> 20);
	else
		err = memory_measure(run, &victim);
	victim_end(&victim);
	return err;
}

int track_cells(struct track_run *run, const size_t *sizes, size_t count)
{
	int err = 0;

	track_print(run, "%-11s %-19s %5s %5s %7s %12s %12s %8s %7s\n", "mechanism", "peer", "MiB", "pages", "written",
		    "us", "peer us", "ratio", "missed");
	for (size_t i = 0; !err && i < count; i++) {
		if (!track_has_memory(run, sizes[i]))
			continue;
		err = size_measure(run, sizes[i], false);
		if (!err)
			err = size_measure(run, sizes[i], true);
	}
	return err;
}
