// SPDX-License-Identifier: GPL-2.0
#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "host.h"
#include "log.h"
#include "metrics.h"
#include "notice.h"
#include "reader.h"
#include "retain.h"
#include "wire.h"

/* Connections, and what one user may have of them who is not root, so that there are some left for others. */
#define MAX_CLIENTS 2048
#define MAX_USER_CLIENTS 512
/* Of one such user: memory for requests that are not whole yet. */
#define MAX_USER_BYTES (64ull << 20)

/* A `run` whose ckptd was restarted comes back within a second; one that is gone never does. */
#define RECONNECT_US (20 * 1000000ull)
/* How long the end of a job is kept for its `run`. */
#define KEEP_ENDED_US (600 * 1000000ull)
/* How often after a notice it is asked whether the final checkpoints are late. */
#define DEADLINE_US 200000ull
/* Its members see all jobs, as root does, and may have checkpoints taken of them. */
#define ADMIN_GROUP "ckpt"

struct client {
	struct control *control;
	struct client *next;
	sd_event_source *source;
	int fd;
	struct ucred who;
	enum { NOT_ASKED, NO_ADMIN, ADMIN } admin; /* is it in ADMIN_GROUP? */
	struct wire_input input;
	struct slot *slot;      /* the job that it runs */
	struct slot *asked;     /* the job whose checkpoint it waits for */
};

/* A job and who is to be told about it. */
struct slot {
	struct control *control;
	struct slot *next;
	struct job *job;
	struct client *client;
	json_t *backlog;        /* events while no client is there */
	sd_event_source *timer; /* ends the wait for a client */
	bool told;              /* a client has heard how it ended */
	bool gone;
};

struct control {
	sd_event *event;
	struct job_setup *setup;
	struct job_shared shared;
	struct config *config;
	char *config_problem;   /* why the last reload was refused; NULL: it was not */
	char config_kept[200];  /* keys whose new values wait for the next start */
	struct client *clients;
	unsigned int client_count;
	struct slot *slots;
	struct notice_source *notices;
	sd_event_source *notice_event;
	struct retain *retain;
	int listen_fd;
	int64_t deadline_ms;    /* of the interruption; 0: none is known */
	sd_event_source *deadline_timer;
	bool warned;            /* a rebalance recommendation was seen */
	json_t *notice;         /* for status */
	bool metrics_failed;    /* the last time they were written */
	json_t *notices_problem; /* why notices cannot be seen; NULL or null: they can */
};

/* --- telling clients --- */

static void client_free(struct client *client);

static void client_send(struct client *client, const json_t *message, const int *fds, size_t count)
{
	int ret = wire_send(client->fd, message, fds, count, MSG_DONTWAIT);

	/* The hang-up is seen by the loop, which then frees the client. */
	if (ret)
		shutdown(client->fd, SHUT_RDWR);
}

