/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The daemon's event loop: its socket, the jobs, the notices.  Any user may connect; what a user may
 * do follows from the kernel's word on who it is, never from the message.
 */
#ifndef CKPT_CONTROL_H
#define CKPT_CONTROL_H

#include "config.h"
#include "job.h"
#include "problem.h"

struct control;

/* Takes over the configuration, binds the socket, takes up jobs that an earlier ckptd left running, starts watching for notices. */
int control_create(struct control **control, struct job_setup *setup, struct config *config,
		   struct problem *problem);
/* Serves until SIGTERM or SIGINT; jobs are left running for the next ckptd. */
int control_run(struct control *control);
void control_destroy(struct control *control);

#endif
