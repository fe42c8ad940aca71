// SPDX-License-Identifier: GPL-2.0
#include "config_private.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "ownership.h"

/* ---- classes ---- */

static struct class *class_new(const char *name)
{
	struct class *class = calloc(1, sizeof(*class));

	if (!class)
		return NULL;
	class->references = 1;
	class->name = strdup(name);
	if (!class->name || section_set_defaults(&class_section, class)) {
		class_put(class);
		return NULL;
	}
	return class;
}

struct class *class_get(struct class *class)
{
	__atomic_add_fetch(&class->references, 1, __ATOMIC_RELAXED);
	return class;
}

void class_put(struct class *class)
{
	if (!class || __atomic_sub_fetch(&class->references, 1, __ATOMIC_ACQ_REL))
		return;
	section_free(&class_section, class);
	free(class->name);
	free(class->place);
	free(class);
}

int config_add_class(struct config *config, const char *name, const char *place)
{
	struct class **classes = reallocarray(config->classes, config->class_count + 1,
					      sizeof(*classes));
	struct class *class;

	if (!classes)
		return -ENOMEM;
	config->classes = classes;
	class = class_new(name);
	if (!class)
		return -ENOMEM;
	classes[config->class_count++] = class;
	class->place = strdup(place);
	return class->place ? 0 : -ENOMEM;
}

struct class *config_class(const struct config *config, const char *name)
{
	size_t i;

	for (i = 0; i < config->class_count; i++)
		if (!strcmp(config->classes[i]->name, name))
			return config->classes[i];
	return NULL;
}

int class_store_identity(const struct class *class, uid_t *uid, gid_t *gid, struct problem *problem)
{
	const char *user = class->store_user;
	struct passwd entry, *found = NULL;
	char buffer[4096], *end;

	if (!user || !*user)
		return 0;
	*uid = (uid_t)strtoul(user, &end, 10);
	if (getpwnam_r(user, &entry, buffer, sizeof(buffer), &found) == 0 && found)
		*uid = found->pw_uid;
	else if (*end)
		return problem_set(problem, ENOENT, "store_user = %s of class %s: there is no such user on "
				   "this node", user, class->name);
	else if (getpwuid_r(*uid, &entry, buffer, sizeof(buffer), &found))
		found = NULL;
	*gid = found ? found->pw_gid : *uid;
	return 0;
}

/* ---- what only the whole configuration shows ---- */

/* Where the value of a key that is not right was given; else where the class begins. */
static const char *class_place(const struct class *class, const char *name)
{
	const struct key *key = section_find_key(&class_section, name);

	return class->origins.list[key - class_section.keys] ?: class->place;
}

const char *class_hook(const struct class *class, enum hook hook, const char **place)
{
	const struct key *key = section_find_key(&class_section, hook_name(hook));
	const char *command = *(char *const *)((const char *)class + key->offset);

	if (place)
		*place = class->origins.list[key - class_section.keys] ?: class->place ?: "default";
	return command && *command ? command : NULL;
}

static int class_check(const struct class *class, struct problem *problem)
{
	const char *place;
	size_t i;

	for (i = 0; i < class_section.key_count; i++)
		if (class_section.keys[i].required && !class->origins.list[i])
			return problem_set(problem, EINVAL, "%s: [class %s] lacks '%s = VALUE', %s",
					   class->place, class->name, class_section.keys[i].name,
					   class_section.keys[i].allowed);
	if (class->margin_ms < class->window_ms)
		return 0;
	place = class_place(class, "margin");
	if (place == class->place)
		place = class_place(class, "window");
	return problem_set(problem, EINVAL, "%s: [class %s]: margin (%u ms) must be shorter than window "
			   "(%u ms)", place, class->name, class->margin_ms, class->window_ms);
}

static int config_check(const struct config *config, struct problem *problem)
{
	int result = 0;
	size_t i;

	if (!config->class_count)
		return problem_set(problem, EINVAL, "%s: no job class; at least one [class NAME] with "
				   "'store = DIRECTORY' is needed", config->path);
	for (i = 0; i < config->class_count && !result; i++)
		result = class_check(config->classes[i], problem);
	return result;
}

