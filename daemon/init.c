// SPDX-License-Identifier: GPL-2.0
/* ckpt-init: PID 1 of one job. See init_spec.h. Started by ckptd only, as root. */
#include "init_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct init {
	struct init_spec spec;
	char **arguments;
	char **environment;
	const char *cwd;
	const char *stdin_path;
	const char *stdout_path;
	const char *stderr_path;
	const char *directory;
	char *private;
	int recorded;           /* a later ckptd will find the job */
	int vault;              /* what the giver of memory sent; -1: nothing */
};

static void report(enum init_stage stage, int value, const char *text)
{
	struct init_report record = { .stage = stage, .value = value };

	snprintf(record.text, sizeof(record.text), "%s", text);
	/* If ckptd is gone there is nobody to tell; a restarted one looks at the processes. */
	if (write(INIT_FD_STATUS, &record, sizeof(record)) < 0)
		return;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	int err = errno;
	char text[240];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	report(INIT_STAGE_FAILED, err, text);
	_exit(err == ENOENT ? 127 : 126);
}

static void read_all(int fd, void *buffer, size_t bytes)
{
	size_t done = 0;
	ssize_t n;

	while (done < bytes) {
		n = read(fd, (char *)buffer + done, bytes - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			fail("reading the job's description");
		done += (size_t)n;
	}
}

/* Takes the next string; the buffer's last byte is a NUL. */
static char *next_string(char **cursor, const char *end)
{
	char *string = *cursor;

	if (string >= end) {
		errno = EINVAL;
		fail("the job's description is short");
	}
	*cursor += strlen(string) + 1;
	return string;
}

static char **next_vector(char **cursor, const char *end, uint32_t count)
{
	char **vector = calloc((size_t)count + 1, sizeof(*vector));

	if (!vector)
		fail("out of memory");
	for (uint32_t i = 0; i < count; i++)
		vector[i] = next_string(cursor, end);
	return vector;
}

static void init_read(struct init *init)
{
	char *strings, *cursor, *end;

	read_all(INIT_FD_SPEC, &init->spec, sizeof(init->spec));
	if (init->spec.magic != INIT_MAGIC || init->spec.strings_bytes == 0 ||
	    init->spec.group_count > INIT_MAX_GROUPS) {
		errno = EINVAL;
		fail("ckpt-init and ckptd are not of one version");
	}
	strings = malloc(init->spec.strings_bytes);
	if (!strings)
		fail("out of memory");
	read_all(INIT_FD_SPEC, strings, init->spec.strings_bytes);
	end = strings + init->spec.strings_bytes;
	end[-1] = '\0';
	cursor = strings;
	init->arguments = next_vector(&cursor, end, init->spec.argument_count);
	init->environment = next_vector(&cursor, end, init->spec.environment_count);
	init->cwd = next_string(&cursor, end);
	init->stdin_path = next_string(&cursor, end);
	init->stdout_path = next_string(&cursor, end);
	init->stderr_path = next_string(&cursor, end);
	init->directory = next_string(&cursor, end);
	init->private = next_string(&cursor, end);
}

static void write_text(int directory, const char *path, const char *text)
{
	int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		fail("writing '%s' to %s", text, path);
	close(fd);
}

static void set_limits(const struct init_spec *spec)
{
	cpu_set_t cpus;
	char text[16];

	/* ckptd's own protection from the OOM killer is not the job's. */
	snprintf(text, sizeof(text), "%d", spec->oom_score_adj);
	write_text(AT_FDCWD, "/proc/self/oom_score_adj", text);
	for (int i = 0; i < RLIM_NLIMITS; i++)
		if (setrlimit((__rlimit_resource_t)i, &spec->limits[i]) && errno != EPERM)
			fail("setting resource limit %d", i);
	CPU_ZERO(&cpus);
	for (size_t cpu = 0; cpu < sizeof(spec->affinity) * 8; cpu++)
		if (spec->affinity[cpu / 64] >> (cpu % 64) & 1)
			CPU_SET(cpu, &cpus);
	/* A node with other CPUs than the caller named keeps the cgroup's. */
	if (CPU_COUNT(&cpus))
		sched_setaffinity(0, sizeof(cpus), &cpus);
	setpriority(PRIO_PROCESS, 0, spec->nice);
}

static void become_user(const struct init_spec *spec)
{
	gid_t groups[INIT_MAX_GROUPS];

	for (uint32_t i = 0; i < spec->group_count; i++)
		groups[i] = spec->groups[i];
	if (setgroups(spec->group_count, groups) ||
	    setresgid(spec->gid, spec->gid, spec->gid) ||
	    setresuid(spec->uid, spec->uid, spec->uid))
		fail("becoming user %u", spec->uid);
}

/*
 * Opened anew by path, so that the descriptor's mount is one of the job's own namespace; by the job's user, who may have
 * put anything there meanwhile.
 */
static void open_stdin(const struct init *init)
{
	struct stat wanted, found;
	const char *path = *init->stdin_path ? init->stdin_path : "/dev/null";
	int flags = *init->stdin_path ? (int)init->spec.stdin_flags : O_RDONLY;
	int fd = open(path, flags);

	if (fd < 0)
		fail("opening standard input %s", path);
	if (*init->stdin_path) {
		if (fstat(INIT_FD_STDIN, &wanted) || fstat(fd, &found) ||
		    wanted.st_dev != found.st_dev || wanted.st_ino != found.st_ino) {
			errno = ESTALE;
			fail("standard input %s is not the file that was given any more", path);
		}
		lseek(fd, (off_t)init->spec.stdin_offset, SEEK_SET);
	}
	if (dup2(fd, 0) != 0)
		fail("standard input");
	close(fd);
}

static void open_output(const char *path, int as)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	if (fd < 0 || dup2(fd, as) != as)
		fail("opening the job's output %s", path);
	close(fd);
}

