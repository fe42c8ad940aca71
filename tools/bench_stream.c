// SPDX-License-Identifier: GPL-2.0
/*
 * ckptbench stream: how fast, and with how much CPU and memory, the pages of a process get to a
 * store, against what the same machine does at best, in turn, in one run.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "bench.h"
#include "bench_environment.h"
#include "bench_report.h"
#include "bench_stream.h"
#include "commands.h"
#include "directory.h"
#include "gcm.h"
#include "processors.h"
#include "region.h"

#define MIB (1 << 20)
#define GIB (1 << 30)
#define BUFFER_BYTES (64u << 20) /* the default of buffer_memory */
#define BASE_BYTES (64u << 20)   /* what the daemon may have beside it and the page map */
#define BYTES_PER_PAGE 32

struct bench {
	const char *directory;
	const char *memory_directory;
	size_t bytes;
	unsigned int repeat;
	bool json;
	json_t *cells;
};

/* One line of the report; ratio: ours to the peer's. */
struct cell {
	const char *name;
	const char *store;
	const char *seal;
	const char *peer_name;
	uint64_t bytes;
	uint64_t bytes_written;
	double ours;
	double peer;
	const char *unit;
};

static void cell_report(struct bench *bench, const struct cell *cell)
{
	double ratio = cell->peer > 0 ? cell->ours / cell->peer : 0;

	json_array_append_new(bench->cells, json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:s, s:f}", "case", cell->name, "store",
		cell->store, "seal", cell->seal, "peer_name", cell->peer_name, "bytes",
		(json_int_t)cell->bytes, "bytes_written", (json_int_t)cell->bytes_written, "ours",
		cell->ours, "peer", cell->peer, "unit", cell->unit, "ratio", ratio));
	if (bench->json)
		return;
	if (json_array_size(bench->cells) == 1)
		printf("%-18s %-14s %-5s %-34s %6s %9s %9s %-6s %6s\n", "case", "store", "seal", "peer",
		       "MiB", "ours", "peer", "unit", "ratio");
	printf("%-18s %-14s %-5s %-34s %6.0f %9.4g %9.4g %-6s %6.2f\n", cell->name, cell->store,
	       cell->seal, cell->peer_name, (double)cell->bytes / MIB, cell->ours, cell->peer, cell->unit,
	       ratio);
	fflush(stdout);
}

/* ---- figures of several runs ---- */

struct series {
	struct samples seconds;
	struct samples cpu_seconds;
	struct stream_figures last;
};

static void series_add(struct series *series, const struct stream_figures *figures)
{
	samples_add(&series->seconds, figures->seconds);
	samples_add(&series->cpu_seconds, figures->cpu_seconds);
	series->last = *figures;
}

static void series_free(struct series *series)
{
	samples_free(&series->seconds);
	samples_free(&series->cpu_seconds);
}

static double speed(const struct bench *bench, struct series *series)
{
	double seconds = samples_median(&series->seconds);

	return seconds > 0 ? (double)bench->bytes / MIB / seconds : 0;
}

static double cpu_per_gib(const struct bench *bench, struct series *series)
{
	return samples_median(&series->cpu_seconds) / ((double)bench->bytes / GIB);
}

static struct stream_run ours_of(const struct bench *bench, const struct source_process *source,
				 const char *directory, const char *seal)
{
	return (struct stream_run){ .source = source, .directory = directory, .seal = seal,
				    .buffer_bytes = BUFFER_BYTES };
}

static int take_ours(struct bench *bench, const struct source_process *source,
		     const char *directory, const char *seal, struct series *series)
{
	struct stream_run run = ours_of(bench, source, directory, seal);
	struct stream_figures figures;
	int err = stream_ours(&run, &figures);

	if (!err)
		series_add(series, &figures);
	return err;
}

static int take_readv(const struct source_process *source, struct stream_figures *figures)
{
	return stream_copy(source, COPY_NOWHERE, NULL, processors(64), figures);
}

/* ---- a directory on storage ---- */

struct on_storage {
	struct series sealed, unsealed, fio, readv, criu;
	bool has_criu;
};

