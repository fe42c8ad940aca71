// SPDX-License-Identifier: GPL-2.0
/*
 * libinih splits the lines; everything that it would pass over in silence is refused here before it
 * sees the line: lines longer than its buffer (it would cut them in two), continuation lines (leading
 * blanks are dropped, so there are none), text after a section's ']', control characters.
 *
 * Defaults are written as an admin would write them and go through the same parser and checks.
 */
#include "config.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <jansson.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"

#define IMDS_ENDPOINT "http://169.254.169.254"
#define IMDS_VARIABLE "AWS_EC2_METADATA_SERVICE_ENDPOINT"
#define CLASS_NAME_MAX 32
#define CLASSES_MAX 256
#define KEYS_MAX 32

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

enum value_type {
	VALUE_DURATION,              /* into an unsigned int, milliseconds */
	VALUE_SIZE,                  /* into a uint64_t, bytes */
	VALUE_COUNT,                 /* into an unsigned int */
	VALUE_TEXT,                  /* into a char * */
};

struct key {
	const char *name;
	enum value_type type;
	size_t offset;
	uint64_t min, max;
	bool zero;                   /* 0 is allowed besides min..max */
	bool required;
	const char *fallback;        /* the default as text; NULL: the field stays NULL */
	const char *fallback_words;  /* what the manual says instead */
	const char *allowed;         /* of a text: what check accepts */
	bool (*check)(const char *value);
	const char *meaning;
};

struct section {
	const char *name;
	const struct key *keys;
	size_t key_count;
};

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

#define DAEMON(field) .offset = offsetof(struct config, field)
#define CLASS(field) .offset = offsetof(struct class, field)
#define DURATION(low, high) .type = VALUE_DURATION, .min = (low), .max = (high)
#define SIZE(low, high) .type = VALUE_SIZE, .min = (low), .max = (high)
#define COUNT(low, high) .type = VALUE_COUNT, .min = (low), .max = (high)
#define TEXT(function, words) .type = VALUE_TEXT, .check = (function), .allowed = (words)

static const struct key daemon_keys[] = {
	{ "imds_endpoint", DAEMON(imds_endpoint), .fallback_words = "$" IMDS_VARIABLE
	  ", else " IMDS_ENDPOINT, TEXT(check_endpoint, "http://HOST[:PORT], or off"),
	  .meaning = "EC2's instance metadata service, where the notices come from." },
	{ "imds_poll", DAEMON(imds_poll_ms), DURATION(SECOND, MINUTE), .fallback = "5s",
	  .meaning = "How often it is asked for a notice. EC2 recommends 5s." },
	{ "imds_timeout", DAEMON(imds_timeout_ms), DURATION(100, 10 * SECOND), .fallback = "2s",
	  .meaning = "How long one request to it may take." },
	{ "key_file", DAEMON(key_file), .fallback = "/etc/ckpt/key",
	  TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "The cluster's keys, with which everything in the stores is sealed: the same on all "
		     "nodes, readable by root only. 'ckptctl key' makes and changes it." },
	{ "work_dir", DAEMON(work_dir), .fallback = "/var/lib/ckpt",
	  TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "Local directory for CRIU's images and logs while it works." },
	{ "criu", DAEMON(criu), .fallback = "criu",
	  TEXT(check_program, "an absolute path, or a name that is looked up in PATH"),
	  .meaning = "The criu program, 3.17 or later." },
	{ "log_level", DAEMON(log_level), .fallback = "info",
	  TEXT(check_log_level, "err, warning, info or debug"),
	  .meaning = "Lines below this level are not logged." },
};

