// SPDX-License-Identifier: GPL-2.0
/* ckptbench: measures ckpt against its real peers, side by side in one run. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
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
};

#define BENCHES (sizeof(benches) / sizeof(*benches))

static void usage(FILE *out)
{
	fprintf(out, "Usage: ckptbench BENCHMARK [OPTION]...\n\n");
	for (size_t i = 0; i < BENCHES; i++)
		fprintf(out, "  %-10s %s\n", benches[i].name, benches[i].describe);
	fprintf(out, "\nckptbench BENCHMARK --help says more; ckptbench --version prints the version.\n");
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

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
