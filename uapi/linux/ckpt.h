/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ckpt: which pages of a process were written since they were last collected.
 *
 * Life of a tracker
 *
 *	device = open("/dev/ckpt", O_RDWR | O_CLOEXEC);
 *	ioctl(device, CKPT_IOC_INFO, &info);		what works on this kernel
 *	ioctl(device, CKPT_IOC_TRACK, &track);		track.out_fd is a tracker of one address space
 *	for each epoch
 *		ioctl(tracker, CKPT_IOC_COLLECT, &collect);
 *							repeat from out_walk_end until it is the end asked for;
 *							then read the reported pages
 *	close(tracker);
 *
 * A tracker belongs to the address space (mm) that a process has: when the process executes another program, or all
 * its threads exit, the tracker has ended, and its commands fail with ESRCH.  It does not keep the memory alive.  A child
 * made by fork has an address space of its own and needs a tracker of its own.  There is one tracker per address space;
 * a process that shares one that is tracked already (vfork, before its exec) gets EBUSY.
 *
 * poll() tells of the end as it happens: POLLIN when the process executes another program (TRACK it again, with a new
 * generation and everything to be reported), POLLIN and POLLHUP when it has exited.  It means "look": the state is what
 * poll() finds when it answers, and stays; a process may exec and be gone before it is looked at, two execs are one
 * event, and an exec that fails is none.  Other events of an address space (fork, mmap, and so on) are not told.
 *
 * COLLECT reports each page in [start, end) that may have been written since it was last reported, and arms it again
 * in the same step, while the process runs.  Pages must be read after COLLECT has returned: a write at any later time
 * is reported next time.  The first time that a tracker sees a page it reports it: the first COLLECT over everything
 * reports everything.
 *
 *	memory:    ---+++-----+++++++-----+++++----	+ present, - absent
 *	written:        ^        ^^^        ^		since the last COLLECT
 *	reported:       [)       [  )       [)		plus PRESENT ones if CKPT_COLLECT_PRESENT
 *
 * COLLECT stops early when the vector is full or a signal is pending; out_walk_end says where.  What lies behind it is
 * untouched and will be reported by a later call.  A vector with one element is enough to make progress.
 *
 * Ranges should begin and end at multiples of 2 MiB, or continue each other: what a tracker knows, it knows of whole
 * page tables, and of one that it has not seen all of it reports every page again.
 *
 * Unknown means written.  What is reported may be more than what was written: whole huge pages, memory that moved
 * (mremap), page tables that the kernel rebuilt, pages that it mapped anew (back from swap, merged by KSM), pages with
 * references from elsewhere (I/O in flight, pins), on kernels before 6.0 what was written and then made read-only, from
 * 6.0 to 6.18 what is in swap, page tables with a range of mprotect(), and after fork() or NUMA scanning those of a
 * process whose mappings changed, and everything in memory that cannot be tracked (CKPT_PAGE_UNTRACKED).  It is never
 * less, with two exceptions: shared mappings (CKPT_PAGE_SHARED) are not tracked at all, and whoever else uses soft-dirty
 * on this process takes the bits away: writing 4 to /proc/PID/clear_refs, or criu --track-mem.
 *
 * Where COLLECT does not work, or is not wanted, a tracker can give a userfaultfd of its address space instead: one
 * that behaves as if the process had made it and passed it on, while the process is neither stopped nor changed.
 *
 *	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
 *	ioctl(tracker, CKPT_IOC_USERFAULTFD, &userfaultfd);
 *	close(device);
 *	ioctl(userfaultfd.out_fd, UFFDIO_API, …);	with UFFD_FEATURE_WP_ASYNC; tells whether the kernel has it
 *	ioctl(userfaultfd.out_fd, UFFDIO_REGISTER, …);	as in userfaultfd(2)
 *	ioctl(pagemap, PAGEMAP_SCAN, …);		on /proc/PID/pagemap
 *
 *	ioctl(tracker, CKPT_IOC_REFERENCED, …);		which of the reported pages to report again
 *
 * A page that the kernel or a device holds a reference on (I/O in flight, registered buffers) can be written without a
 * fault, so write-protecting it tells nothing.  REFERENCED looks for such pages in the ranges given, and changes nothing.
 * Who collects with a userfaultfd asks it, after each scan, for what the scan has reported and for what it found the
 * last time; what it finds counts as written in the next collection, whatever the scan says then.  Pages are read
 * afterwards.
 *
 * /proc/PID/pagemap shows the address space that the process had at its open.  If it was opened after TRACK and before
 * USERFAULTFD succeeded, then that, the tracker's and the userfaultfd's are the same one: a process never comes back to
 * an address space that it has left.  The userfaultfd is independent of the tracker and of the module once it is there.
 *
 * out_generation names an unbroken series of COLLECTs.  When it differs from the last one, the tracker has started
 * over: everything is reported again, from address 0 on.  This happens when regions could not be copied out after
 * their pages were armed (a bad vec pointer: EFAULT).
 *
 * Envelope: every command takes a struct that begins with its size in bytes as the caller knows it.  A smaller struct
 * of an older program is accepted down to the size of the first version; the tail of a bigger one must be zero.
 * Reserved fields and unknown flags must be zero.  Fields named out_ are outputs, and zeroed unless set.
 *
 * Errors
 *	ENOTTY		the command is not known on this descriptor
 *	EINVAL		size below the first version, reserved field not zero, unknown flag, or a value out of range
 *	E2BIG		the struct is bigger than this kernel knows and its tail is not zero
 *	EFAULT		the struct or the vector is not readable or writable
 *	EPERM		the caller may not trace the process
 *	EBADF		pidfd or device_fd is not a descriptor
 *	ENODEV		device_fd is not /dev/userfaultfd
 *	ESRCH		the process or the address space is gone, or pid and pidfd do not name the same process
 *	EBUSY		the address space already has a tracker
 *	EOPNOTSUPP	the mechanism does not work on this build or boot; TRACK: none does
 *	EINTR		a signal came before anything was collected
 *	EMFILE, ENFILE	no descriptor is left
 *	ENOMEM
 *
 * Privileges: /dev/ckpt belongs to root (0600).  TRACK and USERFAULTFD need CAP_SYS_PTRACE in the user namespaces of the
 * process and of its address space.  The other commands need only the descriptor.
 */
