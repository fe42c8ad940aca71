/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of a job's thread share. The thread's way: job.c, then job_begin.c, job_serve.c. */
#ifndef CKPT_JOB_PRIVATE_H
#define CKPT_JOB_PRIVATE_H

#include <limits.h>
#include <pthread.h>

#include "checkpoint.h"
#include "criu.h"
#include "hook.h"
#include "job.h"
#include "launch.h"
#include "lazy.h"
#include "manifest.h"
#include "pace.h"
#include "reader.h"
#include "restore.h"

enum job_state {
	JOB_STARTING,
	JOB_RESTORING,
	JOB_ADOPTING,
	JOB_RUNNING,
	JOB_CHECKPOINTING,
	JOB_ENDED,
};

/* A hook that runs beside the job. */
struct job_hook {
	pthread_t thread;
	bool started;
	bool done;                      /* atomic */
	struct hook_call *call;
};

struct job {
	const struct job_setup *setup;
	struct class *class;            /* ours; the thread replaces it, under lock */
	char class_name[40];
	char id[160];
	struct caller caller;
	bool merged;
	bool adopted;
	char *private;                  /* the class's, or what the checkpoint had */

	char directory[PATH_MAX / 2];
	char images[PATH_MAX / 2 + 16];
	char private_directory[PATH_MAX / 2 + 16];
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
	int64_t restore_begun_ms;
	int64_t progress_ms;            /* when it was last told how far that is */
	struct lazy *lazy;              /* memory is still missing; NULL: all is there */
	bool told_waiting;
	json_t *facts;
	json_t *bases;                  /* see job_set_output_bases(); under the lock */
	uint64_t sequence;              /* of the last checkpoint in this term */
	uint64_t epoch;                 /* number of the last one, since this ckptd has the job */
	int64_t next_look_ms;           /* at what is outstanding; an epoch may follow */
	int64_t next_final_ms;          /* when a final checkpoint that failed is tried again */
	int64_t last_epoch_ms;          /* when it began */
	int64_t exec_epoch_ms;          /* an epoch that an exec asks for; INT64_MAX: none does */
	int64_t next_checkpoint_ms;
	struct pace pace;
	uint64_t look_ms;               /* the shortest time between looks */
	uint64_t shared_pages;          /* of this job in what all jobs share */
	uint64_t frozen_ms;             /* the last checkpoint's */
	uint64_t rounds_ms;             /* what it streamed before the freeze */
	int64_t unsafe_since_ms;        /* 0: it is safe, or nothing is known */
	bool alerted;
	bool signalled;                 /* notice_signal was sent */
	int64_t frozen_at_ms;           /* frozen by a pass after a notice; 0: it is not */
	int64_t next_tick_ms;           /* when such a pass asks again */
	int64_t noticed_at_ms;          /* when it first asked */
	uint64_t noticed_done_pages;    /* what it had streamed then */
	json_t *last_event;             /* posted when the job has been tidied away */
	char mechanism_reason[sizeof(((struct problem *)0)->text)]; /* why no better one; "": it is the first */
	unsigned int epochs_failing;    /* one after the other */
	bool told_unprotected;
	bool cleaned;                   /* its store, since it was begun, restored or taken up here */
	char last_failure[sizeof(((struct problem *)0)->text)]; /* of a checkpoint */
	bool left;
	bool leased;                    /* lease_thread is there */
	pthread_t lease_thread;
	pthread_cond_t lease_wake;

