// SPDX-License-Identifier: GPL-2.0
/*
 * mprotect() of tracked memory, where VM_SOFTDIRTY gets lost when mappings merge (see hole 1 in walk.c). It may have
 * given write permission without a fault, or have taken away what was given: what is in such a range is not known any
 * more.
 *
 * The kernel has no tracepoint there, and the function is not exported; a kprobe finds it by its name. It runs with
 * preemption off and the mm's lock held for write, so no collect is in a window.
 */
#include <linux/kprobes.h>
#include <linux/mm.h>

#include "compat.h"
#include "internal.h"

static bool registered;

static int protect_begins(struct kprobe *probe, struct pt_regs *regs)
{
	struct vm_area_struct *vma = (void *)regs_get_kernel_argument(regs, CKPT_MPROTECT_VMA);

	ckpt_tracker_unknown(vma->vm_mm, regs_get_kernel_argument(regs, CKPT_MPROTECT_START),
			     regs_get_kernel_argument(regs, CKPT_MPROTECT_START + 1));
	return 0;
}

static struct kprobe probe = {
	.symbol_name = "mprotect_fixup",
	.pre_handler = protect_begins,
};

void ckpt_protect_register(void)
{
	int err;

	if (!CKPT_SOFT_DIRTY_GETS_LOST)
		return;
	err = register_kprobe(&probe);
	registered = !err;
	if (err)
		pr_warn("ckpt: no soft-dirty: cannot probe %s: %d\n", probe.symbol_name, err);
}

void ckpt_protect_unregister(void)
{
	if (registered)
		unregister_kprobe(&probe);
}

bool ckpt_protect_seen(void)
{
	return registered || !CKPT_SOFT_DIRTY_GETS_LOST;
}
