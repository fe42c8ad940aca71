// SPDX-License-Identifier: GPL-2.0
/*
 * Collecting: the way over an address space. Only this file, entries.c and known.c touch page tables.
 *
 * An entry is armed by clearing its soft-dirty bit and its write permission. The next write faults, and the kernel
 * makes the entry writable and soft-dirty again (x86's pte_mkdirty() does both). Both happen here in one cmpxchg under
 * the page-table lock, so the entry is never empty for MADV_DONTNEED or a lockless reader, and the dirty and accessed
 * bits that the CPU sets meanwhile are kept. Before COLLECT returns, every CPU has flushed: who reads the pages then
 * sees every write that went through an old translation.
 *
 * The soft-dirty bit alone does not tell the truth. These are the holes, and what is done about each:
 *
 * 1. In a VMA with VM_SOFTDIRTY, which every new or grown VMA has, the kernel thinks that soft-dirty is not in use and
 *    gives write permission back without a fault (mprotect; from 6.2 on NUMA hinting faults; swap-in). So the flag is
 *    cleared before anything in the VMA is armed. It comes back by itself when the VMA grows or merges with a new one,
 *    therefore an armed entry is never trusted for its bit alone: written = soft-dirty or writable. In the tables of a
 *    VMA that had the flag again ("fresh" tables), permission may have been given, used, and taken away again: by
 *    mprotect, fork, NUMA scanning. If that can have happened, all of the table is written. NUMA scanning does not need
 *    the mmap lock for write, but it changes entries under their table's lock, and counts before it begins.
 *    From 6.0 to 6.18 the flag may be gone again before it is seen here: two mappings that merge have the flags of one of
 *    them. There, every table is taken for fresh if mappings have changed at all, and what was in a range of mprotect()
 *    is not known any more (protect.c).
 * 2. mremap() of whole aligned tables moves the table, not its entries, and sets no bit. So the tracker remembers for
 *    each 2 MiB which table it armed there ("known" tables), and of no table two places. In a table that it did not
 *    arm, or armed elsewhere since, everything is written.
 * 3. A page may be written without an entry: DMA or a system call into pages that it holds a reference on. Taking such
 *    a reference needs a writable entry, which is soft-dirty. So the bit is not cleared while there are references
 *    from elsewhere. get_user_pages_fast() takes its reference and then looks at the entry again; here the entry
 *    changes first and the references are counted afterwards: one of the two sees the other.
 * 4. A migration entry becomes a writable entry again when migration ends, if it says so: it is left alone.
 * 5. The kernel makes some entries anew and forgets the bit: KSM, uprobes, swapoff (before 5.19), khugepaged when it
 *    makes small huge pages of read-only memory (7.x), and a read fault of a swapped page after hole 1. Those are clean
 *    for the CPU, while an armed entry has the CPU's dirty bit, or gets it. So what is clean is written. A page that
 *    MADV_FREE gave back has to stay clean, and is reported each time. A swap slot has no such bit: where KSM is at
 *    work, and where VM_SOFTDIRTY gets lost, swapped is written.
 * 6. Secondary MMUs (mmu notifiers), userfaultfd, hugetlb and shadow stacks: not tracked, always written.
 */
#include <linux/hugetlb.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "walk.h"

/*
 * A window ends after so much address space or so much work: whoever waits for the mm's lock to map something, and all
 * faults behind him, wait for one window at most. The unit is an entry that is only read, about half a nanosecond.
 */
#define WINDOW_BYTES	(4UL << 30)
#define WINDOW_WORK	(100 * 1024)

/* ---- VMAs ---- */

static enum vma_kind vma_kind(const struct vm_area_struct *vma)
{
	/* A shared mapping of a file that was opened for reading has VM_MAYSHARE only. */
	if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE))
		return VMA_SHARED;
	if (vma->vm_flags & VM_HUGETLB)
		return VMA_HUGETLB;
	return vma_is_anonymous((struct vm_area_struct *)vma) ? VMA_ANON : VMA_FILE;
}

static bool vma_tracks(struct vm_area_struct *vma)
{
	return !userfaultfd_armed(vma) && !(vma->vm_flags & VM_SHADOW_STACK);
}

static bool vma_unsettled(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SOFTDIRTY && vma_kind(vma) <= VMA_FILE;
}

static struct vm_area_struct *window_find_unsettled(struct walk *walk, unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(walk->mm, addr);

	while (vma && vma->vm_start < walk->stop && !vma_unsettled(vma))
		vma = find_vma(walk->mm, vma->vm_end);
	return vma && vma->vm_start < walk->stop ? vma : NULL;
}

/* Freshens the tables of the VMAs that have the flag. False if there are none. */
static bool window_freshen(struct walk *walk)
{
	struct vm_area_struct *vma = window_find_unsettled(walk, walk->next);

	if (!vma)
		return false;
	walk->fresh_start = vma->vm_start;
	for (; vma; vma = window_find_unsettled(walk, vma->vm_end))
		walk->fresh_end = vma->vm_end;
	ckpt_known_freshen(walk->tracker, walk->fresh_start, walk->fresh_end);
	return true;
}