static const struct key class_keys[] = {
	{ "store", CLASS(store), .required = true, TEXT(check_absolute_path, "an absolute path"),
	  .meaning = "Directory on storage that all nodes share. Each job gets a directory in it." },
	{ "store_user", CLASS(store_user), .fallback_words = "the job's own user",
	  TEXT(check_user, "a user that exists on this node, or a user id"),
	  .meaning = "Whose rights are used in the store: no access to it is made as root." },
	{ "mechanism", CLASS(mechanism), .fallback = "auto",
	  TEXT(check_mechanism, "auto, or a list of soft-dirty, uffd-wp, procfs, hash, each once"),
	  .meaning = "How written pages are found. The first in the list that works is used." },
	{ "capture", CLASS(capture), .fallback = "none",
	  TEXT(check_capture, "none, or a list of absolute paths and of cwd, the working directory"),
	  .meaning = "Directories whose content is part of each checkpoint and put back by a restore. "
		     "Needed by programs that write their files in place or keep state in them: files "
		     "outside are only cut back to their size. Written parts are streamed with each "
		     "epoch." },
	{ "private", CLASS(private), .fallback = "/dev/shm",
	  TEXT(check_private, "none, or a list of absolute paths"),
	  .meaning = "Directories that each job has for itself, empty at its start, captured, and gone "
		     "with it: /dev/shm in memory, others, like /tmp, in work_dir." },
	{ "compress", CLASS(compress), .fallback = "lz4",
	  TEXT(check_compress, "none, lz4, zstd or zstd:LEVEL with LEVEL from 1 to 19"),
	  .meaning = "How pages are compressed on their way to the store." },
	{ "seal", CLASS(seal), .fallback = "auto", TEXT(check_seal, "auto or none"),
	  .meaning = "auto: all that lies in the store is encrypted and authenticated. none: pages and "
		     "files of the job are only authenticated, which costs less CPU: who can read the "
		     "store can then read the job's memory, but who can write it still cannot change "
		     "the job, or become root by it, since a restore takes nothing that the cluster's "
		     "key did not sign." },
	{ "epoch_interval", CLASS(epoch_interval_ms), DURATION(SECOND, HOUR), .fallback = "30s",
	  .meaning = "How often written pages are streamed while the job runs. Streaming starts "
		     "earlier when what is outstanding would no longer fit the window." },
	{ "checkpoint_interval", CLASS(checkpoint_interval_ms), DURATION(10 * SECOND, 30 * DAY),
	  .zero = true, .fallback = "10m",
	  .meaning = "How often a checkpoint is committed without a notice; it bounds the work that "
		     "a node that dies without one can lose. 0: only on notice." },
	{ "keep", CLASS(keep), COUNT(1, 100), .fallback = "2",
	  .meaning = "How many checkpoints of a job are kept." },
	{ "buffer_memory", CLASS(buffer_memory), SIZE(4 * MIB, 64 * GIB), .fallback = "64M",
	  .meaning = "Bound of all buffers between one job's memory and the store." },
	{ "io_limit", CLASS(io_limit), SIZE(MIB, TIB), .zero = true, .fallback = "0",
	  .meaning = "Bytes per second that are written to the store while the job runs. Not in a "
		     "final flush, and never while the job stands still. 0: no limit." },
	{ "cpu_limit", CLASS(cpu_limit), COUNT(1, 1024), .zero = true, .fallback = "0",
	  .meaning = "CPUs that read, compress and seal pages while the job runs, as the number of "
		     "threads that do it. Not in a final flush, and never while the job stands "
		     "still: then all CPUs do. 0: no limit." },
	{ "ghost_limit", CLASS(ghost_limit), SIZE(MIB, TIB), .fallback = "1G",
	  .meaning = "Deleted files that the job still has open are saved up to this size each; a "
		     "larger one makes the checkpoint fail (CRIU's --ghost-limit)." },
	{ "window", CLASS(window_ms), DURATION(5 * SECOND, HOUR), .fallback = "120s",
	  .meaning = "From the notice to the end of the node." },
	{ "margin", CLASS(margin_ms), DURATION(SECOND, HOUR), .zero = true, .fallback = "15s",
	  .meaning = "The part of the window that is kept free. Shorter than the window." },
	{ "criu_timeout", CLASS(criu_timeout_ms), DURATION(SECOND, HOUR), .fallback = "60s",
	  .meaning = "A criu that takes longer is ended. The job goes on; if criu had hold of it, it is "
		     "ended too, and goes back to its last checkpoint." },
};

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
_Static_assert(ARRAY_SIZE(daemon_keys) <= KEYS_MAX, "seen[] of the parser");
_Static_assert(ARRAY_SIZE(class_keys) <= KEYS_MAX, "seen[] of the parser");

static const struct section daemon_section = { "daemon", daemon_keys, ARRAY_SIZE(daemon_keys) };
static const struct section class_section = { "class", class_keys, ARRAY_SIZE(class_keys) };

