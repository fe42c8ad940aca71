/* SPDX-License-Identifier: GPL-2.0 */
/*
 * We are CRIU's page server.  While criu dumps the frozen job it sends, for each task and each
 * shared memory object, the exact runs of present pages: with data what it takes for dirty, without
 * what it takes for unchanged since the last pass.  What it names without data and we do not hold,
 * is read from the task.  Afterwards the page map holds exactly the pages that CRIU named.
 *
 * Messages, native layout (criu/page-xfer.c):
 *   up to 4.1.1   u32 command, u32 pages, u64 address, u64 id              24 bytes
 *   from 4.2      u32 command, u32 0, u64 pages, u64 address, u64 id       32 bytes
 * command: low half the command, high half flags; id: CRIU's id << 8 | kind of space.
 */
#ifndef CKPT_PAGESERVER_H
#define CKPT_PAGESERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "criu.h"
#include "packer.h"
#include "problem.h"
#include "reader.h"

struct pageserver_stats {
	uint64_t pages_named;   /* present pages of the job */
	uint64_t pages_sent;    /* came with data */
	uint64_t pages_read;    /* named without data, not held: read from the task */
};

/*
 * Serves until criu closes.  idle_ms: longest silence that is borne.  On an error criu must be
 * waited for and the pass be taken as failed.
 */
int pageserver_serve(int socket, const struct criu_version *criu, struct reader *reader, struct packer *packer,
		     int idle_ms, struct pageserver_stats *stats, struct problem *problem);

#endif
