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
	NOTICE_SOURCE_UP = 4,    /* it answers: at first, and after it was down */
	NOTICE_PLACE = 5,        /* once: where this node is, as far as the source knows */
};

struct notice {
	enum notice_kind kind;
	int64_t deadline_ms;     /* of an interruption, CLOCK_BOOTTIME; latched: the first counts */
	char text[400];          /* for the log: what the source said */
	char zone[40];           /* of a place: availability zone; "": not known */
	char type[40];           /* of a place: instance type; "": not known */
};

struct notice_options {
	const char *endpoint;       /* "http://169.254.169.254"; NULL or "": no IMDS */
	unsigned int poll_ms;       /* 1000..60000 */
	unsigned int timeout_ms;    /* of one request, 100..10000 */
	unsigned int window_ms;     /* assumed when the notice has no usable time */
};

struct notice_source;

/*
 * Starts watching; *fd gets the read end (non-blocking), owned by the source.  Each record is written
 * whole.  Without an endpoint nothing is ever written.
 */
int notice_start(struct notice_source **source, const struct notice_options *options, int *fd,
		 struct problem *problem);
void notice_stop(struct notice_source *source);

/* The parts that decide, without network, for tests. */
/*
 * Parses the body of spot/instance-action. 0, or -EBADMSG when it is not one.  *epoch_s is -1 when
 * the action is clear but its time is missing or not of the form YYYY-MM-DDTHH:MM:SSZ.
 */
int notice_parse_action(const char *body, char action[16], int64_t *epoch_s);
/* Parses the body of events/recommendations/rebalance. 0 or -EBADMSG; *epoch_s as above. */
int notice_parse_rebalance(const char *body, int64_t *epoch_s);
/*
 * The deadline (CLOCK_BOOTTIME) of an action at epoch_s, seen when the service's wall clock said
 * wall_s and ours boot_ms.  It is never later than a window from now, whatever the time says, and
 * never earlier than now; without a time it is a window from now.  -ESTALE: the time has passed and
 * the node lives on; EC2 leaves such notices standing when an interruption failed.
 */
int notice_deadline(const char *action, int64_t epoch_s, int64_t wall_s, int64_t boot_ms,
		    unsigned int window_ms, int64_t *deadline_ms);

#endif