/* Where the parser is. The first error ends it: the reader then reports the end of the file. */
struct parser {
	const char *path;
	FILE *file;
	char *buffer;
	size_t buffer_size;
	unsigned int line;
	const struct section *section;   /* NULL before the first one */
	void *target;                    /* struct config or struct class */
	unsigned int section_line;
	unsigned int daemon_line;        /* 0: no [daemon] yet */
	unsigned int seen[KEYS_MAX];     /* by key: the line that gave it */
	struct config *config;
	struct problem *problem;
	unsigned int error_line;
	int error;
};

__attribute__((format(printf, 3, 4)))
static void parser_fail(struct parser *parser, unsigned int line, const char *format, ...)
{
	char text[600], place[16] = "";
	va_list args;

	if (parser->error)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	parser->error_line = line;
	/* What is missing altogether is missing in no line. */
	if (line)
		snprintf(place, sizeof(place), ":%u", line);
	parser->error = problem_set(parser->problem, EINVAL, "%s%s: %s", parser->path, place, text);
}

static int parser_fail_memory(struct parser *parser)
{
	parser->error = problem_set(parser->problem, ENOMEM, "%s: out of memory", parser->path);
	return parser->error;
}

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
	snprintf(text, 32, "%llu%s", (unsigned long long)(value / units->factor), units->name);
}

static const struct unit *key_units(const struct key *key)
{
	return key->type == VALUE_DURATION ? duration_units :
	       key->type == VALUE_SIZE	   ? size_units :
					     no_units;
}