static void client_error(struct client *client, int status, const char *text)
{
	json_t *answer = json_pack("{s:s, s:i, s:s, s:s}", "event", "failed", "status", status, "text",
				   text, "error", text);

	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

static bool is_end(const char *kind)
{
	return !strcmp(kind, "ended") || !strcmp(kind, "interrupted") || !strcmp(kind, "failed");
}

/* It has not read what it was told before: it may have been stopped. */
static bool is_behind(const struct client *client)
{
	int bytes = 0;

	return ioctl(client->fd, SIOCOUTQ, &bytes) || bytes;
}

static void slot_deliver(struct slot *slot, json_t *event)
{
	const char *kind = json_string_value(json_object_get(event, "event"));
	int fds[2];
	size_t count = 0;

	if (!slot->client && !strcmp(kind, "lease"))
		return; /* the running event will tell */
	if (!strcmp(kind, "progress") && (!slot->client || is_behind(slot->client)))
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

/* --- slots --- */

static void slot_free(struct slot *slot)
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

static struct slot *slot_new(struct control *control)
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

static void slot_discard(struct slot *slot)
{
	slot->control->slots = slot->next;
	json_decref(slot->backlog);
	free(slot);
}

static struct slot *slot_find(struct control *control, const char *id)
{
	for (struct slot *slot = control->slots; slot; slot = slot->next)
		if (!strcmp(job_id(slot->job), id))
			return slot;
	return NULL;
}

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

/* --- requests --- */

static void slot_attach(struct slot *slot, struct client *client)
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

static int job_name(const json_t *request, uid_t uid, char *id, size_t bytes,
		    struct problem *problem)
{
	const char *name = json_string_value(json_object_get(request, "job"));
	int ret = name ? job_check_name(name, problem)
		       : problem_set(problem, EPROTO, "the request names no job");

	if (ret == 0)
		snprintf(id, bytes, "%u-%s", uid, name);
	return ret;
}

/* Where the caller is, is the kernel's word too; its environment and arguments are its own. */
static int read_caller(struct client *client, const json_t *request, struct caller *caller,
		       struct problem *problem)
{
	int fds[WIRE_MAX_FDS];
	size_t count = wire_take_fds(&client->input, fds);
	int ret;

	memset(caller, 0, sizeof(*caller));
	ret = caller_from_socket(caller, client->fd, problem);
	if (count)
		caller->stdin_fd = fds[0];
	for (size_t i = 1; i < count; i++)
		close(fds[i]);
	if (ret)
		return ret;
	caller->arguments = wire_to_vector(json_object_get(request, "arguments"));
	caller->environment = wire_to_vector(json_object_get(request, "environment"));
	caller->cwd = wire_to_bytes(json_object_get(request, "cwd"));
	if (!caller->arguments || !caller->arguments[0] || !caller->environment || !caller->cwd ||
	    *caller->cwd != '/')
		return problem_set(problem, EPROTO, "the request is not of this version of ckpt");
	return 0;
}

static int run_new(struct client *client, const json_t *request, const char *id,
		   struct problem *problem)
{
	struct control *control = client->control;
	const char *class = json_string_value(json_object_get(request, "class"));
	struct job_request wanted = { .id = id };
	struct slot *slot;
	int ret;

	wanted.class = class ? config_class(control->config, class) : NULL;
	if (!wanted.class)
		return problem_set(problem, ENOENT, "there is no job class '%.60s' in ckptd's "
				   "configuration; 'ckptctl status' lists them", class ? class : "");
	ret = read_caller(client, request, &wanted.caller, problem);
	if (ret) {
		caller_free(&wanted.caller);
		return ret;
	}
	wanted.warned = control->warned;
	wanted.merged = json_is_true(json_object_get(request, "merged"));
	wanted.outputs = json_deep_copy(json_object_get(request, "outputs"));
	slot = slot_new(control);
	if (!slot)
		return problem_set(problem, ENOMEM, "out of memory");
	ret = job_create(&slot->job, control->setup, &wanted, problem);
	if (ret) {
		slot_discard(slot);
		return ret;
	}
	slot_attach(slot, client);
	return 0;
}

static void serve_run(struct client *client, const json_t *request)
{
	struct control *control = client->control;
	bool resume = json_is_true(json_object_get(request, "resume"));
	struct problem problem;
	struct slot *slot;
	char id[160];
	int ret = job_name(request, client->who.uid, id, sizeof(id), &problem);

	slot = ret ? NULL : slot_find(control, id);
	/* It has ended, and who was to hear of it will not come any more. */
	if (slot && slot->gone && !resume) {
		slot_free(slot);
		slot = NULL;
	}
	if (ret == 0 && client->slot)
		ret = problem_set(&problem, EBUSY, "one run per connection");
	else if (ret == 0 && slot && resume && !slot->client)
		slot_attach(slot, client);
	else if (ret == 0 && slot)
		ret = problem_set(&problem, EBUSY, "the job %s runs on this node already; two of one job "
				  "cannot run at a time. Use another name (--job NAME)", id);
	else if (ret == 0 && control->deadline_ms) {
		client_error(client, JOB_STATUS_INTERRUPTED, "this node will be taken away: nothing is started "
			     "here any more; run the same line on another node");
		return;
	} else if (ret == 0)
		ret = run_new(client, request, id, &problem);
	if (ret)
		client_error(client, JOB_STATUS_FAILED, problem.text);
}

/* The group may be far away, in a directory service: it is asked for only when it matters. */
static bool is_admin(struct client *client)
{
	if (client->admin == NOT_ASKED)
		client->admin = caller_in_group(client->fd, ADMIN_GROUP) ? ADMIN : NO_ADMIN;
	return client->admin == ADMIN;
}

static bool may_see(struct client *client, const struct job *job)
{
	return client->who.uid == 0 || client->who.uid == job_uid(job) || is_admin(client);
}

/* For whom: NULL for nobody in particular, who sees all. */
static json_t *make_status(const struct control *control, struct client *client)
{
	json_t *jobs = json_array(), *classes = json_array(), *config;
	const struct config *now = control->config;

	for (struct slot *slot = control->slots; slot; slot = slot->next)
		if ((!client || may_see(client, slot->job)) && !slot->gone)
			json_array_append_new(jobs, job_status(slot->job));
	for (size_t i = 0; i < now->class_count; i++)
		json_array_append_new(classes, json_string(now->classes[i]->name));
	config = json_pack("{s:s, s:s?, s:s}", "path", now->path, "refused", control->config_problem,
			   "waits_for_restart", control->config_kept);
	return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:O?, s:s, s:O?}", "version", CKPT_VERSION,
			 "node", control->setup->node, "criu", control->setup->criu.text,
			 "criu_tracks_memory", control->setup->criu.tracks_memory, "jobs", jobs,
			 "classes", classes, "config", config, "notice", control->notice, "notices",
			 now->imds_endpoint, "notices_problem", control->notices_problem);
}

