// SPDX-License-Identifier: GPL-2.0
#include "notice.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "notice_imds.h"

#define ACTION_PATH "/latest/meta-data/spot/instance-action"
#define ZONE_PATH "/latest/meta-data/placement/availability-zone"
#define TYPE_PATH "/latest/meta-data/instance-type"
#define REBALANCE_PATH "/latest/meta-data/events/recommendations/rebalance"
/* EC2 calls the notice's time approximate: only what is older than this has not happened. */
#define EXPIRED_S 30
/* The longest pause when the service says that it is asked too often. */
#define BACKOFF_MS 30000

/* What was reported last; it is one event until the service says 404 or its deadline is gone. */
struct event {
	bool reported;
	bool expired_logged;
	char action[16];
	int64_t epoch_s;
	int64_t deadline_ms;
};

struct notice_source {
	struct imds *imds;           /* NULL: nothing is watched, no thread runs */
	char *endpoint;
	unsigned int poll_ms;
	unsigned int window_ms;
	int read_fd, write_fd;
	pthread_t thread;
	/* Only the thread's from here on. */
	enum notice_kind state;      /* NOTICE_SOURCE_UP or _DOWN as last reported; 0: neither */
	struct event interruption;
	struct event rebalance;
	bool placed;                 /* the place was reported */
};

/* YYYY-MM-DDTHH:MM:SSZ and nothing else; a day that does not exist is none. -1: no time. */
static int64_t time_parse(const char *text)
{
	static const char shape[] = "dddd-dd-ddTdd:dd:ddZ";
	struct tm tm = { 0 }, back;
	time_t seconds;
	size_t i;

	for (i = 0; shape[i]; i++)
		if (shape[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != shape[i])
			return -1;
	if (text[i])
		return -1;
	sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
	       &tm.tm_min, &tm.tm_sec);
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	back = tm;
	seconds = timegm(&back);
	if (seconds < 0 || back.tm_mon != tm.tm_mon || back.tm_mday != tm.tm_mday ||
	    back.tm_hour != tm.tm_hour || back.tm_min != tm.tm_min || back.tm_sec != tm.tm_sec)
		return -1;
	return seconds;
}