#ifndef _UAPI_LINUX_CKPT_H
#define _UAPI_LINUX_CKPT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CKPT_IOC_TYPE 0xCB

/*
 * Bits of ckpt_info.out_mechanisms. UFFD_WP says that the kernel was built for it (6.7 and later), and USERFAULTFD
 * works; what the kernel's userfaultfd and PAGEMAP_SCAN can do is for the caller to ask them.
 */
#define CKPT_MECHANISM_SOFT_DIRTY	(1U << 0)	/* COLLECT */
#define CKPT_MECHANISM_UFFD_WP		(1U << 1)	/* USERFAULTFD */

/**
 * struct ckpt_info - ioctl(CKPT_IOC_INFO) on /dev/ckpt
 * @size: sizeof(struct ckpt_info)
 * @__reserved: must be 0
 * @out_mechanisms: CKPT_MECHANISM_* that work on this build and boot
 * @out_page_bytes: size of a page
 * @out_version: version of the module, text ending with 0
 */
struct ckpt_info {
	__u32 size;
	__u32 __reserved;
	__u32 out_mechanisms;
	__u32 out_page_bytes;
	char out_version[32];
};
#define CKPT_IOC_INFO _IOWR(CKPT_IOC_TYPE, 0x00, struct ckpt_info)

/**
 * struct ckpt_track - ioctl(CKPT_IOC_TRACK) on /dev/ckpt
 * @size: sizeof(struct ckpt_track)
 * @flags: must be 0
 * @pidfd: the process whose address space is tracked (pidfd_open)
 * @pid: the number of the same process in the caller's PID namespace.  Kernels do not let a module look a pidfd up;
 *	with the number it can check what the descriptor names.  A number that was reused does not match: ESRCH.
 * @out_fd: descriptor of the tracker, close-on-exec
 * @__reserved: must be 0
 * @out_generation: as in struct ckpt_collect
 */
struct ckpt_track {
	__u32 size;
	__u32 flags;
	__s32 pidfd;
	__s32 pid;
	__s32 out_fd;
	__u32 __reserved;
	__aligned_u64 out_generation;
};
#define CKPT_IOC_TRACK _IOWR(CKPT_IOC_TYPE, 0x01, struct ckpt_track)

/* Bits of ckpt_region.categories. */
#define CKPT_PAGE_WRITTEN	(1U << 0)	/* may have been written since it was last reported */
#define CKPT_PAGE_PRESENT	(1U << 1)	/* in memory */
#define CKPT_PAGE_SWAPPED	(1U << 2)	/* in swap */
#define CKPT_PAGE_FILE		(1U << 3)	/* of a file: never written through this private mapping */
#define CKPT_PAGE_ZERO		(1U << 4)	/* the kernel's zero page */
#define CKPT_PAGE_HUGE		(1U << 5)	/* part of a huge page, that is tracked as a whole */
#define CKPT_PAGE_UNTRACKED	(1U << 6)	/* cannot be tracked: always WRITTEN */
#define CKPT_PAGE_SHARED	(1U << 7)	/* shared mapping, reported as a whole and never as WRITTEN */