static void serve_status(struct client *client)
{
	json_t *answer = make_status(client->control, client);

	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

static void serve_checkpoint(struct client *client, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "job"));
	struct slot *slot = NULL;
	struct problem problem;
	char id[160];

	/* Who sees any user's job may name it by its full name. */
	if (name && job_name(request, client->who.uid, id, sizeof(id), &problem) == 0)
		slot = slot_find(client->control, id) ?: slot_find(client->control, name);
	if (!slot || slot->gone || !may_see(client, slot->job)) {
		client_error(client, JOB_STATUS_FAILED, "there is no such job of yours on this node; "
			     "'ckptctl status' lists them");
		return;
	}
	client->asked = slot;
	if (json_is_true(json_object_get(request, "end")))
		job_want_saved(slot->job);
	else
		job_want_checkpoint(slot->job);
}

static int reload(struct control *control, struct problem *problem);

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

static void drain(struct control *control, int64_t deadline_ms, const char *why)
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

static void serve_drain(struct client *client, const json_t *request)
{
	json_int_t seconds = json_integer_value(json_object_get(request, "seconds"));
	json_t *answer;

	if (client->who.uid != 0) {
		client_error(client, JOB_STATUS_FAILED, "only root may drain a node");
		return;
	}
	if (seconds < 1 || seconds > 86400) {
		client_error(client, JOB_STATUS_FAILED, "the window is 1 to 86400 seconds");
		return;
	}
	drain(client->control, clock_ms() + seconds * 1000, "ckptctl drain");
	answer = json_pack("{s:b}", "ok", true);
	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

static void serve_config(struct client *client, const json_t *request)
{
	const struct config *config = client->control->config;
	const char *name = json_string_value(json_object_get(request, "class"));
	const struct class *class = name ? config_class(config, name) : NULL;
	json_t *answer;

	if (name && !class) {
		client_error(client, JOB_STATUS_FAILED, "there is no job class of that name; 'ckptctl status' "
			     "lists them");
		return;
	}
	answer = json_pack("{s:s, s:o}", "section", name ?: "daemon", "keys",
			   class ? class_describe(class) : config_describe(config));
	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

static void serve_reload(struct client *client)
{
	struct problem problem;
	json_t *answer;

	if (client->who.uid != 0) {
		client_error(client, JOB_STATUS_FAILED, "only root may reload the configuration");
		return;
	}
	if (reload(client->control, &problem)) {
		client_error(client, JOB_STATUS_FAILED, problem.text);
		return;
	}
	answer = json_pack("{s:s}", "waits_for_restart", client->control->config_kept);
	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

static void serve_signal(struct client *client, const json_t *request)
{
	json_int_t number = json_integer_value(json_object_get(request, "number"));

	if (!client->slot || number <= 0 || number >= NSIG)
		return;
	log_set_job(job_id(client->slot->job));
	job_signal(client->slot->job, (int)number);
	log_set_job("");
}

static void serve_outputs(struct client *client, const json_t *request)
{
	json_t *bases = json_object_get(request, "bases");

	if (client->slot && json_is_object(bases))
		job_set_output_bases(client->slot->job, bases);
}

static void serve_request(struct client *client, const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op")) ?: "";

	if (!strcmp(op, "run"))
		serve_run(client, request);
	else if (!strcmp(op, "signal"))
		serve_signal(client, request);
	else if (!strcmp(op, "outputs"))
		serve_outputs(client, request);
	else if (!strcmp(op, "status"))
		serve_status(client);
	else if (!strcmp(op, "checkpoint"))
		serve_checkpoint(client, request);
	else if (!strcmp(op, "drain"))
		serve_drain(client, request);
	else if (!strcmp(op, "config"))
		serve_config(client, request);
	else if (!strcmp(op, "reload"))
		serve_reload(client);
	else
		client_error(client, JOB_STATUS_FAILED, "unknown request: are ckptctl and ckptd of one "
							 "version?");
}

/* --- clients --- */

static void client_free(struct client *client)
{
	struct client **link = &client->control->clients;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	client->control->client_count--;
	if (client->slot) {
		client->slot->client = NULL;
		slot_arm(client->slot, client->slot->gone ? KEEP_ENDED_US : RECONNECT_US);
	}
	sd_event_source_disable_unref(client->source);
	wire_input_free(&client->input);
	close(client->fd);
	free(client);
}

/* What all connections of its user have. */
static void count_user(const struct client *client, unsigned int *clients, uint64_t *bytes)
{
	*clients = 0;
	*bytes = 0;
	for (struct client *other = client->control->clients; other; other = other->next) {
		if (other->who.uid != client->who.uid)
			continue;
		++*clients;
		*bytes += other->input.space;
	}
}

static bool takes_too_much(const struct client *client)
{
	unsigned int clients;
	uint64_t bytes;

	if (client->who.uid == 0)
		return false;
	count_user(client, &clients, &bytes);
	if (clients <= MAX_USER_CLIENTS && bytes <= MAX_USER_BYTES)
		return false;
	log_warn("a connection of user %u is closed: it has %u, with %.1f MiB of requests", client->who.uid, clients,
		 (double)bytes / (1 << 20));
	return true;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct client *client = arg;
	json_t *request;
	int ret = wire_receive(fd, &client->input, MSG_DONTWAIT), err;

	while (ret == 0 && (request = wire_next(&client->input, &err))) {
		serve_request(client, request);
		json_decref(request);
	}
	if (ret == 0 && err)
		ret = err;
	if ((ret && ret != -EAGAIN) || takes_too_much(client))
		client_free(client);
	return 0;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct control *control = arg;
	struct client *client;
	socklen_t bytes = sizeof(struct ucred);
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (connection < 0)
		return 0;
	client = control->client_count < MAX_CLIENTS ? calloc(1, sizeof(*client)) : NULL;
	if (!client || getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &client->who, &bytes)) {
		log_warn("a connection is refused: %u are open", control->client_count);
		free(client);
		close(connection);
		return 0;
	}
	client->control = control;
	client->fd = connection;
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	if (takes_too_much(client)) {
		client_free(client);
		return 0;
	}
	sd_event_add_io(control->event, &client->source, connection, EPOLLIN, on_client, client);
	return 0;
}

static int listen_socket(struct control *control, struct problem *problem)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = WIRE_SOCKET };

	control->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(WIRE_SOCKET);
	if (control->listen_fd < 0 ||
	    bind(control->listen_fd, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(WIRE_SOCKET, 0666) || listen(control->listen_fd, 64))
		return problem_set(problem, errno, "cannot listen on %s: %s", WIRE_SOCKET,
				   strerror(errno));
	sd_event_add_io(control->event, NULL, control->listen_fd, EPOLLIN, on_connect, control);
	return 0;
}

/* --- metrics --- */

static void write_metrics(struct control *control)
{
	const char *path = control->config->metrics_file;
	struct problem problem;
	json_t *status;
	bool failed;

	if (!path)
		return;
	status = make_status(control, NULL);
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

/* --- notices --- */

static int on_notice(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct control *control = arg;
	struct notice notice;

	if (read(fd, &notice, sizeof(notice)) != sizeof(notice))
		return 0;
	switch (notice.kind) {
	case NOTICE_INTERRUPTION:
		drain(control, notice.deadline_ms, notice.text);
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

static int watch_notices(struct control *control, struct problem *problem)
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

/* The source starts anew: a notice that it then reports again changes nothing. */
static void rewatch_notices(struct control *control, const struct config *old)
{
	const struct config *now = control->config;
	struct problem problem;

	if (!strcmp(now->imds_endpoint, old->imds_endpoint) && now->imds_poll_ms == old->imds_poll_ms &&
	    now->imds_timeout_ms == old->imds_timeout_ms)
		return;
	sd_event_source_disable_unref(control->notice_event);
	control->notice_event = NULL;
	notice_stop(control->notices);
	control->notices = NULL;
	if (watch_notices(control, &problem))
		log_err("notices cannot be seen any more: %s", problem.text);
}

/* --- a reload --- */

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

static int reload(struct control *control, struct problem *problem)
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
	rewatch_notices(control, old);
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

static void adopt_jobs(struct control *control)
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

	reload(arg, &problem);
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
	sd_event_add_io(control->event, NULL, setup->event_fd, EPOLLIN, on_job_event, control);
	ret = listen_socket(control, problem);
	if (ret == 0)
		ret = watch_notices(control, problem);
	if (ret == 0)
		ret = retain_start(&control->retain, config, &setup->keys, setup->node, problem);
	if (ret) {
		control_destroy(control);
		return ret;
	}
	adopt_jobs(control);
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
	sd_event_source_disable_unref(control->notice_event);
	sd_event_source_disable_unref(control->deadline_timer);
	notice_stop(control->notices);
	retain_stop(control->retain);
	if (control->listen_fd >= 0) {
		close(control->listen_fd);
		unlink(WIRE_SOCKET);
	}
	close(control->setup->event_fd);
	json_decref(control->notice);
	json_decref(control->notices_problem);
	remove_metrics(control->config);
	config_free(control->config);
	free(control->config_problem);
	sd_event_unref(control->event);
	free(control);
}
