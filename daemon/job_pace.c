// SPDX-License-Identifier: GPL-2.0
/* What the job's thread knows of the job's pace, and when it does what because of it. */
#include "job_private.h"

#include <limits.h>

#include "cgroup.h"
#include "log.h"
#include "look.h"
#include "proc.h"

/* A look takes at most a hundredth of a core. */
#define LOOK_SHARE 100
#define SHORTEST_LOOK_MS 1000
/* How often a pass after a notice asks whether to freeze the job. */
#define FREEZE_TICK_MS 1000
/* A look that takes longer is not made in such a pass. */
#define LONGEST_TICK_LOOK_MS 200
/* Unsafe for a shorter time is no alert: a burst, or the first epoch. */
#define ALERT_AFTER_MS 30000
/* What is left of mtbf when the node or the window cannot be relied on. */
#define RISK_PART 8

uint64_t job_memory_kib(const struct job *job)
{
	uint64_t sum = 0, one;

	for (size_t i = 0; i < job->reader.tasks.count; i++)
		if (proc_memory_kib(job->reader.tasks.list[i].pid, &one) == 0)
			sum += one;
	return sum;
}

void job_measure_memory(struct job *job)
{
	uint64_t kib = job_memory_kib(job);

	if (kib)
		job->pace.memory_pages = kib / (PAGE_BYTES / 1024);
	job_set_status(job, "memory_kib", json_integer((json_int_t)kib));
}

bool job_noticed(struct job *job, int64_t *deadline_ms)
{
	bool noticed;

	pthread_mutex_lock(&job->lock);
	noticed = job->want_final;
	*deadline_ms = job->deadline_ms;
	pthread_mutex_unlock(&job->lock);
	return noticed;
}

int64_t job_left_ms(struct job *job)
{
	int64_t deadline_ms;

	if (!job_noticed(job, &deadline_ms))
		return INT64_MAX;
	return deadline_ms - (int64_t)job->class->margin_ms - clock_ms();
}

/* What a notice would find in all jobs of this node, which then share the way to the store. */
static void share_outstanding(struct job *job, uint64_t pages)
{
	__atomic_add_fetch(&job->setup->shared->outstanding_pages, pages - job->shared_pages,
			   __ATOMIC_RELAXED);
	job->shared_pages = pages;
}

void job_unshare(struct job *job)
{
	share_outstanding(job, 0);
}

static uint64_t other_pages(const struct job *job)
{
	uint64_t all = __atomic_load_n(&job->setup->shared->outstanding_pages, __ATOMIC_RELAXED);

	return all > job->shared_pages ? all - job->shared_pages : 0;
}

static struct policy_input make_input(const struct job *job)
{
	uint64_t poll_ms = __atomic_load_n(&job->setup->shared->poll_ms, __ATOMIC_RELAXED);
	struct policy_input input = pace_input(&job->pace, job->class, poll_ms, clock_ms());

	input.other_pages = other_pages(job);
	return input;
}

void job_look(struct job *job)
{
	int64_t begin = clock_ms(), now;
	uint64_t pages;
	int ret = look_written(&job->reader.tasks, (uint64_t)job->pace.collected_ms, &pages);
	struct policy_input input;

	now = clock_ms();
	pace_add_look(&job->pace, ret ? POLICY_NOT_LOOKED : pages, now);
	job->look_ms = (uint64_t)(now - begin) * LOOK_SHARE;
	if (job->look_ms < SHORTEST_LOOK_MS)
		job->look_ms = SHORTEST_LOOK_MS;
	job_measure_memory(job);
	input = make_input(job);
	share_outstanding(job, policy_outstanding_pages(&input));
}

uint64_t job_wait_ms(const struct job *job)
{
	struct policy_input input = make_input(job);
	unsigned int interval_ms = job->class->epoch_interval_ms;

	return policy_wait_ms(&input, interval_ms == CONFIG_AUTO ? POLICY_NEVER : interval_ms,
			      job->look_ms);
}

bool job_round_helps(struct job *job)
{
	struct policy_input input = make_input(job);

	input.poll_ms = 0;
	return policy_round_helps(&input, job_left_ms(job));
}

/* --- the forecast, for people --- */

static void publish(struct job *job, const struct policy_input *input, enum policy_safety safety)
{
	int64_t forecast = policy_forecast_ms(input), stream;
	uint64_t pages = policy_outstanding_pages(input);

	stream = policy_stream_ms(input, pages);
	job_set_status(job, "forecast_ms", forecast == POLICY_NEVER ? json_null()
							       : json_integer(forecast));
	job_set_status(job, "budget_ms", json_integer((json_int_t)input->window_ms - (json_int_t)input->margin_ms));
	job_set_status(job, "safety", json_string(policy_safety_name(safety)));
	job_set_status(job, "outstanding_kib", json_integer((json_int_t)(pages * (PAGE_BYTES / 1024))));
	job_set_status(job, "stream_ms", stream == POLICY_NEVER ? json_null() : json_integer(stream));
	job_set_status(job, "fixed_ms", json_integer((json_int_t)input->fixed_ms));
	job_set_status(job, "pace", pace_to_json(&job->pace));
	job_set_status(job, "reserve_percent", json_integer((json_int_t)input->reserve_percent));
}

