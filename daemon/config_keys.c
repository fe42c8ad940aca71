// SPDX-License-Identifier: GPL-2.0
/*
 * The keys: what may be written, what it means, why the default is what it is.  Defaults are written
 * as an admin would write them and go through the same parser and checks.
 */
#include "config_private.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "hook.h"
#include "tcp.h"

#define MANUAL_COLUMNS 100

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

struct unit {
	const char *name;
	uint64_t factor;
};

/* The largest first, for printing. */
static const struct unit duration_units[] = {
	{ "d", DAY }, { "h", HOUR }, { "m", MINUTE }, { "s", SECOND }, { "ms", 1 }, { NULL, 0 },
};
static const struct unit size_units[] = {
	{ "T", TIB }, { "G", GIB }, { "M", MIB }, { "K", 1024 }, { NULL, 0 },
};
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

static bool check_absolute_path(const char *value)
{
	return value[0] == '/' && strlen(value) < PATH_MAX;
}

static bool check_program(const char *value)
{
	return check_absolute_path(value) || (*value && !strchr(value, '/'));
}

static bool check_metrics_file(const char *value)
{
	size_t length = strlen(value);

	return check_absolute_path(value) && length > 5 && !strcmp(value + length - 5, ".prom") &&
	       value[length - 6] != '/';
}

static bool check_log_level(const char *value)
{
	return !strcmp(value, "err") || !strcmp(value, "warning") || !strcmp(value, "info") ||
	       !strcmp(value, "debug");
}

/* A number need not have a name on this node: the server's users may be others. */
static bool check_user(const char *value)
{
	char *end;

	if (!isdigit((unsigned char)*value))
		return getpwnam(value) != NULL;
	errno = 0;
	return strtoull(value, &end, 10) < UINT32_MAX && !*end && !errno;
}

static bool check_compress(const char *value)
{
	char *end;
	long level;

	if (!strcmp(value, "none") || !strcmp(value, "lz4") || !strcmp(value, "zstd"))
		return true;
	if (strncmp(value, "zstd:", 5) || !isdigit((unsigned char)value[5]))
		return false;
	level = strtol(value + 5, &end, 10);
	return !*end && level >= 1 && level <= 19;
}

static bool check_seal(const char *value)
{
	return !strcmp(value, "auto") || !strcmp(value, "none");
}

static bool check_restore(const char *value)
{
	return !strcmp(value, "eager") || !strcmp(value, "lazy");
}

/* "auto" alone, or a list in which no name comes twice. */
static bool check_mechanism(const char *value)
{
	static const char *const names[] = { "soft-dirty", "uffd-wp", "procfs", "hash" };
	cleanup_free char *copy = strdup(value);
	unsigned int seen = 0;
	char *place, *word;
	size_t i;

	if (!copy || !strcmp(value, "auto"))
		return copy != NULL;
	for (word = strtok_r(copy, ", \t", &place); word; word = strtok_r(NULL, ", \t", &place)) {
		for (i = 0; i < 4 && strcmp(word, names[i]); i++)
			;
		if (i == 4 || seen & 1u << i)
			return false;
		seen |= 1u << i;
	}
	return seen;
}

/* "none" alone, or a list of paths without "..", and of the word, if there is one. */
static bool check_directories(const char *value, const char *word)
{
	cleanup_free char *copy = strdup(value);
	bool any = false;
	char *place, *path;

	if (!copy || !strcmp(value, "none"))
		return copy != NULL;
	for (path = strtok_r(copy, ", \t", &place); path; path = strtok_r(NULL, ", \t", &place)) {
		size_t length = strlen(path);

		if ((!word || strcmp(path, word)) &&
		    (path[0] != '/' || length < 2 || path[length - 1] == '/' || strstr(path, "//") ||
		     strstr(path, "/./") || strstr(path, "/../") || !strcmp(path + length - 2, "/.") ||
		     (length > 2 && !strcmp(path + length - 3, "/.."))))
			return false;
		any = true;
	}
	return any;
}

