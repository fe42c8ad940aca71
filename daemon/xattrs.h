/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The extended attributes of captured files, as a user may set them: his own, and access lists.  They belong to the
 * catalog entry, also after an error, and are freed with it.  directory is a descriptor of what holds name.  All return
 * 0 or -errno.
 */
#ifndef CKPT_XATTRS_H
#define CKPT_XATTRS_H

#include "catalog.h"

/* The entry has none yet. */
int xattrs_read(int directory, const char *name, struct catalog_entry *entry);
int xattrs_copy(struct catalog_entry *to, const struct catalog_entry *from);
/* What the entry has, and none of the user's own that it has not. */
int xattrs_write(int directory, const char *name, const struct catalog_entry *entry);

#endif
