/* SPDX-License-Identifier: GPL-2.0 */
/* What ckpt-pages asks /proc about the processes whose memory it gives. With the server's lock held. */
#ifndef CKPT_LAZY_CHECK_H
#define CKPT_LAZY_CHECK_H

#include <stdbool.h>

#include "lazy_serve.h"

/*
 * The job's processes stand, and must not run unless every missing page is absent and watched, so that
 * nobody can touch it unnoticed. 0, or the server has failed.
 */
int lazy_check_restored(struct lazy_server *server);
/* Whether the process, of which the pid may not be known, certainly has one thread. */
bool lazy_check_alone(struct lazy_server *server, struct lazy_process *process);
/* Whether a child of the process would not get all that is missing: some may become empty there. */
bool lazy_check_wiped(struct lazy_server *server, struct lazy_process *process);

#endif
