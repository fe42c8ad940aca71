// SPDX-License-Identifier: GPL-2.0
#include "xattrs.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* Links, fifos and sockets have none that a user could set. */
static bool may_have(const struct catalog_entry *entry)
{
	return S_ISREG(entry->mode) || S_ISDIR(entry->mode);
}

static void file_name(char file[NAME_MAX + 64], int directory, const char *name)
{
	snprintf(file, NAME_MAX + 64, "/proc/self/fd/%d/%s", directory, name);
}

/* What a user may set: his own, and access lists. */
static bool is_wanted(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "system.posix_acl_access") ||
	       !strcmp(name, "system.posix_acl_default");
}

static int read_one(const char *file, const char *name, struct catalog_entry *entry)
{
	uint8_t value[CATALOG_XATTR_BYTES_MAX];
	ssize_t bytes = lgetxattr(file, name, value, sizeof(value));
	struct catalog_xattr *xattrs;

	if (bytes < 0)
		return errno == ENODATA ? 0 : -errno;
	if (entry->xattr_count == CATALOG_XATTRS_MAX)
		return -E2BIG;
	xattrs = reallocarray(entry->xattrs, entry->xattr_count + 1, sizeof(*xattrs));
	if (!xattrs)
		return -ENOMEM;
	entry->xattrs = xattrs;
	xattrs[entry->xattr_count] = (struct catalog_xattr){ .name = strdup(name),
							     .value = malloc((size_t)bytes + 1),
							     .bytes = (size_t)bytes };
	if (!xattrs[entry->xattr_count].name || !xattrs[entry->xattr_count].value)
		return -ENOMEM;
	memcpy(xattrs[entry->xattr_count++].value, value, (size_t)bytes);
	return 0;
}

int xattrs_read(int directory, const char *name, struct catalog_entry *entry)
{
	char file[NAME_MAX + 64], names[CATALOG_XATTR_BYTES_MAX];
	ssize_t bytes;
	int err = 0;

	if (!may_have(entry))
		return 0;
	file_name(file, directory, name);
	bytes = llistxattr(file, names, sizeof(names));
	if (bytes < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (const char *at = names; at < names + bytes && !err; at += strlen(at) + 1)
		if (is_wanted(at))
			err = read_one(file, at, entry);
	return err;
}

int xattrs_copy(struct catalog_entry *to, const struct catalog_entry *from)
{
	if (!from->xattr_count)
		return 0;
	to->xattrs = calloc(from->xattr_count, sizeof(*to->xattrs));
	if (!to->xattrs)
		return -ENOMEM;
	for (uint32_t i = 0; i < from->xattr_count; i++) {
		struct catalog_xattr *xattr = &to->xattrs[to->xattr_count++];

		xattr->name = strdup(from->xattrs[i].name);
		xattr->bytes = from->xattrs[i].bytes;
		xattr->value = malloc(xattr->bytes + 1);
		if (!xattr->name || !xattr->value)
			return -ENOMEM;
		memcpy(xattr->value, from->xattrs[i].value, xattr->bytes);
	}
	return 0;
}

static bool is_listed(const struct catalog_entry *entry, const char *name)
{
	for (uint32_t i = 0; i < entry->xattr_count; i++)
		if (!strcmp(entry->xattrs[i].name, name))
			return true;
	return false;
}

int xattrs_write(int directory, const char *name, const struct catalog_entry *entry)
{
	char file[NAME_MAX + 64], names[CATALOG_XATTR_BYTES_MAX];
	ssize_t bytes;

	if (!may_have(entry))
		return 0;
	file_name(file, directory, name);
	bytes = llistxattr(file, names, sizeof(names));
	for (const char *at = names; bytes > 0 && at < names + bytes; at += strlen(at) + 1)
		if (!strncmp(at, "user.", 5) && !is_listed(entry, at) && lremovexattr(file, at))
			return -errno;
	for (uint32_t i = 0; i < entry->xattr_count; i++)
		if (lsetxattr(file, entry->xattrs[i].name, entry->xattrs[i].value,
			      entry->xattrs[i].bytes, 0))
			return -errno;
	return 0;
}
