// SPDX-License-Identifier: GPL-2.0
#include "overview.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "store_private.h"

const char *overview_state_name(enum overview_state state)
{
	static const char *const names[] = {
		[OVERVIEW_RUNNING] = "running", [OVERVIEW_SAVED] = "saved", [OVERVIEW_LOST] = "lost",
		[OVERVIEW_ENDED] = "ended", [OVERVIEW_EMPTY] = "empty",
	};

	return names[state];
}

static void count_object(struct store *store, const struct object_id *id, struct overview *overview)
{
	struct backend_stat stat;

	if (id->kind == OBJECT_UNFINISHED || store_stat(store, id, &stat, NULL))
		return;
	overview->objects++;
	overview->bytes += stat.length;
}

static int read_objects(struct store *store, struct overview *overview, struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	struct object_list list = { 0 };
	int err = store_enter(store, &caller, problem);

	if (!err)
		err = store_list(store, &list, problem);
	for (size_t i = 0; i < list.count && !err; i++)
		count_object(store, &list.ids[i], overview);
	free(list.ids);
	return err;
}

static int64_t written_s(struct store *store, const char *name)
{
	identity_scope struct identity caller = { 0 };
	struct backend_stat stat;
	struct object_id id;

	if (store_enter(store, &caller, NULL) || !object_parse(name, &id) || store_stat(store, &id, &stat, NULL))
		return 0;
	return stat.modified_ns / 1000000000;
}

static int read_checkpoints(struct store *store, struct overview *overview, struct problem *problem)
{
	char **names = NULL;
	size_t count = 0;
	int err = store_list_checkpoints(store, &names, &count, problem);

	if (err)
		return err;
	overview->checkpoints = calloc(count + 1, sizeof(*overview->checkpoints));
	for (size_t i = 0; i < count; i++) {
		struct overview_checkpoint *checkpoint;

		if (overview->checkpoints) {
			checkpoint = &overview->checkpoints[overview->checkpoint_count++];
			snprintf(checkpoint->name, sizeof(checkpoint->name), "%s", names[i]);
			checkpoint->written_s = written_s(store, names[i]);
		}
		free(names[i]);
	}
	free(names);
	return overview->checkpoints ? 0 : problem_set(problem, ENOMEM, "out of memory");
}

static void judge(struct overview *overview, const struct term *term)
{
	uint64_t keep_s;

	if (term_ended(term, &keep_s)) {
		overview->state = OVERVIEW_ENDED;
		overview->kept_s = (int64_t)keep_s;
		return;
	}
	snprintf(overview->node, sizeof(overview->node), "%s", term->node);
	overview->state = term->released ? OVERVIEW_SAVED : term->number && term->age_ms < TERM_LEASE_MS ?
			  OVERVIEW_RUNNING : overview->checkpoint_count ? OVERVIEW_LOST : OVERVIEW_EMPTY;
}

int overview_read(struct store *store, struct overview *overview, struct problem *problem)
{
	struct term term;
	int64_t idle_ms = 0;
	int err;

	*overview = (struct overview){ 0 };
	err = read_objects(store, overview, problem);
	if (!err)
		err = store_idle_ms(store, &idle_ms, problem);
	if (!err)
		err = read_checkpoints(store, overview, problem);
	if (!err)
		err = store_read_term(store, &term, problem);
	if (err)
		return err;
	overview->idle_s = idle_ms / 1000;
	judge(overview, &term);
	return 0;
}

void overview_free(struct overview *overview)
{
	free(overview->checkpoints);
	overview->checkpoints = NULL;
	overview->checkpoint_count = 0;
}
