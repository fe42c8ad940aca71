// SPDX-License-Identifier: GPL-2.0
/*
 * ckptctl export: a checkpoint as stock CRIU images.  The directory then has, besides them,
 *
 *   restore.sh   what has to be around `criu restore`, as a script and in words (tools/restore.sh)
 *   job.sh       what it has to know of this job: calls of its functions
 *   files/       the captured directories as at the checkpoint, below their absolute paths
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "directory.h"
#include "job.h"
#include "manifest.h"
#include "places.h"
#include "progress.h"
#include "putback.h"
#include "restore.h"

#define CONFIG_FILE "/etc/ckpt/ckptd.conf"

static const char usage[] =
	"Usage: ckptctl export [--checkpoint NAME] [--store DIR] [--config FILE] JOB DIR\n"
	"Writes the newest checkpoint of JOB into the new directory DIR, as images that 'criu restore -D DIR'\n"
	"accepts without any of ckpt, with a script DIR/restore.sh that does it. They hold the job's memory in\n"
	"plain: DIR can be read by root only. The job and the store are not touched. Root only.\n\n"
	"      --checkpoint NAME  this checkpoint ('ckptctl verify' lists them)\n"
	"  -s, --store DIR        look in this store, instead of those of all classes\n"
	"  -c, --config FILE      ckptd's configuration (" CONFIG_FILE ")\n";

/* tools/restore.sh, word for word. */
__asm__(".section .rodata\n"
	".global restore_script\n"
	"restore_script:\n"
	".incbin \"tools/restore.sh\"\n"
	".global restore_script_end\n"
	"restore_script_end:\n"
	".byte 0\n"
	".previous\n");
extern const char restore_script[], restore_script_end[];

struct request {
	const char *config_path;
	const char *store;
	const char *checkpoint;
	const char *job;
	const char *directory;
	const struct config *config;
};

/* ---- the scripts ---- */

static FILE *create(const struct request *request, const char *name, mode_t mode)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", request->directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	return fd < 0 ? NULL : fdopen(fd, "w");
}

static int finish(FILE *file, struct problem *problem)
{
	bool failed = !file || ferror(file);

	if ((file && fclose(file)) || failed)
		return problem_set(problem, errno ? errno : EIO, "cannot write the scripts: %s",
				   strerror(errno));
	return 0;
}

static int write_script(const struct request *request, struct problem *problem)
{
	FILE *file = create(request, "restore.sh", 0700);

	if (file)
		fwrite(restore_script, 1, (size_t)(restore_script_end - restore_script), file);
	return finish(file, problem);
}

/* As one word for the shell. */
static void put_quoted(FILE *file, const char *text)
{
	fputc('\'', file);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", file);
		else
			fputc(*text, file);
	}
	fputc('\'', file);
}

static void put_call(FILE *file, const char *function, const char *path)
{
	fprintf(file, "%s ", function);
	put_quoted(file, path);
	fputc('\n', file);
}

/* The files that the job's output goes to. */
struct outputs {
	char out[PATH_MAX], err[PATH_MAX];
	bool merged;
};

static void outputs_find(struct outputs *outputs, const struct request *request, const char *job,
			 const json_t *meta)
{
	char base[PATH_MAX / 2];

	job_base_directory(request->config->work_dir, base, sizeof(base));
	snprintf(outputs->out, sizeof(outputs->out), "%s/%s/stdout", base, job);
	snprintf(outputs->err, sizeof(outputs->err), "%s/%s/stderr", base, job);
	outputs->merged = json_is_true(json_object_get(meta, "merged"));
}

static bool is_output(const struct outputs *outputs, const char *path)
{
	return !strcmp(path, outputs->out) || !strcmp(path, outputs->err);
}

static void put_file(FILE *file, const char *function, long long bytes, const char *path)
{
	fprintf(file, "%s %lld ", function, bytes);
	put_quoted(file, path);
	fputc('\n', file);
}

static void put_outputs(FILE *file, const struct outputs *outputs, const json_t *meta)
{
	put_file(file, "output", json_integer_value(json_object_get(meta, "stdout")), outputs->out);
	if (!outputs->merged)
		put_file(file, "output", json_integer_value(json_object_get(meta, "stderr")), outputs->err);
}

