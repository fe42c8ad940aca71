// SPDX-License-Identifier: GPL-2.0
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cleanup.h"
#include "directory.h"

#define GOOD "[class a]\nstore=/s\n"

static char directory[] = "/tmp/ckpt-config-test-XXXXXX";
static char file_name[sizeof(directory) + 16];

static void write_file(const char *path, const char *bytes, size_t length)
{
	cleanup_fclose FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
}

static void write_bytes(const char *bytes, size_t length)
{
	write_file(file_name, bytes, length);
}

/* A file of conf.d; NULL: not any more. */
static void write_part(const char *name, const char *text)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/conf.d", directory);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/conf.d/%s", directory, name);
	if (text)
		write_file(path, text, strlen(text));
	else
		unlink(path);
}

static int load_bytes(const char *bytes, size_t length, struct config **config,
		      struct problem *problem)
{
	*config = NULL;
	problem->text[0] = '\0';
	write_bytes(bytes, length);
	return config_load(config, file_name, problem);
}

static struct config *load_good(const char *text)
{
	struct problem problem;
	struct config *config;

	if (load_bytes(text, strlen(text), &config, &problem))
		fail_msg("%s", problem.text);
	return config;
}

/* The error must start with FILE:LINE: and hold the words. */
static void load_bad_bytes(const char *bytes, size_t length, unsigned int line, const char *words)
{
	struct problem problem;
	struct config *config;
	char place[200];

	if (line)
		snprintf(place, sizeof(place), "%s:%u: ", file_name, line);
	else
		snprintf(place, sizeof(place), "%s: ", file_name);
	if (!load_bytes(bytes, length, &config, &problem))
		fail_msg("taken as good: %s", bytes);
	assert_null(config);
	if (strncmp(problem.text, place, strlen(place)) || !strstr(problem.text, words))
		fail_msg("'%s' lacks '%s...%s'", problem.text, place, words);
}

static void load_bad(const char *text, unsigned int line, const char *words)
{
	load_bad_bytes(text, strlen(text), line, words);
}

static void defaults(void **state)
{
	struct config *config = load_good(GOOD);
	const struct class *class = config_class(config, "a");

	assert_string_equal(config->imds_endpoint, "http://169.254.169.254");
	assert_int_equal(config->imds_poll_ms, 1000);
	assert_int_equal(config->imds_timeout_ms, 2000);
	assert_string_equal(config->key_file, "/etc/ckpt/key");
	assert_string_equal(config->work_dir, "/var/lib/ckpt");
	assert_string_equal(config->criu, "criu");
	assert_string_equal(config->log_level, "info");
	assert_int_equal(config->class_count, 1);
	assert_string_equal(class->store, "/s");
	assert_null(class->store_user);
	assert_string_equal(class->mechanism, "auto");
	assert_string_equal(class->compress, "lz4");
	assert_true(class->epoch_interval_ms == CONFIG_AUTO);
	assert_true(class->checkpoint_interval_ms == CONFIG_AUTO);
	assert_true(class->reserve == CONFIG_AUTO);
	assert_int_equal(class->mtbf_ms, 86400000);
	assert_int_equal(config->clean_interval_ms, 3600000);
	assert_true(class->keep_after_end_ms == 0 && class->keep_abandoned_ms == 0);
	assert_null(class->pre_restore);
	assert_int_equal(class->hook_timeout_ms, 30000);
	assert_int_equal(class_signal(class->notice_signal), 0);
	assert_int_equal(class_signal(class->save_signal), 0);
	assert_int_equal(class->save_window_ms, 30000);
	assert_int_equal(class_signal(class->end_signal), SIGTERM);
	assert_int_equal(class->end_grace_ms, 5000);
	assert_int_equal(class->keep, 2);
	assert_int_equal(class->buffer_memory, 64 << 20);
	assert_int_equal(class->io_limit, 0);
	assert_int_equal(class->cpu_limit, 0);
	assert_int_equal(class->ghost_limit, 1 << 30);
	assert_int_equal(class->window_ms, 120000);
	assert_int_equal(class->margin_ms, 15000);
	assert_int_equal(class->criu_timeout_ms, 60000);
	assert_null(config_class(config, "b"));
	config_free(config);
}

