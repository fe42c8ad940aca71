// SPDX-License-Identifier: GPL-2.0
/*
 * Collecting: the only file that touches page tables.
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
 *    the mmap lock for write, but it changes entries under the table's lock, and counts before it begins.
 * 2. mremap() of whole aligned tables moves the table, not its entries, and sets no bit. So the tracker remembers for
 *    each 2 MiB which table it armed there ("known" tables). In a table that it did not, everything is written.
 * 3. A page may be written without an entry: DMA or a system call into pages that it holds a reference on. Taking such
 *    a reference needs a writable entry, which is soft-dirty. So the bit is not cleared while there are references
 *    from elsewhere. get_user_pages_fast() takes its reference and then looks at the entry again; here the entry
 *    changes first and the references are counted afterwards: one of the two sees the other.
 * 4. A migration entry becomes a writable entry again when migration ends, if it says so: it is left alone.
 * 5. The kernel makes some entries anew and forgets the bit: KSM, uprobes, swapoff (before 5.19), khugepaged of small
 *    huge pages in read-only VMAs (7.x), and a read fault of a swapped page after hole 1. Those are clean for the CPU;
 *    an armed entry has the CPU's dirty bit, or gets it. So a clean one is written. A page that MADV_FREE gave back
 *    has to stay clean, and is reported each time. A swap slot has no such bit: where KSM is at work, swapped is written.
 * 6. Secondary MMUs (mmu notifiers), userfaultfd, hugetlb and shadow stacks: not tracked, always written.
 */
#include <linux/bitmap.h>
#include <linux/hugetlb.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "internal.h"

#define BOUNCE_REGIONS	512		/* 12 KiB */
#define WINDOW_BYTES	(4UL << 30)	/* address space per lock of the mm */
#define WINDOW_TABLES	128		/* page tables per lock of the mm: 256 MiB */

#define WALK_AGAIN	ULONG_MAX	/* instead of an address: another thing lies there now */

/*
 * A known table: which one it is, the tracker's stamp when it was last collected, and whether its VMA had
 * VM_SOFTDIRTY since. A huge page is known by the table that its entry is in, because that moves as well.
 */
#define TABLE_STAMP_BITS	21
#define TABLE_FRESH		BIT_ULL(TABLE_STAMP_BITS)
#define TABLE_STAMP(entry)	((entry) & (TABLE_FRESH - 1))
#define TABLE_IDENTITY(entry)	((entry) >> (TABLE_STAMP_BITS + 1))

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
	bool merges;			/* KSM is at work in the mm */
	u32 flags;
	unsigned long origin;		/* where the ioctl began, or the series of them that covers a table */
	unsigned long visited;		/* tables (address >> PMD_SHIFT) before are dealt with */
	unsigned long next;		/* all before is done */
	unsigned long stop;		/* of the window */
	unsigned long end;		/* of the ioctl */
	unsigned long fresh_start, fresh_end;
	unsigned int budget;		/* page tables left in the window */
	bool flush;			/* something lost write permission */
	bool full;			/* no room for another region */
	u64 room;			/* regions that the caller has left */
	u32 count;
	struct ckpt_region *regions;	/* BOUNCE_REGIONS */
	DECLARE_BITMAP(referenced, PTRS_PER_PTE); /* armed entries of pages with more references than one */
	DECLARE_BITMAP(writable, PTRS_PER_PTE);	/* of those, the ones that were writable */
	bool any_referenced;
};

/* ---- regions ---- */

/* Reports [start, end). False, and nothing is reported, when there is no room. */
static bool report(struct walk *walk, unsigned long start, unsigned long end, u32 categories)
{
	struct ckpt_region *last = walk->count ? &walk->regions[walk->count - 1] : NULL;

	if (!(categories & CKPT_PAGE_WRITTEN) && !(walk->flags & CKPT_COLLECT_PRESENT))
		return true;
	if (last && last->end == start && last->categories == categories) {
		last->end = end;
		return true;
	}
	if (walk->count == BOUNCE_REGIONS || !walk->room) {
		walk->full = true;
		return false;
	}
	walk->room--;
	walk->regions[walk->count++] = (struct ckpt_region){ .start = start, .end = end, .categories = categories };
	return true;
}