static bool in_list(const char *list, const char *path)
{
	cleanup_free char *words = strdup(list);
	char *word, *place;

	for (word = words ? strtok_r(words, ", \t", &place) : NULL; word;
	     word = strtok_r(NULL, ", \t", &place))
		if (!strcmp(word, path))
			return true;
	return false;
}

static void put_directories(FILE *file, const struct catalog *catalog, const json_t *meta)
{
	const char *private = json_string_value(json_object_get(meta, "private")) ?: "none";
	cleanup_free char *words = strdup(private);
	char *word, *place;

	for (word = words ? strtok_r(words, ", \t", &place) : NULL; word;
	     word = strtok_r(NULL, ", \t", &place))
		if (strcmp(word, "none"))
			put_call(file, "private", word);
	for (size_t i = 0; i < catalog->root_count; i++)
		if (!in_list(private, catalog->roots[i]))
			put_call(file, "captured", catalog->roots[i]);
}

static int write_job(const struct request *request, const char *job, const char *checkpoint,
		     const struct restore_facts *facts, const struct catalog *catalog,
		     struct problem *problem)
{
	const char *tcp = json_string_value(json_object_get(facts->meta, "tcp"));
	FILE *file = create(request, "job.sh", 0600);
	struct outputs outputs;

	if (!file)
		return finish(file, problem);
	fprintf(file, "# Sourced by restore.sh: job %s, checkpoint %s\nuid=%lld gid=%lld\n", job, checkpoint,
		(long long)json_integer_value(json_object_get(facts->meta, "uid")),
		(long long)json_integer_value(json_object_get(facts->meta, "gid")));
	if (tcp)
		fprintf(file, "criu_options='%s'\n", strcmp(tcp, "close") ? "--tcp-established --network-lock skip" :
			"--tcp-close");
	outputs_find(&outputs, request, job, facts->meta);
	put_outputs(file, &outputs, facts->meta);
	for (size_t i = 0; i < facts->files.count; i++)
		if (!is_output(&outputs, facts->files.list[i].path))
			put_file(file, "open_file", (long long)facts->files.list[i].size,
				 facts->files.list[i].path);
	put_directories(file, catalog, facts->meta);
	return finish(file, problem);
}

/* ---- captured files ---- */

static int make_above(const char *files, const char *root, struct problem *problem)
{
	char path[PATH_MAX], *slash;

	snprintf(path, sizeof(path), "%s%s", files, root);
	slash = strrchr(path, '/');
	*slash = '\0';
	return directory_make(path, problem);
}

/* As root, below files/, which is nobody's but root's. */
static int write_files(const struct request *request, struct store *store,
		       struct manifest *manifest, struct catalog *catalog, struct problem *problem)
{
	struct putback_stats stats;
	char files[PATH_MAX];
	struct capture_options options = { .root = files };
	int ret = putback_read_catalog(store, manifest, catalog, problem);

	if (ret == -ENOENT)
		return 0;
	snprintf(files, sizeof(files), "%s/files", request->directory);
	for (size_t i = 0; i < catalog->root_count && ret == 0; i++)
		ret = make_above(files, catalog->roots[i], problem);
	return ret ? ret : putback_run(store, manifest, catalog, &options, &stats, problem);
}

/* ---- one checkpoint ---- */

static void show(void *arg, uint64_t pages_done, uint64_t pages_all)
{
	progress_show(arg, pages_done * PAGE_BYTES, pages_all * PAGE_BYTES);
}

static int export_parts(const struct request *request, struct store *store, const char *job,
			const char *name, struct manifest *manifest, struct restore_facts *facts,
			struct problem *problem)
{
	struct catalog catalog = { 0 };
	struct progress progress;
	int ret = restore_read(manifest, facts, problem);

	progress_begin(&progress, job, false);
	if (ret == 0)
		ret = restore_unpack(store, manifest, request->directory, NULL, show, &progress, problem);
	progress_end(&progress);
	if (ret == 0)
		ret = write_files(request, store, manifest, &catalog, problem);
	if (ret == 0)
		ret = write_job(request, job, name, facts, &catalog, problem);
	if (ret == 0)
		ret = write_script(request, problem);
	catalog_clear(&catalog);
	return ret;
}

