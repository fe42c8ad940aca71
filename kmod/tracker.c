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
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "compat.h"
#include "internal.h"

static LIST_HEAD(trackers);
static DEFINE_MUTEX(trackers_lock);
static atomic64_t generations;

void ckpt_tracker_restart(struct ckpt_tracker *tracker)
{
	mmap_read_lock(tracker->mm);
	ckpt_tables_destroy(&tracker->tables);
	tracker->cover.index = CKPT_COVER_NONE;
	mmap_read_unlock(tracker->mm);
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
		list_add_rcu(&tracker->link, &trackers);
	mutex_unlock(&trackers_lock);
	return err;
}

static void tracker_free(struct ckpt_tracker *tracker)
{
	ckpt_tables_destroy(&tracker->tables);
	kvfree(tracker->regions);
	put_pid(tracker->pid);
	mmdrop(tracker->mm);
	kfree(tracker);
}

static void tracker_destroy(struct ckpt_tracker *tracker)
{
	mutex_lock(&trackers_lock);
	list_del_rcu(&tracker->link);
	mutex_unlock(&trackers_lock);
	synchronize_rcu();
	tracker_free(tracker);
}

static int tracker_release(struct inode *inode, struct file *file)
{
	tracker_destroy(file->private_data);
	return 0;
}

bool ckpt_tracker_of(struct task_struct *task)
{
	struct ckpt_tracker *tracker;
	bool found = false;

	rcu_read_lock();
	list_for_each_entry_rcu(tracker, &trackers, link)
		found |= tracker->pid == task_tgid(task);
	rcu_read_unlock();
	return found;
}

void ckpt_tracker_unknown(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct ckpt_tracker *tracker;

	rcu_read_lock();
	list_for_each_entry_rcu(tracker, &trackers, link)
		if (tracker->mm == mm)
			ckpt_known_forget(tracker, start, end);
	rcu_read_unlock();
}

enum process_state {
	PROCESS_SAME,
	PROCESS_EXECED,
	PROCESS_EXITED,
};

/*
 * exec gives a process another address space; the old one may live on in others that shared it (vfork), and is not this
 * tracker's any more. A process whose first thread alone has ended still has it, though that thread has none.
 */
static enum process_state process_state(const struct ckpt_tracker *tracker)
{
	struct task_struct *task = get_pid_task(tracker->pid, PIDTYPE_TGID);
	enum process_state state = PROCESS_SAME;

	if (!task)
		return PROCESS_EXITED;
	task_lock(task);
	if (task->mm && task->mm != tracker->mm)
		state = PROCESS_EXECED;
	task_unlock(task);
	if (!atomic_read(&task->signal->live))
		state = PROCESS_EXITED;
	put_task_struct(task);
	return state;
}

/*
 * The address space with its users held, or NULL. mmput_async() afterwards: if all users have gone meanwhile, the memory
 * is not freed on our time.
 */
static struct mm_struct *tracker_mm_get(struct ckpt_tracker *tracker)
{
	return process_state(tracker) == PROCESS_SAME && mmget_not_zero(tracker->mm) ? tracker->mm : NULL;
}

