/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A job's TCP connections, and what becomes of them when it moves:
 *
 *	TCP_POLICY_ESTABLISHED  they move with it, if both ends are the job's own and have addresses that each
 *	                        node has (127.0.0.0/8, ::1); others are refused
 *	TCP_POLICY_CLOSE        they are gone: the program finds them closed after a restore
 *	TCP_POLICY_REFUSE       a job that has any is not saved
 *
 * CRIU saves one end after the other.  While the job stands still nothing moves between them if
 * neither end has anything left to send: then the network need not be locked meanwhile, which CRIU
 * would need nft or iptables for.
 */
#ifndef CKPT_TCP_H
#define CKPT_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "numbers.h"
#include "problem.h"

enum tcp_policy {
	TCP_POLICY_ESTABLISHED,
	TCP_POLICY_CLOSE,
	TCP_POLICY_REFUSE,
};

/* As a class says it; -EINVAL: it is none of them. */
int tcp_policy_parse(const char *name, enum tcp_policy *policy);

struct tcp_found {
	size_t connections;     /* that the job has */
	bool moving;            /* something is on its way in one of them */
};

/*
 * sockets: the inodes of all that the job has, in any order; table: /proc/PID/net/tcp and tcp6, one
 * behind the other.  -ENOTSUP: they cannot be saved, the problem says which and why.
 */
int tcp_judge(struct numbers *sockets, const char *table, enum tcp_policy policy,
	      struct tcp_found *found, struct problem *problem);
/* Of tasks that share a network namespace. */
int tcp_check(const pid_t *pids, size_t count, enum tcp_policy policy, struct tcp_found *found,
	      struct problem *problem);

#endif
