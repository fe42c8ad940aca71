// SPDX-License-Identifier: GPL-2.0
/* Each command takes its struct as the envelope says, and each wrong value has its error. */
#include <grp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include "guest.h"

static int device, tracker;
static pid_t idle;

/* A process to track. */
static pid_t idle_start(void)
{
	pid_t pid = fork();

	require(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void idle_end(pid_t pid)
{
	kill(pid, SIGKILL);
	require(waitpid(pid, NULL, 0) == pid);
}

/* The five checks that every command gets; argument is valid, and undo what a success did. */
static void envelope(int fd, unsigned long command, void *argument, size_t size, void (*undo)(void *))
{
	char big[256] = {}, valid[256] = {};
	uint32_t *big_size = (void *)big;

	memcpy(valid, argument, size);

	memcpy(big, valid, size);
	*big_size = size - 1;
	require_error(EINVAL, ioctl(fd, command, big));
	*big_size = 0;
	require_error(EINVAL, ioctl(fd, command, big));

	*big_size = sizeof(big);
	big[sizeof(big) - 1] = 1;
	require_error(E2BIG, ioctl(fd, command, big));
	big[sizeof(big) - 1] = 0;
	require(ioctl(fd, command, big) == 0);
	undo(big);

	memcpy(big, valid, size);
	require(ioctl(fd, command, big) == 0);
	undo(big);
	for (size_t i = size; i < sizeof(big); i++)
		require(big[i] == 0);

	require_error(EFAULT, ioctl(fd, command, NULL));
}

/* With one field set to something that it must not be. */
#define field_error(error, fd, command, valid, field, value) \
	do { \
		__typeof__(valid) changed_ = (valid); \
		changed_.field = (value); \
		require_error(error, ioctl(fd, command, &changed_)); \
	} while (0)

static void undo_nothing(void *argument)
{
}

static void undo_track(void *argument)
{
	struct ckpt_track *track = argument;

	require(fcntl(track->out_fd, F_GETFD) == FD_CLOEXEC);
	require(track->out_generation);
	close(track->out_fd);
}

static bool uffd_works;

static void undo_userfaultfd(void *argument)
{
	struct ckpt_userfaultfd *userfaultfd = argument;

	require(fcntl(userfaultfd->out_fd, F_GETFD) == FD_CLOEXEC);
	require(fcntl(userfaultfd->out_fd, F_GETFL) & O_NONBLOCK);
	close(userfaultfd->out_fd);
}

static void info(void)
{
	struct ckpt_info valid = { .size = sizeof(valid) };

	envelope(device, CKPT_IOC_INFO, &valid, sizeof(valid), undo_nothing);
	field_error(EINVAL, device, CKPT_IOC_INFO, valid, __reserved, 1);
	memset(valid.out_version, 'x', sizeof(valid.out_version));
	require(ioctl(device, CKPT_IOC_INFO, &valid) == 0);
	require(valid.out_page_bytes == PAGE);
	require(valid.out_mechanisms & CKPT_MECHANISM_SOFT_DIRTY);
	uffd_works = valid.out_mechanisms & CKPT_MECHANISM_UFFD_WP;
	require(strlen(valid.out_version) > 0 && valid.out_version[sizeof(valid.out_version) - 1] == 0);
}

static void track(void)
{
	struct ckpt_track valid = { .size = sizeof(valid), .pid = idle, .pidfd = pidfd_of(idle) };
	pid_t dead = idle_start();
	int dead_pidfd = pidfd_of(dead);

	envelope(device, CKPT_IOC_TRACK, &valid, sizeof(valid), undo_track);
	field_error(EINVAL, device, CKPT_IOC_TRACK, valid, flags, 1);
	field_error(EINVAL, device, CKPT_IOC_TRACK, valid, __reserved, 1);
	field_error(EBADF, device, CKPT_IOC_TRACK, valid, pidfd, -1);
	field_error(EBADF, device, CKPT_IOC_TRACK, valid, pidfd, 1000);
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pidfd, device);
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pid, getpid());
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pid, 0);
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pid, -1);
	idle_end(dead);
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pidfd, dead_pidfd);
	valid.pid = dead;
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pidfd, dead_pidfd);
	/* A kernel thread has no memory of its own. */
	valid.pid = 2;
	field_error(ESRCH, device, CKPT_IOC_TRACK, valid, pidfd, pidfd_of(2));
	close(dead_pidfd);
}

