/* SPDX-License-Identifier: GPL-2.0 */
/* Where a command of a benchmark runs: here, or on another node that has the same directories. */
#ifndef CKPT_BENCH_NODE_H
#define CKPT_BENCH_NODE_H

#include <sys/types.h>

#include <jansson.h>

struct node {
	const char *name;
	const char *program;    /* is given a line for a shell as its last argument; NULL: this node */
	const char *host;       /* the arguments before it; NULL: none */
};

/* "ssh:HOST", or "exec:PROGRAM" for any program that is called as ssh is. -EINVAL. */
int node_parse(const char *text, struct node *node);
/* In the current directory there, with no input, and its output in the file. The child's pid or -errno. */
pid_t node_start(const struct node *node, char *const *arguments, int output);
/* What the command prints, which must be JSON; NULL: it failed. */
json_t *node_ask(const struct node *node, char *const *arguments);
/* The words as a shell reads them back; to be freed. */
char *node_quote(char *const *arguments);

#endif
