// SPDX-License-Identifier: GPL-2.0
/* What criu sends to us as its page server; the first byte says which criu: the layout, no soft-dirty bits. */
#include "place.h"

#include <sys/socket.h>

#include "bytes.h"
#include "pageserver.h"

static void serve(int socket, uint8_t kind)
{
	const struct criu_version criu = { .major = 4, .minor = kind & 1 ? 2 : 1, .tracks_memory = !(kind & 2) };
	struct pageserver_stats stats;
	struct reader reader = { .store = place, .term = place_term, .map = pagemap_create() };
	struct packer *packer;
	struct problem unheard;

	if (packer_create(&packer, place, &place_term, reader.map, &unheard))
		abort();
	pageserver_serve(socket, &criu, &reader, packer, 1000, &stats, &unheard);
	packer_abort(packer);
	pagemap_destroy(reader.map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	int pair[2];

	if (!place)
		place_open();
	if (!length || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 0;
	/* The buffers of a socket pair hold all of it. */
	if (send(pair[0], data + 1, length - 1, MSG_DONTWAIT) < 0 || shutdown(pair[0], SHUT_WR))
		abort();
	serve(pair[1], data[0]);
	close(pair[0]);
	close(pair[1]);
	return 0;
}

static size_t put_message(uint8_t *to, bool wide, uint32_t command, uint64_t pages, uint64_t address,
			  uint64_t id)
{
	put_le32(to, command);
	put_le32(to + 4, wide ? 0 : pages);
	if (wide)
		put_le64(to + 8, pages);
	put_le64(to + (wide ? 16 : 8), address);
	put_le64(to + (wide ? 24 : 16), id);
	return wide ? 32 : 24;
}

static size_t put_dump(uint8_t *to, bool wide)
{
	size_t at = 1;

	to[0] = wide;
	at += put_message(to + at, wide, 4, 0, 0, 300 << 8 | SPACE_TASK);
	at += put_message(to + at, wide, 6 | 4 << 16, 1, 0x400000, 300 << 8 | SPACE_TASK);
	memset(to + at, 7, PAGE_BYTES);
	at += PAGE_BYTES;
	at += put_message(to + at, wide, 6, 1, 0x400000, 300 << 8 | SPACE_TASK);
	at += put_message(to + at, wide, 5, 0, 0, 1 << 8 | SPACE_SHMEM);
	at += put_message(to + at, wide, 4, 0, 0, 1 << 8 | SPACE_SHMEM);
	at += put_message(to + at, wide, 0x1023, 0, 0, 0);
	return at;
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	uint8_t dump[2 * PAGE_BYTES];
	size_t length = put_dump(dump, false);

	seed("dump-narrow", dump, length);
	length = put_dump(dump, true);
	seed("dump-wide", dump, length);
}
