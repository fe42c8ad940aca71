// SPDX-License-Identifier: GPL-2.0
/* The kinds of memory. */
#include <sys/auxv.h>
#include <sys/shm.h>

#include "matrix.h"

#define PAGEMAP_FRAME ((1ull << 55) - 1)
#define PAGEMAP_SWAPPED (1ul << 62)

static void page_write(const struct area *area, size_t page)
{
	static uint64_t value;

	((volatile uint64_t *)(area->start + page * PAGE))[page % 500] = 0x100000 + ++value;
}

static bool page_gone(const struct area *area, size_t page)
{
	return page >= area->gone_start && page < area->gone_end;
}

/* Both sides of what is not mapped any more. */
static void none_protect(const struct area *area, int protection)
{
	size_t first = area->gone_end ? area->gone_start : area->pages;

	if (area->kind != MEMORY_NONE)
		return;
	require(mprotect(area->start, first * PAGE, protection) == 0);
	if (area->gone_end)
		require(mprotect(area->start + area->gone_end * PAGE, (area->pages - area->gone_end) * PAGE, protection) == 0);
}

void area_open(const struct area *area)
{
	none_protect(area, PROT_READ | PROT_WRITE);
}

void area_shut(const struct area *area)
{
	none_protect(area, PROT_NONE);
}

void area_write(const struct area *area, size_t page)
{
	if (area->kind == MEMORY_VDSO || page_gone(area, page))
		return;
	area_open(area);
	page_write(area, page);
	area_shut(area);
}

void area_read(const struct area *area)
{
	area_open(area);
	for (size_t page = 0; page < area->pages; page++)
		if (!page_gone(area, page))
			(void)((volatile char *)area->start)[page * PAGE];
	area_shut(area);
}

void area_write_some(const struct area *area)
{
	const size_t last = area->pages - 1;
	const size_t some[] = { 0, 1, AREA_EDGE_PAGES, 20, area->pages / 2, area->pages / 2 + 3, last };

	for (size_t i = 0; i < sizeof(some) / sizeof(*some); i++)
		area_write(area, some[i]);
}

/* Each eighth page, and those at the edges. */
static void area_fill(const struct area *area)
{
	for (size_t page = 0; page < area->pages; page++)
		if (page % 8 == 0 || page < 2 * AREA_EDGE_PAGES || page >= area->pages - 2 * AREA_EDGE_PAGES)
			page_write(area, page);
}

