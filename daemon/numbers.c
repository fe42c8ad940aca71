// SPDX-License-Identifier: GPL-2.0
#include "numbers.h"

#include <errno.h>
#include <stdlib.h>

int numbers_add(struct numbers *numbers, uint64_t number)
{
	if (numbers->count && numbers->list[numbers->count - 1] == number)
		return 0;
	if (numbers->count == numbers->space) {
		size_t space = numbers->space ? numbers->space * 2 : 64;
		uint64_t *list = reallocarray(numbers->list, space, sizeof(*list));

		if (!list)
			return -ENOMEM;
		numbers->list = list;
		numbers->space = space;
	}
	numbers->list[numbers->count++] = number;
	return 0;
}

static int number_order(const void *a, const void *b)
{
	const uint64_t *one = a, *other = b;

	return *one < *other ? -1 : *one > *other;
}

void numbers_sort(struct numbers *numbers)
{
	if (numbers->count)
		qsort(numbers->list, numbers->count, sizeof(*numbers->list), number_order);
}

bool numbers_have(const struct numbers *numbers, uint64_t number)
{
	return numbers->count &&
	       bsearch(&number, numbers->list, numbers->count, sizeof(number), number_order);
}

void numbers_free(struct numbers *numbers)
{
	free(numbers->list);
	*numbers = (struct numbers){ 0 };
}
