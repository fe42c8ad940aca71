// SPDX-License-Identifier: GPL-2.0
/* The runs of ckptbench stream: each once, in a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "bench_stream.h"
#include "cleanup.h"
#include "commands.h"
#include "directory.h"
#include "key.h"
#include "log.h"
#include "packer.h"
#include "region.h"
#include "store.h"

#define PIECE_BYTES (256u << 10)
#define COPY_THREADS_MAX 64

/* ---- the process whose memory is streamed ---- */

static void memory_touch(uint8_t *memory, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += PAGE_BYTES)
		*(volatile uint8_t *)(memory + i) = memory[i];
}

static void source_main(uint8_t *memory, size_t bytes, int socket)
{
	uint64_t seed = 1;
	char order = 'r';

	bench_fill((uint64_t *)memory, bytes, seed);
	while (write(socket, &order, 1) == 1 && read(socket, &order, 1) == 1) {
		if (order == REWRITE_SAME)
			memory_touch(memory, bytes);
		else if (order == REWRITE_ZERO)
			memset(memory, 0, bytes);
		else
			bench_fill((uint64_t *)memory, bytes, ++seed);
	}
	_exit(0);
}

int source_start(struct source_process *source, size_t bytes)
{
	int sockets[2];
	char ready;

	source->bytes = bytes;
	source->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (source->memory == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	madvise(source->memory, bytes, MADV_NOHUGEPAGE);
	source->pid = fork();
	if (source->pid < 0)
		return -errno;
	if (!source->pid) {
		close(sockets[0]);
		source_main(source->memory, bytes, sockets[1]);
	}
	close(sockets[1]);
	source->socket = sockets[0];
	return read(source->socket, &ready, 1) == 1 ? 0 : -EIO;
}

void source_end(struct source_process *source)
{
	close(source->socket);
	waitpid(source->pid, NULL, 0);
	munmap(source->memory, source->bytes);
}

int source_rewrite(const struct source_process *source, enum rewrite how)
{
	char order = how;

	return write(source->socket, &order, 1) == 1 && read(source->socket, &order, 1) == 1 ? 0 : -EIO;
}

/* ---- a process for each run ---- */

typedef int (*run_function)(const void *what, struct stream_figures *figures);

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Not ru_maxrss: that begins with what the parent had. */
static uint64_t peak_bytes(void)
{
	cleanup_fclose FILE *status = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[128];

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmHWM: %lu", &kib) == 1)
			break;
	return (uint64_t)kib << 10;
}

static int run_apart(run_function run, const void *what, struct stream_figures *figures)
{
	struct stream_figures *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 1;
	pid_t pid;

	if (shared == MAP_FAILED)
		return -errno;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_NAME, "ckptbench-run");
		status = run(what, shared);
		shared->peak_bytes = peak_bytes();
		_exit(-status);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	*figures = *shared;
	munmap(shared, sizeof(*shared));
	if (pid < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* ---- ours ---- */

struct ours {
	struct store *store;
	struct term term;
	struct pagemap *map;
	struct problem problem;
};

static int ours_open(struct ours *ours, const struct stream_run *run)
{
	static const struct keys keys = { .count = 1, .list = { { 1 } } };
	struct store_options options = { .directory = run->directory, .keys = &keys, .seal = run->seal,
					 .uid = geteuid(), .gid = getegid(), .compress = "none",
					 .buffer_bytes = run->buffer_bytes };
	struct term previous;
	int err = store_open(&ours->store, &options, "0-ckptbench", &ours->problem);

	if (!err)
		err = store_read_term(ours->store, &previous, &ours->problem);
	if (!err)
		err = store_take_term(ours->store, &previous, "bench", "", &ours->term, &ours->problem);
	ours->map = pagemap_create();
	return err ? err : ours->map ? 0 : -ENOMEM;
}

static int ours_pass(struct ours *ours, const struct source_process *source,
		     struct packer_stats *stats)
{
	struct packer_source pages = { .pid = source->pid,
				       .space = pagemap_space(ours->map, SPACE_TASK, 1) };
	uint64_t start = (uintptr_t)source->memory;
	struct packer *packer;
	int err = packer_create(&packer, ours->store, &ours->term, ours->map, &ours->problem);

	if (err)
		return err;
	err = packer_read(packer, &pages, start, start + source->bytes, &ours->problem);
	if (!err)
		err = packer_commit(packer, stats, &ours->problem);
	if (err)
		packer_abort(packer);
	return err;
}

static int ours_measure(struct ours *ours, const struct stream_run *run,
			struct stream_figures *figures)
{
	double cpu = cpu_seconds();
	int64_t begin = bench_now_us();
	struct packer_stats stats;
	int err = ours_pass(ours, run->source, &stats);

	figures->seconds = (double)(bench_now_us() - begin) / 1e6;
	figures->cpu_seconds = cpu_seconds() - cpu;
	figures->bytes_written = stats.bytes_written;
	figures->chunk_bytes = stats.chunk_bytes;
	figures->chunks = stats.chunks;
	figures->direct = stats.direct;
	return err;
}

static int ours_run(const void *what, struct stream_figures *figures)
{
	const struct stream_run *run = what;
	struct ours ours = { .problem = { "" } };
	int err = ours_open(&ours, run);

	log_set_level(LOG_ERR);
	if (!err)
		err = ours_measure(&ours, run, figures);
	if (!err && run->again)
		err = source_rewrite(run->source, run->rewrite);
	if (!err && run->again)
		err = ours_measure(&ours, run, figures);
	if (err)
		say("%s", ours.problem.text[0] ? ours.problem.text : strerror(-err));
	if (ours.store)
		store_retire(ours.store, &ours.term, NULL);
	return err;
}

int stream_ours(const struct stream_run *run, struct stream_figures *figures)
{
	return run_apart(ours_run, run, figures);
}

/* ---- process_vm_readv, alone and with a copy ---- */

static int piece_read(const struct source_process *source, size_t offset, void *to, size_t bytes)
{
	struct iovec local = { to, bytes }, remote = { source->memory + offset, bytes };
	ssize_t got = process_vm_readv(source->pid, &local, 1, &remote, 1, 0);

	return got == (ssize_t)bytes ? 0 : got < 0 ? -errno : -EFAULT;
}

struct copying {
	const struct source_process *source;
	enum copy how;
	const char *directory;
	unsigned int threads;
	int fd;
	uint8_t *to;
	size_t next;            /* piece; atomic */
	int err;
};

static int piece_copy(struct copying *copying, size_t offset, const uint8_t *piece)
{
	if (copying->how == COPY_WRITE)
		return pwrite(copying->fd, piece, PIECE_BYTES, (off_t)offset) == PIECE_BYTES ? 0 : -errno;
	if (copying->how != COPY_NOWHERE)
		memcpy(copying->to + offset, piece, PIECE_BYTES);
	return 0;
}

static void *copy_thread(void *arg)
{
	struct copying *copying = arg;
	cleanup_free uint8_t *piece = calloc(1, PIECE_BYTES);
	int err = piece ? 0 : -ENOMEM;

	while (!err) {
		size_t offset = __atomic_fetch_add(&copying->next, 1, __ATOMIC_RELAXED) * PIECE_BYTES;

		if (offset >= copying->source->bytes)
			break;
		err = piece_read(copying->source, offset, piece, PIECE_BYTES);
		if (!err)
			err = piece_copy(copying, offset, piece);
	}
	if (err)
		copying->err = err;
	return NULL;
}

static int copy_threads(struct copying *copying)
{
	pthread_t threads[COPY_THREADS_MAX];
	unsigned int started = 0;

	while (started < copying->threads && started < COPY_THREADS_MAX &&
	       !pthread_create(&threads[started], NULL, copy_thread, copying))
		started++;
	for (unsigned int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	return started ? copying->err : -EAGAIN;
}

static int copy_open(struct copying *copying)
{
	char path[4096];
	size_t bytes = copying->source->bytes;
	int flags = copying->how == COPY_MEMORY ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE : MAP_SHARED;

	if (copying->how == COPY_NOWHERE)
		return 0;
	if (copying->how != COPY_MEMORY) {
		snprintf(path, sizeof(path), "%s/ckptbench-copy", copying->directory);
		copying->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (copying->fd < 0)
			return -errno;
		unlink(path);
	}
	if (copying->how == COPY_WRITE)
		return 0;
	if (copying->how == COPY_MAPPED && ftruncate(copying->fd, (off_t)bytes))
		return -errno;
	copying->to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, copying->fd, 0);
	return copying->to == MAP_FAILED ? -errno : 0;
}

static int copy_run(const void *what, struct stream_figures *figures)
{
	struct copying copying = *(const struct copying *)what;
	int err = copy_open(&copying);
	int64_t begin = bench_now_us();
	double cpu = cpu_seconds();

	if (!err)
		err = copy_threads(&copying);
	figures->cpu_seconds = cpu_seconds() - cpu;
	figures->seconds = (double)(bench_now_us() - begin) / 1e6;
	figures->bytes_written = copying.source->bytes;
	return err;
}

int stream_copy(const struct source_process *source, enum copy how, const char *directory,
		unsigned int threads, struct stream_figures *figures)
{
	struct copying copying = { .source = source, .how = how, .directory = directory,
				   .threads = threads, .fd = -1 };

	return run_apart(copy_run, &copying, figures);
}

/* ---- fio ---- */

static int fio_read(FILE *output, struct stream_figures *figures)
{
	json_t *report = json_loadf(output, JSON_DISABLE_EOF_CHECK, NULL);
	json_t *job = json_array_get(json_object_get(report, "jobs"), 0);
	json_t *written = json_object_get(job, "write");
	double ms = json_number_value(json_object_get(job, "job_runtime"));

	figures->seconds = ms / 1000;
	figures->bytes_written = (uint64_t)json_integer_value(json_object_get(written, "io_bytes"));
	figures->cpu_seconds = (json_number_value(json_object_get(job, "usr_cpu")) +
				json_number_value(json_object_get(job, "sys_cpu"))) / 100 * ms / 1000;
	json_decref(report);
	return figures->bytes_written && ms > 0 ? 0 : -EIO;
}

int stream_fio(const char *directory, size_t bytes, uint32_t block_bytes, unsigned int depth,
	       struct stream_figures *figures)
{
	char command[4600];
	FILE *output;
	int err;

	if (system("command -v fio >/dev/null 2>&1"))
		return -ENOENT;
	snprintf(command, sizeof(command), "cd '%s' && fio --name=ckptbench --filename=ckptbench-fio "
		 "--rw=write --direct=1 --ioengine=io_uring --end_fsync=1 --size=%zu --bs=%u --iodepth=%u "
		 "--output-format=json 2>&1; rm -f ckptbench-fio", directory, bytes, block_bytes, depth);
	output = popen(command, "re");
	if (!output)
		return -errno;
	err = fio_read(output, figures);
	return pclose(output) ? -EIO : err;
}

/* ---- criu ---- */

static int criu_exec(const struct source_process *source, const char *directory)
{
	char target[16];

	snprintf(target, sizeof(target), "%d", source->pid);
	execlp("criu", "criu", "dump", "--no-default-config", "-t", target, "-D", directory, "-o",
	       "dump.log", "-v1", "--leave-running", "--shell-job", "--ext-unix-sk", NULL);
	return -errno;
}

int stream_criu(const struct source_process *source, const char *directory,
		struct stream_figures *figures)
{
	char images[4096];
	int64_t begin = bench_now_us();
	cleanup_close int fd = -1;
	struct rusage usage;
	int status;
	pid_t pid;

	if (system("criu check >/dev/null 2>&1"))
		return -ENOTSUP;
	snprintf(images, sizeof(images), "%s/ckptbench-criu", directory);
	if (directory_make_empty(images, NULL))
		return -errno;
	pid = fork();
	if (!pid)
		_exit(-criu_exec(source, images));
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return -errno;
	fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		syncfs(fd);
	figures->seconds = (double)(bench_now_us() - begin) / 1e6;
	figures->cpu_seconds = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
			       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
	figures->bytes_written = source->bytes;
	directory_remove(images);
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}
