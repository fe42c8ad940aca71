// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle: a job writes the number of the iteration into random pages on two CPUs and changes its mappings, while
 * its memory is collected without stopping it. A copy is kept from nothing but the reported pages, each read after the
 * COLLECT that reported it. Now and then the job pauses; after one more COLLECT the copy must be the job's memory.
 *
 *	dirty_oracle [-n COLLECTS] [-s SEED] [-m SLOTS] [-e EVENTS]
 *
 * EVENTS is a set of letters, see events[]; "" is none.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "guest.h"

#define SLOT_BYTES (2 * HUGE_BYTES)
#define ARENA 0x200000000000ul
#define WRITERS 2
#define THREADS (WRITERS + 2)	/* with the hot writer and the events */
#define COLLECTS_PER_COMPARE 5

/* Shared by the job and the test. */
struct control {
	atomic_uint iteration;
	atomic_bool pause;
	atomic_int paused;		/* threads that wait for the end of the pause */
	atomic_ulong writes, events;
	atomic_bool used[256];		/* slot is mapped */
};

static struct control *control;
static int slots = 12;
static const char *wanted_events = NULL;

/* ---- the job ---- */

static pthread_rwlock_t mappings = PTHREAD_RWLOCK_INITIALIZER;	/* write: pages go away or become read-only */

static char *slot_address(int slot)
{
	return (char *)ARENA + slot * SLOT_BYTES;
}

