// SPDX-License-Identifier: GPL-2.0
#include "criu.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "core_image.h"
#include "directory.h"
#include "faults.h"
#include "init_spec.h"
#include "image.h"
#include "proc.h"

#ifndef CKPT_PRELOAD_PATH
#define CKPT_PRELOAD_PATH CKPT_LIB "/criu-preload.so"
#endif

#ifndef CKPT_GATE_PATH
#define CKPT_GATE_PATH CKPT_LIB "/ckpt-gate"
#endif

/* criu's, for a dump. */
enum {
	PAGE_SOCKET_FD = 3,
	HOLD_FD,
	CRIU_FDS_END,
};

#define PAGE_SOCKET_TEXT "3"
#define HOLD_VARIABLE "CKPT_HOLD=4"
/* What the preloaded part says of itself, see criu_preload.c. */
#define PRELOADED "ckpt: preloaded"
#define CRIU_CACHE "/run/criu.kdat"
#define MAX_ARGUMENTS 48
/* A guest under emulation needs seconds where a node needs milliseconds. */
#define PROBE_TIMEOUT_MS 30000

/* Of the supervisor, besides criu's own; what CRIU and shells use is below. */
enum {
	EXIT_NO_START = 124,
	EXIT_NO_PROGRAM = 127,
	EXIT_SIGNAL = 128,      /* + signal */
};

/* The command line and environment of one criu, built before the fork. */
struct command {
	char *arguments[MAX_ARGUMENTS];
	size_t count;
	char ghost_limit[32];
	char fsuid[64];
	char restore[PATH_MAX + 16];
	char preload[PATH_MAX + 16];
	char adopts[32];
	char *environment[7];
	size_t variables;
	cpu_set_t cpus;         /* none: as ckptd has */
};

/* What CRIU checks unless told otherwise; said, it also writes and reads what the CPU has. */
#define CPU_CHECKS "--cpu-cap=fpu,ins"
#define RUN_NONE ((struct criu_run){ .pidfd = -1, .page_socket = -1, .hold = -1 })

static void command_add(struct command *command, const char *argument)
{
	command->arguments[command->count++] = (char *)argument;
}

static void command_set(struct command *command, const char *variable)
{
	command->environment[command->variables++] = (char *)variable;
}

static void command_add_tcp(struct command *command, const struct criu_job *job)
{
	switch (job->tcp) {
	case CRIU_TCP_NONE:
		break;
	case CRIU_TCP_CLOSE:
		command_add(command, "--tcp-close");
		command_add(command, "--skip-in-flight");
		break;
	case CRIU_TCP_ESTABLISHED:
		command_add(command, "--tcp-established");
		command_add(command, "--network-lock");
		command_add(command, job->tcp_moving ? "nftables" : "skip");
		break;
	}
}

static void command_init(struct command *command, const struct criu_job *job, const char *action)
{
	memset(command, 0, sizeof(*command));
	command_add(command, job->program);
	command_add(command, action);
	/* Before all else: /etc/criu/default.conf must not change what we ask for. */
	command_add(command, "--no-default-config");
	command_add(command, "-D");
	command_add(command, job->images);
	command_add(command, "-v2");
	command_add(command, "--manage-cgroups=ignore");
	command_add(command, "--file-locks");
	snprintf(command->ghost_limit, sizeof(command->ghost_limit), "%lu",
		 (unsigned long)job->ghost_limit);
	command_add(command, "--ghost-limit");
	command_add(command, command->ghost_limit);
	command_add_tcp(command, job);
	snprintf(command->fsuid, sizeof(command->fsuid), "CKPT_FSUID=%u:%u", job->uid, job->gid);
	snprintf(command->preload, sizeof(command->preload), "LD_PRELOAD=%s", CKPT_PRELOAD_PATH);
	command_set(command, "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
	command_set(command, command->preload);
	if (job->uid)
		command_set(command, command->fsuid);
}

/* Until the end, or until there is no room or for long nothing came: the program is then ended. */
static int read_output(int fd, pid_t pid, char *output, size_t bytes)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	size_t done = 0;
	ssize_t n = 1;
	int ready = 1;

	while (n > 0 && done < bytes - 1 && (ready = poll(&wait, 1, PROBE_TIMEOUT_MS)) > 0) {
		n = read(fd, output + done, bytes - 1 - done);
		done += n > 0 ? (size_t)n : 0;
	}
	output[done] = '\0';
	if (n > 0)
		kill(-pid, SIGKILL);
	return ready ? 0 : -ETIMEDOUT;
}

