// SPDX-License-Identifier: GPL-2.0
/*
 * ckptctl run: stands in the foreground where the program would stand: passes on its output, hands
 * it the signals, and ends as it ends.  ckptd starts or restores the program; when ckptd is
 * restarted meanwhile, this waits for it and goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include "cleanup.h"
#include "clock.h"
#include "commands.h"
#include "job.h"
#include "progress.h"
#include "wire.h"

#define RETRY_MS 500
/* A ckptd that is just being started or replaced is waited for. */
#define START_TRIES 20
#define COPY_BYTES 65536
#define LAST_BYTES 256
/* Of what was delivered the room is given back in pieces of this size. */
#define FREE_BYTES (1 << 20)

/* One of the job's outputs on its way to ours. */
struct output {
	int source;             /* the file that the job writes; -1: none */
	int sink;
	off_t delivered;        /* of the source's bytes */
	off_t freed;            /* of these, from the first on: they take no room in the source any more */
	int error;              /* why the sink takes no more at the moment; 0: it does */
	bool closed;            /* nobody reads us any more: what comes is thrown away */
	char last[LAST_BYTES];  /* of what was delivered */
	size_t last_bytes;
};

static const char *const output_names[] = { "stdout", "stderr" };
static const char *const output_words[] = { "standard output", "standard error" };

struct run {
	const char *class;
	const char *job;
	char **arguments;
	char *cwd;
	char name[128];
	int connection;         /* -1: ckptd is away */
	struct wire_input input;
	int signals;
	int changes;            /* inotify */
	struct output outputs[2];
	bool merged;
	bool running;
	struct progress progress; /* of a restore, where a person looks on */
	json_t *notes;          /* that wait for the job to run; see take_note() */
	bool told_away;
	bool waits;             /* ckptd cannot begin the job yet: it is to be asked again */
	bool told_wait;
	int64_t lease_until_ms; /* the job is this node's until then */
	int status;             /* -1: not ended */
	int end_signal;
};

static void usage(FILE *out)
{
	fprintf(out,
		"Usage: ckptctl run [--class CLASS] [--job NAME] [--] COMMAND [ARGUMENT]...\n"
		"Starts COMMAND, or restores it if there is a checkpoint of it.\n\n"
		"  -c, --class CLASS  job class of ckptd's configuration ($CKPT_CLASS, or 'default')\n"
		"  -j, --job NAME     name of the job ($CKPT_JOB); the same line on another node finds the\n"
		"                     checkpoint by it. Unless given it is made of the Slurm job id, the\n"
		"                     working directory and the command\n"
		"  -h, --help         print this\n\n"
		"Exit status: that of COMMAND (128+N if signal N ended it);\n"
		"  75   this node is taken away, the job is saved: run the same line again, elsewhere\n"
		"  125  ckpt could not start, restore or keep the job; the message says why\n"
		"  126  COMMAND cannot be executed\n"
		"  127  COMMAND is not found\n");
}

/* --- the request --- */

static void make_name(struct run *run)
{
	const char *slurm = getenv("SLURM_JOB_ID");
	cleanup_free char *copy = strdup(run->arguments[0]);
	XXH3_state_t *state = XXH3_createState();
	uint64_t hash;
	char *base;

	XXH3_64bits_reset(state);
	XXH3_64bits_update(state, run->cwd, strlen(run->cwd) + 1);
	for (char **argument = run->arguments; *argument; argument++)
		XXH3_64bits_update(state, *argument, strlen(*argument) + 1);
	hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	base = basename(copy);
	for (char *at = base; *at; at++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", *at))
			*at = '_';
	if (slurm && *slurm && strlen(slurm) < 20)
		snprintf(run->name, sizeof(run->name), "slurm-%s-%08lx", slurm, hash & 0xffffffff);
	else
		snprintf(run->name, sizeof(run->name), "%.40s-%012lx", base, hash & 0xffffffffffff);
}

static bool same_file(int one, int other)
{
	struct stat a, b;

	return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Where the next byte will be, if that is a file; else -1. */
static off_t position(int fd)
{
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return -1;
	return fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
}

/* Our own output, if that is a file. */
static json_t *describe_output(int fd)
{
	char link[32], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return json_null();
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return json_null();
	path[n] = '\0';
	return json_pack("{s:o, s:I}", "path", wire_from_bytes(path), "inode", (json_int_t)st.st_ino);
}

static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* Whether the job gets our standard input; else it gets /dev/null. */
static bool pass_stdin(void)
{
	struct stat st;

	return fstat(0, &st) == 0 && S_ISREG(st.st_mode);
}

static int check_stdin(void)
{
	struct stat st;

	if (fstat(0, &st) || S_ISREG(st.st_mode) || is_null(&st))
		return 0;
	if (isatty(0)) {
		say("standard input is a terminal, which a checkpoint cannot hold: the program reads /dev/null "
		    "instead");
		return 0;
	}
	say("standard input is a %s, which a checkpoint cannot hold: use '< FILE' or '< /dev/null'",
	    S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? "device" : S_ISDIR(st.st_mode) ? "directory" :
	    S_ISFIFO(st.st_mode) ? "pipe" : "socket");
	return -1;
}

static json_t *make_request(const struct run *run, bool resume)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:b, s:b, s:{s:o, s:o}}", "op", "run", "class",
			 run->class, "job", run->name, "arguments", wire_from_vector(run->arguments),
			 "environment", wire_from_vector(environ), "cwd",
			 wire_from_bytes(run->cwd), "merged", run->merged, "resume", resume,
			 "outputs", "stdout", describe_output(1), "stderr", describe_output(2));
}

