// SPDX-License-Identifier: GPL-2.0
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "cleanup.h"
#include "faults.h"
#include "log.h"

/* Alignment of direct writes: no less than the logical block of any disk. */
#define ALIGNMENT 4096u
#define HUGE_PAGE_BYTES (2u << 20)

#define CHUNK_BYTES_MIN (256u << 10)
#define CHUNK_BYTES_MAX (4u << 20)
#define CHUNKS_WANTED 8
#define CHUNKS_MAX 256

/* The file's size is set this far ahead: ext4 lets direct writes that extend a file wait for each other. */
#define EXTEND_BYTES (256ull << 20)

/* Without O_DIRECT: dirty pages in the page cache are at most SPANS_DIRTY of these, then written. */
#define SPAN_BYTES (16u << 20)
#define SPANS_DIRTY 4

#define SUBMIT_RETRY_US 1000
/* Under a limit this much may go at once, and the limit is looked at this often. */
#define BURST_MS 100

struct chunk {
	struct chunk *next;
	uint8_t *memory;
	uint64_t offset;  /* in the object */
	uint32_t filled;
	uint32_t bytes;   /* to be written */
	uint32_t written;
	bool direct;      /* how it was submitted */
	bool done;
};

struct stream {
	struct object_writer *writer;
	struct store *store;
	const struct limits *limits;
	uint8_t *window;
	size_t window_bytes;
	uint32_t chunk_bytes;
	unsigned int chunk_count;

	pthread_mutex_t lock; /* of what follows, to the next empty line */
	pthread_cond_t room;
	uint64_t start;       /* of the window in the object */
	uint64_t end;         /* of what was claimed */
	int64_t turn_us;      /* under a limit: when the next claim may go on */
	struct chunk *ready;
	struct chunk **ready_end;
	bool closing;
	int err;
	const char *operation; /* that failed */
	bool writer_started;

	struct chunk chunks[CHUNKS_MAX];
	int wake; /* eventfd: the writer has something to do */
	pthread_t writer_thread;

	/* the writer thread's; the owner's when it has ended */
	struct io_uring ring;
	bool fixed_file;
	bool fixed_window;
	bool wake_armed;
	bool direct;
	uint64_t extended; /* size that the file was given ahead */
	unsigned int in_flight;
	int64_t busy_since_us;
	uint64_t busy_us;
	uint64_t completed;
	uint64_t spans; /* whose writing was started */
};

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void wake_writer(struct stream *stream)
{
	uint64_t one = 1;

	if (write(stream->wake, &one, sizeof(one)) < 0)
		log_err("cannot wake the writer of %s: %s", stream->writer->name, strerror(errno));
}

static void fail_locked(struct stream *stream, int err, const char *operation)
{
	if (stream->err)
		return;
	stream->err = err;
	stream->operation = operation;
	pthread_cond_broadcast(&stream->room);
}

static void fail(struct stream *stream, int err, const char *operation)
{
	pthread_mutex_lock(&stream->lock);
	fail_locked(stream, err, operation);
	pthread_mutex_unlock(&stream->lock);
}

static bool failed(struct stream *stream)
{
	bool err;

	pthread_mutex_lock(&stream->lock);
	err = stream->err;
	pthread_mutex_unlock(&stream->lock);
	return err;
}

/* ---- the window ---- */

static struct chunk *chunk_at(struct stream *stream, uint64_t offset)
{
	return &stream->chunks[offset / stream->chunk_bytes % stream->chunk_count];
}

static void ready_push(struct stream *stream, struct chunk *chunk)
{
	chunk->next = NULL;
	*stream->ready_end = chunk;
	stream->ready_end = &chunk->next;
}

static struct chunk *ready_pop(struct stream *stream)
{
	struct chunk *chunk;

	pthread_mutex_lock(&stream->lock);
	chunk = stream->ready;
	if (chunk) {
		stream->ready = chunk->next;
		if (!stream->ready)
			stream->ready_end = &stream->ready;
	}
	pthread_mutex_unlock(&stream->lock);
	return chunk;
}

