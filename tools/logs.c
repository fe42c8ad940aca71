// SPDX-License-Identifier: GPL-2.0
/* ckptctl logs: what ckptd has logged about a job. The journal finds it by its fields (log.h). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "job.h"

static const char usage[] =
	"Usage: ckptctl logs [--follow] [--lines N] [--since TIME] [--checkpoint NAME] [--json] [JOB]\n"
	"What ckptd has logged about a job, or all of it, from the journal of this node. Only root and the groups adm\n"
	"and systemd-journal may read that. JOB is the full name, as in 'ckptctl status'; of one's own jobs the name\n"
	"alone will do.\n"
	"\n"
	"  -f, --follow       go on with what is logged from now on\n"
	"  -n, --lines N      only the last N lines\n"
	"  --since TIME       as journalctl takes it: -1h, yesterday, '2027-01-31 12:00'\n"
	"  --checkpoint NAME  only what belongs to this checkpoint, as in 'ckptctl show'\n"
	"  --json             entries with all their fields\n"
	"\n"
	"The exit status is journalctl's.\n";

/* Arguments for journalctl; "" and NULL: not asked for. */
struct search {
	const char *follow, *json;
	char lines[32], since[64], checkpoint[96];
};

static void exec_journalctl(const struct search *search, const char *name)
{
	char job[200] = "", own_job[220] = "";
	/* Of two values of one field journalctl takes either. */
	const char *const wanted[] = { search->follow, search->json, search->lines, search->since,
				       search->checkpoint, job, own_job };
	const char *arguments[3 + sizeof(wanted) / sizeof(*wanted) + 1] = { "journalctl", "--quiet",
									     "SYSLOG_IDENTIFIER=ckptd" };
	size_t count = 3;

	if (name) {
		snprintf(job, sizeof(job), "CKPT_JOB=%s", name);
		snprintf(own_job, sizeof(own_job), "CKPT_JOB=%u-%s", getuid(), name);
	}
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (wanted[i] && *wanted[i])
			arguments[count++] = wanted[i];
	execvp("journalctl", (char *const *)arguments);
}

int command_logs(int argc, char **argv)
{
	static const struct option options[] = {
		{ "follow", no_argument, NULL, 'f' },
		{ "lines", required_argument, NULL, 'n' },
		{ "since", required_argument, NULL, 's' },
		{ "checkpoint", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct search search = { 0 };
	int option;

	while ((option = getopt_long(argc, argv, "fn:h", options, NULL)) != -1) {
		switch (option) {
		case 'f': search.follow = "--follow"; break;
		case 'n': snprintf(search.lines, sizeof(search.lines), "--lines=%s", optarg); break;
		case 's': snprintf(search.since, sizeof(search.since), "--since=%s", optarg); break;
		case 'c': snprintf(search.checkpoint, sizeof(search.checkpoint), "CKPT_CHECKPOINT=%s", optarg); break;
		case 'J': search.json = "--output=json"; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (argc - optind > 1) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	exec_journalctl(&search, argv[optind]);
	say("cannot run journalctl: %s. Where there is no systemd, ckptd's lines are where its standard error output goes",
	    strerror(errno));
	return JOB_STATUS_FAILED;
}
