// SPDX-License-Identifier: GPL-2.0
#include "lazy_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cgroup.h"
#include "cleanup.h"
#include "faults.h"
#include "pread_fully.h"
#include "proc.h"
#include "smaps.h"

/* In /proc/PID/pagemap. */
#define PRESENT_OR_SWAPPED (3ULL << 62)
#define ENTRIES 512

/* ---- the job's processes ---- */

static int find_pids(struct lazy_server *server)
{
	cleanup_free pid_t *pids = NULL;
	struct problem problem;
	size_t count;
	pid_t inner;

	if (cgroup_pids(server->spec->cgroup, &pids, &count, &problem)) {
		lazy_fail_locked(server, "%s", problem.text);
		return -EIO;
	}
	for (size_t i = 0; i < count; i++) {
		if (proc_namespace_pid(pids[i], &inner))
			continue;
		for (struct lazy_process *process = server->processes; process; process = process->next)
			if (process->inner_pid == inner)
				process->pid = pids[i];
	}
	return 0;
}

static bool is_known(const struct lazy_server *server, pid_t pid)
{
	for (const struct lazy_process *process = server->processes; process; process = process->next)
		if (process->pid == pid)
			return true;
	return false;
}

/* ---- nothing can be touched unnoticed ---- */

struct checking {
	struct lazy_server *server;
	struct lazy_process *process;
	uint32_t seen;                  /* missing pages that are watched */
};

static bool is_there(int pagemap, uint64_t start, uint64_t end, struct lazy_process *process)
{
	uint64_t entries[ENTRIES];

	for (uint64_t address = start; address < end; address += ENTRIES * PAGE_BYTES) {
		uint64_t pages = (end - address) / PAGE_BYTES;
		ssize_t got;

		if (pages > ENTRIES)
			pages = ENTRIES;
		got = pread_fully(pagemap, entries, pages * sizeof(*entries),
				  address / PAGE_BYTES * sizeof(*entries));
		if (got != (ssize_t)(pages * sizeof(*entries)))
			return true;
		for (uint64_t i = 0; i < pages; i++)
			if (entries[i] & PRESENT_OR_SWAPPED &&
			    lazy_memory_find(&process->memory, address + i * PAGE_BYTES) != LAZY_NONE)
				return true;
	}
	return false;
}

static int check_present(struct checking *checking, const struct smap *map)
{
	char path[64];
	cleanup_close int pagemap = -1;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", checking->process->pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	return pagemap < 0 || is_there(pagemap, map->start, map->end, checking->process) ? -EEXIST : 0;
}

static uint32_t missing_in(const struct lazy_process *process, const struct smap *map)
{
	const struct lazy_memory *memory = &process->memory;
	uint32_t low = memory->space->first, high = low + memory->space->count, first;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (memory->table->pages[middle].address < map->start)
			low = middle + 1;
		else
			high = middle;
	}
	for (first = low, high = memory->space->first + memory->space->count; low < high; ) {
		uint32_t middle = low + (high - low) / 2;

		if (memory->table->pages[middle].address < map->end)
			low = middle + 1;
		else
			high = middle;
	}
	return low - first;
}

static int check_map(void *arg, const struct smap *map)
{
	struct checking *checking = arg;
	uint32_t missing = missing_in(checking->process, map);

	if (!missing || !map->watched)
		return 0;
	checking->seen += missing;
	return map->present_kib ? check_present(checking, map) : 0;
}

static int check_process(struct lazy_server *server, struct lazy_process *process)
{
	struct checking checking = { .server = server, .process = process };
	int ret;

	if (process->done || !process->memory.space)
		return 0;
	ret = process->pid ? smaps_each(process->pid, check_map, &checking) : -ESRCH;
	if (ret == 0 && (checking.seen != process->memory.space->count || fault("lazy.check")))
		ret = -ENODATA;
	if (ret)
		lazy_fail_locked(server, "criu has made process %d of the job so that its memory cannot come later "
				 "(%s); its next restore reads all memory first", process->inner_pid,
				 ret == -EEXIST ? "pages are there that should be missing" :
				 ret == -ENODATA ? "not all that is missing is watched" :
				 ret == -ESRCH ? "it is gone" : strerror(-ret));
	return ret;
}

int lazy_check_restored(struct lazy_server *server)
{
	int ret = find_pids(server);

	for (struct lazy_process *process = server->processes; process && ret == 0; process = process->next)
		ret = check_process(server, process);
	return ret;
}

/* ---- threads ---- */

static bool has_one_thread(pid_t pid)
{
	uint64_t threads;

	return proc_threads(pid, &threads) == 0 && threads == 1;
}

bool lazy_check_alone(struct lazy_server *server, struct lazy_process *process)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;

	if (process->pid)
		return has_one_thread(process->pid);
	if (!server->restored || cgroup_pids(server->spec->cgroup, &pids, &count, NULL))
		return false;
	/* It is one of those that nobody knows. */
	for (size_t i = 0; i < count; i++)
		if (!is_known(server, pids[i]) && !has_one_thread(pids[i]))
			return false;
	return true;
}

/* ---- forks ---- */

static int find_wiped(void *arg, const struct smap *map)
{
	const struct lazy_process *process = arg;

	return map->wiped && lazy_memory_misses_any(&process->memory, map->start, map->end);
}

/* Also if that cannot be told. */
static bool may_be_wiped(struct lazy_process *process, pid_t pid)
{
	int ret = smaps_each(pid, find_wiped, process);

	return ret && ret != -ESRCH;
}

bool lazy_check_wiped(struct lazy_server *server, struct lazy_process *process)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;

	if (process->pid)
		return may_be_wiped(process, process->pid);
	if (cgroup_pids(server->spec->cgroup, &pids, &count, NULL))
		return true;
	for (size_t i = 0; i < count; i++)
		if (!is_known(server, pids[i]) && may_be_wiped(process, pids[i]))
			return true;
	return false;
}