static int send_request(struct run *run, bool resume)
{
	json_t *request = make_request(run, resume);
	int ret, in = 0;

	run->connection = wire_connect(WIRE_SOCKET);
	if (run->connection < 0) {
		json_decref(request);
		return run->connection;
	}
	ret = wire_send(run->connection, request, &in, !run->running && pass_stdin(), 0);
	json_decref(request);
	return ret;
}

/* --- output --- */

static void forward_signal(struct run *run, int number)
{
	json_t *message = json_pack("{s:s, s:i}", "op", "signal", "number", number);

	if (run->connection >= 0)
		wire_send(run->connection, message, NULL, 0, 0);
	json_decref(message);
}

static void remember_last(struct output *output, const char *bytes, size_t count)
{
	size_t keep;

	if (count > LAST_BYTES) {
		bytes += count - LAST_BYTES;
		count = LAST_BYTES;
	}
	keep = output->last_bytes < LAST_BYTES - count ? output->last_bytes : LAST_BYTES - count;
	memmove(output->last, output->last + output->last_bytes - keep, keep);
	memcpy(output->last + keep, bytes, count);
	output->last_bytes = keep + count;
}

/*
 * A program that opens /dev/stderr anew, and not to append, empties the file and writes from its beginning on: what stands
 * before the place where we are is not what we read there.
 */
static bool was_emptied(const struct output *output)
{
	char before[LAST_BYTES];
	off_t from = output->delivered - (off_t)output->last_bytes;
	struct stat st;

	if (fstat(output->source, &st))
		return false;
	return st.st_size < output->delivered ||
	       (pread(output->source, before, output->last_bytes, from) == (ssize_t)output->last_bytes &&
		memcmp(before, output->last, output->last_bytes));
}

/* What a restored job had written before is not there again: in its place are zeros. */
static void output_go_on(struct output *output, off_t delivered)
{
	output->delivered = delivered;
	output->freed = 0;
	output->last_bytes = delivered < LAST_BYTES ? (size_t)delivered : LAST_BYTES;
	memset(output->last, 0, output->last_bytes);
}

static void tell_bases(struct run *run);

/* What comes next. It is looked at afterwards whether the file was emptied, so that what was read is not from behind a gap. */
static ssize_t output_read(struct run *run, struct output *output, char *buffer, size_t bytes)
{
	ssize_t got = pread(output->source, buffer, bytes, output->delivered);

	if (!was_emptied(output))
		return got;
	output->delivered = 0;
	output->freed = 0;
	output->last_bytes = 0;
	tell_bases(run);
	return pread(output->source, buffer, bytes, 0);
}

/* What a job has said in weeks would else take its room twice. A file system that cannot do it keeps it until the end. */
static void output_free(struct output *output)
{
	off_t end = (output->delivered - LAST_BYTES) / FREE_BYTES * FREE_BYTES;

	if (end <= output->freed)
		return;
	fallocate(output->source, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, output->freed, end - output->freed);
	output->freed = end;
}

/* What the program would have met itself; but where there is no room, what it says is kept until there is. */
static void output_refused(struct run *run, struct output *output, int error)
{
	if (error == EPIPE) {
		output->closed = true;
		forward_signal(run, SIGPIPE);
	} else if (error != output->error) {
		output->error = error;
		say("cannot write its %s: %s. It is kept meanwhile, and tried again", output_words[output - run->outputs],
		    strerror(error));
	}
}

