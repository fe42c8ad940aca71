// SPDX-License-Identifier: GPL-2.0
#include "simulate.h"

#include <math.h>
#include <string.h>

/* A daemon's clock is never 0. */
#define CLOCK_OFFSET_S 1000
/* Looks are made at a sample of the page tables, that is drawn anew after each collect. */
#define LOOK_ERROR 0.05
#define LOOK_MS 1000
/* How often a daemon that streams after a notice asks whether to freeze. */
#define TICK_S 1.0
#define MOST_ROUNDS 5

/* splitmix64 */
double simulation_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

static int64_t clock_of(double s)
{
	return (int64_t)llround((s + CLOCK_OFFSET_S) * 1000);
}

/* Written and not collected. */
static double outstanding(const struct simulation *simulation, double at_s)
{
	if (simulation->collected_s < 0)
		return trace_memory(simulation->trace, at_s);
	return trace_written(simulation->trace, simulation->collected_s, at_s);
}

static void look(struct simulation *simulation, double at_s)
{
	simulation->pace.memory_pages = (uint64_t)trace_memory(simulation->trace, at_s);
	if (simulation->collected_s >= 0)
		pace_add_look(&simulation->pace, (uint64_t)(outstanding(simulation, at_s) * simulation->error), clock_of(at_s));
}

static void pass_begin(struct simulation *simulation, double at_s, double notice_s)
{
	struct simulated_pass *pass = &simulation->pass;

	*pass = (struct simulated_pass){ .begun_s = at_s, .pages = outstanding(simulation, at_s),
					 .full = simulation->collected_s < 0 };
	pass->end_s = trace_stored(simulation->trace, at_s, pass->pages, notice_s);
	simulation->collected_s = at_s;
	simulation->error = 1 + LOOK_ERROR * (2 * simulation_random(&simulation->random) - 1);
	simulation->passing = true;
	simulation->pages += pass->pages;
	simulation->epochs++;
}

static void pass_end(struct simulation *simulation, bool noticed)
{
	const struct simulated_pass *pass = &simulation->pass;

	simulation->passing = false;
	simulation->before = *pass;
	if (simulation->plan != PLAN_AUTO)
		return;
	simulation->pace.memory_pages = (uint64_t)trace_memory(simulation->trace, pass->end_s);
	pace_add_pass(&simulation->pace, &(struct pace_pass){
		.begun_ms = clock_of(pass->begun_s),
		.pages = (uint64_t)pass->pages,
		.pages_stored = (uint64_t)pass->pages,
		.ms = (uint64_t)llround((pass->end_s - pass->begun_s) * 1000),
		.full = pass->full,
		.noticed = noticed,
	});
}

/* After the first epoch a checkpoint tells what CRIU takes. */
static void first_checkpoint(struct simulation *simulation, double at_s)
{
	simulation->measured = true;
	simulation->pages += outstanding(simulation, at_s);
	simulation->collected_s = at_s;
	pace_add_checkpoint(&simulation->pace, (uint64_t)(trace_fixed(simulation->trace, at_s) * 1000),
			    clock_of(at_s));
}

static void step_auto(struct simulation *simulation, double at_s)
{
	struct policy_input input;
	uint64_t wait_ms;

	if (simulation->passing) {
		pass_end(simulation, false);
		if (!simulation->measured)
			first_checkpoint(simulation, at_s);
	}
	look(simulation, at_s);
	input = pace_input(&simulation->pace, simulation->class, (uint64_t)(simulation->poll_s * 1000),
			   clock_of(at_s));
	wait_ms = policy_wait_ms(&input, POLICY_NEVER, LOOK_MS);
	if (wait_ms) {
		simulation->next_s = at_s + (double)wait_ms / 1000;
	} else {
		pass_begin(simulation, at_s, INFINITY);
		simulation->next_s = simulation->pass.end_s;
	}
}

static void step_fixed(struct simulation *simulation, double at_s)
{
	if (simulation->passing) {
		pass_end(simulation, false);
		simulation->next_s = fmax(simulation->pass.begun_s + simulation->interval_s, at_s);
		if (simulation->next_s > at_s)
			return;
	}
	pass_begin(simulation, at_s, INFINITY);
	simulation->next_s = simulation->pass.end_s;
}

void simulation_begin(struct simulation *simulation, const struct trace *trace,
		      const struct class *class, enum plan plan, double interval_s, double poll_s,
		      uint64_t seed)
{
	memset(simulation, 0, sizeof(*simulation));
	simulation->trace = trace;
	simulation->class = class;
	simulation->plan = plan;
	simulation->interval_s = interval_s;
	simulation->poll_s = poll_s;
	simulation->random = seed;
	simulation->collected_s = -1;
	simulation->error = 1;
	simulation->pace.window_percent = (unsigned int)(100 / trace->seen_share);
	simulation->before.end_s = -1;
	simulation->next_s = plan == PLAN_NONE ? INFINITY : 0;
}

void simulation_run(struct simulation *simulation, double until_s)
{
	while (simulation->next_s <= until_s) {
		if (simulation->plan == PLAN_AUTO)
			step_auto(simulation, simulation->next_s);
		else
			step_fixed(simulation, simulation->next_s);
	}
	simulation->now_s = until_s;
}

/* ---- after a notice ---- */

/* One final checkpoint. */
struct final {
	struct simulation simulation;
	double notice_s;
	double deadline_s;
	double frozen_s;                /* < 0: the job still runs */
};

static int64_t left_ms(const struct final *final, double at_s)
{
	return (int64_t)((final->deadline_s - at_s) * 1000) - (int64_t)final->simulation.class->margin_ms;
}

