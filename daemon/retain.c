// SPDX-License-Identifier: GPL-2.0
#include "retain.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cleanup.h"
#include "log.h"
#include "store.h"

struct retain {
	pthread_t thread;
	struct keys keys;
	char node[64];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under lock. */
	struct class **classes;
	size_t class_count;
	unsigned int interval_ms;
	bool stop;
};

/* ---- one job ---- */

/* A job's directory is named UID-NAME. */
static bool job_owner(const char *name, uid_t *uid)
{
	char *end;
	unsigned long long number;

	if (!isdigit((unsigned char)*name))
		return false;
	errno = 0;
	number = strtoull(name, &end, 10);
	*uid = (uid_t)number;
	return !errno && number < UINT32_MAX && *end == '-' && end[1];
}

/* Who owns the directory is one that the classes would have made it for; anything else is not ours. */
static bool owner_expected(const struct retain_pass *pass, const char *directory, const char *name,
			   const struct stat *status)
{
	uid_t job_uid, uid;
	gid_t gid;

	if (!job_owner(name, &job_uid))
		return false;
	for (size_t i = 0; i < pass->class_count; i++) {
		const struct class *class = pass->classes[i];

		uid = job_uid;
		if (!strcmp(class->store, directory) &&
		    class_store_identity(class, &uid, &gid, NULL) == 0 && uid == status->st_uid)
			return true;
	}
	return false;
}

/* 0: never. */
static uint64_t abandoned_after_ms(const struct retain_pass *pass, const char *directory)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < pass->class_count; i++) {
		const struct class *class = pass->classes[i];

		if (strcmp(class->store, directory))
			continue;
		if (!class->keep_abandoned_ms)
			return 0;
		if (class->keep_abandoned_ms > longest)
			longest = class->keep_abandoned_ms;
	}
	return longest;
}

int retain_time_to_keep(const struct retain_pass *pass, const char *directory, struct store *store,
			uint64_t *keep_ms, struct problem *problem)
{
	struct term term;
	uint64_t keep_s;
	int ret = store_read_term(store, &term, problem);

	if (ret)
		return ret;
	*keep_ms = term_ended(&term, &keep_s) ? keep_s * 1000 : abandoned_after_ms(pass, directory);
	return 0;
}

static int look_at(struct retain_pass *pass, const char *directory, const char *name,
		   const struct stat *status, struct problem *problem)
{
	struct store_options options = { .directory = directory, .use = STORE_KNOWN, .uid = status->st_uid,
					 .gid = status->st_gid, .keys = pass->keys,
					 .compress = "none", .seal = "auto", .buffer_bytes = 4 << 20 };
	struct store *store;
	uint64_t keep_ms;
	int ret = store_open(&store, &options, name, problem);

	if (ret)
		return ret;
	ret = retain_time_to_keep(pass, directory, store, &keep_ms, problem);
	if (ret == 0)
		ret = keep_ms ? store_give_up(store, pass->node, (int64_t)keep_ms, problem) : -EBUSY;
	store_close(store);
	return ret;
}

static bool is_stopped(const struct retain_pass *pass)
{
	return pass->stop && __atomic_load_n(pass->stop, __ATOMIC_RELAXED);
}

static void look_through(struct retain_pass *pass, const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	while (dir && !is_stopped(pass) && (entry = readdir(dir))) {
		struct problem problem = { "" };
		struct stat status;
		int ret;

		if (fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISDIR(status.st_mode) || !owner_expected(pass, directory, entry->d_name, &status))
			continue;
		log_set_job(entry->d_name);
		ret = look_at(pass, directory, entry->d_name, &status, &problem);
		pass->removed += ret == 0;
		pass->kept += ret != 0;
		if (ret == 0)
			log_info("%s/%s: nobody needs its checkpoints any more: removed", directory,
				 entry->d_name);
		else if (ret != -EBUSY && ret != -ENOENT && ret != -ENODATA)
			log_warn("cannot tell whether %s/%s is to be kept: %s", directory, entry->d_name,
				 problem.text);
	}
	log_set_job("");
	if (dir)
		closedir(dir);
}

void retain_run(struct retain_pass *pass)
{
	for (size_t i = 0; i < pass->class_count; i++) {
		size_t first = 0;

		while (strcmp(pass->classes[first]->store, pass->classes[i]->store))
			first++;
		if (first == i)
			look_through(pass, pass->classes[i]->store);
	}
}

