// SPDX-License-Identifier: GPL-2.0
/* ckptctl: one table of subcommands, from which the usage is printed too. */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *describe;
} commands[] = {
	{ "run", command_run, "start a program, or go on with it from its last checkpoint" },
	{ "status", command_status, "show the jobs on this node" },
	{ "logs", command_logs, "show what was logged about a job" },
	{ "checkpoint", command_checkpoint, "take a checkpoint of a job now" },
	{ "drain", command_drain, "save and end all jobs, as before an interruption" },
	{ "list", command_list, "list the jobs that have something in the stores" },
	{ "show", command_show, "show the checkpoints of a job in the stores" },
	{ "prune", command_prune, "remove checkpoints that nobody needs any more" },
	{ "verify", command_verify, "read all that jobs have in the stores, and say what is damaged" },
	{ "export", command_export, "write a checkpoint as images that criu restores without ckpt" },
	{ "key", command_key, "make or change the cluster's keys" },
	{ "config", command_config, "show the values of a job class and where each comes from" },
	{ "reload", command_reload, "read the configuration again" },
	{ "doctor", command_doctor, "say whether this node can protect jobs, and what is missing" },
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *out)
{
	fprintf(out, "Usage: ckptctl COMMAND [OPTION]...\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].describe);
	fprintf(out, "\nckptctl COMMAND --help says more; ckptctl --version prints the version.\n");
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("ckptctl %s\n", CKPT_VERSION);
		return 0;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		usage(stdout);
		return 0;
	}
	if (*name)
		fprintf(stderr, "ckptctl: there is no command '%s'\n", name);
	usage(stderr);
	return STATUS_USAGE;
}
