// SPDX-License-Identifier: GPL-2.0
/*
 * Nonsense and near-sense for every ioctl, from several threads, on devices and trackers that others close meanwhile,
 * about jobs that run, map, fork, execute and die. What is refused changes nothing in the caller's memory, what succeeds
 * writes only what the manual says, the kernel does not complain, and afterwards a job is tracked as ever.
 *
 *	fuzz [-s SEED] [-t SECONDS]
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <time.h>

#include "guest.h"
#include "oracle.h"

#define THREADS 5
#define JOBS 4
#define DEVICES 4
#define DESCRIPTORS 12	/* with the devices, that come first */
#define VEC_BYTES (8 * PAGE)
#define POISON 0xa5

union argument {
	struct ckpt_info info;
	struct ckpt_track track;
	struct ckpt_collect collect;
	struct ckpt_userfaultfd userfaultfd;
	unsigned char bytes[256];
};

/* What a thread owns. Structs end where a page ends that nothing follows. */
struct fuzzer {
	unsigned int random;
	char *argument_end;
	unsigned char *vec;
	unsigned long calls, successes, failures[200];
};

static atomic_int descriptors[DESCRIPTORS];	/* devices and trackers; -1: none */
static atomic_int jobs[JOBS];
static atomic_bool stop;
static int user_device;

/* ---- the jobs ---- */