static void collect(void)
{
	struct ckpt_region vec[8];
	struct ckpt_collect valid = { .size = sizeof(valid), .end = PAGE * 16, .vec = (uintptr_t)vec, .vec_len = 8 };

	envelope(tracker, CKPT_IOC_COLLECT, &valid, sizeof(valid), undo_nothing);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, flags, 2);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, flags, 1u << 31);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, start, 1);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, start, valid.end);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, start, -PAGE);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, end, 0);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, end, valid.end - 1);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, end, -1);
	field_error(EINVAL, tracker, CKPT_IOC_COLLECT, valid, vec_len, 0);
	valid.end = -PAGE;
	field_error(EFAULT, tracker, CKPT_IOC_COLLECT, valid, vec, 0);
	field_error(EFAULT, tracker, CKPT_IOC_COLLECT, valid, vec, -PAGE);
	field_error(EFAULT, tracker, CKPT_IOC_COLLECT, valid, vec, 1ul << 63);
	valid.vec_len = -1;
	field_error(EFAULT, tracker, CKPT_IOC_COLLECT, valid, vec, 0);
	/* Nothing lies there: the end asked for is the end reached. */
	valid.start = 1ul << 62;
	valid.out_count = valid.out_walk_end = 7;
	require(ioctl(tracker, CKPT_IOC_COLLECT, &valid) == 0);
	require(valid.out_count == 0 && valid.out_walk_end == valid.end);
}

static int descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Nothing else is taken for /dev/userfaultfd, and no ioctl of it called: least of all of other misc devices. */
static void userfaultfd_device(struct ckpt_userfaultfd valid)
{
	char name[64], path[80];
	FILE *misc = fopen("/proc/misc", "re");
	int tried = 0, fd;

	field_error(EBADF, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, -1);
	field_error(EBADF, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, 1000);
	fd = open("/dev/userfaultfd", O_PATH);
	field_error(EBADF, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, fd);
	close(fd);
	field_error(ENODEV, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, tracker);
	require(misc);
	while (fscanf(misc, "%*d %63s", name) == 1) {
		snprintf(path, sizeof(path), "/dev/%s", name);
		if (!strcmp(name, "userfaultfd") || strstr(name, "watchdog"))
			continue;
		fd = open(path, O_RDWR | O_NONBLOCK);
		if (fd < 0)
			continue;
		field_error(ENODEV, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, fd);
		close(fd);
		tried++;
	}
	require(tried > 1);
	fclose(misc);
	for (const char *const *other = (const char *const[]){ "/dev/null", "/proc/self/maps", "/", NULL }; *other; other++) {
		fd = open(*other, O_RDONLY);
		require(fd >= 0);
		field_error(ENODEV, tracker, CKPT_IOC_USERFAULTFD, valid, device_fd, fd);
		close(fd);
	}
}

static void userfaultfd(void)
{
	struct ckpt_userfaultfd valid = { .size = sizeof(valid), .device_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) };
	int before = descriptors();

	if (!uffd_works) {
		require_error(EOPNOTSUPP, ioctl(tracker, CKPT_IOC_USERFAULTFD, &valid));
		field_error(EINVAL, tracker, CKPT_IOC_USERFAULTFD, valid, flags, 1);
		puts("no userfaultfd on this kernel");
		return;
	}
	require(valid.device_fd >= 0);
	envelope(tracker, CKPT_IOC_USERFAULTFD, &valid, sizeof(valid), undo_userfaultfd);
	field_error(EINVAL, tracker, CKPT_IOC_USERFAULTFD, valid, flags, 1);
	require(descriptors() == before);
	userfaultfd_device(valid);
	close(valid.device_fd);
}

static void referenced(void)
{
	struct ckpt_region ranges[2] = { { .start = 0, .end = PAGE }, { .start = PAGE, .end = 1ul << 63 } }, vec[8];
	struct ckpt_referenced valid = { .size = sizeof(valid), .ranges = (uintptr_t)ranges, .range_count = 2,
					 .vec = (uintptr_t)vec, .vec_len = 8 };

	envelope(tracker, CKPT_IOC_REFERENCED, &valid, sizeof(valid), undo_nothing);
	require(ioctl(tracker, CKPT_IOC_REFERENCED, &valid) == 0);
	require(valid.out_walk_end == CKPT_REFERENCED_ALL && valid.out_count == 0);
	valid.out_count = valid.out_walk_end = 0;
	field_error(EINVAL, tracker, CKPT_IOC_REFERENCED, valid, flags, 1);
	field_error(EINVAL, tracker, CKPT_IOC_REFERENCED, valid, start, 1);
	field_error(EINVAL, tracker, CKPT_IOC_REFERENCED, valid, vec_len, 0);
	field_error(EFAULT, tracker, CKPT_IOC_REFERENCED, valid, ranges, 1ul << 63);
	field_error(EFAULT, tracker, CKPT_IOC_REFERENCED, valid, ranges, 0);
	ranges[1].end++;
	require_error(EINVAL, ioctl(tracker, CKPT_IOC_REFERENCED, &valid));
	valid.range_count = 0;
	require(ioctl(tracker, CKPT_IOC_REFERENCED, &valid) == 0 && valid.out_walk_end == CKPT_REFERENCED_ALL);
}

