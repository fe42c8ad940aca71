// SPDX-License-Identifier: GPL-2.0
#include "lazy_serve.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "lazy_check.h"

/* The kernel is asked again after this, where it has no event to tell that an event is over. */
#define SETTLE_MS 1
/* Then the kernel has lost count: before 6.13 it does after an mremap that failed. */
#define UNSETTLED_MS 60000
/* How often it is asked at once. */
#define SETTLE_TRIES 50
#define MESSAGES 16
#define VAULT_SPARE 256
/* A page that no program has: only asked about, to hear whether events are under way. */
#define NOWHERE PAGE_BYTES

void lazy_fail_locked(struct lazy_server *server, const char *format, ...)
{
	va_list args;

	if (server->failed)
		return;
	server->failed = true;
	va_start(args, format);
	vsnprintf(server->problem.text, sizeof(server->problem.text), format, args);
	va_end(args);
	lazy_wake(server);
}

void lazy_wake(struct lazy_server *server)
{
	uint64_t one = 1;

	while (write(server->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* ---- processes ---- */

static int watch(struct lazy_server *server, int fd, void *what)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = what };

	return epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* Those of processes that are gone stay in a vault: now and then there is a new one. */
static int vault_renew_locked(struct lazy_server *server)
{
	struct lazy_vault vault;
	int other, ret = lazy_vault_make(&vault, &other);

	if (ret)
		return ret;
	for (struct lazy_process *process = server->processes; process && ret == 0; process = process->next)
		if (!process->done)
			ret = lazy_vault_add(&vault, process->uffd);
	if (ret == 0) {
		ret = lazy_vault_send(other);
		lazy_vault_close(&server->vault);
		server->vault = vault;
	} else {
		close(other);
		lazy_vault_close(&vault);
	}
	return ret;
}

static size_t processes_count(const struct lazy_server *server)
{
	size_t count = 0;

	for (const struct lazy_process *process = server->processes; process; process = process->next)
		count += !process->done;
	return count;
}

/* From here on the kernel cannot take its descriptor for closed, whoever dies. */
static int vault_keep_locked(struct lazy_server *server, int uffd)
{
	int ret = 0;

	if (server->vault.in < 0 || server->vault.count > 2 * processes_count(server) + VAULT_SPARE)
		ret = vault_renew_locked(server);
	if (ret == 0)
		ret = lazy_vault_add(&server->vault, uffd);
	if (ret != -EAGAIN)
		return ret;
	ret = vault_renew_locked(server);
	return ret ? ret : lazy_vault_add(&server->vault, uffd);
}

static struct lazy_process *process_add_locked(struct lazy_server *server, int uffd)
{
	struct lazy_process *process;
	int ret = vault_keep_locked(server, uffd);

	if (ret) {
		lazy_fail_locked(server, "ckpt-init cannot hold on to the job's memory: %s", strerror(-ret));
		return NULL;
	}
	process = calloc(1, sizeof(*process));
	if (!process || watch(server, uffd, process)) {
		lazy_fail_locked(server, "no memory to watch the job's processes");
		free(process);
		return NULL;
	}
	process->uffd = uffd;
	process->next = server->processes;
	server->processes = process;
	return process;
}

static void process_close_locked(struct lazy_server *server, struct lazy_process *process)
{
	if (process->done)
		return;
	process->done = true;
	epoll_ctl(server->epoll, EPOLL_CTL_DEL, process->uffd, NULL);
	close(process->uffd);
	lazy_memory_free(&process->memory);
	free(process->zeros);
	process->zeros = NULL;
	process->zero_count = 0;
}

void lazy_process_gone_locked(struct lazy_server *server, struct lazy_process *process)
{
	process_close_locked(server, process);
}

/* A table of descriptors ends somewhere, and a job may fork for ever. */
static void sweep_locked(struct lazy_server *server)
{
	struct lazy_process **link = &server->processes, *process;

	while ((process = *link)) {
		if (process->done) {
			*link = process->next;
			free(process);
		} else {
			link = &process->next;
		}
	}
}

/* ---- whether events are under way ---- */

static bool settled(const struct lazy_process *process)
{
	struct uffdio_zeropage nothing = { .range = { .start = NOWHERE, .len = PAGE_BYTES } };

	return !ioctl(process->uffd, UFFDIO_ZEROPAGE, &nothing) || errno != EAGAIN;
}

static bool readable(const struct lazy_process *process)
{
	struct pollfd wait = { .fd = process->uffd, .events = POLLIN };

	return poll(&wait, 1, 0) > 0;
}

/* Gives the thread whose event was read some time to go on. */
bool lazy_settle_locked(struct lazy_server *server, struct lazy_process *process)
{
	for (int tries = 0; tries < SETTLE_TRIES; tries++) {
		if (settled(process)) {
			lazy_order_settle(&process->order);
			process->unsettled_ms = 0;
			return true;
		}
		if (readable(process))
			break;
		sched_yield();
	}
	if (!process->unsettled_ms)
		process->unsettled_ms = clock_ms();
	if (clock_ms() - process->unsettled_ms > UNSETTLED_MS)
		lazy_fail_locked(server, "the kernel says for %d s that the job's memory is being changed",
				 UNSETTLED_MS / 1000);
	return false;
}

/* ---- faults ---- */

static void wake_range(const struct lazy_process *process, uint64_t start, uint64_t length)
{
	struct uffdio_range range = { .start = start, .len = length };

	/* Fails where nothing waits any more. */
	ioctl(process->uffd, UFFDIO_WAKE, &range);
}

static void zero_later_locked(struct lazy_server *server, struct lazy_process *process, uint64_t address)
{
	if (process->zero_count == process->zero_room) {
		size_t room = process->zero_room ? process->zero_room * 2 : 16;
		uint64_t *grown = reallocarray(process->zeros, room, sizeof(*grown));

		if (!grown) {
			lazy_fail_locked(server, "no memory to give the job its memory");
			return;
		}
		process->zeros = grown;
		process->zero_room = room;
	}
	process->zeros[process->zero_count++] = address;
}

/* A page that is not missing: nobody has ever written there, or it was dropped. */
static void give_zero_locked(struct lazy_server *server, struct lazy_process *process, uint64_t address)
{
	struct uffdio_zeropage zero = { .range = { .start = address, .len = PAGE_BYTES } };

	if (!ioctl(process->uffd, UFFDIO_ZEROPAGE, &zero))
		return;
	switch (errno) {
	case EAGAIN:
		zero_later_locked(server, process, address);
		break;
	case ESRCH:
		lazy_process_gone_locked(server, process);
		break;
	case ENOMEM:
		lazy_fail_locked(server, "the job's cgroup has no memory left for its pages");
		break;
	default:
		/* It is there, or its mapping is gone: the thread looks again. */
		wake_range(process, address, PAGE_BYTES);
	}
}

static void fault_locked(struct lazy_server *server, struct lazy_process *process, uint64_t address)
{
	uint32_t page;

	address &= ~(uint64_t)(PAGE_BYTES - 1);
	page = lazy_memory_find(&process->memory, address);
	if (page == LAZY_NONE) {
		give_zero_locked(server, process, address);
		return;
	}
	server->table.head->faults++;
	lazy_fill_urgent_locked(server, server->table.pages[page].block);
}

/* What is missing may have changed since. */
static void zeros_again_locked(struct lazy_server *server, struct lazy_process *process)
{
	uint64_t *addresses = take_ptr(process->zeros);
	size_t count = process->zero_count;

	process->zero_count = process->zero_room = 0;
	for (size_t i = 0; i < count && !process->done; i++)
		fault_locked(server, process, addresses[i]);
	free(addresses);
}

/* ---- what the program does with its memory ---- */

static void unclear_locked(struct lazy_server *server, const char *what)
{
	lazy_fail_locked(server, "a process of several threads %s, and the kernel does not tell in which "
			 "order; what is missing cannot be told apart any more", what);
}

static void change_add_locked(struct lazy_server *server, struct lazy_process *process,
			      const struct lazy_change *change)
{
	if (!lazy_order_add(&process->order, change) && !process->alone)
		unclear_locked(server, "changed its memory from two of them at once");
}

static void drop_locked(struct lazy_server *server, struct lazy_process *process, uint64_t start, uint64_t end)
{
	change_add_locked(server, process, &(struct lazy_change){ .kind = LAZY_DROP, .from = start,
								  .from_end = end });
	if (lazy_memory_drop(&process->memory, start, end))
		lazy_fail_locked(server, "no memory to follow the job's");
	wake_range(process, start, end - start);
}

static void move_locked(struct lazy_server *server, struct lazy_process *process, uint64_t from, uint64_t to,
			uint64_t length)
{
	change_add_locked(server, process, &(struct lazy_change){
		.kind = LAZY_MOVE, .from = from, .from_end = from + length, .to = to, .to_end = to + length });
	if (!process->alone && lazy_memory_misses_any(&process->memory, to, to + length))
		unclear_locked(server, "moved memory to where something else was");
	if (lazy_memory_move(&process->memory, from, to, length))
		lazy_fail_locked(server, "no memory to follow the job's");
	wake_range(process, from, length);
}

static void fork_locked(struct lazy_server *server, struct lazy_process *process, int uffd)
{
	struct lazy_process *child;

	change_add_locked(server, process, &(struct lazy_change){ .kind = LAZY_FORK });
	if (process->memory.missing_count && lazy_check_wiped(server, process))
		lazy_fail_locked(server, "memory that is still missing became empty in children (MADV_WIPEONFORK), "
				 "and a process forked");
	child = process_add_locked(server, uffd);
	if (child && lazy_memory_copy(&child->memory, &process->memory))
		lazy_fail_locked(server, "no memory to follow the job's");
}

static void take_message_locked(struct lazy_server *server, struct lazy_process *process,
				const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_PAGEFAULT:
		fault_locked(server, process, message->arg.pagefault.address);
		break;
	case UFFD_EVENT_FORK:
		fork_locked(server, process, (int)message->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		move_locked(server, process, message->arg.remap.from, message->arg.remap.to,
			    message->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		drop_locked(server, process, message->arg.remove.start, message->arg.remove.end);
		break;
	default:
		lazy_fail_locked(server, "the kernel tells of an event %u of the job's memory, which this "
				 "version of ckpt does not know", message->event);
	}
}

/* Before an event is read: whoever made it waits until then. */
static void count_threads_locked(struct lazy_server *server, struct lazy_process *process)
{
	bool alone = lazy_check_alone(server, process);

	process->alone = alone && (!process->order.count || process->alone);
}

/* One at a time: who reads an event lets its thread go on, and start others. */
static void take_messages_locked(struct lazy_server *server, struct lazy_process *process)
{
	struct uffd_msg message;

	count_threads_locked(server, process);
	for (int i = 0; i < MESSAGES && !process->done && !server->failed; i++) {
		if (read(process->uffd, &message, sizeof(message)) != sizeof(message))
			break;
		take_message_locked(server, process, &message);
		if (message.event == UFFD_EVENT_PAGEFAULT || process->done)
			continue;
		lazy_settle_locked(server, process);
		count_threads_locked(server, process);
	}
}

/* ---- the socket ---- */

static int receive_fd(int socket)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header;
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -EPROTO;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static void take_process_locked(struct lazy_server *server, int32_t inner_pid)
{
	int fd = receive_fd(server->connection);
	struct lazy_process *process;

	if (fd < 0) {
		lazy_fail_locked(server, "criu does not say what ckpt expects of it: is its version known?");
		return;
	}
	process = process_add_locked(server, fd);
	if (!process)
		return;
	process->inner_pid = inner_pid;
	if (lazy_memory_init(&process->memory, &server->table, (uint64_t)inner_pid))
		lazy_fail_locked(server, "no memory to list the job's");
}

/* A process sends its number and then its descriptor, and nobody else between. */
static void take_words_locked(struct lazy_server *server)
{
	int32_t word;
	ssize_t n;

	while (!server->failed) {
		n = recv(server->connection, &word, sizeof(word), MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n != sizeof(word) || word == LAZY_FINISHED)
			break;
		if (word > 0)
			take_process_locked(server, word);
	}
	epoll_ctl(server->epoll, EPOLL_CTL_DEL, server->connection, NULL);
	close(server->connection);
	server->connection = -1;
}

/* criu comes first, and then its action script, when all processes stand and before they run. */
static void take_caller_locked(struct lazy_server *server)
{
	int fd = accept4(LAZY_FD_SOCKET, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (server->connection < 0 && server->gate < 0 && !server->processes) {
		server->connection = fd;
		if (watch(server, fd, &server->connection))
			lazy_fail_locked(server, "no memory to listen to criu");
		return;
	}
	if (server->connection >= 0)
		take_words_locked(server);
	server->gate = fd;
	if (lazy_check_restored(server))
		return;
	server->restored = true;
	pthread_cond_broadcast(&server->work);
	if (write(server->gate, (char[]){ LAZY_GO }, 1) != 1)
		lazy_fail_locked(server, "criu does not wait for its memory any more");
	close(server->gate);
}

/* ---- the loop ---- */

static bool misses(const struct lazy_process *process)
{
	return !process->done && (process->memory.missing_count || process->zero_count);
}

static bool any_misses(const struct lazy_server *server)
{
	for (const struct lazy_process *process = server->processes; process; process = process->next)
		if (misses(process))
			return true;
	return false;
}

/* Whether pages are missing anywhere, or may be; if not, all is let go. */
static bool finish_locked(struct lazy_server *server)
{
	struct lazy_process *process;

	sweep_locked(server);
	if (any_misses(server))
		return true;
	for (process = server->processes; process; process = process->next)
		if (!lazy_settle_locked(server, process))
			return true;
	for (process = server->processes; process; process = process->next)
		process_close_locked(server, process);
	return false;
}

/* Whether to ask the kernel again soon. */
static bool unsettled_locked(struct lazy_server *server)
{
	bool any = false;

	for (struct lazy_process *process = server->processes; process; process = process->next) {
		if (process->done)
			continue;
		if (process->order.count)
			lazy_settle_locked(server, process);
		if (process->zero_count)
			zeros_again_locked(server, process);
		any |= process->order.count || process->zero_count || process->unsettled_ms;
	}
	return any || (server->restored && !any_misses(server));
}

static int take_event_locked(struct lazy_server *server, const struct epoll_event *event)
{
	void *what = event->data.ptr;
	struct lazy_process *process;
	uint64_t count;

	if (what == &server->holder)
		lazy_fail_locked(server, "the process that holds on to the job's memory was killed");
	else if (what == server)
		return -ESRCH;
	else if (what == &server->wake && read(server->wake, &count, sizeof(count)) < 0)
		return 0;
	else if (what == &server->gate)
		take_caller_locked(server);
	else if (what == &server->connection && server->connection >= 0)
		take_words_locked(server);
	/* It may have gone by an event before this one. */
	for (process = server->processes; process; process = process->next)
		if (process == what && !process->done)
			take_messages_locked(server, process);
	return 0;
}

/* 0: all has come; 1: not yet; -ESRCH: the job has ended; else the problem. */
static int serve_once(struct lazy_server *server, int timeout_ms, int *next_ms)
{
	struct epoll_event events[32];
	int count = epoll_wait(server->epoll, events, 32, timeout_ms), ret = 0;

	pthread_mutex_lock(&server->lock);
	for (int i = 0; i < count && ret == 0 && !server->failed; i++)
		ret = take_event_locked(server, &events[i]);
	if (ret == 0 && server->failed)
		ret = -EIO;
	*next_ms = unsettled_locked(server) ? SETTLE_MS : -1;
	/* criu fails if its last word is not heard. */
	if (ret == 0 && (!server->restored || finish_locked(server) || server->connection >= 0))
		ret = 1;
	/* What was found last. */
	if (ret == 0 && server->failed)
		ret = -EIO;
	pthread_mutex_unlock(&server->lock);
	return ret;
}

static int server_open(struct lazy_server *server, struct problem *problem)
{
	const struct lazy_spec *spec = server->spec;
	struct store_options options = {
		.directory = spec->store, .use = STORE_READ, .uid = spec->store_uid, .gid = spec->store_gid,
		.keys = &spec->keys, .compress = "none", .seal = "auto", .buffer_bytes = spec->buffer_bytes,
	};
	int ret = lazy_table_map(&server->table, LAZY_FD_TABLE);

	if (ret)
		return problem_set(problem, -ret, "cannot read the list of the job's pages: %s", strerror(-ret));
	ret = store_open(&server->store, &options, spec->job, problem);
	if (ret)
		return ret;
	server->epoll = epoll_create1(EPOLL_CLOEXEC);
	server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->epoll < 0 || server->wake < 0 || watch(server, server->wake, &server->wake) ||
	    watch(server, LAZY_FD_SOCKET, &server->gate) || watch(server, LAZY_FD_INIT, server) ||
	    watch(server, server->holder, &server->holder))
		return problem_set(problem, errno, "cannot watch the job's memory: %s", strerror(errno));
	return lazy_fill_start(server, problem);
}

int lazy_serve(const struct lazy_spec *spec, int holder, struct problem *problem)
{
	struct lazy_server *server = calloc(1, sizeof(*server));
	int timeout_ms = -1, ret;

	if (!server)
		return problem_set(problem, ENOMEM, "no memory to give the job its memory");
	/* Not freed after an error: a worker may wait for the store. */
	*server = (struct lazy_server){ .spec = spec, .holder = holder, .connection = -1, .gate = -1,
					.vault = { .in = -1 } };
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->work, NULL);
	ret = server_open(server, problem);
	if (ret == 0 && write(LAZY_FD_READY, (char[]){ LAZY_READY }, 1) != 1)
		ret = problem_set(problem, EPIPE, "ckptd has ended");
	close(LAZY_FD_READY);
	if (ret)
		return ret;
	do
		ret = serve_once(server, timeout_ms, &timeout_ms);
	while (ret == 1);
	if (ret == 0)
		lazy_fill_end(server);
	else if (ret != -ESRCH)
		*problem = server->problem;
	return ret;
}