static void time_print(char text[32], int64_t epoch_s)
{
	time_t seconds = epoch_s;
	struct tm tm;

	if (epoch_s < 0 || !gmtime_r(&seconds, &tm))
		snprintf(text, 32, "an unknown time");
	else
		strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *object_parse(const char *body)
{
	json_t *root = json_loads(body, JSON_REJECT_DUPLICATES, NULL);

	if (json_is_object(root))
		return root;
	json_decref(root);
	return NULL;
}

static int64_t object_time(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? time_parse(text) : -1;
}

int notice_parse_action(const char *body, char action[16], int64_t *epoch_s)
{
	json_t *root = object_parse(body);
	const char *text = json_string_value(json_object_get(root, "action"));
	int result = -EBADMSG;

	if (text && (!strcmp(text, "terminate") || !strcmp(text, "stop") || !strcmp(text, "hibernate"))) {
		snprintf(action, 16, "%s", text);
		*epoch_s = object_time(root, "time");
		result = 0;
	}
	json_decref(root);
	return result;
}

int notice_parse_rebalance(const char *body, int64_t *epoch_s)
{
	json_t *root = object_parse(body);
	int result = json_object_get(root, "noticeTime") ? 0 : -EBADMSG;

	*epoch_s = object_time(root, "noticeTime");
	json_decref(root);
	return result;
}

int notice_deadline(const char *action, int64_t epoch_s, int64_t wall_s, int64_t boot_ms,
		    unsigned int window_ms, int64_t *deadline_ms)
{
	int64_t left_s = epoch_s - wall_s;

	if (epoch_s >= 0 && left_s < -EXPIRED_S)
		return -ESTALE;
	if (!strcmp(action, "hibernate")) /* it starts at once */
		*deadline_ms = boot_ms;
	else if (epoch_s < 0 || left_s > window_ms / 1000)
		*deadline_ms = boot_ms + window_ms;
	else
		*deadline_ms = boot_ms + (left_s > 0 ? left_s * 1000 : 0);
	return 0;
}

/* A reader that does not read fills the pipe: then the next poll tries again. */
static bool source_send(struct notice_source *source, const struct notice *notice)
{
	return write(source->write_fd, notice, sizeof(*notice)) == sizeof(*notice);
}

static void source_report_state(struct notice_source *source, int result,
				const struct problem *problem)
{
	struct notice notice = { .kind = result ? NOTICE_SOURCE_DOWN : NOTICE_SOURCE_UP };

	if (source->state == notice.kind)
		return;
	if (result)
		snprintf(notice.text, sizeof(notice.text),
			 "instance metadata at %.80s cannot be asked: %.120s; notices cannot be seen: "
			 "only periodic checkpoints protect the jobs. Is this EC2? "
			 "'imds_endpoint = off' turns this off", source->endpoint, problem->text);
	else
		snprintf(notice.text, sizeof(notice.text),
			 "instance metadata at %.80s answers; watching for notices", source->endpoint);
	if (source_send(source, &notice))
		source->state = notice.kind;
}

static void event_log_expired(struct event *event, const char *action, int64_t epoch_s)
{
	char when[32];

	if (event->expired_logged)
		return;
	time_print(when, epoch_s);
	log_warn("notice ignored: EC2 wanted to %s this instance at %s, which has passed", action, when);
	event->expired_logged = true;
}

static bool event_same(const struct event *event, const char *action, int64_t epoch_s)
{
	return event->epoch_s == epoch_s && !strcmp(event->action, action);
}

/* An event stays the same one when its time is moved, as long as it can still come. */
static bool event_stands(const struct event *event, int64_t boot_ms)
{
	return event->reported && boot_ms < event->deadline_ms + EXPIRED_S * 1000;
}

/* It may be only a 404 in between: the same action at the same time stays known. */
static void event_clear(struct event *event)
{
	if (event->epoch_s < 0)
		event->action[0] = '\0';
	event->reported = false;
	event->expired_logged = false;
}

static void source_interrupt(struct notice_source *source, const char *action, int64_t epoch_s,
			     int64_t wall_s)
{
	struct notice notice = { .kind = NOTICE_INTERRUPTION };
	struct event *event = &source->interruption;
	int64_t boot_ms = clock_ms();
	char when[32];

	if (event_stands(event, boot_ms) || event_same(event, action, epoch_s))
		return;
	if (notice_deadline(action, epoch_s, wall_s, boot_ms, source->window_ms,
			    &notice.deadline_ms)) {
		event_log_expired(event, action, epoch_s);
		return;
	}
	time_print(when, epoch_s);
	snprintf(notice.text, sizeof(notice.text), "EC2 will %s this instance at %s: %lld s are left",
		 action, when, (long long)(notice.deadline_ms - boot_ms) / 1000);
	if (!source_send(source, &notice))
		return;
	*event = (struct event){ .reported = true, .epoch_s = epoch_s,
				 .deadline_ms = notice.deadline_ms };
	snprintf(event->action, sizeof(event->action), "%s", action);
}

static int source_ask_action(struct notice_source *source, struct problem *problem)
{
	struct imds_answer answer;
	int64_t epoch_s;
	char action[16];
	int result = imds_get(source->imds, ACTION_PATH, &answer, problem);

	if (result == -ENOENT) {
		event_clear(&source->interruption);
		return 0;
	}
	if (result)
		return result;
	/* A '\0' in the body would hide what follows it. */
	if (strlen(answer.body) != answer.length || notice_parse_action(answer.body, action, &epoch_s))
		return problem_set(problem, EBADMSG, "the answer for " ACTION_PATH " is no notice");
	source_interrupt(source, action, epoch_s, answer.date_s >= 0 ? answer.date_s : time(NULL));
	return 0;
}

static void source_rebalance(struct notice_source *source, int64_t epoch_s)
{
	struct notice notice = { .kind = NOTICE_REBALANCE };
	struct event *event = &source->rebalance;
	char when[32];

	if (event->reported)
		return;
	time_print(when, epoch_s);
	snprintf(notice.text, sizeof(notice.text),
		 "EC2 recommends to move away from this instance (said at %s)", when);
	event->reported = source_send(source, &notice);
}

static int source_ask_rebalance(struct notice_source *source, struct problem *problem)
{
	struct imds_answer answer;
	int64_t epoch_s;
	int result = imds_get(source->imds, REBALANCE_PATH, &answer, problem);

	if (result == -ENOENT) {
		event_clear(&source->rebalance);
		return 0;
	}
	if (result)
		return result;
	if (strlen(answer.body) != answer.length || notice_parse_rebalance(answer.body, &epoch_s))
		return problem_set(problem, EBADMSG, "the answer for " REBALANCE_PATH
				   " is no recommendation");
	source_rebalance(source, epoch_s);
	return 0;
}

/* One word, or nothing. */
static int source_ask_word(struct notice_source *source, const char *path, char word[40], struct problem *problem)
{
	struct imds_answer answer;
	int result = imds_get(source->imds, path, &answer, problem);

	word[0] = '\0';
	if (result == -ENOENT)
		return 0;
	if (result)
		return result;
	for (size_t i = 0; i < answer.length; i++)
		if (!isalnum((unsigned char)answer.body[i]) && !strchr(".-_", answer.body[i]))
			return problem_set(problem, EBADMSG, "the answer for %s is none", path);
	if (answer.length < 40)
		strcpy(word, answer.body);
	return 0;
}

/* Nothing depends on it: it is asked for after notices, and again with the next poll. */
static int source_ask_place(struct notice_source *source)
{
	struct notice notice = { .kind = NOTICE_PLACE };
	struct problem problem;
	int result;

	if (source->placed)
		return 0;
	result = source_ask_word(source, ZONE_PATH, notice.zone, &problem);
	if (!result)
		result = source_ask_word(source, TYPE_PATH, notice.type, &problem);
	if (!result)
		source->placed = source_send(source, &notice);
	return result;
}

static void *source_watch(void *arg)
{
	struct notice_source *source = arg;
	unsigned int wait_ms = source->poll_ms;
	struct problem problem;
	int result;

	for (;;) {
		result = source_ask_action(source, &problem);
		if (!result)
			result = source_ask_rebalance(source, &problem);
		if (result == -ECANCELED)
			return NULL;
		source_report_state(source, result, &problem);
		if (!result && source_ask_place(source) == -ECANCELED)
			return NULL;
		if (result != -EBUSY)
			wait_ms = source->poll_ms;
		else if (wait_ms < BACKOFF_MS)
			wait_ms = wait_ms * 2 < BACKOFF_MS ? wait_ms * 2 : BACKOFF_MS;
		if (imds_wait(source->imds, wait_ms))
			return NULL;
	}
}

/* Signals are for the daemon's event loop: the thread takes none. */
static int source_start_thread(struct notice_source *source, struct problem *problem)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&source->thread, NULL, source_watch, source);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return problem_set(problem, err, "cannot watch for notices: %s", strerror(err));
	pthread_setname_np(source->thread, "notice");
	return 0;
}

