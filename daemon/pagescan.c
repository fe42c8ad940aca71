// SPDX-License-Identifier: GPL-2.0
#include "pagescan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/ckpt.h>
#include <linux/kernel-page-flags.h>

#include "cleanup.h"
#include "faults.h"
#include "pagemap_scan.h"

#define READ_ENTRIES		4096
#define VEC_REGIONS		1024

static bool is_alive(int pagemap)
{
	uint64_t entry;

	return pread(pagemap, &entry, sizeof(entry), 0) == sizeof(entry);
}

int pagescan_open(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	/*
	 * Of a process without memory (a zombie) kernels give a file, and those before 6.15 crash in PAGEMAP_SCAN on it;
	 * reading tells.
	 */
	if (!is_alive(fd)) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

/* ---- by reading ---- */

static uint64_t zero_frame;	/* where the kernel's zero page is; 0: the page map does not show us frames */

static void zero_frame_find(void)
{
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cleanup_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	if (page == MAP_FAILED)
		return;
	(void)*page;
	if (pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(entry))) == sizeof(entry))
		zero_frame = entry & PAGEMAP_FRAME;
	munmap((void *)page, PAGE_BYTES);
}

static bool is_zero_page(uint64_t entry)
{
	return entry & PAGEMAP_PRESENT && zero_frame && (entry & PAGEMAP_FRAME) == zero_frame;
}

static uint32_t entry_categories(uint64_t entry, enum pagescan what)
{
	if (is_zero_page(entry) || entry & PAGEMAP_FILE || (what == PAGESCAN_SOFT_DIRTY && !(entry & PAGEMAP_SOFT_DIRTY)))
		return 0;
	if (entry & PAGEMAP_PRESENT)
		return CKPT_PAGE_PRESENT;
	return entry & PAGEMAP_SWAPPED ? CKPT_PAGE_SWAPPED : 0;
}

static int scan_by_reading(int pagemap, enum pagescan what, uint64_t start, uint64_t end, uint32_t categories,
			   struct regions *regions)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint64_t entries[READ_ENTRIES];
	uint32_t there;
	ssize_t bytes;
	int err = pthread_once(&once, zero_frame_find);

	while (!err && start < end) {
		size_t pages = (end - start) / PAGE_BYTES;

		if (pages > READ_ENTRIES)
			pages = READ_ENTRIES;
		bytes = pread(pagemap, entries, pages * sizeof(*entries), start / PAGE_BYTES * sizeof(*entries));
		if (bytes <= 0)
			return bytes ? -errno : -ESRCH;
		for (size_t i = 0; !err && i < bytes / sizeof(*entries); i++, start += PAGE_BYTES) {
			there = entry_categories(entries[i], what);
			if (there)
				err = regions_add(regions, start, start + PAGE_BYTES, there | categories);
		}
	}
	return err;
}

/* ---- by ioctl ---- */

static struct pm_scan_arg scan_argument(enum pagescan what)
{
	struct pm_scan_arg argument = {
		.size = sizeof(argument),
		.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};

	if (what == PAGESCAN_SOFT_DIRTY)
		argument.category_mask |= PAGE_IS_SOFT_DIRTY;
	if (what == PAGESCAN_WRITTEN) {
		argument.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
		argument.category_mask |= PAGE_IS_WRITTEN;
	}
	return argument;
}

static int vec_add_all(struct regions *regions, const struct page_region *vec, long count, uint32_t categories)
{
	int err = 0;

	for (long i = 0; !err && i < count; i++)
		err = regions_add(regions, vec[i].start, vec[i].end, categories |
				  (vec[i].categories & PAGE_IS_PRESENT ? CKPT_PAGE_PRESENT : CKPT_PAGE_SWAPPED));
	return err;
}

/*
 * The kernel looks up 512 regions at a time, and says where it stopped to write those out even if it then went on to
 * the end.  Up to the last region that it tells it has been.
 */
static uint64_t scanned_until(const struct pm_scan_arg *argument, const struct page_region *vec, long count)
{
	return count && vec[count - 1].end > argument->walk_end ? vec[count - 1].end : argument->walk_end;
}

static int scan_by_ioctl(int pagemap, enum pagescan what, uint64_t start, uint64_t end, uint32_t categories,
			 struct regions *regions)
{
	struct pm_scan_arg argument = scan_argument(what);
	struct page_region vec[VEC_REGIONS];
	int err = fault("pagescan.no_ioctl");
	long count;

	while (!err && start < end) {
		argument.start = start;
		argument.end = end;
		argument.vec = (uintptr_t)vec;
		argument.vec_len = VEC_REGIONS;
		count = ioctl(pagemap, PAGEMAP_SCAN, &argument);
		if (count < 0)
			return -errno;
		err = vec_add_all(regions, vec, count, categories);
		start = scanned_until(&argument, vec, count);
	}
	return err;
}

int pagescan(int pagemap, enum pagescan what, uint64_t start, uint64_t end, uint32_t categories,
	     struct regions *regions)
{
	const struct regions_mark mark = regions_mark(regions);
	int err = scan_by_ioctl(pagemap, what, start, end, categories, regions);

	/* ENOTTY, EINVAL: the kernel does not know the ioctl, or this category. EIO: the fault point. */
	if (what != PAGESCAN_WRITTEN && (err == -ENOTTY || err == -EINVAL || err == -EIO)) {
		regions_cut(regions, mark);
		err = scan_by_reading(pagemap, what, start, end, categories, regions);
	}
	if (err)
		regions_cut(regions, mark);
	return err;
}

int pagescan_probe_ioctl(void)
{
	struct pm_scan_arg argument = scan_argument(PAGESCAN_WRITTEN);
	cleanup_close int pagemap = pagescan_open(getpid());
	int err = fault("pagescan.no_ioctl");

	if (pagemap < 0)
		return pagemap;
	/* Nothing lies in the first page, so nothing is asked, but all flags are checked. */
	argument.end = PAGE_BYTES;
	return err ? err : ioctl(pagemap, PAGEMAP_SCAN, &argument) < 0 ? -errno : 0;
}

static int read_entry(int fd, uint64_t index, uint64_t *entry)
{
	ssize_t bytes = pread(fd, entry, sizeof(*entry), (off_t)(index * sizeof(*entry)));

	return bytes == sizeof(*entry) ? 0 : bytes < 0 ? -errno : -EIO;
}

uint64_t pagescan_entry(int pagemap, uint64_t address)
{
	uint64_t entry;

	return read_entry(pagemap, address / PAGE_BYTES, &entry) ? 0 : entry;
}

int pagescan_open_flags(void)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int pagescan_is_zero(int pagemap, int flags, uint64_t address)
{
	uint64_t entry, frame_flags;
	int err = read_entry(pagemap, address / PAGE_BYTES, &entry);

	if (err || !(entry & PAGEMAP_PRESENT))
		return err;
	if (!(entry & PAGEMAP_FRAME))
		return -EPERM;
	err = read_entry(flags, entry & PAGEMAP_FRAME, &frame_flags);
	return err ? err : (int)(frame_flags >> KPF_ZERO_PAGE & 1);
}