/* The chunk's memory is free when those before it are. */
static void chunk_release(struct stream *stream, struct chunk *chunk)
{
	pthread_mutex_lock(&stream->lock);
	chunk->done = true;
	while ((chunk = chunk_at(stream, stream->start))->done) {
		chunk->done = false;
		chunk->filled = 0;
		chunk->written = 0;
		chunk->offset += stream->window_bytes;
		stream->start += stream->chunk_bytes;
	}
	pthread_cond_broadcast(&stream->room);
	pthread_mutex_unlock(&stream->lock);
}

/* Sleeps until it is this claim's turn, with the lock held. */
static void claim_throttle(struct stream *stream, uint32_t bytes)
{
	int64_t now = now_us(), turn, cost;

	if (!limits_hold(stream->limits) || !stream->limits->io_bytes_per_s)
		return;
	cost = (int64_t)bytes * 1000000 / (int64_t)stream->limits->io_bytes_per_s;
	if (stream->turn_us < now - BURST_MS * 1000)
		stream->turn_us = now - BURST_MS * 1000;
	turn = stream->turn_us += cost;
	while (!stream->err && limits_hold(stream->limits) && turn > now) {
		int64_t until = now + BURST_MS * 1000 < turn ? now + BURST_MS * 1000 : turn;
		struct timespec at = { until / 1000000, until % 1000000 * 1000 };

		pthread_cond_timedwait(&stream->room, &stream->lock, &at);
		now = now_us();
	}
}

/*
 * The window has a chunk more than the largest block, so the block at the window's start always fits
 * and the start moves on.  Behind the window's memory is room for one block: see stream_fill().
 */
uint8_t *stream_claim(struct stream *stream, uint32_t bytes, uint64_t *offset)
{
	uint8_t *at = NULL;

	pthread_mutex_lock(&stream->lock);
	claim_throttle(stream, bytes);
	while (!stream->err && stream->end + bytes > stream->start + stream->window_bytes)
		pthread_cond_wait(&stream->room, &stream->lock);
	if (!stream->err) {
		*offset = stream->end;
		stream->end += bytes;
		at = stream->window + *offset % stream->window_bytes;
	}
	pthread_mutex_unlock(&stream->lock);
	return at;
}

static void *writer(void *arg);

/* The daemon's signals are for its own threads. */
static int writer_start(struct stream *stream)
{
	sigset_t all, old;
	int err = fault("packer.thread");

	if (err)
		return err;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&stream->writer_thread, NULL, writer, stream);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

/* The header, which is written last, is in the first of these bytes. */
static void head_keep(struct stream *stream, uint64_t length)
{
	struct object_writer *object = stream->writer;
	uint32_t bytes = length < ALIGNMENT ? length : ALIGNMENT;

	if (object->put.fd < 0)
		return; /* the header's place is written once */
	object->head = malloc(ALIGNMENT);
	if (!object->head)
		return; /* then only the header itself is written, over what is there */
	memcpy(object->head, stream->chunks[0].memory, bytes);
	object->head_bytes = bytes;
}

static void chunk_full_locked(struct stream *stream, struct chunk *chunk)
{
	int err = 0;

	if (!chunk->offset)
		head_keep(stream, stream->chunk_bytes);
	chunk->bytes = stream->chunk_bytes;
	ready_push(stream, chunk);
	if (!stream->writer_started)
		err = writer_start(stream);
	if (err)
		fail_locked(stream, err, "start the thread that writes");
	else
		stream->writer_started = true;
}