/* Takes the flag from VMAs whose tables were freshened. */
static void window_settle(struct walk *walk)
{
	struct vm_area_struct *vma = window_find_unsettled(walk, walk->next);

	for (; vma; vma = window_find_unsettled(walk, vma->vm_end))
		if (vma->vm_start >= walk->fresh_start && vma->vm_end <= walk->fresh_end)
			ckpt_vma_clear_soft_dirty(vma);
}

static void stamp_next(struct ckpt_tracker *tracker)
{
	if (tracker->stamp++ < CKPT_TABLE_STAMP_MASK)
		return;
	ckpt_tables_expire(&tracker->tables);
	ckpt_cover_break(tracker);
	tracker->stamp = tracker->events_since = tracker->mappings_since = 1;
}

static void window_read_events(struct walk *walk)
{
	struct ckpt_tracker *tracker = walk->tracker;
	u64 mappings = ckpt_mappings_read(walk->mm, tracker->mappings);
	struct ckpt_events events;
	bool differ = ckpt_events_differ(walk, &events);

	if (differ || mappings != tracker->mappings)
		stamp_next(tracker);
	if (differ)
		tracker->events_since = tracker->stamp;
	if (mappings != tracker->mappings)
		tracker->mappings_since = tracker->stamp;
	tracker->events = events;
	tracker->mappings = mappings;
}

/* ---- tables ---- */

static bool walk_goes_on(const struct walk *walk)
{
	return walk->work > 0 && !walk->full && !walk->err;
}

/* An entry that has become another thing meanwhile is looked at again. */
static unsigned long walk_pmds(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long next;
	pmd_t value, *first = pmd - pmd_index(addr);

	while (addr < end && walk_goes_on(walk)) {
		pmd = first + pmd_index(addr);
		value = pmdp_get_lockless(pmd);
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		if (pmd_none(value) || (ckpt_pmd_is_table(value) && pmd_bad(value))) {
			addr = next;
			continue;
		}
		ckpt_cover_approach(walk, addr);
		addr = ckpt_pmd_is_table(value) ? ckpt_collect_table(walk, pmd, addr, next) : ckpt_collect_huges(walk, pmd, addr, end);
		cond_resched();
	}
	return addr;
}

static unsigned long walk_hugetlb_page(struct walk *walk, unsigned long addr, unsigned long end)
{
	return ckpt_report(walk, addr, end, CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT | CKPT_PAGE_UNTRACKED | CKPT_PAGE_HUGE) ?
	       end : addr;
}

static unsigned long walk_hugetlb(struct walk *walk, const pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long next;
	pmd_t value;

	for (; addr < end && walk_goes_on(walk); addr = next, pmd++) {
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		value = pmdp_get_lockless((pmd_t *)pmd);
		if (!pmd_none(value) && pmd_present(value) && walk_hugetlb_page(walk, addr, next) != next)
			break;
		walk->work--;
		cond_resched();
	}
	return addr;
}

/* The walk comes to 1 GiB with page tables; between the last one and this there were none. */
static bool walk_enter_chunk(struct walk *walk, unsigned long addr)
{
	struct ckpt_tables *tables = &walk->tracker->tables;

	ckpt_tables_forget(tables, walk->chunk, addr >> PUD_SHIFT);
	walk->chunk = max(walk->chunk, (addr >> PUD_SHIFT) + 1);
	walk->known = ckpt_tables_chunk(tables, addr >> PMD_SHIFT);
	if (!walk->known)
		walk->err = -ENOMEM;
	return walk->known;
}

static unsigned long walk_pud(struct walk *walk, unsigned long addr, unsigned long end)
{
	pud_t *pud = ckpt_pud_at(walk->mm, addr);
	pud_t value = pud ? READ_ONCE(*pud) : __pud(0);

	if (pud_none(value))
		return end;
	if (pud_flags(value) & _PAGE_PSE)
		return walk->kind == VMA_HUGETLB ? walk_hugetlb_page(walk, addr, end) : end;
	if (pud_bad(value))
		return end;
	if (walk->kind == VMA_HUGETLB)
		return walk_hugetlb(walk, pmd_offset(pud, addr), addr, end);
	return walk_enter_chunk(walk, addr) ? walk_pmds(walk, pmd_offset(pud, addr), addr, end) : addr;
}

static unsigned long walk_vma(struct walk *walk, unsigned long addr, unsigned long end)
{
	unsigned long next, done;

	for (; addr < end; addr = next) {
		next = min(end, (addr & PUD_MASK) + PUD_SIZE);
		done = walk_pud(walk, addr, next);
		if (done != next || !walk_goes_on(walk))
			return done;
	}
	return end;
}

/* ---- windows ---- */