/* Runs a program and gives what it printed on both outputs. */
static int run_capture(const char *const arguments[], char *output, size_t bytes)
{
	int out[2], status, ret;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		setenv("LD_PRELOAD", CKPT_PRELOAD_PATH, 1);
		setenv("CKPT_PROBE", "1", 1);
		execvp(arguments[0], (char *const *)arguments);
		_exit(127);
	}
	close(out[1]);
	ret = pid < 0 ? -errno : read_output(out[0], pid, output, bytes);
	close(out[0]);
	if (pid < 0)
		return ret;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ret)
		return ret;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return -ENOENT;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* From 6.13 [vvar] has a second part, that every command of CRIU before 4.1 dies of. */
static int check_kernel(const struct criu_version *version, struct problem *problem)
{
	struct utsname name;
	unsigned int major = 0, minor = 0;

	if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return 0;
	if ((major > 6 || (major == 6 && minor >= 13)) &&
	    (version->major < 4 || (version->major == 4 && version->minor < 1)))
		return problem_set(problem, ENOTSUP,
				   "CRIU %s does not work on kernel %s: install CRIU 4.1 or later",
				   version->text, name.release);
	return 0;
}

int criu_probe(const char *program, struct criu_version *version, struct problem *problem)
{
	const char *const ask[] = { program, "--version", NULL };
	const char *const check[] = { program, "check", "--no-default-config", "--feature",
				      "mem_dirty_track", NULL };
	char text[4096], *found;
	int ret = run_capture(ask, text, sizeof(text));

	memset(version, 0, sizeof(*version));
	if (ret == -ENOENT)
		return problem_set(problem, ENOENT,
				   "CRIU is missing ('%s' cannot be run): install the package criu, or "
				   "set criu = in the [daemon] section", program);
	if (ret == -ETIMEDOUT)
		return problem_set(problem, ETIMEDOUT, "'%s --version' did not answer within %d s: is this "
				   "CRIU, and does its file system answer?", program,
				   PROBE_TIMEOUT_MS / 1000);
	found = strstr(text, "Version: ");
	if (!found || sscanf(found + 9, "%u.%u.%u", &version->major, &version->minor,
			     &version->patch) < 2)
		return problem_set(problem, EPROTO, "'%s --version' does not answer like CRIU, set criu = in "
				   "the [daemon] section: %.*s", program, (int)strcspn(text, "\n") > 100 ?
				   100 : (int)strcspn(text, "\n"), text);
	snprintf(version->text, sizeof(version->text), "%.*s", (int)strcspn(found + 9, "\n "),
		 found + 9);
	version->holds = strstr(text, PRELOADED) && !fault("criu.no_hold");
	if (version->major < 3 || (version->major == 3 && version->minor < 17))
		return problem_set(problem, ENOTSUP, "CRIU %s is too old: install 3.17 or later, or "
				   "set criu = in the [daemon] section", version->text);
	ret = check_kernel(version, problem);
	if (ret)
		return ret;
	/* As root: it also makes CRIU's cache of kernel features, which no user may own. */
	ret = run_capture(check, text, sizeof(text));
	if (ret == -ETIMEDOUT)
		return problem_set(problem, ETIMEDOUT, "'%s check' did not answer within %d s", program,
				   PROBE_TIMEOUT_MS / 1000);
	version->tracks_memory = ret == 0 && !fault("criu.no_soft_dirty");
	return 0;
}

/* What CRIU calls an error and goes on: its socket to us is no TCP; an iptables that is missing. */
static bool is_noise(const char *error)
{
	return strstr(error, "TCP_CORK") || strstr(error, "TCP_NODELAY") || strstr(error, "exited, status=");
}

