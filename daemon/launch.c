// SPDX-License-Identifier: GPL-2.0
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "proc.h"

#ifndef CKPT_INIT_PATH
#define CKPT_INIT_PATH CKPT_LIB "/ckpt-init"
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

/* A guest under emulation needs seconds where a node needs milliseconds. */
#define INIT_TIMEOUT_MS 60000

int caller_from_socket(struct caller *caller, int socket, struct problem *problem)
{
	struct ucred cred;
	socklen_t bytes = sizeof(cred);

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &bytes))
		return problem_set(problem, errno, "cannot tell who is calling: %s", strerror(errno));
	caller->pid = cred.pid;
	caller->uid = cred.uid;
	caller->gid = cred.gid;
	caller->stdin_fd = -1;
	caller->pidfd = -1;
	bytes = sizeof(caller->groups);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, caller->groups, &bytes))
		return problem_set(problem, errno,
				   "cannot tell the caller's groups (more than %d?): %s",
				   INIT_MAX_GROUPS, strerror(errno));
	caller->group_count = bytes / sizeof(gid_t);
	return 0;
}

bool caller_in_group(int socket, const char *name)
{
	struct problem problem;
	struct caller caller;
	struct group group, *found = NULL;
	char strings[16384];

	if (getgrnam_r(name, &group, strings, sizeof(strings), &found) || !found ||
	    caller_from_socket(&caller, socket, &problem))
		return false;
	for (size_t i = 0; i < caller.group_count; i++)
		if (caller.groups[i] == group.gr_gid)
			return true;
	return caller.gid == group.gr_gid;
}

int caller_check(const struct caller *caller, struct problem *problem)
{
	struct pollfd gone = { .fd = caller->pidfd, .events = POLLIN };

	if (gone.fd >= 0 && poll(&gone, 1, 0) == 0)
		return 0;
	return problem_set(problem, ESRCH, "the 'ckptctl run' that asked for the job is gone");
}

static void free_vector(char **vector)
{
	for (char **item = vector; item && *item; item++)
		free(*item);
	free(vector);
}

void caller_free(struct caller *caller)
{
	free_vector(caller->arguments);
	free_vector(caller->environment);
	free(caller->cwd);
	if (caller->stdin_fd >= 0)
		close(caller->stdin_fd);
	if (caller->pidfd >= 0)
		close(caller->pidfd);
	memset(caller, 0, sizeof(*caller));
	caller->stdin_fd = -1;
	caller->pidfd = -1;
}

/* Nothing is taken for granted: limits that cannot be read are not lifted. */
static int spec_identity(struct init_spec *spec, const struct caller *caller, struct problem *problem)
{
	cpu_set_t cpus;
	unsigned int mask;
	int value, ret;

	spec->uid = caller->uid;
	spec->gid = caller->gid;
	spec->group_count = (uint32_t)caller->group_count;
	for (size_t i = 0; i < caller->group_count; i++)
		spec->groups[i] = caller->groups[i];
	ret = proc_umask(caller->pid, &mask);
	if (ret == 0)
		ret = proc_oom_score_adj(caller->pid, &value);
	if (ret)
		return problem_set(problem, -ret, "cannot read what process %d has: %s", caller->pid, strerror(-ret));
	spec->umask = mask;
	spec->oom_score_adj = value;
	errno = 0;
	spec->nice = getpriority(PRIO_PROCESS, (id_t)caller->pid);
	for (int i = 0; i < RLIM_NLIMITS && !errno; i++)
		prlimit(caller->pid, (__rlimit_resource_t)i, NULL, &spec->limits[i]);
	if (errno)
		return problem_set(problem, errno, "cannot read the limits of process %d: %s", caller->pid, strerror(errno));
	/* More CPUs than there is room for: the job gets the cgroup's. */
	if (sched_getaffinity(caller->pid, sizeof(cpus), &cpus) == 0)
		for (size_t cpu = 0; cpu < sizeof(spec->affinity) * 8; cpu++)
			if (CPU_ISSET(cpu, &cpus))
				spec->affinity[cpu / 64] |= 1ULL << (cpu % 64);
	return caller_check(caller, problem);
}

/* The caller's standard input, to be opened again by path in the job's mount namespace. */
static int spec_stdin(struct init_spec *spec, const struct caller *caller, char path[PATH_MAX],
		      struct problem *problem)
{
	char link[32];
	struct stat st;
	int flags;