static bool check_capture(const char *value)
{
	return check_directories(value, "cwd");
}

static bool check_private(const char *value)
{
	return check_directories(value, NULL);
}

static bool url_lacks(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	bool lacks = curl_url_get(url, part, &text, 0) != CURLUE_OK;

	curl_free(text);
	return lacks;
}

static bool url_part_is(CURLU *url, CURLUPart part, const char *wanted)
{
	char *text = NULL;
	bool is = curl_url_get(url, part, &text, 0) == CURLUE_OK && !strcmp(text, wanted);

	curl_free(text);
	return is;
}

static bool check_endpoint(const char *value)
{
	CURLU *url;
	bool good;

	if (!*value || !strcmp(value, "off"))
		return true;
	url = curl_url();
	good = url && curl_url_set(url, CURLUPART_URL, value, 0) == CURLUE_OK &&
	       url_part_is(url, CURLUPART_SCHEME, "http") && url_part_is(url, CURLUPART_PATH, "/") &&
	       url_lacks(url, CURLUPART_USER) && url_lacks(url, CURLUPART_QUERY) &&
	       url_lacks(url, CURLUPART_FRAGMENT);
	curl_url_cleanup(url);
	return good;
}

static bool check_tcp(const char *value)
{
	enum tcp_policy policy;

	return tcp_policy_parse(value, &policy) == 0;
}

