/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CKPT_INTERNAL_H
#define CKPT_INTERNAL_H

#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/xarray.h>
#include <linux/ckpt.h>

#define CKPT_VERSION "0.1.0"

/*
 * What must be known of an mm to rely on write permission as evidence, see walk.c. When it changes, something may
 * have taken write permission away from written pages.
 */
struct ckpt_events {
	unsigned int forks;
	unsigned long numa_next_scan;
	unsigned long numa_scan_offset;
	int numa_scan_seq;
};

/*
 * The page table at which a walk stopped, or is: how much of it was reported without a gap. Only when all of it was,
 * it becomes a known table.
 */
struct ckpt_cover {
	unsigned long index;	/* address >> PMD_SHIFT, or CKPT_COVER_NONE */
	unsigned long next;	/* valid between two ioctls */
	u64 table;		/* its identity, or CKPT_TABLE_UNKNOWN */
	u32 stamp;		/* the tracker's when the walk came there */
};

#define CKPT_COVER_NONE		ULONG_MAX
#define CKPT_TABLE_UNKNOWN	0

/*
 * One per tracked mm. The mm is held by mm_count: its page tables may be gone, and mmget_not_zero() tells.
 * The file that user space holds owns the tracker; the file's operations hold the module.
 */
struct ckpt_tracker {
	struct list_head link;		/* in trackers, under trackers_lock */
	struct mm_struct *mm;
	struct mutex lock;		/* the rest, and one collect at a time */
	u64 generation;
	struct xarray tables;		/* address >> PMD_SHIFT -> known table, see walk.c */
	struct ckpt_cover cover;
	struct ckpt_events events;
	u32 stamp;			/* counts changes of events */
};

int ckpt_device_register(void);
void ckpt_device_unregister(void);

struct file;
/* The file of a new tracker of the task's mm. */
struct file *ckpt_tracker_create(struct task_struct *task, u64 *generation);
/* Everything is unknown again. */
void ckpt_tracker_restart(struct ckpt_tracker *tracker);

int ckpt_walk(struct ckpt_tracker *tracker, struct mm_struct *mm, struct ckpt_collect *collect);

/* The ioctl envelope. */
struct ckpt_command {
	unsigned int number;
	size_t size;
	int (*run)(struct file *file, void *argument);
};

long ckpt_command_run(const struct ckpt_command *commands, size_t count, struct file *file, unsigned int number,
		      unsigned long argument);

#endif
