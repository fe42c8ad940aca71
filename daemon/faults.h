/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault points: named places where a test makes ckpt fail or die.  CKPT_FAULT in the environment, or
 * fault_arm(), arms one:
 *
 *   NAME[:COUNT][=ERRNO|kill|stop]     store.fsync=ENOSPC    packer.write:3=kill    *:17=kill
 *
 * It fires once, at the COUNT-th hit (1 unless given) of the point, or of any point for "*"; ERRNO is
 * a name or a number, EIO unless given; with stop it goes on there at SIGCONT.  Points whose name has
 * "no_" switch a capability off: they fire at every hit from the COUNT-th on, and "*" does not mean them.
 */
#ifndef CKPT_FAULTS_H
#define CKPT_FAULTS_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

extern bool faults_armed;

/* 0 or -EINVAL. NULL disarms. */
int fault_arm(const char *spec);
bool fault_fired(void);
int fault_hit(const char *name);

/* 0, or -errno of the fault that is armed here. */
static inline int fault(const char *name)
{
	return __builtin_expect(faults_armed, 0) ? fault_hit(name) : 0;
}

/* One system call behind its fault point: 0 or -errno. */
#define try_call(point, call)                                                                      \
	({                                                                                         \
		int err_ = fault(point);                                                           \
		if (!err_ && (call) < 0)                                                           \
			err_ = -errno;                                                             \
		err_;                                                                              \
	})

#endif
