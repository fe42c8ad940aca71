// SPDX-License-Identifier: GPL-2.0
#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "region.h"

enum metric_type {
	COUNTER,
	GAUGE,
};

/* How a value of the status becomes one of Prometheus'. */
enum metric_value {
	NUMBER,         /* times the scale */
	FORECAST,       /* the same; null: for ever */
	TRUE,           /* 1: the value is true, or a text, or an object */
	UNSAFE,  /* 1: the value is the text "unsafe" */
};

struct metric {
	const char *name;
	enum metric_type type;
	enum metric_value value;
	const char *object;     /* that the value is in; NULL: in the status itself */
	const char *key;
	double scale;
	const char *meaning;
};

#define MS 0.001

/* Those whose labels are what they tell. */
#define INFO "ckpt_info"
#define INFO_MEANING "1; the versions are labels."
#define JOBS "ckpt_jobs"
#define JOBS_MEANING "Jobs on this node."
#define STATE "ckpt_job_state"
#define STATE_MEANING "1; state and mechanism are labels."

static const struct metric node_metrics[] = {
	{ "ckpt_notice", GAUGE, TRUE, NULL, "notice", 0, "1: this node will be taken away." },
	{ "ckpt_notices_unseen", GAUGE, TRUE, NULL, "notices_problem", 0,
	  "1: the instance metadata cannot be asked, so a notice would not be seen." },
	{ "ckpt_config_refused", GAUGE, TRUE, "config", "refused", 0,
	  "1: the last reload of the configuration was refused." },
};

static const struct metric job_metrics[] = {
	{ "ckpt_job_memory_bytes", GAUGE, NUMBER, NULL, "memory_kib", 1024, "The memory that a checkpoint has to hold." },
	{ "ckpt_job_outstanding_bytes", GAUGE, NUMBER, NULL, "outstanding_kib", 1024,
	  "Memory that was written since it was last streamed." },
	{ "ckpt_job_forecast_seconds", GAUGE, FORECAST, NULL, "forecast_ms", MS,
	  "If the notice came now: until the checkpoint would be durable. +Inf: never." },
	{ "ckpt_job_budget_seconds", GAUGE, NUMBER, NULL, "budget_ms", MS, "What the forecast must not exceed: window less margin." },
	{ "ckpt_job_unsafe", GAUGE, UNSAFE, NULL, "safety", 0, "1: the forecast exceeds the budget." },
	{ "ckpt_job_unprotected", GAUGE, TRUE, NULL, "unprotected", 0,
	  "1: the job has something that cannot be saved." },
	{ "ckpt_job_lease_failing", GAUGE, TRUE, NULL, "lease_problem", 0,
	  "1: its lease in the store cannot be renewed, so another node may take it over." },
	{ "ckpt_job_epochs_total", COUNTER, NUMBER, NULL, "epochs", 1, "Epochs that were streamed." },
	{ "ckpt_job_epochs_failed_total", COUNTER, NUMBER, NULL, "epochs_failed", 1, "Epochs that failed." },
	{ "ckpt_job_dirty_bytes_total", COUNTER, NUMBER, NULL, "pages_dirty_total", PAGE_BYTES,
	  "Memory that epochs found written. Its rate is the job's dirty rate." },
	{ "ckpt_job_written_bytes_total", COUNTER, NUMBER, NULL, "bytes_written", 1,
	  "Written to the store, by epochs and checkpoints." },
	{ "ckpt_job_checkpoints_total", COUNTER, NUMBER, NULL, "checkpoints", 1, "Checkpoints that were committed." },
	{ "ckpt_job_checkpoints_failed_total", COUNTER, NUMBER, NULL, "checkpoints_failed", 1, "Checkpoints that failed." },
	{ "ckpt_job_frozen_seconds_total", COUNTER, NUMBER, NULL, "frozen_total_ms", MS, "How long the job stood still, in all." },
	{ "ckpt_job_last_epoch_seconds", GAUGE, NUMBER, "last_epoch", "ms", MS, "How long the last epoch took." },
	{ "ckpt_job_last_checkpoint_timestamp_seconds", GAUGE, NUMBER, "last_checkpoint", "time", 1,
	  "When the last checkpoint was committed, since 1970." },
	{ "ckpt_job_last_checkpoint_frozen_seconds", GAUGE, NUMBER, "last_checkpoint", "frozen_ms", MS,
	  "How long the job stood still for it." },
	{ "ckpt_job_last_checkpoint_flush_seconds", GAUGE, NUMBER, "last_checkpoint", "flush_ms", MS,
	  "From the freeze until it was durable." },
	{ "ckpt_job_checkpoint_interval_seconds", GAUGE, NUMBER, NULL, "checkpoint_interval_ms", MS,
	  "How often checkpoints are due. 0: only on notice." },
	{ "ckpt_job_store_bytes", GAUGE, NUMBER, NULL, "store_bytes", 1, "What the job has in the store." },
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static const char *type_name(const struct metric *metric)
{
	return metric->type == COUNTER ? "counter" : "gauge";
}

static void print_head(FILE *out, const char *name, const char *type, const char *meaning)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, meaning, name, type);
}

