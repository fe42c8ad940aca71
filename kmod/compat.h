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
/* What a write fault does, and what else changes entries, was read in these; a newer one may break the argument. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#error "ckpt: kernels from 5.10 to 7.3 are supported"
#endif

#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/sched/coredump.h>
#include <linux/smp.h>
#include <linux/swapops.h>
#include <linux/userfaultfd.h>
#include <linux/userfaultfd_k.h>
#ifdef CKPT_HAS_LEAFOPS
#include <linux/leafops.h>
#endif
#ifdef CKPT_HAS_EXEC_STATE
#include <linux/sched/exec_state.h>
#endif
#include <asm/cpufeature.h>
#include <asm/invpcid.h>
#include <asm/tlbflush.h>

#include "internal.h"

/* pmdp_get_lockless() is older than 6.1 on x86-32 only. */
#ifndef pmdp_get_lockless
#define pmdp_get_lockless(pmdp) READ_ONCE(*(pmdp))
#endif

#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK VM_NONE
#endif

/*
 * Before 6.19 two mappings that merge have the flags of one of them: VM_SOFTDIRTY may be lost. Before 6.0, which needs
 * PG_anon_exclusive, the kernel gives no write permission to private memory without a fault, so it does not matter.
 */
#if defined(VMA_STICKY_FLAGS) || defined(VM_STICKY) || !defined(RMAP_NONE)
#define CKPT_SOFT_DIRTY_GETS_LOST	false
#else
#define CKPT_SOFT_DIRTY_GETS_LOST	true
#endif

/* The arguments of mprotect_fixup(): which is the mapping, and where start and end begin. */
typedef int ckpt_mprotect_5_10(struct vm_area_struct *, struct vm_area_struct **, unsigned long, unsigned long,
			       unsigned long);
typedef int ckpt_mprotect_6_1(struct mmu_gather *, struct vm_area_struct *, struct vm_area_struct **, unsigned long,
			      unsigned long, unsigned long);
#define CKPT_MPROTECT_IS(type)	__builtin_types_compatible_p(typeof(mprotect_fixup), type)
#define CKPT_MPROTECT_VMA	(CKPT_MPROTECT_IS(ckpt_mprotect_5_10) ? 0 : CKPT_MPROTECT_IS(ckpt_mprotect_6_1) ? 1 : 2)
#define CKPT_MPROTECT_START	(CKPT_MPROTECT_VMA + 2)

/*
 * From 5.19 on (PG_anon_exclusive) a write fault in a page that was writable makes its entry writable again. Before, it
 * copies the page if somebody has a reference on it. So there
 * - a page with references keeps its write permission: it must not part from the pins of a device;
 * - CPUs flush before the table's lock is released: none may write through an old translation to a page that is copied.
 */
#ifdef RMAP_NONE
#define CKPT_COPIES_REFERENCED	false
#else
#define CKPT_COPIES_REFERENCED	true
#endif

/*
 * Before 6.0 a forced write (ptrace) to a page without write permission made sure that the entry is dirty, dropped the
 * table's lock, and then did not look for soft-dirty again.
 */
#ifdef FOLL_COW
#define CKPT_FORCED_WRITES_RACE	true
#else
#define CKPT_FORCED_WRITES_RACE	false
#endif

/* The dirty bit of an entry without write permission. From 6.6 on it is not the CPU's, which means shadow stacks. */
#ifdef _PAGE_SAVED_DIRTY
#define CKPT_PAGE_DIRTY_READ_ONLY _PAGE_SAVED_DIRTY
#else
#define CKPT_PAGE_DIRTY_READ_ONLY _PAGE_DIRTY
#endif

/* Under Xen PV the page tables belong to the hypervisor: no cmpxchg on entries, no flush of our own. */
static inline bool ckpt_soft_dirty_works(void)
{
#ifdef pgtable_supports_soft_dirty
	return pgtable_supports_soft_dirty() && !boot_cpu_has(X86_FEATURE_XENPV);
#else
	return IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) && !boot_cpu_has(X86_FEATURE_XENPV);
#endif
}

/* The namespace in which the task's program was readable when it was executed. Under RCU. */
static inline struct user_namespace *ckpt_program_user_ns(struct task_struct *task, struct mm_struct *mm)
{
#ifdef CKPT_HAS_EXEC_STATE
	return rcu_dereference(task->exec_state)->user_ns;
#else
	return mm->user_ns;
#endif
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
#ifdef CKPT_HAS_VM_FLAGS_CLEAR
	vm_flags_clear(vma, VM_SOFTDIRTY);
#else
	vma->vm_flags &= ~VM_SOFTDIRTY;
#endif
}

/*
 * Everything in this CPU's TLB but global entries, which user memory never has, of all address spaces. The kernel's own
 * functions are not for modules, or not any more. A change of CR4.PGE flushes all. Interrupts are off.
 */
static inline void flush_this_cpu(void *unused)
{
	unsigned long cr4;

	if (boot_cpu_has(X86_FEATURE_INVPCID)) {
		invpcid_flush_all_nonglobals();
		return;
	}
	asm volatile("mov %%cr4, %0" : "=r" (cr4) : : "memory");
	asm volatile("mov %0, %%cr4" : : "r" (cr4 ^ X86_CR4_PGE) : "memory");
	asm volatile("mov %0, %%cr4" : : "r" (cr4) : "memory");
}

