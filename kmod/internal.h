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

/* ---- tables.c: which page table was armed in which 2 MiB ---- */

/* Identity, fresh, stamp: an entry of 64 bits. 0: nothing is known. */
#define CKPT_TABLE_STAMP_BITS	22
#define CKPT_TABLE_STAMP_MASK	(BIT_ULL(CKPT_TABLE_STAMP_BITS) - 1)
#define CKPT_TABLE_FRESH	BIT_ULL(CKPT_TABLE_STAMP_BITS)
#define CKPT_TABLE_IDENTITY(entry)	((entry) >> (CKPT_TABLE_STAMP_BITS + 1))
#define CKPT_TABLE_ENTRY(identity, stamp)	((u64)(identity) << (CKPT_TABLE_STAMP_BITS + 1) | (stamp))
/* A page table's page frame, or that of the table in which a huge page has its entry. */
#define CKPT_TABLE_OF_PAGES(pfn)	((u64)(pfn) << 1)
#define CKPT_TABLE_OF_HUGE(pfn)		((u64)(pfn) << 1 | 1)
#define CKPT_TABLE_IS_HUGE(identity)	((identity) & 1)
#define CKPT_TABLE_UNKNOWN	0

struct ckpt_tables {
	struct xarray chunks;		/* address >> PUD_SHIFT -> entries */
	u64 *places;			/* index + 1, at the hash of the identity */
	unsigned int places_bits;
	unsigned long places_used;
};

/* An index is address >> PMD_SHIFT. */
void ckpt_tables_init(struct ckpt_tables *tables);
void ckpt_tables_destroy(struct ckpt_tables *tables);
/* The entries of the 1 GiB around an index, or NULL if memory is short. What comes after it needs no memory. */
u64 *ckpt_tables_chunk(struct ckpt_tables *tables, unsigned long index);
/* What has this identity is not known any more, wherever it was. */
void ckpt_tables_take(struct ckpt_tables *tables, u64 identity, unsigned long index);
/* Sets the entry at the index. */
void ckpt_tables_set(struct ckpt_tables *tables, u64 *entry, unsigned long index, u64 value);
void ckpt_tables_freshen(struct ckpt_tables *tables, unsigned long first, unsigned long last);
/* No entry has a stamp any more. */
void ckpt_tables_expire(struct ckpt_tables *tables);
/* Nothing is known of [first, last] any more. Does not sleep. */
void ckpt_tables_unknown(struct ckpt_tables *tables, unsigned long first, unsigned long last);
/* There are no tables in the chunks [first, end). */
void ckpt_tables_forget(struct ckpt_tables *tables, unsigned long first, unsigned long end);

/*
 * The page table at which a walk stopped, or is: how much of it was reported without a gap. Only when all of it was,
 * it becomes a known table.
 */
struct ckpt_cover {
	unsigned long index;	/* or CKPT_COVER_NONE */
	unsigned long next;	/* valid between two ioctls */
	u64 table;		/* its identity, or CKPT_TABLE_UNKNOWN */
	u64 stamp;		/* when it began */
};

#define CKPT_COVER_NONE		ULONG_MAX

/*
 * One per tracked mm. The mm is held by mm_count: its page tables may be gone, and mmget_not_zero() tells.
 * The file that user space holds owns the tracker; the file's operations hold the module.
 */
struct ckpt_tracker {
	struct list_head link;		/* in trackers; written under trackers_lock, read under RCU */
	struct mm_struct *mm;
	struct pid *pid;		/* of the process that had it when the tracker was made */
	struct mutex lock;		/* the rest, and one collect at a time */
	u64 generation;
	struct ckpt_tables tables;	/* changed with the mm's lock held, too: ckpt_tracker_unknown() has only that */
	struct ckpt_cover cover;
	struct ckpt_events events;
	u64 mappings;			/* see ckpt_mappings_read() */
	u64 stamp;			/* counts changes of events and mappings, from 1 to CKPT_TABLE_STAMP_MASK */
	u64 events_since;		/* the stamp since which events are what they are */
	u64 mappings_since;
	struct ckpt_region *regions;	/* CKPT_BOUNCE_REGIONS, on their way to user space */
};

#define CKPT_BOUNCE_REGIONS	1024	/* 24 KiB */

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
/* The mm's lock is held for write: [start, end) is unknown again, if the mm is tracked. Does not sleep. */
void ckpt_tracker_unknown(struct mm_struct *mm, unsigned long start, unsigned long end);
/* The same for a tracker. */
void ckpt_known_forget(struct ckpt_tracker *tracker, unsigned long start, unsigned long end);
/* Everything is unknown again. */
void ckpt_tracker_restart(struct ckpt_tracker *tracker);

/* Has ckpt_tracker_unknown() called where mprotect() has to be known of. */
void ckpt_protect_register(void);
void ckpt_protect_unregister(void);
/* False if that failed: there is no soft-dirty then. */
bool ckpt_protect_seen(void);

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
