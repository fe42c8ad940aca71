// SPDX-License-Identifier: GPL-2.0
#include "oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "pagescan.h"

#define FREEZE_MS 60000
#define WINDOW_PAGES 64u

struct oracle_page {
	uint64_t address;	/* 0: free */
	uint32_t index;		/* in content */
	bool held;
	bool unread;		/* it was reported, and could not be read */
	uint32_t reported;	/* last by this collect */
};

static void die(const char *what)
{
	fprintf(stderr, "oracle: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Jobs are forked from the test and shall not have its memory. */
static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED || madvise(p, bytes, MADV_DONTFORK))
		die("mmap");
	return p;
}

static int proc_open(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void oracle_init(struct oracle *oracle, const char *cgroup, size_t max_pages)
{
	*oracle = (struct oracle){ .cgroup = cgroup, .page_space = 1 };
	while (oracle->page_space < max_pages * 2)
		oracle->page_space *= 2;
	oracle->pages = map(oracle->page_space * sizeof(*oracle->pages));
	oracle->content = map(max_pages * PAGE_BYTES);
	oracle->window = map(WINDOW_PAGES * PAGE_BYTES);
}

void oracle_reset(struct oracle *oracle, pid_t pid)
{
	oracle->pid = pid;
	oracle->page_count = 0;
	memset(oracle->pages, 0, oracle->page_space * sizeof(*oracle->pages));
	regions_clear(&oracle->regions);
}

void oracle_free(struct oracle *oracle)
{
	munmap(oracle->pages, oracle->page_space * sizeof(*oracle->pages));
	munmap(oracle->content, oracle->page_space / 2 * PAGE_BYTES);
	munmap(oracle->window, WINDOW_PAGES * PAGE_BYTES);
	regions_free(&oracle->regions);
}

/* The page's place, which may be free. */
static struct oracle_page *page_place(const struct oracle *oracle, uint64_t address)
{
	size_t at = address / PAGE_BYTES * 0x9e3779b97f4a7c15u >> 20;

	for (;; at++) {
		struct oracle_page *page = &oracle->pages[at & (oracle->page_space - 1)];

		if (!page->address || page->address == address)
			return page;
	}
}

static struct oracle_page *page_add(struct oracle *oracle, uint64_t address)
{
	struct oracle_page *page = page_place(oracle, address);

	if (page->address)
		return page;
	if (oracle->page_count == oracle->page_space / 2) {
		errno = ENOSPC;
		die("the copy");
	}
	*page = (struct oracle_page){ .address = address, .index = oracle->page_count++ };
	return page;
}

static char *page_content(const struct oracle *oracle, const struct oracle_page *page)
{
	return oracle->content + (size_t)page->index * PAGE_BYTES;
}

/* As /proc/PID/mem does it: also what is PROT_NONE. Returns the bytes that could be read. */
static size_t task_read(const struct oracle *oracle, uint64_t address, void *into, size_t bytes)
{
	struct iovec local = { into, bytes }, remote = { (void *)address, bytes };
	ssize_t got = process_vm_readv(oracle->pid, &local, 1, &remote, 1, 0);
	cleanup_close int mem = -1;

	if (got == (ssize_t)bytes)
		return bytes;
	mem = proc_open(oracle->pid, "mem");
	got = pread(mem, into, bytes, address);
	return got > 0 ? got - got % PAGE_BYTES : 0;
}

/* ---- collect ---- */

static void page_take(struct oracle *oracle, uint64_t address, const char *content)
{
	struct oracle_page *page = page_add(oracle, address);

	oracle->changed_pages += !page->held || !content || memcmp(page_content(oracle, page), content, PAGE_BYTES);
	page->held = content != NULL;
	page->unread = !content;
	page->reported = oracle->collects;
	if (content)
		memcpy(page_content(oracle, page), content, PAGE_BYTES);
}

/*
 * What cannot be read is gone by now, or has moved away and may come back as it was (mremap), which nobody reports. The
 * daemon holds it no longer then, and reads what it does not hold at the checkpoint (take_unchanged() in pageserver.c).
 */
static void region_take(struct oracle *oracle, const struct region *region)
{
	uint64_t at = region->start;

	while (at < region->end) {
		size_t want = region->end - at < WINDOW_PAGES * PAGE_BYTES ? region->end - at : WINDOW_PAGES * PAGE_BYTES;
		size_t got = task_read(oracle, at, oracle->window, want);

		for (size_t offset = 0; offset < got; offset += PAGE_BYTES)
			page_take(oracle, at + offset, oracle->window + offset);
		at += got;
		if (got < want) {
			page_take(oracle, at, NULL);
			at += PAGE_BYTES;
		}
	}
}

/* A full collect reports all that exists. */
static void forget_unreported(struct oracle *oracle)
{
	for (size_t i = 0; i < oracle->page_space; i++)
		oracle->pages[i].held &= oracle->pages[i].reported == oracle->collects;
}

static void regions_check(const struct regions *regions)
{
	for (size_t i = 0; i < regions->count; i++)
		if (regions->list[i].start >= regions->list[i].end ||
		    (i && regions->list[i - 1].end > regions->list[i].start)) {
			errno = EILSEQ;
			die("regions are not sorted");
		}
}

int oracle_freeze(struct oracle *oracle, struct problem *problem)
{
	int err = cgroup_freeze(oracle->cgroup, FREEZE_MS, problem);

	oracle->frozen = !err;
	return err;
}

int oracle_thaw(struct oracle *oracle, struct problem *problem)
{
	oracle->frozen = false;
	return cgroup_thaw(oracle->cgroup, problem);
}

static int collect_once(struct oracle *oracle, struct tracker *tracker, struct problem *problem)
{
	struct regions present = {};
	int err = tracker_collect(tracker, &oracle->regions, &present, &oracle->full, problem) ?:
		  tracker_rearm(tracker, problem);

	regions_free(&present);
	return err;
}

/* Before the pages are read the task runs again, as in the daemon. */
static int collect_frozen(struct oracle *oracle, struct tracker *tracker, struct problem *problem)
{
	int err = oracle_freeze(oracle, problem), thawed;

	if (err)
		return err;
	err = collect_once(oracle, tracker, problem);
	thawed = oracle_thaw(oracle, problem);
	return err ?: thawed;
}

int oracle_collect(struct oracle *oracle, const struct tracker_mechanism *mechanism, struct tracker *tracker,
		   struct problem *problem)
{
	int err;

	regions_clear(&oracle->regions);
	if (mechanism->collects_while_running || oracle->frozen)
		err = collect_once(oracle, tracker, problem);
	else
		err = collect_frozen(oracle, tracker, problem);
	if (err)
		return err;
	regions_check(&oracle->regions);
	oracle->collects++;
	oracle->changed_pages = 0;
	oracle->all_reported_pages += regions_pages(&oracle->regions);
	for (size_t i = 0; i < oracle->regions.count; i++)
		region_take(oracle, &oracle->regions.list[i]);
	if (oracle->full)
		forget_unreported(oracle);
	return 0;
}

uint64_t oracle_reported(const struct oracle *oracle, uint64_t start, uint64_t end)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < oracle->regions.count; i++) {
		const struct region *region = &oracle->regions.list[i];
		uint64_t from = region->start > start ? region->start : start, to = region->end < end ? region->end : end;

		if (from < to)
			pages += (to - from) / PAGE_BYTES;
	}
	return pages;
}

