// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages have references from elsewhere: I/O in flight, pins. They are written without a fault, whatever their
 * entries say. COLLECT knows that itself; PAGEMAP_SCAN write-protects them and does not say so, therefore somebody who
 * collects with a userfaultfd has to ask here afterwards. Who took a reference before the entry was write-protected
 * has it still, and is seen, or has finished writing. Who wants to write afterwards meets the write-protection.
 *
 * Nothing is changed here.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "internal.h"

#define BATCH		256			/* ranges copied in, and regions copied out, at a time: 6 KiB each */
#define WINDOW_BYTES	(256UL << 20)		/* address space per lock of the mm */

struct search {
	struct mm_struct *mm;
	struct ckpt_referenced *command;
	struct ckpt_region ranges[BATCH];
	struct ckpt_region found[BATCH];
	u32 count;
	bool full;
};

static bool report(struct search *search, unsigned long start, unsigned long end)
{
	struct ckpt_region *last = search->count ? &search->found[search->count - 1] : NULL;

	if (last && last->end == start) {
		last->end = end;
		return true;
	}
	if (search->count == BATCH || search->command->out_count + search->count == search->command->vec_len) {
		search->full = true;
		return false;
	}
	search->found[search->count++] = (struct ckpt_region){
		.start = start, .end = end, .categories = CKPT_PAGE_WRITTEN | CKPT_PAGE_PRESENT,
	};
	return true;
}

static bool pfn_referenced(unsigned long pfn)
{
	struct page *head;

	if (!pfn_valid(pfn))
		return false;
	head = compound_head(pfn_to_page(pfn));
	return PageAnon(head) && ckpt_page_referenced_elsewhere(head);
}

static bool pte_referenced(pte_t pte)
{
	return pte_present(pte) && !pte_special(pte) && pfn_referenced(pte_pfn(pte));
}

/* Under the table's lock. Returns where it stopped. */
static unsigned long search_entries(struct search *search, pte_t *pte, unsigned long addr, unsigned long end)
{
	for (; addr < end; addr += PAGE_SIZE, pte++)
		if (pte_referenced(READ_ONCE(*pte)) && !report(search, addr, addr + PAGE_SIZE))
			break;
	return addr;
}

/* As in walk.c: the entry is read again with the lock held, and a table is freed by RCU. */
static unsigned long search_table(struct search *search, pmd_t *pmd, pmd_t table, unsigned long addr,
				  unsigned long end)
{
	unsigned long done = addr;
	spinlock_t *lock;

	lock = pte_lockptr(search->mm, &table);
	spin_lock(lock);
	if (pmd_same(table, pmdp_get_lockless(pmd)))
		done = search_entries(search, pte_offset_kernel(&table, addr), addr, end);
	spin_unlock(lock);
	return done;
}

static unsigned long search_huge(struct search *search, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	spinlock_t *lock = pmd_lock(search->mm, pmd);
	pmd_t value = READ_ONCE(*pmd);
	unsigned long done = end;

	if (pmd_present(value) && pmd_flags(value) & _PAGE_PSE && pfn_referenced(pmd_pfn(value)) &&
	    !report(search, addr, end))
		done = addr;
	spin_unlock(lock);
	return done;
}

/* [addr, end) is within one table. It may become another kind of entry meanwhile: then it is looked at again. */
static unsigned long search_pmd(struct search *search, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	unsigned long done;
	pmd_t value;

	do {
		done = end;
		rcu_read_lock();
		value = pmdp_get_lockless(pmd);
		if (pmd_present(value) && pmd_flags(value) & _PAGE_PSE)
			done = search_huge(search, pmd, addr, end);
		else if (pmd_present(value) && !pmd_bad(value))
			done = search_table(search, pmd, value, addr, end);
		rcu_read_unlock();
	} while (done == addr && !search->full);
	return done;
}

