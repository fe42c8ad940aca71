// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle under load: a job writes to random pages from many threads, pinned and migrating, and changes its mappings,
 * while its memory is collected again and again. Now and then it is frozen, and after one more collect the copy must be
 * its memory.
 *
 *	dirty_oracle [-M MECHANISM] [-n COLLECTS] [-w WRITES] [-t SECONDS] [-s SEED] [-m SLOTS] [-e EVENTS] [-p MIB]
 *
 * It goes on until there were at least so many collects, writes and seconds. MECHANISM may also be "pieces": soft-dirty,
 * collected in pieces of any size and into vectors of any length. EVENTS is a set of letters, see events[]; "" is none.
 * -p limits the job to so much memory, so that it swaps.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "cgroup.h"
#include "guest.h"
#include "oracle.h"
#include "tracker_mechanism.h"

#define SLOT_BYTES (2 * HUGE_BYTES)
#define ARENA 0x200000000000ul
#define WRITERS 6		/* with the hot one and the one that makes events, eight threads */
#define COLLECTS_PER_COMPARE 5
#define OTHER_PAGES 16384	/* of the job, beside the slots */
#define SLOTS_MAX 256

/* Shared by the job and the test. */
struct control {
	atomic_ulong writes, hot_writes, events;
	atomic_bool used[SLOTS_MAX];	/* slot is mapped */
};

static struct control *control;
static unsigned int seed = 1;
static int slots = 12, cpus;
static const char *wanted_events;

/* ---- the job ---- */

static pthread_rwlock_t mappings = PTHREAD_RWLOCK_INITIALIZER;	/* write: pages go away or become read-only */

static char *slot_address(int slot)
{
	return (char *)ARENA + slot * SLOT_BYTES;
}

