/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What ckptd tells ckpt-pages, which gives a lazily restored job its memory.  Both come from one build
 * and run on one host, so this is a plain structure, in a memfd.
 *
 * The one danger is a userfaultfd that closes too early: the kernel then gives zeros where pages are
 * missing, and the job is silently wrong.  So the descriptors are in a table that two processes share
 * (CLONE_FILES): ckpt-pages and its holder, which does nothing but live.  Whichever of the two dies, the
 * other kills the job and keeps the table until the last of the job's processes is gone.  The holder is
 * in the cgroup of the job's caller, so that nothing that kills a whole cgroup takes both.  Should both die
 * at once, ckpt-init sees the end of the socket that they hold, and kills the job; and until all of it is
 * gone it has the vault: a socket in which each userfaultfd lies as a message that nobody receives.  (What
 * the vault cannot hold is the moment in which a fork's descriptor has come into the table and not yet into
 * it.)  ckptd is not needed: without it the rest comes all the same.
 *
 *   ckpt-pages ═══ table ═══ ckpt-holder        │ whoever of them is left kills the job, and keeps what it
 *        └── vault ──> ckpt-init                │ has until nothing of the job is left
 *
 *   criu restore ── pid, userfaultfd of each process ──> lazy-pages.socket ──> ckpt-pages
 *   ckpt-gate (criu's action script at post-restore) ──> lazy-pages.socket      │ checks that all that is
 *        waits for "!": only then the job may run  <────────────────────────────┘ missing is watched
 *
 * The state file, the job's INIT_LAZY, is there and locked as long as pages are missing.  It is removed
 * when all have come; if they cannot come, it says why, and the job is killed.
 */
#ifndef CKPT_LAZY_SPEC_H
#define CKPT_LAZY_SPEC_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "key.h"

#define LAZY_MAGIC 0x797a616cu
#define LAZY_SOCKET "lazy-pages.socket"  /* CRIU's name for it, in its working directory */
#define LAZY_READY '+'
#define LAZY_GO '!'
#define LAZY_DONE '!'
#define LAZY_VAULT 'v'           /* with it comes what is kept in place of what came before */
/* CRIU's last word; smaller numbers are pids, and negative ones zombies. */
#define LAZY_FINISHED 0x52535446

enum lazy_fd {
	LAZY_FD_SPEC = 3,
	LAZY_FD_TABLE = 4,       /* lazy_table.h */
	LAZY_FD_SOCKET = 5,      /* listens */
	LAZY_FD_STATE = 6,       /* locked */
	LAZY_FD_DIRECTORY = 7,   /* the job's local directory */
	LAZY_FD_INIT = 8,        /* pidfd */
	LAZY_FD_WATCH = 9,       /* SOCK_SEQPACKET to ckpt-init: vaults, and LAZY_DONE when all has come */
	LAZY_FD_READY = 10,      /* write end: LAZY_READY when the holder lives */
	LAZY_FD_HOME = 11,       /* cgroup.procs of the caller's cgroup */
	LAZY_FD_COUNT = 12,
};

struct lazy_spec {
	uint32_t magic;
	uint32_t store_uid;
	uint32_t store_gid;
	uint64_t buffer_bytes;
	struct keys keys;
	char job[160];
	char store[PATH_MAX];
	char cgroup[PATH_MAX];
};

#endif
