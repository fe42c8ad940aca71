/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The only place that knows kernel versions. The other files are written for the newest kernel; what cannot be made
 * to look like it is a function here.
 */
#ifndef CKPT_COMPAT_H
#define CKPT_COMPAT_H

#include <linux/version.h>

#ifndef CONFIG_X86_64
#error "ckpt: only x86-64 is supported"
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
#error "ckpt: kernels from 6.1 to 6.14 are supported"
#endif

#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/smp.h>
#include <linux/swapops.h>
#include <linux/userfaultfd.h>
#include <linux/userfaultfd_k.h>
#include <asm/cpufeature.h>
#include <asm/tlbflush.h>

#include "internal.h"

/* pmdp_get_lockless() is older than 6.1 on x86-32 only. */
#ifndef pmdp_get_lockless
#define pmdp_get_lockless(pmdp) READ_ONCE(*(pmdp))
#endif

#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK VM_NONE
#endif

/* Under Xen PV the page tables belong to the hypervisor: no cmpxchg on entries, no flush of our own. */
static inline bool ckpt_soft_dirty_works(void)
{
	return IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) && !boot_cpu_has(X86_FEATURE_XENPV);
}

/* Of the tracepoint sched_process_exit. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#define CKPT_PROBE_EXIT_ARGUMENTS void *unused, struct task_struct *task, bool group_dead
#else
#define CKPT_PROBE_EXIT_ARGUMENTS void *unused, struct task_struct *task
#endif

/*
 * A userfaultfd is of use to a tracker where it has WP_ASYNC; /dev/userfaultfd is older than that. Whether the kernel
 * was also booted so is for the caller to try (UFFDIO_API).
 */
static inline bool ckpt_userfaultfd_works(void)
{
#ifdef UFFD_FEATURE_WP_ASYNC
	return IS_ENABLED(CONFIG_PTE_MARKER_UFFD_WP);
#else
	return false;
#endif
}

/* In a kernel thread that has the mm. The descriptor is in the table that kernel threads share, for a moment. */
static inline struct file *ckpt_userfaultfd_new(struct file *device)
{
#ifdef UFFD_FEATURE_WP_ASYNC
	int fd = device->f_op->unlocked_ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	struct file *file;

	if (fd < 0)
		return ERR_PTR(fd);
	file = fget(fd) ?: ERR_PTR(-EBADF);
	close_fd(fd);
	return file;
#else
	return ERR_PTR(-EOPNOTSUPP);
#endif
}

/* Needs the mmap lock for write. */
static inline void ckpt_vma_clear_soft_dirty(struct vm_area_struct *vma)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_clear(vma, VM_SOFTDIRTY);
#else
	vma->vm_flags &= ~VM_SOFTDIRTY;
#endif
}

static inline void flush_this_cpu(void *unused)
{
	__flush_tlb_all();
}

/*
 * Before PageAnonExclusive (5.19) a write fault copied a page that has references from elsewhere, even if no other
 * process has it, while CPUs with an old translation still write to it: there they must flush before faults go on.
 */
#define CKPT_FLUSH_IN_WINDOW (LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0))

/*
 * No CPU has a translation of this mm afterwards that is older than the call. flush_tlb_mm_range() is not exported;
 * this is its protocol: the new generation makes every CPU flush that switches to the mm later, or stops being lazy;
 * CPUs that have the mm loaded flush now. Incrementing is a full barrier, and a CPU sets its bit in the mask before it
 * reads the generation. A CPU that finds itself behind the generation later flushes once more than needed.
 * From 6.15 on an mm may have a global ASID, and the mask does not tell everything.
 */
static inline void ckpt_flush_mm(struct mm_struct *mm)
{
	atomic64_inc(&mm->context.tlb_gen);
	on_each_cpu_mask(mm_cpumask(mm), flush_this_cpu, NULL, 1);
}

/* All mappings of all pages of the compound page. */
static inline int ckpt_page_mapcount(struct page *head)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
	return folio_mapcount(page_folio(head));
#else
	int count, i;

	if (!PageCompound(head))
		return page_mapcount(head);
	count = compound_mapcount(head);
	for (i = 0; i < compound_nr(head); i++)
		count += atomic_read(&head[i]._mapcount) + 1;
	if (PageDoubleMap(head))
		count -= compound_nr(head);
	return count;
#endif
}

static inline bool ckpt_page_in_swapcache(struct page *head)
{
	return folio_test_swapcache(page_folio(head));
}

static inline void ckpt_events_read(struct mm_struct *mm, struct ckpt_events *events)
{
	events->forks = READ_ONCE(mm->write_protect_seq.sequence);
#ifdef CONFIG_NUMA_BALANCING
	events->numa_next_scan = READ_ONCE(mm->numa_next_scan);
	events->numa_scan_offset = READ_ONCE(mm->numa_scan_offset);
	events->numa_scan_seq = READ_ONCE(mm->numa_scan_seq);
#endif
}

static inline bool ckpt_mm_swapped(struct mm_struct *mm)
{
	return get_mm_counter(mm, MM_SWAPENTS) != 0;
}

/* What an entry that is neither empty nor present stands for. */
enum ckpt_swap_kind {
	CKPT_SWAP_NOTHING,	/* markers, poison */
	CKPT_SWAP_SLOT,
	CKPT_SWAP_MIGRATION,
	CKPT_SWAP_DEVICE,
};

static inline enum ckpt_swap_kind ckpt_swap_kind(pte_t pte)
{
	swp_entry_t entry = pte_to_swp_entry(pte);

	if (!non_swap_entry(entry))
		return CKPT_SWAP_SLOT;
	if (is_migration_entry(entry))
		return CKPT_SWAP_MIGRATION;
	if (is_pfn_swap_entry(entry) && !is_hwpoison_entry(entry))
		return CKPT_SWAP_DEVICE;
	return CKPT_SWAP_NOTHING;
}

#endif
