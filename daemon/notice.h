/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Notices that this node will be taken away.  Each source runs in a thread of its own and writes
 * struct notice records into a pipe, that the event loop reads.
 */
#ifndef CKPT_NOTICE_H
#define CKPT_NOTICE_H

#include <stdint.h>

#include "problem.h"

enum notice_kind {
	NOTICE_INTERRUPTION = 1, /* the node goes at deadline_ms */
	NOTICE_REBALANCE = 2,    /* it may go soon: checkpoint early */
	NOTICE_SOURCE_DOWN = 3,  /* the source cannot be asked; text says why. Sent once per change */
	NOTICE_SOURCE_UP = 4,
};

struct notice {
	enum notice_kind kind;
	int64_t deadline_ms;     /* CLOCK_BOOTTIME; latched: the first notice counts */
	char text[400];          /* for the log: what the source said */
};

struct notice_options {
	const char *endpoint;       /* "http://169.254.169.254"; NULL or "": no IMDS */
	unsigned int poll_ms;       /* 1000..60000 */
	unsigned int timeout_ms;    /* of one request, 100..10000 */
	unsigned int window_ms;     /* assumed when the notice has no usable time */
};

struct notice_source;

/* Starts watching; *fd gets the read end, owned by the source. */
int notice_start(struct notice_source **source, const struct notice_options *options, int *fd,
		 struct problem *problem);
void notice_stop(struct notice_source *source);

/* The parts that decide, without network, for tests. */
/* Parses the body of spot/instance-action. 0, or -EBADMSG when it is not one. */
int notice_parse_action(const char *body, char action[16], int64_t *epoch_s);
/* Parses the body of events/recommendations/rebalance. */
int notice_parse_rebalance(const char *body, int64_t *epoch_s);

#endif