/* The files win, then the variable that AWS's own tools know; a slash at the end goes. */
static int config_settle_endpoint(struct config *config, struct problem *problem)
{
	const char *variable = getenv(IMDS_VARIABLE);
	const struct key *key = section_find_key(&daemon_section, "imds_endpoint");
	char **origin = &config->origins.list[key - daemon_section.keys];
	size_t length;
	int result;

	if (!config->imds_endpoint) {
		bool given = variable && *variable;

		result = key_set(key, config, given ? variable : IMDS_ENDPOINT);
		if (result)
			return problem_set(problem, -result,
					   "environment variable " IMDS_VARIABLE
					   " = '%.128s' is not valid; %s is allowed",
					   variable ?: "", key->allowed);
		*origin = given ? strdup("environment variable " IMDS_VARIABLE) : NULL;
	}
	if (!strcmp(config->imds_endpoint, "off"))
		config->imds_endpoint[0] = '\0';
	length = strlen(config->imds_endpoint);
	if (length && config->imds_endpoint[length - 1] == '/')
		config->imds_endpoint[length - 1] = '\0';
	return 0;
}

/* ---- files ---- */

static int is_part(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return entry->d_name[0] != '.' && length > 5 && !strcmp(entry->d_name + length - 5, ".conf");
}

/* By bytes, whatever the locale: each node must come to the same order. */
static int compare_parts(const struct dirent **one, const struct dirent **other)
{
	return strcmp((*one)->d_name, (*other)->d_name);
}

static int list_parts(const char *directory, struct dirent ***parts, struct problem *problem)
{
	struct stat status;
	int count;

	*parts = NULL;
	if (stat(directory, &status))
		return errno == ENOENT ? 0 : problem_set(problem, errno, "%s: %s", directory,
							 strerror(errno));
	if (!ownership_trusted(&status))
		return problem_set(problem, EPERM, "%s: others may write it, and the daemon runs as root; "
				   "only root may: chown root %s; chmod go-w %s", directory, directory,
				   directory);
	count = scandir(directory, parts, is_part, compare_parts);
	return count < 0 ? problem_set(problem, errno, "%s: cannot read: %s", directory, strerror(errno))
			 : count;
}

static int parse_parts(struct config *config, struct problem *problem)
{
	const char *slash = strrchr(config->path, '/');
	char directory[PATH_MAX], path[PATH_MAX + 256];
	struct dirent **parts;
	int count, result = 0;

	snprintf(directory, sizeof(directory), "%.*sconf.d", slash ? (int)(slash - config->path + 1) : 0,
		 config->path);
	count = list_parts(directory, &parts, problem);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, parts[i]->d_name);
		if (!result)
			result = config_parse(config, path, problem);
		free(parts[i]);
	}
	free(parts);
	return count < 0 ? count : result;
}

static struct config *config_new(const char *path)
{
	struct config *config = calloc(1, sizeof(*config));

	if (!config)
		return NULL;
	config->path = strdup(path);
	if (config->path && !section_set_defaults(&daemon_section, config))
		return config;
	config_free(config);
	return NULL;
}

int config_load(struct config **config, const char *path, struct problem *problem)
{
	struct config *made = config_new(path);
	int result;

	if (!made)
		return problem_set(problem, ENOMEM, "%s: out of memory", path);
	result = config_parse(made, path, problem);
	if (!result)
		result = parse_parts(made, problem);
	if (!result)
		result = config_check(made, problem);
	if (!result)
		result = config_settle_endpoint(made, problem);
	if (result)
		config_free(made);
	else
		*config = made;
	return result;
}

void config_free(struct config *config)
{
	size_t i;

	if (!config)
		return;
	for (i = 0; i < config->class_count; i++)
		class_put(config->classes[i]);
	section_free(&daemon_section, config);
	free(config->path);
	free(config->classes);
	free(config);
}

/* ---- from one configuration to the next ---- */

