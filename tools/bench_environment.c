// SPDX-License-Identifier: GPL-2.0
#include "bench_environment.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/ckpt.h>

#include "cleanup.h"
#include "criu.h"
#include "region.h"

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

json_t *bench_environment(void)
{
	char model[128], version[32];
	struct criu_version criu;
	struct problem problem;
	struct utsname name;

	uname(&name);
	cpu_model(model);
	module_version(version);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s?, s:i, s:I}", "ckpt", CKPT_VERSION, "node", name.nodename,
			 "kernel", name.release, "machine", machine(), "cpu", model, "cpus",
			 (int)sysconf(_SC_NPROCESSORS_ONLN), "module_version", version, "criu",
			 criu_probe("criu", &criu, &problem) ? NULL : criu.text, "page_bytes", (int)PAGE_BYTES,
			 "memory_bytes", (json_int_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES);
}