/* The first line of CRIU's that is one; NULL: none is. */
static char *find_error(char *text)
{
	char *save, *line, *error;

	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		error = strstr(line, "Error (");
		if (error && !is_noise(error))
			return error;
	}
	return NULL;
}

int criu_check_cpu(const char *program, const char *images, struct problem *problem)
{
	const char *const check[] = { program, "cpuinfo", "check", "--no-default-config", CPU_CHECKS, "-D", images, NULL };
	char text[4096], *error;
	int ret = run_capture(check, text, sizeof(text));

	if (ret == 0)
		return 0;
	error = find_error(text);
	if (ret != -EIO || !error)
		return problem_set(problem, ret == -EIO ? EPROTO : -ret, "'%s cpuinfo check' does not say whether this node's "
				   "CPU fits: %s", program, ret == -EIO ? "it gave no reason" : strerror(-ret));
	return problem_set(problem, ENOTSUP, "this node's CPU differs too much from the one that the job ran on, says criu: %s. "
			   "Restore it on a node of the same type", error);
}

/* --network-lock skip; in 3.17 and 3.18 CRIU always needs iptables or nft for connections. */
static bool can_skip_lock(const struct criu_version *version)
{
	return version->major > 3 || version->minor >= 19;
}

static int check_established(const struct criu_version *version, struct problem *problem)
{
	if (can_skip_lock(version))
		return 0;
	return problem_set(problem, ENOTSUP, "it has TCP connections, which CRIU %s cannot move: install CRIU "
			   "3.19 or later, or set tcp = close in its class if the program connects again by "
			   "itself", version->text);
}

int criu_check_tcp(struct criu_job *job, struct problem *problem)
{
	cleanup_free pid_t *pids = NULL;
	struct tcp_found found = { 0 };
	size_t count;
	int ret = cgroup_pids(job->cgroup, &pids, &count, problem);

	if (ret == 0 && count)
		ret = tcp_check(pids, count, job->tcp_policy, &found, problem);
	job->tcp = job->tcp_policy == TCP_POLICY_CLOSE ? CRIU_TCP_CLOSE :
		   found.connections ? CRIU_TCP_ESTABLISHED : CRIU_TCP_NONE;
	job->tcp_moving = found.moving;
	if (ret == 0 && job->tcp == CRIU_TCP_ESTABLISHED)
		ret = check_established(&job->version, problem);
	return ret;
}

static const char *const tcp_names[] = {
	[CRIU_TCP_CLOSE] = "close", [CRIU_TCP_ESTABLISHED] = "established",
};

const char *criu_tcp_name(enum criu_tcp tcp)
{
	return tcp_names[tcp];
}

int criu_tcp_parse(const char *name, const struct criu_version *version, enum criu_tcp *tcp,
		   struct problem *problem)
{
	*tcp = !name ? CRIU_TCP_NONE : !strcmp(name, tcp_names[CRIU_TCP_CLOSE]) ? CRIU_TCP_CLOSE :
	       CRIU_TCP_ESTABLISHED;
	return *tcp == CRIU_TCP_ESTABLISHED ? check_established(version, problem) : 0;
}

bool criu_wide_messages(const struct criu_version *version)
{
	return version->major > 4 || (version->major == 4 && version->minor >= 2);
}

static int write_procs(const char *cgroup)
{
	char path[PATH_MAX];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ret = fd >= 0 && write(fd, "0", 1) == 1 ? 0 : -errno;
	if (fd >= 0)
		close(fd);
	return ret;
}

__attribute__((noreturn)) static void exec_criu(const struct criu_job *job, struct command *command,
						const int fds[2], bool into_cgroup)
{
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	if (into_cgroup && write_procs(job->cgroup))
		_exit(EXIT_NO_START);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	for (int i = 0; i < CRIU_FDS_END - PAGE_SOCKET_FD; i++)
		if (fds[i] < 0 || dup2(fds[i], PAGE_SOCKET_FD + i) < 0)
			close(PAGE_SOCKET_FD + i);
	syscall(SYS_close_range, CRIU_FDS_END, ~0U, 0);
	if (setgroups(job->group_count, job->groups))
		_exit(EXIT_NO_START);
	if (CPU_COUNT(&command->cpus))
		sched_setaffinity(0, sizeof(command->cpus), &command->cpus);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* What is ignored stays so over exec, and CRIU ends its own helpers with SIGTERM. */
	signal(SIGTERM, SIG_DFL);
	execvpe(job->program, command->arguments, command->environment);
	_exit(EXIT_NO_PROGRAM);
}

