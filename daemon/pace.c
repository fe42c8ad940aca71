// SPDX-License-Identifier: GPL-2.0
#include "pace.h"

#include <string.h>

/* Fewer pages than these say nothing about reading, looks or limits. */
#define LEAST_PAGES 256
/* Until a curve of points fades away: between this many and twice as many passes. */
#define PASSES_PER_HALF 16
/* Shorter than this, and fewer than that, say little about how much slower than expected a pass was. */
#define SLOW_LEAST_MS 500
#define SLOW_MOST_PERCENT 2000
/* reserve = auto: what streaming this share of the time buys. `ckptbench policy` shows what comes of it. */
#define RESERVE_DUTY_PERCENT 10
#define LEAST_RESERVE_PERCENT 200
#define MOST_RESERVE_PERCENT 1000
/* For what is still to come of a pass, when its own slowness is measured. */
#define SEEN_RESERVE_PERCENT 125
/* How fast slow_percent fades, per pass; it is believed at once. */
#define SLOW_FADES 16
#define PAGES_PER_GIB 262144
#define LOOKED_MOST_PERCENT 1000
#define HELD_MOST_PERCENT 100000
/*
 * CRIU's own part before it was measured: one of 4 GiB in pages of 4 KiB took 0.6 to 0.85 s, of which
 * it read the page tables most of the time.
 */
#define UNMEASURED_FIXED_MS 1000
#define UNMEASURED_FIXED_MS_PER_GIB 150

static unsigned int log2_of(uint64_t value)
{
	return value ? 63 - (unsigned int)__builtin_clzll(value) : 0;
}