/* ioctl() as a 32-bit program calls it. Its memory is below 4 GiB. */
static long ioctl32(int fd, unsigned int command, void *argument)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a" (ret) : "a" (54L), "b" ((long)fd), "c" ((long)command), "d" (argument)
			 : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

static volatile sig_atomic_t no_int80;

static void int80_missing(int signal, siginfo_t *info, void *context)
{
	ucontext_t *at = context;

	no_int80 = 1;
	at->uc_mcontext.gregs[REG_RIP] += 2;	/* behind the instruction */
}

/* The layouts are the same for 32-bit programs. What is not in the kernel then is said. */
static void callers_of_32_bits(void)
{
	struct sigaction action = { .sa_sigaction = int80_missing, .sa_flags = SA_SIGINFO };
	struct ckpt_region *vec = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct ckpt_info *info = (void *)(vec + 8);
	struct ckpt_collect *collect = (void *)(info + 1);
	struct ckpt_referenced *search = (void *)(collect + 1);

	require(vec != MAP_FAILED && sigaction(SIGSEGV, &action, NULL) == 0);
	*info = (struct ckpt_info){ .size = sizeof(*info) };
	if (ioctl32(device, CKPT_IOC_INFO, info) || no_int80) {
		puts("no 32-bit programs on this kernel");
		return;
	}
	require(info->out_page_bytes == PAGE && info->out_mechanisms);
	*collect = (struct ckpt_collect){ .size = sizeof(*collect), .end = -PAGE, .vec = (uintptr_t)vec, .vec_len = 8 };
	require(ioctl32(tracker, CKPT_IOC_COLLECT, collect) == 0 && collect->out_count == 8 && vec[7].end);
	*search = (struct ckpt_referenced){ .size = sizeof(*search), .ranges = (uintptr_t)vec, .range_count = 8,
					    .vec = (uintptr_t)vec, .vec_len = 8 };
	require(ioctl32(tracker, CKPT_IOC_REFERENCED, search) == 0);
	require(ioctl32(tracker, CKPT_IOC_TRACK, info) == -ENOTTY);
	require(ioctl32(device, CKPT_IOC_INFO, (void *)0xfffff000) == -EFAULT);
	require(munmap(vec, PAGE) == 0);
	puts("32-bit calls: the same");
}

static void unknown_commands(void)
{
	struct ckpt_collect argument = { .size = sizeof(argument) };

	require_error(ENOTTY, ioctl(device, CKPT_IOC_COLLECT, &argument));
	require_error(ENOTTY, ioctl(tracker, CKPT_IOC_TRACK, &argument));
	require_error(ENOTTY, ioctl(tracker, CKPT_IOC_INFO, &argument));
	require_error(ENOTTY, ioctl(device, CKPT_IOC_USERFAULTFD, &argument));
	require_error(ENOTTY, ioctl(device, CKPT_IOC_REFERENCED, &argument));
	for (int number = 2; number < 256; number++)
		require_error(ENOTTY, ioctl(device, _IOWR(CKPT_IOC_TYPE, number, struct ckpt_info), &argument));
	require_error(ENOTTY, ioctl(device, _IOWR(0xCC, 0, struct ckpt_info), &argument));
}

static void one_tracker_per_mm(void)
{
	int other;

	require_error(EBUSY, tracker_try(device, idle));
	close(tracker);
	other = tracker_try(device, idle);
	require(other >= 0);
	require_error(EBUSY, tracker_try(device, idle));
	close(other);
	tracker = tracker_try(device, idle);
	require(tracker >= 0);
}

/* The device in the hands of a user: neither opened nor, when inherited, used on root's process or on the user's own. */
static void unprivileged(void)
{
	struct ckpt_userfaultfd userfaultfd = { .size = sizeof(userfaultfd), .device_fd = open("/dev/userfaultfd", O_RDWR) };
	pid_t pid = fork();
	int status;

	require(pid >= 0);
	if (!pid) {
		require(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
		require_error(EACCES, open("/dev/ckpt", O_RDWR));
		require_error(EPERM, tracker_try(device, getppid()));
		require_error(EPERM, tracker_try(device, getpid()));
		/* With the tracker's descriptor pages can be seen, but no userfaultfd be had. */
		if (uffd_works)
			require_error(EPERM, ioctl(tracker, CKPT_IOC_USERFAULTFD, &userfaultfd));
		_exit(0);
	}
	require(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(void)
{
	device = device_open();
	idle = idle_start();
	info();
	track();
	tracker = tracker_try(device, idle);
	require(tracker >= 0);
	collect();
	userfaultfd();
	referenced();
	callers_of_32_bits();
	unknown_commands();
	one_tracker_per_mm();
	unprivileged();
	idle_end(idle);
	puts("abi: as documented");
	return 0;
}
