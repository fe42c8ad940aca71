// SPDX-License-Identifier: GPL-2.0
/*
 * A disk that answers when it is told to: /dev/nbd0, served from here. While a read with O_DIRECT waits, the reader's
 * pages are pinned, and the answer is written into them whatever their page table entries say.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <linux/nbd.h>

#include "matrix.h"

#define DISK_BYTES (16ul << 20)
#define JOBS_OFFSET (64 * PAGE)	/* the job reads there, nobody else does */

struct disk {
	int socket;
	pid_t server;		/* waits in NBD_DO_IT */
	struct nbd_request request;
};

static void server_run(int socket)
{
	int nbd = open("/dev/nbd0", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(nbd >= 0);
	require(ioctl(nbd, NBD_SET_BLKSIZE, PAGE) == 0);
	require(ioctl(nbd, NBD_SET_SIZE_BLOCKS, DISK_BYTES / PAGE) == 0);
	require(ioctl(nbd, NBD_SET_FLAGS, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY) == 0);
	require(ioctl(nbd, NBD_SET_SOCK, socket) == 0);
	ioctl(nbd, NBD_DO_IT);
	_exit(0);
}

/* Until the disk has its server and its size. A server that cannot has said why. */
static void await_ready(pid_t server)
{
	unsigned long sectors = 0;
	FILE *file;

	while (access("/sys/block/nbd0/pid", F_OK) || sectors != DISK_BYTES / 512) {
		require(waitpid(server, NULL, WNOHANG) == 0);
		usleep(2000);
		file = fopen("/sys/block/nbd0/size", "re");
		require(file && fscanf(file, "%lu", &sectors) == 1);
		fclose(file);
	}
}

struct disk *disk_create(void)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	const struct timeval patience = { .tv_sec = 120 };
	int sockets[2];

	if (access("/dev/nbd0", F_OK))
		return NULL;
	require(disk && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	disk->server = fork();
	require(disk->server >= 0);
	if (!disk->server)
		server_run(sockets[1]);
	close(sockets[1]);
	disk->socket = sockets[0];
	require(setsockopt(disk->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	await_ready(disk->server);
	return disk;
}

static bool request_read(struct disk *disk)
{
	ssize_t got = recv(disk->socket, &disk->request, sizeof(disk->request), MSG_WAITALL);

	require(got == sizeof(disk->request) && disk->request.magic == htonl(NBD_REQUEST_MAGIC));
	return ntohl(disk->request.type) == NBD_CMD_READ;
}

void disk_answer(struct disk *disk)
{
	struct nbd_reply reply = { .magic = htonl(NBD_REPLY_MAGIC) };
	static char data[PAGE];
	static uint64_t value;
	size_t left = ntohl(disk->request.len);

	memcpy(reply.handle, disk->request.handle, sizeof(reply.handle));
	require(send(disk->socket, &reply, sizeof(reply), 0) == sizeof(reply));
	for (; left; left -= PAGE) {
		*(uint64_t *)data = ++value;
		require(send(disk->socket, data, PAGE, 0) == PAGE);
	}
}

void disk_await(struct disk *disk)
{
	while (!request_read(disk) || be64toh(disk->request.from) != JOBS_OFFSET)
		disk_answer(disk);
}

void disk_destroy(struct disk *disk)
{
	if (!disk)
		return;
	kill(disk->server, SIGKILL);
	close(disk->socket);
	require(waitpid(disk->server, NULL, 0) == disk->server);
	free(disk);
}
