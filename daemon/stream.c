// SPDX-License-Identifier: GPL-2.0
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include "cleanup.h"
#include "faults.h"
#include "log.h"
#include "processors.h"

#define WORKERS_MAX 16
#define BUFFERS_MAX 1024
#define BUFFER_BYTES (BLOCK_PLAIN_BYTES + BLOCK_STORED_MAX)

/* Dirty pages of the object in the page cache are at most WINDOWS_DIRTY of these, then written. */
#define WINDOW_BYTES (16u << 20)
#define WINDOWS_DIRTY 4

#define SUBMIT_RETRY_US 1000

struct queue {
	struct stream_buffer *first;
	struct stream_buffer **end;
};

struct stream {
	struct object_writer *writer;
	struct store *store;
	size_t buffers_max;
	unsigned int workers_max;

	pthread_mutex_t lock; /* of what follows, to the next empty line */
	pthread_cond_t freed;
	pthread_cond_t work_added;
	struct queue free;
	struct queue work;
	struct queue ready;
	size_t buffers;     /* that were made */
	size_t outstanding; /* sent and not free again */
	bool closing;
	int err;
	const char *operation; /* that failed */
	struct placement *placements;
	uint32_t count;
	uint32_t space;

	uint64_t end; /* of the object; atomic */
	int wake;     /* eventfd: the writer has something to do */
	pthread_t writer_thread;
	pthread_t workers[WORKERS_MAX];
	unsigned int worker_count;
	bool writer_started;

	/* the writer thread's */
	struct io_uring ring;
	bool wake_armed;
	uint64_t completed;
	uint64_t windows; /* whose writing was started */
};

/* ---- queues ---- */

static void queue_init(struct queue *queue)
{
	queue->first = NULL;
	queue->end = &queue->first;
}

static void queue_push(struct queue *queue, struct stream_buffer *buffer)
{
	buffer->next = NULL;
	*queue->end = buffer;
	queue->end = &buffer->next;
}

static struct stream_buffer *queue_pop(struct queue *queue)
{
	struct stream_buffer *buffer = queue->first;

	if (!buffer)
		return NULL;
	queue->first = buffer->next;
	if (!queue->first)
		queue->end = &queue->first;
	return buffer;
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
	pthread_cond_broadcast(&stream->freed);
}

static void recycle(struct stream *stream, struct stream_buffer *buffer, int err,
		    const char *operation)
{
	pthread_mutex_lock(&stream->lock);
	if (err)
		fail_locked(stream, err, operation);
	stream->outstanding--;
	queue_push(&stream->free, buffer);
	pthread_cond_signal(&stream->freed);
	pthread_mutex_unlock(&stream->lock);
}

/* ---- workers ---- */

static struct stream_buffer *next_work(struct stream *stream)
{
	struct stream_buffer *buffer;

	pthread_mutex_lock(&stream->lock);
	while (!(buffer = queue_pop(&stream->work)) && !stream->closing)
		pthread_cond_wait(&stream->work_added, &stream->lock);
	pthread_mutex_unlock(&stream->lock);
	return buffer;
}

static void pack(struct stream *stream, struct block_codec *codec, struct stream_buffer *buffer)
{
	int err;

	block_pack(codec, &buffer->header, buffer->plain, &buffer->stored);
	buffer->offset = __atomic_fetch_add(&stream->end, buffer->stored, __ATOMIC_RELAXED);
	err = block_seal(codec, stream->writer->sealer, &buffer->header, buffer->offset,
			 buffer->sealed);
	if (err) {
		recycle(stream, buffer, err, "seal");
		return;
	}
	buffer->written = 0;
	pthread_mutex_lock(&stream->lock);
	stream->placements[buffer->number] = (struct placement){ .offset = buffer->offset,
								 .stored = buffer->stored };
	queue_push(&stream->ready, buffer);
	pthread_mutex_unlock(&stream->lock);
	wake_writer(stream);
}

static void *worker(void *arg)
{
	struct stream *stream = arg;
	struct block_codec *codec = block_codec_create(stream->store->compression, BLOCK_CONTENT_MAX);
	struct stream_buffer *buffer;

	while ((buffer = next_work(stream))) {
		if (codec)
			pack(stream, codec, buffer);
		else
			recycle(stream, buffer, -ENOMEM, "get memory to write");
	}
	block_codec_destroy(codec);
	return NULL;
}