static void job_event(unsigned int *random, char *memory)
{
	const size_t bytes = 4 * HUGE_BYTES;
	char *at = memory + rand_r(random) % (bytes / PAGE / 2) * PAGE;
	pid_t pid;

	switch (rand_r(random) % 8) {
	case 0: madvise(at, 64 * PAGE, MADV_DONTNEED); break;
	case 1: munmap(at, 16 * PAGE); break;
	case 2: mprotect(at, 16 * PAGE, PROT_READ); mprotect(memory, bytes, PROT_READ | PROT_WRITE); break;
	case 3: mremap(at, 32 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory + bytes); break;
	case 4: madvise(memory, bytes, rand_r(random) % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); break;
	case 5:
		pid = fork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
		break;
	case 6:
		pid = vfork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
		break;
	}
	mmap(memory, bytes / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* Until it is killed, or by itself. */
static _Noreturn void job_run(unsigned int random)
{
	char *memory = (char *)0x300000000000ul + rand_r(&random) % 512 * PAGE;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGSEGV, SIG_DFL);
	require(mmap(memory, 4 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		memory);
	for (int i = 0; i < 2000; i++) {
		job_event(&random, memory);
		for (int page = 0; page < 200; page++) {
			struct iovec one = { &page, 1 }, there = { memory + rand_r(&random) % 2048 * PAGE, 1 };

			/* A hole there is no reason to end. */
			process_vm_writev(getpid(), &one, 1, &there, 1, 0);
		}
		if (rand_r(&random) % 300 == 0)
			execl("/bin/sleep", "sleep", "0.05", NULL);
	}
	_exit(0);
}

static void job_replace(unsigned int *random, int slot)
{
	unsigned int seed = rand_r(random);
	pid_t pid = jobs[slot];

	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	pid = fork();
	require(pid >= 0);
	if (!pid)
		job_run(seed);
	jobs[slot] = pid;
}

/* ---- arguments ---- */

static uint64_t any_number(unsigned int *random)
{
	static const uint64_t edges[] = { 0, 1, 7, PAGE, PAGE - 1, HUGE_BYTES, 1ull << 31, 1ull << 32, 0x300000000000, 1ull << 46,
					  0x7ffffffff000, 1ull << 47, 1ull << 62, 1ull << 63, 0xffff888000000000, -PAGE, -1ull };

	if (rand_r(random) % 3)
		return edges[rand_r(random) % (sizeof(edges) / sizeof(*edges))];
	return ((uint64_t)rand_r(random) << 40) ^ ((uint64_t)rand_r(random) << 20) ^ rand_r(random);
}

static int any_descriptor(struct fuzzer *fuzzer)
{
	return descriptors[rand_r(&fuzzer->random) % DESCRIPTORS];
}

static void fill_track(struct fuzzer *fuzzer, union argument *argument)
{
	argument->track = (struct ckpt_track){ .size = sizeof(argument->track) };
	argument->track.pid = rand_r(&fuzzer->random) % 16 ? jobs[rand_r(&fuzzer->random) % JOBS] : getpid();
	argument->track.pidfd = syscall(SYS_pidfd_open, argument->track.pid, 0);
}

static void fill_collect(struct fuzzer *fuzzer, union argument *argument)
{
	unsigned int *random = &fuzzer->random;
	uint64_t start = rand_r(random) % 2 ? 0 : 0x300000000000 + rand_r(random) % 4096 * PAGE;

	argument->collect = (struct ckpt_collect){
		.size = sizeof(argument->collect), .flags = rand_r(random) % 2, .start = start,
		.end = rand_r(random) % 2 ? -PAGE : start + (1 + rand_r(random) % 4096) * PAGE, .vec = (uintptr_t)fuzzer->vec,
		.vec_len = rand_r(random) % 2 ? VEC_BYTES / sizeof(struct ckpt_region) : 1u + rand_r(random) % 9,
	};
	memset(fuzzer->vec, POISON, VEC_BYTES);
}

static void fill_userfaultfd(struct fuzzer *fuzzer, union argument *argument)
{
	argument->userfaultfd = (struct ckpt_userfaultfd){ .size = sizeof(argument->userfaultfd) };
	argument->userfaultfd.device_fd = rand_r(&fuzzer->random) % 4 ? user_device : any_descriptor(fuzzer);
}

static void fill_info(struct fuzzer *fuzzer, union argument *argument)
{
	argument->info = (struct ckpt_info){ .size = sizeof(argument->info) };
}

static const struct command {
	unsigned long number;
	size_t size;
	void (*fill)(struct fuzzer *fuzzer, union argument *argument);
	bool of_device;
} commands[] = {
	{ CKPT_IOC_COLLECT, sizeof(struct ckpt_collect), fill_collect, false },
	{ CKPT_IOC_TRACK, sizeof(struct ckpt_track), fill_track, true },
	{ CKPT_IOC_USERFAULTFD, sizeof(struct ckpt_userfaultfd), fill_userfaultfd, false },
	{ CKPT_IOC_INFO, sizeof(struct ckpt_info), fill_info, true },
};

/* Mostly one that knows the command. */
static int descriptor_for(struct fuzzer *fuzzer, const struct command *command)
{
	if (rand_r(&fuzzer->random) % 8 == 0)
		return any_descriptor(fuzzer);
	if (command->of_device)
		return descriptors[rand_r(&fuzzer->random) % DEVICES];
	return descriptors[DEVICES + rand_r(&fuzzer->random) % (DESCRIPTORS - DEVICES)];
}

/* One field, or a byte, becomes something else. */
static void spoil(struct fuzzer *fuzzer, union argument *argument, size_t size)
{
	unsigned int *random = &fuzzer->random;
	uint64_t number = any_number(random);

	switch (rand_r(random) % 4) {
	case 0: memcpy(argument->bytes + rand_r(random) % (size / 8) * 8, &number, 8); break;
	case 1: memcpy(argument->bytes + rand_r(random) % (size / 4) * 4, &number, 4); break;
	case 2: argument->bytes[rand_r(random) % size] ^= 1 << rand_r(random) % 8; break;
	case 3: memcpy(argument->bytes, &(uint32_t){ rand_r(random) % 300 }, 4); break;
	}
}

/* A vector that lies in other memory of ours would be written there. */
static void unspoil_vec(const struct fuzzer *fuzzer, struct ckpt_collect *collect)
{
	static const uint64_t nowhere[] = { 0, 1, 7, 1ull << 47, 1ull << 62, 1ull << 63, 0xffff888000000000, -PAGE, -1ull };

	for (size_t i = 0; i < sizeof(nowhere) / sizeof(*nowhere); i++)
		if (collect->vec == nowhere[i])
			return;
	collect->vec = (uintptr_t)fuzzer->vec;
}

/* ---- calls ---- */

/* In place of another one, from first on. */
static void keep(struct fuzzer *fuzzer, int fd, int first, int count)
{
	int old = atomic_exchange(&descriptors[first + rand_r(&fuzzer->random) % count], fd);

	if (old >= 0)
		close(old);
}

static void check_regions(const struct fuzzer *fuzzer, const struct ckpt_collect *collect)
{
	const struct ckpt_region *vec = (void *)fuzzer->vec;
	size_t used = collect->out_count * sizeof(*vec);

	require(collect->out_count <= collect->vec_len);
	require(collect->out_walk_end >= collect->start && collect->out_walk_end <= collect->end);
	if (collect->vec != (uintptr_t)vec || used > VEC_BYTES)
		return;
	for (size_t i = 0; i < collect->out_count; i++) {
		require(vec[i].start < vec[i].end && !((vec[i].start | vec[i].end) % PAGE) && !vec[i].__reserved);
		require(vec[i].categories && vec[i].categories < CKPT_PAGE_SHARED << 1);
		require(vec[i].start >= collect->start && vec[i].end <= collect->end);
		require(!i || vec[i - 1].end <= vec[i].start);
	}
	for (; used < VEC_BYTES; used++)
		require(fuzzer->vec[used] == POISON);
}

static void check_success(struct fuzzer *fuzzer, const struct command *command, const union argument *argument)
{
	switch (command->number) {
	case CKPT_IOC_COLLECT:
		check_regions(fuzzer, &argument->collect);
		break;
	case CKPT_IOC_TRACK:
		require(argument->track.out_generation && argument->track.out_fd > 2);
		keep(fuzzer, argument->track.out_fd, DEVICES, DESCRIPTORS - DEVICES);
		break;
	case CKPT_IOC_USERFAULTFD:
		require(argument->userfaultfd.out_fd > 2);
		close(argument->userfaultfd.out_fd);
		break;
	case CKPT_IOC_INFO:
		require(memchr(argument->info.out_version, 0, sizeof(argument->info.out_version)));
		break;
	}
}

/* The struct lies at the very end of what can be read; of what size it is only the struct says. */
static void call(struct fuzzer *fuzzer)
{
	unsigned int *random = &fuzzer->random;
	const struct command *command = &commands[rand_r(random) % 8 < 5 ? 0 : rand_r(random) % 4];
	union argument argument = {}, after;
	size_t room = rand_r(random) % 4 ? command->size : rand_r(random) % sizeof(argument);
	char *place = fuzzer->argument_end - room;
	int pidfd, ret, err;

	command->fill(fuzzer, &argument);
	pidfd = command->number == CKPT_IOC_TRACK ? argument.track.pidfd : -1;
	while (rand_r(random) % 2)
		spoil(fuzzer, &argument, command->size);
	if (command->number == CKPT_IOC_COLLECT)
		unspoil_vec(fuzzer, &argument.collect);
	memcpy(place, &argument, room);
	ret = ioctl(descriptor_for(fuzzer, command), rand_r(random) % 16 ? command->number : any_number(random), place);
	err = ret ? errno : 0;
	memcpy(&after, place, room);
	fuzzer->calls++;
	if (pidfd >= 0)
		close(pidfd);
	/* Others may have put another descriptor there, of which we know nothing, but not something that succeeds. */
	if (!ret && room >= command->size) {
		fuzzer->successes++;
		check_success(fuzzer, command, &after);
		return;
	}
	if (err > 0 && err < 200)
		fuzzer->failures[err]++;
	require(!memcmp(&argument, &after, room));
}

static void open_or_close(struct fuzzer *fuzzer)
{
	if (rand_r(&fuzzer->random) % 4)
		keep(fuzzer, open("/dev/ckpt", O_RDWR | O_CLOEXEC), 0, DEVICES);
	else
		keep(fuzzer, -1, 0, DESCRIPTORS);
}

static void *fuzz(void *argument)
{
	struct fuzzer *fuzzer = argument;

	while (!stop) {
		call(fuzzer);
		if (rand_r(&fuzzer->random) % 200 == 0)
			open_or_close(fuzzer);
	}
	return NULL;
}

/* ---- the test ---- */

static void nothing(int signal)
{
}

static void fuzzer_init(struct fuzzer *fuzzer, unsigned int seed)
{
	char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	require(pages != MAP_FAILED && mprotect(pages + PAGE, PAGE, PROT_NONE) == 0);
	fuzzer->argument_end = pages + PAGE;
	fuzzer->vec = mmap(NULL, VEC_BYTES + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(fuzzer->vec != MAP_FAILED && mprotect(fuzzer->vec + VEC_BYTES, PAGE, PROT_NONE) == 0);
	fuzzer->random = seed;
}

/* Jobs die and come, signals interrupt the threads. */
static void disturb(unsigned int *random, pthread_t *threads, time_t seconds)
{
	const time_t end = time(NULL) + seconds;

	while (time(NULL) < end) {
		usleep(rand_r(random) % 3000);
		pthread_kill(threads[rand_r(random) % THREADS], SIGUSR1);
		if (rand_r(random) % 8 == 0)
			job_replace(random, rand_r(random) % JOBS);
	}
}

static void print_totals(const struct fuzzer *fuzzers)
{
	unsigned long calls = 0, successes = 0;

	for (int i = 0; i < THREADS; i++) {
		calls += fuzzers[i].calls;
		successes += fuzzers[i].successes;
	}
	printf("%lu calls, %lu succeeded, failed with", calls, successes);
	for (int err = 1; err < 200; err++) {
		unsigned long count = 0;

		for (int i = 0; i < THREADS; i++)
			count += fuzzers[i].failures[err];
		if (count)
			printf(" %s %lu", strerrorname_np(err), count);
	}
	puts("");
	require(successes);
}

static _Noreturn void idle_run(int orders, int answers)
{
	static char memory[64 * PAGE];
	unsigned char page;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(orders, &page, 1) == 1) {
		memory[page * PAGE]++;
		require(write(answers, "", 1) == 1);
	}
	_exit(0);
}

/* A job is tracked as if nothing had been. */
static void track_one(void)
{
	const struct tracker_mechanism *mechanism;
	int orders[2], answers[2], pidfd;
	struct tracker *tracker;
	struct oracle oracle;
	struct problem problem;
	char byte;
	pid_t pid;

	mechanism = tracker_choose("soft-dirty", &problem);
	require(mechanism && pipe(orders) == 0 && pipe(answers) == 0);
	pid = fork();
	require(pid >= 0);
	if (!pid)
		idle_run(orders[0], answers[1]);
	pidfd = pidfd_of(pid);
	oracle_init(&oracle, NULL, 16384);
	oracle_reset(&oracle, pid);
	require(tracker_open(&tracker, mechanism, pidfd, pid, &problem) == 0);
	for (unsigned char page = 0; page < 64; page++) {
		require(write(orders[1], &page, 1) == 1 && read(answers[0], &byte, 1) == 1);
		usleep(2000); /* until it sleeps again */
		require(oracle_collect(&oracle, mechanism, tracker, &problem) == 0);
		require(page == 0 || !oracle.full);
		if (page % 16 == 0 && !oracle_compare(&oracle, &problem))
			fail("%s", problem.text);
	}
	tracker_close(tracker);
	kill(pid, SIGKILL);
	require(waitpid(pid, NULL, 0) == pid);
}

int main(int argc, char **argv)
{
	static struct fuzzer fuzzers[THREADS];
	struct sigaction action = { .sa_handler = nothing };
	unsigned int seed = 1, random;
	pthread_t threads[THREADS];
	time_t seconds = 5;
	int option;

	while ((option = getopt(argc, argv, "s:t:")) != -1)
		switch (option) {
		case 's': seed = strtoul(optarg, NULL, 0); break;
		case 't': seconds = strtol(optarg, NULL, 0); break;
		default: return 2;
		}
	random = seed;
	require(sigaction(SIGUSR1, &action, NULL) == 0);
	user_device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < DESCRIPTORS; i++)
		descriptors[i] = i < DEVICES ? device_open() : -1;
	for (int i = 0; i < JOBS; i++)
		job_replace(&random, i);
	for (int i = 0; i < THREADS; i++) {
		fuzzer_init(&fuzzers[i], seed * THREADS + i);
		require(pthread_create(&threads[i], NULL, fuzz, &fuzzers[i]) == 0);
	}
	disturb(&random, threads, seconds);
	stop = true;
	for (int i = 0; i < THREADS; i++)
		require(pthread_join(threads[i], NULL) == 0);
	for (int i = 0; i < JOBS; i++) {
		kill(jobs[i], SIGKILL);
		require(waitpid(jobs[i], NULL, 0) == jobs[i]);
	}
	for (int i = 0; i < DESCRIPTORS; i++)
		if (descriptors[i] >= 0)
			close(descriptors[i]);
	print_totals(fuzzers);
	track_one();
	return 0;
}