int class_signal(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {
		{ "HUP", SIGHUP },   { "INT", SIGINT },	  { "QUIT", SIGQUIT }, { "TERM", SIGTERM },
		{ "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "ALRM", SIGALRM }, { "CONT", SIGCONT },
		{ "XCPU", SIGXCPU }, { "WINCH", SIGWINCH },
	};

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		if (!strcmp(name, signals[i].name))
			return signals[i].number;
	return 0;
}

static bool check_signal(const char *value)
{
	return !strcmp(value, "none") || class_signal(value);
}

#define DAEMON(field) .offset = offsetof(struct config, field)
#define CLASS(field) .offset = offsetof(struct class, field)
#define DURATION(low, high) .type = VALUE_DURATION, .min = (low), .max = (high)
#define LONG_DURATION(low, high) .type = VALUE_LONG_DURATION, .min = (low), .max = (high)
#define SIZE(low, high) .type = VALUE_SIZE, .min = (low), .max = (high)
#define COUNT(low, high) .type = VALUE_COUNT, .min = (low), .max = (high)
#define SIGNAL TEXT(check_signal, "none, HUP, INT, QUIT, TERM, USR1, USR2, ALRM, CONT, XCPU or WINCH")
#define HOOK TEXT(hook_valid, "[root|job] PROGRAM, with PROGRAM an absolute path without blanks")
#define TEXT(function, words) .type = VALUE_TEXT, .check = (function), .allowed = (words)

static const struct key daemon_keys[] = {
	{ "imds_endpoint", DAEMON(imds_endpoint), .reload = RELOAD_AT_ONCE,
	  .fallback_words = "$" IMDS_VARIABLE ", else " IMDS_ENDPOINT,
	  TEXT(check_endpoint, "http://HOST[:PORT], or off"),
	  .meaning = "EC2's instance metadata service, where the notices come from.",
	  .reason = "the address is the same on every instance, and AWS's own tools know the variable." },
	{ "imds_poll", DAEMON(imds_poll_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, MINUTE),
	  .fallback = "1s",
	  .meaning = "How often it is asked for a notice. The window of a notice that is seen late is "
		     "shorter by that much.",
	  .reason = "seconds of the window are worth more than the requests; EC2 recommends to ask "
		    "every 5s." },
	{ "imds_timeout", DAEMON(imds_timeout_ms), .reload = RELOAD_AT_ONCE, DURATION(100, 10 * SECOND),
	  .fallback = "2s",
	  .meaning = "How long one request to it may take.",
	  .reason = "it answers within milliseconds, or is throttled." },
	{ "key_file", DAEMON(key_file), .reload = RELOAD_NEVER, .fallback = "/etc/ckpt/key",
	  TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "The cluster's keys, with which everything in the stores is sealed: the same on all "
		     "nodes, readable by root only. 'ckptctl key' makes and changes it.",
	  .reason = "it lies beside the configuration." },
	{ "work_dir", DAEMON(work_dir), .reload = RELOAD_NEVER, .fallback = "/var/lib/ckpt",
	  TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "Local directory for CRIU's images and logs while it works, and for what must be "
		     "known of running jobs.",
	  .reason = "it outlives the daemon, and is the unit's StateDirectory=." },
	{ "criu", DAEMON(criu), .reload = RELOAD_NEVER, .fallback = "criu",
	  TEXT(check_program, "an absolute path, or a name that is looked up in PATH"),
	  .meaning = "The criu program, 3.17 or later.",
	  .reason = "the distribution's." },
	{ "clean_interval", DAEMON(clean_interval_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, 30 * DAY),
	  .fallback = "1h",
	  .meaning = "How often this node looks in the stores for checkpoints whose time has come; see "
		     "keep_after_end and keep_abandoned.",
	  .reason = "every node does it, and they are kept for hours or days." },
	{ "metrics_file", DAEMON(metrics_file), .reload = RELOAD_AT_ONCE, .fallback_words = "none",
	  TEXT(check_metrics_file, "an absolute path that ends with .prom"),
	  .meaning = "Written every 15 s for Prometheus, in a directory that node_exporter collects from "
		     "(--collector.textfile.directory). 'ckptd --help-metrics' tells what is in it.",
	  .reason = "not every cluster has Prometheus." },
	{ "log_level", DAEMON(log_level), .reload = RELOAD_AT_ONCE, .fallback = "info",
	  TEXT(check_log_level, "err, warning, info or debug"),
	  .meaning = "Lines below this level are not logged.",
	  .reason = "one line per epoch and checkpoint tells how a job was protected." },
};

static const struct key class_keys[] = {
	{ "store", CLASS(store), .reload = RELOAD_NEW_JOBS, .required = true,
	  TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "Directory on storage that all nodes share. Each job gets a directory in it." },
	{ "store_user", CLASS(store_user), .reload = RELOAD_NEW_JOBS,
	  .fallback_words = "the job's own user",
	  TEXT(check_user, "a user that exists on this node, or a user id"),
	  .meaning = "Whose rights are used in the store: no access to it is made as root.",
	  .reason = "quotas then count for who causes the data." },
	{ "mechanism", CLASS(mechanism), .reload = RELOAD_NEW_JOBS, .fallback = "auto",
	  TEXT(check_mechanism, "auto, or a list of soft-dirty, uffd-wp, procfs, hash, each once"),
	  .meaning = "How written pages are found. The first in the list that works is used.",
	  .reason = "the cheapest that the node has; 'ckptctl doctor' says which." },
	{ "capture", CLASS(capture), .reload = RELOAD_NEW_JOBS, .fallback = "none",
	  TEXT(check_capture, "none, or a list of absolute paths and of cwd, the working directory"),
	  .meaning = "Directories whose content is part of each checkpoint and put back by a restore. "
		     "Needed by programs that write their files in place or keep state in them: files "
		     "outside are only cut back to their size. Written parts are streamed with each "
		     "epoch.",
	  .reason = "most programs only append to their files." },
	{ "private", CLASS(private), .reload = RELOAD_NEW_JOBS, .fallback = "/dev/shm",
	  TEXT(check_private, "none, or a list of absolute paths"),
	  .meaning = "Directories that each job has for itself, empty at its start, captured, and gone "
		     "with it: /dev/shm in memory, others, like /tmp, in work_dir.",
	  .reason = "what MPI libraries keep there must move with the job." },
	{ "compress", CLASS(compress), .reload = RELOAD_NEW_JOBS, .fallback = "lz4",
	  TEXT(check_compress, "none, lz4, zstd or zstd:LEVEL with LEVEL from 1 to 19"),
	  .meaning = "How pages are compressed on their way to the store.",
	  .reason = "it is faster than any shared storage; zstd pays where the storage is slow." },
	{ "seal", CLASS(seal), .reload = RELOAD_NEW_JOBS, .fallback = "auto",
	  TEXT(check_seal, "auto or none"),
	  .meaning = "auto: all that lies in the store is encrypted and authenticated. none: pages and "
		     "files of the job are only authenticated, which costs less CPU: who can read the "
		     "store can then read the job's memory, but who can write it still cannot change "
		     "the job, or become root by it, since a restore takes nothing that the cluster's "
		     "key did not sign.",
	  .reason = "memory holds secrets." },
	{ "epoch_interval", CLASS(epoch_interval_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, HOUR),
	  .automatic = true, .fallback = "auto",
	  .meaning = "How often written pages are streamed while the job runs. auto: as rarely as the "
		     "window allows, from what the job writes and the store takes, and at least once "
		     "an hour. A fixed interval is a limit: streaming starts earlier when what is "
		     "outstanding would no longer fit the window.",
	  .reason = "pages that are written again and again then go to the store least often." },
	{ "checkpoint_interval", CLASS(checkpoint_interval_ms), .reload = RELOAD_AT_ONCE,
	  DURATION(10 * SECOND, 30 * DAY), .zero = true, .automatic = true, .fallback = "auto",
	  .meaning = "How often a checkpoint is committed without a notice; it bounds the work that "
		     "a node that dies without one can lose. auto: Daly's interval, from what a "
		     "checkpoint costs the job and mtbf. 0: only on notice.",
	  .reason = "notices are best effort, and neither lost work nor checkpoints are free." },
	{ "mtbf", CLASS(mtbf_ms), .reload = RELOAD_AT_ONCE, DURATION(10 * MINUTE, 40 * DAY),
	  .fallback = "1d",
	  .meaning = "For checkpoint_interval = auto: the mean time between losses of a node without "
		     "a usable notice. After a rebalance recommendation, and while a job cannot meet "
		     "the window, an eighth of it is taken.",
	  .reason = "pessimistic, and cheap: a checkpoint that costs the job 1 s comes every 7 minutes, "
		    "a 400th of its time." },
	{ "keep", CLASS(keep), .reload = RELOAD_AT_ONCE, COUNT(1, 100), .fallback = "2",
	  .meaning = "How many checkpoints of a job are kept.",
	  .reason = "if the newest is damaged, there is one before it." },
	{ "keep_after_end", CLASS(keep_after_end_ms), .reload = RELOAD_AT_ONCE,
	  LONG_DURATION(SECOND, 3650 * DAY), .zero = true, .fallback = "0",
	  .meaning = "How long the checkpoints of a job whose program has ended are kept, to look into "
		     "what it did. They are not restored by a run of the same name, unless the newest "
		     "term-* file of the job's directory in the store is removed. 0: they are removed "
		     "at once.",
	  .reason = "most are of no use any more, and memory holds secrets." },
	{ "keep_abandoned", CLASS(keep_abandoned_ms), .reload = RELOAD_AT_ONCE,
	  LONG_DURATION(SECOND, 3650 * DAY), .zero = true, .fallback = "0",
	  .meaning = "How long the checkpoints of a job are kept that was interrupted, or lost its node, "
		     "and that nobody has run again. Of classes with the same store the longest "
		     "counts. 0: for ever.",
	  .reason = "a job may wait long in a queue, and work that is lost is worse than a full disk." },
	{ "buffer_memory", CLASS(buffer_memory), .reload = RELOAD_NEW_JOBS, SIZE(4 * MIB, 64 * GIB),
	  .fallback = "64M",
	  .meaning = "Bound of all buffers between one job's memory and the store.",
	  .reason = "enough to keep storage busy that answers within some 10 ms at 1 GB/s." },
	{ "io_limit", CLASS(io_limit), .reload = RELOAD_AT_ONCE, SIZE(MIB, TIB), .zero = true,
	  .fallback = "0",
	  .meaning = "Bytes per second that are written to the store while the job runs. Not in a "
		     "final flush, and never while the job stands still. 0: no limit.",
	  .reason = "the sooner an epoch is done, the less is left to do when a notice comes." },
	{ "cpu_limit", CLASS(cpu_limit), .reload = RELOAD_AT_ONCE, COUNT(1, 1024), .zero = true,
	  .fallback = "0",
	  .meaning = "CPUs that read, compress and seal pages while the job runs, as the number of "
		     "threads that do it. Not in a final flush, and never while the job stands "
		     "still: then all CPUs do. 0: no limit.",
	  .reason = "streaming takes a small part of the time, and how many CPUs a job leaves idle is "
		    "the admin's to know." },
	{ "ghost_limit", CLASS(ghost_limit), .reload = RELOAD_AT_ONCE, SIZE(MIB, TIB), .fallback = "1G",
	  .meaning = "Deleted files that the job still has open are saved up to this size each; a "
		     "larger one makes the checkpoint fail (CRIU's --ghost-limit).",
	  .reason = "such files are saved whole while the job stands still." },
	{ "tcp", CLASS(tcp), .reload = RELOAD_AT_ONCE, .fallback = "established",
	  TEXT(check_tcp, "established, close or refuse"),
	  .meaning = "What becomes of the job's TCP connections. established: those between the job's own "
		     "processes by 127.0.0.1 or ::1 move with it (CRIU 3.19 or later); a job with others is "
		     "not saved. close: after a restore the program finds all of them closed; for "
		     "programs that connect again by themselves, since what was on its way is lost. "
		     "refuse: a job that has any is not saved.",
	  .reason = "no other connection can be the same on another node." },
	{ "window", CLASS(window_ms), .reload = RELOAD_AT_ONCE, DURATION(5 * SECOND, HOUR),
	  .fallback = "120s",
	  .meaning = "From the notice to the end of the node.",
	  .reason = "EC2's." },
	{ "margin", CLASS(margin_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, HOUR), .zero = true,
	  .fallback = "15s",
	  .meaning = "The part of the window that is kept free. Shorter than the window.",
	  .reason = "EC2 calls the time in its notice approximate." },
	{ "reserve", CLASS(reserve), .reload = RELOAD_AT_ONCE, COUNT(1, 100), .automatic = true,
	  .fallback = "auto",
	  .meaning = "How many times slower than measured the store may be after a notice without the "
		     "window being missed: other nodes save their jobs at the same time. The number "
		     "of nodes that one notice may hit, and that share the store, is on the safe "
		     "side. What a job has seen after earlier notices counts if it is more. auto: as "
		     "much as streaming in a tenth of the time buys, between 2 and 10.",
	  .reason = "nobody can know it; 'ckptbench policy --reserve' shows what each value costs." },
	{ "restore", CLASS(restore), .reload = RELOAD_NEW_JOBS, .fallback = "eager",
	  TEXT(check_restore, "eager or lazy"),
	  .meaning = "eager: all memory is read before the job runs. lazy: the job runs at once, whatever its "
		     "size; pages come when they are touched, and all others meanwhile, those that were "
		     "written last first. Until all have come there are no epochs and no checkpoints; if "
		     "they cannot come, because the store is damaged, or what gives them is killed, the job "
		     "is ended with status 75. Its next restore from the same checkpoint is then eager. "
		     "Shared memory, locked memory and pages of hugetlbfs are always read before.",
	  .reason = "all that a restore needs is then known to be whole before the job is this node's." },
	{ "pre_restore", CLASS(pre_restore), .reload = RELOAD_AT_ONCE, .fallback_words = "none", HOOK,
	  .meaning = "Run before a job is restored here, which waits for it and fails if it fails: to "
		     "move an address or a volume to this node, or to wait for a license. As the job's "
		     "user, or as root where that is said. What it gets in its environment stands in "
		     "daemon/hook.h and in the README.",
	  .reason = "most jobs need nothing of the node." },
	{ "post_restore", CLASS(post_restore), .reload = RELOAD_AT_ONCE, .fallback_words = "none", HOOK,
	  .meaning = "Run when a restored job runs again.",
	  .reason = "most jobs need nothing of the node." },
	{ "on_committed", CLASS(on_committed), .reload = RELOAD_AT_ONCE, .fallback_words = "none", HOOK,
	  .meaning = "Run after each checkpoint that was committed. After a final one, the job's end waits "
		     "for it.",
	  .reason = "'ckptctl status' tells as well." },
	{ "on_missed", CLASS(on_missed), .reload = RELOAD_AT_ONCE, .fallback_words = "none", HOOK,
	  .meaning = "Run once when a final checkpoint will not be durable in time.",
	  .reason = "the log tells as well; the job goes on from its last checkpoint." },
	{ "on_forecast", CLASS(on_forecast), .reload = RELOAD_AT_ONCE, .fallback_words = "none", HOOK,
	  .meaning = "Run when a job can no longer be saved within the window, and when it can again: to ask "
		     "for another node, or for one on demand.",
	  .reason = "the log and the job's own output tell as well." },
	{ "notice_signal", CLASS(notice_signal), .reload = RELOAD_AT_ONCE, .fallback = "none", SIGNAL,
	  .meaning = "Sent to the job's process group when an interruption is announced, before it is "
		     "saved: for programs that then write a file of their own. It ends a program that "
		     "does not expect it.",
	  .reason = "a job need not know that it moves." },
	{ "notice_grace", CLASS(notice_grace_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, 10 * MINUTE),
	  .zero = true, .fallback = "0",
	  .meaning = "How long the job runs on after notice_signal before it is saved; less, when the "
		     "window could be missed otherwise.",
	  .reason = "the window is short." },
	{ "save_signal", CLASS(save_signal), .reload = RELOAD_AT_ONCE, .fallback = "none", SIGNAL,
	  .meaning = "When 'ckptctl run' gets this signal, the job is saved and ends with status 75, as after "
		     "a notice; the program does not get it. For schedulers that announce a time limit, a "
		     "preemption or a requeue by a signal: Slurm sends TERM, or what sbatch --signal names.",
	  .reason = "the program may have a use for it." },
	{ "save_window", CLASS(save_window_ms), .reload = RELOAD_AT_ONCE, DURATION(5 * SECOND, HOUR),
	  .fallback = "30s",
	  .meaning = "How long after save_signal the job has until it is killed; what its final checkpoint, also one "
		     "that 'ckptctl checkpoint --end' asks for, plans with.",
	  .reason = "Slurm's KillWait." },
	{ "end_signal", CLASS(end_signal), .reload = RELOAD_AT_ONCE, .fallback = "TERM", SIGNAL,
	  .meaning = "Sent to the job's process group when it is ended without being saved, because its "
		     "'ckptctl run' is gone; end_grace later it is killed.",
	  .reason = "as schedulers and shells do it." },
	{ "end_grace", CLASS(end_grace_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, 30 * SECOND),
	  .zero = true, .fallback = "5s",
	  .meaning = "How long the job has from end_signal to SIGKILL.",
	  .reason = "enough to remove temporary files; its checkpoints stay." },
	{ "hook_timeout", CLASS(hook_timeout_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, HOUR),
	  .fallback = "30s",
	  .meaning = "A hook that takes longer is ended, with its process group, and counts as failed.",
	  .reason = "a quarter of the window; waiting for a license may need more." },
	{ "criu_timeout", CLASS(criu_timeout_ms), .reload = RELOAD_AT_ONCE, DURATION(SECOND, HOUR),
	  .fallback = "60s",
	  .meaning = "A criu that takes longer is ended. The job goes on; if criu had hold of it, it is "
		     "ended too, and goes back to its last checkpoint. A restore may take four times as "
		     "long.",
	  .reason = "half of the window." },
};

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
_Static_assert(ARRAY_SIZE(daemon_keys) <= SECTION_KEYS_MAX, "seen[] of the parser");
_Static_assert(ARRAY_SIZE(class_keys) <= SECTION_KEYS_MAX, "seen[] of the parser");

const struct section daemon_section = { "daemon", daemon_keys, ARRAY_SIZE(daemon_keys),
					offsetof(struct config, origins) };
const struct section class_section = { "class", class_keys, ARRAY_SIZE(class_keys),
				       offsetof(struct class, origins) };

/* What an unsigned number with a unit says: 0, -EINVAL without a known unit, -ERANGE. */
static int number_parse(const char *text, const struct unit *units, uint64_t *value)
{
	uint64_t number;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (!number && !*end) {
		*value = 0;
		return 0;
	}
	while (units->name && strcmp(end, units->name))
		units++;
	if (!units->name)
		return -EINVAL;
	return __builtin_mul_overflow(number, units->factor, value) ? -ERANGE : 0;
}

/* In the largest unit that divides it, so that the text parses back to the same number. */
static void number_print(char text[32], const struct unit *units, uint64_t value)
{
	while (units[1].name && value % units->factor)
		units++;
	snprintf(text, 32, "%llu%s", (unsigned long long)(value / units->factor), value ? units->name : "");
}
static const struct unit *key_units(const struct key *key)
{
	return key->type == VALUE_DURATION || key->type == VALUE_LONG_DURATION ? duration_units :
	       key->type == VALUE_SIZE ? size_units : no_units;
}

void key_allowed(const struct key *key, char *text, size_t size)
{
	static const char *const kinds[] = {
		[VALUE_DURATION] = "a duration", [VALUE_LONG_DURATION] = "a duration",
		[VALUE_SIZE] = "a size", [VALUE_COUNT] = "a number",
	};
	static const char *const units[] = {
		[VALUE_DURATION] = " with its unit (ms, s, m, h, d)",
		[VALUE_LONG_DURATION] = " with its unit (ms, s, m, h, d)",
		[VALUE_SIZE] = " with its unit (K, M, G, T)",
		[VALUE_COUNT] = "",
	};
	char min[32], max[32];

	if (key->type == VALUE_TEXT) {
		snprintf(text, size, "%s", key->allowed);
		return;
	}
	number_print(min, key_units(key), key->min);
	number_print(max, key_units(key), key->max);
	snprintf(text, size, "%s%s from %s to %s%s%s", key->automatic ? "auto, or " : "",
		 kinds[key->type], min, max, units[key->type], key->zero ? ", or 0" : "");
}

static int key_set_text(const struct key *key, void *target, const char *value)
{
	char **field = (char **)((char *)target + key->offset);
	char *copy;

	if (!key->check(value))
		return -EINVAL;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static void key_set_number(const struct key *key, void *target, uint64_t number)
{
	char *field = (char *)target + key->offset;

	if (key->type == VALUE_SIZE || key->type == VALUE_LONG_DURATION)
		*(uint64_t *)field = number;
	else
		*(unsigned int *)field = (unsigned int)number;
}

int key_set(const struct key *key, void *target, const char *value)
{
	uint64_t number;
	int result;

	if (key->type == VALUE_TEXT)
		return key_set_text(key, target, value);
	if (key->automatic && !strcmp(value, "auto")) {
		key_set_number(key, target, CONFIG_AUTO);
		return 0;
	}
	result = number_parse(value, key_units(key), &number);
	if (result)
		return result;
	if ((number || !key->zero) && (number < key->min || number > key->max))
		return -ERANGE;
	key_set_number(key, target, number);
	return 0;
}

char *key_value(const struct key *key, const void *target)
{
	const char *field = (const char *)target + key->offset;
	char text[32];
	uint64_t number;

	if (key->type == VALUE_TEXT)
		return *(char *const *)field ? strdup(*(char *const *)field) : NULL;
	number = key->type == VALUE_SIZE || key->type == VALUE_LONG_DURATION ? *(const uint64_t *)field :
									       *(const unsigned int *)field;
	if (key->automatic && number == CONFIG_AUTO)
		return strdup("auto");
	number_print(text, key_units(key), number);
	return strdup(text);
}

const struct key *section_find_key(const struct section *section, const char *name)
{
	size_t i;

	for (i = 0; i < section->key_count; i++)
		if (!strcmp(section->keys[i].name, name))
			return &section->keys[i];
	return NULL;
}

struct origins *section_origins(const struct section *section, const void *target)
{
	return (struct origins *)((char *)target + section->origins);
}

int section_set_defaults(const struct section *section, void *target)
{
	struct origins *origins = section_origins(section, target);
	int result = 0;
	size_t i;

	origins->list = calloc(section->key_count, sizeof(*origins->list));
	if (!origins->list)
		return -ENOMEM;
	for (i = 0; i < section->key_count && !result; i++)
		if (section->keys[i].fallback)
			result = key_set(&section->keys[i], target, section->keys[i].fallback);
	return result;
}

void section_free(const struct section *section, void *target)
{
	struct origins *origins = section_origins(section, target);
	size_t i;

	for (i = 0; i < section->key_count; i++) {
		if (section->keys[i].type == VALUE_TEXT)
			free(*(char **)((char *)target + section->keys[i].offset));
		if (origins->list)
			free(origins->list[i]);
	}
	free(origins->list);
}

/* Indented, in lines of at most MANUAL_COLUMNS. */
static void print_words(const char *text)
{
	int column = 0;

	while (*text) {
		int length = (int)strcspn(text, " ");

		if (!column || column + 1 + length > MANUAL_COLUMNS) {
			printf("%s\t%.*s", column ? "\n" : "", length, text);
			column = 8 + length;
		} else {
			column += printf(" %.*s", length, text);
		}
		text += length;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void key_print_manual(const struct key *key)
{
	static const char *const reloads[] = {
		[RELOAD_AT_ONCE] = NULL,
		[RELOAD_NEW_JOBS] = "A reload changes it for new jobs; running ones keep theirs.",
		[RELOAD_NEVER] = "A change takes effect when ckptd is started again.",
	};
	char text[600], allowed[200];

	key_allowed(key, allowed, sizeof(allowed));
	printf("\n%s = %s\n", key->name, allowed);
	print_words(key->meaning);
	if (key->required)
		snprintf(text, sizeof(text), "Required.");
	else
		snprintf(text, sizeof(text), "Default: %s. Why: %s",
			 key->fallback_words ? key->fallback_words : key->fallback, key->reason);
	print_words(text);
	if (reloads[key->reload])
		print_words(reloads[key->reload]);
}

static void section_print_manual(const struct section *section)
{
	size_t i;

	for (i = 0; i < section->key_count; i++)
		key_print_manual(&section->keys[i]);
}

void config_print_manual(void)
{
	printf("The configuration is /etc/ckpt/ckptd.conf and then conf.d/*.conf beside it, in the order of\n"
	       "their names.  A later file may go on with a section of an earlier one: its values count.\n"
	       "\nLines are '[section]', 'key = value' or comments: a line that starts with '#' or ';', or\n"
	       "' ;' and what follows it. A line has up to 197 bytes; there are no continuation lines.\n"
	       "Unknown sections and keys, doubles in a file and bad values are errors.\n"
	       "\n'systemctl reload ckptd' or 'ckptctl reload' reads it again.  If it has an error, all stays\n"
	       "as it was.  Running jobs take new values with their next step, unless it says otherwise.\n"
	       "\n[daemon]\n\tAbout this node.\n");
	section_print_manual(&daemon_section);
	printf("\n[class NAME]\n\tA class of jobs; at least one. NAME: 1 to %d letters, digits, '_', '-'.\n"
	       "\tA class takes nothing over from another one.\n", CLASS_NAME_MAX);
	section_print_manual(&class_section);
}
