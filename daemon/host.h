/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Facts about a node that a job's memory depends on.  Programs probe the instruction set when they
 * start and rely on it ever after: a node that lacks a CPU flag of the checkpoint's is refused.
 */
#ifndef CKPT_HOST_H
#define CKPT_HOST_H

#include <jansson.h>

#include "problem.h"

/* {"node", "kernel", "cpu_vendor", "cpu_family", "cpu_model", "cpu_flags"} */
json_t *host_facts(void);
/* -ENOTSUP: this node cannot run what ran there. */
int host_check(const json_t *facts, struct problem *problem);

#endif
