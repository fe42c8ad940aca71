// SPDX-License-Identifier: GPL-2.0
/* ckptctl config, reload: what ckptd goes by, and that it reads its files again. */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const char *string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "-";
}

static void print_keys(const json_t *answer)
{
	const json_t *key;
	size_t i;

	printf("%-20s %-32s %-18s %s\n", "KEY", "VALUE", "RELOAD", "FROM");
	json_array_foreach(json_object_get(answer, "keys"), i, key)
		printf("%-20s %-32s %-18s %s\n", string(key, "key"), string(key, "value"),
		       string(key, "reload"), string(key, "from"));
}

int command_config(int argc, char **argv)
{
	static const char usage[] =
		"Usage: ckptctl config [--json] [CLASS]\n"
		"Shows the values that ckptd goes by, of a job class or, without one, of the daemon itself: where\n"
		"each comes from, and whether a reload changes it at once, for new jobs, or not until ckptd is\n"
		"restarted. 'ckptd --help-config' explains the keys.\n";
	int first;
	bool json = false;

	first = parse_json(argc, argv, &json, usage);
	if (first < 0 || first + 1 < argc) {
		fputs(first < 0 ? "" : usage, stderr);
		return STATUS_USAGE;
	}
	return ask_and_show(json_pack("{s:s, s:s*}", "op", "config", "class", argv[first]), json, print_keys);
}

static void print_reloaded(const json_t *answer)
{
	if (*string(answer, "waits_for_restart"))
		printf("read; these new values wait for a restart of ckptd: %s\n",
		       string(answer, "waits_for_restart"));
}

int command_reload(int argc, char **argv)
{
	static const char usage[] =
		"Usage: ckptctl reload [--json]\n"
		"Lets ckptd read its configuration again. If that has an error, it is said and all stays as it\n"
		"was. Jobs run on; 'ckptd --help-config' says which values they take up.\n";
	bool json = false;
	int first = parse_json(argc, argv, &json, usage);

	if (first != argc) {
		fputs(first < 0 ? "" : usage, stderr);
		return STATUS_USAGE;
	}
	return ask_and_show(json_pack("{s:s}", "op", "reload"), json, print_reloaded);
}
