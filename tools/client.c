// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "commands.h"
#include "job.h"
#include "wire.h"

void say(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("ckpt: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void say_no_daemon(int err)
{
	if (err == ENOENT || err == ECONNREFUSED)
		say("ckptd does not run on this node: systemctl start ckptd (as root); if it does not "
		    "stay up, 'journalctl -u ckptd' and 'ckptctl doctor' say why");
	else
		say("cannot reach ckptd at %s: %s", WIRE_SOCKET, strerror(err));
}

void print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
	putchar('\n');
}

static json_t *await_answer(int fd)
{
	struct wire_input input = { 0 };
	json_t *answer = NULL;
	int err = 0;

	while (!answer && !err) {
		err = wire_receive(fd, &input, 0);
		if (!err)
			answer = wire_next(&input, &err);
	}
	wire_input_free(&input);
	return answer;
}

json_t *ask(const json_t *request)
{
	cleanup_close int fd = wire_connect(WIRE_SOCKET);
	const char *error;
	json_t *answer;

	if (fd < 0) {
		say_no_daemon(-fd);
		return NULL;
	}
	answer = wire_send(fd, request, NULL, 0, 0) == 0 ? await_answer(fd) : NULL;
	if (!answer) {
		say("ckptd did not answer: see its log (journalctl -u ckptd)");
		return NULL;
	}
	error = json_string_value(json_object_get(answer, "error"));
	if (error) {
		say("%s", error);
		json_decref(answer);
		return NULL;
	}
	return answer;
}

int ask_and_show(json_t *request, bool json, void (*show)(const json_t *answer))
{
	json_t *answer = ask(request);

	json_decref(request);
	if (!answer)
		return JOB_STATUS_FAILED;
	if (json)
		print_json(answer);
	else
		show(answer);
	json_decref(answer);
	return 0;
}
