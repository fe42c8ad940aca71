// SPDX-License-Identifier: GPL-2.0
/*
 * A job that holds one of each thing that the kernel keeps for a process, and looks at all of them in
 * each step: objects STEPS.  It runs in /tmp/objects, which must be its own.  Prints "step N" for each
 * step and at last "ok"; what is wrong is told at once, and ends it with 1.
 *
 * Of the clocks it expects what CLOCK_MONOTONIC and its timers are after a restore: they go on where
 * they stood, as if the time between had not been.  What saving and restoring took passes on the clock
 * and not for the timers, which are late by that much.  How often the wall clock went on without it,
 * it tells on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_MS 50
/* A step may wait for the processor, or stand still while it is saved. */
#define SLACK_MS 60000
#define AWAY_MS 3000
/* Saving and restoring it takes no longer. */
#define MOVE_MS 30000

static unsigned int now;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "objects: FAILED in step %u: ", now);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (errno: %s)\n", strerror(errno));
	exit(1);
}

static void expect(bool good, const char *what)
{
	if (!good)
		fail("%s", what);
}

static int need(int value, const char *what)
{
	if (value < 0)
		fail("%s", what);
	return value;
}

static bool readable(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, 0) == 1;
}

/* ---- file locks: another process tries to get them ---- */

static int locked_flock, locked_posix, locked_ofd;

static int lock_file(const char *name)
{
	int fd = need(open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), name);

	need(ftruncate(fd, 4096), name);
	return fd;
}

static void locks_begin(void)
{
	struct flock part = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20 };

	locked_flock = lock_file("lock.flock");
	locked_posix = lock_file("lock.posix");
	locked_ofd = lock_file("lock.ofd");
	need(flock(locked_flock, LOCK_EX), "flock");
	need(fcntl(locked_posix, F_SETLK, &part), "F_SETLK");
	need(fcntl(locked_ofd, F_OFD_SETLK, &part), "F_OFD_SETLK");
}

static bool is_denied(const char *name, int command, off_t start)
{
	struct flock part = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };
	int fd = open(name, O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return false;
	ret = command == LOCK_EX ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, command, &part);
	close(fd);
	return ret < 0 && (errno == EAGAIN || errno == EACCES);
}

/* A child of a fork shares no POSIX locks. */
static void locks_check(void)
{
	int status;
	pid_t pid = need(fork(), "fork");

	if (pid == 0)
		_exit(!is_denied("lock.flock", LOCK_EX, 0) << 0 | !is_denied("lock.posix", F_SETLK, 15) << 1 |
		      !is_denied("lock.ofd", F_OFD_SETLK, 15) << 2 | is_denied("lock.posix", F_SETLK, 5) << 3);
	expect(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "the child that tries locks");
	if (WEXITSTATUS(status))
		fail("locks: 1 flock, 2 POSIX, 4 OFD are not held, 8 too much is: %d", WEXITSTATUS(status));
}

/* ---- files that have no name any more, or another one ---- */

static int unlinked, appended, directory;

static void files_begin(void)
{
	unlinked = need(open("unlinked", O_RDWR | O_CREAT | O_CLOEXEC, 0640), "unlinked");
	need((int)write(unlinked, "first", 5), "write");
	need(unlink("unlinked"), "unlink");
	appended = need(open("appended", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600), "appended");
	directory = need(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "directory");
}

