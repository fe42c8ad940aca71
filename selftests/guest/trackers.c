// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon's trackers: every mechanism keeps the promises of tracker.h.
 *
 *	trackers		all mechanisms; the module is loaded
 *	trackers without	/dev/ckpt is missing: says so, and chooses procfs, or hash if that does not work
 */
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <liburing.h>

#include "guest.h"
#include "pagescan.h"
#include "tracker_mechanism.h"

#define JOB_MEMORY ((char *)0x300000000000ul)
#define JOB_PAGES 1024
#define HALF (JOB_PAGES / 2)

static struct problem problem;

static bool has_wp_async(void)
{
	struct utsname name;
	int major, minor;

	require(uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2);
	return major > 6 || (major == 6 && minor >= 7);
}

#define ELSEWHERE (JOB_MEMORY + (1ul << 40))

enum action {
	WRITE,		/* the page */
	MAP,		/* new memory where the old is, up to the page */
	DROP,		/* MADV_DONTNEED of the page */
	MOVE,		/* mremap of all from the page on, elsewhere and back; the first page is written elsewhere */
	REPLACE,	/* mremap of the first half to where the second is: a whole page table */
	READ,		/* all pages: the kernel's zero page comes where there is none */
	PIN,		/* as a buffer of an io_uring */
	FILL,		/* the pinned page, by the kernel */
	SHARE,		/* its memory with another process, which does nothing */
	EXEC,
};

struct order {
	enum action action;
	size_t page;
};

struct job {
	pid_t pid;
	int pidfd;
	int order[2];	/* to the job */
	int done[2];	/* from the job */
};

static void job_map(size_t pages)
{
	require(mmap(JOB_MEMORY, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		JOB_MEMORY);
	require(madvise(JOB_MEMORY, pages * PAGE, MADV_NOHUGEPAGE) == 0);
}

static void job_move(char *from, size_t bytes)
{
	require(mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE) == ELSEWHERE);
	*(volatile char *)ELSEWHERE = 2;
	require(mremap(ELSEWHERE, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, from) == from);
}

static struct io_uring ring;

static void job_pin(char *page)
{
	struct iovec buffer = { page, PAGE };

	require(io_uring_queue_init(2, &ring, 0) == 0);
	require(io_uring_register_buffers(&ring, &buffer, 1) == 0);
}

static void job_fill(char *page)
{
	int zero = open("/dev/zero", O_RDONLY);
	struct io_uring_cqe *done;

	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), zero, page, PAGE, 0, 0);
	require(io_uring_submit_and_wait(&ring, 1) == 1 && io_uring_wait_cqe(&ring, &done) == 0);
	require(done->res == PAGE);
	io_uring_cqe_seen(&ring, done);
	close(zero);
}

static int share(void *unused)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pause();
	return 0;
}

static void job_share(void)
{
	static char stack[64 * 1024];

	require(clone(share, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL) > 0);
}

static void job_act(const struct order *order)
{
	char *at = JOB_MEMORY + order->page * PAGE;

	switch (order->action) {
	case WRITE:
		*(volatile char *)at = 1;
		break;
	case MAP:
		job_map(order->page);
		break;
	case DROP:
		require(madvise(at, PAGE, MADV_DONTNEED) == 0);
		break;
	case MOVE:
		job_move(at, (JOB_PAGES - order->page) * PAGE);
		break;
	case REPLACE:
		require(mremap(JOB_MEMORY, HALF * PAGE, HALF * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			       JOB_MEMORY + HALF * PAGE) == JOB_MEMORY + HALF * PAGE);
		break;
	case READ:
		for (size_t page = 0; page < JOB_PAGES; page++)
			(void)*(volatile char *)(JOB_MEMORY + page * PAGE);
		break;
	case PIN:
		job_pin(at);
		break;
	case FILL:
		job_fill(at);
		break;
	case SHARE:
		job_share();
		break;
	case EXEC:
		execlp("sleep", "sleep", "1000", NULL);
		_exit(127);
	}
}