void stream_fill(struct stream *stream, uint64_t offset, uint32_t bytes)
{
	uint64_t behind = offset % stream->window_bytes + bytes;
	bool full = false;

	if (behind > stream->window_bytes)
		memcpy(stream->window, stream->window + stream->window_bytes,
		       behind - stream->window_bytes);
	pthread_mutex_lock(&stream->lock);
	while (bytes) {
		struct chunk *chunk = chunk_at(stream, offset);
		uint64_t left = chunk->offset + stream->chunk_bytes - offset;
		uint32_t part = left < bytes ? left : bytes;

		chunk->filled += part;
		offset += part;
		bytes -= part;
		if (chunk->filled < stream->chunk_bytes)
			continue;
		chunk_full_locked(stream, chunk);
		full = true;
	}
	pthread_mutex_unlock(&stream->lock);
	if (full)
		wake_writer(stream);
}

/* ---- direct I/O ---- */

static void log_once(bool *logged, const char *text, int err)
{
	if (!__atomic_exchange_n(logged, true, __ATOMIC_RELAXED))
		log_warn("%s (%s)", text, strerror(-err));
}

static int file_set_direct(struct stream *stream, bool direct)
{
	int fd = stream->writer->put.fd, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT))
		return -errno;
	return 0;
}

/* Why not is known to the store, for its status, and said once. */
static void direct_give_up(struct stream *stream, int err)
{
	if (!__atomic_exchange_n(&stream->store->direct_err, err, __ATOMIC_RELAXED))
		log_info("%s: its file system takes no direct writes (O_DIRECT: %s): they go through "
			 "the page cache", stream->store->path, strerror(-err));
	stream->direct = false;
}

static void direct_begin(struct stream *stream)
{
	int err = fault("packer.no_direct");

	if (__atomic_load_n(&stream->store->direct_err, __ATOMIC_RELAXED))
		return;
	if (!err)
		err = file_set_direct(stream, true);
	if (err)
		direct_give_up(stream, err);
	else
		stream->direct = true;
}

/* The file system took the flag but not the write. */
static void direct_end(struct stream *stream, int err)
{
	if (!stream->direct)
		return;
	direct_give_up(stream, err);
	err = file_set_direct(stream, false);
	if (err)
		fail(stream, err, "write through the page cache");
}

static void extend(struct stream *stream, uint64_t to)
{
	if (!stream->direct || to <= stream->extended)
		return;
	to += EXTEND_BYTES;
	/* If not, the writes extend it, and say what is wrong if something is. */
	stream->extended = ftruncate(stream->writer->put.fd, to) ? UINT64_MAX : to;
}

/* ---- the writer ---- */

static bool finished(struct stream *stream)
{
	bool done;

	pthread_mutex_lock(&stream->lock);
	done = stream->closing && !stream->ready && !stream->in_flight;
	pthread_mutex_unlock(&stream->lock);
	return done;
}

