/* SPDX-License-Identifier: GPL-2.0 */
/* How often the same thing is said: RATE_MOST times in RATE_MS, of each kind of its own. */
#ifndef CKPT_RATE_H
#define CKPT_RATE_H

#include <stdint.h>

#define RATE_MS 60000
#define RATE_MOST 100
#define RATE_KINDS 32

struct rate_kind {
	const void *what;
	int64_t since_ms;
	unsigned int said;
};

/* All zero to begin with. Of more kinds than it has room for those are forgotten that began first. */
struct rate {
	struct rate_kind kinds[RATE_KINDS];
};

enum rate_answer {
	RATE_SAY,
	RATE_LAST,       /* the last one for a while: say that others may be left out */
	RATE_LEAVE_OUT,
};

enum rate_answer rate_ask(struct rate *rate, const void *what, int64_t now_ms);

#endif
