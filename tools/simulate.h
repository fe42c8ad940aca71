/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A job and its daemon in a trace's time.  What the daemon decides, it decides with policy_*() and
 * pace_*(), as ckptd does (daemon/job_serve.c); the job and the store are the trace's.
 */
#ifndef CKPT_SIMULATE_H
#define CKPT_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>

#include "pace.h"
#include "trace.h"

enum plan {
	PLAN_AUTO,                      /* epoch_interval = auto */
	PLAN_FIXED,                     /* an epoch each interval, whatever happens */
	PLAN_NONE,                      /* no epochs: the final checkpoint streams all memory */
};

/* A pass that has begun: it collected at begun_s and will be durable at end_s. */
struct simulated_pass {
	double begun_s;
	double end_s;
	double pages;
	bool full;
};

/* May be copied: the copy then goes its own way. */
struct simulation {
	const struct trace *trace;
	const struct class *class;
	enum plan plan;
	double interval_s;              /* of PLAN_FIXED */
	double poll_s;
	uint64_t random;                /* for the error of looks */
	double now_s;
	double next_s;                  /* when something happens next */
	double collected_s;             /* the last collect; < 0: none yet */
	bool passing;
	bool measured;                  /* a first checkpoint was taken */
	struct simulated_pass pass;     /* the last one */
	struct simulated_pass before;   /* the last that is durable */
	double pages;                   /* that went to the store */
	double error;                   /* of looks since the last collect, as a factor */
	unsigned int epochs;
	struct pace pace;
};

/* What came of an interruption. */
struct outcome {
	bool made;
	double durable_s;               /* after the notice */
	double run_s;                   /* that the job ran on after the notice */
	double pages;                   /* streamed after the notice */
	unsigned int window_percent;    /* what was learnt of the store */
};

void simulation_begin(struct simulation *simulation, const struct trace *trace,
		      const struct class *class, enum plan plan, double interval_s, double poll_s,
		      uint64_t seed);
void simulation_run(struct simulation *simulation, double until_s);
/* The notice appears at notice_s and is seen at seen_s, which is not before now. */
struct outcome simulation_interrupt(const struct simulation *simulation, double notice_s, double seen_s);
/* Whether one that knows the moment, the job and the store could have made it. */
bool simulation_oracle(const struct simulation *back_to_back, double notice_s);
/* In [0, 1). */
double simulation_random(uint64_t *state);

#endif