static void every_key(void **state)
{
	struct config *config = load_good(
		"\xef\xbb\xbf# comment\n; comment = 1\n\n  [daemon] # of this node\r\n"
		"imds_endpoint = http://[fd00:ec2::254]:80/\r\nimds_poll=1s\n imds_timeout : 100ms\n"
		"key_file=/k ; the key\nwork_dir=/w\ncriu=/opt/criu\nlog_level=debug\n"
		"[class a_-9]\nstore=/m\xc3\xbcller/a;b\nstore_user=1234\nmechanism=hash, uffd-wp\n"
		"compress=zstd:19\nepoch_interval=1h\ncheckpoint_interval=0\nkeep=100\n"
		"buffer_memory=4096K\nio_limit=100M\ncpu_limit=2\nghost_limit=1T\nwindow=2m\nmargin=0\ncriu_timeout=90s\n"
		"reserve=10\nmtbf=40d\nkeep_after_end=3650d\nkeep_abandoned=1s\nnotice_signal=USR1\n"
		"notice_grace=10m\nsave_signal=TERM\nsave_window=1h\nend_signal=none\nend_grace=0\nhook_timeout=1h\n"
		"pre_restore=root /usr/local/lib/a\non_missed = job  /b\non_forecast = /c\npost_restore=\n"
		"[class b]\nstore=/b\nstore_user=root\nwindow=30s\ncompress=zstd");
	const struct class *a = config_class(config, "a_-9"), *b = config_class(config, "b");

	assert_string_equal(config->imds_endpoint, "http://[fd00:ec2::254]:80");
	assert_int_equal(config->imds_poll_ms, 1000);
	assert_int_equal(config->imds_timeout_ms, 100);
	assert_string_equal(config->key_file, "/k");
	assert_string_equal(config->criu, "/opt/criu");
	assert_string_equal(config->log_level, "debug");
	assert_string_equal(a->store, "/m\xc3\xbcller/a;b");
	assert_string_equal(a->store_user, "1234");
	assert_string_equal(a->mechanism, "hash, uffd-wp");
	assert_int_equal(a->epoch_interval_ms, 3600000);
	assert_int_equal(a->checkpoint_interval_ms, 0);
	assert_int_equal(a->keep, 100);
	assert_int_equal(a->buffer_memory, 4 << 20);
	assert_int_equal(a->io_limit, 100 << 20);
	assert_int_equal(a->cpu_limit, 2);
	assert_true(a->ghost_limit == 1ull << 40);
	assert_int_equal(a->margin_ms, 0);
	assert_int_equal(a->reserve, 10);
	assert_int_equal(a->mtbf_ms, 3456000000u);
	assert_true(a->keep_after_end_ms == 3650ull * 86400000);
	assert_true(a->keep_abandoned_ms == 1000);
	assert_int_equal(class_signal(a->notice_signal), SIGUSR1);
	assert_int_equal(class_signal(a->save_signal), SIGTERM);
	assert_int_equal(a->save_window_ms, 3600000);
	assert_int_equal(class_signal(a->end_signal), 0);
	assert_string_equal(class_hook(a, HOOK_PRE_RESTORE, NULL), "root /usr/local/lib/a");
	assert_null(class_hook(a, HOOK_POST_RESTORE, NULL));
	assert_null(class_hook(a, HOOK_ON_COMMITTED, NULL));
	assert_int_equal(b->window_ms, 30000);
	assert_true(b->epoch_interval_ms == CONFIG_AUTO);
	assert_string_equal(b->compress, "zstd");
	config_free(config);
}

struct bad_line {
	const char *line;
	const char *words;
};

