// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>

#include "internal.h"

static int __init ckpt_init(void)
{
	int err = ckpt_watch_register();

	if (err)
		return err;
	ckpt_protect_register();
	err = ckpt_device_register();
	if (err) {
		ckpt_protect_unregister();
		ckpt_watch_unregister();
	}
	return err;
}

static void __exit ckpt_exit(void)
{
	ckpt_device_unregister();
	ckpt_protect_unregister();
	ckpt_watch_unregister();
}

module_init(ckpt_init);
module_exit(ckpt_exit);

MODULE_DESCRIPTION("Which pages of a process were written, collected while it runs");
MODULE_VERSION(CKPT_VERSION);
MODULE_LICENSE("GPL");
