// SPDX-License-Identifier: GPL-2.0
#include "vma_image.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bytes.h"
#include "cleanup.h"
#include "directory.h"
#include "image_reader.h"

#define MAGIC_MM 0x57492820u

/* CRIU's status of an ordinary private anonymous mapping; any other bit but these two keeps it from being lazy. */
#define STATUS_REGULAR (1u << 0)
#define STATUS_HEAP (1u << 5)
#define STATUS_ANON_PRIVATE (1u << 9)

enum {
	MM_ARGUMENTS = 8,               /* start, and then end */
	MM_ENVIRONMENT = 10,
	MM_MAPPING = 14,
	VMA_ADVICE = 9,
};

struct vma {
	uint64_t start, end, flags, status, advice;
};

static bool read_vma(struct image_reader bytes, struct vma *vma)
{
	struct image_field field;

	*vma = (struct vma){ 0 };
	while (image_next(&bytes, &field)) {
		switch (field.number) {
		case 1: vma->start = field.value; break;
		case 2: vma->end = field.value; break;
		case 6: vma->flags = field.value; break;
		case 7: vma->status = field.value; break;
		case VMA_ADVICE: vma->advice = field.value; break;
		}
	}
	return !bytes.bad && vma->start < vma->end && !(vma->start % PAGE_BYTES) && !(vma->end % PAGE_BYTES);
}

static bool may_be_lazy(const struct vma *vma)
{
	return vma->flags & MAP_ANONYMOUS && vma->flags & MAP_PRIVATE &&
	       !(vma->flags & (MAP_LOCKED | MAP_HUGETLB)) && vma->status & STATUS_ANON_PRIVATE &&
	       !(vma->status & ~(STATUS_REGULAR | STATUS_HEAP | STATUS_ANON_PRIVATE)) &&
	       !(vma->advice & 1u << MADV_WIPEONFORK);
}

/* What is not kept of it. The category keeps neighbours apart: CRIU watches each mapping by itself. */
static int add_without(struct regions *regions, const struct vma *vma, const struct regions *kept, uint32_t category)
{
	uint64_t start = vma->start;
	int ret = 0;

	for (size_t i = 0; i < kept->count && ret == 0; i++) {
		const struct region *keep = &kept->list[i];

		if (keep->end <= start || keep->start >= vma->end)
			continue;
		if (keep->start > start)
			ret = regions_add(regions, start, keep->start, category);
		start = keep->end;
	}
	return ret || start >= vma->end ? ret : regions_add(regions, start, vma->end, category);
}

/* /proc shows a program's arguments and environment, and does not wait for them. */
static int keep_strings(struct image_reader mm, struct regions *kept)
{
	uint64_t ends[4] = { 0 };
	struct image_field field;
	int ret = 0;

	while (image_next(&mm, &field))
		if (field.number >= MM_ARGUMENTS && field.number < MM_ARGUMENTS + 4)
			ends[field.number - MM_ARGUMENTS] = field.value;
	for (int i = 0; i < 4 && ret == 0; i += 2)
		if (ends[i] < ends[i + 1])
			ret = regions_add(kept, ends[i] & -(uint64_t)PAGE_BYTES,
					  (ends[i + 1] + PAGE_BYTES - 1) & -(uint64_t)PAGE_BYTES, 0);
	return mm.bad ? -EBADMSG : ret ? ret : regions_normalise(kept);
}

static int add_mappings(struct image_reader mm, const struct regions *kept, struct regions *regions)
{
	struct image_field field;
	struct vma vma;
	uint32_t count = 0;
	int ret = 0;

	while (ret == 0 && image_next(&mm, &field)) {
		if (field.number != MM_MAPPING)
			continue;
		if (!read_vma(field.inner, &vma))
			return -EBADMSG;
		if (may_be_lazy(&vma))
			ret = add_without(regions, &vma, kept, count++ & 1);
	}
	return mm.bad ? -EBADMSG : ret;
}

int vma_image_lazy(const char *directory, uint64_t id, const struct regions *pointed, struct regions *regions,
		   struct problem *problem)
{
	char path[PATH_MAX];
	cleanup_free uint8_t *bytes = NULL;
	struct image_reader mm;
	struct regions kept = { 0 };
	int ret;

	snprintf(path, sizeof(path), "%s/mm-%lu.img", directory, id);
	ret = image_read(path, MAGIC_MM, &bytes, &mm, problem);
	if (ret)
		return ret;
	ret = regions_add_all(&kept, pointed);
	if (ret == 0)
		ret = keep_strings(mm, &kept);
	if (ret == 0)
		ret = add_mappings(mm, &kept, regions);
	regions_free(&kept);
	if (ret == -EBADMSG)
		return image_unknown(path, problem);
	return ret ? problem_set(problem, -ret, "no memory to read %s", path) : 0;
}

/* ---- advice ---- */

