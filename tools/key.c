// SPDX-License-Identifier: GPL-2.0
/* ckptctl key: makes the cluster's key file and changes its keys; key.h says how a key is changed. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "key.h"

#define KEY_FILE "/etc/ckpt/key"

static const char usage[] =
	"Usage: ckptctl key [--file FILE] [--json] list|new|use ID|remove ID\n"
	"Shows or changes the cluster's keys in FILE (" KEY_FILE ").\n\n"
	"  list       show the keys: the first seals, all open what they sealed\n"
	"  new        add a key; as the first one it seals, after others it only opens\n"
	"  use ID     let this key seal from now on\n"
	"  remove ID  forget a key; what it sealed can never be opened again\n\n"
	"To change the key, in this order, each step on all nodes before the next one (copy the file, then\n"
	"restart ckptd: jobs run on):\n"
	"  1. ckptctl key new        all nodes can open what the new key will seal\n"
	"  2. ckptctl key use NEW    from now on it seals\n"
	"  3. ckptctl verify         until it finds nothing of the old key any more\n"
	"  4. ckptctl key remove OLD\n"
	"If the old key may be known to others, end with 'ckptctl checkpoint' of each job before step 3.\n";

static int fail(const struct problem *problem)
{
	say("%s", problem->text);
	return 1;
}

static int list(const struct keys *keys, bool json)
{
	json_t *array = json_array();
	char id[KEY_ID_BYTES];

	for (unsigned int i = 0; i < keys->count; i++) {
		key_id(id, keys->list[i]);
		json_array_append_new(array, json_pack("{s:s, s:b}", "id", id, "seals", i == 0));
		if (!json)
			printf("%s  %s\n", id, i ? "opens" : "seals and opens");
	}
	if (json)
		print_json(array);
	json_decref(array);
	return 0;
}

/* Changes what is in memory; the result says how to go on. */
static int change(struct keys *keys, const char *operation, const char *id, const char **next,
		  struct problem *problem)
{
	int index;

	if (!strcmp(operation, "new")) {
		*next = keys->count ? "copy the file to all nodes and restart ckptd there, then 'ckptctl key use'"
				    : "copy the file to all nodes";
		return keys_new(keys, problem);
	}
	index = keys_find(keys, id, problem);
	if (index < 0)
		return index;
	*next = "copy the file to all nodes and restart ckptd there";
	if (!strcmp(operation, "use"))
		keys_use(keys, index);
	else if (!index)
		return problem_set(problem, EBUSY, "the key %s seals: let another one do that first "
				   "('ckptctl key use')", id);
	else
		keys_remove(keys, index);
	return 0;
}

static int serve(const char *path, const char *operation, const char *id, bool json)
{
	struct problem problem;
	struct keys keys = { 0 };
	const char *next;
	int err = seal_init(&problem);

	/* Only a file that is not there is made: another fault must not cost the old keys. */
	if (!err && (strcmp(operation, "new") || access(path, F_OK) == 0 || errno != ENOENT))
		err = keys_read(&keys, path, &problem);
	if (!err && !strcmp(operation, "list")) {
		list(&keys, json);
		keys_wipe(&keys);
		return 0;
	}
	if (!err)
		err = change(&keys, operation, id, &next, &problem);
	if (!err)
		err = keys_write(&keys, path, &problem);
	if (!err) {
		list(&keys, json);
		say("%s", next);
	}
	keys_wipe(&keys);
	return err ? fail(&problem) : 0;
}

/* Whether the words after the options are one of the operations. */
static bool arguments_good(int count, char **words)
{
	if (count == 1)
		return !strcmp(words[0], "list") || !strcmp(words[0], "new");
	return count == 2 && (!strcmp(words[0], "use") || !strcmp(words[0], "remove"));
}

int command_key(int argc, char **argv)
{
	static const struct option options[] = {
		{ "file", required_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *path = KEY_FILE;
	bool json = false;
	int option;

	while ((option = getopt_long(argc, argv, "f:h", options, NULL)) != -1) {
		switch (option) {
		case 'f': path = optarg; break;
		case 'J': json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (!arguments_good(argc - optind, argv + optind)) {
		fputs(usage, stderr);
		return STATUS_USAGE;
	}
	return serve(path, argv[optind], argv[optind + 1], json);
}
