/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The regular files that a job holds open for writing: made durable with each checkpoint, and put
 * back to the size that they had in it before a restore.
 */
#ifndef CKPT_FILES_H
#define CKPT_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"

struct job_file {
	char *path;             /* as the job sees it */
	uint64_t size;          /* bytes */
	dev_t device;
	ino_t inode;
};

struct job_files {
	struct job_file *list;
	size_t count;
	size_t space;
};

/* Adds the files of one task and fsyncs them. The task is frozen or may go on writing. */
int files_sync_task(struct job_files *files, pid_t pid, int pidfd, struct problem *problem);
/*
 * Below root, a directory's descriptor, with the caller's file access: longer files are cut to their size at the
 * checkpoint.  A missing or shorter file, or a longer one that is not the same, is an error that names it.
 */
int files_put_back(const struct job_files *files, int root, struct problem *problem);
/*
 * The file of a mapping, for reading, with the rights of the task's user: root may have none on the file's server.
 * -ENOENT: it is gone, or its user may not open it; another -errno: ckptd lacks something.
 */
int files_open_mapping(pid_t pid, unsigned long start, unsigned long end);
int files_add(struct job_files *files, const char *path, uint64_t size, dev_t device, ino_t inode);
void files_free(struct job_files *files);

#endif