/* ---- the writer ---- */

static struct stream_buffer *next_ready(struct stream *stream)
{
	struct stream_buffer *buffer;

	pthread_mutex_lock(&stream->lock);
	buffer = queue_pop(&stream->ready);
	pthread_mutex_unlock(&stream->lock);
	return buffer;
}

static bool finished(struct stream *stream)
{
	bool done;

	pthread_mutex_lock(&stream->lock);
	done = stream->closing && !stream->outstanding;
	pthread_mutex_unlock(&stream->lock);
	return done;
}

static bool failed(struct stream *stream)
{
	bool err;

	pthread_mutex_lock(&stream->lock);
	err = stream->err;
	pthread_mutex_unlock(&stream->lock);
	return err;
}

/* Keeps what is written but not yet on storage bounded, and out of the page cache after that. */
static int write_behind(struct stream *stream, uint32_t bytes)
{
	int fd = stream->writer->put.fd;
	uint64_t old;

	stream->completed += bytes;
	if (fd < 0 || stream->completed < (stream->windows + 1) * WINDOW_BYTES)
		return 0;
	sync_file_range(fd, stream->windows++ * WINDOW_BYTES, WINDOW_BYTES, SYNC_FILE_RANGE_WRITE);
	if (stream->windows <= WINDOWS_DIRTY)
		return 0;
	old = (stream->windows - 1 - WINDOWS_DIRTY) * WINDOW_BYTES;
	if (sync_file_range(fd, old, WINDOW_BYTES,
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) &&
	    (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		return -errno;
	posix_fadvise(fd, old, WINDOW_BYTES, POSIX_FADV_DONTNEED);
	return 0;
}

static void written(struct stream *stream, struct stream_buffer *buffer, int err)
{
	if (!err)
		err = write_behind(stream, buffer->stored);
	recycle(stream, buffer, err, "write");
}

static void write_plainly(struct stream *stream)
{
	struct stream_buffer *buffer;
	uint64_t wakes;
	int err;

	while (!finished(stream)) {
		while ((buffer = next_ready(stream))) {
			err = failed(stream) ? 0 : fault("packer.write");
			if (!err && !failed(stream))
				err = object_write(stream->writer, buffer->sealed, buffer->stored,
						   buffer->offset);
			written(stream, buffer, err);
		}
		if (!finished(stream) && read(stream->wake, &wakes, sizeof(wakes)) < 0 &&
		    errno != EINTR)
			log_err("cannot wait for blocks of %s: %s", stream->writer->name,
				strerror(errno));
	}
}

/* The ring has room for a request of each buffer and for the wake-up. */
static void ring_write(struct stream *stream, struct stream_buffer *buffer)
{
	uint32_t left = buffer->stored - buffer->written;
	int err = fault("packer.write");
	struct io_uring_sqe *sqe;

	if (err || failed(stream)) {
		written(stream, buffer, err);
		return;
	}
	if (left > 1 && fault("packer.short_write"))
		left /= 2;
	sqe = io_uring_get_sqe(&stream->ring);
	io_uring_prep_write(sqe, stream->writer->put.fd, buffer->sealed + buffer->written, left,
			    buffer->offset + buffer->written);
	io_uring_sqe_set_data(sqe, buffer);
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

static void ring_complete(struct stream *stream, struct stream_buffer *buffer, int result)
{
	uint64_t wakes;

	if (!buffer) {
		stream->wake_armed = false;
		if (read(stream->wake, &wakes, sizeof(wakes)) < 0 && errno != EAGAIN)
			log_err("eventfd: %s", strerror(errno));
		return;
	}
	if (result > 0)
		buffer->written += result;
	if (result == -EINTR || result == -EAGAIN || (result > 0 && buffer->written < buffer->stored))
		ring_write(stream, buffer);
	else
		written(stream, buffer, result < 0 ? result : result ? 0 : -EIO);
}

static void ring_reap(struct stream *stream)
{
	struct io_uring_cqe *cqe;
	struct stream_buffer *buffer;
	int result;

	while (!io_uring_peek_cqe(&stream->ring, &cqe)) {
		buffer = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&stream->ring, cqe);
		ring_complete(stream, buffer, result);
	}
}

static void write_with_ring(struct stream *stream)
{
	struct stream_buffer *buffer;
	int err;

	while (!finished(stream)) {
		while ((buffer = next_ready(stream)))
			ring_write(stream, buffer);
		if (finished(stream))
			break;
		ring_arm_wake(stream);
		err = io_uring_submit_and_wait(&stream->ring, 1);
		if (err < 0 && err != -EINTR)
			usleep(SUBMIT_RETRY_US); /* the kernel is short of memory */
		ring_reap(stream);
	}
}

static void log_no_ring(int err)
{
	static bool logged;

	if (!__atomic_exchange_n(&logged, true, __ATOMIC_RELAXED))
		log_warn("segments are written with pwrite, one block at a time: io_uring is not "
			 "available (%s)", strerror(-err));
}

static int ring_open(struct stream *stream)
{
	int err = fault("packer.no_uring");

	if (!err)
		err = io_uring_queue_init(stream->buffers_max + 1, &stream->ring, 0);
	if (err)
		log_no_ring(err);
	return err;
}

static void *writer(void *arg)
{
	identity_scope struct identity caller = { 0 };
	struct stream *stream = arg;
	int err = store_enter(stream->store, &caller, NULL);

	if (err) {
		pthread_mutex_lock(&stream->lock);
		fail_locked(stream, err, "become store_user to write");
		pthread_mutex_unlock(&stream->lock);
	}
	if (stream->writer->put.fd < 0 || ring_open(stream)) {
		write_plainly(stream);
		return NULL;
	}
	write_with_ring(stream);
	io_uring_queue_exit(&stream->ring);
	return NULL;
}

/* ---- the owner's side ---- */

static size_t clamp(size_t value, size_t low, size_t high)
{
	return value < low ? low : value > high ? high : value;
}

/* Two buffers and one worker are the least that a stream can run with: 1.3 MiB. */
static void stream_size(struct stream *stream, size_t bytes)
{
	size_t workers = clamp(bytes / (4 * BUFFER_BYTES), 1, WORKERS_MAX);
	size_t codecs;

	stream->workers_max = processors(workers);
	codecs = stream->workers_max * BLOCK_PLAIN_BYTES;
	stream->buffers_max = clamp(bytes > codecs ? (bytes - codecs) / BUFFER_BYTES : 0, 2,
				    BUFFERS_MAX);
}

static int threads_start(struct stream *stream)
{
	int err = fault("packer.thread");

	if (!err)
		err = -pthread_create(&stream->writer_thread, NULL, writer, stream);
	stream->writer_started = !err;
	while (!err && stream->worker_count < stream->workers_max) {
		err = -pthread_create(&stream->workers[stream->worker_count], NULL, worker, stream);
		if (!err)
			stream->worker_count++;
	}
	return stream->worker_count ? 0 : err;
}

/* The daemon's signals are for its own threads. */
static int threads_start_quietly(struct stream *stream)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = threads_start(stream);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int stream_create(struct stream **created, struct object_writer *object, struct problem *problem)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int err;

	if (!stream)
		return problem_set(problem, ENOMEM, "no memory to write %s", object->name);
	stream->writer = object;
	stream->store = object->store;
	stream->end = object->length;
	pthread_mutex_init(&stream->lock, NULL);
	pthread_cond_init(&stream->freed, NULL);
	pthread_cond_init(&stream->work_added, NULL);
	queue_init(&stream->free);
	queue_init(&stream->work);
	queue_init(&stream->ready);
	stream_size(stream, stream->store->buffer_bytes);
	stream->wake = eventfd(0, EFD_CLOEXEC);
	err = stream->wake < 0 ? -errno : threads_start_quietly(stream);
	if (!err) {
		*created = stream;
		return 0;
	}
	stream_destroy(stream);
	return problem_set(problem, -err, "cannot start the threads that write %s: %s",
			   object->name, strerror(-err));
}

static struct stream_buffer *buffer_create(void)
{
	struct stream_buffer *buffer = calloc(1, sizeof(*buffer));

	if (!buffer)
		return NULL;
	buffer->plain = malloc(BLOCK_PLAIN_BYTES);
	buffer->sealed = malloc(BLOCK_STORED_MAX);
	if (buffer->plain && buffer->sealed)
		return buffer;
	free(buffer->plain);
	free(buffer->sealed);
	free(buffer);
	return NULL;
}

static void buffer_destroy(struct stream_buffer *buffer)
{
	seal_wipe(buffer->plain, buffer->used);
	free(buffer->plain);
	free(buffer->sealed);
	free(buffer);
}

static struct stream_buffer *buffer_locked(struct stream *stream)
{
	struct stream_buffer *buffer;

	for (;;) {
		if (stream->err)
			return NULL;
		buffer = queue_pop(&stream->free);
		if (!buffer && stream->buffers < stream->buffers_max) {
			buffer = buffer_create();
			stream->buffers += !!buffer;
		}
		if (buffer)
			return buffer;
		if (!stream->outstanding)
			fail_locked(stream, -ENOMEM, "get memory to write");
		else
			pthread_cond_wait(&stream->freed, &stream->lock);
	}
}

struct stream_buffer *stream_buffer(struct stream *stream)
{
	struct stream_buffer *buffer;

	pthread_mutex_lock(&stream->lock);
	buffer = buffer_locked(stream);
	pthread_mutex_unlock(&stream->lock);
	if (buffer)
		buffer->header = (struct block_header){ .algorithm = stream->store->algorithm };
	return buffer;
}

static int placements_grow(struct stream *stream)
{
	uint32_t space = stream->space ? stream->space * 2 : 64;
	struct placement *placements;

	if (stream->count < stream->space)
		return 0;
	placements = space ? realloc(stream->placements, space * sizeof(*placements)) : NULL;
	if (!placements)
		return -ENOMEM;
	stream->placements = placements;
	stream->space = space;
	return 0;
}

static void buffer_use(struct stream_buffer *buffer)
{
	uint32_t used = buffer->header.content_length + buffer->header.pages * BLOCK_HASH_BYTES;

	if (buffer->used < used)
		buffer->used = used;
}

int stream_send(struct stream *stream, struct stream_buffer *buffer, uint32_t *number)
{
	int err;

	pthread_mutex_lock(&stream->lock);
	err = placements_grow(stream);
	if (err) {
		fail_locked(stream, err, "get memory to write");
		queue_push(&stream->free, buffer);
	} else {
		buffer_use(buffer);
		*number = buffer->number = stream->count++;
		stream->outstanding++;
		queue_push(&stream->work, buffer);
		pthread_cond_signal(&stream->work_added);
	}
	pthread_mutex_unlock(&stream->lock);
	return err;
}

void stream_return(struct stream *stream, struct stream_buffer *buffer)
{
	buffer->used = BLOCK_PLAIN_BYTES; /* how much of it, only the owner knows */
	pthread_mutex_lock(&stream->lock);
	queue_push(&stream->free, buffer);
	pthread_mutex_unlock(&stream->lock);
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

static void threads_join(struct stream *stream)
{
	pthread_mutex_lock(&stream->lock);
	stream->closing = true;
	pthread_cond_broadcast(&stream->work_added);
	pthread_mutex_unlock(&stream->lock);
	while (stream->worker_count)
		pthread_join(stream->workers[--stream->worker_count], NULL);
	if (!stream->writer_started)
		return;
	wake_writer(stream);
	pthread_join(stream->writer_thread, NULL);
	stream->writer_started = false;
}

int stream_end(struct stream *stream, struct problem *problem)
{
	threads_join(stream);
	stream->writer->length = stream->end;
	return stream_failure(stream, problem);
}

const struct placement *stream_placement(const struct stream *stream, uint32_t number)
{
	return &stream->placements[number];
}

void stream_destroy(struct stream *stream)
{
	struct stream_buffer *buffer;

	threads_join(stream);
	while ((buffer = queue_pop(&stream->free)))
		buffer_destroy(buffer);
	if (stream->wake >= 0)
		close(stream->wake);
	pthread_cond_destroy(&stream->work_added);
	pthread_cond_destroy(&stream->freed);
	pthread_mutex_destroy(&stream->lock);
	free(stream->placements);
	free(stream);
}
