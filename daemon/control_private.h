/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the event loop share.  All of it runs in that one thread.
 *
 *   control.c          beginning and end, the configuration, the metrics file
 *   control_client.c   connections: how many there may be, what comes in, what goes out
 *   control_request.c  what a client asks for, and whether it may
 *   control_slot.c     jobs: who is told what they say, and how long an end is kept for whom
 *   control_notice.c   notices, and what follows from them
 *
 * The control owns clients and slots, a slot its job.  A client and a slot come and go by themselves: each that is
 * freed takes what refers to it out of the others.
 */
#ifndef CKPT_CONTROL_PRIVATE_H
#define CKPT_CONTROL_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <jansson.h>
#include <systemd/sd-event.h>

#include "config.h"
#include "control.h"
#include "job.h"
#include "problem.h"
#include "wire.h"

struct client {
	struct control *control;
	struct client *next;
	sd_event_source *source;
	int fd;
	struct ucred who;
	int pidfd;              /* of the process that connected */
	enum { NOT_ASKED, NO_ADMIN, ADMIN } admin; /* is it in ADMIN_GROUP? */
	struct wire_input input;
	struct slot *slot;      /* the job that it runs */
	struct slot *asked;     /* the job whose checkpoint it waits for */
};

/* A job and who is to be told about it. */
struct slot {
	struct control *control;
	struct slot *next;
	struct job *job;
	struct client *client;
	json_t *backlog;        /* events while no client is there */
	size_t bytes;           /* what its request takes; 0: an earlier ckptd got it */
	sd_event_source *timer; /* ends the wait for a client */
	bool told;              /* a client has heard how it ended */
	bool gone;
};

struct control {
	sd_event *event;
	struct job_setup *setup;
	struct job_shared shared;
	struct config *config;
	char *config_problem;   /* why the last reload was refused; NULL: it was not */
	char config_kept[200];  /* keys whose new values wait for the next start */
	struct client *clients;
	unsigned int client_count;
	struct slot *slots;
	struct notice_source *notices;
	sd_event_source *notice_event;
	struct retain *retain;
	int listen_fd;
	int64_t deadline_ms;    /* of the interruption; 0: none is known */
	sd_event_source *deadline_timer;
	bool warned;            /* a rebalance recommendation was seen */
	json_t *notice;         /* for status */
	bool metrics_failed;    /* the last time they were written */
	json_t *notices_problem; /* why notices cannot be seen; NULL or null: they can */
};

/* control.c */
/* Reads it again. After an error the one before stays, and status says why. */
int control_reload(struct control *control, struct problem *problem);

/* control_client.c */
int control_listen(struct control *control, struct problem *problem);
void control_unlisten(struct control *control);
/* Without waiting. One that does not read is hung up on, and freed by the loop later. */
void client_send(struct client *client, const json_t *message, const int *fds, size_t count);
void client_error(struct client *client, int status, const char *text);
/* It is to ask again, in a moment. */
void client_wait(struct client *client, const char *text);
/* Whether its user may have one more job, that the request which it has sent is for. */
int client_check_run(const struct client *client, struct problem *problem);
/* It has not read what it was told before: it may have been stopped. */
bool client_is_behind(const struct client *client);
void client_free(struct client *client);

/* control_request.c */
void client_serve(struct client *client, const json_t *request);
/* For whom: NULL for nobody in particular, who sees all. */
json_t *control_status(const struct control *control, struct client *client);

/* control_slot.c */
/* Without a job, that is then put into it, or the slot is discarded at once. NULL: no memory. */
struct slot *slot_new(struct control *control);
void slot_discard(struct slot *slot);
/* NULL: there is none. */
struct slot *slot_find(struct control *control, const char *id);
/* The client runs the job from now on, and is told what it has missed. May free the slot: the job has ended. */
void slot_attach(struct slot *slot, struct client *client);
/* Its client is gone. */
void slot_detach(struct slot *slot);
void slot_free(struct slot *slot);
void control_watch_jobs(struct control *control);
/* Those that an earlier ckptd left running. */
void control_adopt_jobs(struct control *control);

/* control_notice.c */
/* The node goes at deadline_ms (CLOCK_BOOTTIME); of several the earliest counts. */
void control_drain(struct control *control, int64_t deadline_ms, const char *why);
int control_watch_notices(struct control *control, struct problem *problem);
/* The source starts anew: a notice that it then reports again changes nothing. */
void control_rewatch_notices(struct control *control, const struct config *old);
void control_forget_notices(struct control *control);

#endif
