/* SPDX-License-Identifier: GPL-2.0 */
/* What was measured of one job, as policy.h wants it. Times are of any one clock. */
#ifndef CKPT_PACE_H
#define CKPT_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "config.h"
#include "policy.h"

struct pace {
	/* By log2 of the age in seconds; of these passes and those before them, so that they fade. */
	struct policy_point curve[2][POLICY_AGES];
	unsigned int changed_percent[2];
	unsigned int passes;            /* of the newer half */
	struct policy_pass sizes[POLICY_SIZES]; /* by log4 of the pages; moving sums */
	struct policy_pass scan;
	unsigned int afforded_percent;  /* reserve = auto: what streaming a small part of the time buys */
	uint64_t streamed_ms, passed_ms; /* by recent passes, and between them */
	unsigned int held_percent;      /* how long passes take of what they would without limits */
	unsigned int slow_percent;      /* by how much passes were slower than expected; fades */
	unsigned int window_percent;    /* the same, after notices */
	unsigned int looked_percent;    /* of the pages that looks showed, what passes then found */
	uint64_t looked_pages;          /* by the last look; POLICY_NOT_LOOKED: none since the collect */
	uint64_t fixed_ms;
	uint64_t fixed_memory_pages;    /* when that was measured; 0: it was not */
	uint64_t memory_pages;
	int64_t collected_ms;           /* when the last pass collected; 0: never */
};

/* One pass that is durable. */
struct pace_pass {
	int64_t begun_ms;
	uint64_t pages;                 /* reported as written */
	uint64_t pages_stored;          /* of them, those that were not the same as before, or zero */
	uint64_t pages_thin;            /* stored besides, because of where they lay: see thin.h */
	uint64_t ms;                    /* without the class's limits */
	uint64_t held_ms;               /* what it took more because of them */
	bool full;                      /* it says what there is, not what was written since */
	bool noticed;                   /* it ran after a notice */
	bool frozen;                    /* the job stood still, and the class's limits did not hold */
};

void pace_add_pass(struct pace *pace, const struct pace_pass *pass);
/* What pages are written and not collected yet, or POLICY_NOT_LOOKED: nothing can be seen of it. */
void pace_add_look(struct pace *pace, uint64_t pages, int64_t now_ms);
/* What was collected is not durable, and not known any more: all memory is outstanding. */
void pace_lose(struct pace *pace);
/* fixed_ms: from the freeze to durable, without the frozen pass. */
void pace_add_checkpoint(struct pace *pace, uint64_t fixed_ms, int64_t collected_ms);

struct policy_input pace_input(const struct pace *pace, const struct class *class, uint64_t poll_ms,
			       int64_t now_ms);
/*
 * The same while a pass is at work: it has streamed done_pages in ms, and left_pages are to come.
 * When that is slower than what was measured before, it is what counts.
 */
struct policy_input pace_input_pass(const struct pace *pace, const struct class *class, int64_t now_ms,
				    uint64_t done_pages, uint64_t ms, uint64_t left_pages);

/* It moves with the job: as part of the manifest's meta. Whatever is not right there is left out. */
json_t *pace_to_json(const struct pace *pace);
void pace_from_json(struct pace *pace, const json_t *json);

#endif
