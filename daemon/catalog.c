// SPDX-License-Identifier: GPL-2.0
#include "catalog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "cleanup.h"

#define MAGIC "CKPTCAT1"
#define MAGIC_END "CKPTEND1"
#define MAGIC_BYTES 8
#define NANOSECONDS 1000000000

/* ---- lists ---- */

static unsigned int rank(char c)
{
	return c == '/' ? 1 : c ? (unsigned char)c + 1u : 0;
}

int catalog_compare(const char *one, const char *other)
{
	while (*one && *one == *other) {
		one++;
		other++;
	}
	return (int)rank(*one) - (int)rank(*other);
}

int catalog_add_root(struct catalog *catalog, const char *path)
{
	char **roots = reallocarray(catalog->roots, catalog->root_count + 1, sizeof(*roots));

	if (!roots)
		return -ENOMEM;
	catalog->roots = roots;
	roots[catalog->root_count] = strdup(path);
	return roots[catalog->root_count++] ? 0 : -ENOMEM;
}

struct catalog_entry *catalog_add(struct catalog *catalog)
{
	size_t space = catalog->entry_space ? catalog->entry_space * 2 : 64;
	struct catalog_entry *entries;

	if (catalog->entry_count == catalog->entry_space) {
		entries = reallocarray(catalog->entries, space, sizeof(*entries));
		if (!entries)
			return NULL;
		catalog->entries = entries;
		catalog->entry_space = space;
	}
	catalog->entries[catalog->entry_count] = (struct catalog_entry){ 0 };
	return &catalog->entries[catalog->entry_count++];
}

static int entry_order(const struct catalog_entry *entry, uint32_t root, const char *path)
{
	if (entry->root != root)
		return entry->root < root ? -1 : 1;
	return catalog_compare(entry->path, path);
}

struct catalog_entry *catalog_find(const struct catalog *catalog, uint32_t root, const char *path)
{
	size_t low = 0, high = catalog->entry_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = entry_order(&catalog->entries[middle], root, path);

		if (!order)
			return &catalog->entries[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static bool times_equal(const struct timespec *one, const struct timespec *other)
{
	return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

bool catalog_entry_same(const struct catalog_entry *one, const struct catalog_entry *other)
{
	return one->mode == other->mode && one->inode == other->inode && one->size == other->size &&
	       one->uid == other->uid && one->gid == other->gid &&
	       times_equal(&one->modified, &other->modified) &&
	       times_equal(&one->changed, &other->changed);
}

static int64_t changed_ms(const struct catalog_entry *entry)
{
	return entry->changed.tv_sec * 1000ll + entry->changed.tv_nsec / 1000000;
}

void catalog_latest_changes(const struct catalog *catalog, int64_t latest_ms[CATALOG_ROOTS_MAX])
{
	for (size_t i = 0; i < CATALOG_ROOTS_MAX; i++)
		latest_ms[i] = INT64_MIN;
	for (size_t i = 0; i < catalog->entry_count; i++) {
		const struct catalog_entry *entry = &catalog->entries[i];

		if (changed_ms(entry) > latest_ms[entry->root])
			latest_ms[entry->root] = changed_ms(entry);
	}
}

bool catalog_entry_settled(const struct catalog_entry *entry, const int64_t latest_ms[CATALOG_ROOTS_MAX])
{
	return changed_ms(entry) + CATALOG_TICK_MS <= latest_ms[entry->root];
}

static void entry_clear(struct catalog_entry *entry)
{
	for (uint32_t i = 0; i < entry->xattr_count; i++) {
		free(entry->xattrs[i].name);
		free(entry->xattrs[i].value);
	}
	free(entry->xattrs);
	free(entry->target);
	free(entry->path);
	*entry = (struct catalog_entry){ 0 };
}

void catalog_clear(struct catalog *catalog)
{
	for (size_t i = 0; i < catalog->entry_count; i++)
		entry_clear(&catalog->entries[i]);
	for (size_t i = 0; i < catalog->root_count; i++)
		free(catalog->roots[i]);
	free(catalog->entries);
	free(catalog->roots);
	*catalog = (struct catalog){ 0 };
}

/* ---- writing ---- */

static void put_number(FILE *out, uint64_t value)
{
	uint8_t text[VARINT_MAX_BYTES];

	fwrite(text, 1, put_varint(text, value), out);
}

static void put_data(FILE *out, const void *data, size_t bytes)
{
	put_number(out, bytes);
	fwrite(data, 1, bytes, out);
}

static void put_text(FILE *out, const char *text)
{
	put_data(out, text, strlen(text));
}

static void put_time(FILE *out, const struct timespec *time)
{
	put_number(out, zigzag(time->tv_sec));
	put_number(out, (uint64_t)time->tv_nsec);
}

static void put_entry(FILE *out, const struct catalog_entry *entry)
{
	put_number(out, entry->root);
	put_text(out, entry->path);
	put_number(out, entry->mode);
	put_number(out, entry->uid);
	put_number(out, entry->gid);
	put_number(out, entry->inode);
	put_time(out, &entry->modified);
	put_time(out, &entry->changed);
	if (S_ISREG(entry->mode)) {
		put_number(out, entry->size);
		put_number(out, entry->space);
		put_number(out, entry->link);
	}
	if (S_ISLNK(entry->mode))
		put_text(out, entry->target);
	put_number(out, entry->xattr_count);
	for (uint32_t i = 0; i < entry->xattr_count; i++) {
		put_text(out, entry->xattrs[i].name);
		put_data(out, entry->xattrs[i].value, entry->xattrs[i].bytes);
	}
}

int catalog_pack(const struct catalog *catalog, uint8_t **bytes, size_t *length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, length);
	bool failed;

	if (!out)
		return -ENOMEM;
	fwrite(MAGIC, 1, MAGIC_BYTES, out);
	put_number(out, catalog->root_count);
	for (size_t i = 0; i < catalog->root_count; i++)
		put_text(out, catalog->roots[i]);
	put_number(out, catalog->entry_count);
	for (size_t i = 0; i < catalog->entry_count; i++)
		put_entry(out, &catalog->entries[i]);
	fwrite(MAGIC_END, 1, MAGIC_BYTES, out);
	failed = ferror(out);
	if (fclose(out) || failed) {
		free(text);
		return -ENOMEM;
	}
	*bytes = (uint8_t *)text;
	return 0;
}

/* ---- reading ---- */

/* The first error stays; after it everything reads as nothing. */
struct input {
	const uint8_t *at;
	const uint8_t *end;
	int err;
	const char *reason;
};

static void input_fail(struct input *input, int err, const char *reason)
{
	if (input->err)
		return;
	input->err = err;
	input->reason = reason;
	input->at = input->end;
}

static uint64_t get_number(struct input *input, uint64_t most)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64 && input->at < input->end; shift += 7) {
		uint8_t byte = *input->at++;

		if (shift == 63 && byte > 1)
			break;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (value <= most)
			return value;
		break;
	}
	input_fail(input, -EBADMSG, "a number is cut or out of bounds");
	return 0;
}