/* What a supervisor holds while criu works; everything else is closed. */
enum {
	HELD_LOCK = 3,
	HELD_FREEZE,
	HELD_INIT,
	HELD_IMAGES,
	HELD_END,
};

static void keep_descriptors(int lock, int freeze, int init, int images)
{
	int from[] = { lock, freeze, init, images };

	for (int i = 0; i < HELD_END - HELD_LOCK; i++)
		from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, HELD_END);
	for (int i = 0; i < HELD_END - HELD_LOCK; i++)
		dup2(from[i], HELD_LOCK + i);
	syscall(SYS_close_range, HELD_END, ~0U, 0);
}

/*
 * criu was killed with the job in its hands, perhaps.  Tasks that it had stopped run on in code that it
 * put into them: what they do, and how they end, is not the program's doing.
 */
static void stop_damaged(bool ckptd_lives)
{
	struct pollfd gone = { .fd = HELD_INIT, .events = POLLIN };

	/* ckptd ends them, and tells why. */
	if (write(HELD_FREEZE, "1", 1) == 1 && ckptd_lives)
		return;
	syscall(SYS_pidfd_send_signal, HELD_INIT, SIGKILL, NULL, 0);
	while (poll(&gone, 1, -1) < 0 && errno == EINTR)
		;
	unlinkat(HELD_IMAGES, "../" INIT_EXIT, 0);
}

/*
 * The process that criu is a child of; see the header.  A criu that fails has let go of the job, which
 * may run, when ckptd says so: another criu may be to take its place.  After one that was killed by a
 * signal it must not.
 */
__attribute__((noreturn)) static void supervise(const struct criu_job *job, struct command *command,
						const int fds[2], bool restoring, pid_t ckptd)
{
	char path[PATH_MAX];
	struct stat cache;
	int lock, freeze, images, status = 0;
	pid_t pid;

	setsid();
	prctl(PR_SET_NAME, "ckptd-criu");
	signal(SIGTERM, SIG_IGN);
	snprintf(path, sizeof(path), "%s/lock", job->images);
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/cgroup.freeze", job->cgroup);
	freeze = open(path, O_WRONLY | O_CLOEXEC);
	images = open(job->images, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || freeze < 0 || images < 0 || flock(lock, LOCK_EX) ||
	    setns(job->init_pidfd, CLONE_NEWPID | CLONE_NEWNS))
		_exit(EXIT_NO_START);
	pid = fork();
	if (pid == 0)
		exec_criu(job, command, fds, restoring);
	/* Keep only what is ours, so that no pipe of another job hangs on this process. */
	keep_descriptors(lock, freeze, job->init_pidfd, images);
	while (pid < 0 || (waitpid(pid, &status, 0) < 0 && errno == EINTR))
		if (pid < 0)
			_exit(EXIT_NO_START);
	if (lstat(CRIU_CACHE, &cache) == 0 && cache.st_uid != 0)
		unlink(CRIU_CACHE);
	if (WIFSIGNALED(status))
		stop_damaged(getppid() == ckptd);
	else if (getppid() != ckptd && write(HELD_FREEZE, "0", 1) != 1)
		_exit(EXIT_NO_START);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status));
}

static int start(struct criu_run *run, const struct criu_job *job, struct command *command,
		 const int fds[2], bool restoring, struct problem *problem)
{
	pid_t ckptd = getpid(), pid = fork();

	if (pid < 0)
		return problem_set(problem, errno, "cannot fork for criu: %s", strerror(errno));
	if (pid == 0) {
		/* criu's, and the supervisor's own, take low numbers: these go out of the way. */
		int moved[] = { fds[0] < 0 ? -1 : fcntl(fds[0], F_DUPFD_CLOEXEC, 64),
				fds[1] < 0 ? -1 : fcntl(fds[1], F_DUPFD_CLOEXEC, 64) };

		supervise(job, command, moved, restoring, ckptd);
	}
	run->supervisor = pid;
	run->pidfd = pidfd_of(pid);
	return 0;
}

