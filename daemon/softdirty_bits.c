// SPDX-License-Identifier: GPL-2.0
#include "softdirty_bits.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "pagescan.h"

/* Three mappings behind each other, of so many bytes each. */
#define MAP_BYTES	((size_t)8 * PAGE_BYTES)

int softdirty_bits_clear(pid_t pid)
{
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return write(fd, "4", 1) == 1 ? 0 : -errno;
}

static bool is_dirty(int pagemap, const volatile char *page)
{
	return pagescan_entry(pagemap, (uintptr_t)page) & PAGEMAP_SOFT_DIRTY;
}

static int map_at(char *start, int protection)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	return mmap(start, MAP_BYTES, protection, flags, -1, 0) == start ? 0 : -errno;
}

/* Is written; cleared; written again? */
static int try_write(int pagemap, volatile char *page)
{
	bool written, cleared;
	int err;

	page[0] = 1;
	written = is_dirty(pagemap, page);
	if (!(pagescan_entry(pagemap, (uintptr_t)page) & PAGEMAP_FRAME))
		return -EPERM;
	err = softdirty_bits_clear(getpid());
	if (err)
		return err;
	cleared = !is_dirty(pagemap, page);
	page[0] = 2;
	return written && cleared && is_dirty(pagemap, page) ? 0 : -EOPNOTSUPP;
}

/*
 * From 6.0 to 6.18 a write may be forgotten. A mapping that has grown counts as written, so the kernel gives its pages
 * write permission without a fault, here by mprotect(), and sets no bit when they are written. When the mapping then
 * merges with another, all of it may count as not written. start: of the three mappings; the second one has the page.
 */
static int try_merge(int pagemap, char *start)
{
	char *old = start + MAP_BYTES, *behind = old + MAP_BYTES;
	volatile char *page = old + 3 * (size_t)PAGE_BYTES;
	int err;

	if (munmap(start, MAP_BYTES) || mprotect(behind, MAP_BYTES, PROT_READ))
		return -errno;
	page[0] = 3;
	err = softdirty_bits_clear(getpid());
	if (!err)
		err = map_at(start, PROT_READ | PROT_WRITE);
	if (err)
		return err;
	if (mprotect((void *)page, PAGE_BYTES, PROT_READ) || mprotect((void *)page, PAGE_BYTES, PROT_READ | PROT_WRITE))
		return -errno;
	page[0] = 4;
	if (mprotect(behind, MAP_BYTES, PROT_READ | PROT_WRITE))
		return -errno;
	return is_dirty(pagemap, page) ? 0 : -EOPNOTSUPP;
}

/* They are in no huge page and no other's mapping. */
static int try_bits(int pagemap, struct problem *problem)
{
	char *start = mmap(NULL, 5 * MAP_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *inner = start + MAP_BYTES;
	int err = 0;

	if (start == MAP_FAILED)
		return -errno;
	for (size_t i = 0; !err && i < 3; i++)
		err = map_at(inner + i * MAP_BYTES, PROT_READ | PROT_WRITE);
	if (!err)
		err = try_write(pagemap, inner + MAP_BYTES + 3 * (size_t)PAGE_BYTES);
	if (err == -EOPNOTSUPP)
		problem_set(problem, EOPNOTSUPP, "the kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)");
	if (!err) {
		err = try_merge(pagemap, inner);
		if (err == -EOPNOTSUPP)
			problem_set(problem, EOPNOTSUPP, "this kernel may forget that a page was written, when mappings merge "
				    "(6.0 to 6.18)");
	}
	munmap(start, 5 * MAP_BYTES);
	return err;
}

/* One at a time: another thread's clearing clears these bits too. */
static int try_bits_alone(int pagemap, struct problem *problem)
{
	static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
	int err;

	pthread_mutex_lock(&alone);
	err = try_bits(pagemap, problem);
	pthread_mutex_unlock(&alone);
	return err;
}

int softdirty_bits_probe(struct problem *problem)
{
	cleanup_close int pagemap = pagescan_open(getpid());
	int err = pagemap < 0 ? pagemap : try_bits_alone(pagemap, problem);

	if (err == -EOPNOTSUPP)
		return err;
	if (err == -EPERM)
		return problem_set(problem, EPERM, "/proc/PID/pagemap does not show page frames: CAP_SYS_ADMIN is needed");
	return err ? problem_set(problem, -err, "cannot use /proc/PID/pagemap and clear_refs: %s", strerror(-err)) : 0;
}