static void slot_map(int slot)
{
	char *address = slot_address(slot);

	require(mmap(address, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		address);
	/* Odd pairs keep small pages; neighbours of the same kind merge into one VMA. */
	require(madvise(address, SLOT_BYTES, slot / 2 % 2 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE) == 0);
	control->used[slot] = true;
}

static void slot_unmap(int slot)
{
	require(munmap(slot_address(slot), SLOT_BYTES) == 0);
	control->used[slot] = false;
}

static void pause_here(void)
{
	if (!control->pause)
		return;
	control->paused++;
	while (control->pause)
		usleep(200);
	control->paused--;
}

static void *writer(void *argument)
{
	unsigned int seed = (uintptr_t)argument;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET((uintptr_t)argument % WRITERS, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	for (;;) {
		pause_here();
		pthread_rwlock_rdlock(&mappings);
		for (int i = 0; i < 16; i++) {
			int slot = rand_r(&seed) % slots;
			uint32_t *page = (void *)(slot_address(slot) + rand_r(&seed) % (SLOT_BYTES / PAGE) * PAGE);

			if (control->used[slot])
				page[rand_r(&seed) % (PAGE / 4)] = control->iteration;
		}
		control->writes += 16;
		pthread_rwlock_unlock(&mappings);
		/* Most pages should be clean at each COLLECT, or nothing would be missed. */
		usleep(rand_r(&seed) % 2000);
	}
	return NULL;
}

/*
 * Writes a few pages again and again, without a pause in which the CPU would forget their translations: this one
 * misses the flush.
 */
static void *hot_writer(void *argument)
{
	unsigned int seed = (uintptr_t)argument;
	cpu_set_t cpus;
	uint32_t value = 0;

	CPU_ZERO(&cpus);
	CPU_SET(1, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	for (;;) {
		int slot = rand_r(&seed) % slots;
		volatile uint32_t *first = (void *)(slot_address(slot) + rand_r(&seed) % (SLOT_BYTES / PAGE - 8) * PAGE);

		pause_here();
		pthread_rwlock_rdlock(&mappings);
		for (int i = 0; control->used[slot] && i < 1000000 && !control->pause; i++)
			first[i % 8 * (PAGE / 4)] = ++value;
		pthread_rwlock_unlock(&mappings);
		usleep(rand_r(&seed) % 5000);
	}
	return NULL;
}

static void event_dontneed(unsigned int *seed, int slot)
{
	size_t start = rand_r(seed) % (SLOT_BYTES / PAGE), pages = rand_r(seed) % 64;

	if (start + pages > SLOT_BYTES / PAGE)
		pages = SLOT_BYTES / PAGE - start;
	madvise(slot_address(slot) + start * PAGE, pages * PAGE, MADV_DONTNEED);
}

static void event_remap(unsigned int *seed, int slot)
{
	if (control->used[slot])
		slot_unmap(slot);
	else
		slot_map(slot);
}

/* Whole tables move: see hole 2 in walk.c. Afterwards the old place is mapped again, or not. */
static void event_move(unsigned int *seed, int slot)
{
	int to = rand_r(seed) % slots;

	if (to == slot || !control->used[slot])
		return;
	/* A slot into which other pages moved is more than one VMA, and stays; its target is lost. */
	if (mremap(slot_address(slot), SLOT_BYTES, SLOT_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, slot_address(to)) ==
	    MAP_FAILED) {
		slot_unmap(slot);
		slot_map(to);
		return;
	}
	control->used[to] = true;
	control->used[slot] = false;
	if (rand_r(seed) % 2)
		slot_map(slot);
}

/* Some pages move to an address that is not aligned alike. */
static void event_move_pages(unsigned int *seed, int slot)
{
	int to = rand_r(seed) % slots;
	size_t from_page = rand_r(seed) % 900, to_page = rand_r(seed) % 900;
	char *from = slot_address(slot) + from_page * PAGE, *there = slot_address(to) + to_page * PAGE;

	if (to == slot || !control->used[slot] || !control->used[to])
		return;
	/* What was moved before is another VMA, and a range with two does not move. */
	if (mremap(from, 100 * PAGE, 100 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there) == MAP_FAILED)
		from = there;
	require(mmap(from, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from);
}

/* The kernel may give write permission back without a fault: see hole 1. */
static void event_protect(unsigned int *seed, int slot)
{
	if (!control->used[slot])
		return;
	require(mprotect(slot_address(slot), SLOT_BYTES, PROT_READ) == 0);
	require(mprotect(slot_address(slot), SLOT_BYTES, PROT_READ | PROT_WRITE) == 0);
}

static void event_fork(unsigned int *seed, int slot)
{
	pid_t pid = fork();

	require(pid >= 0);
	if (!pid) {
		if (control->used[slot])
			slot_address(slot)[7] = 1;
		_exit(0);
	}
	require(waitpid(pid, NULL, 0) == pid);
}

static void event_collapse(unsigned int *seed, int slot)
{
	madvise(slot_address(slot), HUGE_BYTES, 25 /* MADV_COLLAPSE */);
}

static void event_pageout(unsigned int *seed, int slot)
{
	madvise(slot_address(slot), HUGE_BYTES, MADV_PAGEOUT);
}

/* Pages in a pipe have references from elsewhere. */
static void event_splice(unsigned int *seed, int slot)
{
	static char drain[16 * PAGE];
	static int pipes[2] = { -1, -1 };
	struct iovec iov = { slot_address(slot) + rand_r(seed) % 1000 * PAGE, sizeof(drain) };

	require(pipes[0] >= 0 || pipe2(pipes, O_NONBLOCK) == 0);
	while (read(pipes[0], drain, sizeof(drain)) > 0)
		;
	vmsplice(pipes[1], &iov, 1, SPLICE_F_NONBLOCK);
}

static void event_read(unsigned int *seed, int slot)
{
	if (control->used[slot])
		for (size_t i = 0; i < SLOT_BYTES; i += PAGE)
			(void)*(volatile char *)(slot_address(slot) + i);
}

static const struct event {
	char letter;
	bool exclusive;	/* the writers would fault */
	void (*run)(unsigned int *seed, int slot);
} events[] = {
	{ 'd', false, event_dontneed },
	{ 'u', true, event_remap },
	{ 'm', true, event_move },
	{ 'p', true, event_move_pages },
	{ 'w', true, event_protect },
	{ 'f', false, event_fork },
	{ 'c', false, event_collapse },
	{ 'o', false, event_pageout },
	{ 'r', true, event_read },
	{ 's', false, event_splice },
};

static void event_run(unsigned int *seed)
{
	const struct event *event = &events[rand_r(seed) % (sizeof(events) / sizeof(*events))];
	int slot = rand_r(seed) % slots;

	if (wanted_events && !strchr(wanted_events, event->letter))
		return;
	if (event->exclusive)
		pthread_rwlock_wrlock(&mappings);
	event->run(seed, slot);
	if (event->exclusive)
		pthread_rwlock_unlock(&mappings);
	control->events++;
}

static void job(unsigned int seed)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int slot = 0; slot < slots; slot++)
		slot_map(slot);
	for (int i = 0; i < WRITERS; i++)
		require(pthread_create(&thread, NULL, writer, (void *)(uintptr_t)(seed * WRITERS + i)) == 0);
	require(pthread_create(&thread, NULL, hot_writer, (void *)(uintptr_t)seed) == 0);
	for (;;) {
		pause_here();
		event_run(&seed);
		usleep(rand_r(&seed) % 4000);
	}
}

/* ---- the test ---- */

static char *copy;
static size_t arena_bytes;
static pid_t job_pid;
static unsigned long collects, reported_pages;
static uint64_t generation;

static bool job_read(uint64_t address, void *into, size_t bytes)
{
	struct iovec local = { into, bytes }, remote = { (void *)address, bytes };

	return process_vm_readv(job_pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

/* A page that is gone by now is reported again when it comes back. */
static void copy_region(const struct ckpt_region *region)
{
	char *into = copy + (region->start - ARENA);

	if (job_read(region->start, into, region->end - region->start))
		return;
	for (uint64_t a = region->start; a < region->end; a += PAGE)
		if (!job_read(a, copy + (a - ARENA), PAGE))
			memset(copy + (a - ARENA), 0, PAGE);
}

typedef void take_region(const struct ckpt_region *region);

static void take_written(const struct ckpt_region *region)
{
	if (!(region->categories & CKPT_PAGE_WRITTEN))
		return;
	reported_pages += (region->end - region->start) / PAGE;
	copy_region(region);
}

static char *present;

static void take_present(const struct ckpt_region *region)
{
	take_written(region);
	if (region->categories & (CKPT_PAGE_PRESENT | CKPT_PAGE_SWAPPED) && !(region->categories & CKPT_PAGE_ZERO))
		memset(present + (region->start - ARENA) / PAGE, 1, (region->end - region->start) / PAGE);
}

/* The whole arena, in pieces of any size. */
static void collect(int tracker, uint32_t flags, unsigned int *seed, take_region *take)
{
	static struct ckpt_region vec[4096];
	uint64_t at = ARENA, end = ARENA + arena_bytes;

	while (at < end) {
		uint64_t piece = rand_r(seed) % 8 ? end : at + (1 + rand_r(seed) % 2000) * PAGE;
		struct ckpt_collect arguments = {
			.size = sizeof(arguments), .flags = flags, .start = at, .end = piece < end ? piece : end,
			.vec = (uintptr_t)vec, .vec_len = rand_r(seed) % 4 ? 4096 : 1 + rand_r(seed) % 5,
		};

		require(ioctl(tracker, CKPT_IOC_COLLECT, &arguments) == 0);
		require(arguments.out_walk_end > at && arguments.out_walk_end <= arguments.end);
		require(!generation || arguments.out_generation == generation);
		generation = arguments.out_generation;
		for (uint64_t i = 0; i < arguments.out_count; i++)
			take(&vec[i]);
		at = arguments.out_walk_end;
	}
	collects++;
}

static void compare_page(size_t page)
{
	static char zero[PAGE], now[PAGE];
	uint64_t address = ARENA + page * PAGE;
	const char *held = present[page] ? copy + page * PAGE : zero;

	if (!job_read(address, now, PAGE) || !memcmp(now, held, PAGE))
		return;
	for (size_t i = 0; i < PAGE; i += 4)
		if (memcmp(now + i, held + i, 4))
			fail("missed: page %zu (slot %zu) at %#lx+%zu holds %u, the copy %u; iteration %u, collect %lu, %s", page,
			     page * PAGE / SLOT_BYTES, address, i, *(uint32_t *)(now + i), *(uint32_t *)(held + i),
			     control->iteration, collects, present[page] ? "present" : "absent");
}

static void compare(int tracker, unsigned int *seed)
{
	control->pause = true;
	while (control->paused < THREADS) {
		require(waitpid(job_pid, NULL, WNOHANG) == 0);
		usleep(200);
	}
	memset(present, 0, arena_bytes / PAGE);
	collect(tracker, CKPT_COLLECT_PRESENT, seed, take_present);
	for (size_t page = 0; page < arena_bytes / PAGE; page++)
		compare_page(page);
	control->pause = false;
	while (control->paused)
		usleep(200);
}

static void *map_zeroed(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	require(p != MAP_FAILED);
	return p;
}

int main(int argc, char **argv)
{
	unsigned long wanted = 200, compares = 0;
	unsigned int seed = 1;
	int option, tracker;

	while ((option = getopt(argc, argv, "n:s:m:e:")) != -1)
		switch (option) {
		case 'n': wanted = strtoul(optarg, NULL, 0); break;
		case 's': seed = strtoul(optarg, NULL, 0); break;
		case 'm': slots = atoi(optarg); break;
		case 'e': wanted_events = optarg; break;
		default: return 2;
		}
	control = map_zeroed(sizeof(*control));
	arena_bytes = slots * SLOT_BYTES;
	job_pid = fork();
	require(job_pid >= 0);
	if (!job_pid)
		job(seed);
	copy = map_zeroed(arena_bytes);
	present = map_zeroed(arena_bytes / PAGE);
	tracker = tracker_of(job_pid);
	while (collects < wanted) {
		for (int i = 0; i < COLLECTS_PER_COMPARE; i++) {
			control->iteration++;
			usleep(rand_r(&seed) % 20000);
			collect(tracker, 0, &seed, take_written);
		}
		compare(tracker, &seed);
		compares++;
	}
	kill(job_pid, SIGKILL);
	require(waitpid(job_pid, NULL, 0) == job_pid);
	printf("events %s: %lu collects, %lu compares, %lu writes, %lu events, %lu pages reported of %zu, 0 missed\n",
	       wanted_events ?: "all", collects, compares, control->writes, control->events, reported_pages,
	       arena_bytes / PAGE);
	return 0;
}
