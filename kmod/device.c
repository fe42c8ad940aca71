// SPDX-License-Identifier: GPL-2.0
/* /dev/ckpt and the ioctl envelope. Nothing here touches an mm. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "internal.h"

union argument {
	struct ckpt_info info;
	struct ckpt_track track;
	struct ckpt_userfaultfd userfaultfd;
	struct ckpt_collect collect;
	struct ckpt_referenced referenced;
};

static const struct ckpt_command *command_find(const struct ckpt_command *commands, size_t count, unsigned int number)
{
	for (; count; commands++, count--)
		if (commands->number == number)
			return commands;
	return NULL;
}

int ckpt_descriptor_reserve(struct ckpt_descriptor *new)
{
	new->fd = get_unused_fd_flags(O_CLOEXEC);
	return new->fd < 0 ? new->fd : 0;
}

/* The caller gets the new descriptor only when it can be told its number. */
static void descriptor_finish(const struct ckpt_descriptor *new, bool publish)
{
	if (new->fd < 0)
		return;
	if (publish) {
		fd_install(new->fd, new->file);
		return;
	}
	put_unused_fd(new->fd);
	if (new->file)
		fput(new->file);
}

long ckpt_command_run(const struct ckpt_command *commands, size_t count, struct file *file, unsigned int number,
		      unsigned long argument)
{
	const struct ckpt_command *command = command_find(commands, count, number);
	void __user *user = (void __user *)argument;
	struct ckpt_descriptor new = { .fd = -1 };
	union argument kernel = {};
	u32 user_size;
	int err;

	if (!command)
		return -ENOTTY;
	if (get_user(user_size, (u32 __user *)user))
		return -EFAULT;
	if (user_size < command->size)
		return -EINVAL;
	err = copy_struct_from_user(&kernel, command->size, user, user_size);
	if (err)
		return err;
	err = command->run(file, &kernel, &new);
	if (!err && copy_to_user(user, &kernel, command->size))
		err = -EFAULT;
	descriptor_finish(&new, !err);
	return err;
}

static u32 mechanisms(void)
{
	return (ckpt_soft_dirty_works() && ckpt_protect_seen() ? CKPT_MECHANISM_SOFT_DIRTY : 0) |
	       (ckpt_userfaultfd_works() ? CKPT_MECHANISM_UFFD_WP : 0);
}

static int device_info(struct file *file, void *argument, struct ckpt_descriptor *new)
{
	struct ckpt_info *info = argument;

	if (info->__reserved)
		return -EINVAL;
	info->out_mechanisms = mechanisms();
	info->out_page_bytes = PAGE_SIZE;
	memset(info->out_version, 0, sizeof(info->out_version));
	strscpy(info->out_version, CKPT_VERSION, sizeof(info->out_version));
	return 0;
}

/*
 * pidfd_get_pid() is not for modules. The pid found by its number is only compared with what the descriptor's file
 * points to, which is never followed: on a kernel that keeps it elsewhere nothing matches.
 */
static bool pidfd_names(int pidfd, const struct pid *pid, int *err)
{
	struct file *file = fget(pidfd);
	bool same;

	if (!file) {
		*err = -EBADF;
		return false;
	}
	same = pid && (file->private_data == pid || file_inode(file)->i_private == pid);
	fput(file);
	*err = same ? 0 : -ESRCH;
	return same;
}

static struct task_struct *track_task(const struct ckpt_track *track)
{
	struct task_struct *task = NULL;
	struct pid *pid = find_get_pid(track->pid);
	int err;

	if (pidfd_names(track->pidfd, pid, &err))
		task = get_pid_task(pid, PIDTYPE_TGID);
	put_pid(pid);
	return err ? ERR_PTR(err) : task ?: ERR_PTR(-ESRCH);
}

static int device_track(struct file *file, void *argument, struct ckpt_descriptor *new)
{
	struct ckpt_track *track = argument;
	struct task_struct *task;
	int err;

	if (track->flags || track->__reserved)
		return -EINVAL;
	if (!mechanisms())
		return -EOPNOTSUPP;
	task = track_task(track);
	if (IS_ERR(task))
		return PTR_ERR(task);
	err = ckpt_descriptor_reserve(new);
	if (!err)
		err = ckpt_tracker_create(task, new, &track->out_generation);
	put_task_struct(task);
	track->out_fd = new->fd;
	return err;
}

static const struct ckpt_command device_commands[] = {
	{ CKPT_IOC_INFO, sizeof(struct ckpt_info), device_info },
	{ CKPT_IOC_TRACK, sizeof(struct ckpt_track), device_track },
};

static long device_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	return ckpt_command_run(device_commands, ARRAY_SIZE(device_commands), file, number, argument);
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ckpt",
	.fops = &device_operations,
	.mode = 0600,
};

int ckpt_device_register(void)
{
	return misc_register(&device);
}

void ckpt_device_unregister(void)
{
	misc_deregister(&device);
}