static void job_run(const struct job *job)
{
	struct order order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	job_map(JOB_PAGES);
	while (read(job->order[0], &order, sizeof(order)) == sizeof(order)) {
		job_act(&order);
		require(write(job->done[1], "", 1) == 1);
	}
	_exit(0);
}

static struct job job_start(void)
{
	struct job job;

	require(pipe2(job.order, O_CLOEXEC) == 0 && pipe2(job.done, O_CLOEXEC) == 0);
	job.pid = fork();
	require(job.pid >= 0);
	if (!job.pid)
		job_run(&job);
	job.pidfd = pidfd_of(job.pid);
	return job;
}

static void job_order(const struct job *job, enum action action, size_t page)
{
	struct order order = { .action = action, .page = page };
	char byte;

	require(write(job->order[1], &order, sizeof(order)) == sizeof(order));
	require(action == EXEC || read(job->done[0], &byte, 1) == 1);
}

/* Until the new program does what it is for: before that it maps its libraries. */
static void job_exec(const struct job *job)
{
	char path[64], text[256] = "";
	long call = -1;

	job_order(job, EXEC, 0);
	snprintf(path, sizeof(path), "/proc/%d/syscall", job->pid);
	while (call != SYS_clock_nanosleep) {
		int fd = open(path, O_RDONLY);
		ssize_t length = read(fd, text, sizeof(text) - 1);

		require(length >= 0);
		text[length] = 0;
		call = strtol(text, NULL, 10);
		close(fd);
	}
}

static void job_end(struct job *job)
{
	kill(job->pid, SIGKILL);
	require(waitpid(job->pid, NULL, 0) == job->pid);
	for (int i = 0; i < 2; i++) {
		close(job->order[i]);
		close(job->done[i]);
	}
	close(job->pidfd);
}

static bool reported(const struct regions *regions, size_t page)
{
	uint64_t address = (uintptr_t)JOB_MEMORY + page * PAGE;

	for (size_t i = 0; i < regions->count; i++)
		if (regions->list[i].start <= address && address < regions->list[i].end)
			return regions->list[i].categories & CKPT_PAGE_WRITTEN;
	return false;
}

/* The job waits for an order meanwhile, as it has to for some mechanisms. */
static void collect(struct tracker *tracker, struct regions *regions, bool *full)
{
	struct regions present = {};

	regions_clear(regions);
	if (tracker_collect(tracker, regions, &present, full, &problem) || tracker_rearm(tracker, &problem))
		fail("collect: %s", problem.text);
	for (size_t i = 1; i < regions->count; i++)
		require(regions->list[i - 1].end <= regions->list[i].start);
	regions_free(&present);
}

static void check(const struct tracker *tracker, const struct regions *regions, const int *written, const int *unwritten)
{
	for (; *written >= 0; written++)
		if (!reported(regions, *written))
			fail("%s: page %d was written and is not reported", tracker->mechanism->name, *written);
	for (; *unwritten >= 0; unwritten++)
		if (reported(regions, *unwritten))
			fail("%s: page %d was not written and is reported", tracker->mechanism->name, *unwritten);
}

static void expect_from(struct tracker *tracker, const int *written, const int *unwritten)
{
	const bool always_full = !strcmp(tracker->mechanism->name, "hash");
	struct regions regions = {};
	bool full;

	collect(tracker, &regions, &full);
	require(full == always_full);
	check(tracker, &regions, written, always_full ? (const int[]){ -1 } : unwritten);
	regions_free(&regions);
}

/*
 * Of the job's memory, pages that must and pages that must not be reported; each list ends with -1. Where one page of a
 * table was written or dropped, procfs may report all of it.
 */
static void expect(struct tracker *tracker, const int *written, const int *unwritten)
{
	expect_from(tracker, written, strcmp(tracker->mechanism->name, "procfs") ? unwritten : (const int[]){ -1 });
}

/* Nothing was done since the last collect. */
static void expect_nothing(struct tracker *tracker, const int *unwritten)
{
	expect_from(tracker, (const int[]){ -1 }, unwritten);
}

#define pages(...) ((const int[]){ __VA_ARGS__, -1 })

