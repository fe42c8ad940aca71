// SPDX-License-Identifier: GPL-2.0
#include "tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "proc.h"

int tcp_policy_parse(const char *name, enum tcp_policy *policy)
{
	static const char *const names[] = {
		[TCP_POLICY_ESTABLISHED] = "established", [TCP_POLICY_CLOSE] = "close", [TCP_POLICY_REFUSE] = "refuse",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(name, names[i])) {
			*policy = (enum tcp_policy)i;
			return 0;
		}
	return -EINVAL;
}

/* ---- the job's sockets ---- */

static int add_socket(void *arg, int fds, const char *number, const char *name)
{
	unsigned long inode;

	return sscanf(name, "socket:[%lu]", &inode) == 1 ? numbers_add(arg, inode) : 0;
}

/* ---- the kernel's table ---- */

/* IPv4 addresses in IPv6's form, since the two ends of a connection may be of either kind. */
struct end {
	struct in6_addr address;
	unsigned int port;
};

struct connection {
	struct end local, remote;
	unsigned int state;
	unsigned int unsent;            /* bytes that the other end has not acknowledged, and FIN */
	uint64_t inode;                 /* 0: no descriptor refers to it */
};

struct table {
	struct connection *list;
	size_t count;
};

/* 8 or 32 digits: words in the machine's own order of bytes. */
static bool parse_end(const char *text, struct end *end)
{
	size_t words = strcspn(text, ":") / 8;
	uint32_t word[4] = { 0, 0, htonl(0xffff), 0 };

	if (words != 1 && words != 4)
		return false;
	for (size_t i = 0; i < words; i++)
		if (sscanf(text + 8 * i, "%8x", &word[words == 1 ? 3 : i]) != 1)
			return false;
	memcpy(&end->address, word, sizeof(word));
	return sscanf(text + 8 * words, ":%x", &end->port) == 1;
}

static bool parse_line(const char *line, struct connection *connection)
{
	char local[64], remote[64];
	unsigned long inode;

	if (sscanf(line, " %*u: %63s %63s %x %x:%*x %*s %*s %*u %*u %lu", local, remote, &connection->state,
		   &connection->unsent, &inode) != 5)
		return false;
	connection->inode = inode;
	return parse_end(local, &connection->local) && parse_end(remote, &connection->remote);
}

static int table_parse(struct table *table, const char *text)
{
	size_t space = 0;

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (table->count == space) {
			struct connection *list;

			space = space ? space * 2 : 64;
			list = reallocarray(table->list, space, sizeof(*list));
			if (!list)
				return -ENOMEM;
			table->list = list;
		}
		table->count += parse_line(line, &table->list[table->count]);
	}
	return 0;
}

static bool same_end(const struct end *one, const struct end *other)
{
	return one->port == other->port && !memcmp(&one->address, &other->address, sizeof(one->address));
}

static const struct connection *table_peer(const struct table *table, const struct connection *of)
{
	for (size_t i = 0; i < table->count; i++)
		if (same_end(&table->list[i].local, &of->remote) && same_end(&table->list[i].remote, &of->local))
			return &table->list[i];
	return NULL;
}

/* ---- the judgement ---- */

static bool is_loopback(const struct in6_addr *address)
{
	return IN6_IS_ADDR_LOOPBACK(address) ||
	       (IN6_IS_ADDR_V4MAPPED(address) && address->s6_addr[12] == 127);
}

static const char *end_text(const struct end *end, char text[64])
{
	char address[INET6_ADDRSTRLEN] = "?";

	if (IN6_IS_ADDR_V4MAPPED(&end->address))
		inet_ntop(AF_INET, &end->address.s6_addr[12], address, sizeof(address));
	else
		inet_ntop(AF_INET6, &end->address, address, sizeof(address));
	snprintf(text, 64, IN6_IS_ADDR_V4MAPPED(&end->address) ? "%s:%u" : "[%s]:%u", address, end->port);
	return text;
}

static int refuse(const struct connection *connection, const char *why, struct problem *problem)
{
	char local[64], remote[64];

	return problem_set(problem, ENOTSUP, "it has a TCP connection, %s to %s, %s",
			   end_text(&connection->local, local), end_text(&connection->remote, remote), why);
}

/* The other end is closed, and all that it had sent is here: its last word, FIN, has come. */
static bool is_half(const struct connection *connection, const struct connection *peer)
{
	return connection->state == TCP_CLOSE_WAIT && (!peer || !peer->inode);
}

