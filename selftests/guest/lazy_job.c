// SPDX-License-Identifier: GPL-2.0
/*
 * A job that does to its memory all that lazy_actor.h knows.  It prints "step N" and, at its end, "ok".
 *
 *   lazy_job --stop FILE [--mib N] [--threads N] [--pause-ms N] [--busy FILE]
 *
 * Until FILE of --busy appears it only counts.
 */
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

	parse(argc, argv);
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
	dprintf(1, "ok lazy_job\n");
	return 0;
}