static void dump_command(struct command *command, const struct criu_job *job, char *root, size_t bytes)
{
	snprintf(root, bytes, "%d", INIT_ROOT_PID);
	command_init(command, job, "dump");
	command_add(command, "-o");
	command_add(command, "dump.log");
	command_add(command, "-t");
	command_add(command, root);
	/* Tasks end only after the checkpoint is committed, and by our hand. */
	command_add(command, "--leave-running");
	/* Writes CRIU_CPU_IMAGE. */
	command_add(command, CPU_CHECKS);
	command_add(command, "--freeze-cgroup");
	command_add(command, job->cgroup);
	if (job->version.tracks_memory) {
		command_add(command, "--track-mem");
		command_add(command, "--prev-images-dir");
		command_add(command, "parent-facts");
	}
	command_add(command, "--page-server");
	command_add(command, "--ps-socket");
	command_add(command, PAGE_SOCKET_TEXT);
}

static void close_pair(const int pair[2])
{
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
}

static int dump_start(struct criu_run *run, const struct criu_job *job, bool hold, struct problem *problem)
{
	int pages[2], held[2] = { -1, -1 }, ret;
	struct command command;
	char root[16];

	*run = RUN_NONE;
	dump_command(&command, job, root, sizeof(root));
	if (hold)
		command_set(&command, HOLD_VARIABLE);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pages))
		return problem_set(problem, errno, "cannot make a socket pair: %s", strerror(errno));
	if (hold && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, held))
		ret = problem_set(problem, errno, "cannot make a socket pair: %s", strerror(errno));
	else
		ret = start(run, job, &command, (const int[]){ pages[1], held[1] }, false, problem);
	if (ret == 0) {
		run->page_socket = take_fd(pages[0]);
		run->hold = take_fd(held[0]);
		run->tcp = job->tcp;
		run->tcp_moving = job->tcp_moving;
	}
	close_pair(pages);
	close_pair(held);
	return ret;
}

/* That it has started; or that it ended before, or does not stand still: it is not the one that was probed. */
static int await_hold(struct criu_run *run, const struct criu_job *job, int timeout_ms, struct problem *problem)
{
	struct pollfd wait[] = { { .fd = run->hold, .events = POLLIN },
				 { .fd = run->page_socket, .events = POLLIN } };
	char byte;
	int ready, ret;

	do
		ready = poll(wait, 2, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready > 0 && wait[0].revents && recv(run->hold, &byte, 1, 0) == 1)
		return 0;
	ret = criu_wait(run, job, "dump.log", ready ? timeout_ms : 0, problem);
	return ret ? ret : problem_set(problem, EPROTO, "criu began before it was to: was it replaced? Restart ckptd");
}

int criu_dump_prepare(struct criu_run *run, const struct criu_job *job, int timeout_ms, struct problem *problem)
{
	char parent[PATH_MAX];
	int ret = directory_make_empty(job->images, problem);

	*run = RUN_NONE;
	/* CRIU takes pages for unchanged only if there is an earlier dump; this is all it reads of it. */
	snprintf(parent, sizeof(parent), "%s/parent-facts", job->images);
	if (ret == 0 && job->version.tracks_memory)
		ret = inventory_write(parent, problem);
	if (ret || !job->version.holds)
		return ret;
	ret = dump_start(run, job, true, problem);
	return ret ? ret : await_hold(run, job, timeout_ms, problem);
}

int criu_dump_go(struct criu_run *run, const struct criu_job *job, int timeout_ms, struct problem *problem)
{
	/* The job's connections may be others, now that it stands still, than those that criu was started for. */
	if (run->supervisor && (run->tcp != job->tcp || run->tcp_moving != job->tcp_moving))
		criu_dump_cancel(run, job, timeout_ms);
	if (!run->supervisor)
		return dump_start(run, job, false, problem);
	/* If it has ended, that is seen, and told, when it is waited for. */
	send(run->hold, "", 1, MSG_NOSIGNAL);
	return 0;
}