/* ---- known tables ---- */

static u64 table_entry(u64 identity, u32 stamp)
{
	return identity << (TABLE_STAMP_BITS + 1) | TABLE_STAMP(stamp);
}

static u64 table_identity(pmd_t table)
{
	return (u64)pmd_pfn(table) << 1;
}

static u64 huge_identity(const pmd_t *pmd)
{
	return (u64)page_to_pfn(virt_to_page(pmd)) << 1 | 1;
}

static u64 table_load(struct ckpt_tracker *tracker, unsigned long index)
{
	void *entry = xa_load(&tracker->tables, index);

	return entry ? xa_to_value(entry) : 0;
}

static void table_store(struct ckpt_tracker *tracker, unsigned long index, u64 entry)
{
	/* If memory is short the table stays unknown, or fresh. */
	xa_store(&tracker->tables, index, xa_mk_value(entry), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

/* The walk has passed the covered table's end. */
static void cover_complete(struct ckpt_tracker *tracker)
{
	struct ckpt_cover *cover = &tracker->cover;
	u64 entry = table_entry(cover->table, cover->stamp);

	if (cover->index != CKPT_COVER_NONE && cover->table != CKPT_TABLE_UNKNOWN &&
	    table_load(tracker, cover->index) != entry)
		table_store(tracker, cover->index, entry);
	cover->index = CKPT_COVER_NONE;
}

static void cover_break(struct ckpt_tracker *tracker)
{
	tracker->cover.table = CKPT_TABLE_UNKNOWN;
}

/*
 * There are no tables from the last one that the walk visited up to this one. One that was there once may be freed and
 * made again elsewhere, and then move here.
 */
static void tables_forget(struct walk *walk, unsigned long upto)
{
	struct xarray *tables = &walk->tracker->tables;
	unsigned long index;
	void *entry;

	if (upto > walk->visited)
		xa_for_each_range(tables, index, entry, walk->visited, upto - 1)
			xa_erase(tables, index);
	walk->visited = max(walk->visited, upto);
}

/* The walk comes to the table at addr; may sleep. */
static void cover_approach(struct walk *walk, unsigned long addr)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	if (cover->index != addr >> PMD_SHIFT)
		cover_complete(walk->tracker);
	tables_forget(walk, addr >> PMD_SHIFT);
	walk->visited = (addr >> PMD_SHIFT) + 1;
}

/* The walk is in the table at addr, and this is its identity; CKPT_TABLE_UNKNOWN if it cannot be tracked. */
static void cover_enter(struct walk *walk, unsigned long addr, u64 identity)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	if (identity == CKPT_TABLE_UNKNOWN)
		xa_erase(&walk->tracker->tables, addr >> PMD_SHIFT);
	if (cover->index == addr >> PMD_SHIFT) {
		if (cover->table != identity)
			cover_break(walk->tracker);
		return;
	}
	cover->index = addr >> PMD_SHIFT;
	cover->table = walk->origin <= (addr & PMD_MASK) ? identity : CKPT_TABLE_UNKNOWN;
	cover->stamp = walk->tracker->stamp;
}

static void cover_begin(struct walk *walk)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	if (cover->index != CKPT_COVER_NONE && cover->next == walk->origin)
		walk->origin = cover->index << PMD_SHIFT;
	else
		cover->index = CKPT_COVER_NONE;
	walk->visited = walk->origin >> PMD_SHIFT;
}

static void cover_end(struct walk *walk)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	cover->next = walk->next;
	if (cover->index != CKPT_COVER_NONE && walk->next >> PMD_SHIFT > cover->index)
		cover_complete(walk->tracker);
	tables_forget(walk, DIV_ROUND_UP(walk->next, PMD_SIZE));
}

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