static void area_map(struct area *area, int flags, int fd)
{
	area->start = AREA_START;
	area->pages = AREA_PAGES;
	require(mmap(area->start, area->pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == area->start);
	/* Else the huge page setting of the node decides. */
	require(madvise(area->start, area->pages * PAGE, MADV_NOHUGEPAGE) == 0);
	area_fill(area);
	if (fd >= 0)
		close(fd);
}

static const char *make_anon(struct area *area)
{
	area_map(area, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	return NULL;
}

static uint64_t page_entry(const char *address)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	require(pread(pagemap, &entry, sizeof(entry), (uintptr_t)address / PAGE * sizeof(entry)) == sizeof(entry));
	close(pagemap);
	return entry;
}

static uint64_t page_frame(const char *address)
{
	return page_entry(address) & PAGEMAP_FRAME;
}

static const char *make_thp(struct area *area)
{
	char *table = AREA_START + AREA_EDGE_PAGES * PAGE;

	area_map(area, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	require(munmap(area->start, area->pages * PAGE) == 0);
	require(mmap(area->start, area->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0) == area->start);
	require(madvise(area->start, area->pages * PAGE, MADV_HUGEPAGE) == 0);
	area_fill(area);
	for (int i = 0; i < AREA_TABLES; i++, table += HUGE_BYTES)
		if (page_frame(table) % 512 || page_frame(table + HUGE_BYTES - PAGE) != page_frame(table) + 511)
			return "the node gave no huge page";
	return NULL;
}

static int tmpfs_file(size_t bytes)
{
	char path[] = "/dev/shm/matrix.XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	require(fd >= 0 && unlink(path) == 0);
	require(ftruncate(fd, bytes) == 0);
	for (size_t at = 0; at < bytes; at += 64 * PAGE)
		require(pwrite(fd, path, sizeof(path), at) == sizeof(path));
	return fd;
}

static const char *make_file_tmpfs(struct area *area)
{
	area_map(area, MAP_PRIVATE, tmpfs_file((AREA_PAGES + 512) * PAGE));
	return NULL;
}

/* The guest's root is ext4, below an overlay. */
static const char *make_file_ext4(struct area *area)
{
	int fd = open("/usr/bin/python3", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || lseek(fd, 0, SEEK_END) < (off_t)((AREA_PAGES + 64) * PAGE))
		return "there is no big file";
	area_map(area, MAP_PRIVATE, fd);
	return NULL;
}

static const char *make_swapped(struct area *area)
{
	area_map(area, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	require(madvise(area->start, area->pages * PAGE, MADV_PAGEOUT) == 0);
	for (size_t page = 0; page < area->pages; page += 8)
		if (page_entry(area->start + page * PAGE) & PAGEMAP_SWAPPED)
			return NULL;
	return "the node has no swap";
}

static const char *make_hugetlb(struct area *area)
{
	area->start = AREA_START + AREA_EDGE_PAGES * PAGE;
	area->pages = AREA_TABLES * HUGE_BYTES / PAGE;
	area->unit = HUGE_BYTES / PAGE;
	if (mmap(area->start, area->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
		 MAP_FIXED, -1, 0) != area->start)
		return "the node has no huge pages set aside";
	area_fill(area);
	return NULL;
}

/* Far below of what the job's functions use. */
static const char *make_stack(struct area *area)
{
	char *here = __builtin_frame_address(0);

	area->start = (char *)((uintptr_t)here & -PAGE) - 128 * PAGE;
	area->pages = STACK_PAGES;
	for (char *at = here; at > area->start; at -= PAGE)
		*(volatile char *)at = *(volatile char *)at;
	area_fill(area);
	return NULL;
}

/* Aligned as the other areas are. */
static const char *make_heap(struct area *area)
{
	const size_t edge = AREA_EDGE_PAGES * PAGE;
	char *end = sbrk(0);

	require(sbrk(AREA_PAGES * PAGE + HUGE_BYTES) == end);
	area->start = (char *)(((uintptr_t)end + edge + HUGE_BYTES - 1) & -HUGE_BYTES) - edge;
	area->pages = AREA_PAGES;
	require(madvise(area->start, area->pages * PAGE, MADV_NOHUGEPAGE) == 0);
	area_fill(area);
	return NULL;
}

/* Kernels from 6.12 on can refuse what the oracle does; see read_forbidden() in reader.c. */
static const char *make_none(struct area *area)
{
	int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	char byte;
	bool read;

	area_map(area, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	area_shut(area);
	read = pread(memory, &byte, 1, (uintptr_t)area->start) == 1;
	close(memory);
	return read ? NULL : "the kernel lets nobody read PROT_NONE memory from outside";
}

static const char *make_vdso(struct area *area)
{
	area->start = (char *)getauxval(AT_SYSINFO_EHDR);
	area->pages = 1;
	return area->start ? NULL : "there is no vdso";
}

static const char *make_shared_anon(struct area *area)
{
	area_map(area, MAP_SHARED | MAP_ANONYMOUS, -1);
	return NULL;
}

static const char *make_memfd(struct area *area)
{
	int fd = memfd_create("matrix", MFD_CLOEXEC);

	require(fd >= 0 && ftruncate(fd, (AREA_PAGES + 512) * PAGE) == 0);
	area_map(area, MAP_SHARED, fd);
	return NULL;
}

static const char *make_tmpfs(struct area *area)
{
	area_map(area, MAP_SHARED, tmpfs_file((AREA_PAGES + 512) * PAGE));
	return NULL;
}

static const char *make_sysv(struct area *area)
{
	int id = shmget(IPC_PRIVATE, AREA_PAGES * PAGE, IPC_CREAT | 0600);

	area->start = AREA_START;
	area->pages = AREA_PAGES;
	require(id >= 0 && shmat(id, area->start, 0) == area->start);
	require(shmctl(id, IPC_RMID, NULL) == 0);
	area_fill(area);
	return NULL;
}

const struct memory memories[MEMORY_KINDS] = {
	[MEMORY_ANON] = { "anonymous", make_anon },
	[MEMORY_THP] = { "huge", make_thp },
	[MEMORY_FILE_TMPFS] = { "private-tmpfs", make_file_tmpfs },
	[MEMORY_FILE_EXT4] = { "private-ext4", make_file_ext4 },
	[MEMORY_SWAPPED] = { "swapped", make_swapped },
	[MEMORY_HUGETLB] = { "hugetlb", make_hugetlb },
	[MEMORY_STACK] = { "stack", make_stack },
	[MEMORY_HEAP] = { "heap", make_heap },
	[MEMORY_NONE] = { "prot-none", make_none },
	[MEMORY_VDSO] = { "vdso", make_vdso },
	[MEMORY_SHARED_ANON] = { "shared-anonymous", make_shared_anon },
	[MEMORY_MEMFD] = { "memfd", make_memfd },
	[MEMORY_TMPFS] = { "shared-tmpfs", make_tmpfs },
	[MEMORY_SYSV] = { "sysv", make_sysv },
};
