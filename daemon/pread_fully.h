/* SPDX-License-Identifier: GPL-2.0 */
/* Reading a file to the end of what was asked for: file systems on a network give less at a time than that. */
#ifndef CKPT_PREAD_FULLY_H
#define CKPT_PREAD_FULLY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read, less than length only at the file's end; or -errno. */
ssize_t pread_fully(int fd, void *to, size_t length, uint64_t offset);

#endif
