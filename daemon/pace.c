// SPDX-License-Identifier: GPL-2.0
#include "pace.h"

/* Fewer pages than these say more about fixed costs than about bandwidth. */
#define BANDWIDTH_PAGES 256

static void add_bandwidth(struct pace *pace, uint64_t pages, int64_t ms)
{
	uint64_t now;

	if (pages < BANDWIDTH_PAGES || ms <= 0)
		return;
	now = pages * 1000 / (uint64_t)ms;
	/* Three parts old, one part new: storage that slows down is believed after a few epochs. */
	pace->pages_per_s = pace->pages_per_s ? (3 * pace->pages_per_s + now) / 4 : now;
}

void pace_add_epoch(struct pace *pace, const struct pass_stats *pass, int64_t begun_ms)
{
	/* A full collect says what there is, not what was written since. */
	if (pace->last_ms && !pass->full) {
		pace->epochs[pace->next] = (struct policy_epoch){
			.interval_ms = (uint64_t)(begun_ms - pace->last_ms),
			.pages = pass->pages_dirty,
		};
		pace->next = (pace->next + 1) % PACE_EPOCHS;
		pace->epoch_count += pace->epoch_count < PACE_EPOCHS;
	}
	add_bandwidth(pace, pass->pages_dirty + pass->pages_thin, pass->full_speed_ms);
	pace->last_ms = begun_ms;
}

void pace_add_checkpoint(struct pace *pace, const struct checkpoint_stats *stats)
{
	pace->fixed_ms = (uint64_t)stats->flush_ms;
	pace->memory_pages = stats->pages;
	pace->last_ms = clock_ms() - stats->flush_ms;
}

struct policy_input pace_input(const struct pace *pace, const struct class *class, uint64_t poll_ms)
{
	return (struct policy_input){
		.epochs = pace->epochs,
		.epoch_count = pace->epoch_count,
		.memory_pages = pace->memory_pages,
		.pages_per_s = pace->pages_per_s,
		.fixed_ms = pace->fixed_ms,
		.since_epoch_ms = pace->last_ms ? (uint64_t)(clock_ms() - pace->last_ms) : 0,
		.poll_ms = poll_ms,
		.window_ms = class->window_ms,
		.margin_ms = class->margin_ms,
	};
}
