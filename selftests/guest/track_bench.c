// SPDX-License-Identifier: GPL-2.0
/*
 * Time to collect, against reading /proc/PID/pagemap and writing 4 to clear_refs, on the same memory in the same run.
 *
 *	track_bench [MIB]	(256)
 *
 * Each figure is the best of five. The job must be stopped for all of the time in the second column, never for the first.
 */
#include <time.h>

#include "guest.h"

#define RUNS 5
#define PAGEMAP_SOFT_DIRTY (1ull << 55)

static size_t bytes = 256ul << 20;
static char *memory;
static int tracker, pagemap, clear_refs;

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Returns the pages that were written. */
static size_t collect_module(void)
{
	static struct ckpt_region vec[16384];
	struct ckpt_collect collect = {
		.size = sizeof(collect), .start = (uintptr_t)memory, .end = (uintptr_t)memory + bytes,
		.vec = (uintptr_t)vec, .vec_len = 16384,
	};
	size_t pages = 0;

	while (collect.start < collect.end) {
		require(ioctl(tracker, CKPT_IOC_COLLECT, &collect) == 0);
		for (size_t i = 0; i < collect.out_count; i++)
			pages += (vec[i].end - vec[i].start) / PAGE;
		collect.start = collect.out_walk_end;
	}
	return pages;
}

static size_t collect_proc(void)
{
	static uint64_t entries[65536];
	size_t pages = 0, at = (uintptr_t)memory / PAGE, end = at + bytes / PAGE;
	ssize_t length;

	while (at < end) {
		length = pread(pagemap, entries, (end - at < 65536 ? end - at : 65536) * 8, at * 8);
		require(length > 0);
		for (size_t i = 0; i < (size_t)length / 8; i++)
			pages += !!(entries[i] & PAGEMAP_SOFT_DIRTY);
		at += length / 8;
	}
	require(pwrite(clear_refs, "4", 1, 0) == 1);
	return pages;
}

/* A page is at a place that is new each time. */
static void write_pages(size_t count)
{
	static size_t at;
	size_t pages = bytes / PAGE;

	for (size_t i = 0; i < count; i++, at = (at + 7919) % pages)
		((volatile char *)memory)[at * PAGE] = 1;
}

static double best(size_t (*collect)(void), size_t written, size_t *reported)
{
	double best_ms = 1e9, begin, ms;

	collect();
	for (int run = 0; run < RUNS; run++) {
		write_pages(written);
		begin = now_ms();
		*reported = collect();
		ms = now_ms() - begin;
		if (ms < best_ms)
			best_ms = ms;
	}
	return best_ms;
}

static void row(const char *name, size_t written)
{
	size_t module_pages, proc_pages;
	double module_ms = best(collect_module, written, &module_pages);
	double proc_ms = best(collect_proc, written, &proc_pages);

	/* The other one took the bits: the tracker must not rely on them. */
	collect_module();
	printf("%-22s %9zu %9.2f %9zu %9.2f %9zu %7.1f\n", name, written, module_ms, module_pages, proc_ms, proc_pages,
	       proc_ms / module_ms);
}

static void table(const char *kind, int advice)
{
	char name[64];
	size_t pages = bytes / PAGE;
	static const struct { const char *name; size_t divisor; } rows[] = {
		{ "nothing written", 0 }, { "0.1 % written", 1000 }, { "1 % written", 100 }, { "10 % written", 10 },
		{ "all written", 1 },
	};

	require(mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
	require(madvise(memory, bytes, advice) == 0);
	write_pages(pages);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		snprintf(name, sizeof(name), "%s, %s", kind, rows[i].name);
		row(name, rows[i].divisor ? pages / rows[i].divisor : 0);
	}
}

int main(int argc, char **argv)
{
	if (argc > 1)
		bytes = strtoul(argv[1], NULL, 0) << 20;
	memory = (char *)0x300000000000ul;
	tracker = tracker_of(getpid());
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	require(pagemap >= 0 && clear_refs >= 0);
	printf("%zu MiB%-16s %9s %9s %9s %9s %9s %7s\n", bytes >> 20, "", "pages", "module ms", "reported", "proc ms",
	       "reported", "ratio");
	table("4 KiB", MADV_NOHUGEPAGE);
	table("2 MiB", MADV_HUGEPAGE);
	return 0;
}
