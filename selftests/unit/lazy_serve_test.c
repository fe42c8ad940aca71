// SPDX-License-Identifier: GPL-2.0
/*
 * A process whose memory is in a store and missing here: it plays criu, which makes it, and then does to its
 * memory what programs do, while ckpt-pages' server, another process, gives it the pages.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "lazy.h"
#include "lazy_actor.h"
#include "lazy_serve.h"
#include "proc.h"
#include "store_fixture.h"

#define BASE 0x500000000000ull
#define CHUNKS 48
#define THREADS 4

static char place[80];         /* what stands for CRIU's directory and the cgroup */

/* ---- the program ---- */

struct program {
	unsigned int threads;
	unsigned int rounds;
	uint64_t seed;
	void (*act)(struct actor *actor);
};

static void program_layout(void)
{
	chunk_count = CHUNKS;
	chunks = malloc(CHUNKS * sizeof(*chunks));
	for (unsigned int i = 0; i < CHUNKS; i++) {
		/* Next to each other, and gaps now and then. */
		chunks[i].at = (uint8_t *)BASE + (i + i / 5) * CHUNK;
		for (unsigned int page = 0; page < CHUNK_PAGES; page++)
			chunks[i].version[page] = (i * CHUNK_PAGES + page) % 37 ? 1 : 0;
	}
}

static void connect_to(int *fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" LAZY_SOCKET, place);
	*fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(*fd, (struct sockaddr *)&address, sizeof(address)))
		_exit(101);
}

static void send_fd(int socket, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (char[]){ 0 }, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) != 1)
		_exit(102);
}

static bool spoil; /* a page is there that should be missing */
static bool unwatched; /* a chunk is not watched */

/* What criu does. */
static void be_restored(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					      UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), socket, gate;
	int32_t pid = getpid(), end = LAZY_FINISHED;
	char answer = 0;

	if (ioctl(uffd, UFFDIO_API, &api))
		_exit(103);
	connect_to(&socket);
	if (send(socket, &pid, sizeof(pid), 0) != sizeof(pid))
		_exit(104);
	send_fd(socket, uffd);
	for (unsigned int i = 0; i < CHUNKS; i++) {
		struct uffdio_register watch = { .range = { (uintptr_t)chunks[i].at, CHUNK },
						 .mode = UFFDIO_REGISTER_MODE_MISSING };

		/* Some are mappings of their own. */
		if (mmap(chunks[i].at, CHUNK, PROT_READ | PROT_WRITE | (i % 3 ? 0 : PROT_EXEC),
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != chunks[i].at)
			_exit(105);
		if (spoil && i == 3)
			chunks[i].at[5 * PAGE] = 1;
		if (!(unwatched && i == 3) && ioctl(uffd, UFFDIO_REGISTER, &watch))
			_exit(106);
	}
	close(uffd);
	connect_to(&gate);
	if (read(gate, &answer, 1) != 1 || answer != LAZY_GO)
		_exit(107);
	if (send(socket, &end, sizeof(end), 0) != sizeof(end))
		_exit(108);
	close(socket);
	close(gate);
}

static const struct program *program;

static void *program_thread(void *arg)
{
	for (unsigned int i = 0; i < program->rounds; i++)
		program->act(arg);
	return NULL;
}

__attribute__((noreturn)) static void program_run(void)
{
	struct actor actors[THREADS];
	pthread_t threads[THREADS];

	be_restored();
	actor_count = program->threads;
	for (unsigned int i = 0; i < program->threads; i++)
		actors[i] = (struct actor){ .number = i, .random = program->seed * 64 + i, .version = 1 };
	for (unsigned int i = 1; i < program->threads; i++)
		if (pthread_create(&threads[i], NULL, program_thread, &actors[i]))
			_exit(109);
	program_thread(&actors[0]);
	for (unsigned int i = 1; i < program->threads; i++)
		pthread_join(threads[i], NULL);
	for (unsigned int i = 0; i < CHUNKS; i++)
		chunk_check(i, "the program at its end");
	_exit(0);
}

/* ---- the store ---- */

