/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a program can do to its memory while pages of it are missing, by one that is its own judge: what
 * each page has to hold is known.  A page that is not as it should be is "wrong page ..." on standard
 * output, and the end.
 *
 * Memory is chunks of 64 pages; each thread (actor) has its own chunks.
 */
#ifndef CKPT_LAZY_ACTOR_H
#define CKPT_LAZY_ACTOR_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define CHUNK_PAGES 64
#define CHUNK (CHUNK_PAGES * PAGE)
#define MOST_THREADS 8
#define MOVES_PER_STEP 8

struct chunk {
	uint8_t *at;
	uint32_t version[CHUNK_PAGES];  /* 0: all zero */
};

static struct chunk *chunks;
static unsigned int chunk_count;
static unsigned int actor_count = 1;

struct actor {
	unsigned int number;
	uint64_t random;
	uint32_t version;
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void actor_fail(const char *format, ...)
{
	char text[200];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(1, text, (size_t)n) != n)
		_exit(3);
	_exit(2);
}

static inline uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdull;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53ull;
	return value ^ value >> 33;
}

static inline unsigned int pick(struct actor *actor, unsigned int below)
{
	actor->random = mix(actor->random + 0x9e3779b97f4a7c15ull);
	return (unsigned int)(actor->random % below);
}

static inline uint64_t word(unsigned int chunk, unsigned int page, uint32_t version, unsigned int i)
{
	return version ? mix((uint64_t)chunk << 40 ^ (uint64_t)page << 32 ^ version) + i : 0;
}

static inline void page_write(unsigned int number, unsigned int page, uint32_t version)
{
	uint64_t *words = (uint64_t *)(chunks[number].at + page * PAGE);
	uint64_t first = word(number, page, version, 0);

	for (unsigned int i = 0; i < PAGE / 8; i++)
		words[i] = first + i;
	chunks[number].version[page] = version;
}

static inline void page_check(unsigned int number, unsigned int page, const char *who)
{
	const uint64_t *words = (const uint64_t *)(chunks[number].at + page * PAGE);
	uint32_t version = chunks[number].version[page];
	uint64_t first = word(number, page, version, 0);

	for (unsigned int i = 0; i < PAGE / 8; i++)
		if (words[i] != (version ? first + i : 0))
			actor_fail("wrong page %u of chunk %u in %s: version %u, word %u is %#lx\n", page, number, who,
			     version, i, words[i]);
}

static inline void chunk_check(unsigned int number, const char *who)
{
	for (unsigned int page = 0; page < CHUNK_PAGES; page++)
		page_check(number, page, who);
}

static inline uint8_t *map(size_t bytes)
{
	uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		actor_fail("mmap: %s\n", strerror(errno));
	return at;
}

/* ---- what is done to memory ---- */

/* To a place that nobody had, or that the kernel finds. */
static inline void chunk_move(struct actor *actor, unsigned int number)
{
	struct chunk *chunk = &chunks[number];
	uint8_t *to;

	if (pick(actor, 2)) {
		to = mremap(chunk->at, CHUNK, CHUNK, MREMAP_MAYMOVE | MREMAP_FIXED, map(CHUNK));
	} else {
		to = mremap(chunk->at, CHUNK, 2 * CHUNK, MREMAP_MAYMOVE);
		if (to != MAP_FAILED)
			munmap(to + CHUNK, CHUNK);
	}
	if (to == MAP_FAILED)
		actor_fail("mremap: %s\n", strerror(errno));
	chunk->at = to;
}

static inline void chunk_drop(struct actor *actor, unsigned int number)
{
	unsigned int first = pick(actor, CHUNK_PAGES), count = 1 + pick(actor, CHUNK_PAGES - first);

	if (madvise(chunks[number].at + first * PAGE, count * PAGE, MADV_DONTNEED))
		actor_fail("madvise: %s\n", strerror(errno));
	memset(&chunks[number].version[first], 0, count * sizeof(uint32_t));
}

static inline void chunk_replace(unsigned int number)
{
	munmap(chunks[number].at, CHUNK);
	chunks[number].at = map(CHUNK);
	memset(chunks[number].version, 0, sizeof(chunks[number].version));
}

static inline unsigned int own(struct actor *actor)
{
	unsigned int count = (chunk_count - actor->number + actor_count - 1) / actor_count;

	return actor->number + actor_count * pick(actor, count);
}

static inline void act_alone(struct actor *actor, const char *who)
{
	unsigned int number = own(actor);

	switch (pick(actor, 6)) {
	case 0: chunk_move(actor, number); break;
	case 1: chunk_drop(actor, number); break;
	case 2: chunk_replace(number); break;
	case 3: page_write(number, pick(actor, CHUNK_PAGES), ++actor->version); break;
	default: page_check(number, pick(actor, CHUNK_PAGES), who);
	}
	if (!pick(actor, 8))
		chunk_check(own(actor), who);
}

static inline void await_child(pid_t pid, const char *who)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		actor_fail("a child of %s: %s\n", who, strerror(errno));
	if (status)
		actor_fail("a child of %s ended with %#x\n", who, status);
}

/* A child has what its parent had, and goes its own way; so has its own child. */
static inline void act_forking(struct actor *actor, int depth)
{
	static const char *const names[] = { "the job", "a child", "a grandchild" };
	pid_t pid = fork();

	if (pid == 0) {
		actor->random += 1;
		for (int i = 0; i < MOVES_PER_STEP; i++)
			act_alone(actor, names[depth + 1]);
		if (depth == 0)
			act_forking(actor, depth + 1);
		chunk_check(own(actor), names[depth + 1]);
		_exit(0);
	}
	await_child(pid, names[depth]);
}

static inline void act(struct actor *actor)
{
	for (int i = 0; i < MOVES_PER_STEP; i++)
		act_alone(actor, "the job");
	if (!pick(actor, 4))
		act_forking(actor, 0);
}

#endif
