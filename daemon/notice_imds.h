/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One client of EC2's instance metadata service (IMDSv2): asks for a path with a session token that
 * it gets and renews by itself.  Used by one thread; only imds_interrupt() may come from another.
 */
#ifndef CKPT_NOTICE_IMDS_H
#define CKPT_NOTICE_IMDS_H

#include <stddef.h>
#include <stdint.h>

#include "problem.h"

/* A notice has 60 bytes, a token 56 to 100; what is longer is not the service. */
#define IMDS_ANSWER_MAX 4096

struct imds;

struct imds_answer {
	char body[IMDS_ANSWER_MAX + 1];
	size_t length;
	int64_t date_s;              /* the answer's Date, seconds since 1970; -1: none */
};

int imds_create(struct imds **imds, const char *endpoint, unsigned int timeout_ms,
		struct problem *problem);
void imds_destroy(struct imds *imds);

/*
 * 0: the answer; -ENOENT: the service says that there is none (404).  Else the service cannot be
 * asked, and the problem says why: -EBUSY it wants fewer requests, -EACCES 401 or 403, -EBADMSG no
 * answer of this service, -EIO no answer.  -ECANCELED: imds_interrupt().
 */
int imds_get(struct imds *imds, const char *path, struct imds_answer *answer,
	     struct problem *problem);
/* Sleeps. -ECANCELED: imds_interrupt(). */
int imds_wait(struct imds *imds, unsigned int wait_ms);
/* Ends the request or sleep that runs, and every later one at once. */
void imds_interrupt(struct imds *imds);

#endif
