// SPDX-License-Identifier: GPL-2.0
#include "bench_node.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"

int node_parse(const char *text, struct node *node)
{
	const char *rest = strchr(text, ':');

	if (!rest || !rest[1])
		return -EINVAL;
	if (!strncmp(text, "ssh:", 4))
		*node = (struct node){ .name = text, .program = "ssh", .host = rest + 1 };
	else if (!strncmp(text, "exec:", 5))
		*node = (struct node){ .name = text, .program = rest + 1 };
	else
		return -EINVAL;
	return 0;
}

char *node_quote(char *const *arguments)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (; out && *arguments; arguments++) {
		fputs("'", out);
		for (const char *at = *arguments; *at; at++)
			fputs(*at == '\'' ? "'\\''" : (const char[]){ *at, '\0' }, out);
		fputs(arguments[1] ? "' " : "'", out);
	}
	return out && !fclose(out) ? text : NULL;
}

static char *remote_line(char *const *arguments)
{
	cleanup_free char *cwd = getcwd(NULL, 0);
	cleanup_free char *quoted_cwd = cwd ? node_quote((char *[]){ cwd, NULL }) : NULL;
	cleanup_free char *quoted = node_quote(arguments);
	char *line = NULL;

	if (!quoted_cwd || !quoted || asprintf(&line, "cd %s && exec %s", quoted_cwd, quoted) < 0)
		return NULL;
	return line;
}

__attribute__((noreturn)) static void node_exec(const struct node *node, char *const *arguments, int output)
{
	int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char *line;

	signal(SIGINT, SIG_DFL);
	if (input < 0 || dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0)
		_exit(127);
	if (!node->program) {
		execvp(arguments[0], arguments);
	} else {
		line = remote_line(arguments);
		if (line && node->host)
			execlp(node->program, node->program, "-o", "BatchMode=yes", node->host, line, NULL);
		else if (line)
			execlp(node->program, node->program, line, NULL);
	}
	fprintf(stderr, "ckptbench: cannot execute %s: %s\n", node->program ?: arguments[0], strerror(errno));
	_exit(127);
}

pid_t node_start(const struct node *node, char *const *arguments, int output)
{
	pid_t pid = fork();

	if (pid == 0)
		node_exec(node, arguments, output);
	return pid < 0 ? -errno : pid;
}

json_t *node_ask(const struct node *node, char *const *arguments)
{
	cleanup_fclose FILE *answer = NULL;
	json_t *value;
	int ends[2], status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return NULL;
	pid = node_start(node, arguments, ends[1]);
	close(ends[1]);
	answer = fdopen(ends[0], "re");
	value = answer ? json_loadf(answer, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		json_decref(value);
		return NULL;
	}
	return value;
}
