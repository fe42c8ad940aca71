// SPDX-License-Identifier: GPL-2.0
#include "capture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "capture_private.h"
#include "clock.h"

/* ---- errors ---- */

int pass_no_memory(struct pass *pass)
{
	return problem_set(pass->problem, ENOMEM, "no memory to capture %s",
			   pass->capture->roots[pass->root]);
}

int pass_fail(struct pass *pass, int err, const char *operation)
{
	return problem_set(pass->problem, err, "cannot %s %s/%s, a part of the captured directories: %s",
			   operation, pass->capture->roots[pass->root], pass->path, strerror(err));
}

/* ---- passes ---- */

bool capture_skips(const struct capture_options *options, const struct stat *st)
{
	for (size_t i = 0; i < options->skip_count; i++)
		if (options->skip[i].device == st->st_dev && options->skip[i].inode == st->st_ino)
			return true;
	return false;
}

int capture_pass(struct capture *capture, const struct numbers *mapped, struct packer *packer,
		 struct pagemap *map, struct capture_stats *stats, struct problem *problem)
{
	struct pass pass = { .capture = capture, .mapped = mapped, .packer = packer, .map = map, .stats = stats,
			     .problem = problem, .now_ms = clock_ms() };
	int err = pass_walk(&pass);

	if (!err && listing_index(&pass.found))
		err = problem_set(problem, ENOMEM, "no memory to capture files");
	if (!err)
		err = pass_forget_spaces(&pass);
	if (err) {
		listing_clear(&pass.found);
		return err;
	}
	listing_clear(&capture->listing);
	capture->listing = pass.found;
	stats->entries = pass.found.catalog.entry_count;
	return 0;
}

static void memory_adopt(struct listing *listing, struct pagemap *map)
{
	int64_t latest_ms[CATALOG_ROOTS_MAX];

	catalog_latest_changes(&listing->catalog, latest_ms);
	for (size_t i = 0; i < listing->catalog.entry_count; i++) {
		uint64_t id = listing->catalog.entries[i].space;
		struct space *space = id ? pagemap_find(map, SPACE_FILE, id) : NULL;

		listing->memory[i] = (struct listing_memory){ .known = catalog_entry_settled(&listing->catalog.entries[i],
											     latest_ms),
							      .since_ms = clock_ms(), .pages = space ? space_pages(space) : 0 };
	}
}

void capture_adopt(struct capture *capture, struct catalog *catalog, struct pagemap *map)
{
	for (size_t i = 0; i < catalog->entry_count; i++)
		if (catalog->entries[i].space > capture->last_space)
			capture->last_space = catalog->entries[i].space;
	/* Without memory for it, everything is read once more. */
	if (!listing_take(&capture->listing, catalog))
		memory_adopt(&capture->listing, map);
}

const struct catalog *capture_catalog(const struct capture *capture)
{
	return &capture->listing.catalog;
}

void capture_restart(struct capture *capture)
{
	for (size_t i = 0; i < capture->listing.catalog.entry_count; i++)
		capture->listing.memory[i].known = false;
}

/* ---- beginning and end ---- */

static bool is_below(const char *path, const char *root)
{
	size_t length = strlen(root);

	return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* The first of two that are equal stays. */
static bool is_covered(const struct capture_options *options, size_t number)
{
	const char *path = options->roots[number];

	for (size_t i = 0; i < options->root_count; i++)
		if (i != number && is_below(path, options->roots[i]) &&
		    (strcmp(path, options->roots[i]) || i < number))
			return true;
	return false;
}

static int copy_roots(struct capture *capture, const struct capture_options *options)
{
	capture->roots = calloc(options->root_count + 1, sizeof(*capture->roots));
	if (!capture->roots)
		return -ENOMEM;
	capture->options.root_count = 0;
	for (size_t i = 0; i < options->root_count; i++) {
		if (is_covered(options, i))
			continue;
		capture->roots[capture->options.root_count] = strdup(options->roots[i]);
		if (!capture->roots[capture->options.root_count++])
			return -ENOMEM;
	}
	return capture->options.root_count > CATALOG_ROOTS_MAX ? -E2BIG : 0;
}

static void *copy_list(const void *list, size_t bytes)
{
	void *copy = malloc(bytes + 1);

	if (copy && bytes)
		memcpy(copy, list, bytes);
	return copy;
}

int capture_create(struct capture **created, const struct capture_options *options,
		   struct problem *problem)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	int err;

	if (!capture)
		return problem_set(problem, ENOMEM, "out of memory");
	capture->options = *options;
	err = copy_roots(capture, options);
	capture->groups = copy_list(options->groups, options->group_count * sizeof(gid_t));
	capture->skip = copy_list(options->skip, options->skip_count * sizeof(*options->skip));
	capture->window = malloc(CAPTURE_WINDOW_BYTES);
	if (!err && (!capture->groups || !capture->skip || !capture->window))
		err = -ENOMEM;
	capture->options.roots = (const char *const *)capture->roots;
	capture->options.groups = capture->groups;
	capture->options.skip = capture->skip;
	if (!err) {
		*created = capture;
		return 0;
	}
	capture_destroy(capture);
	return problem_set(problem, -err, err == -E2BIG ? "more than 64 directories to capture"
							 : "no memory to capture files");
}

void capture_destroy(struct capture *capture)
{
	if (!capture)
		return;
	listing_clear(&capture->listing);
	for (size_t i = 0; capture->roots && capture->roots[i]; i++)
		free(capture->roots[i]);
	free(capture->roots);
	free(capture->groups);
	free(capture->skip);
	free(capture->window);
	free(capture);
}