/* With a NUL behind it; NULL after an error. */
static void *get_data(struct input *input, size_t least, size_t most, size_t *bytes)
{
	char *data;

	*bytes = get_number(input, most);
	if (!input->err && (*bytes < least || *bytes > (size_t)(input->end - input->at)))
		input_fail(input, -EBADMSG, "a text is cut or out of bounds");
	if (input->err)
		return NULL;
	data = malloc(*bytes + 1);
	if (!data) {
		input_fail(input, -ENOMEM, "no memory");
		return NULL;
	}
	memcpy(data, input->at, *bytes);
	data[*bytes] = '\0';
	input->at += *bytes;
	return data;
}

static char *get_text(struct input *input, size_t least, size_t most)
{
	size_t bytes;
	char *text = get_data(input, least, most, &bytes);

	if (text && strlen(text) != bytes)
		input_fail(input, -EBADMSG, "a text has a NUL");
	return text;
}

static struct timespec get_time(struct input *input)
{
	struct timespec time;

	time.tv_sec = unzigzag(get_number(input, UINT64_MAX));
	time.tv_nsec = (long)get_number(input, NANOSECONDS - 1);
	return time;
}

static void get_magic(struct input *input, const char *magic)
{
	if (input->end - input->at < MAGIC_BYTES || memcmp(input->at, magic, MAGIC_BYTES))
		input_fail(input, -EBADMSG, "a magic number is missing");
	else
		input->at += MAGIC_BYTES;
}

/* Components that are not empty, "." or "..", with one '/' between them. */
static bool path_valid(const char *path)
{
	for (;;) {
		size_t length = strcspn(path, "/");

		if (!length || (length <= 2 && !strncmp(path, "..", length)))
			return false;
		if (!path[length])
			return true;
		path += length + 1;
	}
}

static void get_roots(struct input *input, struct catalog *catalog)
{
	size_t count = get_number(input, CATALOG_ROOTS_MAX);

	for (size_t i = 0; i < count && !input->err; i++) {
		cleanup_free char *path = get_text(input, 2, CATALOG_PATH_MAX);

		if (path && (path[0] != '/' || !path_valid(path + 1)))
			input_fail(input, -EBADMSG, "a root is no absolute path");
		if (!input->err && catalog_add_root(catalog, path))
			input_fail(input, -ENOMEM, "no memory");
	}
}