/* Each stands in line 3 of a class that is otherwise good. */
static void bad_class_lines(void **state)
{
	static const struct bad_line cases[] = {
		{ "epoch_interval = 30", "auto, or a duration from 1s to 1h with its unit" },
		{ "epoch_interval = 30M", "not valid; auto, or a duration" },
		{ "epoch_interval = -1s", "not valid" },
		{ "epoch_interval = 1.5s", "not valid" },
		{ "epoch_interval = 30 s", "not valid" },
		{ "epoch_interval = 0", "out of range" },
		{ "epoch_interval = 999ms", "out of range" },
		{ "epoch_interval = 2h", "out of range" },
		{ "epoch_interval = 99999999999999999999s", "out of range" },
		{ "epoch_interval = 18446744073709551615d", "out of range" },
		{ "epoch_interval =", "not valid" },
		{ "checkpoint_interval = 0s1", "not valid" },
		{ "checkpoint_interval = 1s", "auto, or a duration from 10s to 30d with its unit (ms, s, m, h, d), or 0" },
		{ "buffer_memory = 64", "a size from 4M to 64G with its unit (K, M, G, T)" },
		{ "buffer_memory = 64s", "not valid" },
		{ "buffer_memory = 1M", "out of range" },
		{ "io_limit = 100", "a size from 1M to 1T with its unit (K, M, G, T), or 0" },
		{ "cpu_limit = -1", "a number from 1 to 1024, or 0" },
		{ "keep = 0", "a number from 1 to 100" },
		{ "keep = auto", "a number from 1 to 100" },
		{ "reserve = 0", "auto, or a number from 1 to 100" },
		{ "mtbf = 41d", "out of range" },
		{ "notice_signal = SIGUSR1", "none, HUP, INT" },
		{ "notice_signal = 10", "none, HUP, INT" },
		{ "end_signal = KILL", "none, HUP, INT" },
		{ "end_grace = 31s", "out of range" },
		{ "keep_after_end = 1", "a duration from 1s to 3650d" },
		{ "pre_restore = hook", "[root|job] PROGRAM" },
		{ "pre_restore = /a b", "[root|job] PROGRAM" },
		{ "on_committed = admin /a", "[root|job] PROGRAM" },
		{ "keep = two", "not valid" },
		{ "keep = 2s", "not valid" },
		{ "mechanism = ebpf", "auto, or a list of soft-dirty, uffd-wp, procfs, hash" },
		{ "mechanism = hash hash", "each once" },
		{ "mechanism = auto hash", "each once" },
		{ "mechanism = ,", "each once" },
		{ "mechanism =", "each once" },
		{ "compress = gzip", "none, lz4, zstd or zstd:LEVEL" },
		{ "compress = zstd:20", "not valid" },
		{ "compress = zstd:", "not valid" },
		{ "compress = zstd:-1", "not valid" },
		{ "compress = zstd:3x", "not valid" },
		{ "store_user = no such user", "a user that exists on this node" },
		{ "store_user = 4294967295", "a user that exists" },
		{ "store_user = 99999999999999999999", "a user that exists" },
		{ "store_user = 12ab", "a user that exists" },
		{ "store = /t", "stands already at line 2" },
		{ "imds_poll = 5s", "unknown key 'imds_poll' in [class]; store, store_user" },
		{ "Keep = 2", "unknown key 'Keep'" },
		{ "keep", "'key = value', [section] or a comment" },
		{ "[class a]", "[class a] stands twice in this file" },
		{ "[class ]", "is no name for a class" },
		{ "[class a b]", "is no name for a class" },
		{ "[class ../a]", "is no name for a class" },
		{ "[class 123456789012345678901234567890123]", "is no name for a class" },
		{ "[class b", "a section is [daemon] or [class NAME]" },
		{ "[class b] store=/b", "nothing behind it" },
		{ "[job x]", "unknown section [job x]" },
		{ "[Daemon]", "unknown section [Daemon]" },
		{ "[]", "unknown section []" },
		{ "keep = 2 # two", "'#' within a value" },
		{ "keep = 2\001", "bytes that are no text" },
		{ "keep = 2\r3", "bytes that are no text" },
		{ "# \xff\xfe", "bytes that are no text" },
	};
	char text[300];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), GOOD "%s\nkeep=bad\n", cases[i].line);
		load_bad(text, 3, cases[i].words);
	}
}