static unsigned int smaller(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

static unsigned int age_bucket(uint64_t age_ms)
{
	return smaller(log2_of(age_ms / 500 + 1), POLICY_AGES - 1);
}

static void curve_add(struct policy_point curve[POLICY_AGES], uint64_t age_ms, uint64_t pages)
{
	struct policy_point *point = &curve[age_bucket(age_ms)];

	if (pages < point->least_pages || !point->age_ms)
		point->least_pages = pages;
	point->usual_pages = point->age_ms ? (7 * point->usual_pages + pages) / 8 : pages;
	if (pages >= point->pages || !point->age_ms) {
		point->pages = pages;
		point->age_ms = age_ms;
	}
}

static void add_interval(struct pace *pace, const struct pace_pass *pass)
{
	unsigned int percent = pass->pages ? (unsigned int)(pass->pages_stored * 100 / pass->pages) + 1 : 0;

	curve_add(pace->curve[0], (uint64_t)(pass->begun_ms - pace->collected_ms), pass->pages);
	if (percent > pace->changed_percent[0])
		pace->changed_percent[0] = smaller(percent, 100);
	if (++pace->passes < PASSES_PER_HALF)
		return;
	pace->passes = 0;
	memcpy(pace->curve[1], pace->curve[0], sizeof(pace->curve[1]));
	memset(pace->curve[0], 0, sizeof(pace->curve[0]));
	pace->changed_percent[1] = pace->changed_percent[0];
	pace->changed_percent[0] = 0;
}

static unsigned int afforded_percent(const struct pace *pace)
{
	return pace->afforded_percent ? pace->afforded_percent : MOST_RESERVE_PERCENT;
}

/* Step by step to where streaming takes the share of the time that it may. */
static void add_duty(struct pace *pace, const struct pace_pass *pass)
{
	unsigned int now = afforded_percent(pace);

	pace->streamed_ms = pace->streamed_ms * 7 / 8 + pass->ms + pass->held_ms;
	pace->passed_ms = pace->passed_ms * 7 / 8 + (uint64_t)(pass->begun_ms - pace->collected_ms);
	if (pace->streamed_ms * 100 / RESERVE_DUTY_PERCENT > pace->passed_ms)
		now -= now / 8;
	else
		now += now / 8;
	pace->afforded_percent = now < LEAST_RESERVE_PERCENT ? LEAST_RESERVE_PERCENT :
				 smaller(now, MOST_RESERVE_PERCENT);
}

/* Half old, half new: storage that slows down is believed after a pass or two. */
static void average(struct policy_pass *pass, uint64_t pages, uint64_t ms)
{
	pass->pages = pass->pages ? (pass->pages + pages) / 2 : pages;
	pass->ms = pass->ms ? (pass->ms + ms) / 2 : ms;
}

static struct policy_input measured(const struct pace *pace)
{
	struct policy_input input = { .scan = pace->scan, .changed_percent = 100 };

	for (size_t i = 0; i < POLICY_SIZES; i++)
		if (pace->sizes[i].pages)
			input.passes[input.pass_count++] = pace->sizes[i];
	return input;
}

/* Against what would have been said of the pass before it. */
static void add_slowness(struct pace *pace, const struct pace_pass *pass)
{
	struct policy_input input = measured(pace);
	uint64_t expected = (uint64_t)policy_stream_ms(&input, pass->pages_stored + pass->pages_thin);
	unsigned int *percent = pass->noticed ? &pace->window_percent : &pace->slow_percent;
	uint64_t now;

	if (!input.pass_count || expected < SLOW_LEAST_MS)
		return;
	*percent -= *percent > 100 ? (*percent - 100) / SLOW_FADES : 0;
	now = pass->ms * 100 / expected;
	if (now > *percent)
		*percent = now > SLOW_MOST_PERCENT ? SLOW_MOST_PERCENT : (unsigned int)now;
}

static void add_rate(struct pace *pace, const struct pace_pass *pass)
{
	uint64_t ms = pass->ms ? pass->ms : 1, held = (ms + pass->held_ms) * 100 / ms;
	uint64_t read = pass->pages + pass->pages_thin, stored = pass->pages_stored + pass->pages_thin;

	/* A few pages take their time without limits, too. */
	if (!pass->noticed && !pass->frozen && stored >= LEAST_PAGES)
		pace->held_percent = held > HELD_MOST_PERCENT ? HELD_MOST_PERCENT : (unsigned int)held;

	/* Else most of the time went into reading what had not changed. */
	if (stored && stored >= read / 4) {
		add_slowness(pace, pass);
		average(&pace->sizes[smaller(log2_of(stored) / 2, POLICY_SIZES - 1)], stored, ms);
	}
	if (read >= LEAST_PAGES && stored < read / 4)
		average(&pace->scan, read, ms);
}

/* Looks show a mapping that has just grown as written all over, and no files; passes know better. */
static void add_looked(struct pace *pace, const struct pace_pass *pass)
{
	uint64_t looked = pace->looked_pages, percent;

	if (pass->full || looked == POLICY_NOT_LOOKED || looked < LEAST_PAGES)
		return;
	percent = pass->pages * 100 / looked;
	percent = percent > LOOKED_MOST_PERCENT ? LOOKED_MOST_PERCENT : percent;
	/* More is believed at once, less bit by bit. */
	if (percent < pace->looked_percent)
		percent = (3 * pace->looked_percent + percent) / 4;
	pace->looked_percent = (unsigned int)percent;
}

static void collected(struct pace *pace, int64_t now_ms)
{
	pace->collected_ms = now_ms;
	pace->looked_pages = POLICY_NOT_LOOKED;
}

void pace_add_pass(struct pace *pace, const struct pace_pass *pass)
{
	if (pace->collected_ms) {
		add_looked(pace, pass);
		if (!pass->full && pass->begun_ms > pace->collected_ms)
			add_interval(pace, pass);
		if (!pass->full && !pass->noticed)
			add_duty(pace, pass);
	}
	add_rate(pace, pass);
	collected(pace, pass->begun_ms);
}

void pace_add_look(struct pace *pace, uint64_t pages, int64_t now_ms)
{
	pace->looked_pages = pages;
	if (pages == POLICY_NOT_LOOKED || now_ms <= pace->collected_ms)
		return;
	if (!pace->looked_percent)
		pace->looked_percent = 100;
	curve_add(pace->curve[0], (uint64_t)(now_ms - pace->collected_ms),
		  pages * pace->looked_percent / 100);
}

void pace_lose(struct pace *pace)
{
	collected(pace, 0);
}

void pace_add_checkpoint(struct pace *pace, uint64_t fixed_ms, int64_t collected_ms)
{
	/* The longest of the last ones, more or less. */
	pace->fixed_ms = fixed_ms > pace->fixed_ms ? fixed_ms : (3 * pace->fixed_ms + fixed_ms) / 4;
	pace->fixed_memory_pages = pace->memory_pages ? pace->memory_pages : 1;
	collected(pace, collected_ms);
}

/* CRIU's part grows with the memory that it looks through. */
static uint64_t fixed_ms(const struct pace *pace)
{
	if (!pace->fixed_memory_pages)
		return UNMEASURED_FIXED_MS +
		       pace->memory_pages * UNMEASURED_FIXED_MS_PER_GIB / PAGES_PER_GIB;
	if (pace->memory_pages <= pace->fixed_memory_pages)
		return pace->fixed_ms;
	return (uint64_t)((double)pace->fixed_ms * (double)pace->memory_pages /
			  (double)pace->fixed_memory_pages);
}

static void merge_curve(const struct pace *pace, struct policy_input *input)
{
	for (size_t i = 0; i < POLICY_AGES; i++) {
		const struct policy_point *now = &pace->curve[0][i], *before = &pace->curve[1][i];

		struct policy_point *point = &input->curve[input->points];

		if (!now->age_ms && !before->age_ms)
			continue;
		*point = now->age_ms && now->pages >= before->pages ? *now : *before;
		point->usual_pages = now->age_ms ? now->usual_pages : before->usual_pages;
		point->least_pages = now->age_ms && (!before->age_ms ||
						     now->least_pages < before->least_pages) ?
					     now->least_pages : before->least_pages;
		input->points++;
	}
}

static unsigned int greatest(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int most = a > b ? a : b;

	return most > c ? most : c;
}

struct policy_input pace_input(const struct pace *pace, const struct class *class, uint64_t poll_ms,
			       int64_t now_ms)
{
	struct policy_input input = measured(pace);
	bool looked = pace->looked_pages != POLICY_NOT_LOOKED;
	unsigned int reserve;

	merge_curve(pace, &input);
	if (pace->changed_percent[0] || pace->changed_percent[1])
		input.changed_percent = greatest(pace->changed_percent[0], pace->changed_percent[1], 1);
	input.memory_pages = pace->memory_pages;
	input.outstanding_pages = looked ? pace->looked_pages * pace->looked_percent / 100
					 : POLICY_NOT_LOOKED;
	input.since_ms = now_ms > pace->collected_ms ? (uint64_t)(now_ms - pace->collected_ms) : 0;
	if (!pace->collected_ms) {
		/* Nothing was ever streamed. */
		input.since_ms = UINT64_MAX;
		input.outstanding_pages = pace->memory_pages;
	}
	input.fixed_ms = fixed_ms(pace);
	input.held_percent = pace->held_percent;
	input.poll_ms = poll_ms;
	input.window_ms = class->window_ms;
	input.margin_ms = class->margin_ms;
	reserve = class->reserve == CONFIG_AUTO ? afforded_percent(pace) : class->reserve * 100;
	input.reserve_percent = greatest(reserve, pace->slow_percent, pace->window_percent);
	return input;
}

struct policy_input pace_input_pass(const struct pace *pace, const struct class *class, int64_t now_ms,
				    uint64_t done_pages, uint64_t ms, uint64_t left_pages)
{
	struct policy_input input = pace_input(pace, class, 0, now_ms);

	input.left_pages = left_pages;
	if (ms < SLOW_LEAST_MS || (int64_t)ms < policy_stream_ms(&input, done_pages))
		return input;
	/* What is seen need not be feared any more. */
	input.passes[0] = (struct policy_pass){ done_pages ? done_pages : 1, ms };
	input.pass_count = 1;
	input.scan = (struct policy_pass){ 0, 0 };
	input.changed_percent = 100;
	input.reserve_percent = SEEN_RESERVE_PERCENT;
	return input;
}

/* ---- to the next node ---- */

static json_t *points_to_json(const struct policy_point *points)
{
	json_t *list = json_array();

	for (size_t i = 0; i < POLICY_AGES; i++)
		if (points[i].age_ms)
			json_array_append_new(list, json_pack("[I, I, I, I]", (json_int_t)points[i].age_ms,
							      (json_int_t)points[i].pages,
							      (json_int_t)points[i].usual_pages,
							      (json_int_t)points[i].least_pages));
	return list;
}

static json_t *sizes_to_json(const struct pace *pace)
{
	json_t *list = json_array();

	for (size_t i = 0; i < POLICY_SIZES; i++)
		if (pace->sizes[i].pages)
			json_array_append_new(list, json_pack("[I, I]", (json_int_t)pace->sizes[i].pages,
							      (json_int_t)pace->sizes[i].ms));
	return list;
}

json_t *pace_to_json(const struct pace *pace)
{
	return json_pack("{s:o, s:o, s:o, s:[I, I], s:[i, i], s:i, s:i, s:i, s:i, s:I, s:I, s:I}",
			 "curve", points_to_json(pace->curve[0]),
			 "curve_before", points_to_json(pace->curve[1]),
			 "passes", sizes_to_json(pace),
			 "scan", (json_int_t)pace->scan.pages, (json_int_t)pace->scan.ms,
			 "changed_percent", (int)pace->changed_percent[0], (int)pace->changed_percent[1],
			 "afforded_percent", (int)pace->afforded_percent,
			 "slow_percent", (int)pace->slow_percent,
			 "window_percent", (int)pace->window_percent,
			 "looked_percent", (int)pace->looked_percent,
			 "fixed_ms", (json_int_t)pace->fixed_ms,
			 "fixed_memory_pages", (json_int_t)pace->fixed_memory_pages,
			 "memory_pages", (json_int_t)pace->memory_pages);
}

/* No more than 2^48: products of two stay within 128 bits, and sums within 64. */
static uint64_t number(const json_t *value)
{
	json_int_t integer = json_integer_value(value);

	return integer > 0 && integer < (1ll << 48) ? (uint64_t)integer : 0;
}

static unsigned int percent(const json_t *value, unsigned int most)
{
	return (unsigned int)(number(value) > most ? most : number(value));
}

static void points_from_json(struct policy_point *points, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *point = json_array_get(list, i);
		uint64_t age_ms = number(json_array_get(point, 0));

		if (age_ms)
			points[age_bucket(age_ms)] = (struct policy_point){
				age_ms, number(json_array_get(point, 1)), number(json_array_get(point, 2)),
				number(json_array_get(point, 3)) };
	}
}