static void output_deliver(struct run *run, struct output *output)
{
	char buffer[COPY_BYTES];
	ssize_t got, put;

	while (output->source >= 0 && (got = output_read(run, output, buffer, sizeof(buffer))) > 0) {
		for (ssize_t done = 0; done < got; done += put) {
			put = output->closed ? got - done : write(output->sink, buffer + done, (size_t)(got - done));
			if (put < 0 && errno == EINTR)
				put = 0;
			if (put < 0 && errno == EAGAIN) {
				struct pollfd wait = { .fd = output->sink, .events = POLLOUT };

				poll(&wait, 1, -1);
				put = 0;
			}
			if (put < 0) {
				output_refused(run, output, errno);
				return;
			}
			output->delivered += put;
			remember_last(output, buffer + done, (size_t)put);
		}
		output->error = 0;
		output_free(output);
	}
}

/* Only as long as nobody else can have the job: he writes to the same file. */
static bool is_ours(const struct run *run)
{
	return clock_ms() < run->lease_until_ms;
}

/* A ckptd that has come back may not know yet what the one before it knew. */
static void lease_holds(struct run *run, const json_t *until_ms)
{
	if (json_integer_value(until_ms) > run->lease_until_ms)
		run->lease_until_ms = json_integer_value(until_ms);
}

static void deliver(struct run *run)
{
	for (int i = 0; i < 2; i++)
		output_deliver(run, &run->outputs[i]);
}

/* How long our file was at the checkpoint; -1: not known, or this is another file. */
static off_t size_then(int fd, const json_t *was, const json_t *base, off_t delivered)
{
	json_t *now = describe_output(fd);
	bool same = json_is_object(was) && json_equal(was, now);

	json_decref(now);
	return same && json_is_integer(base) ? (off_t)json_integer_value(base) + delivered : -1;
}

/*
 * The job went on behind this checkpoint, then its node was lost: what it wrote since will be
 * written again, so our file is cut back to where the checkpoint stands. Returns by how much.
 */
static off_t cut_back(int fd, off_t size)
{
	struct stat st;

	if (size < 0 || fstat(fd, &st) || st.st_size <= size || ftruncate(fd, size))
		return 0;
	lseek(fd, size, SEEK_SET);
	return st.st_size - size;
}

static bool is_shorter(int fd, off_t size)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size < size;
}

static void watch_output(struct run *run, struct output *output, int fd)
{
	char path[32];

	if (output->source >= 0)
		close(output->source);
	output->source = fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	inotify_add_watch(run->changes, path, IN_MODIFY);
}

/* Tells ckptd where the job's output stands in our files, whenever something else was written there. */
static void tell_bases(struct run *run)
{
	json_t *bases = json_object(), *request = json_pack("{s:s, s:O}", "op", "outputs", "bases", bases);

	for (int i = 0; i < 2; i++) {
		const struct output *output = &run->outputs[i];
		off_t at = output->source < 0 ? -1 : position(output->sink);

		json_object_set_new(bases, output_names[i], at < 0 ? json_null() :
				    json_integer((json_int_t)(at - output->delivered)));
	}
	if (run->connection >= 0)
		wire_send(run->connection, request, NULL, 0, 0);
	json_decref(bases);
	json_decref(request);
}

/*
 * Until the job runs it is not known how much of a file that is our standard error will be cut off:
 * what we say has to come behind that.
 */
static void take_note(struct run *run, const char *text)
{
	struct stat st;

	if (!run->running && fstat(2, &st) == 0 && S_ISREG(st.st_mode)) {
		json_array_append_new(run->notes, json_string(text));
		return;
	}
	say("%s", text);
	if (run->running)
		tell_bases(run);
}

static void say_notes(struct run *run)
{
	json_t *note;
	size_t i;

	json_array_foreach(run->notes, i, note)
		say("%s", json_string_value(note));
	json_array_clear(run->notes);
}

