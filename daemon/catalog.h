/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The catalog of a checkpoint: what the captured directories held.  It is one file of the manifest,
 * named "catalog"; what regular files contain is in spaces of the page map, of kind SPACE_FILE, where
 * the address is the offset in the file and a page that is not held is a hole.
 *
 *   number      meaning (varints, bytes.h, unless a length in bytes is given)
 *   u8[8]       magic "CKPTCAT1"
 *   R           roots, then each: bytes of path, path: absolute, as the job sees it
 *   E           entries, then each:
 *                 root; bytes of path, path below the root, of zero bytes for the root itself
 *                 mode (type and permissions), uid, gid, inode
 *                 zigzag(seconds), nanoseconds of mtime, then of ctime
 *                 regular files: size, id of the space (0: not captured, to be left alone),
 *                   number + 1 of the earlier entry that is a link to the same file (0: none)
 *                 symbolic links: bytes of target, target
 *                 X extended attributes, then each: bytes of name, name, bytes of value, value
 *   u8[8]       magic "CKPTEND1"
 *
 * A catalog is valid if and only if (1) all the numbers above are there, none is cut by the end and
 * nothing follows; (2) roots, entries, paths, names, targets and values are within the bounds below;
 * (3) roots are absolute, and no component of any path is empty, "." or ".."; no text has a NUL;
 * (4) entries go up by root and catalog_compare() of the path; (5) the parent of each entry that is
 * not a root is an entry and a directory; (6) the type is a directory, a regular file, a symbolic
 * link, a fifo or a socket; (7) a link's number is that of an earlier regular file that is no link,
 * in the same root; (8) nanoseconds are below 10^9, size and space are below 2^63.
 */
#ifndef CKPT_CATALOG_H
#define CKPT_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "problem.h"

#define CATALOG_NAME "catalog"
#define CATALOG_TICK_MS 2000
#define CATALOG_ROOTS_MAX 64
#define CATALOG_ENTRIES_MAX (1u << 22)
#define CATALOG_PATH_MAX 4095
#define CATALOG_XATTRS_MAX 256
#define CATALOG_XATTR_NAME_MAX 255
#define CATALOG_XATTR_BYTES_MAX 65536

struct catalog_xattr {
	char *name;
	void *value;
	size_t bytes;
};

struct catalog_entry {
	uint32_t root;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	char *path;
	uint64_t inode;
	uint64_t device; /* on this node; not in the format */
	struct timespec modified;
	struct timespec changed;
	uint64_t size;
	uint64_t space;
	uint32_t link; /* number + 1 */
	uint32_t xattr_count;
	struct catalog_xattr *xattrs;
	char *target;
};

struct catalog {
	char **roots;
	size_t root_count;
	struct catalog_entry *entries;
	size_t entry_count;
	size_t entry_space;
};

/* Bytes as unsigned, '/' before all others: the order of a walk that takes the names in order. */
int catalog_compare(const char *one, const char *other);
int catalog_add_root(struct catalog *catalog, const char *path);
/* The new last entry, zeroed; NULL: no memory. Pointers to others are not valid any more. */
struct catalog_entry *catalog_add(struct catalog *catalog);
/* NULL: there is none. */
struct catalog_entry *catalog_find(const struct catalog *catalog, uint32_t root, const char *path);
/* Of two looks at one name: whether all that they saw is the same, the times of the last change among it. */
bool catalog_entry_same(const struct catalog_entry *one, const struct catalog_entry *other);
/*
 * In each root, the latest time of a change: its server's clock showed at least that when the catalog was made.  What was
 * changed a tick before (whole seconds on some servers) may have been written again since, within the same tick and to
 * the same size, and look the same: that an entry is the same then says nothing of its content.
 */
void catalog_latest_changes(const struct catalog *catalog, int64_t latest_ms[CATALOG_ROOTS_MAX]);
bool catalog_entry_settled(const struct catalog_entry *entry, const int64_t latest_ms[CATALOG_ROOTS_MAX]);
void catalog_clear(struct catalog *catalog);

/* *bytes is freed with free(). -ENOMEM. */
int catalog_pack(const struct catalog *catalog, uint8_t **bytes, size_t *length);
/* -EBADMSG: not valid. The catalog is to be cleared also then. */
int catalog_parse(struct catalog *catalog, const uint8_t *bytes, size_t length,
		  struct problem *problem);

#endif