/* Keeps what is written but not yet on storage bounded, and out of the page cache after that. */
static int write_behind(struct stream *stream, uint32_t bytes)
{
	int fd = stream->writer->put.fd;
	uint64_t old;

	stream->completed += bytes;
	if (fd < 0 || stream->direct || stream->completed < (stream->spans + 1) * SPAN_BYTES)
		return 0;
	sync_file_range(fd, stream->spans++ * SPAN_BYTES, SPAN_BYTES, SYNC_FILE_RANGE_WRITE);
	if (stream->spans <= SPANS_DIRTY)
		return 0;
	old = (stream->spans - 1 - SPANS_DIRTY) * SPAN_BYTES;
	if (sync_file_range(fd, old, SPAN_BYTES, SYNC_FILE_RANGE_WAIT_BEFORE |
			    SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) &&
	    (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		return -errno;
	posix_fadvise(fd, old, SPAN_BYTES, POSIX_FADV_DONTNEED);
	return 0;
}

static void written(struct stream *stream, struct chunk *chunk, int err)
{
	if (!err)
		err = write_behind(stream, chunk->bytes);
	if (err)
		fail(stream, err, "write");
	chunk_release(stream, chunk);
}

static void wait_for_wake(struct stream *stream)
{
	uint64_t wakes;

	if (read(stream->wake, &wakes, sizeof(wakes)) < 0 && errno != EINTR)
		log_err("cannot wait for blocks of %s: %s", stream->writer->name, strerror(errno));
}

/* But for the header's place, which object_finish() writes. */
static int write_part(struct stream *stream, const uint8_t *data, uint32_t bytes, uint64_t offset)
{
	uint32_t header = offset ? 0 : OBJECT_HEADER_BYTES;

	return object_write(stream->writer, data + header, bytes - header, offset + header);
}

static void write_plainly(struct stream *stream)
{
	struct chunk *chunk;
	int64_t begin;
	int err;

	while (!finished(stream)) {
		while ((chunk = ready_pop(stream))) {
			begin = now_us();
			err = failed(stream) ? 0 : fault("packer.write");
			if (!err && !failed(stream))
				err = write_part(stream, chunk->memory, chunk->bytes, chunk->offset);
			stream->busy_us += now_us() - begin;
			written(stream, chunk, err);
		}
		if (!finished(stream))
			wait_for_wake(stream);
	}
}

static void busy_begin(struct stream *stream)
{
	if (!stream->in_flight++)
		stream->busy_since_us = now_us();
}

static void busy_end(struct stream *stream)
{
	if (!--stream->in_flight)
		stream->busy_us += now_us() - stream->busy_since_us;
}

static uint32_t next_length(struct stream *stream, const struct chunk *chunk)
{
	uint32_t left = chunk->bytes - chunk->written;

	if (left >= 2 * ALIGNMENT && fault("packer.short_write"))
		return left / 2 / ALIGNMENT * ALIGNMENT;
	return left;
}

/* The ring has room for a request of each chunk and for the wake-up. */
static void ring_write(struct stream *stream, struct chunk *chunk)
{
	int err = fault("packer.write"), fd = stream->fixed_file ? 0 : stream->writer->put.fd;
	uint8_t *at = chunk->memory + chunk->written;
	uint64_t offset = chunk->offset + chunk->written;
	struct io_uring_sqe *sqe;
	uint32_t length;

	if (err || failed(stream)) {
		written(stream, chunk, err);
		return;
	}
	extend(stream, chunk->offset + chunk->bytes);
	length = next_length(stream, chunk);
	sqe = io_uring_get_sqe(&stream->ring);
	if (stream->fixed_window)
		io_uring_prep_write_fixed(sqe, fd, at, length, offset, 0);
	else
		io_uring_prep_write(sqe, fd, at, length, offset);
	if (stream->fixed_file)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, chunk);
	chunk->direct = stream->direct;
	busy_begin(stream);
}

static void ring_arm_wake(struct stream *stream)
{
	struct io_uring_sqe *sqe;

	if (stream->wake_armed)
		return;
	sqe = io_uring_get_sqe(&stream->ring);
	io_uring_prep_poll_add(sqe, stream->wake, POLLIN);
	io_uring_sqe_set_data(sqe, NULL);
	stream->wake_armed = true;
}

/* Direct writes go on where they are aligned; what is written twice is the same. */
static bool ring_again(struct stream *stream, struct chunk *chunk, int result)
{
	if (result > 0) {
		chunk->written += result;
		if (chunk->written >= chunk->bytes)
			return false;
		if (chunk->direct)
			chunk->written -= chunk->written % ALIGNMENT;
		return true;
	}
	if (result == -EINVAL && chunk->direct) {
		direct_end(stream, result);
		return true;
	}
	return result == -EINTR || result == -EAGAIN;
}

static void ring_complete(struct stream *stream, struct chunk *chunk, int result)
{
	if (!chunk) {
		stream->wake_armed = false;
		wait_for_wake(stream);
		return;
	}
	if (result > 0 && chunk->direct)
		__atomic_store_n(&stream->store->direct_written, true, __ATOMIC_RELAXED);
	if (ring_again(stream, chunk, result))
		ring_write(stream, chunk);
	else
		written(stream, chunk, result < 0 ? result : result ? 0 : -EIO);
	busy_end(stream);
}

static void ring_reap(struct stream *stream)
{
	struct io_uring_cqe *cqe;
	struct chunk *chunk;
	int result;

	while (!io_uring_peek_cqe(&stream->ring, &cqe)) {
		chunk = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&stream->ring, cqe);
		ring_complete(stream, chunk, result);
	}
}

