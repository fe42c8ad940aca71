/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CKPT_INTERNAL_H
#define CKPT_INTERNAL_H

#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
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
};

#define CKPT_COVER_NONE		ULONG_MAX
#define CKPT_TABLE_UNKNOWN	0

/*
 * One per tracked mm. The mm is held by mm_count: its page tables may be gone, and mmget_not_zero() tells.
 * The file that user space holds owns the tracker; the file's operations hold the module.
 */
struct ckpt_tracker {
	struct list_head link;		/* in trackers; written under trackers_lock, read under RCU */
	struct rcu_head rcu;
	struct mm_struct *mm;
	struct pid *pid;		/* of the process that had it when the tracker was made */
	struct mutex lock;		/* the rest, and one collect at a time */
	u64 generation;
	struct xarray tables;		/* address >> PMD_SHIFT -> known table, see walk.c */
	struct ckpt_cover cover;
	struct ckpt_events events;
	u32 stamp;			/* counts changes of events */
};

int ckpt_device_register(void);
void ckpt_device_unregister(void);

int ckpt_watch_register(void);
void ckpt_watch_unregister(void);
/* Has the poll woken when a tracked process executes a program or exits. */
void ckpt_watch(struct file *file, poll_table *table);

/* A descriptor for the caller: reserved by a command, and installed or given back when the command has ended. */
struct ckpt_descriptor {
	int fd;			/* -1: none */
	struct file *file;
};

int ckpt_descriptor_reserve(struct ckpt_descriptor *new);

/* A new tracker of the task's mm. */
int ckpt_tracker_create(struct task_struct *task, struct ckpt_descriptor *new, u64 *generation);
/* Whether a process is tracked; for a moment only. */
bool ckpt_tracker_of(struct task_struct *task);
/* Everything is unknown again. */
void ckpt_tracker_restart(struct ckpt_tracker *tracker);

/* A userfaultfd of the mm, which has users. device_fd: the caller's /dev/userfaultfd. */
struct file *ckpt_userfaultfd_create(struct mm_struct *mm, int device_fd);

/* References on a compound page that are not its mappings' and the kernel's own. */
bool ckpt_page_referenced_elsewhere(struct page *head);
int ckpt_referenced_find(struct mm_struct *mm, struct ckpt_referenced *command);

int ckpt_walk(struct ckpt_tracker *tracker, struct mm_struct *mm, struct ckpt_collect *collect);

/* The ioctl envelope. */
struct ckpt_command {
	unsigned int number;
	size_t size;
	int (*run)(struct file *file, void *argument, struct ckpt_descriptor *new);
};

long ckpt_command_run(const struct ckpt_command *commands, size_t count, struct file *file, unsigned int number,
		      unsigned long argument);

#endif
