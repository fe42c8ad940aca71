// SPDX-License-Identifier: GPL-2.0
#include "lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "faults.h"
#include "init_spec.h"
#include "lazy_spec.h"
#include "proc.h"

#ifndef CKPT_PAGES_PATH
#define CKPT_PAGES_PATH CKPT_LIB "/ckpt-pages"
#endif

#define EXIT_NO_START 124
/* A guest under emulation needs seconds where a node needs milliseconds. */
#define START_TIMEOUT_MS 60000

#define LAST_LOOK_MS 20
#define LAST_LOOKS 500

struct lazy {
	char state[PATH_MAX];
	pid_t pid;                      /* our child; 0: an earlier ckptd's */
	int pidfd;
	struct lazy_table table;
};

/* ---- what may come later ---- */

struct lazy_areas *lazy_plan_add(struct lazy_plan *plan, uint64_t id)
{
	struct lazy_areas *grown = reallocarray(plan->areas, plan->count + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	plan->areas = grown;
	grown[plan->count] = (struct lazy_areas){ .id = id };
	return &grown[plan->count++];
}

void lazy_plan_free(struct lazy_plan *plan)
{
	for (size_t i = 0; i < plan->count; i++)
		regions_free(&plan->areas[i].regions);
	free(plan->areas);
	*plan = (struct lazy_plan){ 0 };
}

int lazy_probe(struct problem *problem)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					      UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
	cleanup_close int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return problem_set(problem, errno, "the kernel has no userfaultfd for that: %s", strerror(errno));
	return 0;
}

/* ---- starting ckpt-pages ---- */

/* In the forked child. No malloc from here. */
__attribute__((noreturn)) static void exec_pages(const int fds[LAZY_FD_COUNT], char *fault)
{
	char *const arguments[] = { (char *)"ckpt-pages", NULL };
	char *const environment[] = { fault, NULL };
	int high[LAZY_FD_COUNT];
	sigset_t none;

	for (int i = LAZY_FD_SPEC; i < LAZY_FD_COUNT; i++)
		high[i] = fcntl(fds[i], F_DUPFD, 64);
	for (int i = LAZY_FD_SPEC; i < LAZY_FD_COUNT; i++)
		if (dup2(high[i], i) < 0)
			_exit(EXIT_NO_START);
	syscall(SYS_close_range, LAZY_FD_COUNT, ~0U, 0);
	close(0);
	if (open("/dev/null", O_RDWR) != 0)
		_exit(EXIT_NO_START);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(CKPT_PAGES_PATH, arguments, environment);
	_exit(EXIT_NO_START);
}

static int make_spec(const struct lazy_options *options, struct problem *problem)
{
	cleanup_free struct lazy_spec *spec = calloc(1, sizeof(*spec));
	cleanup_close int fd = memfd_create("ckpt-pages", MFD_CLOEXEC);
	ssize_t put = -1;

	if (spec && fd >= 0) {
		spec->magic = LAZY_MAGIC;
		spec->store_uid = options->store_uid;
		spec->store_gid = options->store_gid;
		spec->buffer_bytes = options->buffer_bytes;
		spec->keys = *options->keys;
		snprintf(spec->job, sizeof(spec->job), "%s", options->job);
		snprintf(spec->store, sizeof(spec->store), "%s", options->store);
		snprintf(spec->cgroup, sizeof(spec->cgroup), "%s", options->cgroup);
		put = write(fd, spec, sizeof(*spec));
		keys_wipe(&spec->keys);
	}
	if (put != (ssize_t)sizeof(*spec))
		return problem_set(problem, ENOMEM, "no memory to start ckpt-pages");
	return take_fd(fd);
}

static int make_socket(const char *images, struct problem *problem)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cleanup_close int directory = open(images, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	/* The path itself may be longer than a socket's. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" LAZY_SOCKET, directory);
	if (fd < 0 || directory < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) ||
	    listen(fd, 4))
		return problem_set(problem, errno, "cannot make %s/" LAZY_SOCKET ": %s", images, strerror(errno));
	return take_fd(fd);
}

static int make_state(const char *path, struct problem *problem)
{
	cleanup_close int fd = -1;

	/* One may be left of a restore that was tried before. */
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX))
		return problem_set(problem, errno, "cannot make %s: %s", path, strerror(errno));
	return take_fd(fd);
}

static int open_home(const char *cgroup, struct problem *problem)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? problem_set(problem, errno, "cannot open %s: %s", path, strerror(errno)) : fd;
}

/* All descriptors but the ready pipe's; or -errno. */
static int open_all(struct lazy *lazy, const struct lazy_options *options, int fds[LAZY_FD_COUNT],
		    struct problem *problem)
{
	int ret;

	fds[LAZY_FD_SPEC] = ret = make_spec(options, problem);
	if (ret >= 0)
		fds[LAZY_FD_TABLE] = ret = lazy_table_make(&lazy->table, options->map, options->plan->areas,
							   options->plan->count, problem);
	if (ret >= 0)
		fds[LAZY_FD_SOCKET] = ret = make_socket(options->images, problem);
	if (ret >= 0)
		fds[LAZY_FD_STATE] = ret = make_state(lazy->state, problem);
	if (ret >= 0)
		fds[LAZY_FD_HOME] = ret = open_home(options->parent_cgroup, problem);
	if (ret >= 0) {
		fds[LAZY_FD_DIRECTORY] = ret = open(options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (ret < 0)
			ret = problem_set(problem, errno, "cannot open %s: %s", options->directory,
					  strerror(errno));
	}
	return ret < 0 ? ret : 0;
}

static int await_ready(struct lazy *lazy, int ready, struct problem *problem)
{
	struct pollfd wait = { .fd = ready, .events = POLLIN };
	char byte = 0;
	int ret, status;

	do
		ret = poll(&wait, 1, START_TIMEOUT_MS);
	while (ret < 0 && errno == EINTR);
	if (ret > 0 && read(ready, &byte, 1) == 1 && byte == LAZY_READY)
		return 0;
	if (ret > 0 && waitpid(lazy->pid, &status, 0) == lazy->pid) {
		lazy->pid = 0;
		if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_NO_START &&
		    lazy_look(lazy, problem) == LAZY_FAILED)
			return -EIO;
	}
	return problem_set(problem, EPIPE, "%s cannot be run or died: is ckpt installed whole?", CKPT_PAGES_PATH);
}

