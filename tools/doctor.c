// SPDX-License-Identifier: GPL-2.0
/* ckptctl doctor: says in plain words what works on this node, what is missing, and the remedy. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "commands.h"
#include "config.h"
#include "criu.h"
#include "gcm.h"
#include "key.h"
#include "seal.h"
#include "tracker.h"
#include "wire.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"

struct doctor {
	json_t *findings;
	int failures;
};

enum finding {
	FINDING_OK,
	FINDING_NOTE,   /* works, but worth knowing */
	FINDING_FAIL,
};

static void find(struct doctor *doctor, enum finding finding, const char *what, const char *text)
{
	static const char *const names[] = { "ok", "note", "FAIL" };

	doctor->failures += finding == FINDING_FAIL;
	json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:s}", "result", names[finding],
							  "what", what, "text", text));
}

static void check_mechanisms(struct doctor *doctor)
{
	struct problem problem;
	const struct tracker_mechanism *const *mechanism;
	char text[1200];
	bool found = false;

	for (mechanism = tracker_mechanisms; *mechanism; mechanism++) {
		char what[64];
		int ret = (*mechanism)->probe(&problem);

		snprintf(what, sizeof(what), "mechanism %s", (*mechanism)->name);
		snprintf(text, sizeof(text), "%s%s%s", (*mechanism)->describe, ret ? ": " : "",
			 ret ? problem.text : found ? "" : " (used for mechanism = auto)");
		find(doctor, ret ? FINDING_NOTE : FINDING_OK, what, text);
		found |= ret == 0;
	}
	if (!found)
		find(doctor, FINDING_FAIL, "tracking", "no mechanism works on this node");
}

static void check_criu(struct doctor *doctor, const char *program)
{
	struct criu_version version;
	struct problem problem;

	if (criu_probe(program, &version, &problem)) {
		find(doctor, FINDING_FAIL, "CRIU", problem.text);
		return;
	}
	find(doctor, FINDING_OK, "CRIU", version.text);
	if (!version.tracks_memory)
		find(doctor, FINDING_NOTE, "CRIU", CRIU_SENDS_ALL);
	if (!version.holds)
		find(doctor, FINDING_NOTE, "CRIU", CRIU_IS_STATIC);
}

/* What the store's user may do there: 0 or -errno. Each job makes a directory of its own in it. */
static int try_store(const struct class *class, uid_t uid, gid_t gid)
{
	int ret = 0;

	setfsgid(gid);
	setfsuid(uid);
	if (faccessat(AT_FDCWD, class->store, R_OK | W_OK | X_OK, AT_EACCESS))
		ret = -errno;
	setfsuid(0);
	setfsgid(0);
	return ret;
}

static enum finding judge_store(const struct class *class, char *text, size_t bytes)
{
	/* The jobs' users are not known here: nobody in particular stands for them. */
	uid_t uid = 65534;
	gid_t gid = 65534;
	struct problem problem;
	struct statvfs space;
	struct stat st;
	int ret;

	if (class_store_identity(class, &uid, &gid, &problem)) {
		snprintf(text, bytes, "%s", problem.text);
		return FINDING_FAIL;
	}
	if (stat(class->store, &st) || !S_ISDIR(st.st_mode)) {
		snprintf(text, bytes, "%s: %s; mount the shared storage, or set store =", class->store,
			 stat(class->store, &st) ? strerror(errno) : "not a directory");
		return FINDING_FAIL;
	}
	if (statvfs(class->store, &space))
		memset(&space, 0, sizeof(space));
	if (space.f_flag & ST_RDONLY) {
		snprintf(text, bytes, "%s is mounted read-only: mount it read-write", class->store);
		return FINDING_FAIL;
	}
	ret = try_store(class, uid, gid);
	if (ret && class->store_user) {
		snprintf(text, bytes, "user %s (store_user) cannot use %s: %s; chown or chmod it",
			 class->store_user, class->store, strerror(-ret));
		return FINDING_FAIL;
	}
	if (ret) {
		snprintf(text, bytes, "%s: not every user can make directories there: set store_user, or chmod "
			 "1777 it", class->store);
		return FINDING_NOTE;
	}
	snprintf(text, bytes, "%s, %.1f GiB free", class->store,
		 (double)space.f_bavail * (double)space.f_frsize / (1 << 30));
	return FINDING_OK;
}

static void check_store(struct doctor *doctor, const struct class *class)
{
	char what[64], text[1200];

	snprintf(what, sizeof(what), "store of class %s", class->name);
	find(doctor, judge_store(class, text, sizeof(text)), what, text);
}

static void check_hooks(struct doctor *doctor, const struct class *class)
{
	char what[80];
	struct problem problem;

	for (size_t hook = 0; hook < HOOK_COUNT; hook++) {
		const char *command = class_hook(class, (enum hook)hook, NULL);
		int ret = command ? hook_check(command, &problem) : 0;

		snprintf(what, sizeof(what), "%s of class %s", hook_name((enum hook)hook), class->name);
		if (command)
			find(doctor, ret ? FINDING_FAIL : FINDING_OK, what, ret ? problem.text : command);
	}
}