static void bad_daemon_lines(void **state)
{
	static const struct bad_line cases[] = {
		{ "imds_endpoint = https://169.254.169.254", "http://HOST[:PORT], or off" },
		{ "imds_endpoint = http://user@host", "http://HOST[:PORT], or off" },
		{ "imds_endpoint = http://host/latest", "http://HOST[:PORT], or off" },
		{ "imds_endpoint = http://host/?a", "http://HOST[:PORT], or off" },
		{ "imds_endpoint = file:///etc/passwd", "http://HOST[:PORT], or off" },
		{ "imds_endpoint = 169.254.169.254", "http://HOST[:PORT], or off" },
		{ "imds_poll = 500ms", "from 1s to 1m" },
		{ "key_file = key", "an absolute path" },
		{ "work_dir = ./x", "an absolute path" },
		{ "criu = ./criu", "an absolute path, or a name" },
		{ "log_level = loud", "err, warning, info or debug" },
		{ "store = /s", "unknown key 'store' in [daemon]" },
		{ "[daemon]", "[daemon] stands already at line 3" },
	};
	char text[300];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), GOOD "[daemon]\n%s\n", cases[i].line);
		load_bad(text, 4, cases[i].words);
	}
}

static void bad_files(void **state)
{
	char line[400] = GOOD "#";

	load_bad("", 0, "no job class");
	load_bad("[daemon]\n", 0, "no job class");
	load_bad("keep=2\n" GOOD, 1, "stands before the first section");
	load_bad("[class a]\n[class b]\nstore=/s\n", 1, "[class a] lacks 'store = VALUE'");
	load_bad(GOOD "[class b]\nkeep=1\n", 3, "[class b] lacks 'store");
	load_bad("[class a]\nstore=rel\n", 2, "store = 'rel' is not valid; an absolute path");
	load_bad(GOOD "window=15s\n", 3, "margin (15000 ms) must be shorter than window");
	load_bad(GOOD "margin=15s\nwindow=15s\n", 3, "margin (15000 ms) must be shorter than window");
	load_bad(GOOD "keep\nkeep=bad\n", 3, "'key = value'");
	load_bad_bytes(GOOD "keep=1\0", sizeof(GOOD "keep=1"), 3, "bytes that are no text");
	load_bad_bytes("\x7f" "ELF\2\1\1\0\0", 9, 1, "bytes that are no text");
	memset(line + strlen(GOOD), '#', 198);
	load_bad(line, 3, "the line has 198 bytes; up to 197");
	line[strlen(GOOD) + 197] = '\0';
	config_free(load_good(line));
}

/* A value is never cut: the longest line that is taken arrives whole. */
static void longest_value(void **state)
{
	struct config *config;
	char text[300] = "[class a]\nstore=/";
	size_t start = strlen("[class a]\n"), i;

	for (i = strlen(text); i < start + 197; i++)
		text[i] = 'x';
	config = load_good(text);
	assert_int_equal(strlen(config->classes[0]->store), 197 - strlen("store="));
	config_free(config);
}

static void refused_files(void **state)
{
	struct problem problem;
	struct config *config = NULL;

	assert_int_equal(config_load(&config, "/nonexistent/ckptd.conf", &problem), -ENOENT);
	assert_non_null(strstr(problem.text, "/nonexistent/ckptd.conf: cannot read: No such"));
	assert_int_equal(config_load(&config, "/tmp", &problem), -EINVAL);
	assert_non_null(strstr(problem.text, "a regular file"));
	write_bytes(GOOD, strlen(GOOD));
	assert_int_equal(chmod(file_name, 0666), 0);
	assert_int_equal(config_load(&config, file_name, &problem), -EPERM);
	assert_non_null(strstr(problem.text, "chmod go-w"));
	assert_int_equal(chmod(file_name, 0600), 0);
	assert_int_equal(config_load(&config, "/nonexistent", NULL), -ENOENT);
	assert_null(config);
}

