/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /etc/ckpt/ckptd.conf: a [daemon] section and one [class NAME] section per job class.  Unknown keys
 * and bad values are errors with file and line.  Every key's meaning, unit, range and default stands
 * in one table in config.c, from which `ckptd --help-config` prints the manual.
 */
#ifndef CKPT_CONFIG_H
#define CKPT_CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"

struct class {
	char *name;
	char *store;                 /* directory, absolute */
	char *store_user;            /* user name or number; default: the job's own user */
	char *mechanism;             /* "auto" or a list */
	char *capture;               /* "none" or a list of directories; "cwd": the working directory */
	char *private;               /* "none" or a list of directories */
	char *compress;
	char *seal;
	unsigned int epoch_interval_ms;
	unsigned int checkpoint_interval_ms; /* 0: only on notice */
	unsigned int keep;           /* checkpoints kept */
	uint64_t buffer_memory;      /* bytes */
	uint64_t io_limit;           /* bytes per second, while the job runs; 0: none */
	unsigned int cpu_limit;      /* threads, while the job runs; 0: none */
	uint64_t ghost_limit;        /* bytes; for CRIU's --ghost-limit */
	unsigned int window_ms;      /* from notice to the end of the node */
	unsigned int margin_ms;      /* of the window, kept free */
	unsigned int criu_timeout_ms;
};

struct config {
	char *imds_endpoint;         /* "" = off */
	unsigned int imds_poll_ms;
	unsigned int imds_timeout_ms;
	char *key_file;              /* /etc/ckpt/key */
	char *work_dir;              /* local disk for images at restore: /var/lib/ckpt */
	char *criu;                  /* path or name: criu */
	char *log_level;
	struct class *classes;
	size_t class_count;
};

int config_load(struct config **config, const char *path, struct problem *problem);
void config_free(struct config *config);
const struct class *config_class(const struct config *config, const char *name);
/* The ids of store_user; without one they stay as they are. */
int class_store_identity(const struct class *class, uid_t *uid, gid_t *gid, struct problem *problem);
/* Prints every key with unit, range, default and meaning. */
void config_print_manual(void);

#endif
