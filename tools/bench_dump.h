/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of `ckptbench dump` share: the peer, and a job made for it. */
#ifndef CKPT_BENCH_DUMP_H
#define CKPT_BENCH_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <jansson.h>

#include "bench.h"

/* What ckptctl status has of it; NULL: there is no such job here. */
json_t *dump_job_status(const char *name);

/* Of one kind of saving. */
struct figures {
	struct samples frozen;  /* ms */
	struct samples durable; /* ms, from the freeze on */
	struct samples pages;
	struct samples mib;
};

void figures_free(struct figures *figures);

/* criu's. */
enum peer_dump {
	PEER_FULL,              /* dump */
	PEER_BASE,              /* pre-dump --track-mem: from here on the next one counts. It is not measured. */
	PEER_INCREMENTAL,       /* dump --track-mem --prev-images-dir, onto the base */
};

/* pid: the job's first process. Images are in the directory, which is emptied, but for an incremental's base. */
int peer_take(enum peer_dump how, pid_t pid, const char *directory, struct figures *figures);

/* A job under ckptd that holds incompressible memory and writes to it only when it is told. */
struct dump_job {
	char name[64];          /* as in ckptctl status */
	size_t bytes;
	pid_t run;              /* ckptctl */
	FILE *output;
	pid_t pid;              /* of its first process */
	uint64_t seed;
};

/* All return 0 or -errno, and have said why. */
int dump_job_start(struct dump_job *job, const char *class, size_t bytes, bool huge);
/* Writes to that share of its pages, at random. */
int dump_job_write(struct dump_job *job, double share);
void dump_job_end(struct dump_job *job);
/* The job's own main(): `ckptbench dump --hold MIB`. */
int dump_job_main(size_t bytes, bool huge);

#endif
