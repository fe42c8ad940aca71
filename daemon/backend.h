/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the objects of one job lie: all that the store knows of a directory, or one day of a bucket.
 * Objects are put whole under a name that nothing had before; nothing is appended, changed or renamed.
 *
 *   put_begin ─> put_write ... ─> put_finish ─> put_commit ─> put_end
 *      └────────────┴────────────────┴──────────────┴──────────^   (at any time: without a commit
 *                                                                   nothing is left but what unfinished
 *                                                                   names, if the process dies)
 *
 * What a backend promises, and selftests/unit/backend_test.c asks of each:
 *
 *  1. Nobody sees anything under the name before put_commit(); when it has returned 0, everybody sees
 *     the whole object, on any node and also after a loss of power.
 *  2. put_commit() never replaces: -EEXIST, the name is taken.  Of several that commit the same name,
 *     one gets 0.  After another error the object may be there or not, since answers get lost.
 *  3. put_write() takes the bytes in any order and from several threads, each byte once, all of them
 *     up to the length of put_finish().  What went through fd may be written again.
 *  4. What is read is what was written, short only at the end.  Who has it open while it is removed
 *     reads the same bytes or gets an error.
 *  5. list() names what was committed before it began and is not removed, nothing that was removed
 *     before it began, each once; and what put_begin() left of puts that have not ended (-> unfinished).
 *  6. remove() gives 0 also when there is nothing.
 *  7. modified_ns, and what time() says, are by one clock, that of the server.
 *
 * Functions return 0 or -errno.  The caller has the store user's ids (store_enter).
 */
#ifndef CKPT_BACKEND_H
#define CKPT_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"

#define OBJECT_NAME_MAX 64

struct backend {
	const struct backend_kind *kind;
};

struct backend_put {
	struct backend *backend;
	int fd;                        /* may be written directly instead of put_write(); -1: may not */
	const char *operation;         /* the step at work, for people: "fsync" */
	char name[OBJECT_NAME_MAX];
	char unfinished[OBJECT_NAME_MAX];
	void *data;                    /* the backend's */
};

struct backend_object {
	struct backend *backend;
	uint64_t length;
	int64_t modified_ns;
	int fd;                        /* the backend's */
	bool direct;                   /* read_direct() is to be used */
	void *data;                    /* the backend's */
};

/* What a buffer of read_direct() has more than what is asked for, and is aligned to. */
#define DIRECT_ALIGN 4096u
#define DIRECT_ROOM (2 * DIRECT_ALIGN)

struct backend_stat {
	uint64_t length;
	int64_t modified_ns;
};

/* Non-zero ends the list and is its result. */
typedef int (*backend_each)(void *arg, const char *name);

struct backend_kind {
	void (*close)(struct backend *backend);

	/* unfinished: a name by which list() and remove() may know what is not committed yet. */
	int (*put_begin)(struct backend *backend, const char *name, const char *unfinished,
			 struct backend_put *put);
	int (*put_write)(struct backend_put *put, const void *data, size_t length, uint64_t offset);
	/* All is written: makes it durable, as far as that can be done without its name. */
	int (*put_finish)(struct backend_put *put, uint64_t length);
	int (*put_commit)(struct backend_put *put);
	void (*put_end)(struct backend_put *put);

	/* -ENOENT; -EBADMSG: what has the name is no object. */
	int (*open)(struct backend *backend, const char *name, struct backend_object *object);
	/* The bytes that there are, up to length. */
	ssize_t (*read)(struct backend_object *object, void *to, size_t length, uint64_t offset);
	/*
	 * Much will be read, once: past the page cache, if object->direct is set afterwards.  Then the bytes that
	 * were asked for are at *at of the buffer.  NULL: there is no such way.
	 */
	void (*go_direct)(struct backend_object *object);
	ssize_t (*read_direct)(struct backend_object *object, uint8_t *to, size_t length, uint64_t offset,
			       size_t *at);
	/* They will be read soon. */
	void (*announce)(struct backend_object *object, uint64_t offset, uint64_t length);
	void (*close_object)(struct backend_object *object);

	int (*list)(struct backend *backend, backend_each each, void *arg);
	int (*stat)(struct backend *backend, const char *name, struct backend_stat *stat);
	int (*remove)(struct backend *backend, const char *name);
	/* modified_ns becomes the time now, or, when ended is set, one that is long past. */
	int (*renew)(struct backend *backend, const char *name, bool ended);
	int (*time)(struct backend *backend, const char *unfinished, int64_t *now_ns);
	/* Removes the place, which is empty. -ENOTEMPTY. */
	int (*retire)(struct backend *backend);
};

/*
 * A directory (NFS, Lustre, any file system) with a file for each object: store->path.  With STORE_MAKE
 * it is made when it is missing, mode 0700, below options->directory, which must exist.
 */
struct store;
struct store_options;
int backend_file_open(struct backend **backend, const struct store *store,
		      const struct store_options *options, struct problem *problem);

#endif