static void endpoint_variable(void **state)
{
	struct problem problem;
	struct config *config;

	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/", 1);
	config = load_good(GOOD);
	assert_string_equal(config->imds_endpoint, "http://127.0.0.1:1338");
	config_free(config);
	config = load_good(GOOD "[daemon]\nimds_endpoint=http://h\n");
	assert_string_equal(config->imds_endpoint, "http://h");
	config_free(config);
	config = load_good(GOOD "[daemon]\nimds_endpoint=\n");
	assert_string_equal(config->imds_endpoint, "");
	config_free(config);
	config = load_good(GOOD "[daemon]\nimds_endpoint=off\n");
	assert_string_equal(config->imds_endpoint, "");
	config_free(config);
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "gopher://h", 1);
	assert_int_equal(load_bytes(GOOD, strlen(GOOD), &config, &problem), -EINVAL);
	assert_non_null(strstr(problem.text, "AWS_EC2_METADATA_SERVICE_ENDPOINT = 'gopher://h'"));
	unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
}

/* Random damage to a good file: any answer but a crash, a leak or an error without words. */
static void damaged_files(void **state)
{
	static const char good[] = "[daemon]\nimds_poll=5s\nimds_endpoint=http://h\n[class a]\nstore=/s\n"
				   "mechanism=hash,procfs\ncompress=zstd:3\n[class b]\nstore=/t\n";
	struct problem problem;
	struct config *config;
	char text[sizeof(good)];
	int round, changes;

	srand(1);
	for (round = 0; round < 3000; round++) {
		memcpy(text, good, sizeof(good));
		for (changes = rand() % 4 + 1; changes; changes--)
			text[rand() % (sizeof(good) - 1)] = rand() % 3 ? "[]=;# \n,a1"[rand() % 10] : rand();
		if (load_bytes(text, rand() % sizeof(good), &config, &problem))
			assert_string_not_equal(problem.text, "");
		else
			config_free(config);
	}
}

/* What is installed is valid as it is. Run from the top of the tree. */
static void packaged_file(void **state)
{
	struct problem problem;
	struct config *config;

	if (access("packaging/ckptd.conf", R_OK))
		skip();
	if (config_load(&config, "packaging/ckptd.conf", &problem))
		fail_msg("%s", problem.text);
	assert_non_null(config_class(config, "default"));
	config_free(config);
}

static void manual(void **state)
{
	config_print_manual();
}

/* What later files say counts, key by key, and each value tells where it is from. */
static void parts(void **state)
{
	struct config *config;
	const struct class *a, *b;

	write_part("20-site.conf", "[class a]\nkeep=5\nstore=/later\n[daemon]\nimds_poll=2s\n");
	write_part("10-first.conf", "[class a]\nkeep=4\nmargin=1s\n[class b]\nstore=/b\n");
	write_part("Z.conf", "[class b]\nkeep=9\n");
	write_part("30.conf~", "not read");
	write_part(".hidden.conf", "not read");
	config = load_good("[daemon]\nimds_poll=9s\nlog_level=err\n" GOOD);
	a = config_class(config, "a");
	b = config_class(config, "b");
	assert_int_equal(config->class_count, 2);
	assert_int_equal(config->imds_poll_ms, 2000);
	assert_string_equal(config->log_level, "err");
	assert_string_equal(a->store, "/later");
	assert_int_equal(a->keep, 5);
	assert_int_equal(a->margin_ms, 1000);
	assert_int_equal(b->keep, 9);
	config_free(config);
}

