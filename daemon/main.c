// SPDX-License-Identifier: GPL-2.0
/* ckptd: reads its configuration and key, asks CRIU what it can, and serves. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "directory.h"
#include "faults.h"
#include "hook.h"
#include "job.h"
#include "key.h"
#include "log.h"
#include "metrics.h"
#include "problem.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"
#define RUN_DIRECTORY "/run/ckpt"

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "check-config", no_argument, NULL, 'k' },
	{ "help-config", no_argument, NULL, 'K' },
	{ "help-metrics", no_argument, NULL, 'M' },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static void usage(FILE *out)
{
	fprintf(out, "Usage: ckptd [OPTION]...\n"
		     "Keeps checkpoints of the jobs started with 'ckptctl run'.\n\n"
		     "  -c, --config FILE   configuration (" CONFIG_FILE ")\n"
		     "      --check-config [FILE]\n"
		     "                      read the configuration, say what is wrong with it, and exit\n"
		     "      --help-config   print every key of the configuration\n"
		     "      --help-metrics  print every metric of metrics_file\n"
		     "  -V, --version       print the version\n"
		     "  -h, --help          print this\n");
}

/* Two ckptds on a node would fight for its jobs. */
static int take_lock(struct problem *problem)
{
	int fd;

	if (directory_make(RUN_DIRECTORY, problem) || chmod(RUN_DIRECTORY, 0755))
		return problem_set(problem, errno, "cannot make %s: %s", RUN_DIRECTORY, strerror(errno));
	fd = open(RUN_DIRECTORY "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		return problem_set(problem, EBUSY, "another ckptd runs on this node");
	return 0; /* held until the process ends */
}

static void prepare_process(const struct config *config)
{
	struct rlimit files = { 65536, 65536 };

	setrlimit(RLIMIT_NOFILE, &files);
	umask(077);
	log_set_level_name(config->log_level);
}

static int setup_init(struct job_setup *setup, const struct config *config, struct problem *problem)
{
	char base[4096];
	int ret;

	memset(setup, 0, sizeof(*setup));
	snprintf(setup->work_dir, sizeof(setup->work_dir), "%s", config->work_dir);
	snprintf(setup->criu_program, sizeof(setup->criu_program), "%s", config->criu);
	gethostname(setup->node, sizeof(setup->node) - 1);
	if (geteuid() != 0)
		return problem_set(problem, EPERM, "ckptd must be run as root");
	ret = seal_init(problem);
	if (ret == 0)
		ret = take_lock(problem);
	if (ret == 0)
		ret = keys_read(&setup->keys, config->key_file, problem);
	if (ret == 0)
		ret = criu_probe(config->criu, &setup->criu, problem);
	job_base_directory(setup->work_dir, base, sizeof(base));
	if (ret == 0)
		ret = directory_make(base, problem);
	return ret;
}

static int serve(struct config *config)
{
	struct problem problem;
	struct job_setup setup;
	struct control *control;
	int ret = setup_init(&setup, config, &problem);

	if (ret)
		config_free(config);
	else
		ret = control_create(&control, &setup, config, &problem);
	if (ret) {
		log_err("%s", problem.text);
		return EXIT_FAILURE;
	}
	log_info("ckptd %s on %s, CRIU %s", CKPT_VERSION, setup.node, setup.criu.text);
	if (!setup.criu.tracks_memory)
		log_warn("%s", CRIU_SENDS_ALL);
	if (!setup.criu.holds)
		log_warn("%s", CRIU_IS_STATIC);
	ret = control_run(control);
	control_destroy(control);
	keys_wipe(&setup.keys);
	return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What the files themselves cannot show: whether the programs that they name are there. */
static int check_hooks(const struct config *config)
{
	struct problem problem;
	int bad = 0;

	for (size_t i = 0; i < config->class_count; i++) {
		const struct class *class = config->classes[i];
		const char *place;

		for (size_t hook = 0; hook < HOOK_COUNT; hook++) {
			const char *command = class_hook(class, (enum hook)hook, &place);

			if (!command || hook_check(command, &problem) == 0)
				continue;
			fprintf(stderr, "ckptd: %s: %s\n", place, problem.text);
			bad++;
		}
	}
	return bad;
}

int main(int argc, char **argv)
{
	const char *path = CONFIG_FILE;
	struct config *config;
	struct problem problem;
	bool check = false;
	int option;

	while ((option = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
		switch (option) {
		case 'c': path = optarg; break;
		case 'k': check = true; break;
		case 'K': config_print_manual(); return 0;
		case 'M': metrics_print_manual(); return 0;
		case 'V': printf("ckptd %s\n", CKPT_VERSION); return 0;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (check && optind + 1 == argc)
		path = argv[optind++];
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	if (config_load(&config, path, &problem)) {
		fprintf(stderr, "ckptd: %s\n", problem.text);
		return EXIT_FAILURE;
	}
	if (check) {
		int bad = check_hooks(config);

		if (!bad)
			printf("%s: %zu job classes, no errors\n", path, config->class_count);
		config_free(config);
		return bad ? EXIT_FAILURE : EXIT_SUCCESS;
	} else if (fault_arm(getenv("CKPT_FAULT"))) {
		fprintf(stderr, "ckptd: CKPT_FAULT is no fault point\n");
		return 2;
	} else {
		prepare_process(config);
		return serve(config);
	}
	config_free(config);
	return 0;
}
