// SPDX-License-Identifier: GPL-2.0
#include "control.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "cleanup.h"
#include "control_private.h"
#include "log.h"
#include "metrics.h"
#include "retain.h"

/* --- metrics --- */

static void write_metrics(struct control *control)
{
	const char *path = control->config->metrics_file;
	struct problem problem;
	json_t *status;
	bool failed;

	if (!path)
		return;
	status = control_status(control, NULL);
	failed = metrics_write(path, status, &problem) != 0;
	if (failed && !control->metrics_failed)
		log_warn("%s", problem.text);
	control->metrics_failed = failed;
	json_decref(status);
}

static int on_metrics(sd_event_source *source, uint64_t usec, void *arg)
{
	write_metrics(arg);
	sd_event_source_set_time_relative(source, METRICS_INTERVAL_MS * 1000ull);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* Old figures are worse than none. */
static void remove_metrics(const struct config *config)
{
	if (config->metrics_file)
		unlink(config->metrics_file);
}

/* --- configuration --- */

static void reload_refused(struct control *control, const struct problem *problem)
{
	free(control->config_problem);
	control->config_problem = strdup(problem->text);
	log_err("the new configuration is refused and the one before it stays: %s", problem->text);
}

static void renew_jobs(struct control *control)
{
	for (struct slot *slot = control->slots; slot; slot = slot->next) {
		const struct class *class = config_class(control->config, job_class_name(slot->job));

		if (slot->gone)
			continue;
		log_set_job(job_id(slot->job));
		if (class)
			job_renew_class(slot->job, class);
		else
			log_warn("%s: its class %s is not configured any more: the job goes on with the "
				 "values that it has", job_id(slot->job), job_class_name(slot->job));
	}
	log_set_job("");
}

int control_reload(struct control *control, struct problem *problem)
{
	struct config *old = control->config, *fresh;
	int ret = config_load(&fresh, old->path, problem);

	if (ret == 0 && config_keep(fresh, old, control->config_kept, sizeof(control->config_kept))) {
		config_free(fresh);
		ret = problem_set(problem, ENOMEM, "out of memory");
	}
	if (ret) {
		reload_refused(control, problem);
		return ret;
	}
	free(take_ptr(control->config_problem));
	control->config = fresh;
	log_set_level_name(fresh->log_level);
	__atomic_store_n(&control->shared.poll_ms, fresh->imds_poll_ms, __ATOMIC_RELAXED);
	control_rewatch_notices(control, old);
	renew_jobs(control);
	if (old->metrics_file && (!fresh->metrics_file || strcmp(old->metrics_file, fresh->metrics_file)))
		remove_metrics(old);
	write_metrics(control);
	if (retain_renew(control->retain, fresh))
		log_err("no memory to look after other stores than before");
	config_free(old);
	log_info("configuration read again: %zu job classes%s%s", fresh->class_count,
		 *control->config_kept ? "; only a restart of ckptd changes " : "", control->config_kept);
	return 0;
}

/* --- beginning and end --- */

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *arg)
{
	struct control *control = arg;

	log_info("stopping on %s; jobs run on without checkpoints until ckptd is back",
		 strsignal((int)info->ssi_signo));
	/* From now on the event loop feeds no watchdog, while a checkpoint comes to its end. */
	sd_notify(0, "STOPPING=1");
	return sd_event_exit(control->event, 0);
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *arg)
{
	struct problem problem;

	control_reload(arg, &problem);
	return 0;
}

static void watch_signals(struct control *control)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sd_event_add_signal(control->event, NULL, SIGTERM, on_stop, control);
	sd_event_add_signal(control->event, NULL, SIGINT, on_stop, control);
	sd_event_add_signal(control->event, NULL, SIGHUP, on_hangup, control);
}

int control_create(struct control **created, struct job_setup *setup, struct config *config,
		   struct problem *problem)
{
	struct control *control = calloc(1, sizeof(*control));
	int ret;

	if (!control || sd_event_new(&control->event) < 0) {
		free(control);
		config_free(config);
		return problem_set(problem, ENOMEM, "out of memory");
	}
	control->setup = setup;
	setup->shared = &control->shared;
	control->shared.poll_ms = config->imds_poll_ms;
	control->config = config;
	control->listen_fd = -1;
	setup->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Blocked before the first thread is made, so that they inherit it. */
	watch_signals(control);
	control_watch_jobs(control);
	ret = control_listen(control, problem);
	if (ret == 0)
		ret = control_watch_notices(control, problem);
	if (ret == 0)
		ret = retain_start(&control->retain, config, &setup->keys, setup->node, problem);
	if (ret) {
		control_destroy(control);
		return ret;
	}
	control_adopt_jobs(control);
	sd_event_add_time_relative(control->event, NULL, CLOCK_MONOTONIC, 0, 0, on_metrics, control);
	sd_event_set_watchdog(control->event, true);
	*created = control;
	return 0;
}

int control_run(struct control *control)
{
	sd_notify(0, "READY=1");
	return sd_event_loop(control->event);
}

void control_destroy(struct control *control)
{
	for (struct slot *slot = control->slots; slot; slot = slot->next)
		job_want_leave(slot->job);
	while (control->slots)
		slot_free(control->slots);
	while (control->clients)
		client_free(control->clients);
	control_forget_notices(control);
	retain_stop(control->retain);
	control_unlisten(control);
	close(control->setup->event_fd);
	remove_metrics(control->config);
	config_free(control->config);
	free(control->config_problem);
	sd_event_unref(control->event);
	free(control);
}