static int storage_round(struct bench *bench, const struct source_process *source,
			 struct on_storage *found)
{
	struct stream_figures figures;
	int err = take_ours(bench, source, bench->directory, "auto", &found->sealed);

	if (!err)
		err = stream_fio(bench->directory, bench->bytes, found->sealed.last.chunk_bytes,
				 found->sealed.last.chunks, &figures);
	if (!err)
		series_add(&found->fio, &figures);
	if (!err)
		err = take_ours(bench, source, bench->directory, "none", &found->unsealed);
	if (!err)
		err = take_readv(source, &figures);
	if (!err)
		series_add(&found->readv, &figures);
	if (!err && found->has_criu && !stream_criu(source, bench->directory, &figures))
		series_add(&found->criu, &figures);
	return err;
}

static void storage_speed(struct bench *bench, struct on_storage *found, struct series *ours,
			  const char *store, const char *seal)
{
	char peer[64];

	snprintf(peer, sizeof(peer), "fio, %u KiB, depth %u", ours->last.chunk_bytes >> 10,
		 ours->last.chunks);
	cell_report(bench, &(struct cell){ "write", store, seal, peer, bench->bytes,
					   ours->last.bytes_written, speed(bench, ours),
					   speed(bench, &found->fio), "MiB/s" });
}

static void storage_cpu(struct bench *bench, struct on_storage *found, struct series *ours,
			const char *store, const char *seal)
{
	cell_report(bench, &(struct cell){ "cpu", store, seal, "process_vm_readv, as many threads", bench->bytes,
					   ours->last.bytes_written, cpu_per_gib(bench, ours),
					   cpu_per_gib(bench, &found->readv), "s/GiB" });
	if (found->criu.seconds.count)
		cell_report(bench, &(struct cell){ "cpu", store, seal, "criu dump", bench->bytes,
						   ours->last.bytes_written, cpu_per_gib(bench, ours),
						   cpu_per_gib(bench, &found->criu), "s/GiB" });
}

static void storage_report(struct bench *bench, struct on_storage *found)
{
	const char *store = found->sealed.last.direct ? "disk, direct" : "disk, cached";

	storage_speed(bench, found, &found->sealed, store, "auto");
	storage_speed(bench, found, &found->unsealed, store, "none");
	storage_cpu(bench, found, &found->sealed, store, "auto");
	storage_cpu(bench, found, &found->unsealed, store, "none");
}

static int bench_storage(struct bench *bench, const struct source_process *source)
{
	struct on_storage found = { .has_criu = true };
	struct stream_figures figures;
	int err = 0;

	if (stream_criu(source, bench->directory, &figures)) {
		say("criu dump does not work here: it is not compared with");
		found.has_criu = false;
	}
	for (unsigned int round = 0; round < bench->repeat && !err; round++)
		err = storage_round(bench, source, &found);
	if (err == -ENOENT)
		say("fio is what is compared with, and is not there: apt-get install fio");
	if (!err)
		storage_report(bench, &found);
	series_free(&found.sealed);
	series_free(&found.unsealed);
	series_free(&found.fio);
	series_free(&found.readv);
	series_free(&found.criu);
	return err;
}

/* ---- a directory in memory ---- */

struct in_memory {
	struct series unsealed, sealed, readv, copies[COPY_MEMORY + 1];
};

static int memory_round(struct bench *bench, const struct source_process *source,
			struct in_memory *found)
{
	unsigned int threads = processors(64);
	struct stream_figures figures;
	int err = take_ours(bench, source, bench->memory_directory, "none", &found->unsealed);

	for (enum copy how = COPY_MAPPED; how <= COPY_MEMORY && !err; how++) {
		err = stream_copy(source, how, bench->memory_directory, threads, &figures);
		if (!err)
			series_add(&found->copies[how], &figures);
	}
	if (!err)
		err = take_ours(bench, source, bench->memory_directory, "auto", &found->sealed);
	if (!err)
		err = take_readv(source, &figures);
	if (!err)
		series_add(&found->readv, &figures);
	return err;
}

