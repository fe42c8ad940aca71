/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The configuration: /etc/ckpt/ckptd.conf and, after it, the .conf files in conf.d beside it, in the
 * order of their names.  A [daemon] section and one [class NAME] section per job class; what a later file says about
 * a key counts.  Unknown keys and bad values are errors with file and line.
 *
 * Every key's meaning, unit, range, default with its reason, and what a reload does with it stand in
 * one table in config_keys.c, from which `ckptd --help-config` prints the manual.
 */
#ifndef CKPT_CONFIG_H
#define CKPT_CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "hook.h"
#include "problem.h"

/* An interval that the deadline policy chooses. */
#define CONFIG_AUTO UINT32_MAX

/* By key of the section: "FILE:LINE" where its value was given; NULL: the default. */
struct origins {
	char **list;
};

/* Immutable, and counted: running jobs keep theirs over a reload. */
struct class {
	unsigned int references;
	char *name;
	char *store;                 /* directory, absolute */
	char *store_user;            /* user name or number; default: the job's own user */
	char *mechanism;             /* "auto" or a list */
	char *capture;               /* "none" or a list of directories; "cwd": the working directory */
	char *private;               /* "none" or a list of directories */
	char *compress;
	char *seal;
	unsigned int epoch_interval_ms;      /* or CONFIG_AUTO */
	unsigned int checkpoint_interval_ms; /* or CONFIG_AUTO; 0: only on notice */
	unsigned int keep;           /* checkpoints kept */
	uint64_t keep_after_end_ms;
	uint64_t keep_abandoned_ms;  /* 0: for ever */
	uint64_t buffer_memory;      /* bytes */
	uint64_t io_limit;           /* bytes per second, while the job runs; 0: none */
	unsigned int cpu_limit;      /* threads, while the job runs; 0: none */
	uint64_t ghost_limit;        /* bytes; for CRIU's --ghost-limit */
	char *tcp;                   /* see tcp.h */
	unsigned int window_ms;      /* from notice to the end of the node */
	unsigned int margin_ms;      /* of the window, kept free */
	unsigned int reserve;        /* times that the store may be slower after a notice, or CONFIG_AUTO */
	unsigned int mtbf_ms;        /* between losses without a usable notice */
	unsigned int criu_timeout_ms;
	char *restore;               /* "eager" or "lazy" */
	char *pre_restore;           /* hooks: see hook.h */
	char *post_restore;
	char *on_committed;
	char *on_missed;
	char *on_forecast;
	unsigned int hook_timeout_ms;
	char *notice_signal;         /* a name, or "none": class_signal() */
	unsigned int notice_grace_ms;
	char *save_signal;
	unsigned int save_window_ms; /* from save_signal until the job is killed */
	char *end_signal;
	unsigned int end_grace_ms;
	struct origins origins;
	char *place;                 /* FILE:LINE of its first section */
};

struct config {
	char *imds_endpoint;         /* "" = off */
	unsigned int imds_poll_ms;
	unsigned int imds_timeout_ms;
	char *key_file;              /* /etc/ckpt/key */
	char *work_dir;              /* local disk for images at restore: /var/lib/ckpt */
	char *criu;                  /* path or name: criu */
	char *log_level;
	unsigned int clean_interval_ms;
	char *metrics_file;          /* NULL: none */
	struct origins origins;
	char *path;                  /* of the first file */
	struct class **classes;
	size_t class_count;
};

int config_load(struct config **config, const char *path, struct problem *problem);
void config_free(struct config *config);
/*
 * Keeps old's values of the keys that only change when ckptd starts.  The names of those that the new
 * configuration gives otherwise are put into kept, with blanks between them.
 */
int config_keep(struct config *config, const struct config *old, char *kept, size_t bytes);

/* NULL: there is none. Who keeps it longer than the configuration counts it. */
struct class *config_class(const struct config *config, const char *name);
/* The ids of store_user; without one they stay as they are. */
int class_store_identity(const struct class *class, uid_t *uid, gid_t *gid, struct problem *problem);
struct class *class_get(struct class *class);
void class_put(struct class *class);
/*
 * What a job that runs with old has when its class becomes fresh: all of fresh, but old's values of
 * the keys that hold from a job's beginning.  kept as above.
 */
int class_renew(struct class **renewed, const struct class *old, const struct class *fresh,
		char *kept, size_t bytes);
/* The hook's command, or NULL, and FILE:LINE where it was given. */
const char *class_hook(const struct class *class, enum hook hook, const char **place);
/* The number of a signal's name; 0: none. */
int class_signal(const char *name);
/* The values as they would be written, and back: for a ckptd that comes after this one. */
json_t *class_to_json(const struct class *class);
int class_from_json(struct class **class, const char *name, const json_t *values,
		    struct problem *problem);

/* [{"key", "value", "from", "reload"}], in the order of the manual. */
json_t *config_describe(const struct config *config);
json_t *class_describe(const struct class *class);
/* Prints every key with unit, range, default, reason and meaning. */
void config_print_manual(void);

#endif
