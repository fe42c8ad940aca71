/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of `ckptbench stream` share: the runs that are measured, ours and the peers'. */
#ifndef CKPT_BENCH_STREAM_H
#define CKPT_BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process whose memory is streamed: incompressible, no two pages alike. */
struct source_process {
	pid_t pid;
	int socket;
	uint8_t *memory;        /* the same address in the process */
	size_t bytes;
};

/* All return 0 or -errno. */
int source_start(struct source_process *source, size_t bytes);
void source_end(struct source_process *source);

enum rewrite {
	REWRITE_SAME,           /* each page, with what it has */
	REWRITE_ZERO,
	REWRITE_FRESH,
};

int source_rewrite(const struct source_process *source, enum rewrite how);

/* How the memory is streamed. */
struct stream_run {
	const struct source_process *source;
	const char *directory;  /* of the store */
	const char *seal;
	size_t buffer_bytes;
	bool again;             /* the figures are those of a second pass, after this: */
	enum rewrite rewrite;
};

struct stream_figures {
	double seconds;         /* until durable */
	double cpu_seconds;     /* of the whole process that streams, with the kernel's threads for it */
	uint64_t bytes_written;
	uint64_t peak_bytes;    /* RSS of that process */
	uint32_t chunk_bytes;
	unsigned int chunks;
	bool direct;
};

/* Each runs in a process of its own, which says on stderr what fails. */
int stream_ours(const struct stream_run *run, struct stream_figures *figures);
/* process_vm_readv of everything by threads, each into one small buffer, and from there: */
enum copy {
	COPY_MAPPED,            /* memcpy into a mapped file in the directory */
	COPY_WRITE,             /* pwrite into one, the kernel's memcpy */
	COPY_MEMORY,            /* memcpy into memory that is there */
	COPY_NOWHERE,
};
int stream_copy(const struct source_process *source, enum copy how, const char *directory,
		unsigned int threads, struct stream_figures *figures);
/* -ENOENT: there is no fio. */
int stream_fio(const char *directory, size_t bytes, uint32_t block_bytes, unsigned int depth,
	       struct stream_figures *figures);
/* criu dump of the process, into the directory. -ENOTSUP: criu does not work here. */
int stream_criu(const struct source_process *source, const char *directory,
		struct stream_figures *figures);

#endif