static void write_varint(FILE *out, uint64_t value)
{
	uint8_t bytes[10];

	fwrite(bytes, 1, put_varint(bytes, value), out);
}

static bool begins_in(const struct vma *vma, const struct regions *regions)
{
	for (size_t i = 0; i < regions->count; i++)
		if (vma->start >= regions->list[i].start && vma->start < regions->list[i].end)
			return true;
	return false;
}

/* Of fields that stand there twice the last one counts. */
static void write_advised(const struct image_field *field, uint64_t advice, FILE *out)
{
	uint8_t added[11] = { VMA_ADVICE << 3 };
	size_t length = (size_t)(field->inner.end - field->inner.at), more = 1 + put_varint(added + 1, advice);

	write_varint(out, MM_MAPPING << 3 | 2);
	write_varint(out, length + more);
	fwrite(field->inner.at, 1, length, out);
	fwrite(added, 1, more, out);
}

static int copy_advised(struct image_reader mm, const struct regions *regions, int advice, FILE *out)
{
	struct image_field field;
	struct vma vma;

	for (const uint8_t *begin = mm.at; image_next(&mm, &field); begin = mm.at) {
		if (field.number == MM_MAPPING && !read_vma(field.inner, &vma))
			return -EBADMSG;
		if (field.number == MM_MAPPING && begins_in(&vma, regions))
			write_advised(&field, vma.advice | 1ull << advice, out);
		else
			fwrite(begin, 1, (size_t)(mm.at - begin), out);
	}
	return mm.bad ? -EBADMSG : 0;
}

static int image_write(const char *path, const uint8_t *header, const char *record, size_t length)
{
	cleanup_fclose FILE *file = fopen(path, "we");
	uint8_t size[4];

	put_le32(size, (uint32_t)length);
	if (!file || fwrite(header, 1, 8, file) != 8 || fwrite(size, 1, 4, file) != 4 ||
	    fwrite(record, 1, length, file) != length || fflush(file))
		return -errno ?: -EIO;
	return 0;
}

int vma_image_advise(const char *directory, uint64_t id, const struct regions *regions, int advice, struct problem *problem)
{
	char path[PATH_MAX];
	cleanup_free uint8_t *bytes = NULL;
	cleanup_free char *record = NULL;
	size_t length = 0;
	struct image_reader mm;
	FILE *out;
	int ret;

	snprintf(path, sizeof(path), "%s/mm-%lu.img", directory, id);
	ret = image_read(path, MAGIC_MM, &bytes, &mm, problem);
	if (ret)
		return ret;
	out = open_memstream(&record, &length);
	ret = out ? copy_advised(mm, regions, advice, out) : -ENOMEM;
	if (out && fclose(out))
		ret = -ENOMEM;
	if (ret == -EBADMSG)
		return image_unknown(path, problem);
	if (ret == 0)
		ret = image_write(path, bytes, record, length);
	return ret ? problem_set(problem, -ret, "cannot write %s: %s", path, strerror(-ret)) : 0;
}

int vma_refuse_high(uint64_t pid, uint64_t start, uint64_t end, struct problem *problem)
{
	return problem_set(problem, ENOTSUP, "process %llu has memory above 128 TiB (at %llx-%llx), which CRIU does not save: let "
			   "the program give mmap() no addresses there", (unsigned long long)pid, (unsigned long long)start,
			   (unsigned long long)end);
}

static int check_mappings(struct image_reader mm, uint64_t id, struct problem *problem)
{
	struct image_field field;
	struct vma vma;

	while (image_next(&mm, &field)) {
		if (field.number != MM_MAPPING)
			continue;
		if (!read_vma(field.inner, &vma))
			return -EBADMSG;
		if (vma_is_high(vma.start, vma.end))
			return vma_refuse_high(id, vma.start, vma.end, problem);
	}
	return mm.bad ? -EBADMSG : 0;
}

static int check_image(const char *directory, const char *name, struct problem *problem)
{
	char path[PATH_MAX];
	cleanup_free uint8_t *bytes = NULL;
	struct image_reader mm;
	unsigned long id;
	int end = 0, ret;

	if (sscanf(name, "mm-%lu.img%n", &id, &end) != 1 || !end || name[end])
		return 0;
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	ret = image_read(path, MAGIC_MM, &bytes, &mm, problem);
	if (ret == 0)
		ret = check_mappings(mm, id, problem);
	return ret == -EBADMSG ? image_unknown(path, problem) : ret;
}

int vma_images_check(const char *directory, struct problem *problem)
{
	DIR *dir = opendir(directory);
	struct dirent *entry = NULL;
	int ret = dir ? 0 : -errno;

	while (ret == 0 && (ret = directory_next(dir, &entry)) == 0 && entry)
		ret = check_image(directory, entry->d_name, problem);
	if (dir)
		closedir(dir);
	return ret && !entry ? problem_set(problem, -ret, "cannot read %s: %s", directory, strerror(-ret)) : ret;
}
