/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of a job's thread share. The thread's way: job.c, then job_begin.c, job_serve.c. */
#ifndef CKPT_JOB_PRIVATE_H
#define CKPT_JOB_PRIVATE_H

#include <limits.h>
#include <pthread.h>

#include "checkpoint.h"
#include "criu.h"
#include "job.h"
#include "launch.h"
#include "manifest.h"
#include "pace.h"
#include "reader.h"

enum job_state {
	JOB_STARTING,
	JOB_RESTORING,
	JOB_ADOPTING,
	JOB_RUNNING,
	JOB_CHECKPOINTING,
	JOB_ENDED,
};

struct job {
	const struct job_setup *setup;
	const struct class *class;
	char id[160];
	struct caller caller;
	bool merged;
	bool adopted;
	char *private;                  /* the class's, or what the checkpoint had */

	char directory[PATH_MAX / 2];
	char images[PATH_MAX / 2 + 16];
	char stdout_path[PATH_MAX / 2 + 16];
	char stderr_path[PATH_MAX / 2 + 16];
	char mark[PATH_MAX / 2 + 16];   /* INIT_MARK */
	char parent_cgroup[PATH_MAX / 2];

	/* The thread's own. */
	pthread_t thread;
	int wake_fd;
	struct launch launch;
	struct reader reader;
	struct limits limits;           /* of epochs; lifted by other threads */
	struct criu_job criu;
	json_t *facts;
	json_t *bases;                  /* see job_set_output_bases(); under the lock */
	uint64_t sequence;              /* of the last checkpoint in this term */
	int64_t last_epoch_ms;          /* when it began */
	int64_t next_epoch_ms;
	int64_t next_checkpoint_ms;
	int64_t next_lease_ms;
	struct pace pace;
	json_t *last_event;             /* posted when the job has been tidied away */
	char mechanism_reason[sizeof(((struct problem *)0)->text)]; /* why no better one; "": it is the first */
	unsigned int epochs_failing;    /* one after the other */
	bool told_unprotected;
	char last_failure[sizeof(((struct problem *)0)->text)]; /* of a checkpoint */
	enum policy_safety safety;      /* as last published */
	bool left;

	/* Shared, under lock. */
	pthread_mutex_t lock;
	enum job_state state;
	pid_t root_pid;                 /* here; 0: not yet */
	int root_pidfd;
	json_t *events;
	json_t *running;                /* the running event, for clients that connect later */
	json_t *status;                 /* figures for status */
	bool want_checkpoint;
	bool want_final;
	bool want_end;
	bool want_leave;
	int64_t deadline_ms;
	char end_reason[200];
};

enum outcome {
	OUTCOME_GOES_ON,
	OUTCOME_EXITED,         /* the program ended by itself */
	OUTCOME_INTERRUPTED,    /* final checkpoint committed, the job is ended */
	OUTCOME_DAMAGED,        /* criu died with the job in its hands: go back to the last checkpoint */
	OUTCOME_LOST,           /* another node has it */
	OUTCOME_CANCELLED,      /* its `run` is gone */
	OUTCOME_LEFT,           /* ckptd stops, the job runs on */
};

/* job.c: what the thread says */
void job_post(struct job *job, json_t *event);
void job_note(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_set_state(struct job *job, enum job_state state);
/* Steals value. */
void job_set_status(struct job *job, const char *key, json_t *value);
void job_set_paths(struct job *job);
/* The mechanism and the reader, before anything is read. May be repeated after an error. */
int job_prepare(struct job *job, struct problem *problem);

/* job_record.c: local state, for a ckptd that comes after this one */
json_t *job_make_facts(const struct job *job, json_t *outputs);
int job_write_record(struct job *job, struct problem *problem);
/*
 * The record of a job that ran in this boot; init_pidfd is -1 if it has ended. -ENOENT: what the
 * directory holds is left over from a job that never ran, or ran in another boot.
 */
int job_read_record(const char *directory, json_t **record, struct launch *launch,
		    struct problem *problem);
/* Its class may have gone from the configuration: then class is NULL. */
int job_take_record(struct job *job, json_t *record, struct problem *problem);

/* job_begin.c: how a job comes to run here */
int job_begin(struct job *job, int *status, struct problem *problem);
enum outcome job_adopt_until(struct job *job);
void job_prepare_criu(struct job *job);
/* known: it has been there before; then a store that is not mounted is not taken for an empty one. */
int job_open_store(struct job *job, enum store_use use, struct problem *problem);
void job_free_names(char **names, size_t count);

/* job_capture.c: files that are part of checkpoints */
/* The roots that the class names; restored: what putback has put back, or NULL. */
int job_start_capture(struct job *job, struct catalog *restored, struct problem *problem);
/* Fills the catalog, which is empty when the checkpoint has none. -EBADMSG: damaged. */
int job_put_files_back(struct job *job, struct manifest *manifest, struct catalog *catalog,
		       struct problem *problem);
int job_make_private(const struct job *job, struct problem *problem);

/* job_serve.c: the running job and its end */
enum outcome job_serve(struct job *job);
void job_end(struct job *job, enum outcome outcome);
void job_tidy(struct job *job, enum outcome outcome);
/* Also true for a job that ended while no ckptd was there to see it. */
bool job_init_gone(struct job *job);
void job_kill_init(struct job *job);
void job_release(struct job *job);
/* For struct reader: a pass over much memory ends early when nobody needs it any more. */
bool job_pass_stopped(void *arg);

#endif
