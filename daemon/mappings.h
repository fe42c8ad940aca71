/* SPDX-License-Identifier: GPL-2.0 */
/* The mappings of a task, as /proc/PID/maps lists them. */
#ifndef CKPT_MAPPINGS_H
#define CKPT_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mapping_kind {
	MAPPING_ANON,		/* private and anonymous */
	MAPPING_PRIVATE,	/* private otherwise: of a file, [vdso] */
	MAPPING_HUGE,		/* private, of hugetlbfs: the kernel keeps no soft-dirty bits there */
	MAPPING_SHARED,
	MAPPING_KERNEL,		/* pages of the kernel, that nobody can read from outside: [vvar], [vsyscall] */
};

struct mapping {
	uint64_t start;
	uint64_t end;
	enum mapping_kind kind;
};

struct mappings {
	struct mapping *list;	/* sorted, not overlapping */
	size_t count;
	size_t space;
	bool aio;		/* there is a ring of the kernel's asynchronous I/O, io_setup(2) */
};

static inline bool mapping_is_private(const struct mapping *mapping)
{
	return mapping->kind <= MAPPING_HUGE;
}

/*
 * The list of the address space that the process has now, whatever it executes later; a descriptor or -errno.
 * Reading it later gives no mappings when that address space is gone.
 */
int mappings_open(pid_t pid);
/*
 * 0 or -errno; -ESRCH: the address space is gone. The list is not one moment's while the job runs, and what is MAPPING_HUGE
 * is asked of the process as it is now.
 */
int mappings_read(struct mappings *mappings, int maps, pid_t pid);
void mappings_free(struct mappings *mappings);

#endif