static void begin_outputs(struct run *run, const json_t *event)
{
	const json_t *was = json_object_get(event, "outputs"), *bases = json_object_get(event, "bases");
	int fds[WIRE_MAX_FDS];
	size_t count = wire_take_fds(&run->input, fds);
	bool shorter = false;
	off_t cut = 0, size;

	for (size_t i = 0; i < count; i++) {
		struct output *output = &run->outputs[i];

		if (i > 1) {
			close(fds[i]);
			continue;
		}
		watch_output(run, output, fds[i]);
		if (run->running)
			continue; /* ckptd is back: we know how far we are */
		output_go_on(output, (off_t)json_integer_value(json_object_get(event, output_names[i])));
		size = size_then(output->sink, json_object_get(was, output_names[i]),
				 json_object_get(bases, output_names[i]), output->delivered);
		shorter |= is_shorter(output->sink, size);
		if (json_is_true(json_object_get(event, "cut")))
			cut += cut_back(output->sink, size);
	}
	run->running = true;
	lease_holds(run, json_object_get(event, "lease_until_ms"));
	if (cut)
		say("output that will come again was cut off: %lld bytes", (long long)cut);
	if (shorter)
		say("the file of its output is shorter than it was: what it held is lost. Slurm empties it when it "
		    "requeues a job, unless told '#SBATCH --open-mode=append'");
	say_notes(run);
	tell_bases(run);
}

/* --- events --- */

/* Whether all that the job said was written. */
static bool end_outputs(struct run *run, bool ours)
{
	bool complete = true;

	say_notes(run);
	if (ours)
		deliver(run);
	for (int i = 0; i < 2 && ours; i++) {
		const struct output *output = &run->outputs[i];
		struct stat st;

		if (!output->error || fstat(output->source, &st) || st.st_size <= output->delivered)
			continue;
		complete = false;
		say("the last %lld bytes of its %s are lost: %s", (long long)(st.st_size - output->delivered), output_words[i],
		    strerror(output->error));
	}
	/* A scheduler may start the job elsewhere as soon as we have ended. */
	for (int fd = 1; fd <= 2; fd++)
		if (fsync(fd) && errno == EIO)
			say("its output could not be written back: %s", strerror(errno));
	return complete;
}

static void take_end(struct run *run, const json_t *event)
{
	const json_t *killed = json_object_get(event, "killed");
	const char *text = json_string_value(json_object_get(event, "text"));
	bool complete = end_outputs(run, true);

	if (text)
		say("%s", text);
	run->end_signal = killed ? (int)json_integer_value(killed) : 0;
	run->status = killed ? 128 + run->end_signal
			     : (int)json_integer_value(json_object_get(event, "exited"));
	if (run->status == 0 && !complete)
		run->status = JOB_STATUS_FAILED;
}

static void take_progress(struct run *run, const json_t *event)
{
	progress_resume(&run->progress, json_integer_value(json_object_get(event, "ms")));
	progress_show(&run->progress, (uint64_t)json_integer_value(json_object_get(event, "done")),
		      (uint64_t)json_integer_value(json_object_get(event, "all")));
}

static void take_event(struct run *run, const json_t *event)
{
	const char *kind = json_string_value(json_object_get(event, "event")) ?: "";
	const char *text = json_string_value(json_object_get(event, "text"));

	if (!strcmp(kind, "progress")) {
		take_progress(run, event);
		return;
	}
	progress_end(&run->progress);
	if (!strcmp(kind, "wait")) {
		run->waits = true;
		if (!run->told_wait)
			say("%s", text);
		run->told_wait = true;
	} else if (!strcmp(kind, "note")) {
		take_note(run, text);
	} else if (!strcmp(kind, "running")) {
		begin_outputs(run, event);
	} else if (!strcmp(kind, "lease")) {
		lease_holds(run, json_object_get(event, "until_ms"));
		deliver(run);
	} else if (!strcmp(kind, "ended")) {
		take_end(run, event);
	} else if (!strcmp(kind, "interrupted")) {
		end_outputs(run, true);
		say("%s", text);
		run->status = JOB_STATUS_INTERRUPTED;
	} else if (!strcmp(kind, "failed")) {
		end_outputs(run, is_ours(run));
		say("%s", text);
		run->status = (int)json_integer_value(json_object_get(event, "status"));
	}
}

static void receive_events(struct run *run)
{
	json_t *event;
	int ret = wire_receive(run->connection, &run->input, 0), err = 0;

	run->waits = false;
	while (ret == 0 && run->status < 0 && (event = wire_next(&run->input, &err))) {
		take_event(run, event);
		json_decref(event);
	}
	if (ret == 0)
		ret = err;
	if ((ret == 0 && !run->waits) || run->status >= 0)
		return;
	close(run->connection);
	run->connection = -1;
	wire_input_free(&run->input);
}

static void reconnect(struct run *run)
{
	int ret = send_request(run, !run->waits);

	if (ret == 0) {
		run->told_away = false;
		return;
	}
	if (run->connection >= 0)
		close(run->connection);
	run->connection = -1;
	if (!run->told_away)
		say(run->running ? "ckptd has stopped; the job runs on, waiting for ckptd to come back" :
		    "ckptd has stopped before the job runs; waiting for ckptd to come back");
	run->told_away = true;
}

