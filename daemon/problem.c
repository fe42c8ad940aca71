// SPDX-License-Identifier: GPL-2.0
#include "problem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

void problem_clean(char *text)
{
	json_t *string = json_string(text);
	bool is_utf8 = string;

	json_decref(string);
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f || (!is_utf8 && (unsigned char)*text >= 0x80))
			*text = '?';
}

int problem_set(struct problem *problem, int err, const char *format, ...)
{
	va_list args;

	if (problem) {
		va_start(args, format);
		vsnprintf(problem->text, sizeof(problem->text), format, args);
		va_end(args);
		problem_clean(problem->text);
	}
	return -err;
}

bool problem_is_shortage(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM;
}
