/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The thread's file system ids, for a scope: what is opened, made or removed in it is done with the
 * rights of that user, and without root's, so that a server that squashes root sees none of root's
 * accesses, and a user's links lead nowhere that the user could not go.
 */
#ifndef CKPT_IDENTITY_H
#define CKPT_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define IDENTITY_GROUPS 64

/* What to go back to. */
struct identity {
	uid_t uid;
	gid_t gid;
	gid_t groups[IDENTITY_GROUPS];
	int group_count; /* -1: they were not changed */
	bool entered;
};
#define identity_scope __attribute__((cleanup(identity_leave)))

/* 0, or -EPERM: the daemon may not. Also then to be left. The thread's groups stay. */
int identity_enter(struct identity *caller, uid_t uid, gid_t gid);
/* The same with the user's groups, on which access to a project's directories hangs. */
int identity_enter_groups(struct identity *caller, uid_t uid, gid_t gid, const gid_t *groups,
			  size_t group_count);
void identity_leave(struct identity *caller);

#endif
