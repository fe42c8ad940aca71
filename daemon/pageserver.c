// SPDX-License-Identifier: GPL-2.0
#include "pageserver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "faults.h"
#include "pagescan.h"

enum command {
	COMMAND_OPEN = 4,
	COMMAND_PARENT = 5,
	COMMAND_ADD = 6,
	COMMAND_CLOSE = 0x1023,
	COMMAND_FORCE_CLOSE = 0x1024,
};

#define FLAG_PRESENT 4u

#define MAX_PAGES (1ull << 40)
#define CHUNK_PAGES 256u
/* As much is looked for, and read, before it is known that it can be. */
#define READ_BYTES (64u << 20)
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)

/* Since Linux 6.13. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

struct message {
	uint32_t command;
	uint32_t flags;
	uint64_t pages;
	uint64_t address;
	enum space_kind kind;
	uint64_t id;
};

/* What CRIU named of one space. */
struct named {
	enum space_kind kind;
	uint64_t id;
	struct regions runs;
};

struct server {
	int socket;
	bool wide;
	bool has_parent;
	int idle_ms;
	struct reader *reader;
	struct packer *packer;
	struct named *named;
	size_t named_count;
	struct pageserver_stats *stats;
	struct problem *problem;
	uint8_t *chunk;
	bool may_have_guards;
	int pagemap, pageflags;
	pid_t pagemap_pid;      /* whose pagemap is open; 0: none is */
};