/* Follows the pass at work to its end; the job may be frozen on the way. */
static void follow_pass(struct final *final, double at_s)
{
	struct simulation *simulation = &final->simulation;
	const struct simulated_pass *pass = &simulation->pass;
	double begun_s = at_s;

	for (; at_s < pass->end_s && final->frozen_s < 0; at_s += TICK_S) {
		double done = trace_streamed(simulation->trace, begun_s, at_s, final->notice_s);
		double before = trace_streamed(simulation->trace, pass->begun_s, begun_s, final->notice_s);
		struct policy_input input;

		look(simulation, at_s);
		input = pace_input_pass(&simulation->pace, simulation->class, clock_of(at_s),
					(uint64_t)done, (uint64_t)((at_s - begun_s) * 1000),
					(uint64_t)fmax(pass->pages - before - done, 0));
		if (policy_must_freeze(&input, left_ms(final, at_s), (uint64_t)(TICK_S * 1000)))
			final->frozen_s = at_s;
	}
	simulation->now_s = pass->end_s;
	pass_end(simulation, true);
}

static void decide(struct final *final, double seen_s)
{
	struct simulation *simulation = &final->simulation;
	struct policy_input input;
	unsigned int round;

	simulation->now_s = seen_s;
	if (simulation->passing)
		follow_pass(final, seen_s);
	for (round = 0; round < MOST_ROUNDS && final->frozen_s < 0; round++) {
		look(simulation, simulation->now_s);
		input = pace_input(&simulation->pace, simulation->class, 0, clock_of(simulation->now_s));
		if (!policy_round_helps(&input, left_ms(final, simulation->now_s)))
			break;
		pass_begin(simulation, simulation->now_s, final->notice_s);
		follow_pass(final, simulation->now_s);
	}
	if (final->frozen_s < 0)
		final->frozen_s = simulation->now_s;
}

/* Who has no policy freezes at once, and lets the pass at work end. */
static void freeze_at_once(struct final *final, double seen_s)
{
	struct simulation *simulation = &final->simulation;

	final->frozen_s = simulation->now_s = seen_s;
	if (!simulation->passing)
		return;
	simulation->now_s = fmax(simulation->pass.end_s, seen_s);
	pass_end(simulation, true);
}

/* A pass that began before the notice goes on at the rate that the store has after it. */
static void slow_pass(struct simulation *simulation, double notice_s)
{
	if (simulation->passing)
		simulation->pass.end_s = trace_stored(simulation->trace, simulation->pass.begun_s,
						      simulation->pass.pages, notice_s);
}

struct outcome simulation_interrupt(const struct simulation *at, double notice_s, double seen_s)
{
	struct final final = { .simulation = *at, .notice_s = notice_s, .frozen_s = -1 };
	struct simulation *simulation = &final.simulation;
	double before = simulation->pages, pages, durable_s;

	final.deadline_s = notice_s + simulation->class->window_ms / 1000.0;
	slow_pass(simulation, notice_s);
	if (simulation->passing && simulation->pass.end_s <= seen_s)
		pass_end(simulation, true);
	if (simulation->plan == PLAN_AUTO)
		decide(&final, seen_s);
	else
		freeze_at_once(&final, seen_s);
	pages = outstanding(simulation, final.frozen_s);
	durable_s = trace_stored(simulation->trace, simulation->now_s, pages, notice_s);
	pace_add_pass(&simulation->pace, &(struct pace_pass){
		.begun_ms = clock_of(simulation->now_s), .pages = (uint64_t)pages, .noticed = true,
		.pages_stored = (uint64_t)pages, .full = true,
		.ms = (uint64_t)((durable_s - simulation->now_s) * 1000) });
	durable_s += trace_fixed(simulation->trace, notice_s);
	return (struct outcome){
		.made = durable_s <= final.deadline_s,
		.durable_s = durable_s - notice_s,
		.run_s = final.frozen_s - notice_s,
		.pages = simulation->pages - before + pages,
		.window_percent = simulation->pace.window_percent,
	};
}

/* Frozen at the notice, with a pass at work since begun_s that followed the collect at from_s. */
static bool oracle_plan(const struct simulation *simulation, double from_s, double begun_s,
			double notice_s)
{
	const struct trace *trace = simulation->trace;
	double first = from_s < 0 ? trace_memory(trace, begun_s) : trace_written(trace, from_s, begun_s);
	double end_s = fmax(trace_stored(trace, begun_s, first, notice_s), notice_s);

	end_s = trace_stored(trace, end_s, trace_written(trace, begun_s, notice_s), notice_s);
	return end_s + trace_fixed(trace, notice_s) <= notice_s + simulation->class->window_ms / 1000.0;
}

/*
 * To freeze at the notice is best for the deadline, and all that was written before the last collects
 * is durable already; what is left to choose is when, before the notice, the last pass began.
 */
bool simulation_oracle(const struct simulation *back_to_back, double notice_s)
{
	double from_s = back_to_back->before.end_s < 0 ? -1 : back_to_back->before.begun_s;
	double earliest_s = fmax(back_to_back->before.end_s, 0);
	double before_s;

	if (oracle_plan(back_to_back, from_s, earliest_s, notice_s) ||
	    oracle_plan(back_to_back, from_s, notice_s, notice_s))
		return true;
	for (before_s = 0.125; notice_s - before_s > earliest_s; before_s *= 1.25)
		if (oracle_plan(back_to_back, from_s, notice_s - before_s, notice_s))
			return true;
	return false;
}
