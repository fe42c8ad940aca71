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
 *    the mmap lock for write, but it changes entries under their table's lock, and counts before it begins.
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
 *    work, swapped is written.
 * 6. Secondary MMUs (mmu notifiers), userfaultfd, hugetlb and shadow stacks: not tracked, always written.
 */
#include <linux/bitmap.h>
#include <linux/hugetlb.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "internal.h"

/*
 * A window ends after so much address space or so much work: whoever waits for the mm's lock to map something, and all
 * faults behind him, wait for one window at most. The unit is an entry that is only read, about half a nanosecond.
 */
#define WINDOW_BYTES	(4UL << 30)
#define WINDOW_WORK	(100 * 1024)
#define WORK_ARMED	16		/* an entry that is armed */
#define WORK_HUGE	16		/* a huge page */
#define HUGE_BATCH	64		/* huge pages per lock of their table */

/* In all entries that are present and not of PROT_NONE: what tells that the page was written; an armed one has none. */
#define ENTRY_WRITTEN	(_PAGE_SOFT_DIRTY | _PAGE_RW)
/* What an armed one has, see hole 5. */
#define ENTRY_ARMED	CKPT_PAGE_DIRTY_READ_ONLY

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

/* ---- regions ---- */

/* A region that ends where [start, … begins and may be extended. NULL when there is no room. */
static struct ckpt_region *region_at(struct walk *walk, unsigned long start, u32 categories)
{
	struct ckpt_region *regions = walk->tracker->regions;
	struct ckpt_region *last = walk->count ? &regions[walk->count - 1] : NULL;

	if (last && last->end == start && last->categories == categories)
		return last;
	if (walk->count == CKPT_BOUNCE_REGIONS || !walk->room) {
		walk->full = true;
		return NULL;
	}
	walk->room--;
	last = &regions[walk->count++];
	*last = (struct ckpt_region){ .start = start, .end = start, .categories = categories };
	return last;
}

/* Reports [start, end). False, and nothing is reported, when there is no room. */
static bool report(struct walk *walk, unsigned long start, unsigned long end, u32 categories)
{
	struct ckpt_region *region;

	if (!(categories & CKPT_PAGE_WRITTEN) && !(walk->flags & CKPT_COLLECT_PRESENT))
		return true;
	region = region_at(walk, start, categories);
	if (region)
		region->end = end;
	return region;
}

/* ---- known tables ---- */

static u64 table_identity(pmd_t table)
{
	return CKPT_TABLE_OF_PAGES(pmd_pfn(table));
}

static u64 huge_identity(const pmd_t *pmd)
{
	return CKPT_TABLE_OF_HUGE(page_to_pfn(virt_to_page(pmd)));
}

static bool pmd_is_table(pmd_t pmd)
{
	return pmd_present(pmd) && !(pmd_flags(pmd) & _PAGE_PSE);
}

/* NULL if there is none. The VMA at addr keeps the tables down to the PMD's where they are. */
static pud_t *pud_at(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	return p4d_none(*p4d) || p4d_bad(*p4d) ? NULL : pud_offset(p4d, addr);
}

static pmd_t *pmd_at(struct mm_struct *mm, unsigned long addr)
{
	pud_t *pud = pud_at(mm, addr);
	pud_t value = pud ? READ_ONCE(*pud) : __pud(0);

	return pud_none(value) || pud_bad(value) ? NULL : pmd_offset(pud, addr);
}

/* The table may have moved away between two parts of it, without a part that would have shown it. */
static bool cover_holds(const struct walk *walk, const struct ckpt_cover *cover)
{
	unsigned long start = cover->index << PMD_SHIFT;
	struct vm_area_struct *vma = find_vma(walk->mm, start);
	pmd_t *pmd, value;

	if (cover->table == CKPT_TABLE_UNKNOWN || !vma || vma->vm_start >= start + PMD_SIZE)
		return false;
	pmd = pmd_at(walk->mm, max(start, vma->vm_start));
	if (!pmd)
		return false;
	if (CKPT_TABLE_IS_HUGE(cover->table))
		return huge_identity(pmd) == cover->table;
	value = pmdp_get_lockless(pmd);
	return pmd_is_table(value) && table_identity(value) == cover->table;
}

