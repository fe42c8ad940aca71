// SPDX-License-Identifier: GPL-2.0
#include "hook.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "ownership.h"
#include "proc.h"

#define PATH_VARIABLE "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* From SIGTERM to SIGKILL. */
#define END_MS 2000
/* Of what it prints; the rest is read and dropped. */
#define LINES_MAX 50

static const char *const names[] = {
	[HOOK_PRE_RESTORE] = "pre_restore",   [HOOK_POST_RESTORE] = "post_restore",
	[HOOK_ON_COMMITTED] = "on_committed", [HOOK_ON_MISSED] = "on_missed",
	[HOOK_ON_FORECAST] = "on_forecast",
};

const char *hook_name(enum hook hook)
{
	return names[hook];
}

/* ---- what is to be run ---- */

static const char *command_program(const char *command, bool *as_root)
{
	*as_root = !strncmp(command, "root ", 5);
	if (*as_root || !strncmp(command, "job ", 4))
		command = strchr(command, ' ') + strspn(strchr(command, ' '), " \t");
	return command;
}

bool hook_valid(const char *command)
{
	bool as_root;
	const char *program = command_program(command, &as_root);

	return !*command || (*program == '/' && !strpbrk(program, " \t"));
}

int hook_check(const char *command, struct problem *problem)
{
	bool as_root;

	return ownership_check_program(command_program(command, &as_root), problem);
}

struct hook_call *hook_call_new(enum hook hook, const char *command, const char *job)
{
	struct hook_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->hook = hook;
	call->command = strdup(command);
	call->job = strdup(job);
	if (call->command && call->job)
		return call;
	hook_call_free(call);
	return NULL;
}

void hook_call_set(struct hook_call *call, const char *name, const char *format, ...)
{
	char value[1200];
	va_list args;

	va_start(args, format);
	vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	if (call->variable_count < HOOK_VARIABLES &&
	    asprintf(&call->variables[call->variable_count], "%s=%s", name, value) >= 0)
		call->variable_count++;
}

void hook_call_free(struct hook_call *call)
{
	if (!call)
		return;
	for (size_t i = 0; i < call->variable_count; i++)
		free(call->variables[i]);
	free(call->command);
	free(call->job);
	free(call->groups);
	free(call);
}

/* ---- its process ---- */

/* All that the child needs, made before the fork: after it nothing may be allocated. */
struct hook_process {
	const struct hook_call *call;
	const char *program;
	bool as_root;
	char home[512];
	char user[64 + 8];
	char logname[64 + 8];
	char *arguments[4];
	char *environment[HOOK_VARIABLES + 6];
	int output;                     /* the read end */
	pid_t pid;
	int pidfd;
	int64_t deadline_ms;
	char line[400];                 /* of output, the last one */
	size_t line_bytes;
	unsigned int lines;
};

static void set_user(struct hook_process *process)
{
	uid_t uid = process->as_root ? 0 : process->call->uid;
	struct passwd entry, *found = NULL;
	char buffer[4096];
	size_t count = 0;

	if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) || !found)
		entry = (struct passwd){ .pw_dir = (char *)"/", .pw_name = (char *)"" };
	snprintf(process->home, sizeof(process->home), "HOME=%s", entry.pw_dir);
	snprintf(process->user, sizeof(process->user), "USER=%s", entry.pw_name);
	snprintf(process->logname, sizeof(process->logname), "LOGNAME=%s", entry.pw_name);
	process->environment[count++] = (char *)PATH_VARIABLE;
	process->environment[count++] = process->home;
	process->environment[count++] = process->user;
	process->environment[count++] = process->logname;
	for (size_t i = 0; i < process->call->variable_count; i++)
		process->environment[count++] = process->call->variables[i];
}

/* Plain system calls: the C library's functions would do it for all threads that there once were. */
static int become(const struct hook_process *process)
{
	const struct hook_call *call = process->call;

	if (process->as_root)
		return 0;
	if (syscall(SYS_setgroups, call->group_count, call->groups) ||
	    syscall(SYS_setresgid, call->gid, call->gid, call->gid) ||
	    syscall(SYS_setresuid, call->uid, call->uid, call->uid))
		return -errno;
	return 0;
}