	/* Shared, under lock. */
	pthread_mutex_t lock;
	enum job_state state;
	pid_t root_pid;                 /* here; 0: not yet */
	int root_pidfd;
	json_t *events;
	json_t *running;                /* the running event, for clients that connect later */
	json_t *status;                 /* figures for status */
	struct class *next_class;
	struct job_hook hooks[HOOK_COUNT];
	bool hooks_closed;
	char checkpoint[64];            /* the last one that was committed, or restored */
	int64_t checkpoint_time;        /* CLOCK_REALTIME seconds */
	bool final_done;                /* a final one is durable */
	bool missed;                    /* it was not in time, and that was said */
	bool want_checkpoint;
	bool warned;
	bool want_final;
	const char *final_cause;        /* that is why; NULL: a notice */
	bool told_to_end;               /* from outside, see job_ends_from_outside() */
	bool want_end;
	bool want_leave;
	bool lease_ends;
	bool lost;                      /* another node has it */
	int64_t lease_until_ms;         /* nobody else has the job until then */
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
/* Takes up what a reload has brought; says whether it did. */
bool job_take_class(struct job *job);

/* job_record.c: local state, for a ckptd that comes after this one */
json_t *job_make_facts(const struct job *job, json_t *outputs);
int job_write_record(struct job *job, struct problem *problem);
/*
 * The record of a job that ran in this boot; init_pidfd is -1 if it has ended. -ENOENT: what the
 * directory holds is left over from a job that never ran, or ran in another boot.
 */
int job_read_record(const char *directory, json_t **record, struct launch *launch,
		    struct problem *problem);
/* Its class may have gone from the configuration: then it has the values that it had. */
int job_take_record(struct job *job, const struct config *config, json_t *record,
		    struct problem *problem);

/* job_begin.c: how a job comes to run here */
int job_begin(struct job *job, int *status, struct problem *problem);
enum outcome job_adopt_until(struct job *job);
/* known: it has been there before; then a store that is not mounted is not taken for an empty one. */
int job_open_store(struct job *job, enum store_use use, struct problem *problem);
void job_free_names(char **names, size_t count);

/* job_pace.c: when it does what */
uint64_t job_memory_kib(const struct job *job);
void job_measure_memory(struct job *job);
/* Looks at what is outstanding. */
void job_look(struct job *job);
/* Until the next look; 0: an epoch is due. */
uint64_t job_wait_ms(const struct job *job);
/* Of the window, less the margin; INT64_MAX: there is no notice. */
int64_t job_left_ms(struct job *job);
/* Whether a notice is here, and the end of the node then. */
bool job_noticed(struct job *job, int64_t *deadline_ms);
bool job_round_helps(struct job *job);
void job_publish_forecast(struct job *job);
void job_plan_checkpoint(struct job *job);
/* After a notice: whether waiting any longer could miss the window. */
bool job_must_save(struct job *job);
/* For a pass at work: freezes the job if a notice is here and the time has come. */
void job_consider_freeze(struct job *job);
void job_unshare(struct job *job);

/* job_lease.c: what says in the store that the job runs here */
/* From the moment that the term is ours until the job has ended, or what it was in the store is about to change. */
int job_lease_begin(struct job *job, struct problem *problem);
void job_lease_end(struct job *job);

/* job_hook.c */
/* NULL: the class has none. */
struct hook_call *job_hook_call(struct job *job, enum hook hook);
/* Frees the call. */
int job_hook_wait(struct hook_call *call, struct problem *problem);
void job_hook_start(struct job *job, struct hook_call *call);
void job_hook_forecast(struct job *job, enum policy_safety safety, int64_t forecast_ms);
void job_hook_committed(struct job *job, bool final);
/* Waits for those at work; none is started after it. */
void job_hooks_end(struct job *job);

/*
 * What schedulers and the kernel send, not who wants the program's end for good: if such a signal has ended it, its
 * checkpoints are still wanted.
 */
bool job_ends_from_outside(int number);
/* Whose doing the final checkpoint is: "notice", "signal" (save_signal) or "request". */
const char *job_final_cause(struct job *job);
/* To all of the job's process group; 0: to nobody. */
void job_signal_group(struct job *job, int number);

/* job_capture.c: files that are part of checkpoints */
/* The roots that the class names; restored: what putback has put back, or NULL. */
int job_start_capture(struct job *job, struct catalog *restored, struct problem *problem);
/* Fills the catalog, which is empty when the checkpoint has none. -EBADMSG: damaged. */
int job_put_files_back(struct job *job, struct manifest *manifest, struct catalog *catalog,
		       struct problem *problem);
int job_make_private(const struct job *job, struct problem *problem);

/* job_lazy.c: a restore whose pages come while the job runs */
/* Whether this restore is to be lazy; previous: the term before, name: the checkpoint. */
bool job_restores_lazily(struct job *job, const struct term *previous, const char *name);
/* In place of restore_run(). watch_fd is closed. */
int job_restore_lazily(struct job *job, const struct lazy_plan *plan, struct pagemap *map, int watch_fd,
		       const struct restore_facts *restored, struct problem *problem);
/* Takes up what an earlier ckptd began. */
int job_adopt_lazy(struct job *job, struct problem *problem);
/* Whether all memory is there. It is not a time for epochs and checkpoints before. */
bool job_lazy_done(struct job *job);
/* The job had to be killed because memory could not come: last_failure says why. */
bool job_lazy_failed(struct job *job);

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
