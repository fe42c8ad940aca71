/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRIU's image of one process's mappings, mm-PID.img: u32 0x54564319, u32 0x57492820, u32 size, and a
 * protobuf of which only the mappings are read:
 *
 *   mm_entry    14 vma_entry …
 *   vma_entry   1 start, 2 end, 6 flags (as of mmap), 7 status (CRIU's), 9 madv (bit N: MADV_N)
 */
#ifndef CKPT_VMA_IMAGE_H
#define CKPT_VMA_IMAGE_H

#include <stdint.h>
#include <sys/types.h>

#include "problem.h"
#include "region.h"

/*
 * Adds the mappings whose pages may come after the restore: private anonymous memory that is not locked,
 * which is what CRIU watches with a userfaultfd, and not emptied in children (MADV_WIPEONFORK).
 */
int vma_image_lazy(const char *directory, uint64_t id, struct regions *regions, struct problem *problem);

#endif
