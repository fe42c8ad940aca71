/* SPDX-License-Identifier: GPL-2.0 */
/* What /proc says about one process. All return 0 or -errno; -ESRCH: it is gone. */
#ifndef CKPT_PROC_H
#define CKPT_PROC_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "problem.h"

/* Clock ticks since boot at which it started: with the pid, an identity within one boot. */
int proc_start_time(pid_t pid, uint64_t *ticks);
int proc_threads(pid_t pid, uint64_t *threads);
/* 0: it has none here, or it is gone. */
pid_t proc_parent(pid_t pid);
/* Its pid in the innermost PID namespace that it is in. */
int proc_namespace_pid(pid_t pid, pid_t *inner);
/* The target of the link /proc/PID/name. */
int proc_link(pid_t pid, const char *name, char *target, size_t bytes);
int proc_umask(pid_t pid, unsigned int *umask);
int proc_oom_score_adj(pid_t pid, int *value);
/* Resident memory with swap, in KiB. */
int proc_memory_kib(pid_t pid, uint64_t *kib);
/* As in ps; '?' when it is gone. */
char proc_state(pid_t pid);
/* Who traces it, here; 0: nobody, or it is gone. */
pid_t proc_tracer(pid_t pid);
/* number and target: of one of its descriptors, as /proc/PID/fd shows them; directory: that, open. */
typedef int (*descriptor_each)(void *arg, int directory, const char *number, const char *target);
/* Stops at the first non-zero and returns it; the problem is only of what fails here. A process that is gone has none. */
int proc_each_descriptor(pid_t pid, descriptor_each each, void *arg, struct problem *problem);
/* A copy of a descriptor of the process's, or -errno; -ESRCH: it is closed. */
int proc_take_descriptor(int pidfd, const char *number);
/* One of its files there, for reading line by line; NULL: the process is gone. What ckptd lacks is no such reason. */
int proc_file(pid_t pid, const char *name, FILE **file);
/* After the last line that could be read: whether there are more. */
int proc_file_end(FILE *file);
/* An identity of this boot, to tell what an earlier one left behind. */
int proc_boot_id(char id[40]);

int pidfd_of(pid_t pid);
/* The root directory of its mounts, to open below (O_PATH), or -errno with the problem said. */
int proc_open_root(pid_t pid, struct problem *problem);

#endif