static void walk_enter_vma(struct walk *walk, struct vm_area_struct *vma)
{
	walk->vma = vma;
	walk->kind = vma_kind(vma);
	walk->untracked = mm_has_notifiers(walk->mm) || !vma_tracks(vma);
	walk->arms = !CKPT_FORCED_WRITES_RACE || vma->vm_flags & VM_WRITE;
	walk->merges = vma->vm_flags & VM_MERGEABLE || ckpt_mm_merges(walk->mm);
	walk->next = max(walk->next, vma->vm_start);
}

static void window_walk(struct walk *walk)
{
	struct vm_area_struct *vma;
	unsigned long end;

	while (walk->next < walk->stop && walk_goes_on(walk)) {
		vma = find_vma(walk->mm, walk->next);
		if (!vma || vma->vm_start >= walk->stop) {
			walk->next = walk->stop;
			break;
		}
		walk_enter_vma(walk, vma);
		end = min(vma->vm_end, walk->stop);
		if (walk->kind != VMA_SHARED)
			walk->next = walk_vma(walk, walk->next, end);
		else if (ckpt_report(walk, walk->next, end, CKPT_PAGE_SHARED))
			walk->next = end;
	}
	ckpt_cover_approach(walk, walk->next);
	ckpt_tables_forget(&walk->tracker->tables, walk->chunk, walk->next >> PUD_SHIFT);
	walk->chunk = max(walk->chunk, walk->next >> PUD_SHIFT);
}

/* The next window begins where the next VMA does. */
static void window_place(struct walk *walk)
{
	struct vm_area_struct *vma = find_vma(walk->mm, walk->next);

	walk->next = vma ? clamp(vma->vm_start, walk->next, walk->end) : walk->end;
	walk->stop = min(walk->end, (walk->next & PMD_MASK) + WINDOW_BYTES);
	walk->work = WINDOW_WORK;
}

/*
 * Returns with the mmap lock held for read, and no VMA in the window with VM_SOFTDIRTY. The tables of a big VMA are
 * many: they are freshened under the lock for read, before the flag goes. A VMA that grows in between has to wait for
 * the next round; faults need no lock for write, so a round is short.
 */
static int window_lock(struct walk *walk)
{
	if (mmap_read_lock_killable(walk->mm))
		return -EINTR;
	window_place(walk);
	while (window_freshen(walk)) {
		mmap_read_unlock(walk->mm);
		if (mmap_write_lock_killable(walk->mm))
			return -EINTR;
		window_settle(walk);
		mmap_write_downgrade(walk->mm);
	}
	return 0;
}

static int window_collect(struct walk *walk)
{
	int err = window_lock(walk);

	if (err)
		return err;
	window_read_events(walk);
	window_walk(walk);
	mmap_read_unlock(walk->mm);
	return 0;
}

/* The last region stays, because the next window may extend it; it is then copied again. */
static int regions_copy_out(struct walk *walk, struct ckpt_collect *collect)
{
	struct ckpt_region __user *vec = u64_to_user_ptr(collect->vec);
	struct ckpt_region *regions = walk->tracker->regions;

	if (!walk->count)
		return 0;
	if (copy_to_user(vec + collect->out_count, regions, walk->count * sizeof(*vec)))
		return -EFAULT;
	collect->out_count += walk->count - 1;
	regions[0] = regions[walk->count - 1];
	walk->count = 1;
	return 0;
}

/* What stops a walk that has come somewhere is not an error: out_walk_end tells. */
static int walk_run(struct walk *walk, struct ckpt_collect *collect)
{
	int err = 0;

	while (!err && walk->next < walk->end && (!walk->full || walk->room)) {
		walk->full = false;
		err = signal_pending(current) ? -EINTR : window_collect(walk);
		if (!err)
			err = regions_copy_out(walk, collect) ?: walk->err;
		cond_resched();
	}
	return (err == -EINTR || err == -ENOMEM) && walk->next > collect->start ? 0 : err;
}

/*
 * While an entry has lost write permission and the flush is still to come, tlb_flush_pending tells others that they
 * cannot rely on the entry: KSM and NUMA hinting ask for it, and whoever unmaps or protects meanwhile flushes all of the
 * mm. fork() does so in any case. Faults go on: a page that was writable is exclusive to the mm, so a write fault makes
 * its entry writable again and never copies it under a CPU with an old translation; but see CKPT_COPIES_REFERENCED.
 */
int ckpt_walk(struct ckpt_tracker *tracker, struct mm_struct *mm, struct ckpt_collect *collect)
{
	struct walk walk = {
		.tracker = tracker, .mm = mm, .flags = collect->flags, .origin = collect->start, .next = collect->start,
		.chunk = DIV_ROUND_UP(collect->start, PUD_SIZE), .end = min_t(u64, collect->end, TASK_SIZE_MAX),
		.room = collect->vec_len,
	};
	int err;

	ckpt_cover_begin(&walk);
	inc_tlb_flush_pending(mm);
	err = walk_run(&walk, collect);
	ckpt_walk_flush(&walk);
	dec_tlb_flush_pending(mm);
	tracker->cover.next = walk.next;
	collect->out_count += walk.count;
	collect->out_walk_end = walk.next < walk.end ? walk.next : collect->end;
	return err;
}
