/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of a collect share: walk.c goes over the address space, entries.c collects, known.c says what to trust. */
#ifndef CKPT_WALK_H
#define CKPT_WALK_H

#include <linux/bitmap.h>
#include <linux/mm.h>

#include "internal.h"

/* What is known of entries before looking at their bits. */
enum trust {
	TRUST_BITS,		/* soft-dirty or writable is written, the rest is not */
	TRUST_PRESENT_BITS,	/* the same, but swapped is written */
	TRUST_NOTHING,		/* all is written */
	TRUST_NEVER,		/* all is written, and is not armed */
};

enum vma_kind {
	VMA_ANON,		/* private; every present page is the job's own */
	VMA_FILE,		/* private; some are still the file's */
	VMA_SHARED,
	VMA_HUGETLB,
};

struct walk {
	struct ckpt_tracker *tracker;
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	enum vma_kind kind;
	bool untracked;			/* the mm, or else the VMA */
	bool arms;			/* the VMA */
	bool merges;			/* KSM is at work in the mm */
	u32 flags;
	unsigned long origin;		/* where the ioctl began, or the series of them that covers a table */
	unsigned long chunk;		/* 1 GiB (address >> PUD_SHIFT) that are below it are dealt with */
	u64 *known;			/* what is known of the tables in the 1 GiB that the walk is in */
	unsigned long next;		/* all before is done */
	unsigned long stop;		/* of the window */
	unsigned long end;		/* of the ioctl */
	unsigned long fresh_start, fresh_end;
	int work;			/* left in the window */
	int err;
	bool flush;			/* something lost write permission */
	bool full;			/* no room for another region */
	u64 room;			/* regions that the caller has left */
	u32 count;
	DECLARE_BITMAP(referenced, PTRS_PER_PTE); /* armed entries of pages with more references than one */
	DECLARE_BITMAP(writable, PTRS_PER_PTE);	/* of those, the ones that were writable */
	bool any_referenced;
};

/* ---- entries.c ---- */

/* Reports [start, end). False, and nothing is reported, when there is no room. */
bool ckpt_report(struct walk *walk, unsigned long start, unsigned long end, u32 categories);
/* Collect [addr, end), within one page table or among the huge pages of one; return where they stopped. */
unsigned long ckpt_collect_table(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end);
unsigned long ckpt_collect_huges(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end);
void ckpt_walk_flush(struct walk *walk);

/* ---- known.c ---- */

bool ckpt_pmd_is_table(pmd_t pmd);
u64 ckpt_table_identity(pmd_t table);
u64 ckpt_huge_identity(const pmd_t *pmd);
/* NULL if there is none. The VMA at addr keeps the tables down to the PMD's where they are. */
pud_t *ckpt_pud_at(struct mm_struct *mm, unsigned long addr);
/* See hole 1. What may take write permission away unseen: held off by the mmap lock, or counted here before it acts. */
bool ckpt_events_differ(const struct walk *walk, struct ckpt_events *events);
/* The stamp since which a known table that is not fresh has to be known. Under a table's lock, and for that table. */
u64 ckpt_known_since(const struct walk *walk);
/* The walk is in the table at addr, and has its lock. What is armed here is not known elsewhere any more. */
enum trust ckpt_table_enter(struct walk *walk, unsigned long addr, u64 identity);
/* [addr, done) was collected. */
void ckpt_table_leave(struct walk *walk, unsigned long addr, unsigned long done, u64 identity);
/* An ioctl begins: it may go on in the table in which the one before stopped. */
void ckpt_cover_begin(struct walk *walk);
/* The walk comes to the table at addr; may sleep. */
void ckpt_cover_approach(struct walk *walk, unsigned long addr);
/* In [start, end): tables are fresh, see hole 1. If part of one was collected just now, it has to be looked at again. */
void ckpt_known_freshen(struct ckpt_tracker *tracker, unsigned long start, unsigned long end);
/* What was collected of the table so far counts no more. */
void ckpt_cover_break(struct ckpt_tracker *tracker);

#endif
