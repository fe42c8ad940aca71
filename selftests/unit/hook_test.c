// SPDX-License-Identifier: GPL-2.0
/* As root the hooks run as who they are to; as somebody else, as that. */
#include "hook.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "directory.h"
#include "log.h"
#include "ownership.h"

static char directory[] = "/tmp/ckpt-hook-test-XXXXXX";
static char program[sizeof(directory) + 16], result[sizeof(directory) + 16];

static void write_program(const char *text)
{
	FILE *file;

	unlink(program);
	file = fopen(program, "w");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", text);
	fclose(file);
	assert_int_equal(chmod(program, 0755), 0);
}

static char *read_result(void)
{
	static char text[4096];
	FILE *file = fopen(result, "r");
	size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

	text[bytes] = '\0';
	if (file)
		fclose(file);
	return text;
}

/* In a directory that anybody may write, for hooks that are not root. */
static void clear_result(void)
{
	FILE *file = fopen(result, "w");

	assert_non_null(file);
	fclose(file);
	assert_int_equal(chmod(result, 0666), 0);
}

static int run_as(const char *user, unsigned int timeout_ms, struct problem *problem)
{
	char command[200];
	struct hook_call *call;
	int ret;

	snprintf(command, sizeof(command), "%s%s", user, program);
	call = hook_call_new(HOOK_ON_COMMITTED, command, "65534-job");
	assert_non_null(call);
	call->uid = call->gid = 65534;
	call->groups = calloc(2, sizeof(*call->groups));
	call->groups[0] = 4711;
	call->groups[1] = 4712;
	call->group_count = 2;
	call->timeout_ms = timeout_ms;
	hook_call_set(call, "CKPT_RESULT", "%s", result);
	hook_call_set(call, "CKPT_ODD", "%s", "a b'c$(d)");
	problem->text[0] = '\0';
	clear_result();
	ret = hook_run(call, problem);
	hook_call_free(call);
	return ret;
}

static void commands(void **state)
{
	assert_true(hook_valid("/a/b"));
	assert_true(hook_valid("root /a/b"));
	assert_true(hook_valid("job /a/b"));
	assert_true(hook_valid(""));
	assert_false(hook_valid("a/b"));
	assert_false(hook_valid("root a"));
	assert_false(hook_valid("root"));
	assert_false(hook_valid("/a b"));
	assert_false(hook_valid("user /a"));
	assert_false(hook_valid("root root /a"));
	assert_string_equal(hook_name(HOOK_PRE_RESTORE), "pre_restore");
}

static void who_may_change_it(void **state)
{
	struct problem problem;
	char path[200];

	write_program("exit 0");
	assert_int_equal(hook_check(program, &problem), 0);
	assert_int_equal(chmod(program, 0757), 0);
	assert_int_equal(hook_check(program, &problem), -EPERM);
	assert_non_null(strstr(problem.text, "chmod go-w"));
	assert_int_equal(chmod(program, 0644), 0);
	assert_int_equal(hook_check(program, &problem), -EACCES);
	assert_int_equal(chmod(program, 0755), 0);
	assert_int_equal(chmod(directory, 0777), 0);
	assert_int_equal(hook_check(program, &problem), -EPERM);
	assert_int_equal(chmod(directory, 0755), 0);
	snprintf(path, sizeof(path), "%s/link", directory);
	assert_int_equal(symlink(program, path), 0);
	assert_int_equal(hook_check(path, &problem), -ELOOP);
	assert_non_null(strstr(problem.text, program));
	snprintf(path, sizeof(path), "%s/../%s", directory, strrchr(program, '/') + 1);
	assert_int_equal(hook_check(path, &problem), -ENOENT);
	snprintf(path, sizeof(path), "%s/none", directory);
	assert_int_equal(hook_check(path, &problem), -ENOENT);
	assert_int_equal(hook_check(directory, &problem), -EACCES);
	if (geteuid() == 0) {
		assert_int_equal(chown(program, 65534, 65534), 0);
		assert_int_equal(hook_check(program, &problem), -EPERM);
		assert_int_equal(run_as("root ", 5000, &problem), -EPERM);
		assert_int_equal(chown(program, 0, 0), 0);
		assert_int_equal(chown(program, 0, 65534), 0);
		assert_int_equal(hook_check(program, &problem), 0);
		assert_int_equal(chmod(program, 0775), 0);
		assert_int_equal(hook_check(program, &problem), -EPERM);
	}
}

