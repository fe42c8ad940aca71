/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A backend in memory that behaves as the worst that a server may: any call can fail, before or after
 * it was done, and a node can die between any two.  Several nodes (backends) use one server.
 */
#ifndef CKPT_MEMORY_BACKEND_H
#define CKPT_MEMORY_BACKEND_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

enum memory_fault {
	MEMORY_FAILS,   /* the call is not done */
	MEMORY_DOUBTS,  /* it is done, and its answer is lost */
	MEMORY_DIES,    /* it is not done, nor any later one of that node */
};

struct memory_content {
	unsigned int references;
	uint64_t length;
	uint8_t *bytes;
};

struct memory_object {
	struct memory_object *next;
	char name[OBJECT_NAME_MAX];
	int64_t modified_ns;
	struct memory_content *content;
};

struct memory_server {
	pthread_mutex_t lock; /* of what follows */
	struct memory_object *objects; /* the newest first */
	int64_t now_ns;
	unsigned long calls;
	/* the fault: of the call that makes calls reach fail_at; 0: none */
	unsigned long fail_at;
	enum memory_fault fault;
	int err;
	bool fired;
};

struct memory_node {
	struct backend backend;
	struct memory_server *server;
	bool dead;
};

struct memory_put {
	struct memory_content *content;
	uint64_t space;
	uint64_t written;
	bool finished;
};

static inline struct memory_node *memory_node(struct backend *backend)
{
	return (struct memory_node *)backend;
}

/* ---- faults ---- */

/* Enters a call: 0: do it; else *err is its result, and done says whether to do it first. */
static inline bool memory_enter_locked(struct memory_node *node, bool *done, int *err)
{
	struct memory_server *server = node->server;

	*done = true;
	*err = node->dead ? -EHOSTDOWN : 0;
	server->now_ns += 1000000;
	if (node->dead) {
		*done = false;
		return false;
	}
	if (++server->calls != server->fail_at)
		return true;
	server->fired = true;
	node->dead = server->fault == MEMORY_DIES;
	*done = server->fault == MEMORY_DOUBTS;
	*err = -server->err;
	return *done;
}

/* { code } with the lock held, unless the call fails before; the result is that of code or the fault's. */
#define memory_call(node, code)                                                                    \
	({                                                                                         \
		bool done_;                                                                        \
		int err_, result_ = 0;                                                             \
		pthread_mutex_lock(&(node)->server->lock);                                         \
		if (memory_enter_locked(node, &done_, &err_))                                      \
			result_ = (code);                                                          \
		pthread_mutex_unlock(&(node)->server->lock);                                       \
		err_ ? err_ : result_;                                                             \
	})

/* ---- objects ---- */

static inline struct memory_object **memory_find(struct memory_server *server, const char *name)
{
	struct memory_object **link = &server->objects;

	while (*link && strcmp((*link)->name, name))
		link = &(*link)->next;
	return link;
}

static inline void memory_content_put(struct memory_content *content)
{
	if (--content->references)
		return;
	free(content->bytes);
	free(content);
}

static inline int memory_insert(struct memory_server *server, const char *name,
				struct memory_content *content)
{
	struct memory_object *object;

	if (*memory_find(server, name))
		return -EEXIST;
	object = calloc(1, sizeof(*object));
	strcpy(object->name, name);
	object->content = content;
	object->modified_ns = server->now_ns;
	content->references++;
	object->next = server->objects;
	server->objects = object;
	return 0;
}

static inline int memory_delete(struct memory_server *server, const char *name)
{
	struct memory_object **link = memory_find(server, name), *object = *link;

	if (!object)
		return 0;
	*link = object->next;
	memory_content_put(object->content);
	free(object);
	return 0;
}

/* ---- puts ---- */

static inline int memory_put_begin(struct backend *backend, const char *name,
				   const char *unfinished, struct backend_put *put)
{
	struct memory_node *node = memory_node(backend);
	struct memory_put *data = calloc(1, sizeof(*data));
	int err;

	*put = (struct backend_put){ .backend = backend, .fd = -1, .operation = "create",
				     .data = data };
	strcpy(put->name, name);
	strcpy(put->unfinished, unfinished);
	data->content = calloc(1, sizeof(*data->content));
	data->content->references = 1;
	err = memory_call(node, memory_insert(node->server, unfinished, data->content));
	if (err) {
		memory_content_put(data->content);
		free(data);
	}
	return err;
}

static inline int memory_write_locked(struct memory_put *put, const void *bytes, size_t length,
				      uint64_t offset)
{
	struct memory_content *content = put->content;

	if (put->finished)
		return -EBADF;
	if (offset + length > put->space) {
		put->space = (offset + length) * 2;
		content->bytes = realloc(content->bytes, put->space);
	}
	if (length)
		memcpy(content->bytes + offset, bytes, length);
	if (content->length < offset + length)
		content->length = offset + length;
	put->written += length;
	return 0;
}

static inline int memory_put_write(struct backend_put *put, const void *bytes, size_t length,
				   uint64_t offset)
{
	return memory_call(memory_node(put->backend),
			   memory_write_locked(put->data, bytes, length, offset));
}

static inline int memory_finish_locked(struct memory_put *put, uint64_t length)
{
	put->finished = true;
	return put->written == length && put->content->length == length ? 0 : -EIO;
}

static inline int memory_put_finish(struct backend_put *put, uint64_t length)
{
	put->operation = "finish";
	return memory_call(memory_node(put->backend), memory_finish_locked(put->data, length));
}

