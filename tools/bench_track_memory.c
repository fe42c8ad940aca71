// SPDX-License-Identifier: GPL-2.0
/* What the module keeps for a tracker, and what machine all of it was measured on. */
#include <cpuid.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <linux/ckpt.h>

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

/* ---- the machine ---- */

static const char *machine(void)
{
	unsigned int a, b, c, d, text[4] = {};

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 31))
		return "hardware";
	__cpuid(0x40000000, a, text[0], text[1], text[2]);
	if (!memcmp(text, "TCGTCGTCGTCG", 12))
		return "QEMU TCG (emulated CPU: only ratios count)";
	if (!memcmp(text, "KVMKVMKVM", 9))
		return "KVM guest";
	return "guest of another hypervisor";
}

static void cpu_model(char model[128])
{
	cleanup_fclose FILE *cpuinfo = fopen("/proc/cpuinfo", "re");
	char line[256];

	strcpy(model, "unknown");
	while (cpuinfo && fgets(line, sizeof(line), cpuinfo))
		if (sscanf(line, "model name : %127[^\n]", model) == 1)
			return;
}

static void module_version(char version[32])
{
	struct ckpt_info info = { .size = sizeof(info) };
	cleanup_close int device = open("/dev/ckpt", O_RDWR | O_CLOEXEC);

	strcpy(version, "not loaded");
	if (device >= 0 && !ioctl(device, CKPT_IOC_INFO, &info))
		memcpy(version, info.out_version, sizeof(info.out_version));
}

json_t *track_environment(void)
{
	char model[128], version[32];
	struct utsname name;

	uname(&name);
	cpu_model(model);
	module_version(version);
	return json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:I}", "kernel", name.release, "machine", machine(), "cpu", model,
			 "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "module_version", version, "page_bytes",
			 (int)PAGE_BYTES, "memory_bytes", (json_int_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES);
}
