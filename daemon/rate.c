// SPDX-License-Identifier: GPL-2.0
#include "rate.h"

/* What is there of this kind, or the place of the one that began first. */
static struct rate_kind *find(struct rate *rate, const void *what)
{
	struct rate_kind *oldest = &rate->kinds[0];

	for (struct rate_kind *kind = rate->kinds; kind < rate->kinds + RATE_KINDS; kind++) {
		if (kind->what == what)
			return kind;
		if (!kind->what || (oldest->what && kind->since_ms < oldest->since_ms))
			oldest = kind;
	}
	return oldest;
}

enum rate_answer rate_ask(struct rate *rate, const void *what, int64_t now_ms)
{
	struct rate_kind *kind = find(rate, what);

	if (kind->what != what || now_ms - kind->since_ms >= RATE_MS)
		*kind = (struct rate_kind){ .what = what, .since_ms = now_ms };
	if (kind->said >= RATE_MOST)
		return RATE_LEAVE_OUT;
	return ++kind->said == RATE_MOST ? RATE_LAST : RATE_SAY;
}
