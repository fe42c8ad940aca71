// SPDX-License-Identifier: GPL-2.0
/*
 * One file.  libinih splits the lines; everything that it would pass over in silence is refused here
 * before it sees the line: lines longer than its buffer (it would cut them in two), continuation lines
 * (leading blanks are dropped, so there are none), text after a section's ']', control characters.
 */
#include "config_private.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "ownership.h"

#define FILE_BYTES_MAX (1 << 20)

/* Where the parser is. The first error ends it: the reader then reports the end of the file. */
struct parser {
	const char *path;
	FILE *file;
	char *buffer;
	size_t buffer_size;
	unsigned int line;
	const struct section *section;   /* NULL before the first one */
	void *target;                    /* struct config or struct class */
	unsigned int daemon_line;        /* 0: no [daemon] yet */
	char *class_seen;                /* by class of the configuration: it stands in this file */
	unsigned int seen[SECTION_KEYS_MAX];     /* by key of the section: the line that gave it */
	struct config *config;
	struct problem *problem;
	unsigned int error_line;
	int error;
};

__attribute__((format(printf, 3, 4)))
static void parser_fail(struct parser *parser, unsigned int line, const char *format, ...)
{
	char text[900];
	va_list args;

	if (parser->error)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	parser->error_line = line;
	parser->error = problem_set(parser->problem, EINVAL, "%s:%u: %s", parser->path, line, text);
}

static int parser_fail_memory(struct parser *parser)
{
	parser->error = problem_set(parser->problem, ENOMEM, "%s: out of memory", parser->path);
	return parser->error;
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

/* The class's index: of the one that an earlier file began, or of a new one. */
static int parser_find_class(struct parser *parser, const char *name, size_t *index)
{
	struct config *config = parser->config;
	cleanup_free char *place = NULL;

	for (*index = 0; *index < config->class_count; (*index)++)
		if (!strcmp(config->classes[*index]->name, name))
			return 0;
	if (asprintf(&place, "%s:%u", parser->path, parser->line) < 0)
		return -ENOMEM;
	return config_add_class(config, name, place);
}

static void parser_start_class(struct parser *parser, const char *name)
{
	size_t index;

	if (!class_name_valid(name)) {
		parser_fail(parser, parser->line,
			    "'%.64s' is no name for a class; 1 to %d letters, digits, '_' and '-' are",
			    name, CLASS_NAME_MAX);
	} else if (parser->config->class_count == CLASSES_MAX && !config_class(parser->config, name)) {
		parser_fail(parser, parser->line, "more than %d classes; fewer are allowed",
			    CLASSES_MAX);
	} else if (parser_find_class(parser, name, &index)) {
		parser_fail_memory(parser);
	} else if (parser->class_seen[index]) {
		parser_fail(parser, parser->line, "[class %s] stands twice in this file; once is allowed",
			    name);
	} else {
		parser->class_seen[index] = 1;
		parser->section = &class_section;
		parser->target = parser->config->classes[index];
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
	memset(parser->seen, 0, sizeof(parser->seen));
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

static void parser_fail_unknown(struct parser *parser, const char *name)
{
	char names[700] = "";
	size_t i, length = 0;

	for (i = 0; i < parser->section->key_count && length < sizeof(names); i++)
		length += snprintf(names + length, sizeof(names) - length, "%s%s", i ? ", " : "",
				   parser->section->keys[i].name);
	parser_fail(parser, parser->line, "unknown key '%.64s' in [%s]; %s are allowed", name,
		    parser->section->name, names);
}

static int parser_set_origin(struct parser *parser, size_t index)
{
	struct origins *origins = section_origins(parser->section, parser->target);

	free(origins->list[index]);
	if (asprintf(&origins->list[index], "%s:%u", parser->path, parser->line) >= 0)
		return 0;
	origins->list[index] = NULL;
	return -ENOMEM;
}

static void parser_set(struct parser *parser, const char *name, const char *value)
{
	const struct key *key = section_find_key(parser->section, name);
	size_t index = key ? key - parser->section->keys : 0;
	char allowed[200];
	int result;

	if (!key) {
		parser_fail_unknown(parser, name);
		return;
	}
	if (parser->seen[index]) {
		parser_fail(parser, parser->line, "'%s' stands already at line %u; once is allowed",
			    name, parser->seen[index]);
		return;
	}
	parser->seen[index] = parser->line;
	result = key_set(key, parser->target, value);
	if (!result)
		result = parser_set_origin(parser, index);
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

/* The daemon is root and runs the programs that the file names: who may write it is root, too. */
static int config_open(FILE **file, const char *path, struct problem *problem)
{
	/* O_NONBLOCK: a fifo in the file's place must not hang the daemon. */
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status))
		return problem_set(problem, errno, "%s: cannot read: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_size > FILE_BYTES_MAX)
		return problem_set(problem, EINVAL,
				   "%s: not a configuration; a regular file of up to 1M is allowed", path);
	if (!ownership_trusted(&status))
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
	return parser->error;
}

int config_parse(struct config *config, const char *path, struct problem *problem)
{
	struct parser parser = { .path = path, .config = config, .problem = problem };
	int result = config_open(&parser.file, path, problem);

	if (result)
		return result;
	parser.class_seen = calloc(CLASSES_MAX, 1);
	result = parser.class_seen ? parser_run(&parser) : parser_fail_memory(&parser);
	free(parser.class_seen);
	free(parser.buffer);
	fclose(parser.file);
	return result;
}
