// SPDX-License-Identifier: GPL-2.0
#include "mappings.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static enum mapping_kind kind_of(char shared, unsigned long inode, const char *name)
{
	if (!strncmp(name, "[vvar", 5) || !strncmp(name, "[vsyscall]", 10))
		return MAPPING_KERNEL;
	if (shared == 's')
		return MAPPING_SHARED;
	return inode || !strncmp(name, "[vdso]", 6) || *name == '/' ? MAPPING_PRIVATE : MAPPING_ANON;
}

/* A line is "START-END rwxp OFFSET MAJOR:MINOR INODE      NAME". */
static int line_add(struct mappings *mappings, const char *line)
{
	struct mapping mapping;
	unsigned long inode;
	int name = 0;
	char shared;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*c%*c%*c%c %*x %*x:%*x %lu %n", &mapping.start, &mapping.end, &shared,
		   &inode, &name) != 4)
		return -EPROTO;
	mappings->aio |= !strncmp(line + name, "/[aio]", 6);
	mapping.kind = kind_of(shared, inode, line + name);
	return mappings_add(mappings, &mapping);
}

int mappings_read(struct mappings *mappings, int maps)
{
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
		err = line_add(mappings, line);
	if (!err && ferror(file))
		err = -errno;
	return err ? err : mappings->count ? 0 : -ESRCH;
}

void mappings_free(struct mappings *mappings)
{
	free(mappings->list);
	*mappings = (struct mappings){};
}
