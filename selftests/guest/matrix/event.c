// SPDX-License-Identifier: GPL-2.0
/* What happens to memory while it is tracked. */
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>

#include "matrix.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define WAIT_SECONDS 20		/* for what the kernel does in its own time */

#define ONLY_PRIVATE (MEMORY_ALL & ~MEMORY_SHARED & ~MEMORY_BIT(MEMORY_VDSO))
#define ONLY_ANON (MEMORY_BIT(MEMORY_ANON) | MEMORY_BIT(MEMORY_THP) | MEMORY_BIT(MEMORY_SWAPPED) | MEMORY_BIT(MEMORY_HEAP))
#define MAPPED (MEMORY_ALL & ~MEMORY_BIT(MEMORY_VDSO))

static void file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	require(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static char *page_address(const struct area *area, size_t page)
{
	return area->start + page * PAGE;
}

/* The pages from first on, in whole units. */
static char *piece(const struct area *area, size_t first, size_t pages, size_t *bytes)
{
	*bytes = (pages + area->unit - 1) / area->unit * area->unit * PAGE;
	return page_address(area, first / area->unit * area->unit);
}

/* ---- writing and reading ---- */

static const char *event_write(struct area *area)
{
	area_write_some(area);
	return NULL;
}

static const char *event_read(struct area *area)
{
	area_read(area);
	return NULL;
}

/* ---- processes ---- */

static pid_t child_start(void)
{
	pid_t pid = fork();

	require(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static const char *event_fork(struct area *area)
{
	int pipes[2];
	char byte;
	pid_t pid;

	require(pipe(pipes) == 0);
	pid = child_start();
	if (!pid) {
		area_write(area, 0);
		area_write(area, 8);
		require(write(pipes[1], "", 1) == 1);
		for (;;)
			pause();
	}
	job_child(pid);
	area_write_some(area);
	require(read(pipes[0], &byte, 1) == 1);
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

/* What was shared with a child, and is the job's alone again. */
static const char *event_cow(struct area *area)
{
	pid_t pid = child_start();

	if (!pid) {
		area_write(area, 16);
		_exit(0);
	}
	area_write(area, 0);
	require(waitpid(pid, NULL, 0) == pid);
	area_write_some(area);
	return NULL;
}

/* The child writes into the job's memory before it becomes another program. */
static const char *event_vfork_exec(struct area *area)
{
	pid_t pid = vfork();

	if (!pid) {
		area_write(area, 1);
		execl("/bin/true", "true", NULL);
		_exit(127);
	}
	require(pid > 0 && waitpid(pid, NULL, 0) == pid);
	area_write(area, 2);
	return NULL;
}

static int write_some(void *area)
{
	area_write_some(area);
	return 0;
}

/* Another process in the same address space. */
static const char *event_clone_vm(struct area *area)
{
	static char stack[65536] __attribute__((aligned(16)));
	pid_t pid = clone(write_some, stack + sizeof(stack), CLONE_VM | SIGCHLD, area);

	require(pid > 0 && waitpid(pid, NULL, 0) == pid);
	return NULL;
}

/* ---- mappings ---- */

static char *map_anon(char *address, size_t bytes)
{
	require(mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == address);
	return address;
}

/* One mapping far away, and one that becomes a part of the area's, where it is anonymous. */
static const char *event_mmap(struct area *area)
{
	map_anon(ELSEWHERE, 600 * PAGE)[5 * PAGE] = 1;
	if (area->kind == MEMORY_ANON || area->kind == MEMORY_THP || area->kind == MEMORY_SWAPPED)
		map_anon(page_address(area, area->pages), 64 * PAGE)[3 * PAGE] = 1;
	area_write(area, 8);
	return NULL;
}

static const char *event_munmap(struct area *area)
{
	size_t bytes;
	char *start = piece(area, 16, 24, &bytes);

	require(munmap(start, bytes) == 0);
	area->gone_start = (start - area->start) / PAGE;
	area->gone_end = area->gone_start + bytes / PAGE;
	return NULL;
}

/* Something else lies where there was something. */
static const char *event_remap(struct area *area)
{
	size_t bytes;
	char *start = piece(area, 16, 24, &bytes);

	map_anon(start, bytes);
	start[PAGE] = 1;
	(void)((volatile char *)start)[2 * PAGE];
	if (area->kind != MEMORY_HUGETLB)
		return NULL;
	area->gone_start = (start - area->start) / PAGE;
	area->gone_end = area->gone_start + bytes / PAGE;
	return NULL;
}

static const char *area_move(struct area *area, char *to, size_t new_bytes, int flags)
{
	size_t bytes = area->pages * PAGE;

	if (mremap(area->start, bytes, new_bytes, MREMAP_MAYMOVE | flags, to) != to) {
		require(errno == EINVAL);
		return "this kernel does not move such memory so";
	}
	area->start = to;
	area->pages = new_bytes / PAGE;
	return NULL;
}

/* Whole page tables move, not entries. */
static const char *event_move(struct area *area)
{
	char *aligned = (char *)(((uintptr_t)area->start + HUGE_BYTES - 1) & -HUGE_BYTES);
	const char *why;

	area->start = aligned;
	area->pages = AREA_TABLES * HUGE_BYTES / PAGE;
	/* What is moved must be one mapping. */
	why = area_move(area, ELSEWHERE, area->pages * PAGE, MREMAP_FIXED);
	area_write_some(area);
	return why;
}

static const char *event_move_unaligned(struct area *area)
{
	const char *why = area_move(area, ELSEWHERE + 77 * PAGE, area->pages * PAGE, MREMAP_FIXED);

	area_write(area, 8);
	return why;
}

/* There and back again: what was armed at an address lies there again, but was written elsewhere. */
static const char *event_move_back(struct area *area)
{
	char *home = area->start, *there = (char *)((uintptr_t)ELSEWHERE + (uintptr_t)home % HUGE_BYTES);
	const char *why = area_move(area, there, area->pages * PAGE, MREMAP_FIXED);

	area_write_some(area);
	return why ?: area_move(area, home, area->pages * PAGE, MREMAP_FIXED);
}

/* What is behind the end of a shared object's first size is not touched. */
static const char *event_grow(struct area *area)
{
	size_t pages = area->pages;
	const char *why = area_move(area, (char *)((uintptr_t)ELSEWHERE + (uintptr_t)area->start % HUGE_BYTES),
				    (pages + 64) * PAGE, MREMAP_FIXED);

	if (!why && !(MEMORY_SHARED & MEMORY_BIT(area->kind)))
		area_write(area, pages + 7);
	area->pages = pages;
	area_write_some(area);
	return why;
}

/* The pages move, and the mapping stays, empty. */
static const char *event_move_pages(struct area *area)
{
	struct area old = *area;
	const char *why = area_move(area, (char *)((uintptr_t)ELSEWHERE + (uintptr_t)area->start % HUGE_BYTES),
				    area->pages * PAGE, MREMAP_DONTUNMAP | MREMAP_FIXED);

	if (!why)
		area_write(&old, 1);
	area_write(area, 0);
	return why;
}

/* The heap grows and shrinks, whatever the area is. */
static const char *event_brk(struct area *area)
{
	char *end = sbrk(64 * PAGE);

	end[0] = end[40 * PAGE] = 1;
	require(sbrk(-32 * PAGE) == end + 64 * PAGE);
	require(sbrk(64 * PAGE) == end + 32 * PAGE);
	end[70 * PAGE] = 2;
	area_write(area, 0);
	return NULL;
}

/* The kernel may give write permission back without a fault. */
static const char *event_mprotect(struct area *area)
{
	size_t bytes = area->pages * PAGE;

	require(mprotect(area->start, bytes, PROT_READ) == 0);
	require(mprotect(area->start, bytes, PROT_READ | PROT_WRITE) == 0);
	area_write_some(area);
	require(mprotect(area->start, bytes, PROT_NONE) == 0);
	require(mprotect(area->start, bytes, PROT_READ | PROT_WRITE) == 0);
	return NULL;
}

/* ---- advice ---- */

static const char *event_dontneed(struct area *area)
{
	size_t bytes;
	char *start = piece(area, 16, 24, &bytes);

	if (madvise(start, bytes, MADV_DONTNEED)) {
		require(errno == EINVAL && area->kind == MEMORY_HUGETLB);
		return "this kernel does not drop hugetlb pages";
	}
	area_write(area, 17);
	area_open(area);
	(void)((volatile char *)start)[2 * PAGE];
	area_shut(area);
	return NULL;
}

/* One is written again before the kernel takes them. */
static const char *event_free(struct area *area)
{
	size_t bytes;
	char *start = piece(area, 16, 24, &bytes);

	require(madvise(start, bytes, MADV_FREE) == 0);
	area_write(area, 24);
	require(madvise(start, bytes, MADV_PAGEOUT) == 0);
	area_write(area, 17);
	return NULL;
}

static char *first_table(const struct area *area)
{
	return (char *)(((uintptr_t)area->start + HUGE_BYTES - 1) & -HUGE_BYTES);
}

/* It may have to try again: EAGAIN. */
static const char *event_collapse(struct area *area)
{
	int err, tries = 0;

	require(madvise(area->start, area->pages * PAGE, MADV_HUGEPAGE) == 0);
	area_write(area, 9);
	do {
		err = madvise(first_table(area), HUGE_BYTES, MADV_COLLAPSE) ? errno : 0;
	} while ((err == EAGAIN || err == EBUSY) && tries++ < 50);
	if (err == EINVAL)
		return "this kernel has no MADV_COLLAPSE";
	if (err)
		return "the kernel could not collapse it";
	area_write(area, AREA_EDGE_PAGES);
	return NULL;
}

/* The number behind the name in a file of names and numbers; behind no name in a file of one. */
static unsigned long counter_read(const char *path, const char *name)
{
	FILE *file = fopen(path, "re");
	unsigned long value = 0;
	char line[256];

	require(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name))) {
			value = strtoul(line + strlen(name), NULL, 10);
			break;
		}
	fclose(file);
	return value;
}

/* Until the one number in the file is at least that. */
static void counter_await(const char *path, unsigned long least)
{
	for (int i = 0; counter_read(path, "") < least; i++) {
		if (i == WAIT_SECONDS * 200)
			fail("%s stays below %lu", path, least);
		usleep(5000);
	}
}

static void khugepaged_set(const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/khugepaged/%s", name);
	file_write(path, value);
}

static const char *event_khugepaged(struct area *area)
{
	static const char scans[] = "/sys/kernel/mm/transparent_hugepage/khugepaged/full_scans";

	khugepaged_set("max_ptes_swap", "511");
	require(madvise(area->start, area->pages * PAGE, MADV_HUGEPAGE) == 0);
	area_write(area, 9);
	khugepaged_set("alloc_sleep_millisecs", "0");
	khugepaged_set("scan_sleep_millisecs", "0");
	counter_await(scans, counter_read(scans, "") + 3);
	khugepaged_set("scan_sleep_millisecs", "10000");
	if (!counter_read("/proc/self/smaps_rollup", "AnonHugePages:"))
		return "khugepaged found nothing to collapse";
	area_write(area, AREA_EDGE_PAGES);
	return NULL;
}

/* Pages that are the same become one. */
static const char *event_ksm(struct area *area)
{
	static const char sharing[] = "/sys/kernel/mm/ksm/pages_sharing", scans[] = "/sys/kernel/mm/ksm/full_scans";

	for (size_t page = 16; page < 80; page++)
		memset(page_address(area, page), 'k', PAGE);
	require(madvise(area->start, area->pages * PAGE, MADV_MERGEABLE) == 0);
	file_write("/sys/kernel/mm/ksm/sleep_millisecs", "0");
	file_write("/sys/kernel/mm/ksm/pages_to_scan", "5000");
	file_write("/sys/kernel/mm/ksm/run", "1");
	counter_await(sharing, 60);
	counter_await(scans, counter_read(scans, "") + 2);
	file_write("/sys/kernel/mm/ksm/run", "0");
	return NULL;
}

static const char *event_ksm_write(struct area *area)
{
	const char *why = event_ksm(area);

	for (size_t page = 20; page < 30; page++)
		area_write(area, page);
	return why;
}

static bool swap_is_on(void)
{
	return counter_read("/proc/meminfo", "SwapTotal:") != 0;
}

static const char *event_swap_out(struct area *area)
{
	if (!swap_is_on())
		return "the node has no swap";
	area_write(area, 8);
	require(madvise(area->start, area->pages * PAGE, MADV_PAGEOUT) == 0);
	return NULL;
}

static const char *event_swap_in(struct area *area)
{
	const char *why = event_swap_out(area);

	area_read(area);
	area_write_some(area);
	return why;
}

/* Pages get other frames. */
static const char *event_compaction(struct area *area)
{
	area_write(area, 0);
	file_write("/proc/sys/vm/compact_memory", "1");
	area_write(area, 16);
	return NULL;
}

/* ---- the kernel writes ---- */

static const char *event_read_syscall(struct area *area)
{
	int pipes[2];
	char text[6000];
	struct iovec into[] = { { page_address(area, 0), 3000 }, { page_address(area, 16) + 9, 3000 } };

	memset(text, 'r', sizeof(text));
	require(pipe(pipes) == 0);
	require(write(pipes[1], text, sizeof(text)) == sizeof(text));
	area_open(area);
	require(readv(pipes[0], into, 2) == sizeof(text));
	area_shut(area);
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

/* The buffers are pinned once, and written by later requests without looking at page tables. */
static const char *event_io_uring(struct area *area)
{
	static struct io_uring ring;
	static int pipes[2];
	struct iovec buffer = { page_address(area, 0), 8 * PAGE };
	struct io_uring_cqe *cqe;
	static bool begun;
	int err = begun ? 0 : io_uring_queue_init(4, &ring, 0);

	if (err == -ENOSYS || err == -EPERM)
		return "the node has no io_uring";
	require(err == 0);
	area_open(area);
	if (!begun) {
		require(pipe(pipes) == 0);
		err = io_uring_register_buffers(&ring, &buffer, 1);
		if (err == -EOPNOTSUPP || err == -EFAULT)
			return "io_uring does not pin such memory";
		require(err == 0);
		begun = true;
	}
	require(write(pipes[1], "fixed", 5) == 5);
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), pipes[0], page_address(area, 5) + getpid() % 100, 5, 0, 0);
	require(io_uring_submit_and_wait(&ring, 1) == 1);
	require(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == 5);
	io_uring_cqe_seen(&ring, cqe);
	area_shut(area);
	return NULL;
}

static const char *event_direct_read(struct area *area)
{
	int fd = open("/dev/nbd0", O_RDONLY | O_DIRECT | O_CLOEXEC);

	require(fd >= 0);
	area_open(area);
	require(pread(fd, page_address(area, 0), 8 * PAGE, 64 * PAGE) == 8 * PAGE);
	area_shut(area);
	close(fd);
	return NULL;
}

static const char *outside_vm_writev(pid_t job, const struct area *area)
{
	char text[5000];
	struct iovec local = { text, sizeof(text) }, remote = { page_address(area, 16) + 50, sizeof(text) };

	memset(text, 'v', sizeof(text));
	/* PROT_NONE is respected. */
	require(process_vm_writev(job, &local, 1, &remote, 1, 0) == sizeof(text) || area->kind == MEMORY_NONE);
	return NULL;
}

static const char *outside_ptrace(pid_t job, const struct area *area)
{
	require(ptrace(PTRACE_ATTACH, job, NULL, NULL) == 0);
	require(waitpid(job, NULL, 0) == job);
	require(ptrace(PTRACE_POKEDATA, job, area->start + 8, 0x1234567890) == 0);
	if (area->pages > 20)
		require(ptrace(PTRACE_POKEDATA, job, page_address(area, 20), 0x1234567890) == 0);
	require(ptrace(PTRACE_DETACH, job, NULL, NULL) == 0);
	return NULL;
}

static const char *outside_mem(pid_t job, const struct area *area)
{
	const char *why = NULL;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", job);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	require(fd >= 0);
	if (pwrite(fd, "memory", 6, (uintptr_t)area->start + 2000) != 6) {
		require(errno == EIO && area->kind == MEMORY_VDSO);
		why = "this kernel lets nobody write what the job may not";
	}
	close(fd);
	return why;
}

/* ---- what cannot be tracked ---- */

/* Nobody would answer for a missing page, so there is none. */
static const char *event_userfaultfd(struct area *area)
{
	struct uffdio_api api = { .api = UFFD_API };
	size_t bytes;
	char *start = piece(area, 16, 24, &bytes);
	struct uffdio_register range = { { (uintptr_t)start, bytes }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	for (char *at = start; at < start + bytes; at += PAGE)
		area_write(area, (at - area->start) / PAGE);
	require(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
	if (ioctl(fd, UFFDIO_REGISTER, &range)) {
		if (errno == EBUSY)
			return "the tracker has registered the memory: the job's own registration fails";
		require(errno == EINVAL);
		return "such memory cannot be registered";
	}
	area_write(area, 16);
	return NULL;
}

/* Registers an MMU notifier. */
static const char *event_notifiers(struct area *area)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		return "the node has no KVM, that would register an MMU notifier";
	require(ioctl(kvm, KVM_CREATE_VM, 0) >= 0);
	area_write_some(area);
	return NULL;
}

static const char not_private[] = "shared memory has no pages of the job's own, and the vdso is read-only";
static const char only_anon[] = "it works on anonymous memory";
static const char not_mapped[] = "the vdso is read-only, the stack is in use";
static const char not_vdso[] = "the vdso is read-only";
#define MOVABLE (MAPPED & ~MEMORY_BIT(MEMORY_STACK))

const struct event events[] = {
	{ .name = "write", .run = event_write, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "read", .run = event_read, .memories = MEMORY_ALL },
	{ .name = "fork", .run = event_fork, .memories = MEMORY_ALL },
	{ .name = "cow", .run = event_cow, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "vfork-exec", .run = event_vfork_exec, .memories = MEMORY_ALL },
	{ .name = "clone-vm", .run = event_clone_vm, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "exec", .run = job_exec, .memories = MEMORY_ALL },
	{ .name = "mmap", .run = event_mmap, .memories = MEMORY_ALL },
	{ .name = "munmap", .run = event_munmap, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "remap", .run = event_remap, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "move", .run = event_move, .memories = MOVABLE, .otherwise = not_mapped },
	{ .name = "move-unaligned", .run = event_move_unaligned, .memories = MOVABLE, .otherwise = not_mapped },
	{ .name = "move-back", .run = event_move_back, .memories = MOVABLE, .otherwise = not_mapped },
	{ .name = "move-pages", .run = event_move_pages, .memories = MOVABLE, .otherwise = not_mapped },
	{ .name = "grow", .run = event_grow, .memories = MOVABLE, .otherwise = not_mapped },
	{ .name = "brk", .run = event_brk, .memories = MEMORY_ALL },
	{ .name = "mprotect", .run = event_mprotect, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "dontneed", .run = event_dontneed, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "free", .run = event_free, .memories = ONLY_ANON, .otherwise = only_anon },
	{ .name = "collapse", .run = event_collapse, .memories = ONLY_ANON, .otherwise = only_anon },
	{ .name = "khugepaged", .run = event_khugepaged, .memories = MEMORY_BIT(MEMORY_ANON) | MEMORY_BIT(MEMORY_SWAPPED),
	  .otherwise = "it works on anonymous memory of small pages" },
	{ .name = "ksm", .run = event_ksm, .memories = ONLY_ANON, .otherwise = only_anon },
	{ .name = "ksm-write", .run = event_ksm_write, .memories = ONLY_ANON, .otherwise = only_anon },
	{ .name = "swap-out", .run = event_swap_out, .memories = MAPPED & ~MEMORY_BIT(MEMORY_HUGETLB),
	  .otherwise = "hugetlb pages and the vdso do not go to swap" },
	{ .name = "swap-in", .run = event_swap_in, .memories = MAPPED & ~MEMORY_BIT(MEMORY_HUGETLB),
	  .otherwise = "hugetlb pages and the vdso do not go to swap" },
	{ .name = "compaction", .run = event_compaction, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "read-syscall", .run = event_read_syscall, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "vm-writev", .outside = outside_vm_writev, .memories = MAPPED, .otherwise = not_vdso },
	{ .name = "ptrace", .outside = outside_ptrace, .memories = MEMORY_ALL },
	{ .name = "proc-mem", .outside = outside_mem, .memories = MEMORY_ALL },
	{ .name = "direct-read", .run = event_direct_read, .memories = MAPPED, .otherwise = not_vdso, .reads_disk = true },
	{ .name = "io_uring", .run = event_io_uring, .memories = ONLY_PRIVATE, .otherwise = not_private,
	  .twice = true },
	{ .name = "userfaultfd", .run = event_userfaultfd, .memories = ONLY_PRIVATE, .otherwise = not_private },
	{ .name = "notifiers", .run = event_notifiers, .memories = MEMORY_ALL },
};
const size_t event_count = sizeof(events) / sizeof(*events);
