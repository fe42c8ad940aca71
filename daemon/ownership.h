/* SPDX-License-Identifier: GPL-2.0 */
/* Whether what the daemon, as root, reads or runs can be changed by others than root. */
#ifndef CKPT_OWNERSHIP_H
#define CKPT_OWNERSHIP_H

#include <stdbool.h>
#include <sys/stat.h>

#include "problem.h"

/* Only root, or the user that we are, can write what this describes. */
bool ownership_trusted(const struct stat *status);
/*
 * 0: path is an executable regular file, and neither it nor a directory on the way to it can be
 * changed by others.  Else says what is wrong, and what to do.
 */
int ownership_check_program(const char *path, struct problem *problem);

#endif