	path[0] = '\0';
	if (caller->stdin_fd < 0)
		return 0;
	flags = fcntl(caller->stdin_fd, F_GETFL);
	if (fstat(caller->stdin_fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink == 0)
		return problem_set(problem, EINVAL,
				   "standard input is not a regular file with a name: a checkpoint cannot "
				   "hold it; use '< FILE' or '< /dev/null'");
	snprintf(link, sizeof(link), "fd/%d", caller->stdin_fd);
	if (proc_link(getpid(), link, path, PATH_MAX))
		return problem_set(problem, EINVAL, "cannot tell the path of standard input");
	spec->stdin_flags = (uint32_t)flags & (O_ACCMODE | O_APPEND | O_NONBLOCK);
	spec->stdin_offset = (uint64_t)lseek(caller->stdin_fd, 0, SEEK_CUR);
	return 0;
}

static void put_string(FILE *out, const char *string)
{
	fwrite(string, 1, strlen(string) + 1, out);
}

static uint32_t put_vector(FILE *out, char **vector)
{
	uint32_t count = 0;

	for (; vector && vector[count]; count++)
		put_string(out, vector[count]);
	return count;
}

static int write_spec(int fd, struct init_spec *spec, const struct caller *caller,
		      const struct launch_paths *paths, const char *stdin_path)
{
	cleanup_free char *strings = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&strings, &bytes);

	if (!out)
		return -ENOMEM;
	spec->argument_count = put_vector(out, caller->arguments);
	spec->environment_count = put_vector(out, caller->environment);
	put_string(out, caller->cwd ? caller->cwd : "/");
	put_string(out, stdin_path);
	put_string(out, paths->stdout_path);
	put_string(out, paths->stderr_path);
	put_string(out, paths->directory);
	put_string(out, strcmp(paths->private, "none") ? paths->private : "");
	if (fclose(out))
		return -ENOMEM;
	spec->strings_bytes = (uint32_t)bytes;
	if (write(fd, spec, sizeof(*spec)) != sizeof(*spec) ||
	    write(fd, strings, bytes) != (ssize_t)bytes || lseek(fd, 0, SEEK_SET) != 0)
		return -EIO;
	return 0;
}

static int make_spec(enum init_mode mode, const struct caller *caller,
		     const struct launch_paths *paths, struct problem *problem)
{
	cleanup_free struct init_spec *spec = calloc(1, sizeof(*spec));
	char stdin_path[PATH_MAX];
	cleanup_close int fd = memfd_create("ckpt-init", MFD_CLOEXEC);
	int ret;

	if (!spec || fd < 0)
		return problem_set(problem, ENOMEM, "out of memory");
	spec->magic = INIT_MAGIC;
	spec->mode = mode;
	stdin_path[0] = '\0';
	if (mode == INIT_START) {
		ret = spec_identity(spec, caller, problem);
		if (ret == 0)
			ret = spec_stdin(spec, caller, stdin_path, problem);
		if (ret)
			return ret;
	}
	ret = write_spec(fd, spec, caller, paths, stdin_path);
	if (ret)
		return problem_set(problem, -ret, "cannot describe the job: %s", strerror(-ret));
	return take_fd(fd);
}

/* In the forked child: descriptors to their numbers, everything else closed. No malloc from here. */
__attribute__((noreturn)) static void exec_init(const int fds[INIT_FD_COUNT], int parent_procs)
{
	int high[INIT_FD_COUNT];
	char *const arguments[] = { (char *)"ckpt-init", NULL };
	char *const environment[] = { NULL };
	sigset_t none;

	if (write(parent_procs, "0", 1) != 1)
		_exit(125);
	for (int i = INIT_FD_SPEC; i < INIT_FD_COUNT; i++)
		high[i] = fds[i] >= 0 ? fcntl(fds[i], F_DUPFD, 64) : -1;
	for (int i = INIT_FD_SPEC; i < INIT_FD_COUNT; i++)
		if (high[i] >= 0)
			dup2(high[i], i);
		else
			close(i);
	for (int i = 0; i < 3; i++) {
		close(i);
		open("/dev/null", O_RDWR);
	}
	syscall(SYS_close_range, INIT_FD_COUNT, ~0U, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(CKPT_INIT_PATH, arguments, environment);
	_exit(125);
}

/* Next record of init; -EPIPE: init is gone without a word. */
static int next_report(int fd, struct init_report *report, struct problem *problem)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	int ret;

	do
		ret = poll(&wait, 1, INIT_TIMEOUT_MS);
	while (ret < 0 && errno == EINTR);
	if (ret == 0)
		return problem_set(problem, ETIMEDOUT, "ckpt-init does not answer");
	if (read(fd, report, sizeof(*report)) != sizeof(*report))
		return -EPIPE;
	if (report->stage == INIT_STAGE_FAILED)
		return problem_set(problem, report->value ? report->value : EIO, "%s: %s", report->text,
				   strerror(report->value));
	return 0;
}

static int fork_init(const int fds[INIT_FD_COUNT], const char *parent_cgroup,
		     struct problem *problem)
{
	char file[PATH_MAX];
	cleanup_close int procs = -1;
	pid_t pid;

