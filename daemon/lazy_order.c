// SPDX-License-Identifier: GPL-2.0
#include "lazy_order.h"

static bool overlap(uint64_t start, uint64_t end, uint64_t other_start, uint64_t other_end)
{
	return start < other_end && other_start < end;
}

static bool moves_meet(const struct lazy_change *one, const struct lazy_change *other)
{
	return overlap(one->from, one->from_end, other->from, other->from_end) ||
	       overlap(one->from, one->from_end, other->to, other->to_end) ||
	       overlap(one->to, one->to_end, other->from, other->from_end) ||
	       overlap(one->to, one->to_end, other->to, other->to_end);
}

/* Whether later may have happened before earlier with another outcome. */
static bool order_matters(const struct lazy_change *earlier, const struct lazy_change *later)
{
	if (earlier->kind == LAZY_FORK || later->kind == LAZY_FORK)
		return earlier->kind != later->kind;
	if (earlier->kind == LAZY_MOVE && later->kind == LAZY_MOVE)
		return moves_meet(earlier, later);
	/* Its own unmapping of what it left comes after a move, that of its target before: both are as told. */
	if (earlier->kind == LAZY_MOVE && later->kind == LAZY_DROP)
		return overlap(earlier->to, earlier->to_end, later->from, later->from_end);
	return false;
}

bool lazy_order_add(struct lazy_order *order, const struct lazy_change *change)
{
	bool clear = order->count < LAZY_GROUP_MAX;

	for (size_t i = 0; i < order->count; i++)
		clear &= !order_matters(&order->group[i], change);
	if (order->count < LAZY_GROUP_MAX)
		order->group[order->count++] = *change;
	return clear;
}
