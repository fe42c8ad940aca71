// SPDX-License-Identifier: GPL-2.0
#include "control_private.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* A `run` whose ckptd was restarted comes back within a second; one that is gone never does. */
#define RECONNECT_US (20 * 1000000ull)
/* How long the end of a job is kept for its `run`. */
#define KEEP_ENDED_US (600 * 1000000ull)

/* --- the client that runs the job --- */

static bool is_end(const char *kind)
{
	return !strcmp(kind, "ended") || !strcmp(kind, "interrupted") || !strcmp(kind, "failed");
}

static void slot_deliver(struct slot *slot, json_t *event)
{
	const char *kind = json_string_value(json_object_get(event, "event"));
	int fds[2];
	size_t count = 0;

	if (!slot->client && !strcmp(kind, "lease"))
		return; /* the running event will tell */
	if (!strcmp(kind, "progress") && (!slot->client || client_is_behind(slot->client)))
		return; /* there will be more */
	if (!slot->client) {
		json_array_append(slot->backlog, event);
		return;
	}
	if (!strcmp(kind, "running"))
		count = job_open_outputs(slot->job, fds);
	client_send(slot->client, event, fds, count);
	while (count)
		close(fds[--count]);
	slot->told |= is_end(kind);
}

static void answer_askers(struct slot *slot, const json_t *event)
{
	for (struct client *client = slot->control->clients; client; client = client->next) {
		if (client->asked != slot)
			continue;
		client->asked = NULL;
		client_send(client, event, NULL, 0);
	}
}

/* --- one job --- */

void slot_free(struct slot *slot)
{
	struct slot **link = &slot->control->slots;

	while (*link != slot)
		link = &(*link)->next;
	*link = slot->next;
	if (slot->client)
		slot->client->slot = NULL;
	for (struct client *client = slot->control->clients; client; client = client->next)
		if (client->asked == slot) {
			client->asked = NULL;
			client_error(client, JOB_STATUS_FAILED, "the job has ended");
		}
	sd_event_source_disable_unref(slot->timer);
	job_destroy(slot->job);
	json_decref(slot->backlog);
	free(slot);
}

static int on_client_missing(sd_event_source *source, uint64_t usec, void *arg)
{
	struct slot *slot = arg;

	if (slot->gone)
		slot_free(slot);
	else if (!slot->client)
		job_want_end(slot->job, "its 'ckptctl run' is gone, so the job was ended; its checkpoints "
					"are kept and the same line goes on from the last one");
	return 0;
}

static void slot_arm(struct slot *slot, uint64_t usec)
{
	sd_event_source_disable_unref(slot->timer);
	slot->timer = NULL;
	if (usec)
		sd_event_add_time_relative(slot->control->event, &slot->timer, CLOCK_MONOTONIC, usec, 0,
					   on_client_missing, slot);
}

struct slot *slot_new(struct control *control)
{
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return NULL;
	slot->control = control;
	slot->backlog = json_array();
	slot->next = control->slots;
	control->slots = slot;
	return slot;
}

void slot_discard(struct slot *slot)
{
	slot->control->slots = slot->next;
	json_decref(slot->backlog);
	free(slot);
}

struct slot *slot_find(struct control *control, const char *id)
{
	for (struct slot *slot = control->slots; slot; slot = slot->next)
		if (!strcmp(job_id(slot->job), id))
			return slot;
	return NULL;
}

void slot_attach(struct slot *slot, struct client *client)
{
	json_t *running = job_running_event(slot->job);
	json_t *event;
	size_t i;

	slot->client = client;
	client->slot = slot;
	slot_arm(slot, 0);
	if (running) {
		slot_deliver(slot, running);
		json_decref(running);
	}
	json_array_foreach(slot->backlog, i, event)
		if (strcmp(json_string_value(json_object_get(event, "event")), "running"))
			slot_deliver(slot, event);
	json_array_clear(slot->backlog);
	if (slot->gone)
		slot_free(slot);
}

void slot_detach(struct slot *slot)
{
	slot->client = NULL;
	slot_arm(slot, slot->gone ? KEEP_ENDED_US : RECONNECT_US);
}

/* --- what jobs say --- */

/* The job has told its end: done if somebody heard it. */
static void slot_gone(struct slot *slot)
{
	slot->gone = true;
	if (slot->client || slot->told)
		slot_free(slot);
	else
		slot_arm(slot, KEEP_ENDED_US);
}

static void slot_pump(struct slot *slot)
{
	json_t *event;

	while ((event = job_next_event(slot->job))) {
		const char *kind = json_string_value(json_object_get(event, "event"));
		bool gone = !strcmp(kind, "gone");

		if (!strcmp(kind, "checkpoint"))
			answer_askers(slot, event);
		else if (!gone && strcmp(kind, "left"))
			slot_deliver(slot, event);
		json_decref(event);
		if (gone) {
			slot_gone(slot);
			return;
		}
	}
}

static int on_job_event(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct control *control = arg;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return 0;
	for (struct slot *slot = control->slots, *next; slot; slot = next) {
		next = slot->next;
		slot_pump(slot);
	}
	return 0;
}

void control_watch_jobs(struct control *control)
{
	sd_event_add_io(control->event, NULL, control->setup->event_fd, EPOLLIN, on_job_event, control);
}

void control_adopt_jobs(struct control *control)
{
	char base[PATH_MAX];
	struct dirent *entry;
	struct problem problem;
	DIR *dir;

	job_base_directory(control->setup->work_dir, base, sizeof(base));
	dir = opendir(base);
	while (dir && (entry = readdir(dir))) {
		struct slot *slot;
		int ret;

		if (entry->d_name[0] == '.')
			continue;
		slot = slot_new(control);
		if (!slot)
			break;
		log_set_job(entry->d_name);
		ret = job_adopt(&slot->job, control->setup, control->config, entry->d_name, &problem);
		if (ret == 0) {
			slot_arm(slot, RECONNECT_US);
			continue;
		}
		slot_discard(slot);
		if (ret != -ENOENT)
			log_err("%s", problem.text);
	}
	log_set_job("");
	if (dir)
		closedir(dir);
}
