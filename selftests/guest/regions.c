// SPDX-License-Identifier: GPL-2.0
/*
 * Exact regions and categories of mappings made for it. The test tracks itself. What is expected is written as pages
 * of the mapping and letters: w written, p present, s swapped, f file, z zero page, h huge, u untracked, S shared.
 */
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <linux/kernel-page-flags.h>
#include <linux/userfaultfd.h>

#include "guest.h"

static int tracker;
static uint64_t generation;

struct mapping {
	char *start;
	size_t pages;
};

static struct mapping map_at(char *start, size_t pages, int flags, int fd)
{
	struct mapping map = { start, pages };

	require(mmap(start, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == start);
	require(madvise(start, pages * PAGE, MADV_NOHUGEPAGE) == 0);
	return map;
}

/* Far from everything else and not aligned like a table. */
static struct mapping map_anon(size_t pages)
{
	return map_at((char *)0x300000000000ul + PAGE, pages, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void unmap(struct mapping map)
{
	require(munmap(map.start, map.pages * PAGE) == 0);
}

static void write_page(struct mapping map, size_t page)
{
	static char value;

	/* A read first would map the huge zero page, which a write splits. */
	*(volatile char *)(map.start + page * PAGE + 99) = ++value;
}

static void read_page(struct mapping map, size_t page)
{
	(void)*(volatile char *)(map.start + page * PAGE + 99);
}

static char *letters(uint32_t categories)
{
	static const char names[] = "wpsfzhuS";
	static char text[9];
	size_t length = 0;

	for (int bit = 0; names[bit]; bit++)
		if (categories >> bit & 1)
			text[length++] = names[bit];
	text[length] = 0;
	return text;
}

static struct ckpt_collect collect_into(struct mapping map, uint32_t flags, struct ckpt_region *vec, uint64_t vec_len)
{
	struct ckpt_collect collect = {
		.size = sizeof(collect), .flags = flags, .start = (uintptr_t)map.start,
		.end = (uintptr_t)map.start + map.pages * PAGE, .vec = (uintptr_t)vec, .vec_len = vec_len,
	};

	require(ioctl(tracker, CKPT_IOC_COLLECT, &collect) == 0);
	require(collect.out_count <= vec_len);
	generation = collect.out_generation;
	return collect;
}

/* Whole page tables: parts of one are reported more often than they are written, see the manual. */
static struct mapping tables_of(struct mapping map)
{
	uintptr_t start = (uintptr_t)map.start & -HUGE_BYTES;
	uintptr_t end = ((uintptr_t)map.start + map.pages * PAGE + HUGE_BYTES - 1) & -HUGE_BYTES;

	return (struct mapping){ (char *)start, (end - start) / PAGE };
}

static void expect_at(int line, struct mapping map, uint32_t flags, const char *wanted)
{
	static struct ckpt_region vec[1024];
	struct ckpt_collect collect = collect_into(tables_of(map), flags, vec, 1024);
	char text[8192] = "";
	const uint64_t base = (uintptr_t)map.start;
	size_t length = 0;

	if (collect.out_walk_end != collect.end)
		fail("line %d: stopped at %#llx", line, collect.out_walk_end);
	for (size_t i = 0; i < collect.out_count; i++)
		length += snprintf(text + length, sizeof(text) - length, "%s%lld-%lld %s", i ? ", " : "",
				   (long long)(vec[i].start - base) / (long)PAGE, (long long)(vec[i].end - base) / (long)PAGE,
				   letters(vec[i].categories));
	if (strcmp(text, wanted))
		fail("line %d: got \"%s\", not \"%s\"", line, text, wanted);
}

#define expect_written(map, wanted) expect_at(__LINE__, map, 0, wanted)
#define expect_present(map, wanted) expect_at(__LINE__, map, CKPT_COLLECT_PRESENT, wanted)

static void expect_count(struct mapping map, size_t count)
{
	static struct ckpt_region vec[1024];

	require(collect_into(tables_of(map), 0, vec, 1024).out_count == count);
}

static void anonymous(void)
{
	struct mapping map = map_anon(16);

	expect_present(map, "");
	write_page(map, 1);
	write_page(map, 2);
	read_page(map, 4);
	write_page(map, 6);
	expect_present(map, "1-3 wp, 4-5 pz, 6-7 wp");
	expect_present(map, "1-3 p, 4-5 pz, 6-7 p");
	expect_written(map, "");
	write_page(map, 2);
	write_page(map, 4);
	expect_written(map, "2-3 wp, 4-5 wp");
	expect_written(map, "");
	require(madvise(map.start + PAGE, PAGE, MADV_DONTNEED) == 0);
	expect_present(map, "2-3 p, 4-5 p, 6-7 p");
	unmap(map);
	expect_present(map, "");
}

static bool file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return written;
}

static uint64_t file_number(const char *path, off_t offset)
{
	int fd = open(path, O_RDONLY);
	uint64_t number;

	require(pread(fd, &number, sizeof(number), offset) == sizeof(number));
	close(fd);
	return number;
}

static void map_eight(char *start, int protection)
{
	require(mmap(start, 8 * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == start);
}

/* Whether the mapping that begins there has VM_SOFTDIRTY. */
static bool has_flag(const char *start)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool here = false, found = false;
	char line[512], *dash;

	require(smaps);
	while (!found && fgets(line, sizeof(line), smaps)) {
		uintptr_t address = strtoul(line, &dash, 16);

		if (*dash == '-' && dash > line)
			here = address == (uintptr_t)start;
		found = here && !strncmp(line, "VmFlags:", 8);
	}
	fclose(smaps);
	require(found);
	return strstr(line, " sd");
}

/* Growing by new pages gives a mapping the flag of hole 1; merging with one that has become alike may take it away. */
static bool flag_survives(void)
{
	struct mapping map = map_anon(24);
	bool survives;

	require(munmap(map.start, 24 * PAGE) == 0);
	map_eight(map.start + 8 * PAGE, PROT_READ | PROT_WRITE);
	map_eight(map.start + 16 * PAGE, PROT_READ);
	expect_written(map, "");
	map_eight(map.start, PROT_READ | PROT_WRITE);
	require(has_flag(map.start));
	require(mprotect(map.start + 16 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
	survives = has_flag(map.start);
	unmap(map);
	return survives;
}

static int kernel_major(void)
{
	struct utsname name;
	int major;

	require(uname(&name) == 0 && sscanf(name.release, "%d.", &major) == 1);
	return major;
}

/* On old kernels memory that may not be written stays reported, see CKPT_FORCED_WRITES_RACE. */
static bool arms_read_only(void)
{
	return kernel_major() >= 6;
}

/* See CKPT_SOFT_DIRTY_GETS_LOST: old kernels give nothing without a fault, so there the flag does not matter. */
static bool flag_counts(void)
{
	return flag_survives() || kernel_major() < 6;
}

static void protection(void)
{
	const bool counts = flag_counts();
	struct mapping map = map_anon(16);

	write_page(map, 0);
	write_page(map, 8);
	expect_written(map, "0-1 wp, 8-9 wp");
	require(mprotect(map.start, 8 * PAGE, PROT_NONE) == 0);
	expect_present(map, counts ? "0-1 p, 8-9 p" : "0-1 wp, 8-9 wp");
	require(mprotect(map.start, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
	expect_written(map, counts ? "" : "0-1 wp, 8-9 wp");
	expect_written(map, "");
	write_page(map, 0);
	require(mprotect(map.start, 8 * PAGE, PROT_READ) == 0);
	expect_written(map, counts ? "0-1 wp" : "0-1 wp, 8-9 wp");
	unmap(map);
}

/* Pages that are written and armed where nothing is permitted: their entries hold the frame's number inverted. */
static void forbidden(void)
{
	const bool counts = flag_counts();
	struct mapping map = map_anon(16);

	for (size_t page = 0; page < 16; page++)
		write_page(map, page);
	require(mprotect(map.start, 16 * PAGE, PROT_NONE) == 0);
	expect_present(map, "0-16 wp");
	if (arms_read_only()) {
		expect_present(map, "0-16 p");
	} else {
		expect_present(map, "0-16 wp");
	}
	require(mprotect(map.start, 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
	expect_written(map, arms_read_only() && counts ? "" : "0-16 wp");
	write_page(map, 3);
	expect_written(map, "3-4 wp");
	unmap(map);
}

/* VM_SOFTDIRTY comes back when a VMA grows; what lies in it is then not written. */
static void growing(void)
{
	struct mapping map = map_anon(512), more = map;

	for (size_t page = 0; page < map.pages; page += 2)
		write_page(map, page);
	expect_count(map, 256);
	more = map_at(map.start + map.pages * PAGE, 512, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_page(more, 3);
	more.start = map.start;
	more.pages = 1024;
	expect_written(more, "515-516 wp");
	write_page(more, 2);
	more.pages = 1536;
	map_at(map.start + 1024 * PAGE, 512, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	expect_written(more, "2-3 wp");
	unmap(more);
}

static bool reports(struct mapping map, size_t page)
{
	static struct ckpt_region vec[1024];
	struct ckpt_collect collect = collect_into(tables_of(map), 0, vec, 1024);
	const uint64_t address = (uintptr_t)map.start + page * PAGE;

	for (size_t i = 0; i < collect.out_count; i++)
		if (vec[i].start <= address && address < vec[i].end)
			return true;
	return false;
}

/* Does nothing without swap. */
static void swap_out_and_in(struct mapping map)
{
	require(madvise(map.start, map.pages * PAGE, MADV_PAGEOUT) == 0);
	for (size_t page = 0; page < map.pages; page++)
		read_page(map, page);
}

/*
 * In a VMA that grew, mprotect() gives write permission back without a fault, so a write leaves no soft-dirty bit: only
 * the permission tells, and after it was taken away again, nothing.
 */
static void written_without_fault(void)
{
	struct mapping map = map_anon(512);
	size_t bytes = map.pages * PAGE;
	pid_t pid;

	for (size_t page = 0; page < map.pages; page++)
		write_page(map, page);
	for (int round = 0; round < 4; round++) {
		require(reports(map, 5) || round);
		require(!reports(map, 5));
		map_at(map.start + (1 + round) * bytes, 512, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		require(mprotect(map.start, bytes, PROT_READ) == 0);
		require(mprotect(map.start, bytes, PROT_READ | PROT_WRITE) == 0);
		write_page(map, 5);
		pid = round == 2 ? fork() : 0;
		if (round == 2 && !pid)
			_exit(0);
		if (round == 1)
			require(mprotect(map.start, bytes, PROT_READ) == 0);
		if (round == 3)
			swap_out_and_in(map);
		require(reports(map, 5));
		require(round != 2 || waitpid(pid, NULL, 0) == pid);
		require(mprotect(map.start, bytes, PROT_READ | PROT_WRITE) == 0);
	}
	require(munmap(map.start, 5 * bytes) == 0);
}

static void private_file(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	struct mapping map = map_at((char *)0x310000000000ul, 2, MAP_PRIVATE, fd);

	read_page(map, 0);
	write_page(map, 1);
	expect_present(map, "0-1 pf, 1-2 wp");
	expect_present(map, "0-1 pf, 1-2 p");
	write_page(map, 0);
	expect_written(map, "0-1 wp");
	close(fd);
	unmap(map);
}

static void shared(void)
{
	struct mapping map = map_at((char *)0x310000000000ul, 8, MAP_SHARED | MAP_ANONYMOUS, -1);

	write_page(map, 1);
	expect_written(map, "");
	expect_present(map, "0-8 S");
	unmap(map);
}

static bool is_huge(struct mapping map)
{
	struct ckpt_region region = {};

	collect_into(tables_of(map), CKPT_COLLECT_PRESENT, &region, 1);
	return region.categories & CKPT_PAGE_HUGE;
}

static void transparent_huge(void)
{
	struct mapping map = map_at((char *)0x320000000000ul, 1024, MAP_PRIVATE | MAP_ANONYMOUS, -1), half = map;

	require(madvise(map.start, map.pages * PAGE, MADV_HUGEPAGE) == 0);
	write_page(map, 0);
	if (!is_huge(map)) {
		puts("no huge page was given: transparent_huge skipped");
		unmap(map);
		return;
	}
	expect_present(map, "0-512 ph");
	write_page(map, 700);
	write_page(map, 7);
	expect_written(map, "0-1024 wph");
	expect_written(map, "");
	/* Asked for in parts it is reported, but only the whole is armed. */
	write_page(map, 7);
	half.pages = 256;
	for (int i = 0; i < 2; i++) {
		struct ckpt_region vec[2];
		struct ckpt_collect collect = collect_into(half, 0, vec, 2);

		require(collect.out_count == 1 && vec[0].end - vec[0].start == 256 * PAGE);
		require(vec[0].categories == (CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT | CKPT_PAGE_HUGE));
	}
	expect_written(map, "0-512 wph");
	expect_written(map, "");
	/* Split: the kernel made a new table, of which nothing is known. */
	require(madvise(map.start + PAGE, PAGE, MADV_DONTNEED) == 0);
	expect_written(map, "0-1 wp, 2-512 wp");
	expect_written(map, "");
	unmap(map);
}

static void moved_table(void)
{
	struct mapping map = map_at((char *)0x320000000000ul, 1024, MAP_PRIVATE | MAP_ANONYMOUS, -1), to = map;

	write_page(map, 5);
	write_page(map, 600);
	expect_written(map, "5-6 wp, 600-601 wp");
	to.start += 64 * HUGE_BYTES;
	require(mremap(map.start, map.pages * PAGE, map.pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to.start) == to.start);
	expect_present(map, "");
	expect_written(to, "5-6 wp, 600-601 wp");
	expect_written(to, "");
	/* There and back again, without a look in between: nothing happened. */
	require(mremap(to.start, to.pages * PAGE, to.pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map.start) == map.start);
	expect_written(map, "5-6 wp, 600-601 wp");
	/* The same with a look at the other place only: what was written there was reported there. */
	expect_written(map, "");
	require(mremap(map.start, map.pages * PAGE, map.pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to.start) == to.start);
	write_page(to, 6);
	expect_written(to, "5-7 wp, 600-601 wp");
	require(mremap(to.start, to.pages * PAGE, to.pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map.start) == map.start);
	expect_written(map, "5-7 wp, 600-601 wp");
	expect_written(map, "");
	unmap(map);
}

static void huge_table_fs(void)
{
	char *start = (char *)0x330000000000ul;
	struct mapping map = { start, 1024 };
	int fd = open("/proc/sys/vm/nr_hugepages", O_WRONLY);

	if (fd < 0 || write(fd, "2", 1) != 1)
		fd = -1;
	if (fd < 0 || mmap(start, map.pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
			   MAP_FIXED, -1, 0) != start) {
		puts("no hugetlb pages: huge_table_fs skipped");
		return;
	}
	expect_written(map, "");
	write_page(map, 0);
	expect_written(map, "0-512 wphu");
	expect_written(map, "0-512 wphu");
	unmap(map);
	require(write(fd, "0", 1) == 1);
	close(fd);
}

static void user_fault(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct mapping map = map_anon(8);
	struct uffdio_register range = { { (uintptr_t)map.start, map.pages * PAGE }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0) {
		puts("no userfaultfd: user_fault skipped");
		return;
	}
	write_page(map, 1);
	expect_written(map, "1-2 wp");
	require(ioctl(fd, UFFDIO_API, &api) == 0);
	require(ioctl(fd, UFFDIO_REGISTER, &range) == 0);
	expect_written(map, "1-2 wpu");
	expect_written(map, "1-2 wpu");
	close(fd);
	expect_written(map, "1-2 wp");
	expect_written(map, "");
	unmap(map);
}

/* A page in a pipe has a reference that could be I/O. Collecting must not part the page from it. */
static void referenced(void)
{
	struct mapping map = map_anon(8);
	struct iovec iov = { map.start + 2 * PAGE, PAGE };
	char drain[PAGE];
	int pipes[2];

	require(pipe(pipes) == 0);
	write_page(map, 2);
	require(vmsplice(pipes[1], &iov, 1, 0) == PAGE);
	expect_written(map, "2-3 wp");
	expect_written(map, "2-3 wp");
	write_page(map, 2);
	require(read(pipes[0], drain, PAGE) == PAGE);
	require(memcmp(drain, map.start + 2 * PAGE, PAGE) == 0);
	expect_written(map, "2-3 wp");
	expect_written(map, "");
	close(pipes[0]);
	close(pipes[1]);
	unmap(map);
}

static void after_fork(void)
{
	struct mapping map = map_anon(8);
	int go = eventfd(0, 0);
	uint64_t one = 1;
	pid_t pid;

	write_page(map, 1);
	write_page(map, 2);
	expect_written(map, "1-3 wp");
	pid = fork();
	require(pid >= 0);
	if (!pid) {
		write_page(map, 2);
		_exit(read(go, &one, sizeof(one)) != sizeof(one));
	}
	expect_written(map, "");
	write_page(map, 1);
	expect_written(map, "1-2 wp");
	require(write(go, &one, sizeof(one)) == sizeof(one));
	require(waitpid(pid, NULL, 0) == pid);
	expect_written(map, "");
	close(go);
	unmap(map);
}

/* The kernel may hold on to a page for a while. */
static void page_out(struct mapping map, size_t page)
{
	const uintptr_t address = (uintptr_t)map.start + page * PAGE;
	int tries = 1000;

	do
		require(madvise(map.start, map.pages * PAGE, MADV_PAGEOUT) == 0 && --tries);
	while (!(file_number("/proc/self/pagemap", address / PAGE * 8) >> 62 & 1));
}

/* Old pages, and a mapping behind them that merges with them when it becomes writable. */
static struct mapping map_mergeable(struct mapping map)
{
	struct mapping old = { map.start + 8 * PAGE, 8 };

	require(munmap(map.start, 24 * PAGE) == 0);
	map_eight(old.start, PROT_READ | PROT_WRITE);
	map_eight(old.start + 8 * PAGE, PROT_READ);
	write_page(old, 3);
	expect_written(map, "11-12 wp");
	return old;
}

static void page_protect(struct mapping map, size_t page, int protection)
{
	require(mprotect(map.start + page * PAGE, PAGE, protection) == 0);
}

/* Meanwhile a page was swapped in by reading, and written without a fault, and swapped out. */
static void swapped_flag_lost(void)
{
	struct mapping map = map_anon(24);
	struct mapping old = map_mergeable(map);

	page_out(old, 3);
	map_eight(map.start, PROT_READ | PROT_WRITE);
	read_page(old, 3);
	write_page(old, 3);
	require(mprotect(old.start + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
	page_out(old, 3);
	expect_written(map, "11-12 ws");
	unmap(map);
}

/* See hole 1 in walk.c: permission that was given without a fault is used, and taken away again. */
static void protected_flag_lost(void)
{
	struct mapping map = map_anon(24);
	struct mapping old = map_mergeable(map);

	map_eight(map.start, PROT_READ | PROT_WRITE);
	page_protect(old, 3, PROT_READ);
	page_protect(old, 3, PROT_READ | PROT_WRITE);
	write_page(old, 3);
	require(mprotect(old.start + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
	page_protect(old, 3, PROT_READ);
	page_protect(old, 3, PROT_READ | PROT_WRITE);
	expect_written(map, "11-12 wp");
	unmap(map);
}

/* Given by a swap-in for reading, and taken away by fork. */
static void forked_flag_lost(void)
{
	struct mapping map = map_anon(24);
	struct mapping old = map_mergeable(map);
	pid_t pid;

	page_out(old, 3);
	map_eight(map.start, PROT_READ | PROT_WRITE);
	read_page(old, 3);
	write_page(old, 3);
	require(mprotect(old.start + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
	pid = fork();
	if (!pid)
		_exit(0);
	require(waitpid(pid, NULL, 0) == pid);
	expect_written(map, "11-12 wp");
	unmap(map);
}

static void swapped(void)
{
	const bool counts = flag_counts();
	struct mapping map = map_anon(8);
	struct ckpt_region region = {};

	write_page(map, 3);
	require(madvise(map.start, map.pages * PAGE, MADV_PAGEOUT) == 0);
	collect_into(tables_of(map), CKPT_COLLECT_PRESENT, &region, 1);
	if (!(region.categories & CKPT_PAGE_SWAPPED)) {
		puts("nothing was swapped: swapped skipped");
		unmap(map);
		return;
	}
	require(region.categories == (CKPT_PAGE_SWAPPED | CKPT_PAGE_WRITTEN));
	/* See hole 5 in walk.c. */
	expect_present(map, counts ? "3-4 s" : "3-4 ws");
	read_page(map, 3);
	expect_present(map, "3-4 wp");
	/* The kernel may hold on to it for a while. */
	for (int tries = 1000; reports(map, 3) && tries; tries--)
		sched_yield();
	expect_present(map, "3-4 p");
	write_page(map, 3);
	expect_written(map, "3-4 wp");
	unmap(map);
	swapped_flag_lost();
	forked_flag_lost();
}

/* A KPF_* flag of the page in memory there. */
static bool page_is(struct mapping map, size_t page, int flag)
{
	uint64_t entry = file_number("/proc/self/pagemap", ((uintptr_t)map.start / PAGE + page) * 8);

	return entry >> 63 && file_number("/proc/kpageflags", (entry & ((1ull << 55) - 1)) * 8) >> flag & 1;
}

#define KSM "/sys/kernel/mm/ksm/"

/* KSM replaces pages and forgets the soft-dirty bit. */
static void merged(void)
{
	struct mapping map = map_anon(8);
	struct ckpt_region vec[16];

	write_page(map, 1);
	write_page(map, 2);
	expect_written(map, "1-3 wp");
	memset(map.start + PAGE, 42, 2 * PAGE);
	require(madvise(map.start, map.pages * PAGE, MADV_MERGEABLE) == 0);
	require(file_write(KSM "sleep_millisecs", "1") && file_write(KSM "pages_to_scan", "10000"));
	require(file_write(KSM "run", "1"));
	while (!page_is(map, 1, KPF_KSM) || !page_is(map, 2, KPF_KSM))
		usleep(1000);
	require(file_write(KSM "run", "0"));
	expect_written(map, "1-3 wp");
	expect_written(map, "");
	write_page(map, 1);
	expect_written(map, "1-2 wp");
	/* What is copied again may be reported or not: its content stays. */
	require(madvise(map.start, map.pages * PAGE, MADV_UNMERGEABLE) == 0);
	collect_into(tables_of(map), 0, vec, 16);
	expect_written(map, "");
	write_page(map, 2);
	expect_written(map, "2-3 wp");
	unmap(map);
}

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define THP_SMALL THP "hugepages-64kB/"

static unsigned long khugepaged_scans(void)
{
	FILE *file = fopen(THP "khugepaged/full_scans", "r");
	unsigned long scans;

	require(fscanf(file, "%lu", &scans) == 1);
	fclose(file);
	return scans;
}

/* So does khugepaged, in memory that is read-only, where it makes huge pages smaller than a table. */
static void collapsed_small(void)
{
	struct mapping map = map_at((char *)0x320000000000ul, 512, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	unsigned long scans;

	for (size_t page = 0; page < map.pages; page++)
		write_page(map, page);
	expect_written(map, "0-512 wp");
	write_page(map, 5);
	require(mprotect(map.start, map.pages * PAGE, PROT_READ) == 0);
	require(file_write(THP "khugepaged/scan_sleep_millisecs", "1"));
	if (access(THP_SMALL "stats/collapse_alloc", F_OK) || !file_write(THP "hugepages-2048kB/enabled", "never") ||
	    !file_write(THP_SMALL "enabled", "always"))
		puts("khugepaged makes no small huge pages: collapsed_small skipped");
	require(madvise(map.start, map.pages * PAGE, MADV_HUGEPAGE) == 0);
	scans = khugepaged_scans();
	while (!page_is(map, 5, KPF_COMPOUND_TAIL) && khugepaged_scans() < scans + 3)
		usleep(1000);
	require(reports(map, 5));
	file_write(THP_SMALL "enabled", "inherit");
	file_write(THP "hugepages-2048kB/enabled", "inherit");
	unmap(map);
}

/* Each region is reported once, in order, however small the vector is; a part that was not reported is not armed. */
static void small_vector(void)
{
	struct mapping map = map_anon(1200);
	const size_t step = 3;

	for (uint64_t vec_len = 1; vec_len < 9; vec_len++) {
		struct mapping rest = tables_of(map);
		size_t next = 0;

		for (size_t page = 0; page < map.pages; page += step)
			write_page(map, page);
		while (rest.pages) {
			struct ckpt_region vec[8];
			struct ckpt_collect collect = collect_into(rest, 0, vec, vec_len);

			for (size_t i = 0; i < collect.out_count; i++, next += step)
				require(vec[i].start == (uintptr_t)map.start + next * PAGE && vec[i].end == vec[i].start + PAGE);
			require(collect.out_walk_end > collect.start);
			rest.pages = (collect.end - collect.out_walk_end) / PAGE;
			rest.start = (char *)collect.out_walk_end;
		}
		require(next == map.pages);
		expect_written(map, "");
	}
	unmap(map);
}

static void whole_address_space(void)
{
	static struct ckpt_region vec[4096];
	struct ckpt_collect collect = {
		.size = sizeof(collect), .flags = CKPT_COLLECT_PRESENT, .end = -PAGE, .vec = (uintptr_t)vec, .vec_len = 4096,
	};
	bool stack = false;

	require(ioctl(tracker, CKPT_IOC_COLLECT, &collect) == 0);
	require(collect.out_walk_end == collect.end);
	for (size_t i = 0; i < collect.out_count; i++) {
		require(!i || vec[i - 1].end <= vec[i].start);
		stack |= vec[i].start <= (uintptr_t)&stack && (uintptr_t)&stack < vec[i].end;
	}
	require(stack);
}

/* What was armed and then could not be copied out is reported again. */
static void bad_vector(void)
{
	struct mapping map = map_anon(8);
	struct ckpt_collect collect = { .size = sizeof(collect), .start = (uintptr_t)map.start,
		.end = (uintptr_t)map.start + 8 * PAGE, .vec = 16, .vec_len = 8 };
	uint64_t before;

	write_page(map, 1);
	expect_written(map, "1-2 wp");
	before = generation;
	write_page(map, 5);
	require_error(EFAULT, ioctl(tracker, CKPT_IOC_COLLECT, &collect));
	expect_written(map, "1-2 wp, 5-6 wp");
	require(generation != before);
	unmap(map);
}

int main(void)
{
	tracker = tracker_of(getpid());
	anonymous();
	protection();
	forbidden();
	growing();
	written_without_fault();
	private_file();
	shared();
	transparent_huge();
	moved_table();
	huge_table_fs();
	user_fault();
	referenced();
	after_fork();
	protected_flag_lost();
	swapped();
	merged();
	collapsed_small();
	small_vector();
	whole_address_space();
	bad_vector();
	puts("regions: all as expected");
	return 0;
}