static void sizes_from_json(struct pace *pace, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *pair = json_array_get(list, i);
		uint64_t pages = number(json_array_get(pair, 0)), ms = number(json_array_get(pair, 1));

		if (pages && ms)
			pace->sizes[smaller(log2_of(pages) / 2, POLICY_SIZES - 1)] =
				(struct policy_pass){ pages, ms };
	}
}

void pace_from_json(struct pace *pace, const json_t *json)
{
	const json_t *scan = json_object_get(json, "scan");
	const json_t *changed = json_object_get(json, "changed_percent");

	memset(pace, 0, sizeof(*pace));
	pace->looked_pages = POLICY_NOT_LOOKED;
	points_from_json(pace->curve[0], json_object_get(json, "curve"));
	points_from_json(pace->curve[1], json_object_get(json, "curve_before"));
	sizes_from_json(pace, json_object_get(json, "passes"));
	pace->scan = (struct policy_pass){ number(json_array_get(scan, 0)), number(json_array_get(scan, 1)) };
	pace->changed_percent[0] = percent(json_array_get(changed, 0), 100);
	pace->changed_percent[1] = percent(json_array_get(changed, 1), 100);
	pace->afforded_percent = percent(json_object_get(json, "afforded_percent"), MOST_RESERVE_PERCENT);
	pace->slow_percent = percent(json_object_get(json, "slow_percent"), SLOW_MOST_PERCENT);
	pace->window_percent = percent(json_object_get(json, "window_percent"), SLOW_MOST_PERCENT);
	pace->looked_percent = percent(json_object_get(json, "looked_percent"), LOOKED_MOST_PERCENT);
	pace->fixed_ms = number(json_object_get(json, "fixed_ms"));
	pace->fixed_memory_pages = number(json_object_get(json, "fixed_memory_pages"));
	pace->memory_pages = number(json_object_get(json, "memory_pages"));
}
