// SPDX-License-Identifier: GPL-2.0
/* The catalog of captured directories. */
#include "catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	struct catalog catalog = { 0 }, again = { 0 };
	struct problem problem;
	uint8_t *bytes;
	size_t packed;
	int err = catalog_parse(&catalog, data, length, &problem);

	if (err && err != -EBADMSG)
		abort();
	/* What was taken is packed and taken again. */
	if (!err) {
		if (catalog_pack(&catalog, &bytes, &packed) ||
		    catalog_parse(&again, bytes, packed, &problem) ||
		    again.entry_count != catalog.entry_count)
			abort();
		free(bytes);
	}
	catalog_clear(&again);
	catalog_clear(&catalog);
	return 0;
}

static struct catalog_entry *add(struct catalog *catalog, const char *path, uint32_t mode)
{
	struct catalog_entry *entry = catalog_add(catalog);

	entry->path = strdup(path);
	entry->mode = mode;
	entry->modified.tv_sec = 1700000000;
	entry->changed.tv_nsec = 5;
	return entry;
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	struct catalog catalog = { 0 };
	struct catalog_entry *entry;
	uint8_t *bytes;
	size_t length;

	catalog_add_root(&catalog, "/home/job");
	add(&catalog, "", S_IFDIR | 0755);
	entry = add(&catalog, "a", S_IFREG | 0644);
	entry->size = 4096;
	entry->space = 1;
	entry->xattrs = calloc(1, sizeof(*entry->xattrs));
	entry->xattr_count = 1;
	entry->xattrs->name = strdup("user.x");
	entry->xattrs->value = strdup("y");
	entry->xattrs->bytes = 1;
	entry = add(&catalog, "b", S_IFREG | 0644);
	entry->size = 4096;
	entry->space = 1;
	entry->link = 2;
	add(&catalog, "d", S_IFDIR | 0700);
	entry = add(&catalog, "d/link", S_IFLNK | 0777);
	entry->target = strdup("../a");
	if (catalog_pack(&catalog, &bytes, &length))
		abort();
	seed("tree", bytes, length);
	free(bytes);
	catalog_clear(&catalog);
}