/* The tables there are fresh. If part of one was collected just now, that part has to be looked at again. */
static void tables_freshen(struct ckpt_tracker *tracker, unsigned long start, unsigned long end)
{
	unsigned long index, first = start >> PMD_SHIFT, last = (end - 1) >> PMD_SHIFT;
	void *entry;

	if (tracker->cover.index >= first && tracker->cover.index <= last)
		cover_break(tracker);
	xa_for_each_range(&tracker->tables, index, entry, first, last) {
		if (!(xa_to_value(entry) & TABLE_FRESH))
			table_store(tracker, index, xa_to_value(entry) | TABLE_FRESH);
		cond_resched();
	}
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
	tables_freshen(walk->tracker, walk->fresh_start, walk->fresh_end);
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

/* See hole 1. What may take write permission away unseen: held off by the mmap lock, or counted here before it acts. */
static void events_read(struct walk *walk)
{
	struct ckpt_tracker *tracker = walk->tracker;
	struct ckpt_events events = {};

	ckpt_events_read(walk->mm, &events);
	if (memcmp(&events, &tracker->events, sizeof(events))) {
		tracker->events = events;
		tracker->stamp++;
	}
}

/* ---- entries ---- */

/* Under the table's lock. */
static enum trust table_trust(struct walk *walk, unsigned long addr, u64 identity)
{
	struct ckpt_tracker *tracker = walk->tracker;
	u64 entry = table_load(tracker, addr >> PMD_SHIFT);

	if (walk->untracked)
		return TRUST_NEVER;
	if (TABLE_IDENTITY(entry) != identity)
		return TRUST_NOTHING;
	if (!(entry & TABLE_FRESH))
		return walk->merges ? TRUST_PRESENT_BITS : TRUST_BITS;
	events_read(walk);
	if (TABLE_STAMP(entry) != TABLE_STAMP(tracker->stamp) || !(walk->vma->vm_flags & VM_WRITE) ||
	    walk->merges)
		return TRUST_NOTHING;
	return TRUST_PRESENT_BITS;
}

static u32 trust_categories(enum trust trust)
{
	return trust == TRUST_NEVER ? CKPT_PAGE_UNTRACKED | CKPT_PAGE_WRITTEN : 0;
}

/* For what is there and may be the job's own; written tells what the bits say. */
static u32 own_categories(enum trust trust, bool written, u32 categories)
{
	if (written || trust >= TRUST_NOTHING)
		categories |= CKPT_PAGE_WRITTEN;
	return categories | trust_categories(trust);
}

static bool pfn_is_anon(unsigned long pfn)
{
	return pfn_valid(pfn) && PageAnon(pfn_to_page(pfn));
}

/* As an armed entry is, and no other. */
static bool pte_armed(pte_t pte)
{
	return !(pte_flags(pte) & (_PAGE_SOFT_DIRTY | _PAGE_RW)) && pte_dirty(pte);
}

static bool pmd_armed(pmd_t pmd)
{
	return !(pmd_flags(pmd) & (_PAGE_SOFT_DIRTY | _PAGE_RW)) && pmd_dirty(pmd);
}

static u32 present_categories(const struct walk *walk, enum trust trust, pte_t pte)
{
	if (pte_special(pte))
		return is_zero_pfn(pte_pfn(pte)) ? CKPT_PAGE_PRESENT | CKPT_PAGE_ZERO : 0;
	if (walk->kind != VMA_ANON && !pfn_is_anon(pte_pfn(pte)))
		return CKPT_PAGE_PRESENT | CKPT_PAGE_FILE;
	return own_categories(trust, !pte_armed(pte), CKPT_PAGE_PRESENT);
}

static u32 absent_categories(enum trust trust, pte_t pte)
{
	switch (ckpt_swap_kind(pte)) {
	case CKPT_SWAP_SLOT:
		return own_categories(trust, pte_swp_soft_dirty(pte) || trust != TRUST_BITS, CKPT_PAGE_SWAPPED);
	case CKPT_SWAP_MIGRATION:
		return own_categories(trust, true, CKPT_PAGE_PRESENT);
	case CKPT_SWAP_DEVICE:
		return own_categories(TRUST_NEVER, true, CKPT_PAGE_PRESENT);
	default:
		return 0;
	}
}

/*
 * References that are not ours to know, whether for writing or not. The counts are read one after the other; reading
 * the references before and after sees a page that goes into or out of the swap cache or an LRU list in between as
 * referenced, never the other way round.
 */
static bool page_referenced_elsewhere(struct page *head)
{
	int before = page_ref_count(head);
	int expected = 1;

	if (before > 1) {
		expected = ckpt_page_mapcount(head);
		if (ckpt_page_in_swapcache(head))
			expected += compound_nr(head);
		/* Whoever took the page off the LRU list, or is about to put it there, has a reference. */
		if (!ckpt_page_on_lru(head))
			expected++;
	}
	return max(before, page_ref_count(head)) > expected;
}

static void pte_arm(pte_t *pte, pte_t old)
{
	bool keep_clean = !pte_dirty(old) && !ckpt_page_swapbacked(pfn_to_page(pte_pfn(old)));
	pte_t new;

	do {
		new = pte_wrprotect(pte_clear_soft_dirty(keep_clean ? old : pte_mkdirty(old)));
	} while (!try_cmpxchg(&pte->pte, &old.pte, new.pte));
}

static void pte_arm_swapped(pte_t *pte, pte_t old)
{
	pte_t new;

	do {
		new = pte_swp_clear_soft_dirty(old);
	} while (!try_cmpxchg(&pte->pte, &old.pte, new.pte));
}

static void pte_disarm(pte_t *pte, bool writable)
{
	pte_t old = READ_ONCE(*pte), new;

	do {
		new = pte_mksoft_dirty(old);
		if (CKPT_COPIES_REFERENCED && writable)
			new = pte_set_flags(new, _PAGE_RW);
	} while (!try_cmpxchg(&pte->pte, &old.pte, new.pte));
}

/* See hole 3. */
static void table_disarm_referenced(struct walk *walk, pte_t *table)
{
	struct page *head, *last = NULL;
	bool elsewhere = false;
	unsigned int i;

	for_each_set_bit(i, walk->referenced, PTRS_PER_PTE) {
		head = compound_head(pfn_to_page(pte_pfn(table[i])));
		if (head != last)
			elsewhere = page_referenced_elsewhere(head);
		last = head;
		if (elsewhere)
			pte_disarm(table + i, test_bit(i, walk->writable));
	}
	bitmap_zero(walk->referenced, PTRS_PER_PTE);
	bitmap_zero(walk->writable, PTRS_PER_PTE);
	walk->any_referenced = false;
}

/* Nearly every page has the one reference of this entry. To tell what others are takes longer and is done later. */
static void entry_arm_present(struct walk *walk, pte_t *pte, pte_t old)
{
	unsigned int index = ((unsigned long)pte & ~PAGE_MASK) / sizeof(*pte);

	if (!pte_armed(old))
		pte_arm(pte, old);
	walk->flush |= pte_write(old);
	if (page_ref_count(pfn_to_page(pte_pfn(old))) == 1)
		return;
	__set_bit(index, walk->referenced);
	if (pte_write(old))
		__set_bit(index, walk->writable);
	walk->any_referenced = true;
}

static bool vma_arms(const struct vm_area_struct *vma)
{
	return !CKPT_FORCED_WRITES_RACE || vma->vm_flags & VM_WRITE;
}

static void entry_arm(struct walk *walk, pte_t *pte, pte_t old, u32 categories)
{
	if (categories & CKPT_PAGE_UNTRACKED || !vma_arms(walk->vma))
		return;
	if (pte_present(old))
		entry_arm_present(walk, pte, old);
	else if (categories & CKPT_PAGE_SWAPPED && pte_swp_soft_dirty(old))
		pte_arm_swapped(pte, old);
}

/* Returns the address of the first entry that was not collected. Under the table's lock. */
static unsigned long collect_entries(struct walk *walk, enum trust trust, pte_t *pte, unsigned long addr,
				     unsigned long end)
{
	bool skip_clean = trust <= TRUST_PRESENT_BITS && !(walk->flags & CKPT_COLLECT_PRESENT);
	u32 categories;
	pte_t old;

	for (; addr < end; addr += PAGE_SIZE, pte++) {
		old = READ_ONCE(*pte);
		if (pte_none(old))
			continue;
		if (skip_clean && pte_present(old) && pte_armed(old))
			continue;
		categories = pte_present(old) ? present_categories(walk, trust, old) : absent_categories(trust, old);
		if (!categories)
			continue;
		if (!report(walk, addr, addr + PAGE_SIZE, categories))
			break;
		if (categories & CKPT_PAGE_WRITTEN)
			entry_arm(walk, pte, old, categories);
	}
	return addr;
}

static void flush_now(struct walk *walk)
{
	if (walk->flush)
		ckpt_flush_mm(walk->mm);
	walk->flush = false;
}

/* Before the lock of a table is released. */
static void flush_early(struct walk *walk)
{
	if (CKPT_COPIES_REFERENCED)
		flush_now(walk);
}

/* ---- tables ---- */

static bool pmd_is_table(pmd_t pmd)
{
	return pmd_present(pmd) && !(pmd_flags(pmd) & _PAGE_PSE);
}

/*
 * Tables are freed by RCU and their PMD entry is cleared under the table's lock or a lock that we would see changed,
 * so the entry is read again with the lock held.
 */
static unsigned long collect_table(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long done = WALK_AGAIN;
	spinlock_t *lock;
	u64 identity;
	pmd_t table;
	pte_t *pte;

	rcu_read_lock();
	table = pmdp_get_lockless(pmd);
	if (!pmd_is_table(table) || pmd_bad(table))
		goto unlock_rcu;
	lock = pte_lockptr(walk->mm, &table);
	spin_lock(lock);
	if (!pmd_same(table, pmdp_get_lockless(pmd)))
		goto unlock;
	identity = walk->untracked ? CKPT_TABLE_UNKNOWN : table_identity(table);
	cover_enter(walk, addr, identity);
	pte = pte_offset_kernel(&table, addr);
	done = collect_entries(walk, table_trust(walk, addr, identity), pte, addr, end);
	if (walk->any_referenced)
		table_disarm_referenced(walk, (pte_t *)((unsigned long)pte & PAGE_MASK));
	flush_early(walk);
unlock:
	spin_unlock(lock);
unlock_rcu:
	rcu_read_unlock();
	return done;
}

static u32 huge_categories(const struct walk *walk, enum trust trust, pmd_t pmd)
{
	if (!pmd_present(pmd))
		return own_categories(trust, true, CKPT_PAGE_PRESENT | CKPT_PAGE_HUGE);
	if (!pfn_valid(pmd_pfn(pmd)))
		return 0;
	if (pfn_is_anon(pmd_pfn(pmd)))
		return own_categories(trust, !pmd_armed(pmd), CKPT_PAGE_PRESENT | CKPT_PAGE_HUGE);
	return CKPT_PAGE_PRESENT | CKPT_PAGE_HUGE | (walk->kind == VMA_ANON ? CKPT_PAGE_ZERO : CKPT_PAGE_FILE);
}

static void huge_disarm(pmd_t *pmd, bool writable)
{
	pmd_t old = READ_ONCE(*pmd), new;

	do {
		new = pmd_mksoft_dirty(old);
		if (CKPT_COPIES_REFERENCED && writable)
			new = pmd_set_flags(new, _PAGE_RW);
	} while (!try_cmpxchg(&pmd->pmd, &old.pmd, new.pmd));
}

static void huge_arm(struct walk *walk, pmd_t *pmd, pmd_t old)
{
	struct page *head = pfn_to_page(pmd_pfn(old));
	bool keep_clean = !pmd_dirty(old) && !ckpt_page_swapbacked(head);
	pmd_t new;

	walk->flush |= pmd_write(old);
	do {
		new = pmd_wrprotect(pmd_clear_soft_dirty(keep_clean ? old : pmd_mkdirty(old)));
	} while (!try_cmpxchg(&pmd->pmd, &old.pmd, new.pmd));
	if (page_referenced_elsewhere(head))
		huge_disarm(pmd, pmd_write(old));
	flush_early(walk);
}

/* The same for a huge page. If only a part of it was asked for it is reported and not armed. */
static unsigned long collect_huge(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	spinlock_t *lock = pmd_lock(walk->mm, pmd);
	unsigned long done = WALK_AGAIN;
	pmd_t old = READ_ONCE(*pmd);
	u32 categories;
	u64 identity;

	if (pmd_none(old) || pmd_is_table(old))
		goto unlock;
	identity = walk->untracked ? CKPT_TABLE_UNKNOWN : huge_identity(pmd);
	cover_enter(walk, addr, identity);
	categories = huge_categories(walk, table_trust(walk, addr, identity), old);
	done = end;
	if (categories && !report(walk, addr, end, categories))
		done = addr;
	else if (categories & CKPT_PAGE_WRITTEN && !(categories & CKPT_PAGE_UNTRACKED) && pmd_present(old) &&
		 end - addr == PMD_SIZE && vma_arms(walk->vma))
		huge_arm(walk, pmd, old);
unlock:
	spin_unlock(lock);
	return done;
}

static unsigned long walk_pmd(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long done;
	pmd_t value;

	do {
		value = pmdp_get_lockless(pmd);
		if (pmd_none(value) || (pmd_is_table(value) && pmd_bad(value)))
			return end;
		cover_approach(walk, addr);
		done = pmd_is_table(value) ? collect_table(walk, pmd, addr, end) : collect_huge(walk, pmd, addr, end);
	} while (done == WALK_AGAIN);
	walk->budget -= pmd_is_table(value);
	return done;
}

static unsigned long walk_hugetlb(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	pmd_t value = pmdp_get_lockless(pmd);

	if (pmd_none(value) || !pmd_present(value))
		return end;
	return report(walk, addr, end, CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT | CKPT_PAGE_UNTRACKED | CKPT_PAGE_HUGE) ?
	       end : addr;
}

static unsigned long walk_pmds(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long next, done;

	for (; addr < end; addr = next, pmd++) {
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		done = walk->kind == VMA_HUGETLB ? walk_hugetlb(walk, pmd, addr, next) : walk_pmd(walk, pmd, addr, next);
		if (done != next || !walk->budget)
			return done;
		cond_resched();
	}
	return end;
}

static unsigned long walk_pud(struct walk *walk, unsigned long addr, unsigned long end)
{
	pgd_t *pgd = pgd_offset(walk->mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return end;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return end;
	pud = pud_offset(p4d, addr);
	if (pud_none(READ_ONCE(*pud)))
		return end;
	if (pud_flags(READ_ONCE(*pud)) & _PAGE_PSE) {
		if (walk->kind != VMA_HUGETLB || report(walk, addr, end, CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT |
							CKPT_PAGE_UNTRACKED | CKPT_PAGE_HUGE))
			return end;
		return addr;
	}
	if (pud_bad(*pud))
		return end;
	return walk_pmds(walk, pmd_offset(pud, addr), addr, end);
}

static unsigned long walk_vma(struct walk *walk, unsigned long addr, unsigned long end)
{
	unsigned long next, done;

	for (; addr < end; addr = next) {
		next = min(end, (addr & PUD_MASK) + PUD_SIZE);
		done = walk_pud(walk, addr, next);
		if (done != next || !walk->budget)
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
	walk->merges = vma->vm_flags & VM_MERGEABLE || ckpt_mm_merges(walk->mm);
	walk->next = max(walk->next, vma->vm_start);
}

static void window_walk(struct walk *walk)
{
	struct vm_area_struct *vma;
	unsigned long end;

	while (walk->next < walk->stop && walk->budget && !walk->full) {
		vma = find_vma(walk->mm, walk->next);
		if (!vma || vma->vm_start >= walk->stop) {
			walk->next = walk->stop;
			return;
		}
		walk_enter_vma(walk, vma);
		end = min(vma->vm_end, walk->stop);
		if (walk->kind != VMA_SHARED)
			walk->next = walk_vma(walk, walk->next, end);
		else if (report(walk, walk->next, end, CKPT_PAGE_SHARED))
			walk->next = end;
	}
}

/* The next window begins where the next VMA does. */
static void window_place(struct walk *walk)
{
	struct vm_area_struct *vma = find_vma(walk->mm, walk->next);

	walk->next = vma ? clamp(vma->vm_start, walk->next, walk->end) : walk->end;
	walk->stop = min(walk->end, (walk->next & PMD_MASK) + WINDOW_BYTES);
	walk->budget = WINDOW_TABLES;
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

/*
 * While an entry has lost write permission and the flush is still to come, tlb_flush_pending tells others (KSM, NUMA
 * hinting) that they cannot rely on the entry. Faults go on meanwhile: a page that was writable is exclusive to the
 * mm, so a write fault makes its entry writable again and never copies it under a CPU with an old translation.
 */
static int window_collect(struct walk *walk)
{
	int err = window_lock(walk);

	if (err)
		return err;
	events_read(walk);
	inc_tlb_flush_pending(walk->mm);
	window_walk(walk);
	flush_now(walk);
	dec_tlb_flush_pending(walk->mm);
	mmap_read_unlock(walk->mm);
	return 0;
}

/* The last region stays, because the next window may extend it; it is then copied again. */
static int regions_copy_out(struct walk *walk, struct ckpt_collect *collect)
{
	struct ckpt_region __user *vec = u64_to_user_ptr(collect->vec);

	if (!walk->count)
		return 0;
	if (copy_to_user(vec + collect->out_count, walk->regions, walk->count * sizeof(*vec)))
		return -EFAULT;
	collect->out_count += walk->count - 1;
	walk->regions[0] = walk->regions[walk->count - 1];
	walk->count = 1;
	return 0;
}

static int walk_run(struct walk *walk, struct ckpt_collect *collect)
{
	int err = 0;

	while (!err && walk->next < walk->end && (!walk->full || walk->room)) {
		walk->full = false;
		err = signal_pending(current) ? -EINTR : window_collect(walk);
		if (!err)
			err = regions_copy_out(walk, collect);
		cond_resched();
	}
	return err == -EINTR && walk->next > collect->start ? 0 : err;
}

int ckpt_walk(struct ckpt_tracker *tracker, struct mm_struct *mm, struct ckpt_collect *collect)
{
	struct walk *walk = kzalloc(sizeof(*walk), GFP_KERNEL_ACCOUNT);
	int err = -ENOMEM;

	if (!walk)
		return -ENOMEM;
	walk->regions = kvmalloc_array(BOUNCE_REGIONS, sizeof(*walk->regions), GFP_KERNEL_ACCOUNT);
	if (!walk->regions)
		goto free_walk;
	walk->tracker = tracker;
	walk->mm = mm;
	walk->flags = collect->flags;
	walk->origin = walk->next = collect->start;
	walk->end = min_t(u64, collect->end, TASK_SIZE_MAX);
	walk->room = collect->vec_len;
	cover_begin(walk);
	err = walk_run(walk, collect);
	cover_end(walk);
	collect->out_count += walk->count;
	collect->out_walk_end = walk->next < walk->end ? walk->next : collect->end;
	kvfree(walk->regions);
free_walk:
	kfree(walk);
	return err;
}
