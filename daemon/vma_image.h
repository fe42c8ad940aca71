/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRIU's image of one process's memory, mm-PID.img: one record of which only this is read:
 *
 *   mm_entry    8 and 9 the arguments' start and end, 10 and 11 the environment's, 14 vma_entry …
 *   vma_entry   1 start, 2 end, 6 flags (as of mmap), 7 status (CRIU's), 9 madv (bit N: MADV_N)
 */
#ifndef CKPT_VMA_IMAGE_H
#define CKPT_VMA_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"
#include "region.h"

/*
 * Adds the memory whose pages may come after the restore: private and anonymous, not locked, which is what CRIU
 * watches with a userfaultfd, and not emptied in children (MADV_WIPEONFORK).  Not of it: the pages that are
 * pointed to (core_image.h), and the program's arguments and environment.
 */
int vma_image_lazy(const char *directory, uint64_t id, const struct regions *pointed, struct regions *regions,
		   struct problem *problem);

/* Has it advised (MADV_…) of the mappings that begin in the regions, too. */
int vma_image_advise(const char *directory, uint64_t id, const struct regions *regions, int advice, struct problem *problem);

/*
 * -ENOTSUP: a process of the images has memory that CRIU (up to 4.2) did not save, and would restore as zeros,
 * without a word about it.
 */
int vma_images_check(const char *directory, struct problem *problem);
/* What is to be said of it; start and end are those of the mapping. Always -ENOTSUP. */
int vma_refuse_high(uint64_t pid, uint64_t start, uint64_t end, struct problem *problem);
/* CRIU leaves mappings out that end above; [vsyscall] is the kernel's. */
static inline bool vma_is_high(uint64_t start, uint64_t end)
{
	return end > (1ULL << 47) - PAGE_BYTES && start < 1ULL << 63;
}

#endif