/* The walk has passed the covered table's end, in this window. */
static void cover_complete(struct walk *walk)
{
	struct ckpt_tables *tables = &walk->tracker->tables;
	struct ckpt_cover *cover = &walk->tracker->cover;
	u64 *known;

	if (cover_holds(walk, cover)) {
		known = ckpt_tables_chunk(tables, cover->index);
		if (known)
			ckpt_tables_set(tables, known + cover->index % PTRS_PER_PMD, cover->index,
					CKPT_TABLE_ENTRY(cover->table, cover->stamp));
	}
	cover->index = CKPT_COVER_NONE;
}

static void cover_break(struct ckpt_tracker *tracker)
{
	tracker->cover.table = CKPT_TABLE_UNKNOWN;
}

/* The walk comes to the table at addr; may sleep. */
static void cover_approach(struct walk *walk, unsigned long addr)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	if (cover->index != CKPT_COVER_NONE && cover->index != addr >> PMD_SHIFT)
		cover_complete(walk);
}

/* A part of the table at addr was collected, and this is its identity; CKPT_TABLE_UNKNOWN if it is not there. */
static void cover_part(struct walk *walk, unsigned long addr, u64 identity)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

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
}

/* See hole 1. What may take write permission away unseen: held off by the mmap lock, or counted here before it acts. */
static bool events_differ(const struct walk *walk, struct ckpt_events *events)
{
	*events = (struct ckpt_events){};
	ckpt_events_read(walk->mm, events);
	return memcmp(events, &walk->tracker->events, sizeof(*events));
}

/* The walk is in the table at addr, and has its lock. What is armed here is not known elsewhere any more. */
static enum trust table_enter(struct walk *walk, unsigned long addr, u64 identity)
{
	struct ckpt_tracker *tracker = walk->tracker;
	u64 *entry = walk->known + pmd_index(addr);
	struct ckpt_events events;

	if (walk->untracked) {
		*entry = 0;
		return TRUST_NEVER;
	}
	if (CKPT_TABLE_IDENTITY(*entry) != identity) {
		ckpt_tables_take(&tracker->tables, identity, addr >> PMD_SHIFT);
		*entry = 0;
		return TRUST_NOTHING;
	}
	if (!(*entry & CKPT_TABLE_FRESH))
		return walk->merges ? TRUST_PRESENT_BITS : TRUST_BITS;
	if ((*entry & CKPT_TABLE_STAMP_MASK) != tracker->stamp || !(walk->vma->vm_flags & VM_WRITE) || walk->merges ||
	    events_differ(walk, &events))
		return TRUST_NOTHING;
	return TRUST_PRESENT_BITS;
}

/* [addr, done) was collected. */
static void table_leave(struct walk *walk, unsigned long addr, unsigned long done, u64 identity)
{
	struct ckpt_tracker *tracker = walk->tracker;

	if (done - addr != PMD_SIZE)
		cover_part(walk, addr, walk->untracked ? CKPT_TABLE_UNKNOWN : identity);
	else if (!walk->untracked)
		ckpt_tables_set(&tracker->tables, walk->known + pmd_index(addr), addr >> PMD_SHIFT,
				CKPT_TABLE_ENTRY(identity, tracker->stamp));
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
	unsigned long first = start >> PMD_SHIFT, last = (end - 1) >> PMD_SHIFT;

	if (tracker->cover.index >= first && tracker->cover.index <= last)
		cover_break(tracker);
	ckpt_tables_freshen(&tracker->tables, first, last);
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

static void window_read_events(struct walk *walk)
{
	struct ckpt_tracker *tracker = walk->tracker;
	struct ckpt_events events;

	if (!events_differ(walk, &events))
		return;
	tracker->events = events;
	if (tracker->stamp++ == CKPT_TABLE_STAMP_MASK) {
		ckpt_tables_expire(&tracker->tables);
		cover_break(tracker);
		tracker->stamp = 1;
	}
}

/* ---- entries ---- */

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

static bool entry_is_armed(unsigned long entry)
{
	return (entry & (ENTRY_WRITTEN | ENTRY_ARMED)) == ENTRY_ARMED;
}

static u32 present_categories(const struct walk *walk, enum trust trust, pte_t pte)
{
	if (pte_special(pte))
		return is_zero_pfn(pte_pfn(pte)) ? CKPT_PAGE_PRESENT | CKPT_PAGE_ZERO : 0;
	if (walk->kind != VMA_ANON && !pfn_is_anon(pte_pfn(pte)))
		return CKPT_PAGE_PRESENT | CKPT_PAGE_FILE;
	return own_categories(trust, !entry_is_armed(pte_val(pte)), CKPT_PAGE_PRESENT);
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
bool ckpt_page_referenced_elsewhere(struct page *head)
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

/* A call of its own would cost as much as the rest of it. */
static __always_inline void pte_arm(pte_t *pte, pte_t old)
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
			elsewhere = ckpt_page_referenced_elsewhere(head);
		last = head;
		if (elsewhere)
			pte_disarm(table + i, test_bit(i, walk->writable));
	}
	bitmap_zero(walk->referenced, PTRS_PER_PTE);
	bitmap_zero(walk->writable, PTRS_PER_PTE);
	walk->any_referenced = false;
}