/* ---- now and then ---- */

static void classes_put(struct class **classes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		class_put(classes[i]);
	free(classes);
}

static struct class **classes_get(struct class *const *classes, size_t count)
{
	struct class **copy = calloc(count + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < count; i++)
		copy[i] = class_get(classes[i]);
	return copy;
}

/* An interval from now, less a random part, so that the nodes of a cluster do not look all at once. */
static struct timespec next_time(const struct retain *retain)
{
	struct timespec next;
	uint64_t ms;

	clock_gettime(CLOCK_MONOTONIC, &next);
	ms = retain->interval_ms - (uint64_t)next.tv_nsec % (retain->interval_ms / 4 + 1);
	next.tv_sec += (time_t)(ms / 1000);
	next.tv_nsec += (long)(ms % 1000) * 1000000;
	if (next.tv_nsec >= 1000000000) {
		next.tv_sec++;
		next.tv_nsec -= 1000000000;
	}
	return next;
}

/* Under lock. An interval that has changed begins anew. false: it is to stop. */
static bool wait_interval(struct retain *retain)
{
	int ret = 0;

	while (!retain->stop && ret == 0) {
		struct timespec next = next_time(retain);
		unsigned int interval_ms = retain->interval_ms;

		while (!retain->stop && ret == 0 && retain->interval_ms == interval_ms)
			ret = pthread_cond_timedwait(&retain->changed, &retain->lock, &next);
	}
	return !retain->stop;
}

static void *retain_main(void *arg)
{
	struct retain *retain = arg;

	pthread_mutex_lock(&retain->lock);
	while (wait_interval(retain)) {
		struct retain_pass pass = {
			.class_count = retain->class_count,
			.keys = &retain->keys,
			.node = retain->node,
			.stop = &retain->stop,
		};
		struct class **classes = classes_get(retain->classes, retain->class_count);

		pass.classes = classes;
		pthread_mutex_unlock(&retain->lock);
		if (classes)
			retain_run(&pass);
		classes_put(classes, classes ? pass.class_count : 0);
		pthread_mutex_lock(&retain->lock);
	}
	pthread_mutex_unlock(&retain->lock);
	return NULL;
}

int retain_renew(struct retain *retain, const struct config *config)
{
	struct class **classes = classes_get(config->classes, config->class_count);

	if (!classes)
		return -ENOMEM;
	pthread_mutex_lock(&retain->lock);
	classes_put(retain->classes, retain->class_count);
	retain->classes = classes;
	retain->class_count = config->class_count;
	retain->interval_ms = config->clean_interval_ms;
	pthread_cond_broadcast(&retain->changed);
	pthread_mutex_unlock(&retain->lock);
	return 0;
}

static void retain_free(struct retain *retain)
{
	classes_put(retain->classes, retain->class_count);
	pthread_mutex_destroy(&retain->lock);
	pthread_cond_destroy(&retain->changed);
	keys_wipe(&retain->keys);
	free(retain);
}

int retain_start(struct retain **started, const struct config *config, const struct keys *keys,
		 const char *node, struct problem *problem)
{
	struct retain *retain = calloc(1, sizeof(*retain));
	pthread_condattr_t monotonic;
	int err = ENOMEM;

	if (!retain)
		return problem_set(problem, ENOMEM, "out of memory");
	pthread_mutex_init(&retain->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&retain->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	retain->keys = *keys;
	snprintf(retain->node, sizeof(retain->node), "%s", node);
	if (retain_renew(retain, config) == 0)
		err = pthread_create(&retain->thread, NULL, retain_main, retain);
	if (err) {
		retain_free(retain);
		return problem_set(problem, err, "cannot look after the stores: %s", strerror(err));
	}
	pthread_setname_np(retain->thread, "retain");
	*started = retain;
	return 0;
}

void retain_stop(struct retain *retain)
{
	if (!retain)
		return;
	pthread_mutex_lock(&retain->lock);
	__atomic_store_n(&retain->stop, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&retain->changed);
	pthread_mutex_unlock(&retain->lock);
	pthread_join(retain->thread, NULL);
	retain_free(retain);
}