static void page_make(unsigned int number, unsigned int page, uint64_t words[PAGE / 8])
{
	for (unsigned int i = 0; i < PAGE / 8; i++)
		words[i] = word(number, page, 1, i);
}

/* What the process had: a block of the store has pages of several mappings. */
static struct manifest *checkpoint_make(struct store *store, pid_t pid)
{
	struct manifest made = { .term = 1, .sequence = 1, .meta = "{}", .map = pagemap_create() }, *found;
	struct term own = take_term(store, "");
	struct space *space = pagemap_space(made.map, SPACE_TASK, (uint64_t)pid);
	struct packer *packer;
	uint64_t words[PAGE / 8];
	char name[64];

	assert_ok(packer_create(&packer, store, &own, made.map, &problem));
	for (unsigned int i = 0; i < CHUNKS; i++)
		for (unsigned int page = 0; page < CHUNK_PAGES; page++) {
			if (!chunks[i].version[page])
				continue;
			page_make(i, page, words);
			assert_ok(packer_page(packer, space, (uintptr_t)chunks[i].at + page * PAGE, words, &problem));
		}
	assert_ok(packer_commit(packer, NULL, &problem));
	assert_ok(manifest_commit(store, &own, &made, name, &problem));
	assert_ok(manifest_read(store, name, &found, &problem));
	pagemap_destroy(made.map);
	return found;
}

/* ---- the server ---- */

static void put_fd(int fd, int as)
{
	if (dup2(fd, as) != as)
		_exit(120);
}

/* What ckpt-init does: it keeps the last vault. */
static int watched[2];

static void *init_main(void *arg)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	int vault = -1;
	char byte;

	for (;;) {
		struct iovec data = { .iov_base = &byte, .iov_len = 1 };
		struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
					  .msg_controllen = sizeof(control.bytes) };
		ssize_t got = recvmsg(watched[1], &message, MSG_CMSG_CLOEXEC);

		if (vault >= 0)
			close(vault);
		vault = -1;
		if (got != 1 || byte != LAZY_VAULT)
			break;
		memcpy(&vault, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(vault));
	}
	close(watched[1]);
	return NULL;
}

/* All of it, before the descriptors close: as the end of ckpt-init does. */
static void end_program(pid_t pid)
{
	while (!kill(-pid, SIGKILL))
		usleep(1000);
}

__attribute__((noreturn)) static void server_run(pid_t program_pid, int table, int socket, int holder, int ready)
{
	static struct lazy_spec spec = { .magic = LAZY_MAGIC, .buffer_bytes = 8 << 20 };
	int high[] = { fcntl(table, F_DUPFD, 64), fcntl(socket, F_DUPFD, 64), fcntl(ready, F_DUPFD, 64),
		       fcntl(holder, F_DUPFD, 64), pidfd_of(program_pid) };
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	spec.store_uid = geteuid();
	spec.store_gid = getegid();
	spec.keys = keys;
	snprintf(spec.job, sizeof(spec.job), JOB);
	snprintf(spec.store, sizeof(spec.store), "%s", directory);
	snprintf(spec.cgroup, sizeof(spec.cgroup), "%s", place);
	put_fd(high[0], LAZY_FD_TABLE);
	put_fd(high[1], LAZY_FD_SOCKET);
	put_fd(high[2], LAZY_FD_READY);
	high[4] = fcntl(high[4], F_DUPFD, 64);
	put_fd(high[4], LAZY_FD_INIT);
	put_fd(watched[0], LAZY_FD_WATCH);
	close(watched[1]);
	close(high[1]);
	ret = lazy_serve(&spec, high[3], &problem);
	if (ret && ret != -ESRCH) {
		print_message("%s\n", problem.text);
		end_program(program_pid);
	}
	if (ret == 0 && write(LAZY_FD_WATCH, (char[]){ LAZY_DONE }, 1) != 1)
		ret = -EPIPE;
	_exit(ret == 0 ? 0 : ret == -ESRCH ? 1 : 2);
}