static void source_free(struct notice_source *source)
{
	imds_destroy(source->imds);
	cleanup_close_fn(&source->read_fd);
	cleanup_close_fn(&source->write_fd);
	free(source->endpoint);
	free(source);
}

static int source_open(struct notice_source *source, const struct notice_options *options,
		       struct problem *problem)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return problem_set(problem, errno, "cannot watch for notices: %s", strerror(errno));
	source->read_fd = fds[0];
	source->write_fd = fds[1];
	if (!options->endpoint || !*options->endpoint)
		return 0;
	source->endpoint = strdup(options->endpoint);
	if (!source->endpoint)
		return problem_set(problem, ENOMEM, "cannot watch for notices: out of memory");
	return imds_create(&source->imds, options->endpoint, options->timeout_ms, problem);
}

int notice_start(struct notice_source **source, const struct notice_options *options, int *fd,
		 struct problem *problem)
{
	struct notice_source *made = calloc(1, sizeof(*made));
	int result;

	if (!made)
		return problem_set(problem, ENOMEM, "cannot watch for notices: out of memory");
	made->read_fd = made->write_fd = -1;
	made->poll_ms = options->poll_ms;
	made->window_ms = options->window_ms;
	result = source_open(made, options, problem);
	if (!result && made->imds)
		result = source_start_thread(made, problem);
	if (result) {
		source_free(made);
		return result;
	}
	*source = made;
	*fd = made->read_fd;
	return 0;
}

void notice_stop(struct notice_source *source)
{
	if (!source)
		return;
	if (source->imds) {
		imds_interrupt(source->imds);
		pthread_join(source->thread, NULL);
	}
	source_free(source);
}