static void alert(struct job *job, const struct policy_input *input)
{
	int64_t forecast = policy_forecast_ms(input);

	job->alerted = true;
	job_note(job, "a notice now would find too much to save: the final checkpoint would take %.1f s, and "
		 "the window has %.1f s less a margin of %.1f s. Of it, %.1f s are CRIU and fsync, the rest "
		 "is for %.1f MiB of memory that was written lately. Faster storage or less memory would "
		 "help; what is lost then is what was done since the last checkpoint",
		 (double)forecast / 1000, (double)job->class->window_ms / 1000,
		 (double)job->class->margin_ms / 1000, (double)input->fixed_ms / 1000,
		 (double)policy_outstanding_pages(input) * PAGE_BYTES / (1 << 20));
	job_hook_forecast(job, POLICY_UNSAFE, forecast);
}

void job_publish_forecast(struct job *job)
{
	struct policy_input input = make_input(job);
	enum policy_safety safety = policy_safety(&input);
	int64_t now = clock_ms();

	publish(job, &input, safety);
	if (safety != POLICY_UNSAFE) {
		job->unsafe_since_ms = 0;
		if (job->alerted && safety != POLICY_UNKNOWN) {
			job->alerted = false;
			log_info("%s: a notice now would find no more than the window has room for", job->id);
			job_hook_forecast(job, safety, policy_forecast_ms(&input));
		}
		return;
	}
	if (!job->unsafe_since_ms)
		job->unsafe_since_ms = now;
	if (!job->alerted && now - job->unsafe_since_ms >= ALERT_AFTER_MS)
		alert(job, &input);
}

/* --- when checkpoints are due --- */

void job_plan_checkpoint(struct job *job)
{
	struct policy_input input = make_input(job);
	uint64_t interval_ms = job->class->checkpoint_interval_ms, mtbf_ms = job->class->mtbf_ms;

	if (interval_ms == CONFIG_AUTO) {
		if (job->warned || policy_safety(&input) == POLICY_UNSAFE)
			mtbf_ms /= RISK_PART;
		interval_ms = policy_checkpoint_ms(job->frozen_ms ?: input.fixed_ms, job->rounds_ms, mtbf_ms);
	}
	job->next_checkpoint_ms = interval_ms ? clock_ms() + (int64_t)interval_ms : INT64_MAX;
	job_set_status(job, "checkpoint_interval_ms", json_integer((json_int_t)interval_ms));
}

/* --- after a notice --- */

static bool must_freeze(struct job *job, int64_t deadline_ms, int64_t now)
{
	const struct reader *reader = &job->reader;
	struct policy_input input;

	if (job->look_ms < LOOK_SHARE * LONGEST_TICK_LOOK_MS)
		job_look(job);
	if (!job->noticed_at_ms) {
		/* From here on the store's speed after the notice is measured. */
		job->noticed_at_ms = now;
		job->noticed_done_pages = reader->pages_done;
	}
	input = pace_input_pass(&job->pace, job->class, now, reader->pages_done - job->noticed_done_pages,
				(uint64_t)(now - job->noticed_at_ms), reader->pages_left);
	input.other_pages = other_pages(job);
	return policy_must_freeze(&input, deadline_ms - (int64_t)job->class->margin_ms - now,
				  FREEZE_TICK_MS);
}

bool job_must_save(struct job *job)
{
	struct policy_input input;

	job_look(job);
	input = make_input(job);
	return policy_must_freeze(&input, job_left_ms(job), FREEZE_TICK_MS);
}

void job_consider_freeze(struct job *job)
{
	struct problem problem;
	int64_t deadline_ms, now = clock_ms();

	if (job->frozen_at_ms || now < job->next_tick_ms || !job_noticed(job, &deadline_ms))
		return;
	job->next_tick_ms = now + FREEZE_TICK_MS;
	if (!must_freeze(job, deadline_ms, now))
		return;
	if (cgroup_freeze(job->reader.cgroup, FREEZE_TIMEOUT_MS, &problem)) {
		log_warn("%s: %s", job->id, problem.text);
		return;
	}
	job->frozen_at_ms = clock_ms();
	log_info("%s: frozen %.1f s before the deadline, while %.1f MiB are still being streamed", job->id,
		 (double)(deadline_ms - job->frozen_at_ms) / 1000,
		 (double)job->reader.pages_left * PAGE_BYTES / (1 << 20));
}
