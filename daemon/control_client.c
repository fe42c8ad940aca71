// SPDX-License-Identifier: GPL-2.0
#include "control_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "proc.h"

/* Connections, and what one user may have of them who is not root, so that there are some left for others. */
#define MAX_CLIENTS 2048
#define MAX_USER_CLIENTS 512
/* Of one such user: jobs, and memory for requests that are not whole yet, and for those of jobs. */
#define MAX_USER_JOBS 512
#define MAX_USER_BYTES (64ull << 20)
/* However much they ask for, and however often they connect, notices and jobs come first; and each has its turn. */
#define CLIENT_PRIORITY SD_EVENT_PRIORITY_IDLE

/* --- telling it --- */

void client_send(struct client *client, const json_t *message, const int *fds, size_t count)
{
	int ret = wire_send(client->fd, message, fds, count, MSG_DONTWAIT);

	/* The hang-up is seen by the loop, which then frees the client. */
	if (ret)
		shutdown(client->fd, SHUT_RDWR);
}

void client_error(struct client *client, int status, const char *text)
{
	json_t *answer = json_pack("{s:s, s:i, s:s, s:s}", "event", "failed", "status", status, "text",
				   text, "error", text);

	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

void client_wait(struct client *client, const char *text)
{
	json_t *answer = json_pack("{s:s, s:s}", "event", "wait", "text", text);

	client_send(client, answer, NULL, 0);
	json_decref(answer);
}

bool client_is_behind(const struct client *client)
{
	int bytes = 0;

	return ioctl(client->fd, SIOCOUTQ, &bytes) || bytes;
}

/* --- connections --- */

void client_free(struct client *client)
{
	struct client **link = &client->control->clients;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	client->control->client_count--;
	if (client->slot)
		slot_detach(client->slot);
	sd_event_source_disable_unref(client->source);
	wire_input_free(&client->input);
	if (client->pidfd >= 0)
		close(client->pidfd);
	close(client->fd);
	free(client);
}

struct usage {
	unsigned int clients;
	unsigned int jobs;
	uint64_t bytes;
};

/* What its user has. */
static struct usage count_user(const struct client *client)
{
	struct usage usage = { 0 };

	for (struct client *other = client->control->clients; other; other = other->next) {
		if (other->who.uid != client->who.uid)
			continue;
		usage.clients++;
		usage.bytes += other->input.space;
	}
	for (struct slot *slot = client->control->slots; slot; slot = slot->next) {
		if (job_uid(slot->job) != client->who.uid)
			continue;
		usage.jobs++;
		usage.bytes += slot->bytes;
	}
	return usage;
}

int client_check_run(const struct client *client, struct problem *problem)
{
	struct usage usage = count_user(client);

	if (client->who.uid == 0)
		return 0;
	if (usage.jobs >= MAX_USER_JOBS)
		return problem_set(problem, EDQUOT, "user %u has %u jobs on this node already; more of one user are not "
				   "taken", client->who.uid, usage.jobs);
	if (usage.bytes + client->input.cost > MAX_USER_BYTES)
		return problem_set(problem, EDQUOT, "the arguments and variables of all jobs of user %u on this node take "
				   "more than %llu MiB; that is all that one user gets", client->who.uid, MAX_USER_BYTES >> 20);
	return 0;
}

static bool takes_too_much(const struct client *client)
{
	struct usage usage = count_user(client);

	if (client->who.uid == 0 || (usage.clients <= MAX_USER_CLIENTS && usage.bytes <= MAX_USER_BYTES))
		return false;
	log_warn("a connection of user %u is closed: it has %u, with %.1f MiB of requests", client->who.uid, usage.clients,
		 (double)usage.bytes / (1 << 20));
	return true;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct client *client = arg;
	json_t *request;
	int ret = wire_receive(fd, &client->input, MSG_DONTWAIT), err = 0;

	request = ret == 0 ? wire_next(&client->input, &err) : NULL;
	if (request)
		client_serve(client, request);
	json_decref(request);
	if (ret == 0)
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
	client->pidfd = pidfd_of(client->who.pid);
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	if (takes_too_much(client)) {
		client_free(client);
		return 0;
	}
	sd_event_add_io(control->event, &client->source, connection, EPOLLIN, on_client, client);
	sd_event_source_set_priority(client->source, CLIENT_PRIORITY);
	return 0;
}

int control_listen(struct control *control, struct problem *problem)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = WIRE_SOCKET };
	sd_event_source *source;

	control->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(WIRE_SOCKET);
	if (control->listen_fd < 0 ||
	    bind(control->listen_fd, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(WIRE_SOCKET, 0666) || listen(control->listen_fd, 64))
		return problem_set(problem, errno, "cannot listen on %s: %s", WIRE_SOCKET,
				   strerror(errno));
	sd_event_add_io(control->event, &source, control->listen_fd, EPOLLIN, on_connect, control);
	sd_event_source_set_priority(source, CLIENT_PRIORITY);
	sd_event_source_set_floating(source, true);
	sd_event_source_unref(source);
	return 0;
}

void control_unlisten(struct control *control)
{
	if (control->listen_fd < 0)
		return;
	close(control->listen_fd);
	unlink(WIRE_SOCKET);
}
