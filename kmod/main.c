// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>

#include "internal.h"

static int __init ckpt_init(void)
{
	return ckpt_device_register();
}

static void __exit ckpt_exit(void)
{
	ckpt_device_unregister();
}

module_init(ckpt_init);
module_exit(ckpt_exit);

MODULE_DESCRIPTION("Which pages of a process were written, collected while it runs");
MODULE_VERSION(CKPT_VERSION);
MODULE_LICENSE("GPL");