/* The line with the error is named in the file that has it. */
static void bad_parts(void **state)
{
	struct problem problem;
	struct config *config;
	char words[300];

	write_part("20-site.conf", "[class a]\n\nkeep=none\n");
	assert_int_equal(load_bytes(GOOD, strlen(GOOD), &config, &problem), -EINVAL);
	snprintf(words, sizeof(words), "%s/conf.d/20-site.conf:3: keep = 'none' is not valid", directory);
	assert_memory_equal(problem.text, words, strlen(words));
	write_part("20-site.conf", "[class a]\nwindow=5s\n");
	assert_int_equal(load_bytes(GOOD, strlen(GOOD), &config, &problem), -EINVAL);
	snprintf(words, sizeof(words), "%s/conf.d/20-site.conf:2: [class a]: margin", directory);
	assert_memory_equal(problem.text, words, strlen(words));
	write_part("20-site.conf", "[class new]\nkeep=1\n");
	assert_int_equal(load_bytes(GOOD, strlen(GOOD), &config, &problem), -EINVAL);
	snprintf(words, sizeof(words), "%s/conf.d/20-site.conf:1: [class new] lacks 'store", directory);
	assert_memory_equal(problem.text, words, strlen(words));
	snprintf(words, sizeof(words), "%s/conf.d", directory);
	write_part("20-site.conf", NULL);
	assert_int_equal(chmod(words, 0777), 0);
	assert_int_equal(load_bytes(GOOD, strlen(GOOD), &config, &problem), -EPERM);
	assert_non_null(strstr(problem.text, "conf.d: others may write it"));
	assert_int_equal(chmod(words, 0755), 0);
}

static const char *described(const json_t *keys, const char *name, const char *what)
{
	const json_t *key;
	size_t i;

	json_array_foreach(keys, i, key)
		if (!strcmp(json_string_value(json_object_get(key, "key")), name))
			return json_string_value(json_object_get(key, what));
	fail_msg("no key %s", name);
	return NULL;
}

static void describe(void **state)
{
	struct config *config;
	json_t *daemon, *class;
	char from[200];

	write_part("50.conf", "[class a]\nkeep=100\ncheckpoint_interval=0\nbuffer_memory=1024M\n");
	config = load_good("[daemon]\nimds_endpoint=off\n" GOOD "window=90s\n");
	daemon = config_describe(config);
	class = class_describe(config_class(config, "a"));
	assert_string_equal(described(daemon, "imds_endpoint", "value"), "off");
	assert_string_equal(described(daemon, "work_dir", "reload"), "restart of ckptd");
	assert_string_equal(described(daemon, "work_dir", "from"), "default");
	assert_string_equal(described(class, "store_user", "value"), "the job's own user");
	assert_string_equal(described(class, "store", "reload"), "new jobs");
	assert_string_equal(described(class, "keep", "value"), "100");
	assert_string_equal(described(class, "keep", "reload"), "at once");
	assert_string_equal(described(class, "checkpoint_interval", "value"), "0");
	assert_string_equal(described(class, "buffer_memory", "value"), "1G");
	assert_string_equal(described(class, "window", "value"), "90s");
	snprintf(from, sizeof(from), "%s:5", file_name);
	assert_string_equal(described(class, "window", "from"), from);
	snprintf(from, sizeof(from), "%s/conf.d/50.conf:2", directory);
	assert_string_equal(described(class, "keep", "from"), from);
	json_decref(daemon);
	json_decref(class);
	config_free(config);
	write_part("50.conf", NULL);
}

/* A running job takes what may change under it, and keeps what may not. */
static void renew(void **state)
{
	struct config *one = load_good(GOOD "keep=3\ncompress=none\nstore_user=7\nmargin=3s\n");
	struct config *two = load_good("[class a]\nstore=/t\nkeep=4\nstore_user=8\nwindow=60s\n");
	const struct class *fresh = config_class(two, "a");
	struct class *renewed;
	char kept[100];

	assert_int_equal(class_renew(&renewed, config_class(one, "a"), fresh, kept, sizeof(kept)), 0);
	assert_string_equal(kept, "store store_user compress");
	assert_string_equal(renewed->store, "/s");
	assert_string_equal(renewed->store_user, "7");
	assert_string_equal(renewed->compress, "none");
	assert_int_equal(renewed->keep, 4);
	assert_int_equal(renewed->window_ms, 60000);
	assert_int_equal(renewed->margin_ms, fresh->margin_ms);
	class_put(renewed);
	/* Too little room for the names is no error. */
	assert_int_equal(class_renew(&renewed, config_class(one, "a"), fresh, kept, 8), 0);
	assert_string_equal(kept, "store s");
	class_put(renewed);
	config_free(one);
	config_free(two);
}

