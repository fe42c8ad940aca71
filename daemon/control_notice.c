// SPDX-License-Identifier: GPL-2.0
#include "control_private.h"

#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "host.h"
#include "log.h"
#include "notice.h"

/* How often after a notice it is asked whether the final checkpoints are late. */
#define DEADLINE_US 200000ull

/* --- the end of the node --- */

/* Again and again after a notice. */
static int on_deadline(sd_event_source *source, uint64_t usec, void *arg)
{
	struct control *control = arg;

	for (struct slot *slot = control->slots; slot; slot = slot->next)
		if (!slot->gone)
			job_check_deadline(slot->job);
	sd_event_source_set_time_relative(source, DEADLINE_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void control_drain(struct control *control, int64_t deadline_ms, const char *why)
{
	if (control->deadline_ms && control->deadline_ms <= deadline_ms)
		return;
	control->deadline_ms = deadline_ms;
	json_decref(control->notice);
	control->notice = json_pack("{s:s, s:I}", "text", why, "deadline_ms", (json_int_t)deadline_ms);
	log_warn("this node will be taken away in %.1f s (%s): taking final checkpoints",
		 (double)(deadline_ms - clock_ms()) / 1000, why);
	for (struct slot *slot = control->slots; slot; slot = slot->next)
		if (!slot->gone)
			job_want_final(slot->job, deadline_ms);
	if (!control->deadline_timer)
		sd_event_add_time_relative(control->event, &control->deadline_timer, CLOCK_BOOTTIME,
					   DEADLINE_US, 0, on_deadline, control);
}

/* --- the source of notices --- */

static int on_notice(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct control *control = arg;
	struct notice notice;

	if (read(fd, &notice, sizeof(notice)) != sizeof(notice))
		return 0;
	switch (notice.kind) {
	case NOTICE_INTERRUPTION:
		control_drain(control, notice.deadline_ms, notice.text);
		break;
	case NOTICE_REBALANCE:
		log_warn("rebalance recommendation (%s): taking checkpoints early", notice.text);
		for (struct slot *slot = control->slots; slot; slot = slot->next)
			if (!slot->gone)
				job_warn(slot->job);
		control->warned = true;
		break;
	case NOTICE_PLACE:
		host_set_place(notice.zone, notice.type);
		break;
	case NOTICE_SOURCE_DOWN:
		log_warn("%s", notice.text);
		json_decref(control->notices_problem);
		control->notices_problem = json_string(notice.text);
		break;
	case NOTICE_SOURCE_UP:
		log_info("%s", notice.text);
		json_decref(control->notices_problem);
		control->notices_problem = NULL;
		break;
	}
	return 0;
}

int control_watch_notices(struct control *control, struct problem *problem)
{
	const struct config *config = control->config;
	struct notice_options options = {
		.endpoint = config->imds_endpoint,
		.poll_ms = config->imds_poll_ms,
		.timeout_ms = config->imds_timeout_ms,
		.window_ms = 120000,
	};
	int fd, ret;

	if (!*config->imds_endpoint)
		return 0;
	ret = notice_start(&control->notices, &options, &fd, problem);
	if (ret == 0)
		sd_event_add_io(control->event, &control->notice_event, fd, EPOLLIN, on_notice, control);
	return ret;
}

static void stop_source(struct control *control)
{
	sd_event_source_disable_unref(control->notice_event);
	control->notice_event = NULL;
	notice_stop(control->notices);
	control->notices = NULL;
}

void control_rewatch_notices(struct control *control, const struct config *old)
{
	const struct config *now = control->config;
	struct problem problem;

	if (!strcmp(now->imds_endpoint, old->imds_endpoint) && now->imds_poll_ms == old->imds_poll_ms &&
	    now->imds_timeout_ms == old->imds_timeout_ms)
		return;
	stop_source(control);
	if (control_watch_notices(control, &problem))
		log_err("notices cannot be seen any more: %s", problem.text);
}

void control_forget_notices(struct control *control)
{
	stop_source(control);
	sd_event_source_disable_unref(control->deadline_timer);
	json_decref(control->notice);
	json_decref(control->notices_problem);
}
