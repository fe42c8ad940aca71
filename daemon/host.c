// SPDX-License-Identifier: GPL-2.0
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

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

int host_check(const json_t *facts, struct problem *problem)
{
	const char *flags = json_string_value(json_object_get(facts, "cpu_flags"));
	const char *node = json_string_value(json_object_get(facts, "node"));
	const char *here;
	char missing[256] = "", *copy, *save, *flag;
	json_t *own;

	if (!flags)
		return problem_set(problem, EBADMSG, "the checkpoint does not say what CPU it is of");
	own = host_facts();
	here = json_string_value(json_object_get(own, "cpu_flags"));
	copy = strdup(flags);
	for (flag = copy ? strtok_r(copy, " ", &save) : NULL; flag; flag = strtok_r(NULL, " ", &save))
		if (!is_kernel_flag(flag) && !has_word(here ? here : "", flag) &&
		    strlen(missing) + strlen(flag) + 2 < sizeof(missing))
			strcat(strcat(missing, " "), flag);
	free(copy);
	json_decref(own);
	if (*missing)
		return problem_set(problem, ENOTSUP, "this node's CPU lacks what the job may rely on since "
				   "it ran on %s:%s; restore it on a node of the same type",
				   node ? node : "another node", missing);
	return 0;
}