static void memory_cpu(struct bench *bench, const char *seal, struct series *ours, const char *name,
		       struct series *peer)
{
	cell_report(bench, &(struct cell){ "cpu", "tmpfs", seal, name, bench->bytes, ours->last.bytes_written,
					   cpu_per_gib(bench, ours), cpu_per_gib(bench, peer), "s/GiB" });
}

static void memory_report(struct bench *bench, struct in_memory *found)
{
	static const char *const names[] = { "readv + memcpy, mapped file", "readv + pwrite",
					     "readv + memcpy, no file" };

	for (enum copy how = COPY_MAPPED; how <= COPY_MEMORY; how++)
		cell_report(bench, &(struct cell){ "write", "tmpfs", "none", names[how], bench->bytes,
						   found->unsealed.last.bytes_written,
						   speed(bench, &found->unsealed),
						   speed(bench, &found->copies[how]), "MiB/s" });
	memory_cpu(bench, "auto", &found->sealed, "process_vm_readv, as many threads", &found->readv);
	memory_cpu(bench, "none", &found->unsealed, "process_vm_readv, as many threads", &found->readv);
	/* Writing there is copying, into pages that the kernel has to find: what nobody can do without. */
	memory_cpu(bench, "none", &found->unsealed, names[COPY_WRITE], &found->copies[COPY_WRITE]);
}

static int bench_memory(struct bench *bench, const struct source_process *source)
{
	struct in_memory found = { 0 };
	int err = 0;

	for (unsigned int round = 0; round < bench->repeat && !err; round++)
		err = memory_round(bench, source, &found);
	if (!err)
		memory_report(bench, &found);
	series_free(&found.unsealed);
	series_free(&found.sealed);
	series_free(&found.readv);
	for (enum copy how = COPY_MAPPED; how <= COPY_MEMORY; how++)
		series_free(&found.copies[how]);
	return err;
}

/* ---- pages that need not be written ---- */

static int bench_rewrites(struct bench *bench, const struct source_process *source)
{
	static const struct {
		const char *name;
		enum rewrite how;
	} cases[] = { { "rewritten, same", REWRITE_SAME }, { "rewritten, zero", REWRITE_ZERO } };
	struct stream_run run = ours_of(bench, source, bench->memory_directory, "auto");
	struct stream_figures figures;
	int err = 0;

	run.again = true;
	for (size_t i = 0; i < 2 && !err; i++) {
		run.rewrite = cases[i].how;
		err = stream_ours(&run, &figures);
		if (!err)
			cell_report(bench, &(struct cell){
				cases[i].name, "tmpfs", "auto", "size of the pages", bench->bytes,
				figures.bytes_written, (double)figures.bytes_written,
				(double)bench->bytes, "bytes" });
	}
	return err ? err : source_rewrite(source, REWRITE_FRESH);
}

/* ---- the memory of the process that streams ---- */

static int bench_peak(struct bench *bench, size_t bytes)
{
	struct source_process source;
	struct stream_figures figures;
	struct stream_run run = ours_of(bench, &source, bench->directory, "auto");
	double bound = BUFFER_BYTES + BASE_BYTES + (double)(bytes / PAGE_BYTES) * BYTES_PER_PAGE;
	int err = source_start(&source, bytes);

	if (err)
		return err;
	run.again = true;
	run.rewrite = REWRITE_FRESH;
	err = stream_ours(&run, &figures);
	source_end(&source);
	if (!err)
		cell_report(bench, &(struct cell){ "peak memory", "disk", "auto",
						   "buffer_memory + 64 MiB + 32 B/page", bytes,
						   figures.bytes_written,
						   (double)figures.peak_bytes / MIB, bound / MIB,
						   "MiB" });
	return err;
}

static int bench_peaks(struct bench *bench)
{
	static const size_t sizes_mib[] = { 256, 1024, 4096 };
	int err = 0;

	for (size_t i = 0; i < 3 && !err; i++)
		err = bench_peak(bench, sizes_mib[i] * MIB);
	return err;
}

/* ---- all ---- */