static void write_with_ring(struct stream *stream)
{
	struct chunk *chunk;
	int err;

	while (!finished(stream)) {
		while ((chunk = ready_pop(stream)))
			ring_write(stream, chunk);
		if (finished(stream))
			break;
		ring_arm_wake(stream);
		err = io_uring_submit_and_wait(&stream->ring, 1);
		if (err < 0 && err != -EINTR)
			usleep(SUBMIT_RETRY_US); /* the kernel is short of memory */
		ring_reap(stream);
	}
}

/* Registering saves work for each write, no more: without, the writes are the same. */
static void ring_register(struct stream *stream)
{
	struct iovec window = { stream->window, stream->window_bytes };

	stream->fixed_file = !io_uring_register_files(&stream->ring, &stream->writer->put.fd, 1);
	stream->fixed_window = !io_uring_register_buffers(&stream->ring, &window, 1);
}

static int ring_open(struct stream *stream)
{
	static bool logged;
	int err = fault("packer.no_uring");

	if (!err)
		err = io_uring_queue_init(stream->chunk_count + 1, &stream->ring, 0);
	if (err)
		log_once(&logged, "segments are written with pwrite, one chunk at a time: io_uring is "
			 "not available", err);
	else
		ring_register(stream);
	return err;
}

static void *writer(void *arg)
{
	identity_scope struct identity caller = { 0 };
	struct stream *stream = arg;
	int err = store_enter(stream->store, &caller, NULL);

	pthread_setname_np(pthread_self(), "ckpt-write");
	if (err)
		fail(stream, err, "become store_user to write");
	if (stream->writer->put.fd < 0 || ring_open(stream)) {
		write_plainly(stream);
		return NULL;
	}
	direct_begin(stream);
	write_with_ring(stream);
	/* With the ring it would go some time later, and what holds a file holds its space and its mount. */
	if (stream->fixed_file)
		io_uring_unregister_files(&stream->ring);
	io_uring_queue_exit(&stream->ring);
	return NULL;
}

/* ---- the owner's side ---- */

static size_t clamp(size_t value, size_t low, size_t high)
{
	return value < low ? low : value > high ? high : value;
}

static size_t round_down(size_t value, size_t to)
{
	return value / to * to;
}

static int window_create(struct stream *stream, size_t bytes)
{
	unsigned int i;
	size_t chunk = clamp(bytes / CHUNKS_WANTED, CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);

	stream->chunk_bytes = round_down(chunk, CHUNK_BYTES_MIN);
	stream->chunk_count = clamp(bytes / stream->chunk_bytes, STREAM_WINDOW_MIN / CHUNK_BYTES_MIN,
				    CHUNKS_MAX);
	stream->window_bytes = (size_t)stream->chunk_count * stream->chunk_bytes;
	bytes = round_down(stream->window_bytes + BLOCK_STORED_MAX + HUGE_PAGE_BYTES - 1,
			   HUGE_PAGE_BYTES);
	stream->window = aligned_alloc(HUGE_PAGE_BYTES, bytes);
	if (!stream->window)
		return -ENOMEM;
	madvise(stream->window, stream->window_bytes, MADV_HUGEPAGE);
	memset(stream->window, 0, OBJECT_HEADER_BYTES);
	for (i = 0; i < stream->chunk_count; i++)
		stream->chunks[i] = (struct chunk){
			.memory = stream->window + (size_t)i * stream->chunk_bytes,
			.offset = (uint64_t)i * stream->chunk_bytes,
		};
	return 0;
}

