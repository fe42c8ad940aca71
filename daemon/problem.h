/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A problem is what a person is told when something failed: what, on what, why, and what to do.
 * Functions that can fail for a reason that a user or an admin can mend take one and return
 * problem_set()'s result.  A NULL problem is allowed: the text is then dropped.
 */
#ifndef CKPT_PROBLEM_H
#define CKPT_PROBLEM_H

#include <stdbool.h>

struct problem {
	char text[1024];
};

/*
 * Names of files may hold anything, and what is said of them goes to terminals, and into JSON: what is no text becomes
 * question marks.
 */
void problem_clean(char *text);
/* Writes the text, cleaned, and returns -err (err is a positive errno). */
int problem_set(struct problem *problem, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Whether ckptd lacks something (err as above): where it fails for that, nothing is known of what it was to look at. */
bool problem_is_shortage(int err);

#endif
