// SPDX-License-Identifier: GPL-2.0
/* What the job feels of being tracked: its first write to a page after a collection, and waits while one runs. */
#include <unistd.h>

#include "bench.h"
#include "bench_track.h"

#define FIRST_WRITE_BYTES (64ul << 20)
#define STIR_NS INT64_C(1000000000)

/* ---- the first write ---- */

struct first_write {
	struct samples first_ns;	/* per page */
	struct samples again_ns;
};

/* Writes all pages after a collection, and then once more. */
static int first_write_once(const struct method *method, const struct victim *victim, struct first_write *times)
{
	const struct writes all = { .count = victim->bytes / PAGE_BYTES };
	struct regions regions = {};
	struct method_run run;
	int64_t first_ns, again_ns;
	int err;

	err = method_open(&run, method, victim);
	if (err)
		return err;
	err = method_collect(&run, &regions);
	if (!err)
		err = victim_write(victim, &all, &first_ns) ?: victim_write(victim, &all, &again_ns);
	method_close(&run);
	regions_free(&regions);
	if (err)
		return err;
	samples_add(&times->first_ns, (double)first_ns / (double)all.count);
	samples_add(&times->again_ns, (double)again_ns / (double)all.count);
	return 0;
}

static int first_write_row(const struct track_run *run, const struct method *method, const struct victim *victim)
{
	struct first_write times = {};
	double first_ns, again_ns;
	int err = 0;

	track_progress("first write after a collection by %s", method->name);
	for (unsigned int round = 0; !err && round < run->repeat; round++)
		err = first_write_once(method, victim, &times);
	first_ns = samples_median(&times.first_ns);
	again_ns = samples_median(&times.again_ns);
	samples_free(&times.first_ns);
	samples_free(&times.again_ns);
	if (err)
		return err;
	track_row(run, "first_write", json_pack("{s:s, s:b, s:b, s:f, s:f, s:f}", "mechanism", method->name, "is_peer",
		  method->peer, "thp", victim->huge, "overhead_ns_per_page", first_ns - again_ns, "first_ns_per_page",
		  first_ns, "again_ns_per_page", again_ns));
	track_print(run, "%-19s %5s %12.0f %12.0f %12.0f\n", method->name, victim->huge ? "2M" : "4K",
		    first_ns - again_ns, first_ns, again_ns);
	return 0;
}

static int first_writes_of(const struct track_run *run, bool huge)
{
	struct victim victim;
	int err = victim_start(&victim, FIRST_WRITE_BYTES, huge);
	bool huge_here;

	if (err)
		return err;
	huge_here = victim_is_huge(&victim);
	for (size_t i = 0; !err && i < run->count && (!huge || huge_here); i++)
		err = first_write_row(run, &run->methods[i], &victim);
	victim_end(&victim);
	return err;
}

int track_first_writes(struct track_run *run)
{
	track_print(run, "\nAll pages of %lu MiB are written after a collection, and again; ns per 4 KiB in the job\n"
		    "%-19s %5s %12s %12s %12s\n", FIRST_WRITE_BYTES >> 20, "", "pages", "overhead", "first", "again");
	return first_writes_of(run, false) ?: first_writes_of(run, true);
}

/* ---- waits ---- */

struct stirring {
	struct stirred stirred;
	unsigned int collections;
	int64_t longest_ns;	/* of a collection */
};

/* The process writes for a second, at least, and what is asked for goes on meanwhile. */
static int stir(struct method_run *run, bool collect, struct stirring *stirring)
{
	const int64_t begin = bench_now_ns();
	struct regions regions = {};
	int64_t from;
	int err = victim_stir(run->victim);

	if (err)
		return err;
	while (!err && bench_now_ns() - begin < STIR_NS) {
		if (!collect) {
			usleep(10000);
			continue;
		}
		from = bench_now_ns();
		err = method_collect(run, &regions);
		if (bench_now_ns() - from > stirring->longest_ns)
			stirring->longest_ns = bench_now_ns() - from;
		stirring->collections++;
		regions_clear(&regions);
	}
	regions_free(&regions);
	return victim_rest(run->victim, &stirring->stirred) ?: err;
}

static json_t *waits_json(const struct waits *waits)
{
	return json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)waits->count, "max_us", (double)waits->max_ns / 1000,
			 "p99_9_us", (double)waits_quantile_ns(waits, 0.999) / 1000, "median_us",
			 (double)waits_quantile_ns(waits, 0.5) / 1000);
}

static void waits_row(const struct track_run *run, const struct method *method, size_t bytes,
		      const struct stirring *stirring)
{
	const struct waits *faults = &stirring->stirred.faults, *maps = &stirring->stirred.maps;

	track_row(run, "fault_wait", json_pack("{s:s, s:b, s:I, s:i, s:f, s:I, s:o, s:o}", "mechanism", method->name,
		  "is_peer", method->peer, "mapped_bytes", (json_int_t)bytes, "collections", (int)stirring->collections,
		  "longest_collection_us", (double)stirring->longest_ns / 1000, "writes",
		  (json_int_t)stirring->stirred.writes, "faults", waits_json(faults), "maps", waits_json(maps)));
	track_print(run, "%-19s %7u %11.0f %7lu %9.1f %9.1f %9.1f %9.1f %9.1f\n", method->name, stirring->collections,
		    (double)stirring->longest_ns / 1000, faults->count, (double)waits_quantile_ns(faults, 0.5) / 1000,
		    (double)waits_quantile_ns(faults, 0.999) / 1000, (double)faults->max_ns / 1000,
		    (double)waits_quantile_ns(maps, 0.999) / 1000, (double)maps->max_ns / 1000);
}

/* Without collections meanwhile: one before, so that there are faults at all. */
static int waits_of(const struct track_run *run, const struct method *method, const struct victim *victim)
{
	struct stirring stirring;
	struct regions regions = {};
	struct method_run open;
	int err = method_open(&open, method, victim);

	if (err)
		return err;
	for (int collect = 0; !err && collect < 2; collect++) {
		track_progress("waits of the job with %s", method->name);
		stirring = (struct stirring){};
		err = method_collect(&open, &regions);
		regions_clear(&regions);
		if (!err)
			err = stir(&open, collect, &stirring);
		if (!err)
			waits_row(run, method, victim->bytes, &stirring);
	}
	method_close(&open);
	regions_free(&regions);
	return err;
}

/* Of those for which the job need not stand still. */
static bool method_runs_beside(const struct method *method)
{
	return !method->mechanism || method->mechanism->collects_while_running;
}

int track_fault_waits(struct track_run *run, size_t bytes)
{
	struct victim victim;
	int err;

	if (!track_has_memory(run, bytes))
		return 0;
	track_print(run, "\nA thread writes to random pages of %zu MiB and maps and unmaps now and then, for a second without\n"
		    "collections and for one with collections without a pause; us\n"
		    "%-19s %7s %11s %7s %9s %9s %9s %9s %9s\n", bytes >> 20, "", "collect", "longest", "faults", "median",
		    "99.9 %", "max", "map 99.9%", "map max");
	err = victim_start(&victim, bytes, false);
	if (err)
		return err;
	for (size_t i = 0; !err && i < run->count; i++)
		if (method_runs_beside(&run->methods[i]))
			err = waits_of(run, &run->methods[i], &victim);
	victim_end(&victim);
	return err;
}
