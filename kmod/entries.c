// SPDX-License-Identifier: GPL-2.0
/* Collecting page tables: what their entries tell, and arming them. walk.c says why it is done like this. */

#include "compat.h"
#include "walk.h"

/* In the unit of the window's work, see walk.c. */
#define WORK_ARMED	16		/* an entry that is armed */
#define WORK_HUGE	16		/* a huge page */
#define HUGE_BATCH	64		/* huge pages per lock of their table */

/* In all entries that are present and not of PROT_NONE: what tells that the page was written; an armed one has none. */
#define ENTRY_WRITTEN	(_PAGE_SOFT_DIRTY | _PAGE_RW)
/* What an armed one has, see hole 5. */
#define ENTRY_ARMED	CKPT_PAGE_DIRTY_READ_ONLY

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

bool ckpt_report(struct walk *walk, unsigned long start, unsigned long end, u32 categories)
{
	struct ckpt_region *region;

	if (!(categories & CKPT_PAGE_WRITTEN) && !(walk->flags & CKPT_COLLECT_PRESENT))
		return true;
	region = region_at(walk, start, categories);
	if (region)
		region->end = end;
	return region;
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
		return own_categories(trust, pte_swp_soft_dirty(pte) || trust != TRUST_BITS || CKPT_SOFT_DIRTY_GETS_LOST,
				      CKPT_PAGE_SWAPPED);
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
	if (!ckpt_report(walk, addr, addr + PAGE_SIZE, categories))
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

void ckpt_walk_flush(struct walk *walk)
{
	if (walk->flush)
		ckpt_flush_mm(walk->mm);
	walk->flush = false;
}

/*
 * Tables are freed by RCU and their PMD entry is cleared under the table's lock or a lock that we would see changed,
 * so the entry is read again with the lock held.
 */
unsigned long ckpt_collect_table(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long done = addr;
	spinlock_t *lock;
	pmd_t table;
	pte_t *pte;

	rcu_read_lock();
	table = pmdp_get_lockless(pmd);
	if (!ckpt_pmd_is_table(table) || pmd_bad(table))
		goto unlock_rcu;
	lock = pte_lockptr(walk->mm, &table);
	spin_lock(lock);
	if (!pmd_same(table, pmdp_get_lockless(pmd)))
		goto unlock;
	pte = pte_offset_kernel(&table, addr);
	done = collect_entries(walk, ckpt_table_enter(walk, addr, ckpt_table_identity(table)), pte, addr, end);
	ckpt_table_leave(walk, addr, done, ckpt_table_identity(table));
	if (walk->any_referenced)
		table_disarm_referenced(walk, (pte_t *)((unsigned long)pte & PAGE_MASK));
	if (CKPT_COPIES_REFERENCED)
		ckpt_walk_flush(walk);
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
	u64 identity = ckpt_huge_identity(pmd);
	u32 categories = huge_categories(walk, ckpt_table_enter(walk, addr, identity), old);

	if (categories && !ckpt_report(walk, addr, end, categories))
		end = addr;
	else if ((categories & (CKPT_PAGE_WRITTEN | CKPT_PAGE_UNTRACKED)) == CKPT_PAGE_WRITTEN && walk->arms &&
		 pmd_present(old) && end - addr == PMD_SIZE)
		huge_arm(walk, pmd, old);
	ckpt_table_leave(walk, addr, end, identity);
	return end;
}

/* How many huge pages from pmd on are known and were not written. */
static unsigned long huges_pass(struct walk *walk, const pmd_t *pmd, unsigned long addr, unsigned long end)
{
	const unsigned long clean = _PAGE_PRESENT | _PAGE_PSE | ENTRY_ARMED;
	const u64 expected = CKPT_TABLE_ENTRY(ckpt_huge_identity(pmd), walk->tracker->stamp);
	const u64 since = ckpt_known_since(walk);
	unsigned long i, count = addr & ~PMD_MASK ? 0 : (end - addr) >> PMD_SHIFT;
	u64 *known = walk->known + pmd_index(addr);

	for (i = 0; i < count; i++) {
		if ((READ_ONCE(pmd[i].pmd) & (clean | ENTRY_WRITTEN)) != clean ||
		    (known[i] ^ expected) & ~CKPT_TABLE_STAMP_MASK || (known[i] & CKPT_TABLE_STAMP_MASK) < since)
			break;
		known[i] = expected;
	}
	return i;
}

/* Huge pages that have their entries in one table, under its lock. */
unsigned long ckpt_collect_huges(struct walk *walk, pmd_t *pmd, unsigned long addr, unsigned long end)
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
		if (addr == end || pmd_none(old) || ckpt_pmd_is_table(old))
			break;
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		addr = collect_huge(walk, pmd, old, addr, next);
		if (addr != next)
			break;
		pmd++;
	}
	if (CKPT_COPIES_REFERENCED)
		ckpt_walk_flush(walk);
	spin_unlock(lock);
	return addr;
}
