// SPDX-License-Identifier: GPL-2.0
/* What the module keeps for a tracker. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "bench_track.h"
#include "cleanup.h"

/* One page in each 2 MiB is written: the module's memory depends on the number of page tables. */
static const size_t sparse_bytes[] = { 64ul << 20, 4ul << 30, 64ul << 30 };

#define SPARSE_SIZES (sizeof(sparse_bytes) / sizeof(*sparse_bytes))

/* What the kernel has allocated for itself, in KiB. */
static double kernel_kib(void)
{
	cleanup_fclose FILE *meminfo = fopen("/proc/meminfo", "re");
	unsigned long kib, sum = 0;
	char line[128];

	while (meminfo && fgets(line, sizeof(line), meminfo))
		if (sscanf(line, "Slab: %lu", &kib) == 1 || sscanf(line, "VmallocUsed: %lu", &kib) == 1)
			sum += kib;
	return (double)sum;
}

static int memory_sample(const struct method *method, const struct victim *victim, struct samples *kib)
{
	struct regions regions = {};
	struct method_run run;
	double before = kernel_kib();
	int err = method_open(&run, method, victim);

	if (err)
		return err;
	err = method_collect(&run, &regions) ?: method_collect(&run, &regions);
	samples_add(kib, kernel_kib() - before);
	method_close(&run);
	regions_free(&regions);
	return err;
}

static int memory_row(const struct track_run *run, const struct method *method, size_t bytes)
{
	struct samples kib = {};
	struct victim victim;
	int err = victim_start_sparse(&victim, bytes, HUGE_BYTES);

	if (err)
		return err;
	for (unsigned int round = 0; !err && round < run->repeat; round++)
		err = memory_sample(method, &victim, &kib);
	victim_end(&victim);
	if (!err) {
		track_row(run, "module_memory", json_pack("{s:s, s:I, s:f}", "mechanism", method->name, "mapped_bytes",
			  (json_int_t)bytes, "tracker_kib", samples_median(&kib)));
		track_print(run, "%-11s %8zu MiB of page tables' range: %8.0f KiB\n", method->name, bytes >> 20,
			    samples_median(&kib));
	}
	samples_free(&kib);
	return err;
}

/* Only the module's own mechanism keeps something in the kernel. */
int track_memory(struct track_run *run)
{
	int err = 0;

	if (strcmp(run->methods[0].name, "soft-dirty"))
		return 0;
	track_print(run, "\nMemory of the kernel that a tracker takes, Slab and VmallocUsed in /proc/meminfo\n");
	for (size_t i = 0; !err && i < SPARSE_SIZES; i++)
		if (track_has_memory(run, sparse_bytes[i] / 256))
			err = memory_row(run, &run->methods[0], sparse_bytes[i]);
	return err;
}
