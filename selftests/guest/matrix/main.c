// SPDX-License-Identifier: GPL-2.0
/*
 *	matrix MECHANISM [MEMORY [EVENT]]
 *
 * Each cell: a job makes memory, a tracker sees it, the event happens, and the job writes a little more. After each of
 * these the copy that is kept from the tracker's reports alone must be all of the job's private memory, and nothing of
 * its shared memory may have been reported. A cell passes or is skipped with a reason; all reasons are printed.
 */

#include <sched.h>
#include <linux/kvm.h>

#include "cgroup.h"
#include "matrix.h"
#include "oracle.h"

#define ORACLE_PAGES 16384
#define CGROUP_PARENT "/sys/fs/cgroup"
#define REASONS_MAX 64
#define CELL_SECONDS 150	/* one that takes longer will not end */

enum result { PASSED, SKIPPED, FAILED };

struct cell {
	const struct tracker_mechanism *mechanism;
	enum memory_kind kind;
	const struct event *event;

	pid_t pid;
	int to_job, from_job;
	struct tracker *tracker;
	enum result result;
	struct problem text;	/* why it was skipped, or has failed */
};

struct reason {
	char text[sizeof(((struct problem *)0)->text)];
	unsigned int cells;
};

struct table {
	unsigned int results[3];
	struct reason reasons[REASONS_MAX];
	unsigned int wholes;
};

static struct control *control;
static int control_fd;
static struct oracle oracle, child_oracle;
static struct disk *disk;
static char cgroup[256];

/* Cells that cannot pass, whatever the memory is. */
static const struct {
	const char *mechanism, *event, *reason;
} exceptions[] = {
	{ "uffd-wp", "io_uring", "a write through a registered buffer leaves no trace; jobs with io_uring are refused" },
	{ "procfs", "direct-read", "a task that waits for its disk does not freeze" },
	{ "procfs", "notifiers", "a virtual machine's kernel thread is in the job's cgroup and does not freeze; jobs with KVM are refused" },
	{ "procfs", "io_uring", "a write through a registered buffer leaves no trace; jobs with io_uring are refused" },
};

/* ---- the job's side ---- */

static void cgroup_join(pid_t pid)
{
	char path[300], number[16];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	require(fd >= 0 && write(fd, number, snprintf(number, sizeof(number), "%d", pid)) > 0);
	close(fd);
}

static void job_await(struct cell *cell)
{
	char byte;

	if (read(cell->from_job, &byte, 1) != 1) {
		cell->result = FAILED;
		problem_set(&cell->text, EPIPE, "the job has ended, see above");
	} else if (control->skip[0]) {
		cell->result = SKIPPED;
		problem_set(&cell->text, ENOTSUP, "%s", control->skip);
	}
}

static void job_start(struct cell *cell)
{
	int orders[2], answers[2];

	memset(control, 0, sizeof(*control));
	/* Inherited by what the job executes. */
	require(pipe(orders) == 0 && pipe(answers) == 0);
	cell->pid = fork();
	require(cell->pid >= 0);
	if (!cell->pid) {
		close(orders[1]);
		close(answers[0]);
		job_main(&(struct orders){ orders[0], answers[1], control_fd }, cell->kind);
	}
	close(orders[0]);
	close(answers[1]);
	cell->to_job = orders[1];
	cell->from_job = answers[0];
	cgroup_join(cell->pid);
	job_await(cell);
}

static void job_end(struct cell *cell)
{
	if (control->child)
		kill(control->child, SIGKILL);
	kill(cell->pid, SIGKILL);
	require(waitpid(cell->pid, NULL, 0) == cell->pid);
	close(cell->to_job);
	close(cell->from_job);
}

static void job_order(struct cell *cell, unsigned char order)
{
	require(write(cell->to_job, &order, 1) == 1);
}

/* It stands still: it sleeps in its next read(), or waits for the disk. After it has answered it still writes its stack. */
static void task_await_sleep(pid_t pid)
{
	char path[64], text[256], state = 'R';
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (state != 'S' && state != 'D' && state != 'Z') {
		sched_yield();
		fd = open(path, O_RDONLY | O_CLOEXEC);
		length = read(fd, text, sizeof(text) - 1);
		require(length > 0);
		text[length] = 0;
		state = strrchr(text, ')')[2];
		close(fd);
	}
}

/* ---- a cell ---- */

static void cell_fail(struct cell *cell, const char *when, const struct problem *why)
{
	if (cell->result == PASSED)
		problem_set(&cell->text, EILSEQ, "%s: %s", when, why->text);
	cell->result = FAILED;
}

