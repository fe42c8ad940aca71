// SPDX-License-Identifier: GPL-2.0
#include "metrics.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char status_text[] =
	"{'version': '0.1.0', 'criu': '4.2', 'notice': null, 'notices_problem': 'asked in vain',"
	" 'config': {'refused': null}, 'jobs': ["
	"  {'job': '1000-a\\\"b\\\\', 'class': 'long', 'state': 'running', 'mechanism': 'hash',"
	"   'memory_kib': 3, 'forecast_ms': 1500, 'budget_ms': 105000, 'safety': 'safe', 'unprotected': null,"
	"   'epochs': 7, 'pages_dirty_total': 5000000000, 'last_checkpoint': {'time': 1795900000, 'frozen_ms': 12}},"
	"  {'job': '0-b', 'class': 'long', 'state': 'starting', 'forecast_ms': null, 'safety': 'unsafe',"
	"   'unprotected': 'it has io_uring'}]}";

static json_t *make_status(void)
{
	char *text = strdup(status_text);
	json_t *status;
	json_error_t error;

	for (char *at = text; *at; at++)
		if (*at == '\'')
			*at = '"';
	status = json_loads(text, 0, &error);
	if (!status)
		fail_msg("%s", error.text);
	free(text);
	return status;
}

static char *print(const json_t *status)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	metrics_print(out, status);
	fclose(out);
	return text;
}

static void assert_line(const char *text, const char *line)
{
	char whole[200];

	snprintf(whole, sizeof(whole), "\n%s\n", line);
	if (!strstr(text, whole))
		fail_msg("no line '%s' in:\n%s", line, text);
}

static void values(void **state)
{
	json_t *status = make_status();
	char *text = print(status);

	assert_line(text, "ckpt_info{version=\"0.1.0\",criu=\"4.2\"} 1");
	assert_line(text, "ckpt_jobs 2");
	assert_line(text, "ckpt_notice 0");
	assert_line(text, "ckpt_notices_unseen 1");
	assert_line(text, "ckpt_config_refused 0");
	assert_line(text, "# TYPE ckpt_job_epochs_total counter");
	assert_line(text, "ckpt_job_epochs_total{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 7");
	assert_line(text, "ckpt_job_memory_bytes{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 3072");
	assert_line(text, "ckpt_job_forecast_seconds{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 1.5");
	assert_line(text, "ckpt_job_budget_seconds{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 105");
	/* Exact, though more than 32 bits. */
	assert_line(text, "ckpt_job_dirty_bytes_total{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 20480000000000");
	assert_line(text, "ckpt_job_last_checkpoint_timestamp_seconds{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 1795900000");
	assert_line(text, "ckpt_job_last_checkpoint_frozen_seconds{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 0.012");
	assert_line(text, "ckpt_job_unsafe{job_id=\"1000-a\\\"b\\\\\",class=\"long\"} 0");
	assert_line(text, "ckpt_job_unsafe{job_id=\"0-b\",class=\"long\"} 1");
	assert_line(text, "ckpt_job_unprotected{job_id=\"0-b\",class=\"long\"} 1");
	assert_line(text, "ckpt_job_forecast_seconds{job_id=\"0-b\",class=\"long\"} +Inf");
	assert_line(text, "ckpt_job_state{job_id=\"0-b\",class=\"long\",mechanism=\"\",state=\"starting\"} 1");
	/* What is not known is not there. */
	assert_null(strstr(text, "ckpt_job_epochs_total{job_id=\"0-b\""));
	free(text);
	json_decref(status);
}

/* HELP and TYPE once, before all of a metric's values, which follow each other: the format demands it. */
static void families(void **state)
{
	json_t *status = make_status();
	char *text = print(status), *place, *family = NULL;

	for (char *line = strtok_r(text, "\n", &place); line; line = strtok_r(NULL, "\n", &place)) {
		char name[100];

		if (sscanf(line, "# HELP %99s", name) == 1) {
			free(family);
			family = strdup(name);
		} else if (sscanf(line, "# TYPE %99s", name) == 1 || sscanf(line, "%99[a-z_]", name) == 1) {
			assert_string_equal(name, family);
		} else {
			fail_msg("%s", line);
		}
	}
	free(family);
	free(text);
	json_decref(status);
}

static void file(void **state)
{
	char directory[] = "/tmp/metrics_test.XXXXXX", path[64], fresh[80], missing[64], text[8192] = "";
	json_t *status = make_status();
	char *expected = print(status);
	struct problem problem;
	struct stat st;
	FILE *in;

	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/ckpt.prom", directory);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	umask(077);
	for (int again = 0; again < 2; again++)
		assert_int_equal(metrics_write(path, status, &problem), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	in = fopen(path, "r");
	text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
	fclose(in);
	assert_string_equal(text, expected);
	assert_int_equal(access(fresh, F_OK), -1);

	snprintf(missing, sizeof(missing), "%s/none/ckpt.prom", directory);
	assert_int_equal(metrics_write(missing, status, &problem), -ENOENT);
	assert_non_null(strstr(problem.text, missing));
	/* What is in the way is not written through, nor waited for. */
	snprintf(missing, sizeof(missing), "%s/elsewhere", directory);
	assert_int_equal(symlink(missing, fresh), 0);
	assert_int_equal(metrics_write(path, status, &problem), 0);
	assert_int_equal(access(missing, F_OK), -1);
	assert_int_equal(mkfifo(fresh, 0600), 0);
	assert_int_equal(metrics_write(path, status, &problem), 0);
	unlink(path);
	assert_int_equal(rmdir(directory), 0);
	free(expected);
	json_decref(status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),
		cmocka_unit_test(families),
		cmocka_unit_test(file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