static void locks_create(struct stream *stream)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&stream->lock, NULL);
	pthread_cond_init(&stream->room, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int stream_create(struct stream **created, struct object_writer *object, size_t window_bytes,
		  const struct limits *limits, struct problem *problem)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int err;

	if (!stream)
		return problem_set(problem, ENOMEM, "no memory to write %s", object->name);
	stream->writer = object;
	stream->store = object->store;
	stream->limits = limits;
	stream->end = object->length;
	stream->ready_end = &stream->ready;
	locks_create(stream);
	stream->wake = eventfd(0, EFD_CLOEXEC);
	err = stream->wake < 0 ? -errno : window_create(stream, window_bytes);
	if (!err) {
		/* The header's place counts as filled. */
		stream->chunks[0].filled = object->length;
		*created = stream;
		return 0;
	}
	stream_destroy(stream);
	return problem_set(problem, -err, "cannot begin to write %s: %s", object->name,
			   strerror(-err));
}

int stream_failure(struct stream *stream, struct problem *problem)
{
	const char *operation;
	int err;

	pthread_mutex_lock(&stream->lock);
	err = stream->err;
	operation = stream->operation;
	pthread_mutex_unlock(&stream->lock);
	return err ? store_problem(stream->store, problem, -err, operation, stream->writer->name) : 0;
}

static void writer_join(struct stream *stream)
{
	if (!stream->writer_started)
		return;
	pthread_mutex_lock(&stream->lock);
	stream->closing = true;
	pthread_mutex_unlock(&stream->lock);
	wake_writer(stream);
	pthread_join(stream->writer_thread, NULL);
	stream->writer_started = false;
}

/* What is left behind the last full chunk. The writer moves the chunk on when it has written it. */
struct rest {
	struct chunk *chunk;
	uint64_t offset;
	uint32_t bytes;
	uint32_t sent; /* of them, to the writer */
};

static void rest_send(struct stream *stream, struct rest *rest)
{
	uint32_t bytes = round_down(rest->bytes, ALIGNMENT);

	if (!stream->writer_started || !bytes)
		return;
	rest->sent = rest->chunk->bytes = bytes;
	pthread_mutex_lock(&stream->lock);
	ready_push(stream, rest->chunk);
	pthread_mutex_unlock(&stream->lock);
}

static int rest_write(struct stream *stream, const struct rest *rest)
{
	identity_scope struct identity caller = { 0 };
	int err = store_enter(stream->store, &caller, NULL);

	if (!err && stream->direct)
		err = file_set_direct(stream, false);
	if (!err && rest->bytes > rest->sent)
		err = fault("packer.write");
	if (!err && rest->bytes > rest->sent)
		err = write_part(stream, rest->chunk->memory + rest->sent, rest->bytes - rest->sent,
				 rest->offset + rest->sent);
	if (!err && stream->extended)
		err = try_call("packer.truncate", ftruncate(stream->writer->put.fd, stream->end));
	return err;
}

int stream_end(struct stream *stream, struct problem *problem)
{
	/* When the end is that of a chunk, the next one's place may still be another's. */
	struct rest rest = { .chunk = chunk_at(stream, stream->end),
			     .bytes = stream->end % stream->chunk_bytes };
	int err;

	rest.offset = stream->end - rest.bytes;
	if (!rest.offset)
		head_keep(stream, rest.bytes);
	if (!failed(stream))
		rest_send(stream, &rest);
	writer_join(stream);
	err = failed(stream) ? 0 : rest_write(stream, &rest);
	if (err)
		fail(stream, err, "write");
	stream->writer->length = stream->end;
	return stream_failure(stream, problem);
}

struct stream_stats stream_stats(const struct stream *stream)
{
	return (struct stream_stats){ .busy_us = stream->busy_us,
				      .chunk_bytes = stream->chunk_bytes,
				      .chunks = stream->chunk_count,
				      .direct = stream->direct };
}

void stream_destroy(struct stream *stream)
{
	fail(stream, -ECANCELED, "write");
	writer_join(stream);
	if (stream->wake >= 0)
		close(stream->wake);
	pthread_cond_destroy(&stream->room);
	pthread_mutex_destroy(&stream->lock);
	free(stream->window);
	free(stream);
}