static void reset_signals(void)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

__attribute__((noreturn)) static void job_exec(const struct init *init)
{
	int status = fcntl(INIT_FD_STATUS, F_DUPFD_CLOEXEC, 100);

	write_text(INIT_FD_CGROUP, "cgroup.procs", "0");
	if (setsid() < 0 || unshare(CLONE_NEWIPC))
		fail("making the job's session and IPC namespace");
	set_limits(&init->spec);
	open_output(init->stdout_path, 1);
	if (strcmp(init->stdout_path, init->stderr_path))
		open_output(init->stderr_path, 2);
	else if (dup2(1, 2) != 2)
		fail("standard error");
	umask((mode_t)init->spec.umask);
	become_user(&init->spec);
	open_stdin(init);
	if (chdir(init->cwd))
		fail("changing to the working directory %s", init->cwd);
	reset_signals();
	environ = init->environment;
	/* From here on the report pipe is the one that exec closes. */
	if (status < 0 || dup3(status, INIT_FD_STATUS, O_CLOEXEC) < 0)
		fail("the report pipe");
	syscall(SYS_close_range, INIT_FD_STATUS + 1, ~0U, 0);
	close(INIT_FD_SPEC);
	report(INIT_STAGE_EXEC, 0, "");
	execvp(init->arguments[0], init->arguments);
	fail("cannot run %s", init->arguments[0]);
}

/* Number N of the list: memory, or the directory that ckptd has made for it. */
static void mount_private(const struct init *init, const char *path, unsigned int number)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	char source[PATH_MAX], place[64];

	/* A link may be a user's, who would then have what is mounted there in the place of /etc. */
	if (fd < 0)
		fail("opening %s, of which the job gets one for itself, and which must not lie behind a link", path);
	/* By its path: INIT_FD_DIRECTORY is of the mount namespace that was left. */
	snprintf(source, sizeof(source), "%s/private/%u", init->directory, number);
	snprintf(place, sizeof(place), "/proc/self/fd/%d", fd);
	if (!strcmp(path, "/dev/shm")) {
		if (mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"))
			fail("mounting a %s for the job alone", path);
	} else if (mount(source, place, NULL, MS_BIND, NULL)) {
		fail("mounting a %s for the job alone", path);
	}
	close(fd);
}

static void enter_namespaces(const struct init *init)
{
	unsigned int number = 0;
	char *place, *path;

	/* Mounts made outside later (a file system of the store, say) shall appear inside. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		fail("making the mount namespace a slave");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		fail("mounting /proc");
	for (path = strtok_r(init->private, ", \t", &place); path; path = strtok_r(NULL, ", \t", &place))
		mount_private(init, path, number++);
}

static pid_t start_root(const struct init *init)
{
	char last[16];
	pid_t pid;

	snprintf(last, sizeof(last), "%d", INIT_ROOT_PID - 1);
	write_text(AT_FDCWD, "/proc/sys/kernel/ns_last_pid", last);
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0)
		job_exec(init);
	if (pid != INIT_ROOT_PID) {
		errno = EAGAIN;
		fail("the job's root task got PID %d instead of %d", pid, INIT_ROOT_PID);
	}
	return pid;
}

static void write_exit(int status)
{
	char text[32];
	int fd = openat(INIT_FD_DIRECTORY, INIT_EXIT ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	snprintf(text, sizeof(text), "%s %d\n", WIFSIGNALED(status) ? "killed" : "exited",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) ||
	    renameat(INIT_FD_DIRECTORY, INIT_EXIT ".new", INIT_FD_DIRECTORY, INIT_EXIT))
		fail("writing the job's exit status");
}

/* Reaps; true once the root task has ended. */
static int reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == INIT_ROOT_PID) {
			write_exit(status);
			return 1;
		}
	}
	return 0;
}

