/* SPDX-License-Identifier: GPL-2.0 */
/* The traces that ckptbench policy brings along. */
#ifndef CKPT_TRACE_MADE_H
#define CKPT_TRACE_MADE_H

#include <stddef.h>

#include "trace.h"

struct trace_node {
	double memory_gib;
	double store_mib;               /* a second */
};

extern const struct trace_node trace_nodes[]; /* ends with 0 */

/* The name of each; NULL behind the last. */
const char *trace_shape(size_t shape);
int trace_make(struct trace *trace, size_t shape, const struct trace_node *node,
	       struct problem *problem);

#endif
