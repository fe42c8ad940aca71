// SPDX-License-Identifier: GPL-2.0
#include "mappings.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "cleanup.h"

int mappings_open(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? fd : errno == ENOENT ? -ESRCH : -errno;
}

static int mappings_add(struct mappings *mappings, const struct mapping *mapping)
{
	struct mapping *grown;

	if (mappings->count == mappings->space) {
		mappings->space = mappings->space ? mappings->space * 2 : 64;
		grown = reallocarray(mappings->list, mappings->space, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		mappings->list = grown;
	}
	mappings->list[mappings->count++] = *mapping;
	return 0;
}

/* A line of the list. */
struct line {
	uint64_t start, end, inode;
	unsigned int major, minor;
	char shared;
	int name;		/* where it begins */
};

/* The file systems of private mappings, since lines of one file and of one file system come in a row. */
struct file_system {
	pid_t pid;
	unsigned int major, minor;
	bool known, huge;
};

static bool line_is_huge(struct file_system *last, const struct line *line)
{
	char path[96];
	struct statfs fs;

	if (last->known && last->major == line->major && last->minor == line->minor)
		return last->huge;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, last->pid, line->start, line->end);
	*last = (struct file_system){ .pid = last->pid, .major = line->major, .minor = line->minor };
	/* If it changes meanwhile: what is taken for huge pages is only reported too often. */
	last->known = statfs(path, &fs) == 0;
	last->huge = !last->known || fs.f_type == HUGETLBFS_MAGIC;
	return last->huge;
}

static enum mapping_kind line_kind(struct file_system *last, const struct line *line, const char *name)
{
	if (!strncmp(name, "[vvar", 5) || !strncmp(name, "[vsyscall]", 10))
		return MAPPING_KERNEL;
	if (line->shared == 's')
		return MAPPING_SHARED;
	if (line->inode)
		return line_is_huge(last, line) ? MAPPING_HUGE : MAPPING_PRIVATE;
	return *name == '/' || !strncmp(name, "[vdso]", 6) ? MAPPING_PRIVATE : MAPPING_ANON;
}

/* "START-END rwxp OFFSET MAJOR:MINOR INODE      NAME" */
static int line_add(struct mappings *mappings, struct file_system *last, const char *text)
{
	uint64_t end = mappings->count ? mappings->list[mappings->count - 1].end : 0;
	struct line line = {};
	struct mapping mapping;

	if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %*c%*c%*c%c %*x %x:%x %" SCNu64 " %n", &line.start, &line.end,
		   &line.shared, &line.major, &line.minor, &line.inode, &line.name) != 6)
		return -EPROTO;
	mappings->aio |= !strncmp(text + line.name, "/[aio]", 6);
	mapping = (struct mapping){ .start = line.start, .end = line.end };
	mapping.kind = line_kind(last, &line, text + line.name);
	/* The kernel prints a mapping again when the job has joined it with the next one meanwhile. */
	if (mapping.start < end)
		mapping.start = end;
	return mapping.start < mapping.end ? mappings_add(mappings, &mapping) : 0;
}

int mappings_read(struct mappings *mappings, int maps, pid_t pid)
{
	struct file_system last = { .pid = pid };
	cleanup_fclose FILE *file = NULL;
	cleanup_free char *line = NULL;
	size_t space = 0;
	int fd, err = 0;

	mappings->count = 0;
	mappings->aio = false;
	fd = lseek(maps, 0, SEEK_SET) ? -1 : fcntl(maps, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0)
		file = fdopen(fd, "r");
	if (!file) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err && getline(&line, &space, file) > 0)
		err = line_add(mappings, &last, line);
	if (!err && ferror(file))
		err = -errno;
	return err ? err : mappings->count ? 0 : -ESRCH;
}

void mappings_free(struct mappings *mappings)
{
	free(mappings->list);
	*mappings = (struct mappings){};
}
