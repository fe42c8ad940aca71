// SPDX-License-Identifier: GPL-2.0
#include "identity.h"

#include <errno.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ids_set(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return (uid_t)setfsuid(-1) == uid && (gid_t)setfsgid(-1) == gid ? 0 : -EPERM;
}

int identity_enter(struct identity *caller, uid_t uid, gid_t gid)
{
	caller->uid = setfsuid(-1);
	caller->gid = setfsgid(-1);
	caller->group_count = -1;
	caller->entered = true;
	return ids_set(uid, gid);
}

/* The system call sets the groups of one thread; glibc's function those of all. */
int identity_enter_groups(struct identity *caller, uid_t uid, gid_t gid, const gid_t *groups,
			  size_t group_count)
{
	gid_t before[IDENTITY_GROUPS];
	int count = getgroups(IDENTITY_GROUPS, before);

	if (count < 0 || syscall(SYS_setgroups, group_count, groups)) {
		caller->entered = false;
		return -errno;
	}
	caller->uid = setfsuid(-1);
	caller->gid = setfsgid(-1);
	for (int i = 0; i < count; i++)
		caller->groups[i] = before[i];
	caller->group_count = count;
	caller->entered = true;
	return ids_set(uid, gid);
}

void identity_leave(struct identity *caller)
{
	if (!caller->entered)
		return;
	ids_set(caller->uid, caller->gid);
	/* It may set them: CAP_SETGID is none of the capabilities that go with the file system ids. */
	if (caller->group_count >= 0)
		syscall(SYS_setgroups, caller->group_count, caller->groups);
	caller->entered = false;
}
