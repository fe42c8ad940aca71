// SPDX-License-Identifier: GPL-2.0
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int level = LOG_INFO;

void log_set_level(int priority)
{
	level = priority;
}

void log_set_level_name(const char *name)
{
	static const struct {
		const char *name;
		int priority;
	} levels[] = {
		{ "err", LOG_ERR }, { "warning", LOG_WARNING }, { "info", LOG_INFO }, { "debug", LOG_DEBUG },
	};

	for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++)
		if (!strcmp(name, levels[i].name))
			log_set_level(levels[i].priority);
}

/* One write per line, so that lines of several threads do not mix. */
void log_line(int priority, const char *format, ...)
{
	char line[2048];
	char prefix[40];
	struct timespec now;
	va_list args;

	if (priority > level)
		return;
	if (getenv("JOURNAL_STREAM")) {
		snprintf(prefix, sizeof(prefix), "<%d>", priority);
	} else {
		clock_gettime(CLOCK_BOOTTIME, &now);
		snprintf(prefix, sizeof(prefix), "[%6lld.%03ld] ckptd: ", (long long)now.tv_sec,
			 now.tv_nsec / 1000000);
	}
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "%s%s\n", prefix, line);
}
