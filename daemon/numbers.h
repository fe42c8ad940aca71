/* SPDX-License-Identifier: GPL-2.0 */
/* A set of numbers: inodes of what a job has open or mapped, ids of spaces. Zero it to start. */
#ifndef CKPT_NUMBERS_H
#define CKPT_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct numbers {
	uint64_t *list;
	size_t count;
	size_t space;
};

/* -ENOMEM. One that is the same as the one before it costs nothing. */
int numbers_add(struct numbers *numbers, uint64_t number);
/* When all are added: then they are found. */
void numbers_sort(struct numbers *numbers);
bool numbers_have(const struct numbers *numbers, uint64_t number);
void numbers_free(struct numbers *numbers);

#endif
