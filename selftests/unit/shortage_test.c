// SPDX-License-Identifier: GPL-2.0
/* When ckptd has no descriptors left, what it cannot look at is not taken for what is not there. */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "aio.h"
#include "cleanup.h"
#include "files.h"
#include "proc.h"
#include "programs.h"

/* Enough for each of them. */
#define MOST 8

static char directory[] = "/tmp/ckpt-shortage-XXXXXX";
static struct problem problem;

static char *path_of(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static int make_file(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	return fd;
}

/* That many more can be opened. */
static void limit_descriptors(rlim_t more)
{
	int lowest = open("/dev/null", O_RDONLY);
	struct rlimit limit;

	assert_true(lowest >= 0);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)lowest + more;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void unlimit_descriptors(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* How many it finds in this process, or -errno. */
typedef int (*look)(void);

static void finds_all_or_fails(look look_at)
{
	int all = look_at(), found, refused = 0;

	assert_true(all > 0);
	for (rlim_t more = 0; more < MOST; more++) {
		problem.text[0] = '\0';
		limit_descriptors(more);
		found = look_at();
		unlimit_descriptors();
		if (found == -EMFILE) {
			assert_non_null(strstr(problem.text, "Too many open files"));
			refused++;
		} else
			assert_int_equal(found, all);
	}
	assert_in_range(refused, 1, MOST - 1);
}

static int look_at_files(void)
{
	cleanup_close int pidfd = pidfd_of(getpid());
	struct job_files files = { 0 };
	int ret, count;

	if (pidfd < 0)
		return problem_set(&problem, -pidfd, "%s", strerror(-pidfd));
	ret = files_sync_task(&files, getpid(), pidfd, &problem);
	count = (int)files.count;
	files_free(&files);
	return ret ? ret : count;
}

static void files_that_are_open(void **state)
{
	cleanup_close int fd = make_file("open");

	assert_true(fd >= 0);
	finds_all_or_fails(look_at_files);
}

static int look_at_programs(void)
{
	struct programs programs = { 0 };
	int ret, count;

	programs_begin(&programs);
	ret = programs_add_task(&programs, getpid(), &problem);
	count = (int)programs.count;
	programs_free(&programs);
	return ret ? ret : count;
}

static void programs_that_run(void **state)
{
	finds_all_or_fails(look_at_programs);
}

/* Of a cgroup with this process in it. */
static int look_at_rings(void)
{
	struct aio_rings rings;
	int ret = aio_settle(&rings, directory, &problem), count = (int)rings.count;

	aio_free(&rings);
	return ret ? ret : count;
}

static void rings_of_asynchronous_io(void **state)
{
	aio_context_t context = 0;
	FILE *procs;

	if (syscall(SYS_io_setup, 8, &context))
		skip();
	assert_non_null(procs = fopen(path_of("cgroup.procs"), "w"));
	fprintf(procs, "%d\n", getpid());
	fclose(procs);
	finds_all_or_fails(look_at_rings);
	syscall(SYS_io_destroy, context);
}

static int never(void *arg, int fds, const char *number, const char *target)
{
	fail();
	return 0;
}

static void a_process_that_is_gone_has_nothing(void **state)
{
	FILE *file = stderr;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(proc_file(pid, "maps", &file), 0);
	assert_null(file);
	assert_int_equal(proc_file_end(file), 0);
	assert_int_equal(proc_each_descriptor(pid, never, NULL, &problem), 0);
}

static int setup(void **state)
{
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	unlink(path_of("open"));
	unlink(path_of("cgroup.procs"));
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_that_are_open),
		cmocka_unit_test(programs_that_run),
		cmocka_unit_test(rings_of_asynchronous_io),
		cmocka_unit_test(a_process_that_is_gone_has_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