static void files_check(void)
{
	char text[6] = "";
	struct stat st;

	expect(pread(unlinked, text, 5, 0) == 5 && !strcmp(text, "first"), "the unlinked file's beginning");
	expect(fstat(unlinked, &st) == 0 && st.st_nlink == 0 && st.st_size == 5 + now - 1 &&
	       (st.st_mode & 0777) == 0640, "the unlinked file's size, mode and links");
	expect(lseek(unlinked, 0, SEEK_CUR) == st.st_size, "the unlinked file's position");
	need((int)write(unlinked, "x", 1), "write");
	expect(fstat(appended, &st) == 0 && st.st_size == now - 1, "the appended file's size");
	need((int)write(appended, "y", 1), "write");
	expect(fcntl(appended, F_GETFL) & O_APPEND, "O_APPEND");
	expect(fcntl(appended, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC");
	expect(faccessat(directory, "appended", F_OK, 0) == 0, "the directory's descriptor");
}

/* ---- inotify ---- */

static int watcher, watch;

static void inotify_begin(void)
{
	watcher = need(inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify");
	need(mkdir("watched", 0700), "watched");
	watch = need(inotify_add_watch(watcher, "watched", IN_CREATE | IN_DELETE), "watch");
}

static void inotify_check(void)
{
	char events[4096] __attribute__((aligned(8)));
	const struct inotify_event *event = (const void *)events;

	need(close(need(open("watched/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "watched/new")), "close");
	expect(readable(watcher) && read(watcher, events, sizeof(events)) > 0 && event->wd == watch &&
	       event->mask == IN_CREATE && !strcmp(event->name, "new"), "inotify's word about a new file");
	need(unlink("watched/new"), "unlink");
	expect(read(watcher, events, sizeof(events)) > 0 && event->mask == IN_DELETE, "inotify's word about its end");
}

/* ---- time ---- */

static int timer_descriptor, late;
static timer_t posix_timer;
static uint64_t ticks;
static int64_t monotonic_ms, boot_ms, real_ms, timers_began_ms;
static volatile sig_atomic_t alarms, posix_alarms;
static unsigned int absences;

static int64_t clock_ms(clockid_t id)
{
	struct timespec time;

	clock_gettime(id, &time);
	return time.tv_sec * 1000ll + time.tv_nsec / 1000000;
}

static void count_alarm(int number)
{
	if (number == SIGALRM)
		alarms++;
	else
		posix_alarms++;
}

static void time_begin(void)
{
	struct itimerspec period = { { 0, PERIOD_MS * 1000000 }, { 0, PERIOD_MS * 1000000 } };
	struct itimerspec far = { { 0, 0 }, { 3600, 0 } };
	struct itimerval once = { .it_value = { 100000, 0 } };
	struct itimerval old = { { 0, PERIOD_MS * 1000 }, { 0, PERIOD_MS * 1000 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1 };

	signal(SIGALRM, count_alarm);
	signal(SIGRTMIN + 1, count_alarm);
	timer_descriptor = need(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd");
	late = need(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd");
	need(timer_create(CLOCK_MONOTONIC, &event, &posix_timer), "timer_create");
	timers_began_ms = monotonic_ms = clock_ms(CLOCK_MONOTONIC);
	boot_ms = clock_ms(CLOCK_BOOTTIME);
	real_ms = clock_ms(CLOCK_REALTIME);
	need(timerfd_settime(timer_descriptor, 0, &period, NULL), "timerfd_settime");
	need(timerfd_settime(late, 0, &far, NULL), "timerfd_settime");
	need(timer_settime(posix_timer, 0, &period, NULL), "timer_settime");
	need(setitimer(ITIMER_REAL, &old, NULL), "setitimer");
	need(setitimer(ITIMER_PROF, &once, NULL), "setitimer");
}

static void clocks_check(void)
{
	int64_t monotonic = clock_ms(CLOCK_MONOTONIC), boot = clock_ms(CLOCK_BOOTTIME), real = clock_ms(CLOCK_REALTIME);

	if (monotonic < monotonic_ms || monotonic > monotonic_ms + SLACK_MS)
		fail("CLOCK_MONOTONIC went from %lld to %lld ms", (long long)monotonic_ms, (long long)monotonic);
	if (boot < boot_ms || boot > boot_ms + SLACK_MS)
		fail("CLOCK_BOOTTIME went from %lld to %lld ms", (long long)boot_ms, (long long)boot);
	if ((real - real_ms) - (monotonic - monotonic_ms) > AWAY_MS)
		fprintf(stderr, "objects: step %u: the wall clock went on by %lld ms more, absence %u\n", now,
			(long long)((real - real_ms) - (monotonic - monotonic_ms)), ++absences);
	monotonic_ms = monotonic;
	boot_ms = boot;
	real_ms = real;
}

/* On time, and after a restore late, but never early. */
static void timers_check(void)
{
	int64_t elapsed = clock_ms(CLOCK_MONOTONIC) - timers_began_ms, late_ms;
	struct itimerspec left, armed;
	struct itimerval once;
	uint64_t count = 0;

	if (read(timer_descriptor, &count, sizeof(count)) == sizeof(count))
		ticks += count;
	late_ms = elapsed - (int64_t)ticks * PERIOD_MS;
	if (late_ms < -4 * PERIOD_MS || late_ms > 4 * PERIOD_MS + absences * MOVE_MS)
		fail("after %lld ms and %u absences a timerfd of %d ms has told %llu times", (long long)elapsed,
		     absences, PERIOD_MS, (unsigned long long)ticks);
	expect(timerfd_gettime(late, &left) == 0, "timerfd_gettime");
	late_ms = elapsed + left.it_value.tv_sec * 1000 - 3600000;
	if (late_ms < -2000 || late_ms > 2000 + absences * MOVE_MS)
		fail("after %lld ms and %u absences a timerfd of an hour has %lld s left", (long long)elapsed, absences,
		     (long long)left.it_value.tv_sec);
	expect(getitimer(ITIMER_PROF, &once) == 0 && once.it_value.tv_sec > 90000, "a timer that fires once");
	expect(timer_gettime(posix_timer, &armed) == 0 && armed.it_interval.tv_nsec == PERIOD_MS * 1000000,
	       "the POSIX timer is armed");
	expect(now < 20 || (alarms > 2 && posix_alarms > 2), "timers that send signals have sent some");
}

/* Each must tell again after each restore. */
static void alarms_check(void)
{
	static int seen_alarms, seen_posix;
	static int64_t since_ms;

	if (alarms != seen_alarms && posix_alarms != seen_posix) {
		seen_alarms = alarms;
		seen_posix = posix_alarms;
		since_ms = monotonic_ms;
	}
	expect(!since_ms || monotonic_ms - since_ms < SLACK_MS, "timers that send signals still do");
}

/* ---- eventfd, signalfd, epoll, pipes, sockets ---- */

static int counter, signals, poller, pipes[2], pair[2], datagrams[2];

static void descriptors_begin(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 0x1122334455667788 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = need(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd");
	counter = need(eventfd(7, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
	poller = need(epoll_create1(EPOLL_CLOEXEC), "epoll");
	need(pipe2(pipes, O_CLOEXEC), "pipe");
	need(fcntl(pipes[1], F_SETPIPE_SZ, 1 << 17), "F_SETPIPE_SZ");
	need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
	need(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagrams), "socketpair");
	need(epoll_ctl(poller, EPOLL_CTL_ADD, pipes[0], &event), "epoll_ctl");
}

/* What each step leaves behind, the next must find. */
static void descriptors_fill(void)
{
	uint64_t add = now;
	char text[32];
	size_t length = (size_t)snprintf(text, sizeof(text), "%u", now);
	union sigval value = { .sival_int = (int)now };

	need((int)write(counter, &add, sizeof(add)), "eventfd");
	need((int)write(pipes[1], text, length), "pipe");
	need((int)write(pair[0], text, length), "socket");
	need((int)write(datagrams[0], text, length), "socket");
	need((int)write(datagrams[0], text, length), "socket");
	need(kill(getpid(), SIGUSR1), "kill");
	need(sigqueue(getpid(), SIGRTMIN + 3, value), "sigqueue");
}

static void expect_text(int fd, const char *what)
{
	char text[32] = "", wanted[32];

	snprintf(wanted, sizeof(wanted), "%u", now - 1);
	if (read(fd, text, sizeof(text) - 1) < 1 || strcmp(text, wanted))
		fail("%s held '%s', expected '%s'", what, text, wanted);
}

static void descriptors_check(void)
{
	struct signalfd_siginfo info;
	struct epoll_event event;
	uint64_t count = 0;

	expect(read(counter, &count, sizeof(count)) == sizeof(count) && count == now - 1 + (now == 2 ? 7 : 0),
	       "the eventfd's number");
	expect(epoll_wait(poller, &event, 1, 0) == 1 && event.data.u64 == 0x1122334455667788, "epoll");
	expect(fcntl(pipes[0], F_GETPIPE_SZ) == 1 << 17, "the pipe's size");
	expect_text(pipes[0], "the pipe");
	expect_text(pair[1], "the unix socket");
	expect_text(datagrams[1], "the first datagram");
	expect_text(datagrams[1], "the second datagram");
	expect(epoll_wait(poller, &event, 1, 0) == 0, "epoll, of an empty pipe");
	expect(read(signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1, "the waiting SIGUSR1");
	expect(read(signals, &info, sizeof(info)) == sizeof(info) && (int)info.ssi_signo == SIGRTMIN + 3 &&
	       info.ssi_int == (int)now - 1, "the queued signal, with its number");
}

/* ---- memory that has a descriptor or an id ---- */

static int memfd, segment, semaphores, queue;
static volatile unsigned int *memfd_at, *segment_at;

struct message {
	long type;
	char text[32];
};

static void shared_begin(void)
{
	memfd = need(memfd_create("objects", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd");
	need(ftruncate(memfd, 8192), "ftruncate");
	need(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "F_ADD_SEALS");
	memfd_at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	segment = need(shmget(0x1234, 8192, IPC_CREAT | IPC_EXCL | 0600), "shmget");
	segment_at = shmat(segment, NULL, 0);
	expect(memfd_at != MAP_FAILED && segment_at != (void *)-1, "shared memory");
	semaphores = need(semget(0x1235, 3, IPC_CREAT | IPC_EXCL | 0600), "semget");
	need(semctl(semaphores, 1, SETVAL, 5), "SETVAL");
	queue = need(msgget(0x1236, IPC_CREAT | IPC_EXCL | 0600), "msgget");
}

static void shared_fill(void)
{
	struct message message = { .type = 9 };

	memfd_at[1024] = segment_at[1024] = now;
	snprintf(message.text, sizeof(message.text), "%u", now);
	need(msgsnd(queue, &message, sizeof(message.text), 0), "msgsnd");
}

static void shared_check(void)
{
	struct message message = { .type = 0 };
	unsigned int word = 0;

	expect(memfd_at[1024] == now - 1 && pread(memfd, &word, sizeof(word), 4096) == sizeof(word) && word == now - 1,
	       "the memfd's content");
	expect(fcntl(memfd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW), "the memfd's seals");
	expect(segment_at[1024] == now - 1 && shmget(0x1234, 0, 0) == segment, "the shared segment");
	expect(semctl(semget(0x1235, 0, 0), 1, GETVAL) == 5, "the semaphore");
	expect(msgrcv(msgget(0x1236, 0), &message, sizeof(message.text), 9, IPC_NOWAIT) > 0 &&
	       atoi(message.text) == (int)now - 1, "the message");
}

/* ---- what the process is ---- */

static void self_begin(void)
{
	struct rlimit files = { 200, 300 };
	need(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
	need(setpriority(PRIO_PROCESS, 0, 3), "setpriority");
	need(prctl(PR_SET_NAME, "objects job"), "PR_SET_NAME");
	need(prctl(PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER");
	umask(027);
}

static void self_check(void)
{
	struct rlimit files;
	char name[16] = "", directory_name[64] = "";
	int reaper = 0;

	expect(getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur == 200 && files.rlim_max == 300, "limits");
	expect(getpriority(PRIO_PROCESS, 0) == 3, "the nice value");
	expect(prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "objects job"), "the name");
	expect(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper, "PR_SET_CHILD_SUBREAPER");
	expect(umask(027) == 027, "the umask");
	expect(getcwd(directory_name, sizeof(directory_name)) && !strcmp(directory_name, "/tmp/objects"),
	       "the working directory");
}

static void check_all(void)
{
	locks_check();
	files_check();
	inotify_check();
	clocks_check();
	timers_check();
	alarms_check();
	descriptors_check();
	shared_check();
	self_check();
}

int main(int argc, char **argv)
{
	struct timespec pause = { 0, PERIOD_MS * 1000000 };
	unsigned int steps = argc == 2 ? (unsigned int)atoi(argv[1]) : 0;

	if (!steps) {
		fprintf(stderr, "usage: objects STEPS\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	need(mkdir("/tmp/objects", 0700), "/tmp/objects");
	need(chdir("/tmp/objects"), "/tmp/objects");
	self_begin();
	locks_begin();
	files_begin();
	inotify_begin();
	descriptors_begin();
	shared_begin();
	time_begin();
	for (now = 1; now <= steps; now++) {
		if (now > 1)
			check_all();
		else
			need((int)(write(unlinked, "x", 1) + write(appended, "y", 1)), "write");
		descriptors_fill();
		shared_fill();
		printf("step %u\n", now);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	printf("ok\n");
	return 0;
}