static void as_whom(void **state)
{
	struct problem problem;

	if (geteuid())
		skip();
	write_program("id -u; id -G >>\"$CKPT_RESULT\"; id -u >>\"$CKPT_RESULT\"");
	assert_int_equal(run_as("", 20000, &problem), 0);
	assert_string_equal(read_result(), "65534 4711 4712\n65534\n");
	assert_int_equal(run_as("job ", 20000, &problem), 0);
	assert_string_equal(read_result(), "65534 4711 4712\n65534\n");
	assert_int_equal(run_as("root ", 20000, &problem), 0);
	assert_non_null(strstr(read_result(), "\n0\n"));
}

/* Nothing of the daemon's: environment, descriptors, directory, signals, memory score. */
static void clean_surroundings(void **state)
{
	struct problem problem;
	int fd = dup(2);

	setenv("CKPT_SECRET", "of the daemon", 1);
	signal(SIGPIPE, SIG_IGN);
	write_program("{ echo \"$1 $2 $CKPT_ODD\"; echo \"[$CKPT_SECRET]\"; pwd; ls /proc/self/fd | wc -l\n"
		      "grep SigIgn /proc/self/status | sed s/180000000/000000000/; cat /proc/self/oom_score_adj; umask\n"
		      "echo \"$PATH\" | grep -c /usr/bin; cat; } >>\"$CKPT_RESULT\"");
	assert_int_equal(run_as("", 20000, &problem), 0);
	/* The shell's three, and ls's own.  The C library ignores 32 and 33, its own, in what it has spawned. */
	assert_string_equal(read_result(), "on_committed 65534-job a b'c$(d)\n[]\n/\n4\n"
			    "SigIgn:\t0000000000000000\n0\n0022\n1\n");
	signal(SIGPIPE, SIG_DFL);
	close(fd);
}

static void failures(void **state)
{
	struct problem problem;

	write_program("echo first; printf 'no license:\\033[2J left' >&2; exit 3");
	assert_int_equal(run_as("", 20000, &problem), -EIO);
	assert_non_null(strstr(problem.text, "failed with status 3: no license:?[2J left"));
	write_program("kill -9 $$");
	assert_int_equal(run_as("", 20000, &problem), -EIO);
	assert_non_null(strstr(problem.text, "signal 9"));
	/* A script for which there is no interpreter. */
	write_program("");
	assert_int_equal(truncate(program, 0), 0);
	FILE *file = fopen(program, "w");
	fputs("#!/nonexistent\n", file);
	fclose(file);
	assert_int_equal(run_as("", 20000, &problem), -EIO);
	assert_non_null(strstr(problem.text, "status 127"));
	/* Much output neither blocks the hook nor floods anything. */
	write_program("seq 200000; echo end; exit 1");
	assert_int_equal(run_as("", 60000, &problem), -EIO);
	assert_non_null(strstr(problem.text, "status 1: end"));
}

/* With all that it started, also what does not listen. */
static void takes_too_long(void **state)
{
	struct problem problem;
	char *end, *text;
	pid_t shell, child;

	write_program("trap '' TERM; sleep 1000 & echo $$ $! >>\"$CKPT_RESULT\"; wait; wait");
	assert_int_equal(run_as("", 1500, &problem), -ETIMEDOUT);
	assert_non_null(strstr(problem.text, "hook_timeout"));
	text = read_result();
	shell = (pid_t)strtol(text, &end, 10);
	child = (pid_t)strtol(end, NULL, 10);
	assert_true(shell > 1 && child > 1);
	assert_int_equal(kill(shell, 0), -1);
	/* Not ours to reap: gone, or waiting for whoever adopted it. */
	for (int i = 0; i < 1000 && kill(child, 0) == 0; i++) {
		char path[64], state_letter = 'Z';
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/stat", child);
		file = fopen(path, "r");
		if (!file || fscanf(file, "%*d (%*[^)]) %c", &state_letter) != 1 || state_letter == 'Z')
			i = 1000;
		if (file)
			fclose(file);
		assert_true(i >= 1000 || usleep(10000) == 0);
	}
}

/* One that leaves something running is done when it has ended itself. */
static void leaves_something(void **state)
{
	struct problem problem;

	write_program("setsid sleep 30 & echo $! >>\"$CKPT_RESULT\"; exit 0");
	assert_int_equal(run_as("", 20000, &problem), 0);
	kill((pid_t)strtol(read_result(), NULL, 10), SIGKILL);
}

static int begin(void **state)
{
	if (!mkdtemp(directory))
		return -1;
	log_set_level(LOG_ERR);
	snprintf(program, sizeof(program), "%s/hook", directory);
	snprintf(result, sizeof(result), "%s/result", directory);
	return chmod(directory, 0755);
}

static int end(void **state)
{
	directory_remove(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands),	      cmocka_unit_test(who_may_change_it),
		cmocka_unit_test(as_whom),	      cmocka_unit_test(clean_surroundings),
		cmocka_unit_test(failures),	      cmocka_unit_test(takes_too_long),
		cmocka_unit_test(leaves_something),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