/*
 * No CPU has a translation of this mm afterwards that is older than the call. flush_tlb_mm_range() is not exported;
 * this is its protocol: the new generation makes every CPU flush that switches to the mm later, or stops being lazy;
 * CPUs that have the mm loaded flush now. Incrementing is a full barrier, and a CPU sets its bit in the mask before it
 * reads the generation. A CPU that finds itself behind the generation later flushes once more than needed.
 * Where the CPU has INVLPGB an mm may have an ASID that is the same on all CPUs; for those neither the generation nor
 * the mask tells who still has entries.
 */
static inline void ckpt_flush_mm(struct mm_struct *mm)
{
	atomic64_inc(&mm->context.tlb_gen);
#ifdef X86_FEATURE_INVLPGB
	if (boot_cpu_has(X86_FEATURE_INVLPGB)) {
		on_each_cpu(flush_this_cpu, NULL, 1);
		return;
	}
#endif
	on_each_cpu_mask(mm_cpumask(mm), flush_this_cpu, NULL, 1);
}

/* All mappings of all pages of the compound page. */
static inline int ckpt_page_mapcount(struct page *head)
{
#ifdef CKPT_HAS_LARGE_MAPCOUNT
	return folio_mapcount(page_folio(head));
#else
	int count, i;

	if (!PageCompound(head))
		return page_mapcount(head);
#ifdef CKPT_HAS_ENTIRE_MAPCOUNT
	count = folio_entire_mapcount(page_folio(head));
#else
	count = compound_mapcount(head);
	if (PageDoubleMap(head))
		count -= compound_nr(head);
#endif
	for (i = 0; i < compound_nr(head); i++)
		count += atomic_read(&head[i]._mapcount) + 1;
	return count;
#endif
}

#ifdef page_folio
static inline bool ckpt_page_in_swapcache(struct page *head)
{
	return folio_test_swapcache(page_folio(head));
}

static inline bool ckpt_page_on_lru(struct page *head)
{
	return folio_test_lru(page_folio(head));
}

/* False for what MADV_FREE gave back, if it is not in use again. */
static inline bool ckpt_page_swapbacked(struct page *page)
{
	return folio_test_swapbacked(page_folio(page));
}
#else
static inline bool ckpt_page_in_swapcache(struct page *head)
{
	return PageSwapCache(head);
}

static inline bool ckpt_page_on_lru(struct page *head)
{
	return PageLRU(head);
}

static inline bool ckpt_page_swapbacked(struct page *page)
{
	return PageSwapBacked(page);
}
#endif

static inline void ckpt_events_read(struct mm_struct *mm, struct ckpt_events *events)
{
	events->forks = READ_ONCE(mm->write_protect_seq.sequence);
#ifdef CONFIG_NUMA_BALANCING
	events->numa_next_scan = READ_ONCE(mm->numa_next_scan);
	events->numa_scan_offset = READ_ONCE(mm->numa_scan_offset);
	events->numa_scan_seq = READ_ONCE(mm->numa_scan_seq);
#endif
}

/*
 * Changes when mappings may have changed. For kernels that lose VM_SOFTDIRTY and give write permission without a fault
 * in other ways than mprotect(). Needs the mmap lock. last: what it was, for kernels that do not count.
 */
static inline u64 ckpt_mappings_read(struct mm_struct *mm, u64 last)
{
#ifndef CKPT_HAS_PTE_WRITE_UPGRADE
	return last;
#elif !defined(CONFIG_PER_VMA_LOCK)
	return last + CKPT_SOFT_DIRTY_GETS_LOST;
#elif defined(CKPT_HAS_MM_LOCK_SEQCOUNT)
	return CKPT_SOFT_DIRTY_GETS_LOST ? mm->mm_lock_seq.sequence : last;
#else
	return CKPT_SOFT_DIRTY_GETS_LOST ? mm->mm_lock_seq : last;
#endif
}

/* KSM may be at work in the mm. */
static inline bool ckpt_mm_merges(struct mm_struct *mm)
{
#ifdef CKPT_HAS_MM_FLAGS_TEST
	return mm_flags_test(MMF_VM_MERGEABLE, mm);
#else
	return test_bit(MMF_VM_MERGEABLE, &mm->flags);
#endif
}

/* What an entry that is neither empty nor present stands for. */
enum ckpt_swap_kind {
	CKPT_SWAP_NOTHING,	/* markers, poison */
	CKPT_SWAP_SLOT,
	CKPT_SWAP_MIGRATION,
	CKPT_SWAP_DEVICE,	/* and what is not known */
};

#ifdef CKPT_HAS_LEAFOPS
static inline enum ckpt_swap_kind ckpt_swap_kind(pte_t pte)
{
	softleaf_t leaf = softleaf_from_pte(pte);

	if (softleaf_is_swap(leaf))
		return CKPT_SWAP_SLOT;
	if (softleaf_is_migration(leaf))
		return CKPT_SWAP_MIGRATION;
	if (softleaf_is_marker(leaf) || softleaf_is_hwpoison(leaf))
		return CKPT_SWAP_NOTHING;
	return CKPT_SWAP_DEVICE;
}
#else
static inline enum ckpt_swap_kind ckpt_swap_kind(pte_t pte)
{
	swp_entry_t entry = pte_to_swp_entry(pte);

	if (!non_swap_entry(entry))
		return CKPT_SWAP_SLOT;
	if (is_migration_entry(entry))
		return CKPT_SWAP_MIGRATION;
#ifdef SWP_PTE_MARKER
	if (swp_type(entry) == SWP_PTE_MARKER)
		return CKPT_SWAP_NOTHING;
#endif
	return is_hwpoison_entry(entry) ? CKPT_SWAP_NOTHING : CKPT_SWAP_DEVICE;
}
#endif

#endif
