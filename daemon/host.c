// SPDX-License-Identifier: GPL-2.0
#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cleanup.h"

/* Flags that the kernel derives or that only matter to it: a job does not miss them. */
static const char *const kernel_flags[] = {
	"constant_tsc", "nonstop_tsc", "tsc_known_freq", "rep_good", "nopl", "cpuid", "hypervisor",
	"pti", "ibrs", "ibpb", "stibp", "ssbd", "ibrs_enhanced", "tsc_reliable", "aperfmperf",
	"arch_perfmon", "pebs", "bts", "dtes64", "monitor", "tpr_shadow", "vnmi", "flexpriority",
	"ept", "vpid", "vmx", "svm", "arat", "md_clear", "flush_l1d", "arch_capabilities",
	"extd_apicid", "cpuid_fault", "invpcid_single", "pcid", "invpcid", "x2apic", "tsc_deadline_timer",
	"xtopology", "nx", "smep", "smap", "umip", "la57", "ht", "cmp_legacy", "perfctr_core",
	"topoext", "npt", "nrip_save", "vmmcall", "debug_swap", "cpb", "hw_pstate", "lm", "syscall",
	"ida", "epb", "pln", "pts", "hwp", "dts", "acpi", "ss", "tm", "pbe", "tm2", "est", "xtpr",
};

static void take_line(json_t *facts, const char *line, const char *label, const char *key)
{
	const char *value;

	if (strncmp(line, label, strlen(label)) || json_object_get(facts, key))
		return;
	value = strchr(line, ':');
	if (value)
		json_object_set_new(facts, key, json_string(value + 1 + strspn(value + 1, " \t")));
}

/* A process is on one node. */
static struct {
	pthread_mutex_t lock;
	char zone[40];
	char instance_type[40];
} place = { .lock = PTHREAD_MUTEX_INITIALIZER };

void host_set_place(const char *zone, const char *instance_type)
{
	pthread_mutex_lock(&place.lock);
	snprintf(place.zone, sizeof(place.zone), "%s", zone);
	snprintf(place.instance_type, sizeof(place.instance_type), "%s", instance_type);
	pthread_mutex_unlock(&place.lock);
}

static void take_memory(json_t *facts)
{
	struct sysinfo info;

	if (sysinfo(&info))
		return;
	json_object_set_new(facts, "memory_kib", json_integer((json_int_t)(info.totalram * info.mem_unit / 1024)));
	json_object_set_new(facts, "swap_kib", json_integer((json_int_t)(info.totalswap * info.mem_unit / 1024)));
}

static void take_place(json_t *facts)
{
	pthread_mutex_lock(&place.lock);
	if (*place.zone)
		json_object_set_new(facts, "zone", json_string(place.zone));
	if (*place.instance_type)
		json_object_set_new(facts, "instance_type", json_string(place.instance_type));
	pthread_mutex_unlock(&place.lock);
}

json_t *host_facts(void)
{
	json_t *facts = json_object();
	cleanup_fclose FILE *cpuinfo = fopen("/proc/cpuinfo", "re");
	struct utsname name;
	char line[8192];

	if (uname(&name) == 0) {
		json_object_set_new(facts, "node", json_string(name.nodename));
		json_object_set_new(facts, "kernel", json_string(name.release));
	}
	while (cpuinfo && fgets(line, sizeof(line), cpuinfo)) {
		line[strcspn(line, "\n")] = '\0';
		take_line(facts, line, "vendor_id", "cpu_vendor");
		take_line(facts, line, "cpu family", "cpu_family");
		take_line(facts, line, "model\t", "cpu_model");
		take_line(facts, line, "flags", "cpu_flags");
	}
	take_memory(facts);
	take_place(facts);
	return facts;
}

static int is_kernel_flag(const char *flag)
{
	for (size_t i = 0; i < sizeof(kernel_flags) / sizeof(*kernel_flags); i++)
		if (!strcmp(flag, kernel_flags[i]))
			return 1;
	return 0;
}

