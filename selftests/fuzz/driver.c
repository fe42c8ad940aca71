// SPDX-License-Identifier: GPL-2.0
/*
 * Runs a target without clang: NAME [--runs N] [--seconds S] [--seed N] CORPUS… runs every file of the
 * corpora and then N inputs that are mutations of them, the same ones for the same seed, or as many as
 * S seconds are enough for; NAME FILE… runs these; NAME --seeds DIRECTORY writes good inputs.  An input
 * that takes too long or too much memory ends it, like one that the sanitizers end, and is left beside
 * the program, in crash-NAME.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_MAX (64u << 10)
#define FILES_MAX 4096
#define PATIENCE_S 60
#define MEMORY_KIB (2u << 20)

struct input {
	uint8_t *bytes;
	size_t length;
};

static struct input files[FILES_MAX];
static size_t file_count;
static uint8_t current[INPUT_MAX];
static size_t current_length;
static char crash_path[256];
static uint64_t state = 1;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void keep_input(void)
{
	int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, current, current_length) < 0)
		_exit(3);
	close(fd);
}

static void on_signal(int number)
{
	static const char text[] = "fuzz: this input takes too long or ends the program\n";

	keep_input();
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(3);
	signal(number, SIG_DFL);
	raise(number);
}

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

static void run(void)
{
	struct rusage usage;

	alarm(PATIENCE_S);
	LLVMFuzzerTestOneInput(current, current_length);
	alarm(0);
	getrusage(RUSAGE_SELF, &usage);
	if (usage.ru_maxrss > MEMORY_KIB) {
		fprintf(stderr, "fuzz: %ld KiB of memory were used\n", usage.ru_maxrss);
		abort();
	}
}

/* ---- the corpus ---- */

static void file_read(const char *path)
{
	struct input *input = &files[file_count];
	int fd = open(path, O_RDONLY);
	ssize_t length;

	if (fd < 0 || file_count == FILES_MAX) {
		fprintf(stderr, "fuzz: cannot read %s\n", path);
		exit(2);
	}
	input->bytes = malloc(INPUT_MAX);
	length = read(fd, input->bytes, INPUT_MAX);
	input->length = length > 0 ? (size_t)length : 0;
	close(fd);
	file_count++;
}

static int order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of names: the same seed then gives the same inputs everywhere. */
static void corpus_read(const char *path)
{
	DIR *dir = opendir(path);
	char *names[FILES_MAX], full[4096];
	struct dirent *entry;
	size_t count = 0, i;

	if (!dir) {
		file_read(path);
		return;
	}
	while ((entry = readdir(dir)) && count < FILES_MAX)
		if (entry->d_name[0] != '.')
			names[count++] = strdup(entry->d_name);
	closedir(dir);
	qsort(names, count, sizeof(*names), order);
	for (i = 0; i < count; i++) {
		snprintf(full, sizeof(full), "%s/%s", path, names[i]);
		file_read(full);
		free(names[i]);
	}
}

/* ---- mutations ---- */

static void take(const struct input *input)
{
	memcpy(current, input->bytes, input->length);
	current_length = input->length;
}

static void insert(size_t at, const uint8_t *bytes, size_t length)
{
	if (length > INPUT_MAX - current_length)
		length = INPUT_MAX - current_length;
	memmove(current + at + length, current + at, current_length - at);
	memcpy(current + at, bytes, length);
	current_length += length;
}

static void delete(size_t at, size_t length)
{
	if (length > current_length - at)
		length = current_length - at;
	memmove(current + at, current + at + length, current_length - at - length);
	current_length -= length;
}

static void insert_piece(size_t at)
{
	const struct input *other = &files[next() % file_count];
	uint8_t piece[64];
	size_t length = 1 + next() % sizeof(piece), from;

	if (!other->length)
		return;
	from = next() % other->length;
	if (length > other->length - from)
		length = other->length - from;
	memcpy(piece, other->bytes + from, length);
	insert(at, piece, length);
}

