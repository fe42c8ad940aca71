// SPDX-License-Identifier: GPL-2.0
#include "aio.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "cgroup.h"
#include "cleanup.h"
#include "clock.h"
#include "proc.h"

/* A disk or a file server answers sooner. */
#define QUIET_MS 500
#define STEP_MS 10
#define MOST_MS 10000
/* The ring begins with: id, size, head, tail. */
#define TAIL 3

static int read_tail(const struct aio_ring *ring, uint32_t *tail)
{
	uint32_t header[TAIL + 1];
	struct iovec here = { header, sizeof(header) };
	struct iovec there = { (void *)(uintptr_t)ring->address, sizeof(header) };

	if (process_vm_readv(ring->pid, &here, 1, &there, 1, 0) != sizeof(header))
		return -errno ?: -EIO;
	*tail = header[TAIL];
	return 0;
}

static int add_ring(struct aio_rings *rings, pid_t pid, uint64_t address)
{
	struct aio_ring *grown = reallocarray(rings->list, rings->count + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	rings->list = grown;
	grown += rings->count++;
	*grown = (struct aio_ring){ .pid = pid, .address = address };
	return read_tail(grown, &grown->tail);
}

static int find_rings(struct aio_rings *rings, pid_t pid)
{
	cleanup_fclose FILE *maps = NULL;
	cleanup_free char *line = NULL;
	uint64_t start;
	size_t space = 0;
	int ret = proc_file(pid, "maps", &maps);

	while (maps && ret == 0 && getline(&line, &space, maps) > 0)
		if (strstr(line, " /[aio]") && sscanf(line, "%lx-", &start) == 1)
			ret = add_ring(rings, pid, start);
	return ret ?: proc_file_end(maps);
}

/* 1: some have moved; their new places are noted. */
static int look_again(struct aio_rings *rings)
{
	int moved = 0, ret = 0;

	for (size_t i = 0; i < rings->count && ret == 0; i++) {
		uint32_t tail = rings->list[i].tail;

		ret = read_tail(&rings->list[i], &rings->list[i].tail);
		moved |= tail != rings->list[i].tail;
	}
	return ret ? ret : moved;
}

static int wait_quiet(struct aio_rings *rings)
{
	int64_t begin = clock_ms(), quiet = begin;
	int ret = 0;

	while (ret >= 0 && clock_ms() - quiet < QUIET_MS) {
		if (clock_ms() - begin > MOST_MS)
			return -EAGAIN;
		poll(NULL, 0, STEP_MS);
		ret = look_again(rings);
		if (ret > 0)
			quiet = clock_ms();
	}
	return ret < 0 ? ret : 0;
}

int aio_settle(struct aio_rings *rings, const char *cgroup, struct problem *problem)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;
	int ret = cgroup_pids(cgroup, &pids, &count, problem);

	*rings = (struct aio_rings){ 0 };
	if (ret)
		return ret;
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = find_rings(rings, pids[i]);
	if (ret == 0 && rings->count)
		ret = wait_quiet(rings);
	if (ret == -EAGAIN)
		return problem_set(problem, EAGAIN, "the job's asynchronous I/O (io_submit) does not come to its end within %d s",
				   MOST_MS / 1000);
	return ret ? problem_set(problem, -ret, "cannot look at the job's asynchronous I/O: %s", strerror(-ret)) : 0;
}

int aio_check(const struct aio_rings *rings, struct problem *problem)
{
	for (size_t i = 0; i < rings->count; i++) {
		uint32_t tail;
		int ret = read_tail(&rings->list[i], &tail);

		if (ret)
			return problem_set(problem, -ret, "cannot look at the asynchronous I/O (io_submit) of process %d, so nothing was "
					   "committed: %s", rings->list[i].pid, strerror(-ret));
		if (tail != rings->list[i].tail)
			return problem_set(problem, EAGAIN, "asynchronous I/O (io_submit) of process %d came to its end while the job "
					   "was saved, so nothing was committed: try again", rings->list[i].pid);
	}
	return 0;
}

void aio_free(struct aio_rings *rings)
{
	free(rings->list);
	*rings = (struct aio_rings){ 0 };
}
