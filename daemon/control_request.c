// SPDX-License-Identifier: GPL-2.0
#include "control_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

/* Its members see all jobs, as root does, and may have checkpoints taken of them. */
#define ADMIN_GROUP "ckpt"

/* --- who may see what --- */

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

json_t *control_status(const struct control *control, struct client *client)
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

/* --- a run --- */

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
	caller->stdin_fd = -1;
	ret = caller_from_socket(caller, client->fd, problem);
	caller->pidfd = client->pidfd >= 0 ? fcntl(client->pidfd, F_DUPFD_CLOEXEC, 0) : -1;
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
	ret = client_check_run(client, problem);
	if (ret)
		return ret;
	slot = slot_new(control);
	if (!slot)
		return problem_set(problem, ENOMEM, "out of memory");
	ret = read_caller(client, request, &wanted.caller, problem);
	if (ret) {
		caller_free(&wanted.caller);
	} else {
		wanted.warned = control->warned;
		wanted.merged = json_is_true(json_object_get(request, "merged"));
		wanted.outputs = json_deep_copy(json_object_get(request, "outputs"));
		ret = job_create(&slot->job, control->setup, &wanted, problem);
	}
	if (ret) {
		slot_discard(slot);
		return ret;
	}
	slot->bytes = client->input.cost;
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
	else if (ret == 0 && slot && !slot->client) {
		client_wait(client, "who ran this job here before is gone, and it is being ended; waiting for that");
		return;
	} else if (ret == 0 && slot)
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

static void serve_signal(struct client *client, const json_t *request)
{
	json_int_t number = json_integer_value(json_object_get(request, "number"));

	if (!client->slot || number <= 0 || number >= NSIG)
		return;
	log_set_job(job_id(client->slot->job));
	job_signal(client->slot->job, (int)number);
	log_set_job("");
}

/* A number, or null. */
static json_t *base_of(const json_t *bases, const char *output)
{
	const json_t *base = json_object_get(bases, output);

	return json_is_integer(base) ? json_integer(json_integer_value(base)) : json_null();
}

static void serve_outputs(struct client *client, const json_t *request)
{
	const json_t *bases = json_object_get(request, "bases");

	if (client->slot && json_is_object(bases))
		job_set_output_bases(client->slot->job, json_pack("{s:o, s:o}", "stdout", base_of(bases, "stdout"),
								  "stderr", base_of(bases, "stderr")));
}

/* --- other requests --- */

static void serve_status(struct client *client)
{
	json_t *answer = control_status(client->control, client);

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
	control_drain(client->control, clock_ms() + seconds * 1000, "ckptctl drain");
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
	if (control_reload(client->control, &problem)) {
		client_error(client, JOB_STATUS_FAILED, problem.text);
		return;
	}
	answer = json_pack("{s:s}", "waits_for_restart", client->control->config_kept);
	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

void client_serve(struct client *client, const json_t *request)
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
