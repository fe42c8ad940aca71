// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the nth allocation of a thread fail, on kernels that have no fault injection: kprobes on the allocators' entry
 * points. What a module calls, and what the kernel calls for it, is counted alike. Allocations of a kernel thread that
 * works in somebody's address space count as well.
 */
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "ckpt_fail.h"

static struct task_struct *target;
static atomic_long_t allocations;
static unsigned long fail_at;

static notrace noinline void return_at_once(void)
{
	asm volatile("");
}
NOKPROBE_SYMBOL(return_at_once);

/* A probe that is a breakpoint runs as an NMI, and that counts as an interrupt too. */
static bool interrupted(void)
{
	return hardirq_count() > (in_nmi() ? HARDIRQ_OFFSET : 0) || in_serving_softirq();
}

static bool counts(gfp_t flags)
{
	bool mine = current == target || (current->flags & PF_KTHREAD && current->mm);

	return READ_ONCE(target) && mine && !interrupted() && !(flags & __GFP_NOFAIL);
}

/* The entry points have their flags in one of the first four arguments. */
#define ALLOCATOR(name, register) \
	static int name##_enter(struct kprobe *probe, struct pt_regs *regs) \
	{ \
		return allocator_enter(regs, regs->register); \
	}

static int allocator_enter(struct pt_regs *regs, gfp_t flags)
{
	if (!counts(flags) || atomic_long_inc_return(&allocations) != fail_at)
		return 0;
	regs_set_return_value(regs, 0);
	instruction_pointer_set(regs, (unsigned long)return_at_once);
	return 1;
}
NOKPROBE_SYMBOL(allocator_enter);

ALLOCATOR(second, si)
ALLOCATOR(third, dx)
#ifdef CONFIG_SLAB_BUCKETS
ALLOCATOR(kvmalloc, dx)	/* size, bucket, flags, node */
#else
ALLOCATOR(kvmalloc, si)
#endif

/* With one, a probe may change where the call goes. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#define PROBE(symbol, handler) { .symbol_name = symbol, .pre_handler = handler##_enter, .post_handler = after }

/* Under all their names; what a kernel does not have is left out. */
static struct kprobe probes[] = {
	PROBE("kmem_cache_alloc", second),
	PROBE("kmem_cache_alloc_noprof", second),
	PROBE("kmem_cache_alloc_lru", third),
	PROBE("kmem_cache_alloc_lru_noprof", third),
	PROBE("kmem_cache_alloc_node", second),
	PROBE("kmem_cache_alloc_node_noprof", second),
	PROBE("kmem_cache_alloc_trace", second),
	PROBE("kmalloc_trace", second),
	PROBE("__kmalloc_cache_noprof", second),
	PROBE("__kmalloc", second),
	PROBE("__kmalloc_noprof", second),
	PROBE("__kmalloc_node", second),
	PROBE("kvmalloc_node", second),
	PROBE("kvmalloc_node_noprof", second),
	PROBE("__kvmalloc_node_noprof", kvmalloc),
};
static bool registered[ARRAY_SIZE(probes)];

static long fail_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case CKPT_FAIL_ARM:
		fail_at = argument;
		atomic_long_set(&allocations, 0);
		WRITE_ONCE(target, current);
		return 0;
	case CKPT_FAIL_DISARM:
		WRITE_ONCE(target, NULL);
		return atomic_long_read(&allocations);
	}
	return -ENOTTY;
}

/* The thread has ended. */
static int fail_release(struct inode *inode, struct file *file)
{
	WRITE_ONCE(target, NULL);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = fail_ioctl,
	.release = fail_release,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ckpt_fail",
	.fops = &operations,
	.mode = 0600,
};

static void probes_remove(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(probes); i++)
		if (registered[i])
			unregister_kprobe(&probes[i]);
}

static int probes_place(void)
{
	size_t i, placed = 0;
	int err;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		err = register_kprobe(&probes[i]);
		registered[i] = !err;
		placed += !err;
		if (err && err != -ENOENT) {
			pr_err("ckpt_fail: %s: %d\n", probes[i].symbol_name, err);
			probes_remove();
			return err;
		}
	}
	pr_info("ckpt_fail: %zu allocators\n", placed);
	return placed < 3 ? -ENOENT : 0;
}

static int __init fail_init(void)
{
	int err = probes_place();

	if (err)
		return err;
	err = misc_register(&device);
	if (err)
		probes_remove();
	return err;
}

static void __exit fail_exit(void)
{
	misc_deregister(&device);
	probes_remove();
}

module_init(fail_init);
module_exit(fail_exit);
MODULE_DESCRIPTION("Tests of ckpt: the nth allocation fails");
MODULE_LICENSE("GPL");
