// SPDX-License-Identifier: GPL-2.0
#include "wipes.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bytes.h"
#include "cleanup.h"
#include "smaps.h"
#include "vma_image.h"

struct found {
	struct regions wiped;
	struct space *space;
};

static int find(void *arg, const struct smap *map)
{
	struct found *found = arg;

	if (map->droppable && found->space)
		space_forget(found->space, map->start, map->end);
	return map->wiped ? regions_add(&found->wiped, map->start, map->end, 0) : 0;
}

static int mend_task(const char *directory, const struct task *task, struct pagemap *map, struct problem *problem)
{
	struct found found = { .space = pagemap_find(map, SPACE_TASK, (uint64_t)task->inner_pid) };
	int ret = smaps_each(task->pid, find, &found);

	/* One that has ended and is not waited for yet has no memory. */
	if (ret == -ESRCH)
		ret = 0;
	if (ret)
		ret = problem_set(problem, -ret, "cannot look at the mappings of process %d: %s", task->pid,
				  strerror(-ret));
	else if (found.wiped.count)
		ret = vma_image_advise(directory, (uint64_t)task->inner_pid, &found.wiped, MADV_WIPEONFORK, problem);
	regions_free(&found.wiped);
	return ret;
}

int wipes_mend(const char *directory, const struct criu_version *version, const struct tasks *tasks, struct pagemap *map,
	       struct problem *problem)
{
	int ret = 0;

	if (version->major > 4 || (version->major == 4 && version->minor >= 2))
		return 0;
	for (size_t i = 0; i < tasks->count && ret == 0; i++)
		ret = mend_task(directory, &tasks->list[i], map, problem);
	return ret;
}
