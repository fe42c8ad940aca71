// SPDX-License-Identifier: GPL-2.0
#include "places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "identity.h"
#include "job.h"

#define BUFFER_BYTES (64u << 20)

/* "UID-NAME", as ckptd calls the directories that it makes; who writes the store may make others. */
static bool is_job(const char *name)
{
	size_t digits = strspn(name, "0123456789");
	struct problem unheard;

	return digits && name[digits] == '-' && job_check_name(name + digits + 1, &unheard) == 0;
}

static bool wanted(const char *name, const char *job)
{
	return !job || !strcmp(name, job) || !strcmp(strchr(name, '-') + 1, job);
}

static int add(struct places *places, const char *store, const char *job, const struct stat *st)
{
	struct place *list = reallocarray(places->list, places->count + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	places->list = list;
	list[places->count] = (struct place){ .store = strdup(store), .job = strdup(job),
					      .uid = st->st_uid, .gid = st->st_gid };
	places->count++;
	return list[places->count - 1].store && list[places->count - 1].job ? 0 : -ENOMEM;
}

static int read_store(struct places *places, const char *store, const char *job)
{
	DIR *dir = opendir(store);
	struct dirent *entry;
	struct stat st;
	int ret = 0;

	if (!dir)
		return -errno;
	while (ret == 0 && (entry = readdir(dir)))
		if (is_job(entry->d_name) && wanted(entry->d_name, job) &&
		    !fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISDIR(st.st_mode))
			ret = add(places, store, entry->d_name, &st);
	closedir(dir);
	return ret;
}

/* A directory of jobs of many users is listed by anybody, one of store_user perhaps only by it. */
static void enter_user(struct identity *caller, const char *user)
{
	const struct passwd *entry = user ? getpwnam(user) : NULL;
	char *end;
	unsigned long uid = user ? strtoul(user, &end, 10) : 0;

	if (entry)
		identity_enter(caller, entry->pw_uid, entry->pw_gid);
	else if (user && *user && !*end)
		identity_enter(caller, (uid_t)uid, (gid_t)uid);
}

static int find_in(struct places *places, const char *store, const char *user, const char *job,
		   struct problem *problem)
{
	identity_scope struct identity caller = { 0 };
	int ret;

	enter_user(&caller, user);
	ret = read_store(places, store, job);
	return ret ? problem_set(problem, -ret, "cannot list the store %s: %s", store, strerror(-ret)) : 0;
}

static bool seen_before(const struct config *config, size_t number)
{
	for (size_t i = 0; i < number; i++)
		if (!strcmp(config->classes[i]->store, config->classes[number]->store))
			return true;
	return false;
}

static int place_order(const void *a, const void *b)
{
	const struct place *one = a, *other = b;
	int order = strcmp(one->store, other->store);

	return order ? order : strcmp(one->job, other->job);
}

int places_find(struct places *places, const struct config *config, const char *store,
		const char *job, struct problem *problem)
{
	bool found = false;
	int ret = 0;

	*places = (struct places){ 0 };
	for (size_t i = 0; i < config->class_count && ret == 0; i++) {
		const struct class *class = config->classes[i];

		if (store ? strcmp(store, class->store) : seen_before(config, i))
			continue;
		found = true;
		ret = find_in(places, class->store, class->store_user, job, problem);
		if (store)
			break;
	}
	if (ret == 0 && !found)
		ret = find_in(places, store, NULL, job, problem);
	if (ret == 0 && job && !places->count)
		ret = problem_set(problem, ENOENT, "there is nothing of a job '%s' in %s", job,
				  store ? store : "the stores of this node's classes");
	if (ret) {
		places_free(places);
		return ret;
	}
	if (places->count)
		qsort(places->list, places->count, sizeof(*places->list), place_order);
	return 0;
}

void places_free(struct places *places)
{
	while (places->count--) {
		free(places->list[places->count].store);
		free(places->list[places->count].job);
	}
	free(places->list);
	*places = (struct places){ 0 };
}

int place_open(const struct place *place, const struct keys *keys, enum store_use use,
	       struct store **store, struct problem *problem)
{
	struct store_options options = {
		.directory = place->store,
		.use = use,
		.uid = place->uid,
		.gid = place->gid,
		.keys = keys,
		.compress = "none",
		.seal = "auto",
		.buffer_bytes = BUFFER_BYTES,
	};

	return store_open(store, &options, place->job, problem);
}

static int visit_all(const struct places_query *query, const struct config *config, const struct keys *keys,
		     place_visit visit, void *arg, struct problem *problem)
{
	struct places places;
	int ret = places_find(&places, config, query->store, query->job, problem);

	for (size_t i = 0; i < places.count && ret == 0; i++) {
		struct store *store = NULL;
		int opened = place_open(&places.list[i], keys, query->use, &store, problem);

		if (opened != -ENOENT)
			ret = visit(arg, &places.list[i], opened ? NULL : store, config, problem);
		if (opened == 0)
			store_close(store);
	}
	places_free(&places);
	return ret;
}

int places_visit(const struct places_query *query, place_visit visit, void *arg,
		 struct problem *problem)
{
	struct config *config;
	struct keys keys;
	int ret = config_load(&config, query->config, problem);

	if (ret)
		return ret;
	ret = keys_read(&keys, config->key_file, problem);
	if (ret == 0) {
		ret = visit_all(query, config, &keys, visit, arg, problem);
		keys_wipe(&keys);
	}
	config_free(config);
	return ret;
}