static void step(struct cell *cell, struct tracker *tracker, struct oracle *into, const char *when)
{
	struct problem problem = {};
	int err;

	if (cell->result != PASSED)
		return;
	task_await_sleep(into->pid);
	err = oracle_collect(into, cell->mechanism, tracker, &problem);
	/* It thaws, and falls asleep again. */
	task_await_sleep(into->pid);
	if (err || !oracle_compare(into, &problem))
		cell_fail(cell, when, &problem);
}

static struct tracker *cell_track(struct cell *cell, pid_t pid, struct oracle *into)
{
	struct problem problem;
	struct tracker *tracker = NULL;
	int pidfd = pidfd_of(pid);

	oracle_reset(into, pid);
	if (tracker_open(&tracker, cell->mechanism, pidfd, pid, &problem))
		cell_fail(cell, "open", &problem);
	close(pidfd);
	return tracker;
}

/* A process that the event made has an address space, and a tracker, of its own. */
static void cell_look_at_child(struct cell *cell)
{
	struct tracker *tracker;

	if (!control->child || cell->result != PASSED)
		return;
	tracker = cell_track(cell, control->child, &child_oracle);
	step(cell, tracker, &child_oracle, "in the child");
	tracker_close(tracker);
}

static void cell_event(struct cell *cell)
{
	const char *why;

	if (cell->event->outside) {
		why = cell->event->outside(cell->pid, &control->area);
		if (why) {
			cell->result = SKIPPED;
			problem_set(&cell->text, ENOTSUP, "%s: %s", cell->event->name, why);
		}
		return;
	}
	job_order(cell, cell->event - events);
	if (cell->event->reads_disk) {
		disk_await(disk);
		step(cell, cell->tracker, &oracle, "while the disk reads");
		disk_answer(disk);
	}
	if (cell->result == PASSED)
		job_await(cell);
}

static void cell_write(struct cell *cell)
{
	if (cell->result != PASSED)
		return;
	job_order(cell, ORDER_WRITE);
	job_await(cell);
}

/* More was reported than what was written, by far: said, since it costs. */
static void whole_report(struct cell *cell, struct table *table)
{
	const struct area *area = &control->area;
	uint64_t start = (uintptr_t)area->start;
	uint64_t pages = oracle_reported(&oracle, start, start + area->pages * PAGE);

	if (oracle.full || pages < 32 || oracle.changed_pages * 4 > pages)
		return;
	printf("%s %s/%s: %lu pages reported, %lu changed\n", table->wholes++ ? "  " : "whole:", memories[cell->kind].name,
	       cell->event->name, pages, oracle.changed_pages);
}

static void cell_steps(struct cell *cell, struct table *table)
{
	cell->tracker = cell_track(cell, cell->pid, &oracle);
	step(cell, cell->tracker, &oracle, "first");
	if (cell->result == PASSED)
		cell_event(cell);
	step(cell, cell->tracker, &oracle, "after the event");
	if (cell->result == PASSED)
		whole_report(cell, table);
	cell_look_at_child(cell);
	if (cell->event->twice && cell->result == PASSED) {
		cell_event(cell);
		step(cell, cell->tracker, &oracle, "after its second half");
	}
	cell_write(cell);
	step(cell, cell->tracker, &oracle, "after more writes");
	tracker_close(cell->tracker);
}

static const char *cell_exception(const struct cell *cell)
{
	for (size_t i = 0; i < sizeof(exceptions) / sizeof(*exceptions); i++)
		if (!strcmp(exceptions[i].mechanism, cell->mechanism->name) &&
		    !strcmp(exceptions[i].event, cell->event->name))
			return exceptions[i].reason;
	if (!(cell->event->memories & MEMORY_BIT(cell->kind)))
		return cell->event->otherwise;
	return cell->event->reads_disk && !disk ? "this kernel has no nbd" : NULL;
}

static void cell_run(struct cell *cell, struct table *table)
{
	const char *exception = cell_exception(cell);

	if (exception) {
		cell->result = SKIPPED;
		problem_set(&cell->text, ENOTSUP, "%s: %s", cell->event->name, exception);
		return;
	}
	job_start(cell);
	if (cell->result == PASSED)
		cell_steps(cell, table);
	job_end(cell);
}

/* ---- a cell that does not end ---- */

static const struct cell *watched;

static void print_task_file(pid_t pid, const char *name)
{
	char path[64], text[4096];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = read(fd, text, sizeof(text));
	printf("%s:\n%.*s\n", path, length > 0 ? (int)length : 0, text);
	close(fd);
}