static int listen_here(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" LAZY_SOCKET, place);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

struct outcome {
	int program;    /* wait statuses */
	int server;
	struct lazy_table table;
	struct manifest *manifest;
};

static void write_cgroup(pid_t pid)
{
	char path[160];
	FILE *file;

	snprintf(path, sizeof(path), "%s/cgroup.procs", place);
	file = fopen(path, "w");
	fprintf(file, "%d\n", pid);
	fclose(file);
}

static void lazily(const struct program *what, struct outcome *outcome, void (*meanwhile)(void))
{
	struct lazy_plan plan = { 0 };
	struct store *store = open_store();
	int go[2], ready[2], socket, table, holder;
	pthread_t init;
	pid_t pid, server;
	char byte;

	snprintf(place, sizeof(place), "%s/place", directory);
	assert_int_equal(mkdir(place, 0700), 0);
	socket = listen_here();
	assert_int_equal(pipe(go) | pipe(ready), 0);
	program = what;
	program_layout();
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		close(socket);
		setpgid(0, 0);
		if (read(go[0], &byte, 1) != 1)
			_exit(100);
		program_run();
	}
	write_cgroup(pid);
	outcome->manifest = checkpoint_make(store, pid);
	lazy_plan_add(&plan, (uint64_t)pid);
	assert_ok(regions_add(&plan.areas[0].regions, BASE, BASE + CHUNKS * 2 * CHUNK, 0));
	table = lazy_table_make(&outcome->table, outcome->manifest->map, plan.areas, plan.count, &problem);
	assert_true(table >= 0);
	holder = pidfd_of(getpid());
	if (meanwhile)
		meanwhile();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, watched), 0);
	server = fork();
	if (server == 0)
		server_run(pid, table, socket, holder, ready[1]);
	close(ready[1]);
	close(watched[0]);
	assert_int_equal(pthread_create(&init, NULL, init_main, NULL), 0);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(socket);
	assert_int_equal(write(go[1], "g", 1), 1);
	assert_int_equal(waitpid(pid, &outcome->program, 0), pid);
	assert_int_equal(waitpid(server, &outcome->server, 0), server);
	pthread_join(init, NULL);
	lazy_plan_free(&plan);
	store_close(store);
	close(go[0]);
	close(go[1]);
	close(ready[0]);
	close(table);
	close(holder);
	free(chunks);
}

static void outcome_free(struct outcome *outcome)
{
	lazy_table_unmap(&outcome->table);
	manifest_free(outcome->manifest);
}

/* The program found all as it should be; it may have ended before all had come. */
static void assert_right(const struct outcome *outcome)
{
	assert_int_equal(outcome->program, 0);
	assert_true(WIFEXITED(outcome->server) && WEXITSTATUS(outcome->server) <= 1);
}

/* ---- tests ---- */

static void act_alone_only(struct actor *actor)
{
	for (int i = 0; i < MOVES_PER_STEP; i++)
		act_alone(actor, "the program");
}

/* One changes what there is, the others use it. */
static void act_one_changing(struct actor *actor)
{
	unsigned int number = own(actor);

	if (actor->number == 0) {
		act_alone_only(actor);
		return;
	}
	for (int i = 0; i < 2 * MOVES_PER_STEP; i++) {
		page_check(number, pick(actor, CHUNK_PAGES), "the program");
		page_write(number, pick(actor, CHUNK_PAGES), ++actor->version);
	}
}

static void many(const struct program *base, bool ahead, bool may_stop)
{
	unsigned int stopped = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct program one = *base;
		struct outcome outcome = { 0 };

		one.seed = seed;
		assert_int_equal(fault_arm(ahead ? NULL : "lazy.no_ahead"), 0);
		lazily(&one, &outcome, NULL);
		if (may_stop && WIFSIGNALED(outcome.program) && WEXITSTATUS(outcome.server) == 2)
			stopped++;
		else
			assert_right(&outcome);
		outcome_free(&outcome);
		directory_remove(NULL);
		directory_create(NULL);
	}
	if (may_stop)
		print_message("stopped, since the order of events was not clear: %u of 12\n", stopped);
}

