// SPDX-License-Identifier: GPL-2.0
#include "race.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

const double race_intervals_s[RACE_INTERVALS] = {
	1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1200, 1800, 2700, 3600,
};

/* All that run through one trace. */
struct race {
	struct simulation automatic, none, back_to_back, fixed[RACE_INTERVALS];
};

void race_settings_init(struct race_settings *settings)
{
	*settings = (struct race_settings){
		.class = { .window_ms = 120000, .margin_ms = 15000, .reserve = CONFIG_AUTO },
		.poll_s = 5,
		.hours = 4,
		.interruptions = 1000,
		.seed = 1,
	};
}

static void tally_add(struct tally *tally, const struct outcome *outcome, bool feasible)
{
	tally->made += feasible && outcome->made;
	tally->final_pages += outcome->pages;
}

static void interrupt(struct race_result *result, struct race *race, double notice_s, double seen_s)
{
	struct outcome automatic, none, fixed[RACE_INTERVALS];
	bool feasible = simulation_oracle(&race->back_to_back, notice_s);

	simulation_run(&race->automatic, seen_s);
	automatic = simulation_interrupt(&race->automatic, notice_s, seen_s);
	none = simulation_interrupt(&race->none, notice_s, seen_s);
	feasible |= automatic.made | none.made;
	for (size_t i = 0; i < RACE_INTERVALS; i++) {
		simulation_run(&race->fixed[i], seen_s);
		fixed[i] = simulation_interrupt(&race->fixed[i], notice_s, seen_s);
		feasible |= fixed[i].made;
	}
	result->feasible += feasible;
	result->run_s += automatic.run_s;
	tally_add(&result->automatic, &automatic, feasible);
	tally_add(&result->none, &none, feasible);
	for (size_t i = 0; i < RACE_INTERVALS; i++)
		tally_add(&result->fixed[i], &fixed[i], feasible);
	if (automatic.made && automatic.window_percent > result->learnt_percent)
		result->learnt_percent = automatic.window_percent;
}

static int compare(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

static void race_begin(struct race *race, const struct trace *trace, const struct race_settings *settings)
{
	const struct class *class = &settings->class;
	double poll_s = settings->poll_s;
	uint64_t seed = settings->seed;

	simulation_begin(&race->automatic, trace, class, PLAN_AUTO, 0, poll_s, seed);
	simulation_begin(&race->none, trace, class, PLAN_NONE, 0, poll_s, seed);
	simulation_begin(&race->back_to_back, trace, class, PLAN_FIXED, 0, poll_s, seed);
	for (size_t i = 0; i < RACE_INTERVALS; i++)
		simulation_begin(&race->fixed[i], trace, class, PLAN_FIXED, race_intervals_s[i], poll_s, seed);
}

static void tally_end(struct tally *tally, struct simulation *simulation, const struct race_settings *settings)
{
	simulation_run(simulation, settings->hours * 3600);
	tally->pages = simulation->pages + tally->final_pages / settings->interruptions;
}

static void choose_best(struct race_result *result)
{
	result->best = -1;
	for (size_t i = 0; i < RACE_INTERVALS && result->feasible; i++)
		if (result->fixed[i].made == result->feasible &&
		    (result->best < 0 || result->fixed[i].pages < result->fixed[result->best].pages))
			result->best = (int)i;
}

int race_run(struct race_result *result, const struct trace *trace, const struct race_settings *settings)
{
	cleanup_free double *moments_s = calloc(settings->interruptions, sizeof(*moments_s));
	cleanup_free struct race *race = malloc(sizeof(*race));
	uint64_t random = settings->seed;

	if (!moments_s || !race)
		return -ENOMEM;
	memset(result, 0, sizeof(*result));
	race_begin(race, trace, settings);
	for (unsigned int i = 0; i < settings->interruptions; i++)
		moments_s[i] = simulation_random(&random) * settings->hours * 3600;
	qsort(moments_s, settings->interruptions, sizeof(*moments_s), compare);
	for (unsigned int i = 0; i < settings->interruptions; i++) {
		simulation_run(&race->back_to_back, moments_s[i]);
		interrupt(result, race, moments_s[i],
			  moments_s[i] + simulation_random(&random) * settings->poll_s);
	}
	tally_end(&result->automatic, &race->automatic, settings);
	tally_end(&result->none, &race->none, settings);
	for (size_t i = 0; i < RACE_INTERVALS; i++)
		tally_end(&result->fixed[i], &race->fixed[i], settings);
	result->run_s /= settings->interruptions;
	result->epochs = race->automatic.epochs;
	choose_best(result);
	return 0;
}

double race_ratio(const struct race_result *result)
{
	return result->best < 0 ? 0 : result->automatic.pages / result->fixed[result->best].pages;
}