/* to gets from's value and origin. */
static int value_take(const struct section *section, size_t index, void *to, const void *from)
{
	struct origins *origins = section_origins(section, to);
	const char *origin = section_origins(section, from)->list[index];
	const struct key *key = &section->keys[index];
	char **text = (char **)((char *)to + key->offset);
	cleanup_free char *value = key_value(key, from);
	int result = 0;

	if (key->type == VALUE_TEXT) {
		free(*text);
		*text = take_ptr(value);
	} else {
		result = value ? key_set(key, to, value) : -ENOMEM;
	}
	free(origins->list[index]);
	origins->list[index] = origin ? strdup(origin) : NULL;
	return result;
}

static bool value_same(const struct key *key, const void *one, const void *other)
{
	cleanup_free char *a = key_value(key, one), *b = key_value(key, other);

	return a && b ? !strcmp(a, b) : a == b;
}

/* to gets old's values of the keys of that kind. */
static int section_keep(const struct section *section, enum reload kind, void *to, const void *old,
			char *kept, size_t bytes)
{
	size_t i, length = 0;
	int result = 0;

	*kept = '\0';
	for (i = 0; i < section->key_count && !result; i++) {
		const struct key *key = &section->keys[i];

		if (key->reload != kind || value_same(key, to, old))
			continue;
		if (length < bytes)
			length += snprintf(kept + length, bytes - length, "%s%s", length ? " " : "",
					   key->name);
		result = value_take(section, i, to, old);
	}
	return result;
}

int config_keep(struct config *config, const struct config *old, char *kept, size_t bytes)
{
	return section_keep(&daemon_section, RELOAD_NEVER, config, old, kept, bytes);
}

static struct class *class_copy(const struct class *class)
{
	struct class *copy = class_new(class->name);
	int result = copy ? 0 : -ENOMEM;
	size_t i;

	for (i = 0; i < class_section.key_count && !result; i++)
		result = value_take(&class_section, i, copy, class);
	if (!result)
		return copy;
	class_put(copy);
	return NULL;
}

int class_renew(struct class **renewed, const struct class *old, const struct class *fresh,
		char *kept, size_t bytes)
{
	struct class *copy = class_copy(fresh);
	int result = copy ? section_keep(&class_section, RELOAD_NEW_JOBS, copy, old, kept, bytes)
			  : -ENOMEM;

	if (result)
		class_put(copy);
	else
		*renewed = copy;
	return result;
}

json_t *class_to_json(const struct class *class)
{
	json_t *values = json_object();
	size_t i;

	for (i = 0; i < class_section.key_count; i++) {
		cleanup_free char *value = key_value(&class_section.keys[i], class);

		if (value)
			json_object_set_new(values, class_section.keys[i].name, json_string(value));
	}
	return values;
}

/* A key that another version wrote and this one does not know, or judges otherwise, is left out. */
int class_from_json(struct class **class, const char *name, const json_t *values,
		    struct problem *problem)
{
	struct class *made = class_new(name);
	size_t i;

	if (!made)
		return problem_set(problem, ENOMEM, "out of memory");
	for (i = 0; i < class_section.key_count; i++) {
		const struct key *key = &class_section.keys[i];
		const char *value = json_string_value(json_object_get(values, key->name));

		if (value)
			key_set(key, made, value);
	}
	if (!made->store) {
		class_put(made);
		return problem_set(problem, EINVAL, "the values of class %s that were kept for it name no "
				   "store", name);
	}
	*class = made;
	return 0;
}

/* ---- for people ---- */

static json_t *section_describe(const struct section *section, const void *target)
{
	static const char *const reloads[] = {
		[RELOAD_AT_ONCE] = "at once", [RELOAD_NEW_JOBS] = "new jobs",
		[RELOAD_NEVER] = "restart of ckptd",
	};
	const struct origins *origins = section_origins(section, target);
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < section->key_count; i++) {
		const struct key *key = &section->keys[i];
		cleanup_free char *value = key_value(key, target);
		const char *shown = !value ? key->fallback_words : *value ? value : "off";

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "key", key->name, "value",
						      shown, "from",
						      origins->list[i] ?: "default", "reload",
						      reloads[key->reload]));
	}
	return list;
}

json_t *config_describe(const struct config *config)
{
	return section_describe(&daemon_section, config);
}

json_t *class_describe(const struct class *class)
{
	return section_describe(&class_section, class);
}