static int has_word(const char *words, const char *word)
{
	size_t length = strlen(word);
	const char *at = words;

	while ((at = strstr(at, word))) {
		if ((at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
			return 1;
		at += length;
	}
	return 0;
}

static const char *text(const json_t *facts, const char *key)
{
	return json_string_value(json_object_get(facts, key)) ?: "";
}

/* All programs may have asked the CPU for these, and use what it said as long as they live. */
static int check_flags(const json_t *there, const json_t *here, struct problem *problem)
{
	cleanup_free char *copy = strdup(text(there, "cpu_flags"));
	const char *own = text(here, "cpu_flags");
	char missing[256] = "", *save, *flag;

	if (!copy || !*copy)
		return problem_set(problem, EBADMSG, "the checkpoint does not say what CPU it is of");
	for (flag = strtok_r(copy, " ", &save); flag; flag = strtok_r(NULL, " ", &save))
		if (!is_kernel_flag(flag) && !has_word(own, flag) && strlen(missing) + strlen(flag) + 2 < sizeof(missing))
			strcat(strcat(missing, " "), flag);
	if (!*missing)
		return 0;
	return problem_set(problem, ENOTSUP, "this node's CPU lacks what the job may rely on since it ran on %s:%s; restore it "
			   "on a node of the same type", *text(there, "node") ? text(there, "node") : "another node", missing);
}

static int check_memory(const json_t *here, uint64_t memory_kib, struct problem *problem)
{
	uint64_t own_kib = (uint64_t)(json_integer_value(json_object_get(here, "memory_kib")) +
				      json_integer_value(json_object_get(here, "swap_kib")));

	if (!own_kib || memory_kib < own_kib)
		return 0;
	return problem_set(problem, ENOTSUP, "this node has %.1f GiB of memory and swap, and one of the job's processes needs %.1f "
			   "GiB: restore it on a larger one", (double)own_kib / (1 << 20), (double)memory_kib / (1 << 20));
}

static void warn(char warning[HOST_WARNING], const json_t *there, const json_t *here, const char *key, const char *what)
{
	const char *old = text(there, key), *new = text(here, key);
	size_t used = strlen(warning);

	if (*old && *new && strcmp(old, new))
		snprintf(warning + used, HOST_WARNING - used, "%s%s %.60s instead of %.60s", used ? ", " : "", what, new, old);
}

/* 6.1 and 6.12 are two; what a distribution changes in one of them is not. */
static int kernel_order(const char *one, const char *other)
{
	unsigned int a[2] = { 0 }, b[2] = { 0 };

	sscanf(one, "%u.%u", &a[0], &a[1]);
	sscanf(other, "%u.%u", &b[0], &b[1]);
	return a[0] != b[0] ? (a[0] > b[0]) - (a[0] < b[0]) : (a[1] > b[1]) - (a[1] < b[1]);
}

int host_compare(const json_t *there, const json_t *here, uint64_t memory_kib, char warning[HOST_WARNING],
		 struct problem *problem)
{
	int ret = check_flags(there, here, problem);

	warning[0] = '\0';
	if (ret == 0)
		ret = check_memory(here, memory_kib, problem);
	if (ret)
		return ret;
	warn(warning, there, here, "cpu_vendor", "CPU of");
	warn(warning, there, here, "cpu_family", "CPU family");
	warn(warning, there, here, "instance_type", "instance type");
	warn(warning, there, here, "zone", "availability zone");
	/* A newer one has all that the program has found there. */
	if (kernel_order(text(here, "kernel"), text(there, "kernel")) < 0)
		warn(warning, there, here, "kernel", "an older kernel,");
	return 0;
}

int host_check(const json_t *there, uint64_t memory_kib, char warning[HOST_WARNING], struct problem *problem)
{
	json_t *here = host_facts();
	int ret = host_compare(there, here, memory_kib, warning, problem);

	json_decref(here);
	return ret;
}