/* What everybody waits for. Nothing else goes on in this process, so it may print. */
static void watch_ends(int signal)
{
	printf("not ok %s %s/%s: not done after %d s\n", watched->mechanism->name, memories[watched->kind].name,
	       watched->event->name, CELL_SECONDS);
	for (size_t i = 0; i < 3; i++) {
		static const char *const names[] = { "stat", "syscall", "stack" };

		print_task_file(getpid(), names[i]);
		print_task_file(watched->pid, names[i]);
		if (control->child)
			print_task_file(control->child, names[i]);
	}
	fflush(stdout);
	_exit(1);
}

static void watch(const struct cell *cell)
{
	watched = cell;
	signal(SIGALRM, watch_ends);
	alarm(cell ? CELL_SECONDS : 0);
}

/* ---- the table ---- */

static void table_add_reason(struct table *table, const char *text)
{
	for (size_t i = 0; i < REASONS_MAX; i++) {
		struct reason *reason = &table->reasons[i];

		if (reason->cells && strcmp(reason->text, text))
			continue;
		snprintf(reason->text, sizeof(reason->text), "%s", text);
		reason->cells++;
		return;
	}
	fail("more than %d reasons", REASONS_MAX);
}

static void table_cell(struct table *table, const struct tracker_mechanism *mechanism, enum memory_kind kind,
		       const struct event *event)
{
	struct cell cell = { .mechanism = mechanism, .kind = kind, .event = event };

	watch(&cell);
	cell_run(&cell, table);
	watch(NULL);
	table->results[cell.result]++;
	if (cell.result == FAILED)
		printf("not ok %s %s/%s: %s\n", mechanism->name, memories[kind].name, event->name, cell.text.text);
	else if (cell.result == SKIPPED)
		table_add_reason(table, cell.text.text);
	fflush(stdout);
}

static int table_print(const struct table *table, const char *mechanism)
{
	for (size_t i = 0; i < REASONS_MAX && table->reasons[i].cells; i++)
		printf("skipped %u: %s\n", table->reasons[i].cells, table->reasons[i].text);
	printf("%s: %u cells passed, %u failed, %u skipped\n", mechanism, table->results[PASSED], table->results[FAILED],
	       table->results[SKIPPED]);
	return table->results[FAILED] || !table->results[PASSED];
}

/*
 * A virtual machine for as long as the test runs: with the first and the last one the kernel patches its scheduler, which
 * QEMU without KVM does not always get right. See hold_perf_event() in vm/supervise.c.
 */
static void hold_virtual_machine(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm >= 0)
		require(ioctl(kvm, KVM_CREATE_VM, 0) >= 0);
}

static const struct tracker_mechanism *mechanism_named(const char *name)
{
	struct problem why;

	for (size_t i = 0; tracker_mechanisms[i]; i++) {
		if (strcmp(tracker_mechanisms[i]->name, name))
			continue;
		if (!tracker_mechanisms[i]->probe(&why))
			return tracker_mechanisms[i];
		printf("%s: %s\n", name, why.text);
		exit(TEST_SKIP);
	}
	fail("there is no mechanism %s", name);
}

int main(int argc, char **argv)
{
	const struct tracker_mechanism *mechanism;
	struct problem problem;
	struct table table = {};
	int status;

	if (argc > 5 && !strcmp(argv[1], "job"))
		job_main_again(argv + 2);
	require(argc > 1);
	mechanism = mechanism_named(argv[1]);
	hold_virtual_machine();
	control_fd = memfd_create("control", 0);
	require(control_fd >= 0 && ftruncate(control_fd, sizeof(*control)) == 0);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, control_fd, 0);
	require(control != MAP_FAILED);
	oracle_init(&oracle, cgroup, ORACLE_PAGES);
	oracle_init(&child_oracle, cgroup, ORACLE_PAGES);
	require(cgroup_create(CGROUP_PARENT, "matrix", cgroup, sizeof(cgroup), &problem) == 0);
	disk = disk_create();
	for (int kind = 0; kind < MEMORY_KINDS; kind++)
		for (size_t event = 0; event < event_count; event++)
			if ((argc < 3 || !strcmp(argv[2], memories[kind].name)) &&
			    (argc < 4 || !strcmp(argv[3], events[event].name)))
				table_cell(&table, mechanism, kind, &events[event]);
	disk_destroy(disk);
	cgroup_remove(cgroup);
	status = table_print(&table, mechanism->name);
	return status;
}
