// SPDX-License-Identifier: GPL-2.0
#include "lazy_vault.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lazy_spec.h"

/* A message without content takes about 1 KiB of it. */
#define VAULT_BYTES (16 << 20)

static int send_fd(int socket, char word, int fd, int flags)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .bytes = { 0 } };
	struct iovec data = { .iov_base = &word, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, flags | MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int lazy_vault_make(struct lazy_vault *vault, int *other)
{
	const int bytes = VAULT_BYTES;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	/* With less room there are more vaults. */
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	*vault = (struct lazy_vault){ .in = pair[0] };
	*other = pair[1];
	return 0;
}

int lazy_vault_add(struct lazy_vault *vault, int fd)
{
	int ret = send_fd(vault->in, LAZY_VAULT, fd, MSG_DONTWAIT);

	vault->count += !ret;
	return ret;
}

int lazy_vault_send(int other)
{
	int ret = send_fd(LAZY_FD_WATCH, LAZY_VAULT, other, 0);

	close(other);
	return ret;
}

void lazy_vault_close(struct lazy_vault *vault)
{
	if (vault->in >= 0)
		close(vault->in);
	vault->in = -1;
}
