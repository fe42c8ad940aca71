/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel's page map, /proc/PID/pagemap, says of a task's own pages: with ioctl(PAGEMAP_SCAN) where the kernel
 * has it (6.7), else by reading 8 bytes for each page.  Pages that are a file's, or the kernel's zero page, are not the
 * task's own; reading tells the zero page only to who is shown page frames (CAP_SYS_ADMIN).
 */
#ifndef CKPT_PAGESCAN_H
#define CKPT_PAGESCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "region.h"

/* An entry of /proc/PID/pagemap. */
#define PAGEMAP_PRESENT		(UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED		(UINT64_C(1) << 62)
#define PAGEMAP_FILE		(UINT64_C(1) << 61)		/* of a file, or shared */
#define PAGEMAP_GUARD		(UINT64_C(1) << 58)		/* MADV_GUARD_INSTALL; kernel 6.15 */
#define PAGEMAP_PROTECTED	(UINT64_C(1) << 57)		/* by userfaultfd */
#define PAGEMAP_SOFT_DIRTY	(UINT64_C(1) << 55)
#define PAGEMAP_FRAME		((UINT64_C(1) << 55) - 1)	/* where the page is, in memory or in swap */

enum pagescan {
	PAGESCAN_PRESENT,	/* what is in memory or in swap */
	PAGESCAN_SOFT_DIRTY,	/* of it, what the kernel holds for written since clear_refs */
	/*
	 * Of it, what was written since the last such scan, and write-protects it in the same step. Only in mappings
	 * that are registered with a userfaultfd that has WP_ASYNC, else -EPERM. Never what is not there: that would
	 * plant markers, which CRIU takes for pages. Not by reading.
	 */
	PAGESCAN_WRITTEN,
};

/*
 * The page map of the address space that the process has now, whatever it executes later: a descriptor or -errno.
 * -ESRCH: it has none.
 */
int pagescan_open(pid_t pid);
/*
 * Appends the pages of [start, end) to the regions, with PRESENT or SWAPPED and the categories given.  On an error
 * nothing is appended, but PAGESCAN_WRITTEN may have write-protected a part.
 */
int pagescan(int pagemap, enum pagescan what, uint64_t start, uint64_t end, uint32_t categories,
	     struct regions *regions);
/* The entry of one page; 0 if it cannot be read. */
uint64_t pagescan_entry(int pagemap, uint64_t address);
/* Where the frames' flags are, for the next: a descriptor or -errno. */
int pagescan_open_flags(void);
/*
 * Whether the kernel's zero page, small or huge, is at the address; 1, 0 or -errno.  In the page map alone the huge one
 * looks like a file's page, and from 6.18 on like one of the task's own.
 */
int pagescan_is_zero(int pagemap, int flags, uint64_t address);
/* Whether this kernel has the ioctl with write-protection; 0 or -errno. */
int pagescan_probe_ioctl(void);

#endif
