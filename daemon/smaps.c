// SPDX-License-Identifier: GPL-2.0
#include "smaps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "proc.h"

/* Names of two letters with a blank after each. */
static bool has_flag(const char *flags, const char *flag)
{
	const char *at = strstr(flags, flag);

	return at && at > flags && at[-1] == ' ';
}

int smaps_each(pid_t pid, int (*each)(void *arg, const struct smap *map), void *arg)
{
	cleanup_fclose FILE *file = NULL;
	cleanup_free char *line = NULL;
	struct smap map = { 0 };
	size_t space = 0;
	uint64_t kib;
	int ret = proc_file(pid, "smaps", &file);

	if (!file)
		return ret ?: -ESRCH;
	while (ret == 0 && getline(&line, &space, file) > 0) {
		uint64_t start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			map = (struct smap){ .start = start, .end = end };
		else if (sscanf(line, "Rss: %lu", &kib) == 1 || sscanf(line, "Swap: %lu", &kib) == 1)
			map.present_kib += kib;
		else if (!strncmp(line, "VmFlags:", 8)) {
			map.watched = has_flag(line, "um ");
			map.wiped = has_flag(line, "wf ");
			map.droppable = has_flag(line, "dp ");
			ret = each(arg, &map);
		}
	}
	/* Of a process that has ended, or whose memory is gone, nothing is read. */
	ret = ret ?: proc_file_end(file);
	return ret ? ret : map.end ? 0 : -ESRCH;
}
