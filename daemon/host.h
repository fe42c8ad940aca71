/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Facts about a node that a job's memory depends on.  Programs probe the instruction set when they
 * start and rely on it ever after: a node that lacks a CPU flag of the checkpoint's is refused.
 */
#ifndef CKPT_HOST_H
#define CKPT_HOST_H

#include <stdint.h>

#include <jansson.h>

#include "problem.h"

/*
 * {"node", "kernel", "memory_kib", "swap_kib", "cpu_vendor", "cpu_family", "cpu_model", "cpu_flags"}, and if they are known "zone" and
 * "instance_type".
 */
json_t *host_facts(void);
/* What the instance metadata say; "": it is not known. From then on part of the facts. */
void host_set_place(const char *zone, const char *instance_type);

#define HOST_WARNING 600

/*
 * Whether a job of which one process has that much memory, that ran there, can run here.  -ENOTSUP: no, this node lacks something; -EBADMSG: the
 * facts are none.  The warning tells what else differs, "" if nothing does.
 */
int host_compare(const json_t *there, const json_t *here, uint64_t memory_kib, char warning[HOST_WARNING],
		 struct problem *problem);
/* The same with this node. */
int host_check(const json_t *there, uint64_t memory_kib, char warning[HOST_WARNING], struct problem *problem);

#endif