static void mappings_change(const struct job *job, struct tracker *tracker)
{
	job_order(job, WRITE, 5);
	job_order(job, WRITE, 600);
	expect(tracker, pages(5, 600), pages(3, 4));
	/* New memory at the address of the old, in part. What it was merged with may be reported too; not what is absent. */
	job_order(job, MAP, 512);
	job_order(job, WRITE, 6);
	expect(tracker, pages(6), pages(3, 4, 5));
	job_order(job, WRITE, 6);
	expect(tracker, pages(6), pages(3, 4, 5, 600));
	job_order(job, DROP, 6);
	expect(tracker, pages(-1), pages(6, 600));
	job_order(job, WRITE, 6);
	expect(tracker, pages(6), pages(5, 600));
	/* Moved there and back, and written in between. All that moved may be reported. */
	job_order(job, WRITE, 513);
	expect(tracker, pages(513), pages(6, 600));
	job_order(job, MOVE, 513);
	job_order(job, WRITE, 601);
	expect(tracker, pages(513, 601), pages(6));
	expect_nothing(tracker, pages(6, 513, 600, 601));
	job_order(job, WRITE, 600);
	expect(tracker, pages(600), pages(6, 513, 601));
	/* Pages that were not written come to an address where others were: there they have to be read again. */
	job_order(job, WRITE, 7);
	job_order(job, WRITE, HALF + 7);
	expect(tracker, pages(7, HALF + 7), pages(6, 600));
	expect_nothing(tracker, pages(7, HALF + 7));
	job_order(job, REPLACE, 0);
	expect(tracker, pages(HALF + 6, HALF + 7), pages(-1));
	expect_nothing(tracker, pages(HALF + 6, HALF + 7));
	job_order(job, MAP, HALF);
}

/* A page table takes the place of another. What both have in common is the kernel's zero page. */
static void zero_pages(const struct job *job, struct tracker *tracker)
{
	job_order(job, MAP, JOB_PAGES);
	job_order(job, WRITE, 40);
	job_order(job, WRITE, HALF + 30);
	job_order(job, READ, 0);
	expect(tracker, pages(40, HALF + 30), pages(-1));
	expect_nothing(tracker, pages(40, HALF + 30));
	job_order(job, REPLACE, 0);
	expect(tracker, pages(HALF + 40), pages(-1));
	job_order(job, MAP, JOB_PAGES);
}

/* What the kernel writes through its own reference on a page makes no fault. */
static void kernel_writes(const struct job *job, struct tracker *tracker)
{
	job_order(job, PIN, 9);
	expect(tracker, pages(9), pages(6));
	for (int i = 0; i < 3; i++) {
		job_order(job, FILL, 9);
		expect(tracker, pages(9), pages(6));
	}
}

/* The memory of before is not gone with the exec: somebody shares it. */
static void exec_seen(const struct tracker_mechanism *mechanism)
{
	struct job job = job_start();
	struct regions regions = {};
	struct tracker *tracker;
	bool full;

	job_order(&job, WRITE, 3);
	job_order(&job, SHARE, 0);
	if (tracker_open(&tracker, mechanism, job.pidfd, job.pid, &problem))
		fail("open: %s", problem.text);
	collect(tracker, &regions, &full);
	require(full && reported(&regions, 3));
	job_exec(&job);
	collect(tracker, &regions, &full);
	require(full && regions.count && !reported(&regions, 3));
	job_end(&job);
	tracker_close(tracker);
	regions_free(&regions);
}

