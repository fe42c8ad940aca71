// SPDX-License-Identifier: GPL-2.0
#include "image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC_INVENTORY 0x58313116u
#define MAGIC_COMMON 0x54564319u
#define MAGIC_PAGEMAP 0x56084025u

#define FLAG_LAZY 2u
#define FLAG_PRESENT 4u
#define IMG_VERSION 2
#define PRE_DUMP_READ 2

#define WRITE_BYTES (1u << 20)

/* The few protobuf fields that are needed: all of them varints. */
struct record {
	uint8_t bytes[128];
	uint32_t length;
};

static void put_varint(struct record *record, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		record->bytes[record->length++] = (uint8_t)(value | 0x80);
	record->bytes[record->length++] = (uint8_t)value;
}

static void put_field(struct record *record, unsigned int field, uint64_t value)
{
	put_varint(record, field << 3);
	put_varint(record, value);
}

static void write_u32(FILE *file, uint32_t value)
{
	value = htole32(value);
	fwrite(&value, sizeof(value), 1, file);
}

static void write_record(FILE *file, const struct record *record)
{
	write_u32(file, record->length);
	fwrite(record->bytes, record->length, 1, file);
}

static FILE *create(const char *directory, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return fopen(path, "we");
}

static int finish(FILE *file)
{
	bool failed = ferror(file);

	return fclose(file) || failed ? -EIO : 0;
}

int inventory_write(const char *directory, struct problem *problem)
{
	struct record record = { .length = 0 };
	struct timespec now;
	FILE *file;

	if (mkdir(directory, 0700) && errno != EEXIST)
		return problem_set(problem, errno, "cannot make %s: %s", directory, strerror(errno));
	file = create(directory, "inventory.img");
	if (!file)
		return problem_set(problem, errno, "cannot write %s/inventory.img: %s", directory,
				   strerror(errno));
	clock_gettime(CLOCK_BOOTTIME, &now);
	put_field(&record, 1, IMG_VERSION);
	put_field(&record, 2, 1);       /* fdinfo_per_id */
	put_field(&record, 4, 1);       /* ns_per_id */
	put_field(&record, 8, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	put_field(&record, 9, PRE_DUMP_READ);
	write_u32(file, MAGIC_INVENTORY);
	write_record(file, &record);
	if (finish(file))
		return problem_set(problem, EIO, "cannot write %s/inventory.img", directory);
	return 0;
}

int image_open(struct image_writer *writer, const char *directory, enum space_kind kind, uint64_t id,
	       uint32_t pages_id, struct problem *problem)
{
	struct record head = { .length = 0 };
	char name[64], path[4096];

	memset(writer, 0, sizeof(*writer));
	snprintf(name, sizeof(name), "pagemap-%s%lu.img", kind == SPACE_SHMEM ? "shmem-" : "", id);
	snprintf(path, sizeof(path), "%s/pages-%u.img", directory, pages_id);
	writer->pages_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	writer->pagemap = create(directory, name);
	writer->buffer = malloc(WRITE_BYTES);
	if (writer->pages_fd < 0 || !writer->pagemap || !writer->buffer) {
		image_close(writer);
		return problem_set(problem, errno ? errno : ENOMEM, "cannot write images into %s: %s",
				   directory, strerror(errno));
	}
	write_u32(writer->pagemap, MAGIC_COMMON);
	write_u32(writer->pagemap, MAGIC_PAGEMAP);
	put_field(&head, 1, pages_id);
	write_record(writer->pagemap, &head);
	return 0;
}

static int flush_pages(struct image_writer *writer)
{
	size_t done = 0;
	ssize_t n;

	while (done < writer->buffered) {
		n = write(writer->pages_fd, writer->buffer + done, writer->buffered - done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	writer->buffered = 0;
	return 0;
}

/* CRIU up to 4.1 reads the number of pages from field 2, later ones from field 5. */
static void flush_run(struct image_writer *writer)
{
	struct record entry = { .length = 0 };
	uint64_t pages = (writer->run_end - writer->run_start) / PAGE_BYTES;

	if (!pages)
		return;
	put_field(&entry, 1, writer->run_start);
	put_field(&entry, 2, pages);
	put_field(&entry, 4, writer->run_lazy ? FLAG_LAZY : FLAG_PRESENT);
	put_field(&entry, 5, pages);
	write_record(writer->pagemap, &entry);
}

static void extend_run(struct image_writer *writer, uint64_t address, bool lazy)
{
	const uint64_t most = UINT32_MAX / 2 * (uint64_t)PAGE_BYTES;

	if (address != writer->run_end || lazy != writer->run_lazy ||
	    writer->run_end - writer->run_start >= most) {
		flush_run(writer);
		writer->run_start = address;
		writer->run_lazy = lazy;
	}
	writer->run_end = address + PAGE_BYTES;
}

int image_lazy_page(struct image_writer *writer, uint64_t address)
{
	extend_run(writer, address, true);
	return 0;
}

int image_page(struct image_writer *writer, uint64_t address, const void *page)
{
	int ret;

	extend_run(writer, address, false);
	memcpy(writer->buffer + writer->buffered, page, PAGE_BYTES);
	writer->buffered += PAGE_BYTES;
	if (writer->buffered < WRITE_BYTES)
		return 0;
	ret = flush_pages(writer);
	return ret;
}

int image_close(struct image_writer *writer)
{
	int ret = 0;

	if (writer->pagemap) {
		flush_run(writer);
		ret = finish(writer->pagemap);
	}
	if (writer->pages_fd >= 0 && writer->buffer) {
		int flushed = flush_pages(writer);

		ret = ret ? ret : flushed;
	}
	if (writer->pages_fd >= 0 && close(writer->pages_fd) && !ret)
		ret = -errno;
	free(writer->buffer);
	memset(writer, 0, sizeof(*writer));
	writer->pages_fd = -1;
	return ret;
}