/*
 * See hole 3. Nearly every page has the one reference of this entry. To tell what others are takes longer and is done
 * when the table's entries are armed.
 */
static __always_inline void entry_count_references(struct walk *walk, const pte_t *pte, unsigned long pfn,
						   bool writable)
{
	unsigned int index = ((unsigned long)pte & ~PAGE_MASK) / sizeof(*pte);

	if (likely(page_ref_count(pfn_to_page(pfn)) == 1))
		return;
	__set_bit(index, walk->referenced);
	if (writable)
		__set_bit(index, walk->writable);
	walk->any_referenced = true;
}

static void entry_arm(struct walk *walk, pte_t *pte, pte_t old)
{
	walk->work -= WORK_ARMED;
	if (!pte_present(old)) {
		if (pte_swp_soft_dirty(old))
			pte_arm_swapped(pte, old);
		return;
	}
	if (!entry_is_armed(pte_val(old)))
		pte_arm(pte, old);
	walk->flush |= pte_write(old);
	entry_count_references(walk, pte, pte_pfn(old), pte_write(old));
}

/* One entry. False when there is no room to report it. */
static bool collect_entry(struct walk *walk, enum trust trust, pte_t *pte, unsigned long addr)
{
	pte_t old = READ_ONCE(*pte);
	u32 categories;

	if (pte_none(old))
		return true;
	categories = pte_present(old) ? present_categories(walk, trust, old) : absent_categories(trust, old);
	if (!categories)
		return true;
	if (!report(walk, addr, addr + PAGE_SIZE, categories))
		return false;
	/* Of what is not present only a swap slot can be armed. */
	if ((categories & (CKPT_PAGE_WRITTEN | CKPT_PAGE_UNTRACKED)) == CKPT_PAGE_WRITTEN && walk->arms &&
	    (pte_present(old) || categories & CKPT_PAGE_SWAPPED))
		entry_arm(walk, pte, old);
	return true;
}

/*
 * How many entries from pte on need no further look, eight at a time: all empty, or all present and armed. Nearly all
 * entries of a big job are passed here.
 */
static noinline unsigned long entries_pass(const pte_t *pte, unsigned long count)
{
	const unsigned long *entry = (const unsigned long *)pte;
	unsigned long i, a, b, c, d, e, f, g, h, any;

	for (i = 0; i + 8 <= count; i += 8, entry += 8) {
		a = READ_ONCE(entry[0]), b = READ_ONCE(entry[1]), c = READ_ONCE(entry[2]), d = READ_ONCE(entry[3]);
		e = READ_ONCE(entry[4]), f = READ_ONCE(entry[5]), g = READ_ONCE(entry[6]), h = READ_ONCE(entry[7]);
		any = a | b | c | d | e | f | g | h;
		if (any && (any & ENTRY_WRITTEN || ~(a & b & c & d & e & f & g & h) & (_PAGE_PRESENT | ENTRY_ARMED)))
			break;
	}
	return i;
}

