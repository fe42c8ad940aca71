// SPDX-License-Identifier: GPL-2.0
/*
 * exec and exit of tracked processes, to wake who polls a tracker.
 *
 * The kernel tells of both by tracepoints, which modules may attach to; they have to be found by name. What a poll
 * answers is not remembered from here but looked up when it asks (ckpt_tracker_poll), so nothing is missed that came
 * before, and nothing is said of a tracker that was made behind the event. A notifier on the mm would not do: it tells
 * of the mm's end, not of the exec, and mm_has_notifiers() must go on to mean that there are secondary MMUs.
 *
 * The probes run in every exec and exit of the system, for which they walk the few trackers, and with preemption off:
 * the waking is left to an irq_work.
 */
#include <linux/irq_work.h>
#include <linux/sched/signal.h>
#include <linux/tracepoint.h>
#include <linux/wait.h>
#include <trace/events/sched.h>

#include "compat.h"
#include "internal.h"

static DECLARE_WAIT_QUEUE_HEAD(watchers);

static void watchers_wake(struct irq_work *work)
{
	wake_up_poll(&watchers, EPOLLIN | EPOLLHUP);
}

static DEFINE_IRQ_WORK(wake, watchers_wake);

static void probe_exec(void *unused, struct task_struct *task, pid_t old_pid, struct linux_binprm *binary)
{
	if (ckpt_tracker_of(task))
		irq_work_queue(&wake);
}

/* Each thread's; a process has exited with its last one. */
static void probe_exit(CKPT_PROBE_EXIT_ARGUMENTS)
{
	if (!atomic_read(&task->signal->live) && ckpt_tracker_of(task))
		irq_work_queue(&wake);
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *tracepoint;
} points[] = {
	{ "sched_process_exec", probe_exec },
	{ "sched_process_exit", probe_exit },
};

static void point_find(struct tracepoint *tracepoint, void *unused)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(points); i++)
		if (!strcmp(tracepoint->name, points[i].name))
			points[i].tracepoint = tracepoint;
}

static void points_unregister(size_t count)
{
	while (count--)
		tracepoint_probe_unregister(points[count].tracepoint, points[count].probe, NULL);
	tracepoint_synchronize_unregister();
}

int ckpt_watch_register(void)
{
	size_t i;
	int err;

	/* The compiler compares the probes with what this kernel calls. */
	check_trace_callback_type_sched_process_exec(probe_exec);
	check_trace_callback_type_sched_process_exit(probe_exit);
	for_each_kernel_tracepoint(point_find, NULL);
	for (i = 0; i < ARRAY_SIZE(points); i++) {
		err = points[i].tracepoint ? tracepoint_probe_register(points[i].tracepoint, points[i].probe, NULL) :
					     -ENOENT;
		if (err) {
			pr_err("ckpt: cannot attach to the tracepoint %s: %d\n", points[i].name, err);
			points_unregister(i);
			return err;
		}
	}
	return 0;
}

/*
 * Nobody polls any more: a poll holds the tracker's file, and that the module. Behind points_unregister() no probe runs
 * or will run, so nobody queues the work any more; then the last one is waited for.
 */
void ckpt_watch_unregister(void)
{
	points_unregister(ARRAY_SIZE(points));
	irq_work_sync(&wake);
}

void ckpt_watch(struct file *file, poll_table *table)
{
	poll_wait(file, &watchers, table);
}