/* "a duration from 1s to 1h (units ms, s, m, h, d), or 0" */
static void key_allowed(const struct key *key, char *text, size_t size)
{
	char min[32], max[32];

	if (key->type == VALUE_TEXT) {
		snprintf(text, size, "%s", key->allowed);
		return;
	}
	number_print(min, key_units(key), key->min);
	number_print(max, key_units(key), key->max);
	snprintf(text, size, "%s from %s to %s%s%s",
		 key->type == VALUE_DURATION ? "a duration" :
		 key->type == VALUE_SIZE     ? "a size" :
					       "a number",
		 min, max,
		 key->type == VALUE_DURATION ? " with its unit (ms, s, m, h, d)" :
		 key->type == VALUE_SIZE     ? " with its unit (K, M, G, T)" :
					       "",
		 key->zero ? ", or 0" : "");
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

static int key_set(const struct key *key, void *target, const char *value)
{
	char *field = (char *)target + key->offset;
	uint64_t number;
	int result;

	if (key->type == VALUE_TEXT)
		return key_set_text(key, target, value);
	result = number_parse(value, key_units(key), &number);
	if (result)
		return result;
	if ((number || !key->zero) && (number < key->min || number > key->max))
		return -ERANGE;
	if (key->type == VALUE_SIZE)
		*(uint64_t *)field = number;
	else
		*(unsigned int *)field = number;
	return 0;
}

static int section_set_defaults(const struct section *section, void *target)
{
	int result = 0;
	size_t i;

	for (i = 0; i < section->key_count && !result; i++)
		if (section->keys[i].fallback)
			result = key_set(&section->keys[i], target, section->keys[i].fallback);
	return result;
}

static void parser_finish_section(struct parser *parser)
{
	const struct section *section = parser->section;
	const struct class *class = parser->target;
	size_t i;

	for (i = 0; section && i < section->key_count; i++)
		if (section->keys[i].required && !parser->seen[i])
			parser_fail(parser, parser->section_line, "[%s %s] lacks '%s = VALUE', %s",
				    section->name, class->name, section->keys[i].name,
				    section->keys[i].allowed);
	if (section == &class_section && class->margin_ms >= class->window_ms)
		parser_fail(parser, parser->section_line,
			    "[class %s]: margin (%u ms) must be shorter than window (%u ms)",
			    class->name, class->margin_ms, class->window_ms);
}

static void parser_start_daemon(struct parser *parser)
{
	if (parser->daemon_line)
		parser_fail(parser, parser->line, "[daemon] stands already at line %u; once is allowed",
			    parser->daemon_line);
	parser->daemon_line = parser->line;
	parser->section = &daemon_section;
	parser->target = parser->config;
}

static bool class_name_valid(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789_-";
	size_t length = strlen(name);

	return length >= 1 && length <= CLASS_NAME_MAX && strspn(name, letters) == length;
}

static int config_add_class(struct config *config, const char *name)
{
	struct class *classes = reallocarray(config->classes, config->class_count + 1,
					     sizeof(*classes));
	struct class *class;

	if (!classes)
		return -ENOMEM;
	config->classes = classes;
	class = &classes[config->class_count++];
	memset(class, 0, sizeof(*class));
	class->name = strdup(name);
	return class->name ? section_set_defaults(&class_section, class) : -ENOMEM;
}

static void parser_start_class(struct parser *parser, const char *name)
{
	if (!class_name_valid(name)) {
		parser_fail(parser, parser->line,
			    "'%.64s' is no name for a class; 1 to %d letters, digits, '_' and '-' are",
			    name, CLASS_NAME_MAX);
	} else if (config_class(parser->config, name)) {
		parser_fail(parser, parser->line, "[class %s] stands twice; once is allowed", name);
	} else if (parser->config->class_count == CLASSES_MAX) {
		parser_fail(parser, parser->line, "more than %d classes; fewer are allowed",
			    CLASSES_MAX);
	} else if (config_add_class(parser->config, name)) {
		parser_fail_memory(parser);
	} else {
		parser->section = &class_section;
		parser->target = &parser->config->classes[parser->config->class_count - 1];
	}
}

/* header is the line from '[' on; a copy is cut up, inih gets the original. */
static void parser_start_section(struct parser *parser, const char *header)
{
	cleanup_free char *name = strdup(header + 1);
	char *end = name ? strchr(name, ']') : NULL;
	const char *rest = end ? end + 1 + strspn(end + 1, " \t") : NULL;

	if (!name) {
		parser_fail_memory(parser);
		return;
	}
	if (!end || (*rest && !strchr(";#", *rest))) {
		parser_fail(parser, parser->line,
			    "a section is [daemon] or [class NAME] and nothing behind it");
		return;
	}
	*end = '\0';
	parser_finish_section(parser);
	memset(parser->seen, 0, sizeof(parser->seen));
	parser->section_line = parser->line;
	if (!strcmp(name, "daemon"))
		parser_start_daemon(parser);
	else if (!strncmp(name, "class ", 6))
		parser_start_class(parser, name + 6 + strspn(name + 6, " "));
	else
		parser_fail(parser, parser->line,
			    "unknown section [%.64s]; [daemon] and [class NAME] are allowed", name);
}

/* Everything here may end up in status, which is JSON: the same judge of what is text. */
static bool text_valid(const char *text, size_t length)
{
	json_t *string = json_stringn(text, length);
	bool valid = string != NULL;
	size_t i;

	json_decref(string);
	for (i = 0; i < length; i++)
		if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
			return false;
	return valid;
}

/* Checks and trims one line of the file; NULL: refused. */
static char *parser_take_line(struct parser *parser, ssize_t length, int limit)
{
	char *line = parser->buffer;

	while (length && strchr("\r\n", line[length - 1]) && line[length - 1])
		line[--length] = '\0';
	if (parser->line == 1 && !strncmp(line, "\xef\xbb\xbf", 3)) {
		line += 3;
		length -= 3;
	}
	if (!text_valid(line, length)) {
		parser_fail(parser, parser->line,
			    "bytes that are no text; UTF-8 without control characters is allowed");
		return NULL;
	}
	line += strspn(line, " \t");
	if (strlen(line) > (size_t)limit - 3) {
		parser_fail(parser, parser->line, "the line has %zu bytes; up to %d are allowed",
			    strlen(line), limit - 3);
		return NULL;
	}
	return line;
}

/* inih's fgets(). */
static char *parser_read(char *to, int size, void *stream)
{
	struct parser *parser = stream;
	ssize_t length;
	char *line;

	if (parser->error)
		return NULL;
	length = getline(&parser->buffer, &parser->buffer_size, parser->file);
	if (length < 0) {
		if (ferror(parser->file))
			parser->error = problem_set(parser->problem, EIO, "%s: cannot read: %s",
						    parser->path, strerror(errno));
		return NULL;
	}
	parser->line++;
	line = parser_take_line(parser, length, size);
	if (line && *line == '[')
		parser_start_section(parser, line);
	if (!line || parser->error)
		return NULL;
	snprintf(to, size, "%s\n", line);
	return to;
}

static const struct key *section_find_key(const struct section *section, const char *name)
{
	size_t i;

	for (i = 0; i < section->key_count; i++)
		if (!strcmp(section->keys[i].name, name))
			return &section->keys[i];
	return NULL;
}

static void parser_fail_unknown(struct parser *parser, const char *name)
{
	char names[400] = "";
	size_t i;

	for (i = 0; i < parser->section->key_count; i++) {
		strcat(names, i ? ", " : "");
		strcat(names, parser->section->keys[i].name);
	}
	parser_fail(parser, parser->line, "unknown key '%.64s' in [%s]; %s are allowed", name,
		    parser->section->name, names);
}

static void parser_set(struct parser *parser, const char *name, const char *value)
{
	const struct key *key = section_find_key(parser->section, name);
	unsigned int *seen;
	char allowed[200];
	int result;

	if (!key) {
		parser_fail_unknown(parser, name);
		return;
	}
	seen = &parser->seen[key - parser->section->keys];
	if (*seen) {
		parser_fail(parser, parser->line, "'%s' stands already at line %u; once is allowed",
			    name, *seen);
		return;
	}
	*seen = parser->line;
	result = key_set(key, parser->target, value);
	if (result == -ENOMEM)
		parser_fail_memory(parser);
	if (!result || parser->error)
		return;
	key_allowed(key, allowed, sizeof(allowed));
	parser_fail(parser, parser->line, "%s = '%.128s' is %s; %s is allowed", name, value,
		    result == -ERANGE ? "out of range" : "not valid", allowed);
}

/* inih's handler: nonzero is success. Its section is cut at 49 bytes, so ours is used. */
static int parser_handle(void *user, const char *section, const char *name, const char *value)
{
	struct parser *parser = user;

	if (!name)
		return 1;
	if (!value)
		return 0;
	if (!parser->section)
		parser_fail(parser, parser->line,
			    "'%.64s' stands before the first section; [daemon] or [class NAME] is needed",
			    name);
	else if (strstr(value, " #") || strstr(value, "\t#"))
		parser_fail(parser, parser->line,
			    "'#' within a value; a comment on a line of its own or behind ' ;' is allowed");
	else
		parser_set(parser, name, value);
	return !parser->error;
}

/* The daemon is root and runs the criu that the file names: who may write it is root, too. */
static int config_open(FILE **file, const char *path, struct problem *problem)
{
	/* O_NONBLOCK: a fifo in the file's place must not hang the daemon. */
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status))
		return problem_set(problem, errno, "%s: cannot read: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_size > (off_t)MIB)
		return problem_set(problem, EINVAL,
				   "%s: not a configuration; a regular file of up to 1M is allowed", path);
	if (status.st_mode & S_IWOTH || (status.st_uid && status.st_uid != geteuid()))
		return problem_set(problem, EPERM,
				   "%s: others may write it, and the daemon runs as root; only root may: "
				   "chown root %s; chmod go-w %s", path, path, path);
	*file = fdopen(fd, "r");
	if (!*file)
		return problem_set(problem, errno, "%s: cannot read: %s", path, strerror(errno));
	take_fd(fd);
	return 0;
}

