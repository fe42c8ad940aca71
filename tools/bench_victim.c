// SPDX-License-Identifier: GPL-2.0
#include "bench_victim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "bench.h"
#include "cleanup.h"
#include "proc.h"
#include "region.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)	/* 6.7 */
#endif

enum order { ORDER_RENEW, ORDER_SPARSE, ORDER_WRITE, ORDER_REGISTER, ORDER_UNREGISTER, ORDER_STIR, ORDER_REST };

struct request {
	enum order order;
	struct writes writes;
	uint64_t step_bytes;
};

struct answer {
	int err;
	int64_t took_ns;
	struct stirred stirred;
};

/* ---- which pages ---- */

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

void writes_each(const struct writes *writes, uint64_t pages, writes_page *call, void *argument)
{
	uint64_t state = writes->seed * 2 + 1;

	for (uint64_t i = 0; i < writes->count; i++)
		call(argument, writes->count >= pages ? i % pages : random_next(&state) % pages);
}

/* ---- in the process ---- */

struct self {
	const struct victim *victim;
	int userfaultfd;
	pthread_t stirrer;
	atomic_bool rest;
	struct stirred stirred;
};

static void write_page(void *argument, uint64_t page)
{
	((volatile char *)argument)[page * PAGE_BYTES]++;
}

/* Does not read first: that would map the huge zero page, which many kernels split at the write. */
static int self_populate(const struct victim *victim, size_t step_bytes)
{
	if (madvise(victim->memory, victim->bytes, MADV_DONTNEED) ||
	    (madvise(victim->memory, victim->bytes, victim->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) && errno != EINVAL))
		return -errno;
	for (size_t at = 0; at < victim->bytes; at += step_bytes)
		((volatile char *)victim->memory)[at] = 1;
	return 0;
}

static int self_unregister(struct self *self)
{
	int err = self->userfaultfd >= 0 && close(self->userfaultfd) ? -errno : 0;

	self->userfaultfd = -1;
	return err;
}

static int self_register(struct self *self)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register range = {
		.range = { (uintptr_t)self->victim->memory, self->victim->bytes }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	int err = 0;

	self->userfaultfd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (self->userfaultfd < 0)
		return -errno;
	if (ioctl(self->userfaultfd, UFFDIO_API, &api) || ioctl(self->userfaultfd, UFFDIO_REGISTER, &range))
		err = -errno;
	if (err)
		self_unregister(self);
	return err;
}

static void waits_add(struct waits *waits, int64_t took_ns)
{
	int power = 63 - __builtin_clzll((uint64_t)took_ns | 1);
	unsigned int step = power >= 4 ? (unsigned int)(took_ns >> (power - 4)) & 15 : 0;

	waits->count++;
	waits->histogram[power][step]++;
	if (took_ns > waits->max_ns)
		waits->max_ns = took_ns;
}

/* It does not merge with other mappings. */
static int64_t map_once(void)
{
	int64_t begin = bench_now_ns();
	void *page = mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page != MAP_FAILED)
		munmap(page, PAGE_BYTES);
	return bench_now_ns() - begin;
}

static void *self_stir(void *argument)
{
	struct self *self = argument;
	const uint64_t pages = self->victim->bytes / PAGE_BYTES;
	int64_t begin, took_ns;
	uint64_t state = 1;

	while (!self->rest) {
		uint64_t page = random_next(&state) % pages;

		begin = bench_now_ns();
		write_page(self->victim->memory, page);
		took_ns = bench_now_ns() - begin;
		if (took_ns > WAIT_MIN_NS)
			waits_add(&self->stirred.faults, took_ns);
		if (++self->stirred.writes % 256 == 0)
			waits_add(&self->stirred.maps, map_once());
	}
	return NULL;
}

static int self_rest(struct self *self, struct stirred *stirred)
{
	self->rest = true;
	pthread_join(self->stirrer, NULL);
	*stirred = self->stirred;
	return 0;
}

static int self_begin_stir(struct self *self)
{
	self->rest = false;
	self->stirred = (struct stirred){};
	return -pthread_create(&self->stirrer, NULL, self_stir, self);
}

static void self_obey(struct self *self, const struct request *request, struct answer *answer)
{
	const struct victim *victim = self->victim;

	switch (request->order) {
	case ORDER_RENEW: answer->err = self_populate(victim, PAGE_BYTES); break;
	case ORDER_SPARSE: answer->err = self_populate(victim, request->step_bytes); break;
	case ORDER_WRITE:
		answer->took_ns = -bench_now_ns();
		writes_each(&request->writes, victim->bytes / PAGE_BYTES, write_page, victim->memory);
		answer->took_ns += bench_now_ns();
		break;
	case ORDER_REGISTER: answer->err = self_register(self); break;
	case ORDER_UNREGISTER: answer->err = self_unregister(self); break;
	case ORDER_STIR: answer->err = self_begin_stir(self); break;
	case ORDER_REST: answer->err = self_rest(self, &answer->stirred); break;
	}
}