static void mechanism(const struct tracker_mechanism *mechanism)
{
	struct job job = job_start();
	struct regions regions = {}, present = {};
	struct tracker *tracker;
	bool full;

	job_order(&job, WRITE, 3);
	if (tracker_open(&tracker, mechanism, job.pidfd, job.pid, &problem))
		fail("open: %s", problem.text);
	collect(tracker, &regions, &full);
	require(full && reported(&regions, 3) && !reported(&regions, 4));

	job_order(&job, WRITE, 4);
	expect(tracker, pages(4), pages(3));
	expect_nothing(tracker, pages(3, 4));
	mappings_change(&job, tracker);
	zero_pages(&job, tracker);
	kernel_writes(&job, tracker);

	/* The error that comes from outside: regions that nobody can keep. Then everything is reported again. */
	job_exec(&job);
	collect(tracker, &regions, &full);
	require(full && regions.count && !reported(&regions, 3));
	expect_nothing(tracker, pages(3));

	job_end(&job);
	require(tracker_collect(tracker, &regions, &present, &full, &problem) == -ESRCH);
	require(strstr(problem.text, "is gone") || strstr(problem.text, "No such process") || strstr(problem.text, "cannot"));
	tracker_close(tracker);
	regions_free(&present);
	regions_free(&regions);
	exec_seen(mechanism);
	printf("%s: as promised\n", mechanism->name);
}

static void choosing(void)
{
	require(!strcmp(tracker_choose("auto", &problem)->name, "soft-dirty") && !problem.text[0]);
	require(!strcmp(tracker_choose("hash", &problem)->name, "hash") && !problem.text[0]);
	require(!strcmp(tracker_choose(" hash,soft-dirty", &problem)->name, "hash"));
	require(!tracker_choose("magic", &problem) && strstr(problem.text, "magic"));
	require(!tracker_choose(" ", &problem) && problem.text[0]);
}

/* Without the module the next best is chosen, and it is said why. */
static void without_module(void)
{
	const char *best = tracker_choose("procfs", &problem) ? "procfs" : "hash";
	const struct tracker_mechanism *chosen = tracker_choose("auto", &problem);

	if (!chosen || strcmp(chosen->name, best) || !strstr(problem.text, "modprobe ckpt"))
		fail("chosen %s, because %s", chosen ? chosen->name : "nothing", problem.text);
	require(!tracker_choose("soft-dirty", &problem) && strstr(problem.text, "modprobe ckpt"));
	require(!tracker_choose("uffd-wp", &problem) && strstr(problem.text, "modprobe ckpt"));
	printf("without the module: %s\n", problem.text);
	mechanism(chosen);
}

/* Of Debian's kernels, which have it as it came. */
static bool forgets_writes(void)
{
	struct utsname name;
	int major, minor;

	require(uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2);
	return major == 6 && minor < 19;
}

/* uffd-wp and procfs do not work on each kernel; the others do. */
static void try_mechanism(const struct tracker_mechanism *tried)
{
	const bool procfs = !strcmp(tried->name, "procfs");
	const bool works = !tried->probe(&problem);

	require(!procfs || works == !forgets_writes());
	if (works) {
		mechanism(tried);
		return;
	}
	printf("%s: %s\n", tried->name, problem.text);
	if (procfs)
		require(strstr(problem.text, "may forget that a page was written"));
	else
		require(!strcmp(tried->name, "uffd-wp") && strstr(problem.text, "6.7") && !has_wp_async());
}

/* More regions than the kernel looks up at once, and fewer than fit into one answer: each page is told once, in order. */
static void scan_of_many(void)
{
	enum { COUNT = 700 };
	char *memory = mmap(NULL, 2 * COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t start = (uintptr_t)memory;
	struct regions regions = {};
	int pagemap = pagescan_open(getpid());

	require(memory != MAP_FAILED && pagemap >= 0);
	require(madvise(memory, 2 * COUNT * PAGE, MADV_NOHUGEPAGE) == 0);
	for (int i = 0; i < COUNT; i++)
		memory[2 * i * PAGE] = 1;
	require(pagescan(pagemap, PAGESCAN_PRESENT, start, start + 2 * COUNT * PAGE, 0, &regions) == 0);
	require(regions_pages(&regions) == COUNT && regions.count == COUNT);
	for (size_t i = 0; i < COUNT; i++)
		require(regions.list[i].start == start + 2 * i * PAGE);
	regions_free(&regions);
	close(pagemap);
	munmap(memory, 2 * COUNT * PAGE);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		without_module();
		return 0;
	}
	scan_of_many();
	choosing();
	for (size_t i = 0; tracker_mechanisms[i]; i++)
		try_mechanism(tracker_mechanisms[i]);
	return 0;
}