static __poll_t tracker_poll(struct file *file, poll_table *table)
{
	ckpt_watch(file, table);
	switch (process_state(file->private_data)) {
	case PROCESS_EXECED:
		return EPOLLIN | EPOLLRDNORM;
	case PROCESS_EXITED:
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	default:
		return 0;
	}
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

static int tracker_collect(struct file *file, void *argument, struct ckpt_descriptor *new)
{
	struct ckpt_tracker *tracker = file->private_data;
	struct ckpt_collect *collect = argument;
	struct mm_struct *mm;
	int err = collect_check(collect);

	if (err)
		return err;
	if (!ckpt_soft_dirty_works() || !ckpt_protect_seen())
		return -EOPNOTSUPP;
	collect->out_count = 0;
	collect->out_walk_end = collect->start;
	if (mutex_lock_interruptible(&tracker->lock))
		return -EINTR;
	mm = tracker_mm_get(tracker);
	err = mm ? ckpt_walk(tracker, mm, collect) : -ESRCH;
	if (mm)
		mmput_async(mm);
	collect->out_generation = tracker->generation;
	mutex_unlock(&tracker->lock);
	return err;
}

static int tracker_referenced(struct file *file, void *argument, struct ckpt_descriptor *new)
{
	struct ckpt_tracker *tracker = file->private_data;
	struct ckpt_referenced *referenced = argument;
	struct mm_struct *mm;
	int err;

	if (referenced->flags || !PAGE_ALIGNED(referenced->start) || !referenced->vec_len)
		return -EINVAL;
	mm = tracker_mm_get(tracker);
	if (!mm)
		return -ESRCH;
	err = ckpt_referenced_find(mm, referenced);
	mmput_async(mm);
	return err;
}

/* With it the memory can be written, so the tracker's descriptor alone is not enough. */
static int tracker_userfaultfd(struct file *file, void *argument, struct ckpt_descriptor *new)
{
	struct ckpt_tracker *tracker = file->private_data;
	struct ckpt_userfaultfd *userfaultfd = argument;
	struct task_struct *task;
	struct mm_struct *mm;
	bool may;
	int err;

	if (userfaultfd->flags)
		return -EINVAL;
	if (!ckpt_userfaultfd_works())
		return -EOPNOTSUPP;
	task = get_pid_task(tracker->pid, PIDTYPE_TGID);
	if (!task)
		return -ESRCH;
	may = may_track(task, tracker->mm);
	put_task_struct(task);
	if (!may)
		return -EPERM;
	mm = tracker_mm_get(tracker);
	if (!mm)
		return -ESRCH;
	err = ckpt_descriptor_reserve(new);
	if (!err) {
		new->file = ckpt_userfaultfd_create(mm, userfaultfd->device_fd);
		err = PTR_ERR_OR_ZERO(new->file);
	}
	if (err)
		new->file = NULL;
	userfaultfd->out_fd = new->fd;
	mmput_async(mm);
	return err;
}

static const struct ckpt_command tracker_commands[] = {
	{ CKPT_IOC_COLLECT, sizeof(struct ckpt_collect), tracker_collect },
	{ CKPT_IOC_REFERENCED, sizeof(struct ckpt_referenced), tracker_referenced },
	{ CKPT_IOC_USERFAULTFD, sizeof(struct ckpt_userfaultfd), tracker_userfaultfd },
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
	.poll = tracker_poll,
	.unlocked_ioctl = tracker_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct ckpt_tracker *tracker_alloc(struct task_struct *task, struct mm_struct *mm)
{
	struct ckpt_tracker *tracker = kzalloc(sizeof(*tracker), GFP_KERNEL_ACCOUNT);
	int err;

	if (!tracker)
		return ERR_PTR(-ENOMEM);
	mutex_init(&tracker->lock);
	ckpt_tables_init(&tracker->tables);
	mmgrab(mm);
	tracker->mm = mm;
	tracker->pid = get_task_pid(task, PIDTYPE_TGID);
	tracker->stamp = 1;
	ckpt_tracker_restart(tracker);
	tracker->regions = kvmalloc_array(CKPT_BOUNCE_REGIONS, sizeof(*tracker->regions), GFP_KERNEL_ACCOUNT);
	err = tracker->regions ? trackers_add(tracker) : -ENOMEM;
	if (err) {
		tracker_free(tracker);
		return ERR_PTR(err);
	}
	return tracker;
}

static int tracker_open(struct task_struct *task, struct mm_struct *mm, struct ckpt_descriptor *new, u64 *generation)
{
	struct ckpt_tracker *tracker = tracker_alloc(task, mm);
	struct file *file;

	if (IS_ERR(tracker))
		return PTR_ERR(tracker);
	*generation = tracker->generation;
	file = anon_inode_getfile("[ckpt]", &tracker_operations, tracker, O_RDWR);
	if (IS_ERR(file)) {
		tracker_destroy(tracker);
		return PTR_ERR(file);
	}
	new->file = file;
	return 0;
}

int ckpt_tracker_create(struct task_struct *task, struct ckpt_descriptor *new, u64 *generation)
{
	struct mm_struct *mm = get_task_mm(task);
	int err = -EPERM;

	if (!mm)
		return -ESRCH;
	if (may_track(task, mm))
		err = tracker_open(task, mm, new, generation);
	mmput(mm);
	return err;
}
