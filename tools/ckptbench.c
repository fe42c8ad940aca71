// SPDX-License-Identifier: GPL-2.0
/* ckptbench: measures ckpt against its real peers, side by side in one run. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "bench_report.h"
#include "commands.h"

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *describe;
} benches[] = {
	{ "track", bench_track, "finding written pages: the mechanisms against /proc" },
	{ "stream", bench_stream, "pages on their way to a store: against fio, memcpy, process_vm_readv" },
	{ "restore", bench_restore, "a checkpoint on its way back: against fio, criu restore" },
	{ "policy", bench_policy, "interruptions that make the window, simulated" },
	{ "dump", bench_dump, "a job's checkpoints against criu dump" },
	{ "ladder", bench_ladder, "what a command's own run costs, from nothing of ckpt to a chain of restores" },
	{ "advise", bench_advise, "what intervals to configure for a job, and what they cost" },
	{ "report", bench_page, "one page of HTML with plots, from what the others have printed with --json" },
};

#define BENCHES (sizeof(benches) / sizeof(*benches))

static void usage(FILE *out)
{
	fprintf(out, "Usage: ckptbench BENCHMARK [OPTION]...\n\n");
	for (size_t i = 0; i < BENCHES; i++)
		fprintf(out, "  %-10s %s\n", benches[i].name, benches[i].describe);
	fprintf(out, "\nckptbench BENCHMARK --help says more; ckptbench --version prints the version.\n\n"
		"Each takes --compare FILE: it then says what has changed since the report in FILE, that\n"
		"--json has printed; exit status %d if a figure is worse by more than a tenth.\n", STATUS_WORSE);
}

/* Takes --compare FILE out of the options, which end at "--". How many arguments are left; -1: it is wrong. */
static int take_compare(int argc, char **argv)
{
	for (int i = 2; i < argc && strcmp(argv[i], "--"); i++) {
		if (strcmp(argv[i], "--compare"))
			continue;
		if (i + 1 == argc || bench_compare_with(argv[i + 1]))
			return -1;
		memmove(argv + i, argv + i + 2, (size_t)(argc - i - 1) * sizeof(*argv));
		return argc - 2;
	}
	return argc;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	argc = take_compare(argc, argv);
	if (argc < 0)
		return STATUS_USAGE;
	for (size_t i = 0; i < BENCHES; i++)
		if (!strcmp(name, benches[i].name))
			return benches[i].main(argc - 1, argv + 1);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("ckptbench %s\n", CKPT_VERSION);
		return 0;
	}
	usage(!strcmp(name, "--help") || !strcmp(name, "-h") ? stdout : stderr);
	return strcmp(name, "--help") && strcmp(name, "-h") ? STATUS_USAGE : 0;
}
