// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of a guest, once its file systems are mounted: supervise OUTPUT STATUS COMMAND
 *
 * COMMAND is a file with NUL-terminated arguments. They are run as one program, everything it and its children print
 * goes to the port OUTPUT, unchanged and at once. When the program ends, its status is written to the port STATUS and
 * the power goes off. A signal that ends the program counts as 128 + signal, as in the shell.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 256, MAX_COMMAND_BYTES = 128 * 1024 };

static void fail(const char *what)
{
	/* PID 1 that exits panics the kernel; the panic tells the host. */
	perror(what);
	exit(1);
}

/*
 * An event that counts nothing, for as long as the guest lives. With the first one of a task the kernel patches its
 * scheduler, and back after the last one; criu has some for a moment each time, as hardware breakpoints. While code is
 * patched other CPUs meet an int3, and QEMU without KVM may still run it when the kernel has forgotten that it is there.
 */
static void hold_perf_event(void)
{
	struct perf_event_attr event = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(event), .config = PERF_COUNT_SW_DUMMY, .exclude_kernel = 1,
	};

	if (syscall(SYS_perf_event_open, &event, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		fail("perf_event_open");
}

static char **command_read(const char *path)
{
	static char text[MAX_COMMAND_BYTES + 1];
	static char *arguments[MAX_ARGUMENTS + 1];
	int count = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, MAX_COMMAND_BYTES);

	if (length <= 0)
		fail(path);
	for (char *at = text; at < text + length && count < MAX_ARGUMENTS; at += strlen(at) + 1)
		arguments[count++] = at;
	close(fd);
	return arguments;
}

static pid_t command_start(char **arguments, int output)
{
	sigset_t none;
	pid_t pid = fork();

	if (pid)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	dup2(open("/dev/null", O_RDWR), STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	execvp(arguments[0], arguments);
	fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static void write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(fd, data, length);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n > 0) {
			data += n;
			length -= n;
		}
	}
}

static void forward_available(int from, int to)
{
	char buffer[65536];
	ssize_t n;

	while ((n = read(from, buffer, sizeof(buffer))) > 0)
		write_all(to, buffer, n);
}

/* Reaps whatever ended. Returns true, and the status, once that was the command. */
static int reap(pid_t command, int *exit_status)
{
	int status, done = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		*exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		done = 1;
	}
	return done;
}

int main(int argc, char **argv)
{
	struct signalfd_siginfo info;
	int output, status, children, pipe_fds[2], exit_status = 0;
	char text[16];
	sigset_t mask;
	pid_t command;

	if (argc != 4)
		return 2;
	output = open(argv[1], O_WRONLY | O_CLOEXEC);
	status = open(argv[2], O_WRONLY | O_CLOEXEC);
	if (output < 0 || status < 0)
		fail("ports");
	if (pipe2(pipe_fds, O_CLOEXEC))
		fail("pipe");
	fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	children = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0)
		fail("signalfd");

	hold_perf_event();
	command = command_start(command_read(argv[3]), pipe_fds[1]);
	if (command < 0)
		fail("fork");
	for (;;) {
		struct pollfd events[] = { { pipe_fds[0], POLLIN, 0 }, { children, POLLIN, 0 } };

		poll(events, 2, -1);
		forward_available(pipe_fds[0], output);
		while (read(children, &info, sizeof(info)) > 0)
			;
		if (reap(command, &exit_status))
			break;
	}
	forward_available(pipe_fds[0], output);
	sync();
	write_all(status, text, snprintf(text, sizeof(text), "%d\n", exit_status));
	reboot(RB_POWER_OFF);
	return 1;
}