/* Present, of a page, and with one of the bits in which. */
static bool entry_is_plain(unsigned long entry, unsigned long which)
{
	return (entry & (_PAGE_PRESENT | _PAGE_SPECIAL)) == _PAGE_PRESENT && entry & which;
}

/* Arms entries from pte on as long as they are plain. Returns how many. Not inlined: the loop needs all registers. */
static noinline unsigned long entries_arm(struct walk *walk, pte_t *pte, unsigned long count, unsigned long which)
{
	unsigned long i, old, written = 0;

	for (i = 0; i < count; i++) {
		old = READ_ONCE(pte[i].pte);
		if (!entry_is_plain(old, which))
			break;
		if (!entry_is_armed(old))
			pte_arm(pte + i, (pte_t){ .pte = old });
		written |= old;
		/* Only in entries of PROT_NONE, which are not plain, is the frame's number inverted. */
		entry_count_references(walk, pte + i, (old & PTE_PFN_MASK) >> PAGE_SHIFT, old & _PAGE_RW);
	}
	walk->flush |= !!(written & _PAGE_RW);
	walk->work -= i * WORK_ARMED;
	return i;
}

/* The common case of collect_entry(), for all entries that follow each other. Returns how many were collected. */
static unsigned long collect_plain(struct walk *walk, pte_t *pte, unsigned long addr, unsigned long end,
				   unsigned long which)
{
	struct ckpt_region *region;
	unsigned long count;

	if (!entry_is_plain(READ_ONCE(pte->pte), which))
		return 0;
	region = region_at(walk, addr, CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT);
	if (!region)
		return 0;
	count = entries_arm(walk, pte, (end - addr) >> PAGE_SHIFT, which);
	region->end = addr + (count << PAGE_SHIFT);
	return count;
}

/* Returns the address of the first entry that was not collected. Under the table's lock. */
static unsigned long collect_entries(struct walk *walk, enum trust trust, pte_t *pte, unsigned long addr,
				     unsigned long end)
{
	const bool plain = walk->kind == VMA_ANON && trust != TRUST_NEVER && walk->arms;
	const bool pass = trust <= TRUST_PRESENT_BITS && !(walk->flags & CKPT_COLLECT_PRESENT);
	const unsigned long which = trust <= TRUST_PRESENT_BITS ? ENTRY_WRITTEN : _PAGE_PRESENT;
	unsigned long count, group;

	walk->work -= (end - addr) >> PAGE_SHIFT;
	while (addr < end) {
		count = pass ? entries_pass(pte, (end - addr) >> PAGE_SHIFT) : 0;
		pte += count;
		addr += count << PAGE_SHIFT;
		for (group = min(end, addr + 8 * PAGE_SIZE); addr < group; pte += count, addr += count << PAGE_SHIFT) {
			count = plain ? collect_plain(walk, pte, addr, end, which) : 0;
			if (count)
				continue;
			if (!collect_entry(walk, trust, pte, addr))
				return addr;
			count = 1;
		}
	}
	return addr;
}

/* ---- tables ---- */

static void walk_flush(struct walk *walk)
{
	if (walk->flush)
		ckpt_flush_mm(walk->mm);
	walk->flush = false;
}

/*
 * Tables are freed by RCU and their PMD entry is cleared under the table's lock or a lock that we would see changed,
 * so the entry is read again with the lock held.
 */
static unsigned long collect_table(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long done = addr;
	spinlock_t *lock;
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
	pte = pte_offset_kernel(&table, addr);
	done = collect_entries(walk, table_enter(walk, addr, table_identity(table)), pte, addr, end);
	table_leave(walk, addr, done, table_identity(table));
	if (walk->any_referenced)
		table_disarm_referenced(walk, (pte_t *)((unsigned long)pte & PAGE_MASK));
	if (CKPT_COPIES_REFERENCED)
		walk_flush(walk);
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
		return own_categories(trust, !entry_is_armed(pmd_val(pmd)), CKPT_PAGE_PRESENT | CKPT_PAGE_HUGE);
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

	do {
		new = pmd_wrprotect(pmd_clear_soft_dirty(keep_clean ? old : pmd_mkdirty(old)));
	} while (!try_cmpxchg(&pmd->pmd, &old.pmd, new.pmd));
	walk->flush |= pmd_write(old);
	if (ckpt_page_referenced_elsewhere(head))
		huge_disarm(pmd, pmd_write(old));
}