static void all_comes(void **state)
{
	struct program idle = { .threads = 1, .rounds = 0, .act = act };
	struct outcome outcome = { 0 };
	uint32_t given;

	lazily(&idle, &outcome, NULL);
	assert_int_equal(outcome.program, 0);
	given = outcome.table.head->given;
	assert_int_equal(given, outcome.table.head->page_count);
	/* And their hashes are known then. */
	for (uint32_t i = 0; i < given; i++)
		assert_true(outcome.table.hashes[i].low || outcome.table.hashes[i].high);
	outcome_free(&outcome);
}

static void all_comes_where_nothing_is_read_directly(void **state)
{
	assert_int_equal(fault_arm("store.no_direct"), 0);
	all_comes(state);
}

static void one_thread_changes_its_memory(void **state)
{
	many(&(struct program){ .threads = 1, .rounds = 150, .act = act_alone_only }, true, false);
}

static void one_thread_with_nothing_ahead(void **state)
{
	many(&(struct program){ .threads = 1, .rounds = 150, .act = act_alone_only }, false, false);
}

static void forks(void **state)
{
	many(&(struct program){ .threads = 1, .rounds = 40, .act = act }, true, false);
}

static void forks_with_nothing_ahead(void **state)
{
	many(&(struct program){ .threads = 1, .rounds = 40, .act = act }, false, false);
}

static void threads(void **state)
{
	many(&(struct program){ .threads = THREADS, .rounds = 60, .act = act_alone_only }, true, true);
}

static void threads_with_nothing_ahead(void **state)
{
	many(&(struct program){ .threads = THREADS, .rounds = 60, .act = act_alone_only }, false, true);
}

static void threads_of_which_one_changes_memory(void **state)
{
	many(&(struct program){ .threads = THREADS, .rounds = 60, .act = act_one_changing }, false, true);
}

static void threads_that_fork(void **state)
{
	many(&(struct program){ .threads = THREADS, .rounds = 20, .act = act }, false, true);
}

static void refused(bool *how)
{
	struct program idle = { .threads = 1, .rounds = 10, .act = act };
	struct outcome outcome = { 0 };

	*how = true;
	lazily(&idle, &outcome, NULL);
	*how = false;
	assert_true(WIFSIGNALED(outcome.program) || WEXITSTATUS(outcome.program) == 107);
	assert_int_equal(WEXITSTATUS(outcome.server), 2);
	outcome_free(&outcome);
}

static void a_page_that_is_there_is_seen_before_the_job_runs(void **state)
{
	refused(&spoil);
}

static void memory_that_is_not_watched_is_seen_before_the_job_runs(void **state)
{
	refused(&unwatched);
}

/* The first segment there is: some bytes of it are others. */
static void damage(void)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s", object_path("seg-0000000000000001-0000000000000001"));
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (off_t at = 4096; at < 1 << 20; at += 4096)
		assert_int_equal(pwrite(fd, "damage", 6, at), 6);
	close(fd);
}

static void damage_ends_the_program(void **state)
{
	struct program one = { .threads = 1, .rounds = 1000, .act = act_alone_only };
	struct outcome outcome = { 0 };

	lazily(&one, &outcome, damage);
	assert_true(WIFSIGNALED(outcome.program));
	assert_int_equal(WTERMSIG(outcome.program), SIGKILL);
	assert_int_equal(WEXITSTATUS(outcome.server), 2);
	outcome_free(&outcome);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, directory_create, directory_remove)
	const struct CMUnitTest tests[] = {
		test(all_comes),
		test(all_comes_where_nothing_is_read_directly),
		test(one_thread_changes_its_memory),
		test(one_thread_with_nothing_ahead),
		test(forks),
		test(forks_with_nothing_ahead),
		test(threads),
		test(threads_with_nothing_ahead),
		test(threads_of_which_one_changes_memory),
		test(threads_that_fork),
		test(a_page_that_is_there_is_seen_before_the_job_runs),
		test(memory_that_is_not_watched_is_seen_before_the_job_runs),
		test(damage_ends_the_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