__attribute__((noreturn)) static void exec_hook(const struct hook_process *process, int output)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY), score = open("/proc/self/oom_score_adj", O_WRONLY);

	setsid();
	/* The daemon is spared when memory is short; a hook need not be. */
	if (score >= 0 && write(score, "0", 1) < 0)
		_exit(126);
	if (dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 || chdir("/"))
		_exit(126);
	syscall(SYS_close_range, 3, ~0U, 0);
	umask(022);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (become(process))
		_exit(126);
	execve(process->program, process->arguments, process->environment);
	_exit(127);
}

static int start(struct hook_process *process, struct problem *problem)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return problem_set(problem, errno, "cannot run %s: %s", process->program, strerror(errno));
	process->pid = fork();
	if (process->pid == 0)
		exec_hook(process, fds[1]);
	close(fds[1]);
	process->output = fds[0];
	if (process->pid < 0)
		return problem_set(problem, errno, "cannot run %s: %s", process->program, strerror(errno));
	process->pidfd = pidfd_of(process->pid);
	fcntl(process->output, F_SETFL, O_NONBLOCK);
	return 0;
}

/* ---- what it prints ---- */

static void line_end(struct hook_process *process)
{
	process->line[process->line_bytes] = '\0';
	process->line_bytes = 0;
	if (process->lines++ < LINES_MAX)
		log_info("%s: %s: %s", process->call->job, names[process->call->hook], process->line);
}

/* The last line stays, to explain a failure. It is shown to people: text only. */
static void take_output(struct hook_process *process)
{
	char bytes[1024];
	ssize_t count;

	while ((count = read(process->output, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < count; i++) {
			char byte = bytes[i];

			if (byte == '\n') {
				line_end(process);
				continue;
			}
			if (process->line_bytes + 1 < sizeof(process->line))
				process->line[process->line_bytes++] = byte >= ' ' && byte < 0x7f ? byte : '?';
		}
	}
}

/* ---- its end ---- */

static bool ended_before(struct hook_process *process, int64_t deadline_ms)
{
	struct pollfd wait[2] = {
		{ .fd = process->output, .events = POLLIN },
		{ .fd = process->pidfd, .events = POLLIN },
	};

	for (;;) {
		int64_t left = deadline_ms - clock_ms();

		if (left <= 0)
			return false;
		if (poll(wait, 2, (int)left) < 0 && errno != EINTR)
			return false;
		if (wait[0].revents)
			take_output(process);
		/* Closed by the hook, which may work on in silence. */
		if (wait[0].revents & POLLHUP)
			wait[0].fd = -1;
		if (wait[1].revents)
			return true;
	}
}

static int judge(const struct hook_process *process, int status, struct problem *problem)
{
	const char *said = process->line;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return problem_set(problem, EIO, "%s failed with status %d%s%s", process->program,
				   WEXITSTATUS(status), *said ? ": " : "", said);
	return problem_set(problem, EIO, "%s was ended by signal %d%s%s", process->program,
			   WTERMSIG(status), *said ? ": " : "", said);
}

static int finish(struct hook_process *process, struct problem *problem)
{
	bool late = !ended_before(process, process->deadline_ms);
	int status;

	if (late) {
		kill(-process->pid, SIGTERM);
		ended_before(process, clock_ms() + END_MS);
		kill(-process->pid, SIGKILL);
	}
	while (waitpid(process->pid, &status, 0) < 0)
		if (errno != EINTR)
			return problem_set(problem, errno, "cannot wait for %s", process->program);
	take_output(process);
	if (process->line_bytes)
		line_end(process);
	if (late)
		return problem_set(problem, ETIMEDOUT, "%s was ended, it took longer than %u s (hook_timeout)",
				   process->program, process->call->timeout_ms / 1000);
	return judge(process, status, problem);
}

int hook_run(const struct hook_call *call, struct problem *problem)
{
	struct hook_process process = { .call = call, .output = -1, .pidfd = -1 };
	int ret;

	process.program = command_program(call->command, &process.as_root);
	ret = ownership_check_program(process.program, problem);
	if (ret)
		return ret;
	process.arguments[0] = (char *)process.program;
	process.arguments[1] = (char *)names[call->hook];
	process.arguments[2] = call->job;
	set_user(&process);
	process.deadline_ms = clock_ms() + call->timeout_ms;
	ret = start(&process, problem);
	if (ret == 0)
		ret = finish(&process, problem);
	if (process.output >= 0)
		close(process.output);
	if (process.pidfd >= 0)
		close(process.pidfd);
	return ret;
}