/* One huge page. If only a part of it was asked for it is reported and not armed. */
static unsigned long collect_huge(struct walk *walk, pmd_t *pmd, pmd_t old, unsigned long addr, unsigned long end)
{
	u64 identity = huge_identity(pmd);
	u32 categories = huge_categories(walk, table_enter(walk, addr, identity), old);

	if (categories && !report(walk, addr, end, categories))
		end = addr;
	else if ((categories & (CKPT_PAGE_WRITTEN | CKPT_PAGE_UNTRACKED)) == CKPT_PAGE_WRITTEN && walk->arms &&
		 pmd_present(old) && end - addr == PMD_SIZE)
		huge_arm(walk, pmd, old);
	table_leave(walk, addr, end, identity);
	return end;
}

/* How many huge pages from pmd on are known and were not written. */
static unsigned long huges_pass(struct walk *walk, const pmd_t *pmd, unsigned long addr, unsigned long end)
{
	const unsigned long clean = _PAGE_PRESENT | _PAGE_PSE | ENTRY_ARMED;
	const u64 expected = CKPT_TABLE_ENTRY(huge_identity(pmd), walk->tracker->stamp);
	unsigned long i, count = addr & ~PMD_MASK ? 0 : (end - addr) >> PMD_SHIFT;
	u64 *known = walk->known + pmd_index(addr);

	for (i = 0; i < count; i++) {
		if ((READ_ONCE(pmd[i].pmd) & (clean | ENTRY_WRITTEN)) != clean ||
		    (known[i] ^ expected) & ~CKPT_TABLE_STAMP_MASK)
			break;
		known[i] = expected;
	}
	return i;
}

/* Huge pages that have their entries in one table, under its lock. */
static unsigned long collect_huges(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	const bool pass = !walk->untracked && !(walk->flags & CKPT_COLLECT_PRESENT);
	spinlock_t *lock = pmd_lock(walk->mm, pmd);
	unsigned long count, next;
	pmd_t old;

	end = min(end, (addr & PMD_MASK) + HUGE_BATCH * PMD_SIZE);
	while (addr < end) {
		count = pass ? huges_pass(walk, pmd, addr, end) : 0;
		walk->work -= (count + 1) * WORK_HUGE;
		pmd += count;
		addr += count << PMD_SHIFT;
		old = READ_ONCE(*pmd);
		if (addr == end || pmd_none(old) || pmd_is_table(old))
			break;
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		addr = collect_huge(walk, pmd, old, addr, next);
		if (addr != next)
			break;
		pmd++;
	}
	if (CKPT_COPIES_REFERENCED)
		walk_flush(walk);
	spin_unlock(lock);
	return addr;
}

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
		if (pmd_none(value) || (pmd_is_table(value) && pmd_bad(value))) {
			addr = next;
			continue;
		}
		cover_approach(walk, addr);
		addr = pmd_is_table(value) ? collect_table(walk, pmd, addr, next) : collect_huges(walk, pmd, addr, end);
		cond_resched();
	}
	return addr;
}

static unsigned long walk_hugetlb_page(struct walk *walk, unsigned long addr, unsigned long end)
{
	return report(walk, addr, end, CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT | CKPT_PAGE_UNTRACKED | CKPT_PAGE_HUGE) ?
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
	pud_t *pud = pud_at(walk->mm, addr);
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
		else if (report(walk, walk->next, end, CKPT_PAGE_SHARED))
			walk->next = end;
	}
	cover_approach(walk, walk->next);
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

	cover_begin(&walk);
	inc_tlb_flush_pending(mm);
	err = walk_run(&walk, collect);
	walk_flush(&walk);
	dec_tlb_flush_pending(mm);
	tracker->cover.next = walk.next;
	ckpt_tables_forget(&tracker->tables, walk.chunk, walk.next >> PUD_SHIFT);
	collect->out_count += walk.count;
	collect->out_walk_end = walk.next < walk.end ? walk.next : collect->end;
	return err;
}