/**
 * struct ckpt_region - pages with the same categories
 * @start: address of the first byte
 * @end: address behind the last byte
 * @categories: CKPT_PAGE_*
 * @__reserved: 0
 */
struct ckpt_region {
	__aligned_u64 start;
	__aligned_u64 end;
	__u32 categories;
	__u32 __reserved;
};

/* Report also what is in memory or swap and was not written, FILE, ZERO and SHARED; else only WRITTEN. */
#define CKPT_COLLECT_PRESENT	(1U << 0)

/**
 * struct ckpt_collect - ioctl(CKPT_IOC_COLLECT) on a tracker
 * @size: sizeof(struct ckpt_collect)
 * @flags: CKPT_COLLECT_*
 * @start: first address, a multiple of the page size
 * @end: address behind the last, a multiple of the page size; may lie behind the end of the address space
 * @vec: address of an array of struct ckpt_region
 * @vec_len: its elements, at least 1
 * @out_count: elements that were written: sorted, not overlapping
 * @out_walk_end: everything in [start, out_walk_end) was collected; end if that is all
 * @out_generation: continuity, see above
 */
struct ckpt_collect {
	__u32 size;
	__u32 flags;
	__aligned_u64 start;
	__aligned_u64 end;
	__aligned_u64 vec;
	__aligned_u64 vec_len;
	__aligned_u64 out_count;
	__aligned_u64 out_walk_end;
	__aligned_u64 out_generation;
};
#define CKPT_IOC_COLLECT _IOWR(CKPT_IOC_TYPE, 0x10, struct ckpt_collect)

/**
 * struct ckpt_userfaultfd - ioctl(CKPT_IOC_USERFAULTFD) on a tracker
 * @size: sizeof(struct ckpt_userfaultfd)
 * @flags: must be 0
 * @device_fd: /dev/userfaultfd, opened by the caller
 * @out_fd: a userfaultfd of the tracker's address space, close-on-exec and non-blocking
 */
struct ckpt_userfaultfd {
	__u32 size;
	__u32 flags;
	__s32 device_fd;
	__s32 out_fd;
};
#define CKPT_IOC_USERFAULTFD _IOWR(CKPT_IOC_TYPE, 0x11, struct ckpt_userfaultfd)

/**
 * struct ckpt_referenced - ioctl(CKPT_IOC_REFERENCED) on a tracker
 * @size: sizeof(struct ckpt_referenced)
 * @flags: must be 0
 * @ranges: address of an array of struct ckpt_region, sorted by address; only start and end count
 * @range_count: its elements; may be 0
 * @start: a multiple of the page size; what lies below it is passed over
 * @vec: address of an array of struct ckpt_region
 * @vec_len: its elements, at least 1
 * @out_count: elements that were written, with WRITTEN and PRESENT: sorted, not overlapping
 * @out_walk_end: what of the ranges lies below it was looked at; CKPT_REFERENCED_ALL when that is everything. Else the
 *	vector is full or a signal came: call again with start set to it
 */
struct ckpt_referenced {
	__u32 size;
	__u32 flags;
	__aligned_u64 ranges;
	__aligned_u64 range_count;
	__aligned_u64 start;
	__aligned_u64 vec;
	__aligned_u64 vec_len;
	__aligned_u64 out_count;
	__aligned_u64 out_walk_end;
};
#define CKPT_REFERENCED_ALL (~(__u64)0)
#define CKPT_IOC_REFERENCED _IOWR(CKPT_IOC_TYPE, 0x12, struct ckpt_referenced)

/* The layout is the same for every compiler and for 32-bit programs. */
_Static_assert(sizeof(struct ckpt_info) == 48, "struct ckpt_info");
_Static_assert(sizeof(struct ckpt_track) == 32, "struct ckpt_track");
_Static_assert(sizeof(struct ckpt_region) == 24, "struct ckpt_region");
_Static_assert(sizeof(struct ckpt_collect) == 64, "struct ckpt_collect");
_Static_assert(sizeof(struct ckpt_userfaultfd) == 16, "struct ckpt_userfaultfd");
_Static_assert(sizeof(struct ckpt_referenced) == 64, "struct ckpt_referenced");

#endif