static bool is_own(const struct numbers *sockets, const struct connection *connection)
{
	return connection->inode && numbers_have(sockets, connection->inode);
}

static int judge_established(const struct numbers *sockets, const struct table *table,
			     const struct connection *connection, struct problem *problem)
{
	const struct connection *peer = table_peer(table, connection);

	if (!is_loopback(&connection->local.address) || !is_loopback(&connection->remote.address))
		return refuse(connection, "which cannot move to another node. Let it use 127.0.0.1 if both ends "
			      "are the job's (Open MPI: OMPI_MCA_oob_tcp_if_include=lo, "
			      "OMPI_MCA_btl=self,vader), or set tcp = close in its class if it connects again "
			      "by itself. A program with Open MPI that runs without mpirun makes none with "
			      "OMPI_MCA_ess_singleton_isolated=1", problem);
	if (is_half(connection, peer) || (peer && is_own(sockets, peer)))
		return 0;
	if (!peer || !peer->inode)
		return refuse(connection, "of which one end is just being made or closed: it can be saved when "
			      "that is done", problem);
	return refuse(connection, "whose other end is not the job's, a service of this node perhaps, and cannot "
		      "move with it. Set tcp = close in its class if the program connects again by itself",
		      problem);
}

static int judge(const struct numbers *sockets, const struct table *table,
		 const struct connection *connection, enum tcp_policy policy, struct problem *problem)
{
	switch (policy) {
	case TCP_POLICY_CLOSE:
		return 0;
	case TCP_POLICY_REFUSE:
		return refuse(connection, "and its class says tcp = refuse", problem);
	case TCP_POLICY_ESTABLISHED:
		break;
	}
	return judge_established(sockets, table, connection, problem);
}

static bool is_connection(const struct connection *connection)
{
	return connection->state != TCP_LISTEN && connection->state != TCP_CLOSE;
}

int tcp_judge(struct numbers *sockets, const char *text, enum tcp_policy policy,
	      struct tcp_found *found, struct problem *problem)
{
	struct table table = { 0 };
	int ret = table_parse(&table, text);

	*found = (struct tcp_found){ 0 };
	if (ret)
		problem_set(problem, ENOMEM, "out of memory");
	numbers_sort(sockets);
	for (size_t i = 0; i < table.count && ret == 0; i++) {
		const struct connection *connection = &table.list[i];

		if (!is_own(sockets, connection) || !is_connection(connection))
			continue;
		found->connections++;
		found->moving |= connection->unsent != 0;
		ret = judge(sockets, &table, connection, policy, problem);
	}
	free(table.list);
	return ret;
}

/* A file of /proc has no length. false: it cannot be opened. */
static bool copy_table(pid_t pid, const char *name, FILE *to)
{
	char path[64], block[16384];
	cleanup_fclose FILE *from = NULL;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/net/%s", pid, name);
	from = fopen(path, "re");
	while (from && (n = fread(block, 1, sizeof(block), from)) > 0)
		fwrite(block, 1, n, to);
	return from != NULL;
}

/* As the first task sees it that is still there. A kernel without IPv6 has no tcp6. */
static int read_table(const pid_t *pids, size_t count, FILE *to)
{
	size_t i = 0;

	while (i < count && !copy_table(pids[i], "tcp", to))
		i++;
	if (i < count)
		copy_table(pids[i], "tcp6", to);
	return i == count ? -ESRCH : ferror(to) ? -ENOMEM : 0;
}

int tcp_check(const pid_t *pids, size_t count, enum tcp_policy policy, struct tcp_found *found,
	      struct problem *problem)
{
	struct numbers sockets = { 0 };
	cleanup_free char *text = NULL;
	size_t bytes = 0;
	FILE *table;
	int ret = 0;

	*found = (struct tcp_found){ 0 };
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = proc_each_descriptor(pids[i], add_socket, &sockets, problem);
	table = open_memstream(&text, &bytes);
	if (ret == 0 && table && sockets.count)
		ret = read_table(pids, count, table);
	if (!table || fclose(table))
		ret = -ENOMEM;
	ret = ret ? problem_set(problem, -ret, "cannot look at the job's connections: %s", strerror(-ret)) :
	      sockets.count ? tcp_judge(&sockets, text, policy, found, problem) : 0;
	numbers_free(&sockets);
	return ret;
}