void criu_dump_cancel(struct criu_run *run, const struct criu_job *job, int timeout_ms)
{
	struct problem unheard;

	if (run->supervisor)
		criu_wait(run, job, "dump.log", timeout_ms, &unheard);
}

int criu_restore_start(struct criu_run *run, const struct criu_job *job, struct problem *problem)
{
	struct command command;
	bool adopts;
	int ret;

	*run = RUN_NONE;
	ret = core_image_adopts(job->images, INIT_ROOT_PID, &adopts, problem);
	if (ret)
		return ret;
	command_init(&command, job, "restore");
	snprintf(command.restore, sizeof(command.restore), "CKPT_RESTORE=%s", job->images);
	command_set(&command, command.restore);
	snprintf(command.adopts, sizeof(command.adopts), "CKPT_ADOPTS=%d", INIT_ROOT_PID);
	if (adopts)
		command_set(&command, command.adopts);
	command_add(&command, "-o");
	command_add(&command, "restore.log");
	if (sched_getaffinity(job->caller, sizeof(command.cpus), &command.cpus))
		CPU_ZERO(&command.cpus);
	command_add(&command, "-d");
	if (job->lazy) {
		command_add(&command, "--lazy-pages");
		command_add(&command, "--action-script");
		command_add(&command, CKPT_GATE_PATH);
	}
	return start(run, job, &command, (const int[]){ -1, -1 }, true, problem);
}

/* CRIU's advice is for those who call it themselves. */
static const char *remedy_of(const char *errors)
{
	static const struct {
		const char *words;
		const char *remedy;
	} known[] = {
		{ "External socket", "the program is connected by a unix socket to a process outside of the "
		  "job, a service of this node perhaps: let it close that" },
		/* SO_PASSCRED, which from 6.16 on only unix sockets have. */
		{ "Can't get 1:16 opt", "CRIU before 4.2 cannot save network sockets on kernel 6.16 and later: "
		  "install CRIU 4.2 or later" },
		{ "nftables", "the job has sent something by TCP that was not taken yet, and the network can only be "
		  "held with nft: install nftables, or let the program wait for the answer" },
		{ "Address already in use", "a TCP port of the job is used by another program of this node: restore "
		  "it on another node, or when that has ended" },
		{ "belong to the target user namespace", "the program made itself a container (a user namespace: Apptainer, "
		  "unshare): run it without" },
		{ "nested pid namespace", "the program made a PID namespace: run it without" },
		{ "has bad size", "the file was written since the checkpoint: put it back as it was then (if it only grew, "
		  "'truncate -s' cuts it), and name its directory in the class's capture" },
		{ "increase limit", "the program has a deleted file open that is too large: set ghost_limit = "
		  "in its class" },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcasestr(errors, known[i].words))
			return known[i].remedy;
	return NULL;
}

/* It writes its log from its first step on. Before that it has not touched the job. */
static bool has_begun(const struct criu_job *job, const char *log)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", job->images, log);
	return access(path, F_OK) == 0;
}

/* The first and the last lines that CRIU calls errors. */
static void read_errors(const struct criu_job *job, const char *log, char *text, size_t bytes)
{
	char path[PATH_MAX], line[512], last[512] = "";
	cleanup_fclose FILE *file = NULL;
	size_t used = 0;
	int lines = 0;

	snprintf(path, sizeof(path), "%s/%s", job->images, log);
	file = fopen(path, "re");
	text[0] = '\0';
	while (file && fgets(line, sizeof(line), file)) {
		char *error = strstr(line, "Error (");

		if (!error || is_noise(error))
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (line[strlen(line) - 1] == '.')
			line[strlen(line) - 1] = '\0';
		if (lines++ < 3 && used < bytes)
			used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? "; " : "",
						 error);
		else
			snprintf(last, sizeof(last), "%s", error);
	}
	if (*last && used < bytes)
		snprintf(text + used, bytes - used, "; … %s", last);
}

