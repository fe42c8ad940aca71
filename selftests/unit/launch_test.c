// SPDX-License-Identifier: GPL-2.0
/* What a job gets of its caller: nothing, if the caller may be somebody else by now. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "launch.h"
#include "proc.h"

static struct problem problem;

static int launch_for(struct caller *caller)
{
	static const struct launch_paths paths = {
		.cgroup = "/nonexistent", .directory = "/nonexistent", .private = "none", .stdout_path = "", .stderr_path = "",
		.pages_fd = -1,
	};
	struct launch launch;

	caller->stdin_fd = -1;
	return launch_init(&launch, INIT_START, caller, &paths, &problem);
}

static void test_alive(void **state)
{
	struct caller caller = { .pid = getpid(), .pidfd = pidfd_of(getpid()) };

	assert_int_equal(caller_check(&caller, &problem), 0);
	assert_int_equal(launch_for(&caller), -ENOENT);
	close(caller.pidfd);
}

static void test_gone(void **state)
{
	struct caller caller = { .pid = fork() };

	if (caller.pid == 0)
		pause();
	caller.pidfd = pidfd_of(caller.pid);
	assert_true(caller.pidfd >= 0);
	assert_int_equal(kill(caller.pid, SIGKILL), 0);
	assert_int_equal(waitpid(caller.pid, NULL, 0), caller.pid);
	assert_int_equal(caller_check(&caller, &problem), -ESRCH);
	assert_int_equal(launch_for(&caller), -ESRCH);
	/* Its number is another's: that one's limits are not the job's. */
	caller.pid = getpid();
	assert_int_equal(launch_for(&caller), -ESRCH);
	close(caller.pidfd);
	caller.pidfd = -1;
	assert_int_equal(launch_for(&caller), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alive),
		cmocka_unit_test(test_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