static int receive(struct server *server, void *buffer, size_t bytes)
{
	struct pollfd wait = { .fd = server->socket, .events = POLLIN };
	size_t done = 0;

	while (done < bytes) {
		ssize_t n;
		int ready = poll(&wait, 1, server->idle_ms);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return problem_set(server->problem, ETIMEDOUT, "criu was silent for %d s (criu_timeout) and was killed",
					   server->idle_ms / 1000);
		n = recv(server->socket, (uint8_t *)buffer + done, bytes - done, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return problem_set(server->problem, EPIPE, "criu hung up");
		done += (size_t)n;
	}
	return 0;
}

static int receive_message(struct server *server, struct message *message)
{
	uint8_t raw[32];
	uint32_t command, pages;
	uint64_t id;
	int ret = receive(server, raw, server->wide ? 32 : 24);

	if (ret)
		return ret;
	memcpy(&command, raw, 4);
	if (server->wide) {
		memcpy(&message->pages, raw + 8, 8);
	} else {
		memcpy(&pages, raw + 4, 4);
		message->pages = pages;
	}
	memcpy(&message->address, raw + (server->wide ? 16 : 8), 8);
	memcpy(&id, raw + (server->wide ? 24 : 16), 8);
	message->command = command & 0xffff;
	message->flags = command >> 16;
	message->kind = (enum space_kind)(id & 0xff);
	message->id = id >> 8;
	return 0;
}

static int answer(struct server *server, const void *data, size_t bytes)
{
	if (send(server->socket, data, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		return problem_set(server->problem, EPIPE, "criu hung up");
	return 0;
}

/* Adds the space and says whether CRIU may leave out what it takes for unchanged. */
static int serve_open(struct server *server, const struct message *message)
{
	struct named *grown;
	char has_parent = server->has_parent && message->kind == SPACE_TASK;

	if (message->kind != SPACE_TASK && message->kind != SPACE_SHMEM)
		return problem_set(server->problem, EPROTO, "criu sends pages of an unknown kind (%d)",
				   message->kind);
	grown = reallocarray(server->named, server->named_count + 1, sizeof(*grown));
	if (!grown)
		return problem_set(server->problem, ENOMEM, "out of memory");
	server->named = grown;
	grown[server->named_count++] = (struct named){ .kind = message->kind, .id = message->id };
	return answer(server, &has_parent, 1);
}

static int take_data(struct server *server, struct space *space, const struct message *message)
{
	uint64_t address = message->address;
	uint64_t left = message->pages;
	int ret = 0;

	while (left && ret == 0) {
		size_t pages = left < CHUNK_PAGES ? left : CHUNK_PAGES;

		ret = receive(server, server->chunk, pages * PAGE_BYTES);
		for (size_t i = 0; i < pages && ret == 0; i++)
			ret = packer_page(server->packer, space, address + i * PAGE_BYTES,
					  server->chunk + i * PAGE_BYTES, server->problem);
		address += pages * PAGE_BYTES;
		left -= pages;
	}
	server->stats->pages_sent += message->pages;
	return ret;
}

/* The first run of pages from *at on that nobody holds; false: there is none. */
static bool next_missing(const struct space *space, uint64_t *at, uint64_t end, uint64_t *missing_end)
{
	if (*at < end && space_holds(space, *at))
		*at = space_run_end(space, *at, end);
	if (*at < end)
		*missing_end = space_run_end(space, *at, end);
	return *at < end;
}

static int read_missing(struct server *server, struct packer_source *source, uint64_t at, uint64_t end)
{
	struct problem unheard;
	uint64_t to;
	int ret = 0, waited;

	for (; ret == 0 && next_missing(source->space, &at, end, &to); at = to) {
		ret = packer_read(server->packer, source, at, to, server->problem);
		server->stats->pages_read += (to - at) / PAGE_BYTES;
	}
	waited = packer_wait(server->packer, ret ? &unheard : server->problem);
	return ret ? ret : waited;
}

static int open_pagemap(struct server *server, pid_t pid)
{
	if (server->pagemap_pid == pid)
		return 0;
	if (server->pagemap >= 0)
		close(server->pagemap);
	server->pagemap_pid = 0;
	server->pagemap = pagescan_open(pid);
	if (server->pagemap < 0)
		return problem_set(server->problem, EIO, "cannot open /proc/%d/pagemap: %s", pid, strerror(-server->pagemap));
	if (server->pageflags < 0)
		server->pageflags = pagescan_open_flags();
	if (server->pageflags < 0)
		return problem_set(server->problem, EIO, "cannot open /proc/kpageflags: %s", strerror(-server->pageflags));
	server->pagemap_pid = pid;
	return 0;
}

/*
 * Trackers do not report the kernel's huge zero page, and CRIU may name it all the same.  What was there before, and is
 * held, must not come back.  One look for each 2 MiB is enough: the page is in one entry of the table above.
 */
static int forget_zero(struct server *server, struct space *space, pid_t pid, uint64_t at, uint64_t end)
{
	uint64_t next;
	int zero;

	for (; at < end; at = next) {
		next = (at | (HUGE_PAGE_BYTES - 1)) + 1;
		if (next > end)
			next = end;
		zero = pagescan_is_zero(server->pagemap, server->pageflags, at);
		if (zero < 0)
			return problem_set(server->problem, EIO, "cannot tell what is at %#lx of process %d: reading its pagemap or "
					   "/proc/kpageflags: %s", at, pid, strerror(-zero));
		if (zero)
			space_forget(space, at, next);
	}
	return 0;
}

/* CRIU before 4.2 takes guard pages for pages. */
static int refuse_guards(struct server *server, pid_t pid, uint64_t at, uint64_t end)
{
	const uint64_t *entries = (const uint64_t *)server->chunk;
	size_t count = (end - at) / PAGE_BYTES, bytes = count * sizeof(*entries);
	ssize_t got = pread(server->pagemap, server->chunk, bytes, (off_t)(at / PAGE_BYTES * sizeof(*entries)));

	if (got != (ssize_t)bytes)
		return problem_set(server->problem, EIO, "cannot read /proc/%d/pagemap: %s", pid,
				   got < 0 ? strerror(errno) : "it ends too early");
	for (size_t i = 0; i < count; i++)
		if (entries[i] & PAGEMAP_GUARD)
			return problem_set(server->problem, ENOTSUP, "process %d has a guard page (MADV_GUARD_INSTALL, at %#lx), which "
					   "CRIU before 4.2 does not save: install CRIU 4.2 or later, or let the program do "
					   "without them", pid, at + i * PAGE_BYTES);
	return 0;
}

static int look_at_pages(struct server *server, struct space *space, pid_t pid, uint64_t at, uint64_t end)
{
	int ret = open_pagemap(server, pid);

	if (ret == 0)
		ret = forget_zero(server, space, pid, at, end);
	if (ret == 0 && server->may_have_guards)
		ret = refuse_guards(server, pid, at, end);
	return ret;
}

/* CRIU takes the run for unchanged. What we do not hold of it is read from the stopped task. */
static int take_unchanged(struct server *server, struct space *space, const struct message *message)
{
	struct task *task = tasks_find_inner(&server->reader->tasks, (pid_t)message->id);
	struct packer_source source = { .space = space };
	uint64_t at = message->address, end = at + message->pages * PAGE_BYTES, part, to;
	int ret = 0;

	for (; ret == 0 && at < end; at = part) {
		part = end - at < READ_BYTES ? end : at + READ_BYTES;
		if (message->kind == SPACE_TASK && task)
			ret = look_at_pages(server, space, task->pid, at, part);
		if (ret || !next_missing(space, &at, part, &to))
			continue;
		if (message->kind != SPACE_TASK || !task)
			return problem_set(server->problem, ENOENT, "criu names pages at %#lx of process "
					   "%lu that nobody holds", at, message->id);
		source.pid = task->pid;
		ret = read_missing(server, &source, at, part);
		if (ret == 0 && next_missing(space, &at, part, &to))
			ret = problem_set(server->problem, EFAULT, "the page at %#lx of process %d cannot "
					  "be read", at, task->pid);
	}
	return ret;
}

static int serve_add(struct server *server, const struct message *message)
{
	struct named *named = server->named_count ? &server->named[server->named_count - 1] : NULL;
	struct space *space;
	int ret = fault("pageserver.add");

	if (ret)
		return problem_set(server->problem, -ret, "stopped by a fault point");
	if (!named || named->kind != message->kind || named->id != message->id ||
	    message->address % PAGE_BYTES || !message->pages || message->pages > MAX_PAGES ||
	    message->address + message->pages * PAGE_BYTES < message->address)
		return problem_set(server->problem, EPROTO, "criu's page message makes no sense: is "
				   "this version of CRIU known to ckpt?");
	space = pagemap_space(server->reader->map, message->kind, message->id);
	if (!space || regions_add(&named->runs, message->address,
				  message->address + message->pages * PAGE_BYTES, 0))
		return problem_set(server->problem, ENOMEM, "out of memory");
	server->stats->pages_named += message->pages;
	if (message->flags & FLAG_PRESENT)
		return take_data(server, space, message);
	return take_unchanged(server, space, message);
}

static int serve(struct server *server)
{
	const int32_t zero = 0;
	struct message message;
	int ret;

	for (;;) {
		ret = receive_message(server, &message);
		if (ret)
			return ret;
		switch (message.command) {
		case COMMAND_OPEN:
			ret = serve_open(server, &message);
			break;
		case COMMAND_PARENT:
			ret = answer(server, &zero, sizeof(zero));
			break;
		case COMMAND_ADD:
			ret = serve_add(server, &message);
			break;
		case COMMAND_CLOSE:
		case COMMAND_FORCE_CLOSE:
			return answer(server, &zero, sizeof(zero));
		default:
			ret = problem_set(server->problem, EPROTO, "unknown page server command %u from "
					  "criu", message.command);
		}
		if (ret)
			return ret;
	}
}

struct seen {
	const struct server *server;
	struct space **stale;
	size_t count;
};

static int find_stale(struct space *space, void *arg)
{
	struct seen *seen = arg;
	struct space **grown;

	if (space_kind(space) == SPACE_FILE)
		return 0;
	for (size_t i = 0; i < seen->server->named_count; i++)
		if (seen->server->named[i].kind == space_kind(space) &&
		    seen->server->named[i].id == space_id(space))
			return 0;
	grown = reallocarray(seen->stale, seen->count + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	seen->stale = grown;
	seen->stale[seen->count++] = space;
	return 0;
}

/* CRIU's list is the truth: memory that it did not name does not exist. */
static int retain_named(struct server *server)
{
	struct seen seen = { .server = server };
	int ret;

	for (size_t i = 0; i < server->named_count; i++) {
		struct named *named = &server->named[i];
		struct space *space = pagemap_space(server->reader->map, named->kind, named->id);

		if (!space || regions_normalise(&named->runs))
			return problem_set(server->problem, ENOMEM, "out of memory");
		space_retain(space, &named->runs);
	}
	ret = pagemap_for_each(server->reader->map, find_stale, &seen);
	for (size_t i = 0; i < seen.count && ret == 0; i++)
		pagemap_forget_space(server->reader->map, space_kind(seen.stale[i]),
				     space_id(seen.stale[i]));
	free(seen.stale);
	return ret ? problem_set(server->problem, ENOMEM, "out of memory") : 0;
}

int pageserver_serve(int socket, const struct criu_version *criu, struct reader *reader, struct packer *packer,
		     int idle_ms, struct pageserver_stats *stats, struct problem *problem)
{
	struct server server = { .socket = socket, .wide = criu_wide_messages(criu),
				 .has_parent = criu->tracks_memory, .idle_ms = idle_ms,
				 .reader = reader, .packer = packer, .stats = stats,
				 .problem = problem, .pagemap = -1, .pageflags = -1 };
	int ret;

	memset(stats, 0, sizeof(*stats));
	server.may_have_guards = !server.wide && madvise(NULL, 0, MADV_GUARD_INSTALL) == 0;
	server.chunk = malloc((size_t)CHUNK_PAGES * PAGE_BYTES);
	if (!server.chunk)
		return problem_set(problem, ENOMEM, "out of memory");
	ret = serve(&server);
	if (ret == 0)
		ret = retain_named(&server);
	for (size_t i = 0; i < server.named_count; i++)
		regions_free(&server.named[i].runs);
	free(server.named);
	free(server.chunk);
	if (server.pagemap >= 0)
		close(server.pagemap);
	if (server.pageflags >= 0)
		close(server.pageflags);
	return ret;
}
