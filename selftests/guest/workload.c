// SPDX-License-Identifier: GPL-2.0
/*
 * A job that judges itself: workload MODE [OPTION…], see usage().
 *
 * Every page's content is a pure function of (where, page, iteration).  A private table remembers the
 * iteration that was last written to each page, so at any time all of memory can be checked, and a
 * page that went back to an earlier content is called so.  Nothing else decides what is written:
 * after N steps the same seed gives the same digest, however often the job was interrupted.
 *
 * It prints "step N" for each step and at last "ok MODE STEPS DIGEST".  What is wrong is told at once
 * with address, expected and found, and ends it with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGE_WORDS (PAGE / sizeof(uint64_t))
#define HUGE (2ul << 20)
#define MOST_STEPS 10000000u

static struct {
	uint64_t seed;
	unsigned int arena_mib;
	unsigned int pages;             /* written per step and arena */
	unsigned int pause_ms;
	unsigned int steps;
	unsigned int max_seconds;
	const char *stop;
	const char *hold;
} options = { .seed = 1, .arena_mib = 32, .pages = 32, .pause_ms = 40, .steps = MOST_STEPS,
	      .max_seconds = 600 };

static uint32_t now;                    /* the current step: for messages */
static bool tell_parent;                /* it waits where it does not see that we end */

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	char text[2048];
	va_list args;
	int n;

	n = snprintf(text, sizeof(text), "workload: FAILED in step %u, pid %d: ", now, getpid());
	va_start(args, format);
	n += vsnprintf(text + n, sizeof(text) - (size_t)n - 1, format, args);
	va_end(args);
	n = n < (int)sizeof(text) - 2 ? n : (int)sizeof(text) - 2;
	text[n++] = '\n';
	if (write(2, text, (size_t)n) < 0)
		_exit(2);
	if (tell_parent)
		kill(getppid(), SIGUSR1);
	_exit(1);
}

static uint64_t mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

static void *map(size_t bytes, int prot, int flags, int fd)
{
	void *at = mmap(NULL, bytes, prot, flags, fd, 0);

	if (at == MAP_FAILED)
		fail("mmap of %zu bytes: %s", bytes, strerror(errno));
	return at;
}

