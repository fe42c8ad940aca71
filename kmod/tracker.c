// SPDX-License-Identifier: GPL-2.0
/* A tracker: lifetime, permission, continuity. */
#include <linux/anon_inodes.h>
#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "compat.h"
#include "internal.h"

static LIST_HEAD(trackers);
static DEFINE_MUTEX(trackers_lock);
static atomic64_t generations;

void ckpt_tracker_restart(struct ckpt_tracker *tracker)
{
	xa_destroy(&tracker->tables);
	tracker->cover.index = CKPT_COVER_NONE;
	tracker->generation = atomic64_inc_return(&generations);
}

/* What ptrace_may_access() asks of root's daemons; it is not exported. There is no security module hook to call. */
static bool may_track(struct task_struct *task, struct mm_struct *mm)
{
	bool may;

	rcu_read_lock();
	may = ns_capable(__task_cred(task)->user_ns, CAP_SYS_PTRACE) &&
	      ns_capable(ckpt_program_user_ns(task, mm), CAP_SYS_PTRACE);
	rcu_read_unlock();
	return may;
}

static int trackers_add(struct ckpt_tracker *tracker)
{
	struct ckpt_tracker *other;
	int err = 0;

	mutex_lock(&trackers_lock);
	list_for_each_entry(other, &trackers, link)
		if (other->mm == tracker->mm)
			err = -EBUSY;
	if (!err)
		list_add(&tracker->link, &trackers);
	mutex_unlock(&trackers_lock);
	return err;
}

static int tracker_release(struct inode *inode, struct file *file)
{
	struct ckpt_tracker *tracker = file->private_data;

	mutex_lock(&trackers_lock);
	list_del(&tracker->link);
	mutex_unlock(&trackers_lock);
	xa_destroy(&tracker->tables);
	mmdrop(tracker->mm);
	kfree(tracker);
	return 0;
}

static int collect_check(const struct ckpt_collect *collect)
{
	if (collect->flags & ~CKPT_COLLECT_PRESENT)
		return -EINVAL;
	if (!PAGE_ALIGNED(collect->start) || !PAGE_ALIGNED(collect->end) || collect->start >= collect->end)
		return -EINVAL;
	if (!collect->vec_len)
		return -EINVAL;
	return 0;
}

static int tracker_collect(struct file *file, void *argument)
{
	struct ckpt_tracker *tracker = file->private_data;
	struct ckpt_collect *collect = argument;
	int err = collect_check(collect);

	if (err)
		return err;
	collect->out_count = 0;
	collect->out_walk_end = collect->start;
	if (mutex_lock_interruptible(&tracker->lock))
		return -EINTR;
	if (mmget_not_zero(tracker->mm)) {
		err = ckpt_walk(tracker, tracker->mm, collect);
		/* If the process has exited meanwhile, its memory is not freed on our time. */
		mmput_async(tracker->mm);
	} else {
		err = -ESRCH;
	}
	collect->out_generation = tracker->generation;
	mutex_unlock(&tracker->lock);
	return err;
}

static const struct ckpt_command tracker_commands[] = {
	{ CKPT_IOC_COLLECT, sizeof(struct ckpt_collect), tracker_collect },
};

static long tracker_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	struct ckpt_tracker *tracker = file->private_data;
	long err = ckpt_command_run(tracker_commands, ARRAY_SIZE(tracker_commands), file, number, argument);

	/* Pages may have been armed, and the caller does not know which. */
	if (err == -EFAULT) {
		mutex_lock(&tracker->lock);
		ckpt_tracker_restart(tracker);
		mutex_unlock(&tracker->lock);
	}
	return err;
}

static const struct file_operations tracker_operations = {
	.owner = THIS_MODULE,
	.release = tracker_release,
	.unlocked_ioctl = tracker_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct ckpt_tracker *tracker_alloc(struct mm_struct *mm)
{
	struct ckpt_tracker *tracker = kzalloc(sizeof(*tracker), GFP_KERNEL_ACCOUNT);
	int err;

	if (!tracker)
		return ERR_PTR(-ENOMEM);
	mutex_init(&tracker->lock);
	xa_init_flags(&tracker->tables, XA_FLAGS_ACCOUNT);
	tracker->mm = mm;
	ckpt_tracker_restart(tracker);
	err = trackers_add(tracker);
	if (err) {
		kfree(tracker);
		return ERR_PTR(err);
	}
	mmgrab(mm);
	return tracker;
}

static struct file *tracker_file(struct mm_struct *mm, u64 *generation)
{
	struct ckpt_tracker *tracker = tracker_alloc(mm);
	struct file *file;

	if (IS_ERR(tracker))
		return ERR_CAST(tracker);
	*generation = tracker->generation;
	file = anon_inode_getfile("[ckpt]", &tracker_operations, tracker, O_RDWR);
	if (IS_ERR(file)) {
		mutex_lock(&trackers_lock);
		list_del(&tracker->link);
		mutex_unlock(&trackers_lock);
		mmdrop(mm);
		kfree(tracker);
	}
	return file;
}

struct file *ckpt_tracker_create(struct task_struct *task, u64 *generation)
{
	struct mm_struct *mm = get_task_mm(task);
	struct file *file = ERR_PTR(-EPERM);

	if (!mm)
		return ERR_PTR(-ESRCH);
	if (may_track(task, mm))
		file = tracker_file(mm, generation);
	mmput(mm);
	return file;
}