/* New ones, whatever was there. */
static void pages_map(char *start, size_t count)
{
	require(mmap(start, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == start);
}

static void slot_map(int slot)
{
	char *address = slot_address(slot);

	pages_map(address, SLOT_BYTES / PAGE);
	/* Odd pairs keep small pages; neighbours of the same kind merge into one VMA. */
	require(madvise(address, SLOT_BYTES, slot / 2 % 2 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE) == 0);
	control->used[slot] = true;
}

static void slot_unmap(int slot)
{
	require(munmap(slot_address(slot), SLOT_BYTES) == 0);
	control->used[slot] = false;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % cpus, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The even ones stay on their CPU, the odd ones change it. */
static void *writer(void *argument)
{
	const unsigned int number = (uintptr_t)argument;
	unsigned int random = seed * WRITERS + number;
	uint32_t value = number << 24;

	run_on(number);
	for (;;) {
		if (number % 2 && rand_r(&random) % 8 == 0)
			run_on(rand_r(&random));
		pthread_rwlock_rdlock(&mappings);
		for (int i = 0; i < 64; i++) {
			int slot = rand_r(&random) % slots;
			uint32_t *page = (void *)(slot_address(slot) + rand_r(&random) % (SLOT_BYTES / PAGE) * PAGE);

			if (control->used[slot])
				page[rand_r(&random) % (PAGE / 4)] = ++value;
		}
		control->writes += 64;
		pthread_rwlock_unlock(&mappings);
		/* Most pages should be clean at each collect, or nothing would be missed. */
		usleep(rand_r(&random) % 20000);
	}
	return NULL;
}

/*
 * Writes a few pages again and again, without a pause in which the CPU would forget their translations: this one
 * misses the flush.
 */
static void *hot_writer(void *argument)
{
	unsigned int random = seed, writes;
	uint32_t value = 0;

	for (;;) {
		int slot = rand_r(&random) % slots;
		volatile uint32_t *first = (void *)(slot_address(slot) + rand_r(&random) % (SLOT_BYTES / PAGE - 8) * PAGE);

		run_on(rand_r(&random));
		pthread_rwlock_rdlock(&mappings);
		for (writes = 0; control->used[slot] && writes < 20000; writes++)
			first[writes % 8 * (PAGE / 4)] = ++value;
		pthread_rwlock_unlock(&mappings);
		control->hot_writes += writes;
		usleep(rand_r(&random) % 5000);
	}
	return NULL;
}

static void event_dontneed(unsigned int *random, int slot)
{
	size_t start = rand_r(random) % (SLOT_BYTES / PAGE), pages = rand_r(random) % 64;

	if (start + pages > SLOT_BYTES / PAGE)
		pages = SLOT_BYTES / PAGE - start;
	madvise(slot_address(slot) + start * PAGE, pages * PAGE, MADV_DONTNEED);
}

static void event_remap(unsigned int *random, int slot)
{
	if (control->used[slot])
		slot_unmap(slot);
	else
		slot_map(slot);
}

/* Whole tables move: see hole 2 in walk.c. Afterwards the old place is mapped again, or not. */
static void event_move(unsigned int *random, int slot)
{
	int to = rand_r(random) % slots;

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
	if (rand_r(random) % 2)
		slot_map(slot);
}

/* Some pages move to an address that is not aligned alike. */
static void event_move_pages(unsigned int *random, int slot)
{
	int to = rand_r(random) % slots;
	size_t from_page = rand_r(random) % 900, to_page = rand_r(random) % 900;
	char *from = slot_address(slot) + from_page * PAGE, *there = slot_address(to) + to_page * PAGE;

	if (to == slot || !control->used[slot] || !control->used[to])
		return;
	/*
	 * What was moved before is another VMA. A range with two does not move, or only the first of them does (from 6.17
	 * on, if the second has a userfaultfd); the target is lost in any case.
	 */
	if (mremap(from, 100 * PAGE, 100 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there) == MAP_FAILED)
		pages_map(there, 100);
	pages_map(from, 100);
}

/* The kernel may give write permission back without a fault: see hole 1. */
static void event_protect(unsigned int *random, int slot)
{
	if (!control->used[slot])
		return;
	require(mprotect(slot_address(slot), SLOT_BYTES, PROT_READ) == 0);
	require(mprotect(slot_address(slot), SLOT_BYTES, PROT_READ | PROT_WRITE) == 0);
}

static void event_fork(unsigned int *random, int slot)
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

static void event_collapse(unsigned int *random, int slot)
{
	madvise(slot_address(slot), HUGE_BYTES, 25 /* MADV_COLLAPSE */);
}

static void event_pageout(unsigned int *random, int slot)
{
	madvise(slot_address(slot), HUGE_BYTES, MADV_PAGEOUT);
}

/* Pages in a pipe have references from elsewhere. */
static void event_splice(unsigned int *random, int slot)
{
	static char drain[16 * PAGE];
	static int pipes[2] = { -1, -1 };
	struct iovec iov = { slot_address(slot) + rand_r(random) % 1000 * PAGE, sizeof(drain) };

	require(pipes[0] >= 0 || pipe2(pipes, O_NONBLOCK) == 0);
	while (read(pipes[0], drain, sizeof(drain)) > 0)
		;
	vmsplice(pipes[1], &iov, 1, SPLICE_F_NONBLOCK);
}

static void event_read(unsigned int *random, int slot)
{
	if (control->used[slot])
		for (size_t i = 0; i < SLOT_BYTES; i += PAGE)
			(void)*(volatile char *)(slot_address(slot) + i);
}

static const struct event {
	char letter;
	bool exclusive;	/* the writers would fault */
	void (*run)(unsigned int *random, int slot);
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

static void event_run(unsigned int *random)
{
	const struct event *event = &events[rand_r(random) % (sizeof(events) / sizeof(*events))];
	int slot = rand_r(random) % slots;

	if (wanted_events && !strchr(wanted_events, event->letter))
		return;
	if (event->exclusive)
		pthread_rwlock_wrlock(&mappings);
	event->run(random, slot);
	if (event->exclusive)
		pthread_rwlock_unlock(&mappings);
	control->events++;
}

static _Noreturn void job_run(int start)
{
	unsigned int random = seed;
	pthread_t thread;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(read(start, &byte, 1) == 1);
	for (int slot = 0; slot < slots; slot++)
		slot_map(slot);
	for (uintptr_t i = 0; i < WRITERS; i++)
		require(pthread_create(&thread, NULL, writer, (void *)i) == 0);
	require(pthread_create(&thread, NULL, hot_writer, NULL) == 0);
	for (;;) {
		event_run(&random);
		usleep(rand_r(&random) % 4000);
	}
}

/* ---- the mechanism "pieces" ---- */

static unsigned int pieces_random;

/* Everything, in pieces of any size. */
static int pieces_collect(struct tracker *tracker, struct regions *regions, struct problem *problem)
{
	static struct ckpt_region vec[4096];
	const uint64_t end = -PAGE;
	uint64_t at = 0;
	int err = 0;

	while (!err && at < end) {
		uint64_t piece = at < ARENA || rand_r(&pieces_random) % 8 ? end : at + (1 + rand_r(&pieces_random) % 2000) * PAGE;
		struct ckpt_collect arguments = {
			.size = sizeof(arguments), .start = at, .end = piece < end ? piece : end, .vec = (uintptr_t)vec,
			.vec_len = rand_r(&pieces_random) % 4 ? 4096 : 1 + rand_r(&pieces_random) % 5,
		};

		require(ioctl(tracker->fd, CKPT_IOC_COLLECT, &arguments) == 0);
		require(arguments.out_walk_end > at && arguments.out_walk_end <= arguments.end);
		require(!tracker->generation || arguments.out_generation == tracker->generation);
		tracker->generation = arguments.out_generation;
		for (uint64_t i = 0; !err && i < arguments.out_count; i++)
			err = regions_add(regions, vec[i].start, vec[i].end, vec[i].categories);
		at = arguments.out_walk_end;
	}
	return err;
}

static struct tracker_mechanism pieces;

static const struct tracker_mechanism *mechanism_named(const char *name)
{
	const struct tracker_mechanism *found;
	struct problem why = {};

	found = tracker_choose(strcmp(name, "pieces") ? name : "soft-dirty", &why);
	if (!found) {
		puts(why.text);
		exit(TEST_SKIP);
	}
	if (strcmp(name, "pieces"))
		return found;
	pieces = *found;
	pieces.name = "pieces";
	pieces.collect = pieces_collect;
	return &pieces;
}

/* ---- the test ---- */

static struct oracle oracle;
static char cgroup[256];
static pid_t job;

static void file_write(const char *directory, const char *name, unsigned long value)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "we");
	require(file && fprintf(file, "%lu", value) > 0 && fclose(file) == 0);
}

static void cgroup_make(unsigned long memory_mib)
{
	struct problem problem;
	int controllers = open("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY | O_CLOEXEC);

	require(controllers >= 0 && (write(controllers, "+memory", 7) == 7 || !memory_mib));
	close(controllers);
	if (cgroup_create("/sys/fs/cgroup", "dirty_oracle", cgroup, sizeof(cgroup), &problem))
		fail("%s", problem.text);
	if (memory_mib)
		file_write(cgroup, "memory.max", memory_mib << 20);
}

/* Its memory is charged to the cgroup from the first page on. */
static void job_start(void)
{
	int start[2];

	require(pipe(start) == 0);
	job = fork();
	require(job >= 0);
	if (!job)
		job_run(start[0]);
	file_write(cgroup, "cgroup.procs", job);
	/* Against eight threads on two CPUs there would hardly be a collect. */
	require(setpriority(PRIO_PROCESS, 0, -10) == 0);
	require(write(start[1], "", 1) == 1);
}

static void job_end(void)
{
	kill(job, SIGKILL);
	require(waitpid(job, NULL, 0) == job);
	cgroup_remove(cgroup);
}

static void collect(const struct tracker_mechanism *mechanism, struct tracker *tracker)
{
	struct problem problem;
	int status;

	if (!oracle_collect(&oracle, mechanism, tracker, &problem))
		return;
	if (waitpid(job, &status, WNOHANG) == job)
		fail("%s, seed %u, collect %u: the job has ended with wait status %#x", mechanism->name, seed,
		     oracle.collects, status);
	fail("%s, seed %u, collect %u: %s", mechanism->name, seed, oracle.collects, problem.text);
}

static void compare(const struct tracker_mechanism *mechanism, struct tracker *tracker)
{
	struct problem problem;

	require(waitpid(job, NULL, WNOHANG) == 0);
	if (oracle_freeze(&oracle, &problem))
		fail("%s", problem.text);
	collect(mechanism, tracker);
	if (!oracle_compare(&oracle, &problem))
		fail("%s, seed %u, collect %u: %s", mechanism->name, seed, oracle.collects, problem.text);
	require(oracle_thaw(&oracle, &problem) == 0);
}

static void tell(const struct tracker_mechanism *mechanism, const char *what)
{
	printf("%s%s: events %s, %d CPUs: %u collects, %lu writes, %lu hot ones, %lu events, %lu pages reported, 0 missed\n",
	       what, mechanism->name, wanted_events ?: "all", cpus, oracle.collects, control->writes, control->hot_writes,
	       control->events, oracle.all_reported_pages);
	fflush(stdout);
}

struct wanted {
	unsigned long collects, writes;
	time_t seconds;
};

static void run(const struct tracker_mechanism *mechanism, struct tracker *tracker, const struct wanted *wanted)
{
	const time_t begin = time(NULL);
	unsigned int random = seed;
	time_t told = begin;

	while (oracle.collects < wanted->collects || control->writes < wanted->writes ||
	       time(NULL) < begin + wanted->seconds) {
		for (int i = 0; i < COLLECTS_PER_COMPARE; i++) {
			usleep(rand_r(&random) % 20000);
			collect(mechanism, tracker);
		}
		compare(mechanism, tracker);
		if (time(NULL) >= told + 30) {
			tell(mechanism, "... ");
			told = time(NULL);
		}
	}
}

static void *map_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	require(p != MAP_FAILED);
	return p;
}

int main(int argc, char **argv)
{
	const char *name = "soft-dirty";
	const struct tracker_mechanism *mechanism;
	struct wanted wanted = {};
	unsigned long memory_mib = 0;
	struct tracker *tracker;
	struct problem problem;
	int option, pidfd;

	while ((option = getopt(argc, argv, "M:n:w:t:s:m:e:p:")) != -1)
		switch (option) {
		case 'M': name = optarg; break;
		case 'n': wanted.collects = strtoul(optarg, NULL, 0); break;
		case 'w': wanted.writes = strtoul(optarg, NULL, 0); break;
		case 't': wanted.seconds = strtol(optarg, NULL, 0); break;
		case 's': seed = pieces_random = strtoul(optarg, NULL, 0); break;
		case 'm': slots = atoi(optarg); break;
		case 'e': wanted_events = optarg; break;
		case 'p': memory_mib = strtoul(optarg, NULL, 0); break;
		default: return 2;
		}
	require(slots > 1 && slots <= SLOTS_MAX);
	mechanism = mechanism_named(name);
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	control = map_shared(sizeof(*control));
	cgroup_make(memory_mib);
	oracle_init(&oracle, cgroup, OTHER_PAGES + slots * (SLOT_BYTES / PAGE));
	job_start();
	oracle_reset(&oracle, job);
	pidfd = pidfd_of(job);
	if (tracker_open(&tracker, mechanism, pidfd, job, &problem))
		fail("%s", problem.text);
	run(mechanism, tracker, &wanted);
	tracker_close(tracker);
	job_end();
	tell(mechanism, "");
	return 0;
}
