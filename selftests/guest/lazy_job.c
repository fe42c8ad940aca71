// SPDX-License-Identifier: GPL-2.0
/*
 * A job that does to its memory all that lazy_actor.h knows.  It prints "step N" and, at its end, "ok".
 *
 *   lazy_job --stop FILE [--mib N] [--threads N] [--pause-ms N] [--busy FILE]
 *
 * Until FILE of --busy appears it only counts.  A child has a huge page that a thread's registers point into all the
 * time: it waits for a mutex with priority inheritance there, and the kernel does not wait for that page.
 */
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>

#include "lazy_actor.h"

#define MOST_THREADS 8

static struct {
	const char *stop;
	const char *busy;
	unsigned int mib, threads, pause_ms;
} options = { .mib = 16, .threads = 1, .pause_ms = 20 };

static bool ending;

/* ---- the child ---- */

#define HUGE (2ul << 20)

struct waiting {
	pthread_mutex_t mutex;
	uint8_t *memory;                /* two huge pages, itself in the middle of the first */
};

static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at / PAGE + at);
}

static void *wait_main(void *arg)
{
	struct waiting *waiting = arg;

	if (pthread_mutex_lock(&waiting->mutex))
		actor_fail("the mutex cannot be had\n");
	return NULL;
}

static struct waiting *waiting_make(void)
{
	uint8_t *memory = (uint8_t *)(((uintptr_t)map(3 * HUGE) + HUGE - 1) & ~(HUGE - 1));
	struct waiting *waiting = (struct waiting *)(memory + HUGE / 2);
	pthread_mutexattr_t attributes;

	madvise(memory, 2 * HUGE, MADV_HUGEPAGE);
	for (size_t at = 0; at < 2 * HUGE; at++)
		memory[at] = byte_at(at);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&waiting->mutex, &attributes);
	waiting->memory = memory;
	return waiting;
}

/* Ends when nobody can write into the pipe any more. */
__attribute__((noreturn)) static void child_main(int pipe)
{
	struct waiting *waiting = waiting_make();
	pthread_t thread;
	char byte;

	pthread_mutex_lock(&waiting->mutex);
	if (pthread_create(&thread, NULL, wait_main, waiting))
		actor_fail("pthread_create\n");
	while (read(pipe, &byte, 1) > 0)
		;
	pthread_mutex_unlock(&waiting->mutex);
	pthread_join(thread, NULL);
	for (size_t at = 0; at < 2 * HUGE; at++)
		if ((at < HUGE / 2 || at >= HUGE / 2 + sizeof(*waiting)) && waiting->memory[at] != byte_at(at))
			actor_fail("wrong byte %#lx of the child's huge page: %#x\n", at, waiting->memory[at]);
	_exit(0);
}

/* *end: a pipe's; the child ends when it is closed. */
static pid_t child_start(int *end)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		actor_fail("pipe: %s\n", strerror(errno));
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		child_main(ends[0]);
	}
	close(ends[0]);
	*end = ends[1];
	return pid;
}

/* ---- the job ---- */

static bool busy(void)
{
	return !options.busy || access(options.busy, F_OK) == 0;
}

static void *thread_main(void *arg)
{
	struct actor *actor = arg;

	while (!__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
		if (busy())
			act(actor);
		usleep(options.pause_ms * 1000);
	}
	return NULL;
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "stop", required_argument, NULL, 's' }, { "busy", required_argument, NULL, 'b' },
		{ "mib", required_argument, NULL, 'm' }, { "threads", required_argument, NULL, 't' },
		{ "pause-ms", required_argument, NULL, 'p' }, { 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 's': options.stop = optarg; break;
		case 'b': options.busy = optarg; break;
		case 'm': options.mib = (unsigned int)atoi(optarg); break;
		case 't': options.threads = (unsigned int)atoi(optarg); break;
		case 'p': options.pause_ms = (unsigned int)atoi(optarg); break;
		default: exit(2);
		}
	}
	if (!options.stop || options.mib < 1 || options.threads < 1 || options.threads > MOST_THREADS)
		exit(2);
}

static void prepare(void)
{
	chunk_count = options.mib * (unsigned int)((1 << 20) / CHUNK);
	actor_count = options.threads;
	chunks = (struct chunk *)map(chunk_count * sizeof(*chunks));
	for (unsigned int number = 0; number < chunk_count; number++) {
		chunks[number].at = map(CHUNK);
		for (unsigned int page = 0; page < CHUNK_PAGES; page++)
			page_write(number, page, 1);
	}
}

int main(int argc, char **argv)
{
	static struct actor actors[MOST_THREADS];
	pthread_t threads[MOST_THREADS];
	unsigned int step = 0;
	int end;
	pid_t child;

	parse(argc, argv);
	child = child_start(&end);
	prepare();
	for (unsigned int i = 0; i < options.threads; i++)
		actors[i] = (struct actor){ .number = i, .random = mix(i + 1), .version = 1 };
	for (unsigned int i = 1; i < options.threads; i++)
		if (pthread_create(&threads[i], NULL, thread_main, &actors[i]))
			actor_fail("pthread_create\n");
	while (access(options.stop, F_OK)) {
		if (busy())
			act(&actors[0]);
		dprintf(1, "step %u\n", ++step);
		usleep(options.pause_ms * 1000);
	}
	__atomic_store_n(&ending, true, __ATOMIC_RELAXED);
	for (unsigned int i = 1; i < options.threads; i++)
		pthread_join(threads[i], NULL);
	for (unsigned int number = 0; number < chunk_count; number++)
		chunk_check(number, "the job at its end");
	close(end);
	await_child(child, "the job");
	dprintf(1, "ok lazy_job\n");
	return 0;
}