static int parser_run(struct parser *parser)
{
	int line = ini_parse_stream(parser_read, parser, parser_handle, parser);

	/* A line that inih refused by itself comes before the error that stopped the reader. */
	if (line > 0 && (!parser->error || (unsigned int)line < parser->error_line)) {
		parser->error = 0;
		parser_fail(parser, line, "'key = value', [section] or a comment is allowed here");
	}
	if (line == -2)
		parser_fail_memory(parser);
	if (!parser->error)
		parser_finish_section(parser);
	if (!parser->error && !parser->config->class_count)
		parser_fail(parser, parser->line,
			    "no job class; at least one [class NAME] with 'store = DIRECTORY' is needed");
	return parser->error;
}

/* The file wins, then the variable that AWS's own tools know; a slash at the end goes. */
static int config_settle_endpoint(struct config *config, struct problem *problem)
{
	const char *variable = getenv(IMDS_VARIABLE);
	const struct key *key = section_find_key(&daemon_section, "imds_endpoint");
	size_t length;
	int result;

	if (!config->imds_endpoint) {
		result = key_set(key, config, variable && *variable ? variable : IMDS_ENDPOINT);
		if (result)
			return problem_set(problem, -result,
					   "environment variable " IMDS_VARIABLE
					   " = '%.128s' is not valid; %s is allowed",
					   variable ?: "", key->allowed);
	}
	if (!strcmp(config->imds_endpoint, "off"))
		config->imds_endpoint[0] = '\0';
	length = strlen(config->imds_endpoint);
	if (length && config->imds_endpoint[length - 1] == '/')
		config->imds_endpoint[length - 1] = '\0';
	return 0;
}