static int export_checkpoint(const struct request *request, struct store *store, const char *job,
			     const char *name, struct problem *problem)
{
	struct restore_facts facts = { 0 };
	struct manifest *manifest;
	char size[32];
	int ret = manifest_read(store, name, &manifest, problem);

	if (ret)
		return ret;
	ret = export_parts(request, store, job, name, manifest, &facts, problem);
	if (ret == 0)
		say("%s of %s, %s of memory, is in %s; %s/restore.sh goes on with it, and says how", name,
		    job, bytes_text(size, facts.pages * PAGE_BYTES), request->directory,
		    request->directory);
	restore_free(&facts);
	manifest_free(manifest);
	return ret;
}

static int export_newest(const struct request *request, struct store *store, const char *job,
			 struct problem *problem)
{
	char **names;
	size_t count;
	int ret = store_list_checkpoints(store, &names, &count, problem);

	if (ret)
		return ret;
	ret = problem_set(problem, ENOENT, "the job %s has no checkpoint yet", job);
	for (size_t i = 0; i < count; i++) {
		ret = export_checkpoint(request, store, job, names[i], problem);
		if (ret != -EBADMSG)
			break;
		if (i + 1 < count)
			say("%s; trying the checkpoint before it", problem->text);
	}
	while (count)
		free(names[--count]);
	free(names);
	return ret;
}

/* ---- the command ---- */

static int export_place(const struct request *request, const struct places *places,
			const struct keys *keys, struct problem *problem)
{
	const struct place *place = places->list;
	struct store *store;
	int ret;

	if (places->count != 1)
		return problem_set(problem, EINVAL, "there are %zu jobs of that name: give UID-NAME, or --store",
				   places->count);
	ret = place_open(place, keys, STORE_READ, &store, problem);
	if (ret)
		return ret;
	/* Only what this command makes is ever removed again. */
	if (mkdir(request->directory, 0700))
		ret = problem_set(problem, errno, "cannot make %s: %s%s", request->directory,
				  strerror(errno), errno == EEXIST ? "; give a new directory" : "");
	if (ret == 0) {
		ret = request->checkpoint ?
			export_checkpoint(request, store, place->job, request->checkpoint, problem) :
			export_newest(request, store, place->job, problem);
		if (ret)
			directory_remove(request->directory);
	}
	store_close(store);
	return ret;
}

static int export_job(struct request *request, struct problem *problem)
{
	struct places places;
	struct keys keys;
	int ret = keys_read(&keys, request->config->key_file, problem);

	if (ret == 0)
		ret = places_find(&places, request->config, request->store, request->job, problem);
	if (ret)
		return ret;
	ret = export_place(request, &places, &keys, problem);
	places_free(&places);
	keys_wipe(&keys);
	return ret;
}

static int export(struct request *request)
{
	struct problem problem;
	struct config *config;
	int ret = config_load(&config, request->config_path, &problem);

	if (ret == 0) {
		request->config = config;
		ret = export_job(request, &problem);
		config_free(config);
	}
	if (ret)
		say("%s", problem.text);
	return ret ? JOB_STATUS_FAILED : 0;
}

int command_export(int argc, char **argv)
{
	static const struct option options[] = {
		{ "checkpoint", required_argument, NULL, 'C' },
		{ "store", required_argument, NULL, 's' },
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct request request = { .config_path = CONFIG_FILE };
	char directory[PATH_MAX];
	int option;

	while ((option = getopt_long(argc, argv, "s:c:h", options, NULL)) != -1) {
		switch (option) {
		case 'C': request.checkpoint = optarg; break;
		case 's': request.store = optarg; break;
		case 'c': request.config_path = optarg; break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : STATUS_USAGE;
		}
	}
	if (optind + 2 != argc || geteuid() != 0) {
		fputs(optind + 2 != argc ? usage : "ckptctl export must be run as root\n", stderr);
		return STATUS_USAGE;
	}
	request.job = argv[optind];
	snprintf(directory, sizeof(directory), "%s", argv[optind + 1]);
	request.directory = directory;
	return export(&request);
}