static pmd_t *pmd_find(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(READ_ONCE(*pud)) || pud_flags(READ_ONCE(*pud)) & _PAGE_PSE || pud_bad(*pud))
		return NULL;
	return pmd_offset(pud, addr);
}

static unsigned long search_vma(struct search *search, unsigned long addr, unsigned long end)
{
	unsigned long next, done;
	pmd_t *pmd;

	for (; addr < end; addr = next) {
		next = min(end, (addr & PMD_MASK) + PMD_SIZE);
		pmd = pmd_find(search->mm, addr);
		done = pmd ? search_pmd(search, pmd, addr, next) : next;
		if (done != next)
			return done;
		cond_resched();
	}
	return end;
}

/*
 * Only within VMAs: around them page tables may be freed under the lock for read. The window begins where the next VMA
 * does: between two there may be more address space than can be stepped over.
 */
static unsigned long search_window(struct search *search, unsigned long addr, unsigned long limit)
{
	struct vm_area_struct *vma = find_vma(search->mm, addr);
	unsigned long end;

	addr = vma ? clamp(vma->vm_start, addr, limit) : limit;
	end = min(limit, addr + WINDOW_BYTES);
	while (addr < end && !search->full) {
		unsigned long stop;

		vma = find_vma(search->mm, addr);
		if (!vma || vma->vm_start >= end)
			return end;
		addr = max(addr, vma->vm_start);
		stop = min(end, vma->vm_end);
		if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE | VM_HUGETLB))
			addr = stop;
		else
			addr = search_vma(search, addr, stop);
	}
	return addr;
}

static int found_copy_out(struct search *search)
{
	struct ckpt_referenced *command = search->command;
	struct ckpt_region __user *vec = u64_to_user_ptr(command->vec);

	if (copy_to_user(vec + command->out_count, search->found, search->count * sizeof(*vec)))
		return -EFAULT;
	command->out_count += search->count;
	search->count = 0;
	search->full = false;
	return 0;
}

/* -ENOSPC: the vector is full. */
static int search_range(struct search *search, u64 start, u64 end)
{
	struct ckpt_referenced *command = search->command;
	int err = 0;

	if (!PAGE_ALIGNED(start) || !PAGE_ALIGNED(end))
		return -EINVAL;
	end = min_t(u64, end, TASK_SIZE_MAX);
	start = max(start, command->out_walk_end);
	while (!err && start < end) {
		if (command->out_count == command->vec_len)
			return -ENOSPC;
		if (signal_pending(current) || mmap_read_lock_killable(search->mm))
			return -EINTR;
		start = search_window(search, start, end);
		mmap_read_unlock(search->mm);
		command->out_walk_end = start;
		err = found_copy_out(search);
		cond_resched();
	}
	return err;
}

static int search_run(struct search *search)
{
	struct ckpt_referenced *command = search->command;
	const struct ckpt_region __user *ranges = u64_to_user_ptr(command->ranges);
	u64 i, batch;
	int err = 0;

	for (i = 0; !err && i < command->range_count; i++) {
		batch = i % BATCH;
		if (!batch && copy_from_user(search->ranges, ranges + i, min_t(u64, BATCH, command->range_count - i) *
					     sizeof(*ranges)))
			return -EFAULT;
		err = search_range(search, search->ranges[batch].start, search->ranges[batch].end);
	}
	if (!err)
		command->out_walk_end = CKPT_REFERENCED_ALL;
	return err;
}

int ckpt_referenced_find(struct mm_struct *mm, struct ckpt_referenced *command)
{
	struct search *search = kvmalloc(sizeof(*search), GFP_KERNEL_ACCOUNT);
	const u64 start = command->start;
	int err;

	if (!search)
		return -ENOMEM;
	search->mm = mm;
	search->command = command;
	search->count = 0;
	search->full = false;
	command->out_count = 0;
	command->out_walk_end = start;
	err = search_run(search);
	kvfree(search);
	return err == -ENOSPC || (err == -EINTR && command->out_walk_end > start) ? 0 : err;
}
