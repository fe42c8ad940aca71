// SPDX-License-Identifier: GPL-2.0
/*
 * Which page tables were armed where they are now, and so what their entries' bits are worth: holes 1 and 2 in walk.c.
 * A table that is collected in parts is known when the last part was, if it stayed where it was ("cover").
 */
#include "compat.h"
#include "walk.h"

u64 ckpt_table_identity(pmd_t table)
{
	return CKPT_TABLE_OF_PAGES(pmd_pfn(table));
}

u64 ckpt_huge_identity(const pmd_t *pmd)
{
	return CKPT_TABLE_OF_HUGE(page_to_pfn(virt_to_page(pmd)));
}

bool ckpt_pmd_is_table(pmd_t pmd)
{
	return pmd_present(pmd) && !(pmd_flags(pmd) & _PAGE_PSE);
}

pud_t *ckpt_pud_at(struct mm_struct *mm, unsigned long addr)
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
	pud_t *pud = ckpt_pud_at(mm, addr);
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
		return ckpt_huge_identity(pmd) == cover->table;
	value = pmdp_get_lockless(pmd);
	return ckpt_pmd_is_table(value) && ckpt_table_identity(value) == cover->table;
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

void ckpt_cover_break(struct ckpt_tracker *tracker)
{
	tracker->cover.table = CKPT_TABLE_UNKNOWN;
}

static void cover_break_in(struct ckpt_tracker *tracker, unsigned long first, unsigned long last)
{
	if (tracker->cover.index >= first && tracker->cover.index <= last)
		ckpt_cover_break(tracker);
}

void ckpt_known_freshen(struct ckpt_tracker *tracker, unsigned long start, unsigned long end)
{
	cover_break_in(tracker, start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT);
	ckpt_tables_freshen(&tracker->tables, start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT);
}

void ckpt_known_forget(struct ckpt_tracker *tracker, unsigned long start, unsigned long end)
{
	cover_break_in(tracker, start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT);
	ckpt_tables_unknown(&tracker->tables, start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT);
}

void ckpt_cover_approach(struct walk *walk, unsigned long addr)
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
			ckpt_cover_break(walk->tracker);
		return;
	}
	cover->index = addr >> PMD_SHIFT;
	cover->table = walk->origin <= (addr & PMD_MASK) ? identity : CKPT_TABLE_UNKNOWN;
	cover->stamp = walk->tracker->stamp;
}

void ckpt_cover_begin(struct walk *walk)
{
	struct ckpt_cover *cover = &walk->tracker->cover;

	if (cover->index != CKPT_COVER_NONE && cover->next == walk->origin)
		walk->origin = cover->index << PMD_SHIFT;
	else
		cover->index = CKPT_COVER_NONE;
}

bool ckpt_events_differ(const struct walk *walk, struct ckpt_events *events)
{
	*events = (struct ckpt_events){};
	ckpt_events_read(walk->mm, events);
	return memcmp(events, &walk->tracker->events, sizeof(*events));
}

u64 ckpt_known_since(const struct walk *walk)
{
	const struct ckpt_tracker *tracker = walk->tracker;
	struct ckpt_events events;

	if (tracker->mappings_since <= tracker->events_since || ckpt_events_differ(walk, &events))
		return tracker->mappings_since;
	return tracker->events_since;
}

enum trust ckpt_table_enter(struct walk *walk, unsigned long addr, u64 identity)
{
	struct ckpt_tracker *tracker = walk->tracker;
	u64 *entry = walk->known + pmd_index(addr);
	struct ckpt_events events;
	u64 stamp;

	if (walk->untracked) {
		*entry = 0;
		return TRUST_NEVER;
	}
	if (CKPT_TABLE_IDENTITY(*entry) != identity) {
		ckpt_tables_take(&tracker->tables, identity, addr >> PMD_SHIFT);
		*entry = 0;
		return TRUST_NOTHING;
	}
	stamp = *entry & CKPT_TABLE_STAMP_MASK;
	if (!(*entry & CKPT_TABLE_FRESH)) {
		if (stamp < ckpt_known_since(walk))
			return TRUST_NOTHING;
		return walk->merges ? TRUST_PRESENT_BITS : TRUST_BITS;
	}
	if (stamp < tracker->events_since || !(walk->vma->vm_flags & VM_WRITE) || walk->merges ||
	    ckpt_events_differ(walk, &events))
		return TRUST_NOTHING;
	return TRUST_PRESENT_BITS;
}

void ckpt_table_leave(struct walk *walk, unsigned long addr, unsigned long done, u64 identity)
{
	struct ckpt_tracker *tracker = walk->tracker;

	if (done - addr != PMD_SIZE)
		cover_part(walk, addr, walk->untracked ? CKPT_TABLE_UNKNOWN : identity);
	else if (!walk->untracked)
		ckpt_tables_set(&tracker->tables, walk->known + pmd_index(addr), addr >> PMD_SHIFT,
				CKPT_TABLE_ENTRY(identity, tracker->stamp));
}