static void self_main(const struct victim *victim, int socket)
{
	struct self self = { .victim = victim, .userfaultfd = -1 };
	struct request request;
	struct answer answer;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(socket, &request, sizeof(request)) == sizeof(request)) {
		answer = (struct answer){};
		self_obey(&self, &request, &answer);
		if (write(socket, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

/* ---- outside ---- */

static int victim_ask(const struct victim *victim, const struct request *request, struct answer *answer)
{
	if (send(victim->socket, request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request) ||
	    recv(victim->socket, answer, sizeof(*answer), MSG_WAITALL) != sizeof(*answer))
		return -ESRCH;
	return answer->err;
}

static int victim_order(const struct victim *victim, enum order order)
{
	struct request request = { .order = order };
	struct answer answer;

	return victim_ask(victim, &request, &answer);
}

int victim_write(const struct victim *victim, const struct writes *writes, int64_t *took_ns)
{
	struct request request = { .order = ORDER_WRITE, .writes = *writes };
	struct answer answer = {};
	int err = victim_ask(victim, &request, &answer);

	if (took_ns)
		*took_ns = answer.took_ns;
	return err;
}

int victim_renew(const struct victim *victim)
{
	return victim_order(victim, ORDER_RENEW);
}

int victim_register(const struct victim *victim)
{
	return victim_order(victim, ORDER_REGISTER);
}

int victim_unregister(const struct victim *victim)
{
	return victim_order(victim, ORDER_UNREGISTER);
}

int victim_stir(const struct victim *victim)
{
	return victim_order(victim, ORDER_STIR);
}

int victim_rest(const struct victim *victim, struct stirred *stirred)
{
	struct request request = { .order = ORDER_REST };
	struct answer answer;
	int err = victim_ask(victim, &request, &answer);

	*stirred = answer.stirred;
	return err;
}

int64_t waits_quantile_ns(const struct waits *waits, double fraction)
{
	uint64_t below = 0, wanted = (uint64_t)(fraction * (double)waits->count);

	for (int power = 0; power < 64; power++)
		for (int step = 0; step < 16; step++) {
			below += waits->histogram[power][step];
			if (below > wanted)
				return power >= 4 ? (INT64_C(17) + step) << (power - 4) : INT64_C(2) << power;
		}
	return waits->max_ns;
}

bool victim_is_huge(const struct victim *victim)
{
	cleanup_fclose FILE *smaps = NULL;
	char line[256], path[64];
	uint64_t kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", victim->pid);
	smaps = fopen(path, "re");
	while (smaps && fgets(line, sizeof(line), smaps))
		if (sscanf(line, "AnonHugePages: %lu", &kib) == 1)
			break;
	return kib * 1024 >= victim->bytes;
}

/* A range of addresses whose start is aligned; what is mapped too much is given back. */
static char *map_aligned(size_t bytes)
{
	char *map = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			 0);
	size_t before = -(uintptr_t)map & (HUGE_BYTES - 1);

	if (map == MAP_FAILED)
		return NULL;
	if (before)
		munmap(map, before);
	munmap(map + before + bytes, HUGE_BYTES - before);
	return map + before;
}

static int victim_fork(struct victim *victim)
{
	int sockets[2];

	victim->memory = map_aligned(victim->bytes);
	if (!victim->memory)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	victim->pid = fork();
	if (!victim->pid) {
		close(sockets[0]);
		self_main(victim, sockets[1]);
	}
	close(sockets[1]);
	victim->socket = sockets[0];
	victim->pidfd = victim->pid < 0 ? -errno : pidfd_of(victim->pid);
	return victim->pidfd < 0 ? victim->pidfd : 0;
}

static int victim_begin(struct victim *victim, const struct request *request)
{
	struct answer answer;
	int err = victim_fork(victim);

	if (!err)
		err = victim_ask(victim, request, &answer);
	if (err)
		victim_end(victim);
	return err;
}

int victim_start(struct victim *victim, size_t bytes, bool huge)
{
	*victim = (struct victim){ .bytes = bytes, .huge = huge, .pidfd = -1, .socket = -1 };
	return victim_begin(victim, &(struct request){ .order = ORDER_RENEW });
}

int victim_start_sparse(struct victim *victim, size_t bytes, size_t step_bytes)
{
	*victim = (struct victim){ .bytes = bytes, .pidfd = -1, .socket = -1 };
	return victim_begin(victim, &(struct request){ .order = ORDER_SPARSE, .step_bytes = step_bytes });
}

void victim_end(struct victim *victim)
{
	if (victim->socket >= 0)
		close(victim->socket);
	if (victim->pidfd >= 0)
		close(victim->pidfd);
	if (victim->pid > 0)
		waitpid(victim->pid, NULL, 0);
	if (victim->memory)
		munmap(victim->memory, victim->bytes);
}
