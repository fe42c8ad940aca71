/* SPDX-License-Identifier: GPL-2.0 */
/* Local directories of ckptd, that only root can change. */
#ifndef CKPT_DIRECTORY_H
#define CKPT_DIRECTORY_H

#include <dirent.h>

#include "problem.h"

/* Makes the path with all its parents, mode 0711. */
int directory_make(const char *path, struct problem *problem);
/* An empty directory, mode 0700, whatever was there. */
int directory_make_empty(const char *path, struct problem *problem);
/* Removes a directory with all that is in it. */
void directory_remove(const char *path);
/* The next entry, or NULL: that was all. -errno: what is left cannot be read. */
int directory_next(DIR *dir, struct dirent **entry);

#endif