/* Before there is a job to pass it on to, a signal that ends programs ends us. */
static void receive_signal(struct run *run)
{
	struct signalfd_siginfo info;
	int number;

	if (read(run->signals, &info, sizeof(info)) != sizeof(info))
		return;
	number = (int)info.ssi_signo;
	if (!run->waits && (run->connection >= 0 || run->running)) {
		forward_signal(run, number);
	} else if (number == SIGHUP || number == SIGINT || number == SIGQUIT || number == SIGTERM) {
		run->end_signal = number;
		run->status = 128 + number;
	}
}

static bool is_refused(const struct run *run)
{
	return run->outputs[0].error || run->outputs[1].error;
}

static void follow(struct run *run)
{
	char changes[4096];

	while (run->status < 0) {
		struct pollfd wait[3] = {
			{ .fd = run->connection, .events = POLLIN },
			{ .fd = run->signals, .events = POLLIN },
			{ .fd = run->changes, .events = POLLIN },
		};

		if (poll(wait, 3, run->connection < 0 || is_refused(run) ? RETRY_MS : -1) < 0 && errno != EINTR)
			return;
		if (wait[2].revents && read(run->changes, changes, sizeof(changes)) < 0)
			continue;
		if ((wait[2].revents || is_refused(run)) && is_ours(run))
			deliver(run);
		if (wait[1].revents)
			receive_signal(run);
		if (run->connection < 0)
			reconnect(run);
		else if (wait[0].revents)
			receive_events(run);
	}
}

/* --- beginning and end --- */

static void watch_signals(struct run *run)
{
	static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM,
					 SIGCONT, SIGWINCH, SIGXCPU, SIGTSTP };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	run->signals = signalfd(-1, &set, SFD_CLOEXEC);
	signal(SIGPIPE, SIG_IGN);
}

static int parse(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{ "class", required_argument, NULL, 'c' },
		{ "job", required_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	run->class = getenv("CKPT_CLASS") ?: "default";
	run->job = getenv("CKPT_JOB");
	while ((option = getopt_long(argc, argv, "+c:j:h", options, NULL)) != -1) {
		switch (option) {
		case 'c': run->class = optarg; break;
		case 'j': run->job = optarg; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); return -EINVAL;
		}
	}
	if (optind == argc) {
		usage(stderr);
		return -EINVAL;
	}
	run->arguments = argv + optind;
	return 0;
}

/* Ends as the program ended, so that a shell or scheduler sees no difference. */
static int finish(const struct run *run)
{
	struct rlimit none = { 0, 0 };
	sigset_t set;

	if (run->end_signal) {
		setrlimit(RLIMIT_CORE, &none);
		signal(run->end_signal, SIG_DFL);
		sigemptyset(&set);
		sigaddset(&set, run->end_signal);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		raise(run->end_signal);
	}
	return run->status;
}

int command_run(int argc, char **argv)
{
	struct run run = { .connection = -1, .status = -1,
			   .outputs = { { .source = -1, .sink = 1 }, { .source = -1, .sink = 2 } } };
	struct problem problem;
	int ret;

	if (parse(&run, argc, argv))
		return STATUS_USAGE;
	run.cwd = getcwd(NULL, 0);
	if (!run.cwd) {
		say("cannot tell the working directory: %s; cd to one that is there", strerror(errno));
		return JOB_STATUS_FAILED;
	}
	if (run.job)
		snprintf(run.name, sizeof(run.name), "%s", run.job);
	else
		make_name(&run);
	if (job_check_name(run.job ? run.job : run.name, &problem)) {
		say("%s", problem.text);
		return STATUS_USAGE;
	}
	if (check_stdin() < 0)
		return JOB_STATUS_FAILED;
	run.merged = same_file(1, 2);
	run.notes = json_array();
	progress_begin(&run.progress, "restoring", !isatty(2));
	run.changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	watch_signals(&run);
	ret = send_request(&run, false);
	for (int tries = 0; (ret == -ENOENT || ret == -ECONNREFUSED) && tries < START_TRIES; tries++) {
		poll(NULL, 0, RETRY_MS);
		ret = send_request(&run, false);
	}
	if (ret) {
		say_no_daemon(-ret);
		return JOB_STATUS_FAILED;
	}
	follow(&run);
	return finish(&run);
}
