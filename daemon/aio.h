/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Asynchronous I/O (io_setup, io_submit) of a job that stands still.  CRIU saves the rings and what has come to its end,
 * and does not wait for what is under way: a request that ends between the look at the memory that it reads to and the
 * look at its ring would be restored as done, without what it read.
 */
#ifndef CKPT_AIO_H
#define CKPT_AIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"

struct aio_ring {
	pid_t pid;
	uint64_t address;
	uint32_t tail;          /* moves with each request that ends */
};

struct aio_rings {
	struct aio_ring *list;
	size_t count;
};

/* Finds the rings, and waits until for a while no request has ended. rings is to be freed also after an error. */
int aio_settle(struct aio_rings *rings, const char *cgroup, struct problem *problem);
/* -EAGAIN: one has ended since; another error: that cannot be told. */
int aio_check(const struct aio_rings *rings, struct problem *problem);
void aio_free(struct aio_rings *rings);

#endif