static void thaw(void)
{
	int fd = openat(INIT_FD_CGROUP, "cgroup.freeze", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, "0", 1) != 1)
			report(INIT_STAGE_FAILED, errno, "thawing the job");
		close(fd);
	}
}

/* ckptd is gone. */
static void orphaned(const struct init *init)
{
	int next;

	if (!init->recorded) {
		unlinkat(INIT_FD_DIRECTORY, INIT_RECORD, 0);
		_exit(1);
	}
	if (faccessat(INIT_FD_DIRECTORY, INIT_MARK, F_OK, 0))
		thaw();
	/* A descriptor that has lost its writers says so for ever; a new one waits for the next. */
	next = openat(INIT_FD_DIRECTORY, INIT_ALIVE, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (next < 0 || dup2(next, INIT_FD_ALIVE) < 0)
		fail("opening the FIFO of ckptd again");
	close(next);
}

static void listen_ckptd(struct init *init)
{
	char bytes[16];
	ssize_t n = read(INIT_FD_ALIVE, bytes, sizeof(bytes));

	if (n == 0)
		orphaned(init);
	if (n <= 0 || init->recorded)
		return;
	init->recorded = 1;
	if (init->spec.mode == INIT_START)
		report(INIT_STAGE_ROOT, start_root(init), "");
	/* ckptd takes the end of this pipe, which the root task's exec closes too, for success. */
	close(INIT_FD_STATUS);
}

/* Whoever touches a missing page now gets zeros: nobody may live to do so. */
__attribute__((noreturn)) static void end_blind(void)
{
	static const char reason[] = "what gave the job its memory was killed";
	int fd;

	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	fd = openat(INIT_FD_DIRECTORY, INIT_LAZY, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 && write(fd, reason, sizeof(reason) - 1) < 0)
		report(INIT_STAGE_FAILED, errno, reason);
	_exit(1);
}

/* One byte, and a descriptor with it; -1: without. */
static int receive_byte(char *byte)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec data = { .iov_base = byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header;
	int fd = -1;

	if (recvmsg(INIT_FD_PAGES, &message, MSG_CMSG_CLOEXEC) != 1)
		end_blind();
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* All memory has come, or what gave it is gone, or sends what is to be kept from now on. */
static void listen_pages(struct init *init, struct pollfd *wait)
{
	char byte;
	int fd = receive_byte(&byte);

	if (init->vault >= 0)
		close(init->vault);
	init->vault = fd;
	if (fd >= 0)
		return;
	close(INIT_FD_PAGES);
	wait->fd = -1;
}

static void serve(struct init *init, int signals)
{
	struct signalfd_siginfo info;
	struct pollfd wait[3] = {
		{ .fd = signals, .events = POLLIN },
		{ .fd = INIT_FD_ALIVE, .events = POLLIN },
		{ .fd = fcntl(INIT_FD_PAGES, F_GETFD) < 0 ? -1 : INIT_FD_PAGES, .events = POLLIN },
	};

	while (!reap()) {
		if (poll(wait, 3, -1) < 0 && errno != EINTR)
			fail("poll");
		if (wait[0].revents && read(signals, &info, sizeof(info)) < 0 && errno != EAGAIN)
			fail("signalfd");
		if (wait[2].revents)
			listen_pages(init, &wait[2]);
		if (wait[1].revents)
			listen_ckptd(init);
	}
}

static int signals_open(void)
{
	sigset_t child;
	int fd;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fail("signalfd");
	return fd;
}

int main(void)
{
	struct init init = { .vault = -1 };
	int signals;
	pid_t pid;

	signal(SIGPIPE, SIG_IGN);
	init_read(&init);
	prctl(PR_SET_NAME, "ckpt-init");
	if (setsid() < 0 && getpid() != getsid(0))
		fail("setsid");
	if (chdir("/") || unshare(CLONE_NEWPID | CLONE_NEWNS))
		fail("making namespaces");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid > 0) {
		report(INIT_STAGE_PID, pid, "");
		return 0;
	}
	enter_namespaces(&init);
	signals = signals_open();
	report(INIT_STAGE_READY, 0, "");
	serve(&init, signals);
	return 0;
}
