// SPDX-License-Identifier: GPL-2.0
#include "log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "clock.h"
#include "rate.h"

#define FIELDS_MAX 6

static int level = LOG_INFO;
static bool is_journal;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What this thread's lines are about. */
static __thread struct {
	char job[160];
	char checkpoint[64];
	uint64_t epoch;
	struct rate rate;
} about;

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

void log_set_job(const char *id)
{
	snprintf(about.job, sizeof(about.job), "%s", id);
}

void log_set_epoch(uint64_t number)
{
	about.epoch = number;
}

void log_set_checkpoint(const char *name)
{
	snprintf(about.checkpoint, sizeof(about.checkpoint), "%s", name);
}

/* systemd tells device and inode of the journal's stream: stderr may be something else by now. */
static void find_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	is_journal = stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
		     st.st_dev == device && st.st_ino == inode;
}

struct fields {
	char text[FIELDS_MAX][2048 + 16];
	struct iovec list[FIELDS_MAX];
	int count;
};

__attribute__((format(printf, 2, 3))) static void add_field(struct fields *fields, const char *format, ...)
{
	char *text = fields->text[fields->count];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(fields->text[0]), format, args);
	va_end(args);
	fields->list[fields->count++] = (struct iovec){ text, strlen(text) };
}

static int send_journal(int priority, const char *line)
{
	struct fields fields = { .count = 0 };

	add_field(&fields, "MESSAGE=%s", line);
	add_field(&fields, "PRIORITY=%d", priority);
	add_field(&fields, "SYSLOG_IDENTIFIER=ckptd");
	if (*about.job)
		add_field(&fields, "CKPT_JOB=%s", about.job);
	if (about.epoch)
		add_field(&fields, "CKPT_EPOCH=%llu", (unsigned long long)about.epoch);
	if (*about.checkpoint)
		add_field(&fields, "CKPT_CHECKPOINT=%s", about.checkpoint);
	return sd_journal_sendv(fields.list, fields.count);
}

/* One write per line, so that lines of several threads do not mix. */
static void write_line(int priority, const char *line)
{
	int64_t now = clock_ms();

	if (!is_journal)
		fprintf(stderr, "[%6lld.%03lld] ckptd: %s\n", (long long)now / 1000, (long long)now % 1000, line);
	else if (send_journal(priority, line) < 0)
		fprintf(stderr, "<%d>%s\n", priority, line);
}

void log_line(int priority, const char *format, ...)
{
	enum rate_answer answer;
	char line[2048];
	va_list args;

	if (priority > level)
		return;
	answer = rate_ask(&about.rate, format, clock_ms());
	if (answer == RATE_LEAVE_OUT)
		return;
	pthread_once(&once, find_journal);
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	write_line(priority, line);
	if (answer == RATE_LAST)
		write_line(priority, "more lines like the last one are left out until a minute is over");
}