/* ---- compare ---- */

static bool entry_exists(uint64_t entry)
{
	return !(entry & PAGEMAP_FILE) && entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

static bool is_zero_page(const struct oracle *oracle, uint64_t address)
{
	cleanup_close int pagemap = proc_open(oracle->pid, "pagemap");
	cleanup_close int flags = pagescan_open_flags();
	int zero = pagescan_is_zero(pagemap, flags, address);

	if (zero < 0)
		die("/proc/kpageflags");
	return zero;
}

static bool page_same(const struct oracle *oracle, uint64_t address, const char *now, struct problem *difference)
{
	static const char zero[PAGE_BYTES];
	const struct oracle_page *page = page_place(oracle, address);
	const char *held = page->held ? page_content(oracle, page) : zero;
	size_t at = 0;

	if (page->unread || !memcmp(now, held, PAGE_BYTES) || is_zero_page(oracle, address))
		return true;
	while (now[at] == held[at])
		at++;
	at &= -8;
	problem_set(difference, EILSEQ, "missed: the page at %#" PRIx64 "+%zu holds %#" PRIx64 ", the copy %s%#" PRIx64,
		    address, at, *(uint64_t *)(now + at), page->held ? "" : "(not held) ", *(uint64_t *)(held + at));
	return false;
}

static bool run_same(const struct oracle *oracle, uint64_t start, uint64_t end, struct problem *difference)
{
	while (start < end) {
		size_t want = end - start < WINDOW_PAGES * PAGE_BYTES ? end - start : WINDOW_PAGES * PAGE_BYTES;

		if (task_read(oracle, start, oracle->window, want) != want) {
			problem_set(difference, EFAULT, "cannot read [%#" PRIx64 ",+%#zx) of the task", start, want);
			return false;
		}
		for (size_t offset = 0; offset < want; offset += PAGE_BYTES)
			if (!page_same(oracle, start + offset, oracle->window + offset, difference))
				return false;
		start += want;
	}
	return true;
}

static bool private_same(const struct oracle *oracle, int pagemap, uint64_t start, uint64_t end,
			 struct problem *difference)
{
	static uint64_t entries[8192];
	size_t count, i = 0, from;

	for (; start < end; start += count * PAGE_BYTES) {
		count = (end - start) / PAGE_BYTES;
		if (count > 8192)
			count = 8192;
		if (pread(pagemap, entries, count * 8, start / PAGE_BYTES * 8) != (ssize_t)count * 8)
			die("pagemap");
		for (i = 0; i < count; i++) {
			for (from = i; i < count && entry_exists(entries[i]); i++)
				;
			if (!run_same(oracle, start + from * PAGE_BYTES, start + i * PAGE_BYTES, difference))
				return false;
		}
	}
	return true;
}

/* Shared memory is not tracked: nothing of it may be taken for tracked. */
static bool shared_unreported(const struct oracle *oracle, uint64_t start, uint64_t end, struct problem *difference)
{
	if (!oracle_reported(oracle, start, end))
		return true;
	problem_set(difference, EILSEQ, "shared memory in [%#" PRIx64 ",%#" PRIx64 ") is reported", start, end);
	return false;
}

static bool mapping_same(const struct oracle *oracle, int pagemap, const char *line, struct problem *difference)
{
	uint64_t start, end;
	char shared;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*c%*c%*c%c", &start, &end, &shared) != 3 ||
	    strstr(line, "[vvar") || strstr(line, "[vsyscall]"))
		return true;
	if (shared == 's')
		return shared_unreported(oracle, start, end, difference);
	return private_same(oracle, pagemap, start, end, difference);
}

bool oracle_compare(struct oracle *oracle, struct problem *difference)
{
	cleanup_close int pagemap = proc_open(oracle->pid, "pagemap"), maps_fd = proc_open(oracle->pid, "maps");
	cleanup_fclose FILE *maps = NULL;
	cleanup_free char *line = NULL;
	size_t space = 0;
	bool same = true;

	maps = fdopen(dup(maps_fd), "re");
	if (pagemap < 0 || !maps)
		die("/proc/PID");
	while (same && getline(&line, &space, maps) > 0)
		same = mapping_same(oracle, pagemap, line, difference);
	return same;
}
