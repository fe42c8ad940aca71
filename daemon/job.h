/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One job from `run` to its end.  Everything that takes time happens in the job's own thread, one
 * thing after the other; the event loop only asks (job_want) and passes on what the thread says
 * (job_next_event).
 *
 *   STARTING ──────────────┐
 *   RESTORING ─────────────┼─> RUNNING ─> CHECKPOINTING ─> RUNNING … ─> ENDED
 *   ADOPTING (after a      │                     └─ final: the job is ended ─> ENDED
 *     restart of ckptd) ───┘
 */
#ifndef CKPT_JOB_H
#define CKPT_JOB_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "config.h"
#include "criu.h"
#include "key.h"
#include "launch.h"
#include "problem.h"
#include "tracker.h"

struct job;

/* What the jobs and the event loop tell each other; atomic. */
struct job_shared {
	uint64_t outstanding_pages; /* of all jobs: what a notice would find */
	unsigned int poll_ms;       /* a notice may be this old when it is seen; a reload changes it */
};

/* What is the same for all jobs of this ckptd. */
struct job_setup {
	struct job_shared *shared;
	char work_dir[PATH_MAX / 8];
	char criu_program[PATH_MAX / 8];
	struct keys keys;
	struct criu_version criu;
	char node[64];
	int event_fd;           /* eventfd that is written when a job has something to say */
};

/* Exit statuses of `ckptctl run` that are not the program's; in the man page. */
enum job_status {
	JOB_STATUS_INTERRUPTED = 75, /* EX_TEMPFAIL: run the same line again, it goes on */
	JOB_STATUS_FAILED = 125,     /* ckpt could not do it; what is in the store is untouched */
	JOB_STATUS_NOT_EXECUTABLE = 126,
	JOB_STATUS_NOT_FOUND = 127,
};

struct job_request {
	struct class *class;
	const char *id;         /* "UID-NAME" */
	struct caller caller;   /* taken over */
	bool merged;            /* stdout and stderr are one file */
	json_t *outputs;        /* {"stdout": {...}, "stderr": {...}}, kept for the client */
	bool warned;            /* a rebalance recommendation stands */
};

/* Takes over the request's caller and outputs also on error; counts its class for the job. */
int job_create(struct job **job, const struct job_setup *setup, struct job_request *request,
	       struct problem *problem);
/* Takes up what an earlier ckptd left in the directory of this id. -ENOENT: nothing that runs. */
int job_adopt(struct job **job, const struct job_setup *setup, const struct config *config,
	      const char *id, struct problem *problem);
/* Joins the thread. Only after its last event, "gone", or with the job left running for the next ckptd. */
void job_destroy(struct job *job);

/* Checks a name given by a user. */
int job_check_name(const char *name, struct problem *problem);
/* The directory of all jobs' local state. */
void job_base_directory(const char *work_dir, char *path, size_t bytes);

const char *job_id(const struct job *job);
uid_t job_uid(const struct job *job);

/* The class has new values: the job takes them with its next step. */
void job_renew_class(struct job *job, const struct class *fresh);
/* Of the job's class; valid until the job is destroyed. */
const char *job_class_name(const struct job *job);

void job_want_checkpoint(struct job *job);
/* The job is to be saved and ended, as after a notice, within its class's save_window. */
void job_want_saved(struct job *job);
/* A rebalance recommendation: a checkpoint now, and more often from now on. */
void job_warn(struct job *job);
/* deadline_ms: CLOCK_BOOTTIME. */
void job_want_final(struct job *job, int64_t deadline_ms);
/* The job is to be ended; its checkpoints stay. */
void job_want_end(struct job *job, const char *why);
/* ckptd stops: leave the job running. */
void job_want_leave(struct job *job);
/* Says, once, that a final checkpoint will not be durable in time; to be asked after a notice. */
void job_check_deadline(struct job *job);
int job_signal(struct job *job, int number);

/* The next event for the client, or NULL; see wire.h. */
json_t *job_next_event(struct job *job);
/*
 * Where in the caller's files the job's output stands: {"stdout": OFFSET, "stderr": OFFSET}, of byte 0 if what comes
 * next is to stand where it will. `run` tells it, since it also writes notes of its own there. A checkpoint holds what
 * was told last; NULL: not known, then nothing is cut off those files when it is restored. Steals bases.
 */
void job_set_output_bases(struct job *job, json_t *bases);
/* Opens the outputs for the client: fds[0] stdout, fds[1] stderr unless merged; their number. */
size_t job_open_outputs(const struct job *job, int fds[2]);
/* What a client that connects again must be told. */
json_t *job_running_event(struct job *job);
json_t *job_status(struct job *job);

#endif