static void check_key(struct doctor *doctor, const char *path)
{
	struct problem problem;
	struct keys keys;
	char text[500], id[KEY_ID_BYTES];

	if (keys_read(&keys, path, &problem)) {
		find(doctor, FINDING_FAIL, "cluster key", problem.text);
		return;
	}
	key_id(id, keys.list[0]);
	snprintf(text, sizeof(text), "%s: %s seals, %u more open; must be so on all nodes", path, id,
		 keys.count - 1);
	find(doctor, FINDING_OK, "cluster key", text);
	keys_wipe(&keys);
}

static void check_sealing(struct doctor *doctor)
{
	struct problem problem;
	const char *gcm;

	/* The libraries look at the CPU here. */
	if (seal_init(&problem)) {
		find(doctor, FINDING_FAIL, "sealing", problem.text);
		return;
	}
	gcm = gcm_describe();
	find(doctor, gcm ? FINDING_OK : FINDING_NOTE, "sealing", gcm ? gcm :
	     seal_preferred() == SEAL_AES_256_GCM ?
	     "AES-256-GCM by libcrypto; libipsec-mb 1.0 or later, at build time, would need a quarter of the "
	     "CPU time" : "ChaCha20-Poly1305 by libcrypto: this CPU has no AES instructions");
}

static void check_config(struct doctor *doctor, const char *path)
{
	struct problem problem;
	struct config *config;

	if (config_load(&config, path, &problem)) {
		find(doctor, FINDING_FAIL, "configuration", problem.text);
		check_criu(doctor, "criu");
		return;
	}
	find(doctor, FINDING_OK, "configuration", path);
	check_key(doctor, config->key_file);
	check_sealing(doctor);
	check_criu(doctor, config->criu);
	for (size_t i = 0; i < config->class_count; i++)
		check_store(doctor, config->classes[i]);
	for (size_t i = 0; i < config->class_count; i++)
		check_hooks(doctor, config->classes[i]);
	config_free(config);
}

/* As ckptd sees it: it asks all the time. */
static void check_notices(struct doctor *doctor)
{
	json_t *request = json_pack("{s:s}", "op", "status");
	json_t *answer = ask(request);
	const char *endpoint = json_string_value(json_object_get(answer, "notices"));
	const char *problem = json_string_value(json_object_get(answer, "notices_problem"));

	if (problem)
		find(doctor, FINDING_NOTE, "interruption notices", problem);
	else if (endpoint && *endpoint)
		find(doctor, FINDING_OK, "interruption notices", endpoint);
	else if (endpoint)
		find(doctor, FINDING_NOTE, "interruption notices", "are not asked for (imds_endpoint = off): "
		     "only 'ckptctl drain' and periodic checkpoints protect the jobs");
	json_decref(request);
	json_decref(answer);
}

static void check_system(struct doctor *doctor)
{
	struct utsname name;
	struct problem problem;
	char path[4096];
	int fd;

	uname(&name);
	find(doctor, FINDING_OK, "kernel", name.release);
	if (cgroup_of(getpid(), path, sizeof(path), &problem))
		find(doctor, FINDING_FAIL, "cgroup v2", problem.text);
	else
		find(doctor, FINDING_OK, "cgroup v2", "mounted");
	fd = wire_connect(WIRE_SOCKET);
	if (fd < 0) {
		find(doctor, FINDING_FAIL, "ckptd", "does not run: systemctl enable --now ckptd");
		return;
	}
	close(fd);
	find(doctor, FINDING_OK, "ckptd", "runs");
	check_notices(doctor);
}

static void print_findings(const struct doctor *doctor)
{
	json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding)
		printf("%-5s %-26s %s\n", json_string_value(json_object_get(finding, "result")),
		       json_string_value(json_object_get(finding, "what")),
		       json_string_value(json_object_get(finding, "text")));
	if (doctor->failures)
		printf("%d of these must be mended before jobs can be protected here\n",
		       doctor->failures);
	else
		printf("this node can protect jobs\n");
}

int command_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] = "Usage: ckptctl doctor [--json] [--config FILE]\n"
				    "Says whether this node can protect jobs, and what is missing. Exit "
				    "status 0: it can.\n";
	struct doctor doctor = { 0 };
	const char *path = CONFIG_FILE;
	bool json = false;
	int option;

	while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (option) {
		case 'c': path = optarg; break;
		case 'J': json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || geteuid() != 0) {
		fputs(optind != argc ? usage : "ckptctl doctor must be run as root\n", stderr);
		return STATUS_USAGE;
	}
	doctor.findings = json_array();
	check_system(&doctor);
	check_mechanisms(&doctor);
	check_config(&doctor, path);
	if (json)
		print_json(doctor.findings);
	else
		print_findings(&doctor);
	json_decref(doctor.findings);
	return doctor.failures ? 1 : 0;
}