int config_load(struct config **config, const char *path, struct problem *problem)
{
	struct parser parser = { .path = path, .problem = problem };
	int result = config_open(&parser.file, path, problem);

	if (result)
		return result;
	parser.config = calloc(1, sizeof(*parser.config));
	if (!parser.config || section_set_defaults(&daemon_section, parser.config))
		result = parser_fail_memory(&parser);
	if (!result)
		result = parser_run(&parser);
	if (!result)
		result = config_settle_endpoint(parser.config, problem);
	if (result)
		config_free(parser.config);
	else
		*config = parser.config;
	free(parser.buffer);
	fclose(parser.file);
	return result;
}

static void section_free(const struct section *section, void *target)
{
	size_t i;

	for (i = 0; i < section->key_count; i++)
		if (section->keys[i].type == VALUE_TEXT)
			free(*(char **)((char *)target + section->keys[i].offset));
}

void config_free(struct config *config)
{
	size_t i;

	if (!config)
		return;
	for (i = 0; i < config->class_count; i++) {
		section_free(&class_section, &config->classes[i]);
		free(config->classes[i].name);
	}
	section_free(&daemon_section, config);
	free(config->classes);
	free(config);
}

const struct class *config_class(const struct config *config, const char *name)
{
	size_t i;

	for (i = 0; i < config->class_count; i++)
		if (!strcmp(config->classes[i].name, name))
			return &config->classes[i];
	return NULL;
}

int class_store_identity(const struct class *class, uid_t *uid, gid_t *gid, struct problem *problem)
{
	const char *user = class->store_user;
	struct passwd entry, *found = NULL;
	char buffer[4096], *end;

	if (!user || !*user)
		return 0;
	*uid = (uid_t)strtoul(user, &end, 10);
	if (getpwnam_r(user, &entry, buffer, sizeof(buffer), &found) == 0 && found)
		*uid = found->pw_uid;
	else if (*end)
		return problem_set(problem, ENOENT, "store_user = %s of class %s: there is no such user on "
				   "this node", user, class->name);
	else if (getpwuid_r(*uid, &entry, buffer, sizeof(buffer), &found))
		found = NULL;
	*gid = found ? found->pw_gid : *uid;
	return 0;
}

static void section_print_manual(const struct section *section)
{
	char allowed[200];
	size_t i;

	for (i = 0; i < section->key_count; i++) {
		const struct key *key = &section->keys[i];

		key_allowed(key, allowed, sizeof(allowed));
		printf("\n%s = %s\n\t%s\n", key->name, allowed, key->meaning);
		if (key->required)
			printf("\tRequired.\n");
		else
			printf("\tDefault: %s\n",
			       key->fallback_words ? key->fallback_words : key->fallback);
	}
}

void config_print_manual(void)
{
	printf("Lines are '[section]', 'key = value' or comments: a line that starts with '#' or ';', or\n"
	       "' ;' and what follows it. A line has up to 197 bytes; there are no continuation lines.\n"
	       "Unknown sections and keys, doubles and bad values are errors.\n"
	       "\n[daemon]\n\tAbout this node. At most once.\n");
	section_print_manual(&daemon_section);
	printf("\n[class NAME]\n\tA class of jobs; at least one. NAME: 1 to %d letters, digits, '_', '-'.\n"
	       "\tA class takes nothing over from another one.\n", CLASS_NAME_MAX);
	section_print_manual(&class_section);
}
