/* SPDX-License-Identifier: GPL-2.0 */
/*
 * When to stream, when to checkpoint, and whether a job is safe: pure functions of what was measured.
 *
 *        notice seen                                        deadline - margin      deadline
 *   ----------|------ outstanding pages ------|-- CRIU, fsync --|.......................|
 *      <= poll          pages / bandwidth         fixed time
 *
 * The flush forecast is the time from the notice's appearance until the checkpoint is durable, if the
 * job is frozen as soon as the notice is seen.  A job is safe while forecast <= budget = window - margin,
 * also with storage that is slower than measured by the reserve.
 *
 * Outstanding is what was written since the last collect, and what a pass at work has not streamed yet.
 * An epoch takes what is outstanding away, but only when it is done; until then what the job writes
 * anew comes on top.  Therefore it begins while there is room for both:
 *
 *   outstanding
 *    budget - - - - - - - - - - - - - - - -,-'\- - - - - - -
 *                                     ,-'      \         ,-'
 *                                ,-' ^          \   ,-'
 *                           ,-'      epoch begins ^ done
 */
#ifndef CKPT_POLICY_H
#define CKPT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What streaming costs a running job, in percent of its time: faults, memory bandwidth, cores. */
#define POLICY_STREAM_COST_PERCENT 10
/* No finite time: nothing was measured yet, or it never ends. */
#define POLICY_NEVER INT64_MAX
/* Nobody has looked: the write curve says what may be outstanding. */
#define POLICY_NOT_LOOKED UINT64_MAX

#define POLICY_AGES 16
#define POLICY_SIZES 16

/* A point of the write curve: how many pages were seen written, each counted once, at that age. */
struct policy_point {
	uint64_t age_ms;             /* since they were collected */
	uint64_t pages;              /* at most */
	uint64_t usual_pages;        /* lately, on average */
	uint64_t least_pages;
};

/* What a pass of about that size takes, from collecting to durable. */
struct policy_pass {
	uint64_t pages;              /* that went to the store; unchanged and zero ones do not */
	uint64_t ms;
};

struct policy_input {
	struct policy_point curve[POLICY_AGES]; /* ascending ages */
	size_t points;
	struct policy_pass passes[POLICY_SIZES]; /* ascending pages; none: nothing measured yet */
	size_t pass_count;
	struct policy_pass scan;     /* pages read and found unchanged; 0: not measured */
	unsigned int changed_percent; /* of written pages that go to the store, at worst */
	unsigned int held_percent;   /* how long an epoch takes of what it would without limits; at least 100 */
	uint64_t memory_pages;       /* of the job; the bound of what can be outstanding */
	uint64_t outstanding_pages;  /* since the last collect, or POLICY_NOT_LOOKED */
	uint64_t since_ms;           /* the last collect */
	uint64_t left_pages;         /* of a pass at work: not streamed yet */
	uint64_t other_pages;        /* of other jobs of this node, which a notice hits as well */
	uint64_t fixed_ms;           /* of a checkpoint: freeze, CRIU, fsync, rename */
	uint64_t poll_ms;            /* a notice may be this old when it is seen */
	uint64_t window_ms;
	uint64_t margin_ms;
	unsigned int reserve_percent; /* 200: after a notice the store may be half as fast as measured */
};

enum policy_safety {
	POLICY_SAFE,
	POLICY_TIGHT,                /* safe if the store stays as fast as measured */
	POLICY_UNKNOWN,              /* no bandwidth measured yet: no promise */
	POLICY_UNSAFE,               /* a notice now would find too much to do: alert */
};

/*
 * How many pages the job writes in a time, bounded from above.  The count grows ever slower with the
 * time, since pages are written repeatedly: what was seen at a greater age bounds it, and so does k
 * times what was seen at an age, for k times that age.  Without any point: all of memory.
 */
uint64_t policy_written_pages(const struct policy_input *input, uint64_t time_ms);
/* How long written pages take until they are durable, without limits; POLICY_NEVER: not measured. */
int64_t policy_stream_ms(const struct policy_input *input, uint64_t pages);
/* What a notice now would find. */
uint64_t policy_outstanding_pages(const struct policy_input *input);

/* Without the reserve: what is expected, not what is feared. */
int64_t policy_forecast_ms(const struct policy_input *input);
enum policy_safety policy_safety(const struct policy_input *input);
/* "safe", "tight", "unknown", "unsafe" */
const char *policy_safety_name(enum policy_safety safety);

/*
 * How long until somebody must look again at what is outstanding; 0: an epoch is to begin now.  Looks
 * are at least look_ms apart, epochs at most interval_ms (POLICY_NEVER: any time, as rarely as is
 * safe).  An epoch that cannot make the job safe begins only when it at least halves what is
 * outstanding: a job is not made slow for nothing.
 */
uint64_t policy_wait_ms(const struct policy_input *input, uint64_t interval_ms, uint64_t look_ms);

/*
 * Before a checkpoint, with left_ms until its deadline less the margin (INT64_MAX: it has none): does
 * a pass help while the job runs on, or is it to be frozen now?  The pass helps if it shrinks what the
 * frozen one has to do by a quarter or more and both still meet the deadline, also with the reserve.
 */
bool policy_round_helps(const struct policy_input *input, int64_t left_ms);
/*
 * While a pass is at work after a notice: is this the last moment at which freezing the job still meets
 * the deadline?  The next one is tick_ms away.
 */
bool policy_must_freeze(const struct policy_input *input, int64_t left_ms, uint64_t tick_ms);

/*
 * The interval between checkpoints for checkpoint_interval = auto: Daly's, for checkpoints that stop
 * the job for frozen_ms and stream for stream_ms before, which slows it, and losses without a usable
 * notice every mtbf_ms on average.
 */
uint64_t policy_checkpoint_ms(uint64_t frozen_ms, uint64_t stream_ms, uint64_t mtbf_ms);
/*
 * Daly's interval between checkpoints that each stop the job for cost_ms, when interruptions without
 * a notice come every mtbf_ms on average (FGCS 22, 2006, "higher order estimate").
 */
uint64_t policy_daly_ms(uint64_t cost_ms, uint64_t mtbf_ms);

#endif