static void put_interesting(size_t at)
{
	static const uint8_t bytes[] = { 0, 1, 0x7f, 0x80, 0xff, 0xfe, '\n', '"', '{', '[', ']', '=' };
	static const uint64_t numbers[] = { 0xffffffff, 1ull << 31, 1ull << 63, ~0ull, 4096, 262144, 65 };
	uint64_t number = numbers[next() % (sizeof(numbers) / sizeof(*numbers))];

	if (next() % 2 || current_length - at < sizeof(number))
		current[at] = bytes[next() % sizeof(bytes)];
	else
		memcpy(current + at, &number, next() % 2 ? 4 : 8);
}

/* A varint of any length. */
static void insert_number(size_t at)
{
	uint64_t value = next() >> next() % 64;
	uint8_t text[10];
	size_t length = 0;

	for (; value >= 0x80; value >>= 7)
		text[length++] = (uint8_t)(value | 0x80);
	text[length++] = (uint8_t)value;
	if (next() % 2)
		delete(at, 1);
	insert(at, text, length);
}

static void mutate_once(void)
{
	size_t at = current_length ? next() % current_length : 0;

	switch (current_length ? next() % 8 : 7) {
	case 0: current[at] ^= (uint8_t)(1u << next() % 8); break;
	case 1: current[at] = (uint8_t)next(); break;
	case 2: put_interesting(at); break;
	case 3: delete(at, 1 + next() % 16); break;
	case 4: insert_number(at); break;
	case 5: current_length = at; break;
	default: insert_piece(at); break;
	}
}

static void mutate(void)
{
	unsigned int count = 1 + next() % 6;

	take(&files[next() % file_count]);
	while (count--)
		mutate_once();
}

/* ---- the program ---- */

static const char *seed_directory;

static void seed_write(const char *name, const void *data, size_t length)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", seed_directory, name);
	file = fopen(path, "w");
	if (!file || fwrite(data, 1, length, file) != length || fclose(file)) {
		perror(path);
		exit(2);
	}
}

static void watch(const char *program)
{
	const char *slash = strrchr(program, '/'), *name = slash ? slash + 1 : program;

	snprintf(crash_path, sizeof(crash_path), "%.*scrash-%s", (int)(name - program), program, name);
	signal(SIGALRM, on_signal);
	signal(SIGABRT, on_signal);
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_set_death_callback(keep_input);
#else
	signal(SIGSEGV, on_signal);
#endif
}

/* The corpus, and mutations of it; how many of these. */
static unsigned long run_all(unsigned long runs, time_t seconds)
{
	time_t end = time(NULL) + seconds;
	unsigned long i;

	for (i = 0; i < file_count; i++) {
		take(&files[i]);
		run();
	}
	for (i = 0; i < runs && (!seconds || time(NULL) < end); i++) {
		mutate();
		run();
	}
	return i;
}

int main(int argc, char **argv)
{
	unsigned long runs = 0, i;
	time_t seconds = 0;

	for (int a = 1; a < argc; a++) {
		if (!strcmp(argv[a], "--seeds") && a + 1 < argc) {
			seed_directory = argv[a + 1];
			fuzz_seeds(seed_write);
			return 0;
		}
		if (!strcmp(argv[a], "--runs") && a + 1 < argc)
			runs = strtoul(argv[++a], NULL, 10);
		else if (!strcmp(argv[a], "--seconds") && a + 1 < argc)
			seconds = strtol(argv[++a], NULL, 10);
		else if (!strcmp(argv[a], "--seed") && a + 1 < argc)
			state = strtoul(argv[++a], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
		else
			corpus_read(argv[a]);
	}
	if (!file_count) {
		fprintf(stderr, "fuzz: no corpus\n");
		return 2;
	}
	watch(argv[0]);
	runs = run_all(runs, seconds);
	for (i = 0; i < file_count; i++)
		free(files[i].bytes);
	printf("%zu inputs of the corpus and %lu mutations\n", file_count, runs);
	return 0;
}
