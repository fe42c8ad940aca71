/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of memory × event. A job makes an area of one kind of memory, then something happens to it, done by the job
 * itself or from outside, and at each step the copy that is kept from a tracker's reports must be the job's memory.
 */
#ifndef CKPT_MATRIX_H
#define CKPT_MATRIX_H

#include "../guest.h"

#define AREA_TABLES 2		/* whole page tables in an area; it begins and ends with parts of others */
#define AREA_EDGE_PAGES 8
#define AREA_PAGES (AREA_TABLES * (HUGE_BYTES / PAGE) + 2 * AREA_EDGE_PAGES)
#define STACK_PAGES 64
#define AREA_START ((char *)0x300000000000ul + HUGE_BYTES - AREA_EDGE_PAGES * PAGE)
#define ELSEWHERE ((char *)0x310000000000ul)

enum memory_kind {
	MEMORY_ANON, MEMORY_THP, MEMORY_FILE_TMPFS, MEMORY_FILE_EXT4, MEMORY_SWAPPED, MEMORY_HUGETLB, MEMORY_STACK, MEMORY_HEAP,
	MEMORY_NONE, MEMORY_VDSO, MEMORY_SHARED_ANON, MEMORY_MEMFD, MEMORY_TMPFS, MEMORY_SYSV, MEMORY_KINDS
};
#define MEMORY_BIT(kind) (1u << (kind))
#define MEMORY_SHARED (MEMORY_BIT(MEMORY_SHARED_ANON) | MEMORY_BIT(MEMORY_MEMFD) | MEMORY_BIT(MEMORY_TMPFS) | \
		       MEMORY_BIT(MEMORY_SYSV))
#define MEMORY_ALL (MEMORY_BIT(MEMORY_KINDS) - 1)

/* Where the job's memory of the kind is now. */
struct area {
	enum memory_kind kind;
	char *start;
	size_t pages;
	size_t unit;			/* pages of the least piece that can be mapped */
	size_t gone_start, gone_end;	/* pages that are not mapped any more */
};

struct memory {
	const char *name;
	/* Maps and fills the area. NULL, or why this node cannot. In the job. */
	const char *(*make)(struct area *area);
};
extern const struct memory memories[MEMORY_KINDS];

/* Writes something new into the page. */
void area_write(const struct area *area, size_t page);
void area_read(const struct area *area);
/* Writes a few pages here and there: of those that were filled, and some that were not. */
void area_write_some(const struct area *area);
/* Around writes: PROT_NONE memory is made writable. */
void area_open(const struct area *area);
void area_shut(const struct area *area);

/* Shared by the job and the test. */
struct control {
	struct area area;
	pid_t child;			/* a process that the event made, and that waits */
	char skip[128];			/* why the event cannot happen here */
};

/* The job reads with O_DIRECT; the disk answers when it is told to. */
struct disk;
struct disk *disk_create(void);		/* NULL: this kernel has no nbd */
void disk_await(struct disk *disk);	/* until the job's read has come */
void disk_answer(struct disk *disk);
void disk_destroy(struct disk *disk);

struct event {
	const char *name;
	/* What the job does; NULL or why it cannot. */
	const char *(*run)(struct area *area);
	/* What is done to the job from outside, by its parent; NULL or why it cannot. */
	const char *(*outside)(pid_t job, const struct area *area);
	unsigned int memories;		/* that it is for */
	const char *otherwise;		/* why not for others */
	bool reads_disk;		/* run() waits for the disk, over a collect */
	bool twice;			/* run() is called again after a collect */
};
extern const struct event events[];
extern const size_t event_count;

/* The job: makes memory of the kind and then does what it is told. After exec the same again. */
struct orders {
	int from_test, to_test;		/* pipes */
	int control_fd;			/* memfd with a struct control */
};
#define ORDER_WRITE 0xff		/* area_write_some(); else the order is the number of an event */
_Noreturn void job_main(const struct orders *orders, enum memory_kind kind);
/* main() of the new program. */
_Noreturn void job_main_again(char **argv);
/* For events. The test shall look at this process too. */
void job_child(pid_t child);
/* The job becomes a new program. */
const char *job_exec(struct area *area);

#endif
