// SPDX-License-Identifier: GPL-2.0
/*
 * A userfaultfd of an mm that does not cooperate.
 *
 * A userfaultfd belongs to the mm of whoever asks for it. So a kernel thread takes the mm for a moment and asks, through
 * the /dev/userfaultfd that the caller has opened (a kernel thread has no file system to open it in). It gets a
 * descriptor in the table that all kernel threads share, takes the file from there and closes the descriptor.
 *
 * What remains is a file of the kernel itself, as if the process had made it and passed it on: its operations are not
 * this module's, its context holds mm_count and nothing of ours. Therefore it needs no reference to the module, works
 * on when that is unloaded, and at its last close the kernel takes its registrations off the mm; the process goes on.
 */
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "internal.h"

struct userfaultfd_request {
	struct work_struct work;
	struct mm_struct *mm;
	struct file *device;
	struct file *file;	/* the answer */
};

static void request_run(struct work_struct *work)
{
	struct userfaultfd_request *request = container_of(work, struct userfaultfd_request, work);
	int fd;

	kthread_use_mm(request->mm);
	fd = ckpt_userfaultfd_new(request->device);
	kthread_unuse_mm(request->mm);
	if (fd < 0) {
		request->file = ERR_PTR(fd);
		return;
	}
	request->file = fget(fd) ?: ERR_PTR(-EBADF);
	close_fd(fd);
}

/*
 * Whose ioctl is it? The operations of /dev/userfaultfd have no symbol to compare with. But opening a misc device
 * leaves its struct miscdevice in private_data, and where the driver has no open() of its own nobody had a chance to
 * put something else there. Even so nothing is followed before the device is known to be the one that this inode's
 * number and these operations belong to. Names of misc devices are unique.
 */
static bool is_userfaultfd_device(const struct file *file)
{
	const struct inode *inode = file_inode(file);
	struct miscdevice device;

	if (!S_ISCHR(inode->i_mode) || imajor(inode) != MISC_MAJOR || file->f_op->open || !file->f_op->unlocked_ioctl)
		return false;
	if (copy_from_kernel_nofault(&device, file->private_data, sizeof(device)))
		return false;
	return device.minor == iminor(inode) && device.fops == file->f_op && !strcmp(device.name, "userfaultfd");
}

/*
 * Nothing of this is left when it returns: flush_work() waits until the function has returned, not only until it has
 * answered. It cannot be interrupted, and need not be: the thread allocates a file and waits for nobody. The caller's
 * ioctl holds the module.
 */
struct file *ckpt_userfaultfd_create(struct mm_struct *mm, int device_fd)
{
	struct userfaultfd_request request = { .mm = mm, .device = fget(device_fd) };

	if (!request.device)
		return ERR_PTR(-EBADF);
	if (is_userfaultfd_device(request.device)) {
		INIT_WORK_ONSTACK(&request.work, request_run);
		schedule_work(&request.work);
		flush_work(&request.work);
		destroy_work_on_stack(&request.work);
	} else {
		request.file = ERR_PTR(-ENODEV);
	}
	fput(request.device);
	return request.file;
}