static void *map_private(size_t bytes)
{
	return map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* --- arenas --- */

struct arena {
	const char *name;
	uint8_t *base;
	size_t pages;
	uint32_t *written;              /* iteration of each page; 0: never */
	uint64_t salt;
	bool from_file;                 /* page p of iteration 0 is not zero but file_word(p) */
};

static uint64_t file_word(size_t page, size_t i)
{
	return mix(page) + i;
}

static uint64_t page_seed(const struct arena *arena, size_t page, uint32_t iteration)
{
	return mix(mix(arena->salt + page) + iteration);
}

/* A written page may be all zero. */
static uint64_t arena_word(const struct arena *arena, size_t page, uint32_t iteration, size_t i)
{
	uint64_t seed = page_seed(arena, page, iteration);

	if (!iteration)
		return arena->from_file ? file_word(page, i) : 0;
	return seed % 16 ? seed + i * 0x9e3779b97f4a7c15 : 0;
}

static struct arena arena_make(const char *name, void *base, size_t pages)
{
	struct arena arena = { .name = name, .base = base, .pages = pages };

	arena.written = map_private(pages * sizeof(*arena.written));
	arena.salt = mix(options.seed);
	for (; *name; name++)
		arena.salt = mix(arena.salt + (uint8_t)*name);
	return arena;
}

static uint64_t *arena_at(const struct arena *arena, size_t page)
{
	return (uint64_t *)(arena->base + page * PAGE);
}

static void arena_write(struct arena *arena, size_t page, uint32_t iteration)
{
	uint64_t *word = arena_at(arena, page), seed = page_seed(arena, page, iteration);

	if (seed % 16 == 0)
		memset(word, 0, PAGE);
	else
		for (size_t i = 0; i < PAGE_WORDS; i++)
			word[i] = seed + i * 0x9e3779b97f4a7c15;
	arena->written[page] = iteration;
}

/* Where the found word would have been right. */
static const char *explain(const struct arena *arena, size_t page, size_t i, uint64_t found, char text[80])
{
	snprintf(text, 80, "that was never there");
	for (uint32_t iteration = 0; iteration <= arena->written[page] + 1000; iteration++)
		if (arena_word(arena, page, iteration, i) == found) {
			snprintf(text, 80, "that is iteration %u", iteration);
			break;
		}
	return text;
}

static void arena_check(const struct arena *arena, size_t page)
{
	const uint64_t *word = arena_at(arena, page);
	uint32_t iteration = arena->written[page];
	char text[80];
	size_t i, wrong = 0, first = 0;

	for (i = 0; i < PAGE_WORDS; i++)
		if (word[i] != arena_word(arena, page, iteration, i) && !wrong++)
			first = i;
	if (wrong)
		fail("%s page %zu at %p: word %zu: expected %016lx (iteration %u), found %016lx (%s); %zu words "
		     "of the page are wrong", arena->name, page, (const void *)word, first,
		     arena_word(arena, page, iteration, first), iteration, word[first],
		     explain(arena, page, first, word[first], text), wrong);
}

static uint64_t arena_check_all(const struct arena *arena)
{
	uint64_t digest = arena->salt;

	for (size_t page = 0; page < arena->pages; page++) {
		arena_check(arena, page);
		digest = mix(digest ^ arena_at(arena, page)[1] ^ arena->written[page]);
	}
	return digest;
}

static size_t arena_random(const struct arena *arena, uint32_t iteration, unsigned int draw)
{
	return mix(mix(arena->salt ^ iteration) + draw) % arena->pages;
}

/* Writes count random pages, checks as many, and writes one word without changing it. */
static void arena_step(struct arena *arena, uint32_t iteration, unsigned int count)
{
	volatile uint64_t *same;

	for (unsigned int draw = 0; draw < count; draw++)
		arena_write(arena, arena_random(arena, iteration, draw), iteration);
	for (unsigned int draw = count; draw < 2 * count; draw++)
		arena_check(arena, arena_random(arena, iteration, draw));
	same = arena_at(arena, arena_random(arena, iteration, 2 * count));
	*same = *same;
}

/* --- what the process is, besides its memory --- */

static char self_text[8192];

static void append_file(char **at, const char *end, const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		fail("cannot open %s: %s", path, strerror(errno));
	*at += fread(*at, 1, (size_t)(end - *at), file);
	fclose(file);
}

static void describe_self(char text[8192])
{
	gid_t groups[64];
	int count = getgroups(64, groups);
	mode_t mask = umask(022);
	struct rlimit files;
	char *at = text, *end = text + 8191;

	umask(mask);
	getrlimit(RLIMIT_NOFILE, &files);
	/* The root task's parent is criu until that has ended, then the job's init again. */
	at += sprintf(at, "pid %d of %d, session %d, uid %d %d, gid %d %d, umask %o, nice %d, files %lu, "
		      "groups", getpid(), getpid() == getsid(0) ? 1 : getppid(), getsid(0), getuid(), geteuid(), getgid(), getegid(),
		      mask, getpriority(PRIO_PROCESS, 0), (unsigned long)files.rlim_cur);
	for (int i = 0; i < count; i++)
		at += sprintf(at, " %d", groups[i]);
	at += sprintf(at, ", directory ");
	if (!getcwd(at, 1024))
		fail("getcwd: %s", strerror(errno));
	at += strlen(at);
	at += sprintf(at, ", mark %.200s, ", getenv("WORKLOAD_MARK") ?: "unset");
	append_file(&at, end, "/proc/self/cmdline");
	append_file(&at, end, "/proc/self/environ");
	*at = '\0';
	/* The NULs between them would end the comparison. */
	for (char *c = text; c < at; c++)
		if (!*c)
			*c = ' ';
}

static void check_self(void)
{
	static char text[8192];
	size_t same = 0;

	describe_self(text);
	for (; text[same] && text[same] == self_text[same]; same++)
		;
	if (text[same] != self_text[same])
		fail("the process is not what it was: at %zu expected '%.60s', found '%.60s'; at the beginning "
		     "'%.600s'", same, self_text + same, text + same, self_text);
}

/* --- memory: one process, all kinds of private memory --- */

enum { AREA_HUGE, AREA_SMALL, AREA_HEAP, AREA_STACK, AREA_FILE, AREA_READ_ONLY, AREA_CHURN, AREA_COUNT };

#define STACK_PAGES 32ul
#define CHURN_PAGES 96ul

static struct arena areas[AREA_COUNT];
static uint8_t *stack_room;             /* in main's frame */

static uint8_t *align_up(uint8_t *at, size_t bytes)
{
	return (uint8_t *)(((uintptr_t)at + bytes - 1) & ~(bytes - 1));
}

static void *make_huge(size_t pages)
{
	uint8_t *at = align_up(map_private(pages * PAGE + HUGE), HUGE);

	madvise(at, pages * PAGE, MADV_HUGEPAGE); /* a kernel without it has small pages only */
	return at;
}

static void *make_small(size_t pages)
{
	void *at = map_private(pages * PAGE);

	madvise(at, pages * PAGE, MADV_NOHUGEPAGE);
	return at;
}

static void *make_heap(size_t pages)
{
	uint8_t *at = sbrk((intptr_t)((pages + 1) * PAGE));

	if (at == (void *)-1)
		fail("brk: %s", strerror(errno));
	at = align_up(at, PAGE);
	memset(at, 0, pages * PAGE);
	return at;
}

static void *make_file(size_t pages)
{
	int fd = open("workload.private", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t words[PAGE_WORDS];
	void *at;

	for (size_t page = 0; page < pages; page++) {
		for (size_t i = 0; i < PAGE_WORDS; i++)
			words[i] = file_word(page, i);
		if (write(fd, words, PAGE) != PAGE)
			fail("cannot write workload.private: %s", strerror(errno));
	}
	close(fd);
	fd = open("workload.private", O_RDONLY | O_CLOEXEC);
	at = map(pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	close(fd);
	return at;
}

static void memory_begin(void)
{
	size_t pages = options.arena_mib * (1ul << 20) / PAGE;

	areas[AREA_HUGE] = arena_make("huge", make_huge(pages / 2), pages / 2);
	areas[AREA_SMALL] = arena_make("small", make_small(pages / 4), pages / 4);
	areas[AREA_HEAP] = arena_make("heap", make_heap(pages / 16), pages / 16);
	areas[AREA_STACK] = arena_make("stack", align_up(stack_room, PAGE), STACK_PAGES);
	areas[AREA_FILE] = arena_make("private file", make_file(64), 64);
	areas[AREA_FILE].from_file = true;
	areas[AREA_READ_ONLY] = arena_make("read-only", map_private(64 * PAGE), 64);
	areas[AREA_CHURN] = arena_make("churn", map_private(CHURN_PAGES * PAGE), CHURN_PAGES);
}

static void churn_forget(size_t first, size_t pages)
{
	memset(areas[AREA_CHURN].written + first, 0, pages * sizeof(uint32_t));
}

static void *must_map(void *at)
{
	if (at == MAP_FAILED)
		fail("mapping: %s", strerror(errno));
	return at;
}

/* One event on a third of the churn area: its pages go, come, move. */
static void churn(uint32_t iteration)
{
	struct arena *arena = &areas[AREA_CHURN];
	size_t third = CHURN_PAGES / 3, first = mix(iteration) % 3 * third;
	uint8_t *at = arena->base + first * PAGE;
	void *moved;

	switch (iteration % 5) {
	case 0:
		if (madvise(at, third * PAGE, MADV_DONTNEED))
			fail("MADV_DONTNEED: %s", strerror(errno));
		churn_forget(first, third);
		break;
	case 1:
		munmap(at, third * PAGE);
		must_map(mmap(at, third * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			      -1, 0));
		churn_forget(first, third);
		break;
	case 2: /* away and back again, to pages that keep their content */
		moved = must_map(mremap(at, third * PAGE, third * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
					map_private(third * PAGE)));
		must_map(mremap(moved, third * PAGE, third * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at));
		break;
	case 3: /* the whole area elsewhere */
		moved = map_private(CHURN_PAGES * PAGE);
		for (size_t i = 0; i < 3; i++)
			must_map(mremap(arena->base + i * third * PAGE, third * PAGE, third * PAGE,
					MREMAP_MAYMOVE | MREMAP_FIXED, (uint8_t *)moved + i * third * PAGE));
		arena->base = moved;
		break;
	}
}

static void read_only_step(uint32_t iteration)
{
	struct arena *arena = &areas[AREA_READ_ONLY];
	size_t bytes = arena->pages * PAGE;

	mprotect(arena->base, bytes, PROT_READ | PROT_WRITE);
	arena_step(arena, iteration, 4);
	mprotect(arena->base, bytes, iteration % 2 ? PROT_READ : PROT_NONE);
}

static void memory_step(uint32_t step)
{
	arena_step(&areas[AREA_HUGE], step, options.pages);
	arena_step(&areas[AREA_SMALL], step, options.pages);
	arena_step(&areas[AREA_HEAP], step, options.pages / 4);
	arena_step(&areas[AREA_STACK], step, 2);
	if (step % 8 == 0)
		arena_step(&areas[AREA_FILE], step, 1); /* so that most stay the file's for long */
	read_only_step(step);
	churn(step);
	arena_step(&areas[AREA_CHURN], step, 8);
}

/* As a program that starts others all the time: most of it, this process waits for its child to execute one. */
static void vfork_step(uint32_t step)
{
	const struct timespec before_exec = { .tv_nsec = 20000000 };

	memory_step(step);
	for (int i = 0; i < 5; i++) {
		pid_t pid = vfork();

		if (pid == 0) {
			nanosleep(&before_exec, NULL);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			fail("vfork: %s", strerror(errno));
	}
}

static uint64_t memory_end(void)
{
	uint64_t digest = 0;

	mprotect(areas[AREA_READ_ONLY].base, areas[AREA_READ_ONLY].pages * PAGE, PROT_READ);
	for (size_t i = 0; i < AREA_COUNT; i++)
		digest = mix(digest ^ arena_check_all(&areas[i]));
	unlink("workload.private");
	return digest;
}

/* --- threads: each at its own pace in its own arena --- */

#define THREADS 4u
#define THREAD_ITERATIONS 8u            /* per step */

static struct worker {
	pthread_t thread;
	struct arena arena;
	uint32_t iteration;
	atomic_uint done;
} workers[THREADS];

static atomic_uint thread_limit;
static atomic_bool threads_end;
static __thread uint64_t thread_mark;

static void *work(void *arg)
{
	struct worker *worker = arg;

	thread_mark = mix((uintptr_t)worker);
	for (;;) {
		if (worker->iteration < atomic_load(&thread_limit)) {
			arena_step(&worker->arena, ++worker->iteration, options.pages / 4);
			atomic_store(&worker->done, worker->iteration);
		} else if (atomic_load(&threads_end)) {
			break;
		}
		if (thread_mark != mix((uintptr_t)worker))
			fail("thread-local variable of worker %td: found %lx", worker - workers, thread_mark);
		usleep(500);
	}
	return NULL;
}

static void threads_begin(void)
{
	static const char *const names[THREADS] = { "thread 0", "thread 1", "thread 2", "thread 3" };
	size_t pages = options.arena_mib * (1ul << 20) / PAGE / THREADS;

	for (unsigned int i = 0; i < THREADS; i++) {
		workers[i].arena = arena_make(names[i], i % 2 ? make_small(pages) : make_huge(pages), pages);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			fail("pthread_create");
	}
}

static void threads_step(uint32_t step)
{
	atomic_store(&thread_limit, step * THREAD_ITERATIONS);
	for (unsigned int i = 0; i < THREADS; i++) /* none falls more than two steps behind */
		while (atomic_load(&workers[i].done) + 2 * THREAD_ITERATIONS < step * THREAD_ITERATIONS)
			usleep(1000);
}

static uint64_t threads_end_all(void)
{
	uint64_t digest = 0;

	atomic_store(&threads_end, true);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		digest = mix(digest ^ arena_check_all(&workers[i].arena));
	}
	return digest;
}

/* --- children --- */

#define CHILDREN 3u

static pid_t children[CHILDREN];

static void reap(pid_t pid, int wanted)
{
	int status;
	pid_t got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	if (got != pid)
		fail("waitpid of child %d: %s", pid, strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != wanted)
		fail("child %d ended with status 0x%x, expected exit %d", pid, status, wanted);
}

/* --- tree: parent -> child 0 -> child 1 -> child 2 -> parent --- */

/* Tokens under way: the pipes are never empty. */
#define TOKENS 5u

struct token {
	uint32_t sequence;              /* of the step; 0: the end */
	uint32_t hops;
	uint64_t digest;
};

static struct arena tree_arena;
static int ring_in, ring_out;
static uint32_t sent, received;

static bool take_token(struct token *token)
{
	size_t done = 0;
	ssize_t n;

	while (done < sizeof(*token)) {
		n = read(ring_in, (char *)token + done, sizeof(*token) - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail("reading the ring: %s", strerror(errno));
		if (n == 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static void pass_token(const struct token *token)
{
	ssize_t n;

	do
		n = write(ring_out, token, sizeof(*token));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(*token))
		fail("writing to the ring: %s", strerror(errno));
}

__attribute__((noreturn)) static void tree_child(unsigned int number)
{
	struct token token;

	describe_self(self_text);
	while (take_token(&token)) {
		if (token.sequence && token.sequence != now + 1)
			fail("child %u: expected token %u, found %u", number, now + 1, token.sequence);
		if (token.hops++ != number)
			fail("child %u: token %u came over %u hops", number, token.sequence, token.hops - 1);
		if (token.sequence) {
			now = token.sequence;
			arena_step(&tree_arena, now, options.pages / 4);
			check_self();
		} else {
			token.digest = mix(token.digest ^ arena_check_all(&tree_arena));
		}
		pass_token(&token);
		if (!token.sequence)
			exit(0);
	}
	exit(3); /* the parent is gone */
}

static void make_pipe(int ends[2])
{
	if (pipe(ends))
		fail("pipe: %s", strerror(errno));
}

static void tree_begin(void)
{
	static const char *const names[CHILDREN] = { "child 0", "child 1", "child 2" };
	size_t pages = options.arena_mib * (1ul << 20) / PAGE / (CHILDREN + 1);
	int first[2], in, ends[2];

	make_pipe(first);
	in = first[0];
	for (unsigned int i = 0; i < CHILDREN; i++) {
		make_pipe(ends);
		children[i] = fork();
		if (children[i] < 0)
			fail("fork: %s", strerror(errno));
		if (children[i] == 0) {
			close(first[1]);
			close(ends[0]);
			ring_in = in;
			ring_out = ends[1];
			tree_arena = arena_make(names[i], make_huge(pages), pages);
			tree_child(i);
		}
		close(in);
		close(ends[1]);
		in = ends[0];
	}
	ring_in = in;
	ring_out = first[1];
	tree_arena = arena_make("parent", make_huge(pages), pages);
}

static void take_back(void)
{
	struct token token;

	if (!take_token(&token))
		fail("the ring is broken: a child has ended");
	if (token.sequence != ++received || token.hops != CHILDREN)
		fail("expected token %u after %u hops, found %u after %u", received, CHILDREN, token.sequence,
		     token.hops);
}

/* A child for a moment: it sees the arena, writes to its copy, and ends; ours stays as it was. */
static void fork_briefly(uint32_t step)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid == 0) {
		for (unsigned int draw = 0; draw < 8; draw++) {
			size_t page = arena_random(&tree_arena, step + 1, draw);

			arena_check(&tree_arena, page);
			arena_write(&tree_arena, page, step + 999);
			arena_check(&tree_arena, page);
		}
		_exit(7);
	}
	reap(pid, 7);
}

static void tree_step(uint32_t step)
{
	struct token token = { .sequence = step };

	pass_token(&token);
	sent = step;
	arena_step(&tree_arena, step, options.pages / 4);
	if (step % 16 == 0)
		fork_briefly(step);
	if (sent - received > TOKENS)
		take_back();
}

static uint64_t tree_end(void)
{
	struct token token = { 0 };

	while (received < sent)
		take_back();
	pass_token(&token);
	if (!take_token(&token) || token.sequence || token.hops != CHILDREN)
		fail("the last token did not come back");
	for (unsigned int i = 0; i < CHILDREN; i++)
		reap(children[i], 0);
	return mix(token.digest ^ arena_check_all(&tree_arena));
}

/* --- shared: three processes, three kinds of shared memory --- */

enum { SHARED_ANONYMOUS, SHARED_MEMFD, SHARED_SYSV, SHARED_COUNT };

#define SLOTS (CHILDREN)                /* the parent is slot 0, its two children 1 and 2 */
#define SLOT_WORDS 128u                 /* of a page */

/* Each process knows what each has written: it is a function of the step. */
static struct shared {
	const char *name;
	uint64_t *base;
	uint32_t *written;              /* [page * SLOTS + slot] */
} shared[SHARED_COUNT];

static size_t shared_pages;
static int shared_fd, shared_id = -1;

struct meeting {
	pthread_barrier_t barrier;
	atomic_uint step;               /* 0: the end */
	atomic_uint pids[SLOTS];
};

static struct meeting *meeting;

static uint64_t *slot_at(const struct shared *area, size_t page, unsigned int slot)
{
	return area->base + page * PAGE_WORDS + slot * SLOT_WORDS;
}

static uint64_t slot_word(size_t area, size_t page, unsigned int slot, uint32_t step, size_t i)
{
	return step ? mix(mix(options.seed + area * 1000003 + page * 31 + slot) + step) + i : 0;
}

static size_t slot_draw(size_t area, unsigned int slot, uint32_t step, unsigned int draw)
{
	return mix(mix(area * 7 + slot) + step * 4096ul + draw) % shared_pages;
}

static void shared_write(unsigned int slot, uint32_t step)
{
	for (size_t area = 0; area < SHARED_COUNT; area++)
		for (unsigned int draw = 0; draw < options.pages / 4; draw++) {
			size_t page = slot_draw(area, slot, step, draw);
			uint64_t *word = slot_at(&shared[area], page, slot);

			for (size_t i = 0; i < SLOT_WORDS; i++)
				word[i] = slot_word(area, page, slot, step, i);
		}
}

static void shared_note(uint32_t step)
{
	for (size_t area = 0; area < SHARED_COUNT; area++)
		for (unsigned int slot = 0; slot < SLOTS; slot++)
			for (unsigned int draw = 0; draw < options.pages / 4; draw++)
				shared[area].written[slot_draw(area, slot, step, draw) * SLOTS + slot] = step;
}

static void shared_check(size_t area, size_t page, unsigned int slot)
{
	const uint64_t *word = slot_at(&shared[area], page, slot);
	uint32_t step = shared[area].written[page * SLOTS + slot], was;

	for (size_t i = 0; i < SLOT_WORDS; i++) {
		if (word[i] == slot_word(area, page, slot, step, i))
			continue;
		for (was = 0; was < now + 1000 && word[i] != slot_word(area, page, slot, was, i); was++)
			;
		fail("%s page %zu slot %u at %p: expected %016lx (step %u), found %016lx (%s %u)",
		     shared[area].name, page, slot, (const void *)&word[i],
		     slot_word(area, page, slot, step, i), step, word[i],
		     was < now + 1000 ? "that is step" : "not of any step below", was);
	}
}

static void shared_check_some(unsigned int reader, uint32_t step)
{
	for (size_t area = 0; area < SHARED_COUNT; area++)
		for (unsigned int draw = 0; draw < options.pages / 4; draw++)
			shared_check(area, slot_draw(area, reader + 100, step, draw), (draw + reader) % SLOTS);
}

static void shared_check_kinds(void)
{
	size_t page = now % shared_pages;
	struct shmid_ds segment;
	uint64_t word;

	if (pread(shared_fd, &word, sizeof(word), (off_t)(page * PAGE)) != sizeof(word) ||
	    word != *slot_at(&shared[SHARED_MEMFD], page, 0))
		fail("memfd page %zu: mapping has %016lx, descriptor %016lx", page,
		     *slot_at(&shared[SHARED_MEMFD], page, 0), word);
	if (shmctl(shared_id, IPC_STAT, &segment))
		fail("System V segment %d is gone: %s", shared_id, strerror(errno));
	if (segment.shm_nattch != SLOTS || segment.shm_segsz != shared_pages * PAGE)
		fail("System V segment %d: expected %u attached and %zu bytes, found %lu and %zu", shared_id,
		     SLOTS, shared_pages * PAGE, (unsigned long)segment.shm_nattch, segment.shm_segsz);
}

static void meet(void)
{
	int ret = pthread_barrier_wait(&meeting->barrier);

	if (ret && ret != PTHREAD_BARRIER_SERIAL_THREAD)
		fail("barrier: %s", strerror(ret));
}

static void shared_turn(unsigned int slot, uint32_t step)
{
	shared_write(slot, step);
	shared_note(step);
	meet();
	shared_check_some(slot, step);
	meet();
}

__attribute__((noreturn)) static void shared_child(unsigned int slot)
{
	pid_t parent = getppid();

	tell_parent = true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	describe_self(self_text);
	atomic_store(&meeting->pids[slot], (unsigned int)getpid());
	meet();
	for (;;) {
		meet();
		if (getppid() != parent)
			fail("parent %d is gone", parent);
		if (!atomic_load(&meeting->step))
			break;
		now = atomic_load(&meeting->step);
		shared_turn(slot, now);
		check_self();
	}
	exit(0);
}

static void child_failed(int signal)
{
	shmctl(shared_id, IPC_RMID, NULL);
	_exit(1);
}

static void remove_segment(void)
{
	if (shared_id >= 0)
		shmctl(shared_id, IPC_RMID, NULL);
}

static void shared_map(void)
{
	size_t bytes = shared_pages * PAGE;

	shared_fd = memfd_create("workload", 0);
	if (shared_fd < 0 || ftruncate(shared_fd, (off_t)bytes))
		fail("memfd: %s", strerror(errno));
	shared_id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
	if (shared_id < 0)
		fail("shmget: %s", strerror(errno));
	shared[SHARED_ANONYMOUS].name = "shared anonymous";
	shared[SHARED_ANONYMOUS].base = map(bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	shared[SHARED_MEMFD].name = "memfd";
	shared[SHARED_MEMFD].base = map(bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd);
	shared[SHARED_SYSV].name = "System V";
	shared[SHARED_SYSV].base = must_map(shmat(shared_id, NULL, 0));
	for (size_t area = 0; area < SHARED_COUNT; area++)
		shared[area].written = map_private(shared_pages * SLOTS * sizeof(uint32_t));
}

static void shared_begin(void)
{
	pthread_barrierattr_t attributes;

	shared_pages = options.arena_mib * (1ul << 20) / PAGE / SHARED_COUNT;
	shared_map();
	meeting = map(sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	pthread_barrierattr_init(&attributes);
	pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&meeting->barrier, &attributes, SLOTS);
	signal(SIGUSR1, child_failed);
	for (unsigned int slot = 1; slot < SLOTS; slot++) {
		children[slot] = fork();
		if (children[slot] < 0)
			fail("fork: %s", strerror(errno));
		if (children[slot] == 0)
			shared_child(slot);
	}
	meet();
	atexit(remove_segment);
}

/* A child that has found something wrong has ended: do not wait for it at the barrier. */
static void shared_children_live(void)
{
	int status;
	pid_t pid = waitpid(-1, &status, WNOHANG);

	if (pid > 0)
		fail("child %d ended with status 0x%x", pid, status);
	for (unsigned int slot = 1; slot < SLOTS; slot++)
		if (atomic_load(&meeting->pids[slot]) != (unsigned int)children[slot])
			fail("child %d calls itself %u", children[slot], atomic_load(&meeting->pids[slot]));
}

static void shared_step(uint32_t step)
{
	shared_children_live();
	shared_check_kinds();
	atomic_store(&meeting->step, step);
	meet();
	shared_turn(0, step);
}

static uint64_t shared_end(void)
{
	uint64_t digest = 0;

	for (size_t area = 0; area < SHARED_COUNT; area++)
		for (size_t page = 0; page < shared_pages; page++)
			for (unsigned int slot = 0; slot < SLOTS; slot++) {
				shared_check(area, page, slot);
				digest = mix(digest ^ *slot_at(&shared[area], page, slot));
			}
	atomic_store(&meeting->step, 0);
	meet();
	for (unsigned int slot = 1; slot < SLOTS; slot++)
		reap(children[slot], 0);
	return digest;
}

/* --- files: a log that grows, one written in place, one read along --- */

#define PLACE_PAGES 64u

static int log_fd, place_fd, tail_fd;
static struct arena place;              /* what the file must be */

static int log_line(char line[64], uint32_t step)
{
	return snprintf(line, 64, "%u %016lx\n", step, mix(options.seed + step));
}

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags, 0644);

	if (fd < 0)
		fail("cannot open %s: %s", name, strerror(errno));
	return fd;
}

static void files_begin(void)
{
	log_fd = open_file("workload.log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
	tail_fd = open_file("workload.log", O_RDONLY);
	place_fd = open_file("workload.place", O_RDWR | O_CREAT | O_TRUNC);
	place = arena_make("place", map_private(PLACE_PAGES * PAGE), PLACE_PAGES);
	if (ftruncate(place_fd, PLACE_PAGES * PAGE))
		fail("ftruncate: %s", strerror(errno));
}

/* Reads the line of a step where the descriptor stands. */
static void tail_check(uint32_t step)
{
	char wanted[64], found[64] = "";
	int length = log_line(wanted, step);
	off_t at = lseek(tail_fd, 0, SEEK_CUR);

	if (read(tail_fd, found, (size_t)length) != length || memcmp(found, wanted, (size_t)length))
		fail("workload.log at %ld: expected '%.*s', found '%s'", (long)at, length - 1, wanted, found);
}

static void place_check(size_t page)
{
	uint64_t found[PAGE_WORDS];

	if (pread(place_fd, found, PAGE, (off_t)(page * PAGE)) != PAGE)
		fail("workload.place page %zu cannot be read", page);
	for (size_t i = 0; i < PAGE_WORDS; i++)
		if (found[i] != arena_at(&place, page)[i]) {
			char text[80];

			fail("workload.place at %zu: expected %016lx (iteration %u), found %016lx (%s)",
			     page * PAGE + i * 8, arena_at(&place, page)[i], place.written[page], found[i],
			     explain(&place, page, i, found[i], text));
		}
}

static void files_step(uint32_t step)
{
	char line[64];
	int length = log_line(line, step);

	if (write(log_fd, line, (size_t)length) != length)
		fail("writing workload.log: %s", strerror(errno));
	if (step > 3)
		tail_check(step - 3);
	for (unsigned int draw = 0; draw < 4; draw++) {
		size_t page = arena_random(&place, step, draw);

		arena_write(&place, page, step);
		if (pwrite(place_fd, arena_at(&place, page), PAGE, (off_t)(page * PAGE)) != PAGE)
			fail("writing workload.place: %s", strerror(errno));
		place_check(arena_random(&place, step, draw + 4));
	}
}

static uint64_t files_end(void)
{
	struct stat st;
	off_t size;

	for (uint32_t step = now > 3 ? now - 2 : 1; step <= now; step++)
		tail_check(step);
	size = lseek(tail_fd, 0, SEEK_CUR);
	if (fstat(log_fd, &st) || st.st_size != size)
		fail("workload.log: expected %ld bytes, found %ld", (long)size, (long)st.st_size);
	lseek(tail_fd, 0, SEEK_SET);
	for (uint32_t step = 1; step <= now; step++)
		tail_check(step);
	for (size_t page = 0; page < PLACE_PAGES; page++)
		place_check(page);
	if (fstat(place_fd, &st) || st.st_size != PLACE_PAGES * PAGE)
		fail("workload.place: expected %lu bytes, found %ld", PLACE_PAGES * PAGE, (long)st.st_size);
	return arena_check_all(&place);
}

/* --- what cannot be saved --- */

static int held = -1;

static void hold(const char *what)
{
	struct io_uring_params parameters = { 0 };

	if (!strcmp(what, "io_uring"))
		held = (int)syscall(SYS_io_uring_setup, 8, &parameters);
	else if (!strcmp(what, "userfaultfd"))
		held = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (held < 0)
		fail("cannot hold '%s': %s", what, strerror(errno));
}

static void release(void)
{
	if (held < 0 || access("release", F_OK))
		return;
	close(held);
	held = -1;
}

/* --- the loop --- */

static const struct mode {
	const char *name;
	void (*begin)(void);
	void (*step)(uint32_t step);
	uint64_t (*end)(void);
	const char *meaning;
} modes[] = {
	{ "memory", memory_begin, memory_step, memory_end, "one process, all kinds of private memory" },
	{ "vfork", memory_begin, vfork_step, memory_end, "the same, and starts other processes all the time" },
	{ "threads", threads_begin, threads_step, threads_end_all, "four threads, an arena each" },
	{ "tree", tree_begin, tree_step, tree_end, "three children, in a ring of pipes with their parent" },
	{ "shared", shared_begin, shared_step, shared_end,
	  "three processes with shared anonymous memory, a memfd, and System V memory" },
	{ "files", files_begin, files_step, files_end, "a growing log, and a file written in place" },
};

#define MODES (sizeof(modes) / sizeof(*modes))

static void usage(FILE *out)
{
	fprintf(out, "Usage: workload MODE [OPTION]...\n"
		     "Writes memory or files in steps and checks all of it until FILE appears.\n\n");
	for (size_t i = 0; i < MODES; i++)
		fprintf(out, "  %-8s %s\n", modes[i].name, modes[i].meaning);
	fprintf(out, "\n"
		     "  --stop FILE      end when FILE exists\n"
		     "  --steps N        end after N steps\n"
		     "  --seed N         (1) what is written is a function of it and the step\n"
		     "  --arena-mib N    (32) memory of all arenas together\n"
		     "  --pages N        (32) pages written in a step\n"
		     "  --pause-ms N     (40) after each step\n"
		     "  --max-seconds N  (600) of wall time; then it fails\n"
		     "  --hold KIND      have an io_uring or a userfaultfd open until a file 'release' appears\n"
		     "$WORKLOAD_MARK and the rest of the environment, the working directory and who it is\n"
		     "must stay the same.\n");
}

static unsigned int parse_number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || !*text || value > MOST_STEPS) {
		fprintf(stderr, "workload: '%s' is no number up to %u\n", text, MOST_STEPS);
		exit(2);
	}
	return (unsigned int)value;
}

static void parse_options(int argc, char **argv)
{
	static const struct option names[] = {
		{ "stop", required_argument, NULL, 's' },   { "steps", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 'r' },   { "arena-mib", required_argument, NULL, 'a' },
		{ "pages", required_argument, NULL, 'p' },  { "pause-ms", required_argument, NULL, 'w' },
		{ "max-seconds", required_argument, NULL, 'm' }, { "hold", required_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },	    { 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		switch (option) {
		case 's': options.stop = optarg; break;
		case 'n': options.steps = parse_number(optarg); break;
		case 'r': options.seed = parse_number(optarg); break;
		case 'a': options.arena_mib = parse_number(optarg); break;
		case 'p': options.pages = parse_number(optarg); break;
		case 'w': options.pause_ms = parse_number(optarg); break;
		case 'm': options.max_seconds = parse_number(optarg); break;
		case 'o': options.hold = optarg; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	}
	if (options.arena_mib < 4 || options.arena_mib > 65536) {
		fprintf(stderr, "workload: --arena-mib is 4 to 65536\n");
		exit(2);
	}
}

static const struct mode *find_mode(const char *name)
{
	for (size_t i = 0; i < MODES; i++)
		if (name && !strcmp(modes[i].name, name))
			return &modes[i];
	usage(stderr);
	exit(2);
}

/* At once and whole, whatever ends us later. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char text[200];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(1, text, (size_t)n) != n)
		fail("writing to standard output: %s", strerror(errno));
}

static void rest(void)
{
	struct timespec left = { options.pause_ms / 1000, options.pause_ms % 1000 * 1000000l };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

static bool stopped(void)
{
	return now >= options.steps || (options.stop && access(options.stop, F_OK) == 0);
}

static void run(const struct mode *mode)
{
	time_t begin = time(NULL); /* the monotonic clock is another one on each node */

	while (!stopped()) {
		mode->step(++now);
		check_self();
		release();
		say("step %u\n", now);
		if (time(NULL) - begin > (time_t)options.max_seconds)
			fail("not stopped within %u s", options.max_seconds);
		rest();
	}
}

int main(int argc, char **argv)
{
	uint8_t room[(STACK_PAGES + 1) * PAGE];
	const struct mode *mode;

	parse_options(argc, argv);
	mode = find_mode(argv[optind]);
	describe_self(self_text);
	memset(room, 0, sizeof(room));
	stack_room = room;
	signal(SIGPIPE, SIG_IGN); /* what it means is told by who gets EPIPE */
	alarm(options.max_seconds + 60);
	mode->begin();
	if (options.hold)
		hold(options.hold);
	run(mode);
	say("ok %s %u steps, digest %016lx\n", mode->name, now, mode->end());
	return 0;
}