	snprintf(file, sizeof(file), "%s/cgroup.procs", parent_cgroup);
	procs = open(file, O_WRONLY | O_CLOEXEC);
	if (procs < 0)
		return problem_set(problem, errno, "cannot open %s: %s", file, strerror(errno));
	pid = fork();
	if (pid < 0)
		return problem_set(problem, errno, "cannot fork: %s", strerror(errno));
	if (pid == 0)
		exec_init(fds, procs);
	/* The first stage forks PID 1 and is done. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

/* PID 1 may say that it is ready before the first stage has told its pid. */
static int await_init(struct launch *launch, struct problem *problem)
{
	struct init_report report;
	bool ready = false;
	int ret;

	while (!ready || !launch->init_pid) {
		ret = next_report(launch->status_fd, &report, problem);
		if (ret == -EPIPE)
			return problem_set(problem, EPIPE,
					   "%s cannot be run or died: is ckpt installed whole?",
					   CKPT_INIT_PATH);
		if (ret)
			return ret;
		ready |= report.stage == INIT_STAGE_READY;
		if (report.stage == INIT_STAGE_PID)
			launch->init_pid = report.value;
	}
	launch->init_pidfd = pidfd_of(launch->init_pid);
	if (launch->init_pidfd < 0)
		return problem_set(problem, -launch->init_pidfd, "ckpt-init died at once");
	return 0;
}

static int open_alive(const char *directory, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/" INIT_ALIVE, directory);
	fd = open(path, flags | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int alive_problem(int err, const char *directory, struct problem *problem)
{
	return problem_set(problem, err, "cannot make or open %s/" INIT_ALIVE ": %s", directory,
			   strerror(err));
}

/* Both ends: the reader first, without which no writer can open it. */
static int make_alive(struct launch *launch, const char *directory, int *reader,
		      struct problem *problem)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" INIT_ALIVE, directory);
	/* There is one if a restore from another checkpoint was tried before. */
	if ((unlink(path) && errno != ENOENT) || mkfifo(path, 0600))
		return alive_problem(errno, directory, problem);
	*reader = open_alive(directory, O_RDONLY);
	if (*reader >= 0)
		launch->alive_fd = open_alive(directory, O_WRONLY);
	if (*reader < 0 || launch->alive_fd < 0)
		return alive_problem(*reader < 0 ? -*reader : -launch->alive_fd, directory, problem);
	return 0;
}

int launch_confirm(struct launch *launch, struct problem *problem)
{
	if (write(launch->alive_fd, "!", 1) == 1)
		return 0;
	return problem_set(problem, errno, "ckpt-init does not listen: %s", strerror(errno));
}

int launch_adopt(struct launch *launch, const char *directory, struct problem *problem)
{
	launch->alive_fd = open_alive(directory, O_WRONLY);
	if (launch->alive_fd < 0)
		return alive_problem(-launch->alive_fd, directory, problem);
	/* Should the earlier one have died before it could. */
	return launch_confirm(launch, problem);
}

int launch_init(struct launch *launch, enum init_mode mode, const struct caller *caller,
		const struct launch_paths *paths, struct problem *problem)
{
	cleanup_close int spec = -1, status = -1, alive = -1, directory = -1, cgroup = -1;
	int status_pipe[2], ret;

	*launch = (struct launch){ .init_pidfd = -1, .alive_fd = -1, .status_fd = -1 };
	spec = make_spec(mode, caller, paths, problem);
	if (spec < 0)
		return spec;
	directory = open(paths->directory, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cgroup = open(paths->cgroup, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (directory < 0 || cgroup < 0)
		return problem_set(problem, errno, "cannot open %s: %s",
				   directory < 0 ? paths->directory : paths->cgroup, strerror(errno));
	if (pipe2(status_pipe, O_CLOEXEC))
		return problem_set(problem, errno, "cannot make a pipe: %s", strerror(errno));
	launch->status_fd = status_pipe[0];
	status = status_pipe[1];
	ret = make_alive(launch, paths->directory, &alive, problem);
	if (ret == 0)
		ret = fork_init((const int[INIT_FD_COUNT]){
				[INIT_FD_SPEC] = spec, [INIT_FD_STATUS] = status, [INIT_FD_ALIVE] = alive,
				[INIT_FD_DIRECTORY] = directory, [INIT_FD_CGROUP] = cgroup,
				[INIT_FD_STDIN] = caller->stdin_fd, [INIT_FD_PAGES] = paths->pages_fd },
				paths->parent_cgroup, problem);
	close(take_fd(status));
	if (ret == 0)
		ret = await_init(launch, problem);
	if (ret)
		launch_close(launch);
	return ret;
}

int launch_wait_exec(struct launch *launch, int *status, struct problem *problem)
{
	struct init_report report;
	bool exec = false;
	int ret;

	*status = 126;
	/* EXEC is said before execve(); a FAILED may still follow, the pipe's end says that it ran. */
	for (;;) {
		ret = next_report(launch->status_fd, &report, problem);
		if (ret == -EPIPE && exec)
			return 0;
		if (ret == -EPIPE)
			return problem_set(problem, EPIPE, "the job's first process died");
		if (ret) {
			*status = ret == -ENOENT ? 127 : 126;
			return ret;
		}
		exec |= report.stage == INIT_STAGE_EXEC;
	}
}

void launch_close(struct launch *launch)
{
	int *fds[] = { &launch->init_pidfd, &launch->alive_fd, &launch->status_fd };

	for (size_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}