static inline int memory_commit_locked(struct memory_server *server, struct backend_put *put)
{
	struct memory_put *data = put->data;
	int err = data->finished ? memory_insert(server, put->name, data->content) : -EINVAL;

	if (!err)
		memory_delete(server, put->unfinished);
	return err;
}

static inline int memory_put_commit(struct backend_put *put)
{
	struct memory_node *node = memory_node(put->backend);

	put->operation = "commit";
	return memory_call(node, memory_commit_locked(node->server, put));
}

static inline void memory_put_end(struct backend_put *put)
{
	struct memory_node *node = memory_node(put->backend);
	struct memory_put *data = put->data;

	(void)memory_call(node, memory_delete(node->server, put->unfinished));
	pthread_mutex_lock(&node->server->lock);
	memory_content_put(data->content);
	pthread_mutex_unlock(&node->server->lock);
	free(data);
}

/* ---- reading ---- */

static inline int memory_open_locked(struct memory_server *server, const char *name,
				     struct backend_object *object)
{
	struct memory_object *found = *memory_find(server, name);

	if (!found)
		return -ENOENT;
	found->content->references++;
	object->data = found->content;
	object->length = found->content->length;
	object->modified_ns = found->modified_ns;
	return 0;
}

static inline void memory_close_object(struct backend_object *object)
{
	struct memory_node *node = memory_node(object->backend);

	pthread_mutex_lock(&node->server->lock);
	memory_content_put(object->data);
	pthread_mutex_unlock(&node->server->lock);
}

static inline int memory_open(struct backend *backend, const char *name,
			      struct backend_object *object)
{
	struct memory_node *node = memory_node(backend);
	int err;

	*object = (struct backend_object){ .backend = backend, .fd = -1 };
	err = memory_call(node, memory_open_locked(node->server, name, object));
	if (err && object->data)
		memory_close_object(object);
	return err;
}

/* At least the length that is there: no more than an int has. */
static inline int memory_read_locked(const struct memory_content *content, void *to, size_t length,
				     uint64_t offset)
{
	if (offset >= content->length)
		return 0;
	if (length > content->length - offset)
		length = content->length - offset;
	memcpy(to, content->bytes + offset, length);
	return length;
}

static inline ssize_t memory_read(struct backend_object *object, void *to, size_t length,
				  uint64_t offset)
{
	return memory_call(memory_node(object->backend),
			   memory_read_locked(object->data, to, length, offset));
}

static inline void memory_announce(struct backend_object *object, uint64_t offset, uint64_t length)
{
}

/* ---- names ---- */

static inline int memory_list_locked(struct memory_server *server, backend_each each, void *arg)
{
	struct memory_object *object;
	int err = 0;

	for (object = server->objects; object && !err; object = object->next)
		err = each(arg, object->name);
	return err;
}

static inline int memory_list(struct backend *backend, backend_each each, void *arg)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, memory_list_locked(node->server, each, arg));
}

static inline int memory_stat_locked(struct memory_server *server, const char *name,
				     struct backend_stat *stat)
{
	struct memory_object *found = *memory_find(server, name);

	if (!found)
		return -ENOENT;
	stat->length = found->content->length;
	stat->modified_ns = found->modified_ns;
	return 0;
}

static inline int memory_stat(struct backend *backend, const char *name, struct backend_stat *stat)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, memory_stat_locked(node->server, name, stat));
}

static inline int memory_remove(struct backend *backend, const char *name)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, memory_delete(node->server, name));
}

static inline int memory_renew_locked(struct memory_server *server, const char *name, bool ended)
{
	struct memory_object *found = *memory_find(server, name);

	if (!found)
		return -ENOENT;
	found->modified_ns = ended ? 1 : server->now_ns;
	return 0;
}

static inline int memory_renew(struct backend *backend, const char *name, bool ended)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, memory_renew_locked(node->server, name, ended));
}

static inline int memory_time(struct backend *backend, const char *unfinished, int64_t *now_ns)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, (*now_ns = node->server->now_ns, 0));
}

static inline int memory_retire(struct backend *backend)
{
	struct memory_node *node = memory_node(backend);

	return memory_call(node, node->server->objects ? -ENOTEMPTY : 0);
}

static inline void memory_close(struct backend *backend)
{
	free(backend);
}

/* ---- the server ---- */

static const struct backend_kind memory_kind = {
	.close = memory_close,
	.put_begin = memory_put_begin,
	.put_write = memory_put_write,
	.put_finish = memory_put_finish,
	.put_commit = memory_put_commit,
	.put_end = memory_put_end,
	.open = memory_open,
	.read = memory_read,
	.announce = memory_announce,
	.close_object = memory_close_object,
	.list = memory_list,
	.stat = memory_stat,
	.remove = memory_remove,
	.renew = memory_renew,
	.time = memory_time,
	.retire = memory_retire,
};

static inline void memory_server_init(struct memory_server *server)
{
	*server = (struct memory_server){ .now_ns = 1700000000ll * 1000000000, .err = EIO };
	pthread_mutex_init(&server->lock, NULL);
}

static inline void memory_server_clear(struct memory_server *server)
{
	while (server->objects)
		memory_delete(server, server->objects->name);
}

static inline void memory_server_arm(struct memory_server *server, unsigned long fail_at,
				     enum memory_fault fault, int err)
{
	server->fail_at = fail_at ? server->calls + fail_at : 0;
	server->fault = fault;
	server->err = err;
	server->fired = false;
}

static inline struct backend *memory_backend(struct memory_server *server)
{
	struct memory_node *node = calloc(1, sizeof(*node));

	node->backend.kind = &memory_kind;
	node->server = server;
	return &node->backend;
}

#endif
