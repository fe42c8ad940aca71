/* SPDX-License-Identifier: GPL-2.0 */
/*
 * When to stream, when to checkpoint, and whether a job is safe: pure functions of what was measured.
 *
 *        notice seen                                        deadline - margin      deadline
 *   ----------|------ outstanding pages ------|-- CRIU, fsync --|.......................|
 *      <= poll          pages / bandwidth         fixed time
 *
 * The flush forecast is the time from the notice's appearance until the checkpoint is durable, if the
 * job is frozen as soon as the notice is seen.  A job is safe while forecast <= window - margin.
 */
#ifndef CKPT_POLICY_H
#define CKPT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No finite time: nothing was measured yet, or it never ends. */
#define POLICY_NEVER INT64_MAX

/* What one epoch found. */
struct policy_epoch {
	uint64_t interval_ms;        /* since the epoch before it */
	uint64_t pages;              /* written in that time, each counted once */
};

struct policy_input {
	const struct policy_epoch *epochs; /* recent ones, in any order */
	size_t epoch_count;
	uint64_t memory_pages;       /* of the job; the bound of what can be outstanding */
	uint64_t pages_per_s;        /* measured from collecting to durable; 0: nothing measured yet */
	uint64_t fixed_ms;           /* of the last checkpoint: freeze, CRIU, fsync, rename */
	uint64_t since_epoch_ms;     /* since the last epoch collected */
	uint64_t poll_ms;            /* a notice may be this old when it is seen */
	uint64_t window_ms;
	uint64_t margin_ms;
};

enum policy_safety {
	POLICY_SAFE,
	POLICY_UNKNOWN,              /* no bandwidth measured yet: no promise */
	POLICY_UNSAFE,               /* a notice now would find too much to do: alert */
};

/*
 * How many pages the job writes in a time, bounded from above.  Pages are written repeatedly, so the
 * count grows ever slower with the time: an epoch of t found n, so an earlier look finds at most n,
 * and a look after k * t at most k * n.  Epochs within a factor of two of the time count (the worst of
 * them, since jobs have phases), else the nearest.  Without any epoch: all of memory.
 */
uint64_t policy_written_pages(const struct policy_input *input, uint64_t time_ms);

int64_t policy_forecast_ms(const struct policy_input *input);
enum policy_safety policy_safety(const struct policy_input *input);
/*
 * How long until the next epoch must be started: interval_ms after the last, or earlier if waiting so
 * long would make the job unsafe, but never closer than minimum_ms after the last.  0: now.
 */
uint64_t policy_next_epoch_ms(const struct policy_input *input, uint64_t interval_ms,
			      uint64_t minimum_ms);

/*
 * After a pre-copy round of this_pages (the one before it: previous_pages, 0: there was none) that
 * took this_ms, with left_ms until the deadline less the margin: does another round before the freeze
 * still help?  It does while rounds shrink by a quarter or more and freezing afterwards still meets
 * the deadline.  left_ms is INT64_MAX for a checkpoint without a notice.
 */
bool policy_precopy_again(const struct policy_input *input, uint64_t previous_pages,
			  uint64_t this_pages, uint64_t this_ms, int64_t left_ms);

/*
 * Daly's interval between checkpoints that each stop the job for cost_ms, when interruptions without
 * a notice come every mtbf_ms on average (FGCS 22, 2006, "higher order estimate").
 */
uint64_t policy_daly_ms(uint64_t cost_ms, uint64_t mtbf_ms);

#endif
