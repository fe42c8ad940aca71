// SPDX-License-Identifier: GPL-2.0
#include "capture_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "pread_fully.h"

/* ---- reading ---- */

static int read_window(struct pass *pass, int fd, struct space *space, uint64_t offset, size_t want,
		       size_t *got)
{
	uint8_t *window = pass->capture->window;
	ssize_t bytes;
	size_t padded;
	int err = 0;

	bytes = pread_fully(fd, window, want, offset);
	if (bytes < 0)
		return pass_fail(pass, (int)-bytes, "read");
	*got = (size_t)bytes;
	padded = (*got + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
	memset(window + *got, 0, padded - *got);
	for (size_t at = 0; at < padded && !err; at += PAGE_BYTES)
		err = packer_page(pass->packer, space, offset + at, window + at, pass->problem);
	pass->stats->bytes_read += *got;
	if (!err && pass->capture->options.stopped &&
	    pass->capture->options.stopped(pass->capture->options.stopped_arg))
		err = problem_set(pass->problem, ECANCELED, "the job has ended");
	return err;
}

/* Data in [start, end). A file that has become shorter meanwhile has changed, and is read again. */
static int read_extent(struct pass *pass, int fd, struct space *space, uint64_t start, uint64_t end)
{
	int err = 0;

	while (start < end && !err) {
		size_t want = end - start < CAPTURE_WINDOW_BYTES ? end - start : CAPTURE_WINDOW_BYTES, got = 0;

		err = read_window(pass, fd, space, start, want, &got);
		if (got < want)
			break;
		start += got;
	}
	return err;
}

static uint64_t page_down(uint64_t offset)
{
	return offset & ~(uint64_t)(PAGE_BYTES - 1);
}

static uint64_t page_up(uint64_t offset)
{
	return page_down(offset + PAGE_BYTES - 1);
}

/* The next data at or behind offset; a file system that does not tell has no holes. */
static void find_extent(int fd, uint64_t offset, uint64_t size, uint64_t *start, uint64_t *end)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;

	if (data < 0) {
		*start = errno == ENXIO ? size : offset;
		*end = size;
		return;
	}
	hole = lseek(fd, data, SEEK_HOLE);
	*start = page_down((uint64_t)data);
	*start = *start < offset ? offset : *start;
	*end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
}

static int read_content(struct pass *pass, int fd, struct space *space, uint64_t size)
{
	uint64_t offset = 0, start, end;
	int err = 0;

	while (offset < size && !err) {
		find_extent(fd, offset, size, &start, &end);
		space_forget(space, offset, start);
		if (start >= size)
			break;
		end = page_up(end) < size ? page_up(end) : size;
		err = read_extent(pass, fd, space, start, end);
		offset = page_up(end);
	}
	space_forget(space, page_up(size), UINT64_MAX);
	return err;
}

/* 0 and *fd = -1: it is not there any more, or not to be read. */
static int open_content(struct pass *pass, int directory, const char *name,
			struct catalog_entry *entry, int *fd)
{
	struct stat st;

	*fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0 && (errno == EACCES || errno == EPERM)) {
		entry->space = 0;
		if (!pass->capture->told_unreadable)
			log_warn("%s/%s and perhaps others in the captured directories cannot be read as user "
				 "%u: they are not part of checkpoints", pass->capture->roots[pass->root],
				 pass->path, pass->capture->options.uid);
		pass->capture->told_unreadable = true;
		return 0;
	}
	if (*fd < 0)
		return is_absence(errno) || errno == ENXIO ? 0 : pass_fail(pass, errno, "open");
	if (fstat(*fd, &st) == 0 && st.st_ino == entry->inode && S_ISREG(st.st_mode))
		return 0;
	/* Another one has its name by now: the next pass sees that. */
	close(*fd);
	*fd = -1;
	return 0;
}

static bool is_mapped(const struct pass *pass, const struct catalog_entry *entry)
{
	return numbers_have(pass->mapped, entry->inode);
}

static int read_file(struct pass *pass, int directory, const char *name, struct catalog_entry *entry,
		     struct listing_memory *memory)
{
	cleanup_close int fd = -1;
	struct space *space;
	int err = open_content(pass, directory, name, entry, &fd);

	if (err || !entry->space)
		return err;
	space = pagemap_space(pass->map, SPACE_FILE, entry->space);
	if (!space)
		return pass_no_memory(pass);
	if (fd < 0)
		return 0;
	memory->known = clock_ms() - memory->since_ms >= CAPTURE_SETTLE_MS && !pass->timeless &&
			!is_mapped(pass, entry);
	err = read_content(pass, fd, space, entry->size);
	memory->pages = space_pages(space);
	pass->stats->files_read++;
	return err;
}

/* Whether what was read then still holds, and is still in the store. */
static bool content_known(struct pass *pass, const struct catalog_entry *entry,
			  const struct listing_memory *memory)
{
	struct space *space = pagemap_find(pass->map, SPACE_FILE, entry->space);

	return memory->known && !pass->timeless && !is_mapped(pass, entry) &&
	       (space ? space_pages(space) : 0) == memory->pages;
}

int pass_take_file(struct pass *pass, int directory, const char *name, struct catalog_entry *entry)
{
	struct listing *before = &pass->capture->listing;
	struct listing_memory *memory = &pass->found.memory[pass->found.catalog.entry_count - 1];
	int64_t number = listing_find_inode(before, entry);
	const struct catalog_entry *old = number < 0 ? NULL : &before->catalog.entries[number];

	memory->since_ms = pass->now_ms;
	if (!old || !old->space) {
		entry->space = ++pass->capture->last_space;
		return read_file(pass, directory, name, entry, memory);
	}
	entry->space = old->space;
	if (!catalog_entry_same(entry, old))
		return read_file(pass, directory, name, entry, memory);
	*memory = before->memory[number];
	return content_known(pass, entry, memory) ? 0 : read_file(pass, directory, name, entry, memory);
}

/* ---- files that are gone ---- */

static int forget_unused(struct space *space, void *arg)
{
	struct pass *pass = arg;

	if (space_kind(space) == SPACE_FILE && !numbers_have(&pass->spaces, space_id(space)))
		pagemap_forget_space(pass->map, SPACE_FILE, space_id(space));
	return 0;
}

int pass_forget_spaces(struct pass *pass)
{
	const struct catalog *catalog = &pass->found.catalog;
	int err = 0;

	for (size_t i = 0; i < catalog->entry_count && !err; i++)
		if (catalog->entries[i].space)
			err = numbers_add(&pass->spaces, catalog->entries[i].space);
	numbers_sort(&pass->spaces);
	err = err ? pass_no_memory(pass) : pagemap_for_each(pass->map, forget_unused, pass);
	numbers_free(&pass->spaces);
	return err;
}
