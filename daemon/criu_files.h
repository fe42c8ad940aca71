/* SPDX-License-Identifier: GPL-2.0 */
/* Preloaded into criu: what it does to files, for the job's user. See criu_files.c. */
#ifndef CKPT_CRIU_FILES_H
#define CKPT_CRIU_FILES_H

#include <sys/types.h>

/* The file system ids of that user, but with all capabilities. */
void criu_files_become(uid_t uid, gid_t gid);
/* From now on. directory: criu's images. */
void criu_files_guard(uid_t uid, gid_t gid, const char *directory);

#endif