static void keep_for_restart(void **state)
{
	struct config *one = load_good("[daemon]\ncriu=/a/criu\nimds_poll=2s\n" GOOD);
	struct config *two = load_good("[daemon]\nkey_file=/k\nimds_poll=3s\n" GOOD);
	char kept[100];

	assert_int_equal(config_keep(two, one, kept, sizeof(kept)), 0);
	assert_string_equal(kept, "key_file criu");
	assert_string_equal(two->criu, "/a/criu");
	assert_string_equal(two->key_file, "/etc/ckpt/key");
	assert_int_equal(two->imds_poll_ms, 3000);
	config_free(one);
	config_free(two);
}

static void class_outlives_config(void **state)
{
	struct config *config = load_good(GOOD);
	struct class *class = class_get(config_class(config, "a"));

	config_free(config);
	assert_string_equal(class->store, "/s");
	class_put(class);
}

/* The record of a running job: back come the same values, whatever they are. */
static void json_round_trip(void **state)
{
	struct config *config = load_good(GOOD "keep=7\ncheckpoint_interval=0\nbuffer_memory=5M\n"
					  "margin=1001ms\nmechanism=hash\n");
	json_t *values = class_to_json(config_class(config, "a")), *again;
	struct problem problem;
	struct class *class;

	assert_int_equal(class_from_json(&class, "a", values, &problem), 0);
	again = class_to_json(class);
	assert_true(json_equal(values, again));
	assert_int_equal(class->margin_ms, 1001);
	assert_null(class->store_user);
	class_put(class);
	json_decref(again);
	/* Of another version: what is not known, or not valid, is passed over. */
	json_object_set_new(values, "no_such_key", json_string("1"));
	json_object_set_new(values, "keep", json_string("none"));
	json_object_set_new(values, "window", json_integer(5));
	assert_int_equal(class_from_json(&class, "a", values, &problem), 0);
	assert_int_equal(class->keep, 2);
	assert_int_equal(class->window_ms, 120000);
	class_put(class);
	json_object_del(values, "store");
	assert_int_equal(class_from_json(&class, "a", values, &problem), -EINVAL);
	assert_int_equal(class_from_json(&class, "a", NULL, &problem), -EINVAL);
	json_decref(values);
	config_free(config);
}

static int make_files(void **state)
{
	unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	if (!mkdtemp(directory))
		return -1;
	snprintf(file_name, sizeof(file_name), "%s/ckptd.conf", directory);
	return 0;
}

static int remove_files(void **state)
{
	directory_remove(directory);
	return 0;
}

static int remove_parts(void **state)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/conf.d", directory);
	directory_remove(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),	     cmocka_unit_test(every_key),
		cmocka_unit_test(bad_class_lines),   cmocka_unit_test(bad_daemon_lines),
		cmocka_unit_test(bad_files),	     cmocka_unit_test(longest_value),
		cmocka_unit_test(refused_files),     cmocka_unit_test(endpoint_variable),
		cmocka_unit_test(damaged_files),     cmocka_unit_test(packaged_file),
		cmocka_unit_test(manual),
		cmocka_unit_test_teardown(parts, remove_parts),
		cmocka_unit_test_teardown(bad_parts, remove_parts),
		cmocka_unit_test_teardown(describe, remove_parts),
		cmocka_unit_test(renew),
		cmocka_unit_test(keep_for_restart),
		cmocka_unit_test(class_outlives_config),
		cmocka_unit_test(json_round_trip),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