/* A label's value: quotes, backslashes and line ends are the format's own. */
static void print_label(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", out);
		else
			fprintf(out, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
	}
	fputc('"', out);
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static void print_job_labels(FILE *out, const json_t *job)
{
	print_label(out, "job_id", text_of(job, "job"));
	fputc(',', out);
	print_label(out, "class", text_of(job, "class"));
}

/* False: the status does not have it (yet). */
static bool read_value(const json_t *status, const struct metric *metric, double *number)
{
	const json_t *object = metric->object ? json_object_get(status, metric->object) : status;
	const json_t *value = json_object_get(object, metric->key);

	switch (metric->value) {
	case TRUE:
		*number = json_is_true(value) || json_is_string(value) || json_is_object(value);
		return true;
	case UNSAFE:
		*number = json_is_string(value) && !strcmp(json_string_value(value), "unsafe");
		return true;
	case FORECAST:
		if (json_is_null(value)) {
			*number = INFINITY;
			return true;
		}
		break;
	case NUMBER:
		break;
	}
	*number = (double)json_integer_value(value) * metric->scale;
	return json_is_integer(value);
}

static void print_value(FILE *out, double number)
{
	if (isinf(number))
		fputs(" +Inf\n", out);
	else
		fprintf(out, " %.15g\n", number);
}

static void print_node(FILE *out, const json_t *status)
{
	print_head(out, INFO, "gauge", INFO_MEANING);
	fputs(INFO "{", out);
	print_label(out, "version", text_of(status, "version"));
	fputc(',', out);
	print_label(out, "criu", text_of(status, "criu"));
	fputs("} 1\n", out);
	print_head(out, JOBS, "gauge", JOBS_MEANING);
	fprintf(out, JOBS " %zu\n", json_array_size(json_object_get(status, "jobs")));
	for (size_t i = 0; i < COUNT(node_metrics); i++) {
		const struct metric *metric = &node_metrics[i];
		double number;

		print_head(out, metric->name, type_name(metric), metric->meaning);
		if (!read_value(status, metric, &number))
			continue;
		fputs(metric->name, out);
		print_value(out, number);
	}
}

static void print_job_metric(FILE *out, const struct metric *metric, const json_t *jobs)
{
	json_t *job;
	double number;
	size_t i;

	print_head(out, metric->name, type_name(metric), metric->meaning);
	json_array_foreach(jobs, i, job) {
		if (!read_value(job, metric, &number))
			continue;
		fprintf(out, "%s{", metric->name);
		print_job_labels(out, job);
		fputc('}', out);
		print_value(out, number);
	}
}

static void print_states(FILE *out, const json_t *jobs)
{
	json_t *job;
	size_t i;

	print_head(out, STATE, "gauge", STATE_MEANING);
	json_array_foreach(jobs, i, job) {
		fputs(STATE "{", out);
		print_job_labels(out, job);
		fputc(',', out);
		print_label(out, "mechanism", text_of(job, "mechanism"));
		fputc(',', out);
		print_label(out, "state", text_of(job, "state"));
		fputs("} 1\n", out);
	}
}

void metrics_print(FILE *out, const json_t *status)
{
	const json_t *jobs = json_object_get(status, "jobs");

	print_node(out, status);
	print_states(out, jobs);
	for (size_t i = 0; i < COUNT(job_metrics); i++)
		print_job_metric(out, &job_metrics[i], jobs);
}

/* The directory is perhaps the collector's own: nothing that is there already is opened. */
static int write_new(const char *path, const json_t *status)
{
	FILE *file;
	int fd, failed;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file) {
		int err = errno;

		if (fd >= 0)
			close(fd);
		return -err;
	}
	fchmod(fd, 0644);
	metrics_print(file, status);
	failed = ferror(file);
	return fclose(file) || failed ? -(errno ?: EIO) : 0;
}

int metrics_write(const char *path, const json_t *status, struct problem *problem)
{
	char fresh[PATH_MAX + 8];
	int ret;

	/* The collector takes what ends in .prom. */
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	ret = write_new(fresh, status);
	if (ret == 0 && rename(fresh, path))
		ret = -errno;
	if (ret) {
		unlink(fresh);
		return problem_set(problem, -ret, "cannot write the metrics to %s: %s (metrics_file; its directory must be "
				   "there)", path, strerror(-ret));
	}
	return 0;
}

static void print_entry(const char *name, const char *type, const char *meaning)
{
	printf("  %-44s%s. %s\n", name, type, meaning);
}

void metrics_print_manual(void)
{
	printf("Metrics of a node:\n");
	print_entry(INFO, "gauge", INFO_MEANING);
	print_entry(JOBS, "gauge", JOBS_MEANING);
	for (size_t i = 0; i < COUNT(node_metrics); i++)
		print_entry(node_metrics[i].name, type_name(&node_metrics[i]), node_metrics[i].meaning);
	printf("\nMetrics of a job, with the labels job_id and class:\n");
	print_entry(STATE, "gauge", STATE_MEANING);
	for (size_t i = 0; i < COUNT(job_metrics); i++)
		print_entry(job_metrics[i].name, type_name(&job_metrics[i]), job_metrics[i].meaning);
}