/* The supervisor's child; 0: it has none any more. */
static pid_t supervised(const struct criu_run *run)
{
	char path[64];
	cleanup_fclose FILE *children = NULL;
	pid_t child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", run->supervisor, run->supervisor);
	children = fopen(path, "re");
	return children && fscanf(children, "%d", &child) == 1 ? child : 0;
}

static bool stops_soon(pid_t pid)
{
	for (int tries = 0; tries < 100; tries++) {
		if (proc_state(pid) == 'T')
			return true;
		poll(NULL, 0, 20);
	}
	return false;
}

/* Whether anybody has hold of the job's tasks. */
static bool traced(const struct criu_job *job)
{
	cleanup_free pid_t *pids = NULL;
	size_t count;

	if (cgroup_pids(job->cgroup, &pids, &count, NULL))
		return true;
	for (size_t i = 0; i < count; i++)
		if (proc_tracer(pids[i]))
			return true;
	return false;
}

/*
 * The job is frozen, so only criu changes who traces its tasks, and a criu that is stopped does not.
 * It has hold of all of them from before it changes anything until it has put everything back.
 */
static bool kill_supervised(const struct criu_run *run, const struct criu_job *job)
{
	pid_t criu = supervised(run);
	bool held;

	if (!criu)
		return true;
	kill(criu, SIGSTOP);
	held = !stops_soon(criu) || traced(job);
	kill(criu, SIGKILL);
	return held;
}

/* What the supervisor's exit status says. */
static int judge(const struct criu_job *job, const char *log, int status, struct problem *problem)
{
	const char *what = *log == 'd' ? "cannot save the job" : "cannot restore the job";
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_NO_START;
	const char *remedy;
	char errors[700];

	if (code == 0)
		return 0;
	/* One that stands still goes with the job's namespace, when the program ends just then. */
	if (code > EXIT_SIGNAL && !has_begun(job, log))
		return problem_set(problem, EAGAIN, "criu was killed by signal %d before it began", code - EXIT_SIGNAL);
	if (code > EXIT_SIGNAL)
		return problem_set(problem, EOWNERDEAD, "criu was killed by signal %d", code - EXIT_SIGNAL);
	if (code == EXIT_NO_PROGRAM)
		return problem_set(problem, ENOENT, "%s cannot be run: install the package criu, or set criu = "
				   "in the [daemon] section", job->program);
	read_errors(job, log, errors, sizeof(errors));
	remedy = remedy_of(errors);
	return problem_set(problem, EIO, "criu %s: %s%s%s", what, *errors ? errors : code == EXIT_NO_START ?
			   "it cannot be started in the job's namespaces: ckptd lacks descriptors or memory, or the job has ended" : "it does not say why",
			   remedy ? ". " : "", remedy ? remedy : "");
}

int criu_wait(struct criu_run *run, const struct criu_job *job, const char *log, int timeout_ms,
	      struct problem *problem)
{
	struct pollfd wait = { .fd = run->pidfd, .events = POLLIN };
	bool held = false;
	int ready, status = 0;

	if (run->page_socket >= 0)
		close(run->page_socket);
	if (run->hold >= 0)
		close(run->hold);
	do
		ready = poll(&wait, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready == 0)
		held = kill_supervised(run, job);
	while (waitpid(run->supervisor, &status, 0) < 0 && errno == EINTR)
		;
	close(run->pidfd);
	*run = RUN_NONE;
	if (ready == 0)
		return problem_set(problem, held ? EOWNERDEAD : ETIMEDOUT,
				   "criu did not finish within criu_timeout and was killed");
	return judge(job, log, status, problem);
}

int criu_wait_orphan(const char *directory, int timeout_ms, struct problem *problem)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	int waited = 0;

	snprintf(path, sizeof(path), "%s/lock", directory);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return 0;
	/* flock() has no timeout and no event: this is rare and short. */
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (waited >= timeout_ms)
			return problem_set(problem, ETIMEDOUT, "a criu of an earlier ckptd is still at work");
		poll(NULL, 0, 50);
		waited += 50;
	}
	return 0;
}