static int fork_pages(struct lazy *lazy, const struct lazy_options *options, int fds[LAZY_FD_COUNT],
		      struct problem *problem)
{
	int pipe[2], ret = open_all(lazy, options, fds, problem);
	char fault[256];
	cleanup_close int ready = -1;

	if (ret)
		return ret;
	if (pipe2(pipe, O_CLOEXEC))
		return problem_set(problem, errno, "cannot make a pipe: %s", strerror(errno));
	ready = pipe[0];
	fds[LAZY_FD_READY] = pipe[1];
	snprintf(fault, sizeof(fault), "CKPT_FAULT=%s", getenv("CKPT_FAULT") ?: "");
	lazy->pid = fork();
	if (lazy->pid == 0)
		exec_pages(fds, faults_armed ? fault : NULL);
	close(fds[LAZY_FD_READY]);
	fds[LAZY_FD_READY] = -1;
	if (lazy->pid < 0) {
		lazy->pid = 0;
		return problem_set(problem, errno, "cannot fork: %s", strerror(errno));
	}
	lazy->pidfd = pidfd_of(lazy->pid);
	/* The lock is its alone. */
	close(fds[LAZY_FD_STATE]);
	fds[LAZY_FD_STATE] = -1;
	return await_ready(lazy, ready, problem);
}

static struct lazy *lazy_new(const char *directory)
{
	struct lazy *lazy = calloc(1, sizeof(*lazy));

	if (lazy) {
		snprintf(lazy->state, sizeof(lazy->state), "%s/" INIT_LAZY, directory);
		lazy->pidfd = -1;
	}
	return lazy;
}

int lazy_start(struct lazy **started, const struct lazy_options *options, struct problem *problem)
{
	struct lazy *lazy = lazy_new(options->directory);
	int fds[LAZY_FD_COUNT], ret;

	memset(fds, -1, sizeof(fds));
	fds[LAZY_FD_INIT] = fcntl(options->init_pidfd, F_DUPFD_CLOEXEC, 0);
	fds[LAZY_FD_WATCH] = options->watch_fd;
	if (lazy)
		ret = fork_pages(lazy, options, fds, problem);
	else
		ret = problem_set(problem, ENOMEM, "no memory to restore lazily");
	/* The socket too: until now it would have kept what criu sends. */
	for (int i = LAZY_FD_SPEC; i < LAZY_FD_COUNT; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (ret) {
		lazy_free(lazy);
		return ret;
	}
	*started = lazy;
	return 0;
}

/* ---- looking after it ---- */

int lazy_adopt(struct lazy **adopted, const char *directory)
{
	struct lazy *lazy = lazy_new(directory);

	if (!lazy)
		return -ENOMEM;
	if (access(lazy->state, F_OK)) {
		lazy_free(lazy);
		return -ENOENT;
	}
	*adopted = lazy;
	return 0;
}

void lazy_free(struct lazy *lazy)
{
	if (!lazy)
		return;
	if (lazy->pid)
		waitpid(lazy->pid, NULL, WNOHANG);
	if (lazy->pidfd >= 0)
		close(lazy->pidfd);
	lazy_table_unmap(&lazy->table);
	free(lazy);
}

/* Nobody has it any more. */
static enum lazy_state judge(int fd, struct problem *problem)
{
	char reason[sizeof(problem->text)];
	struct stat st;
	ssize_t got;

	if (fstat(fd, &st) == 0 && st.st_nlink == 0)
		return LAZY_GIVEN;
	got = pread(fd, reason, sizeof(reason) - 1, 0);
	reason[got > 0 ? got : 0] = '\0';
	if (got <= 0)
		return LAZY_ENDED;
	problem_set(problem, EIO, "%s", reason);
	return LAZY_FAILED;
}

enum lazy_state lazy_look(struct lazy *lazy, struct problem *problem)
{
	cleanup_close int fd = open(lazy->state, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	enum lazy_state state;

	if (fd < 0)
		state = LAZY_GIVEN;
	else if (flock(fd, LOCK_EX | LOCK_NB))
		state = LAZY_GIVING;
	else
		state = judge(fd, problem);
	/* It ends with that. */
	if (state != LAZY_GIVING && lazy->pid && waitpid(lazy->pid, NULL, 0) == lazy->pid)
		lazy->pid = 0;
	return state;
}

enum lazy_state lazy_last_look(struct lazy *lazy, struct problem *problem)
{
	struct pollfd wait = { .fd = lazy->pidfd, .events = POLLIN };
	enum lazy_state state = lazy_look(lazy, problem);

	/* Its holder may end after it, and a lock has no event. */
	for (int tries = 0; tries < LAST_LOOKS && state == LAZY_GIVING; tries++) {
		poll(&wait, wait.revents ? 0 : 1, LAST_LOOK_MS);
		state = lazy_look(lazy, problem);
	}
	return state;
}

int lazy_fd(const struct lazy *lazy)
{
	return lazy->pidfd;
}

const struct lazy_table *lazy_table(const struct lazy *lazy)
{
	return lazy->table.head ? &lazy->table : NULL;
}