static void get_xattrs(struct input *input, struct catalog_entry *entry)
{
	uint32_t count = (uint32_t)get_number(input, CATALOG_XATTRS_MAX);

	if (!count)
		return;
	entry->xattrs = calloc(count, sizeof(*entry->xattrs));
	if (!entry->xattrs)
		input_fail(input, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < count && !input->err; i++) {
		struct catalog_xattr *xattr = &entry->xattrs[entry->xattr_count++];

		xattr->name = get_text(input, 1, CATALOG_XATTR_NAME_MAX);
		xattr->value = get_data(input, 0, CATALOG_XATTR_BYTES_MAX, &xattr->bytes);
	}
}

static bool type_known(uint32_t mode)
{
	return S_ISDIR(mode) || S_ISREG(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

static void get_entry(struct input *input, struct catalog_entry *entry)
{
	entry->root = (uint32_t)get_number(input, CATALOG_ROOTS_MAX - 1);
	entry->path = get_text(input, 0, CATALOG_PATH_MAX);
	entry->mode = (uint32_t)get_number(input, S_IFMT | 07777);
	entry->uid = (uint32_t)get_number(input, UINT32_MAX);
	entry->gid = (uint32_t)get_number(input, UINT32_MAX);
	entry->inode = get_number(input, UINT64_MAX);
	entry->modified = get_time(input);
	entry->changed = get_time(input);
	if (S_ISREG(entry->mode)) {
		entry->size = get_number(input, INT64_MAX);
		entry->space = get_number(input, INT64_MAX);
		entry->link = (uint32_t)get_number(input, CATALOG_ENTRIES_MAX);
	}
	if (S_ISLNK(entry->mode))
		entry->target = get_text(input, 1, CATALOG_PATH_MAX);
	get_xattrs(input, entry);
	if (!type_known(entry->mode))
		input_fail(input, -EBADMSG, "an entry is of an unknown type");
}

/* The last entry, which is not yet counted among those that can be found. */
static void check_place(struct input *input, const struct catalog *catalog,
			const struct catalog_entry *entry)
{
	char parent[CATALOG_PATH_MAX + 1];
	const struct catalog_entry *found;
	const char *slash;

	if (entry->root >= catalog->root_count)
		input_fail(input, -EBADMSG, "an entry is in no root");
	if (catalog->entry_count && entry_order(entry - 1, entry->root, entry->path) >= 0)
		input_fail(input, -EBADMSG, "entries are not in order");
	if (input->err || !*entry->path)
		return;
	if (!path_valid(entry->path))
		input_fail(input, -EBADMSG, "an entry's path leaves its root");
	slash = strrchr(entry->path, '/');
	snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - entry->path) : 0, entry->path);
	found = catalog_find(catalog, entry->root, parent);
	if (!found || !S_ISDIR(found->mode))
		input_fail(input, -EBADMSG, "an entry is in no directory");
}

static void check_link(struct input *input, const struct catalog *catalog,
		       const struct catalog_entry *entry)
{
	const struct catalog_entry *first;

	if (!entry->link)
		return;
	first = entry->link <= catalog->entry_count ? &catalog->entries[entry->link - 1] : NULL;
	if (!first || !S_ISREG(first->mode) || first->link || first->root != entry->root)
		input_fail(input, -EBADMSG, "a link is to nothing");
}

static void get_entries(struct input *input, struct catalog *catalog)
{
	size_t count = get_number(input, CATALOG_ENTRIES_MAX);

	for (size_t i = 0; i < count && !input->err; i++) {
		struct catalog_entry *entry = catalog_add(catalog);

		if (!entry) {
			input_fail(input, -ENOMEM, "no memory");
			return;
		}
		get_entry(input, entry);
		/* Only valid ones can be found. */
		catalog->entry_count--;
		if (!input->err)
			check_place(input, catalog, entry);
		if (!input->err)
			check_link(input, catalog, entry);
		catalog->entry_count++;
	}
}

int catalog_parse(struct catalog *catalog, const uint8_t *bytes, size_t length,
		  struct problem *problem)
{
	struct input input = { .at = bytes, .end = bytes + length };

	get_magic(&input, MAGIC);
	get_roots(&input, catalog);
	get_entries(&input, catalog);
	get_magic(&input, MAGIC_END);
	if (!input.err && input.at != input.end)
		input_fail(&input, -EBADMSG, "something follows it");
	return input.err ? problem_set(problem, -input.err, "the catalog of the captured directories is not "
				       "valid: %s", input.reason) : 0;
}