static const char *file_system(const char *directory)
{
	struct statfs found;

	if (statfs(directory, &found))
		return "?";
	switch (found.f_type) {
	case 0xef53: return "ext4";
	case 0x58465342: return "xfs";
	case 0x6969: return "nfs";
	case 0x01021994: return "tmpfs";
	case 0x9123683e: return "btrfs";
	}
	return "other";
}

static json_t *environment(const struct bench *bench)
{
	json_t *facts = bench_environment();

	json_object_set_new(facts, "processors", json_integer(processors(1024)));
	json_object_set_new(facts, "aes", json_string(gcm_describe() ?: "libcrypto"));
	json_object_set_new(facts, "directory", json_string(bench->directory));
	json_object_set_new(facts, "file_system", json_string(file_system(bench->directory)));
	json_object_set_new(facts, "memory_directory", json_string(bench->memory_directory));
	json_object_set_new(facts, "memory_file_system",
			    json_string(file_system(bench->memory_directory)));
	json_object_set_new(facts, "repeat", json_integer(bench->repeat));
	return facts;
}

static int measure(struct bench *bench)
{
	struct source_process source;
	int err = source_start(&source, bench->bytes);

	if (err)
		return err;
	err = bench_storage(bench, &source);
	if (!err)
		err = bench_memory(bench, &source);
	if (!err)
		err = bench_rewrites(bench, &source);
	source_end(&source);
	return err ? err : bench_peaks(bench);
}

static int run(struct bench *bench)
{
	struct problem problem;
	json_t *report;
	int err = directory_make_empty(bench->directory, &problem), status;

	if (err) {
		say("%s", problem.text);
		return 1;
	}
	bench->cells = json_array();
	report = json_pack("{s:o, s:o}", "environment", environment(bench), "cells", bench->cells);
	err = measure(bench);
	directory_remove(bench->directory);
	if (err)
		say("the measurement failed: %s", strerror(-err));
	status = err ? 1 : bench_report(report, "stream", bench->json);
	json_decref(report);
	return status;
}

static const char usage[] =
	"Usage: ckptbench stream [--mib N] [--repeat N] [--directory DIR] [--memory-directory DIR] [--json]\n"
	"\n"
	"How pages of a process get to a store, against what this machine does at best; medians. As root.\n"
	"\n"
	"  --mib N                 memory of the process, incompressible (1024)\n"
	"  --repeat N              times that each figure is measured (5)\n"
	"  --directory DIR         on the storage to measure (/var/tmp/ckptbench); what is in it is removed\n"
	"  --memory-directory DIR  on a tmpfs (/dev/shm)\n"
	"  --json                  all as JSON\n"
	"\n"
	"  write         until durable, with the default buffer_memory and no compression. The peers: fio writes\n"
	"                as many bytes to one file with io_uring and O_DIRECT, in as large blocks and as many at a\n"
	"                time; threads, as many as there are CPUs, read the memory and copy it\n"
	"  cpu           of all threads, user and system\n"
	"  rewritten     bytes that go to the store for pages that were written and are what they were, or zero\n"
	"  peak memory   of the process that streams, with the page map\n";

int bench_stream(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "directory", required_argument, NULL, 'd' },
		{ "memory-directory", required_argument, NULL, 'D' },
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct bench bench = { .directory = "/var/tmp/ckptbench", .memory_directory = "/dev/shm",
			       .repeat = 5 };
	unsigned int mib = 1024;
	int option;

	while ((option = getopt_long(argc, argv, "m:r:d:D:h", options, NULL)) != -1) {
		switch (option) {
		case 'm': mib = (unsigned int)atoi(optarg); break;
		case 'r': bench.repeat = (unsigned int)atoi(optarg); break;
		case 'd': bench.directory = optarg; break;
		case 'D': bench.memory_directory = optarg; break;
		case 'J': bench.json = true; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind != argc || geteuid() || mib < 1 || mib > 1 << 20 || bench.repeat < 1 ||
	    bench.repeat > 1000 || *bench.directory != '/') {
		fputs(geteuid() ? "ckptbench stream must be run as root\n" : usage, stderr);
		return STATUS_USAGE;
	}
	bench.bytes = (size_t)mib * MIB;
	return run(&bench);
}
