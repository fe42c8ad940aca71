/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How far long work is, on stderr: a bar that moves where a person looks on, else a line now and then.
 *
 *   1000-job  [############--------]  61 %  1.2 of 2.0 GiB  410 MiB/s  2 s left
 */
#ifndef CKPT_PROGRESS_H
#define CKPT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what;
	bool silent;
	int64_t begin_ms;
	int64_t shown_ms;
	bool shown;
};

void progress_begin(struct progress *progress, const char *what, bool silent);
/* Somebody else has been at work for so long, and tells how far it is: the first time it is shown at once. */
void progress_resume(struct progress *progress, int64_t since_ms);
void progress_show(struct progress *progress, uint64_t bytes_done, uint64_t bytes_all);
/* Takes the bar away. */
void progress_end(struct progress *progress);
/* "1.2 GiB" */
const char *bytes_text(char text[32], uint64_t bytes);

#endif
