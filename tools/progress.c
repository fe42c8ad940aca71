// SPDX-License-Identifier: GPL-2.0
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_MS 200
#define LINE_MS 10000
#define BAR_WIDTH 20

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

const char *bytes_text(char text[32], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	unsigned int unit = 0;

	for (; value >= 1024 && unit < 4; unit++)
		value /= 1024;
	snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}

void progress_begin(struct progress *progress, const char *what, bool silent)
{
	*progress = (struct progress){ .what = what, .silent = silent, .begin_ms = now_ms() };
	progress->shown_ms = progress->begin_ms;
}

void progress_resume(struct progress *progress, int64_t since_ms)
{
	progress->begin_ms = now_ms() - since_ms;
	if (!progress->shown)
		progress->shown_ms = 0;
}

static void print_line(const struct progress *progress, uint64_t done, uint64_t all, int64_t ms)
{
	double share = all ? (double)done / (double)all : 1, rate = ms ? (double)done * 1000 / (double)ms : 0;
	char bar[BAR_WIDTH + 1], one[32], other[32], speed[32];

	memset(bar, '-', BAR_WIDTH);
	memset(bar, '#', (size_t)(share * BAR_WIDTH));
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "%s  [%s] %3d %%  %s of %s  %s/s", progress->what, bar, (int)(share * 100),
		bytes_text(one, done), bytes_text(other, all), bytes_text(speed, (uint64_t)rate));
	if (rate >= 1)
		fprintf(stderr, "  %.0f s left", (double)(all - done) / rate);
}

void progress_show(struct progress *progress, uint64_t bytes_done, uint64_t bytes_all)
{
	bool bar = isatty(STDERR_FILENO);
	int64_t now = now_ms();

	if (progress->silent || now - progress->shown_ms < (bar ? BAR_MS : LINE_MS))
		return;
	progress->shown_ms = now;
	progress->shown = bar;
	if (bar)
		fputs("\r\033[K", stderr);
	print_line(progress, bytes_done, bytes_all, now - progress->begin_ms);
	if (!bar)
		fputc('\n', stderr);
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
