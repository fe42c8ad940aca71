// SPDX-License-Identifier: GPL-2.0
#include "wire.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"

/* Room for a message, to begin with. */
#define SPACE 4096
/* Memory that a value of a message takes besides its text. */
#define VALUE_BYTES 128

static int send_all(int socket, const uint8_t *bytes, size_t length, int flags)
{
	while (length) {
		ssize_t n = send(socket, bytes, length, flags | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

int wire_send(int socket, const json_t *message, const int *fds, size_t fd_count, int flags)
{
	cleanup_free char *text = json_dumps(message, JSON_COMPACT);
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * WIRE_MAX_FDS)];
	} control = { .bytes = { 0 } };
	uint32_t length;
	struct iovec parts[2];
	struct msghdr frame = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t sent;

	if (!text || fd_count > WIRE_MAX_FDS)
		return text ? -EINVAL : -ENOMEM;
	length = htole32((uint32_t)strlen(text));
	parts[0] = (struct iovec){ &length, sizeof(length) };
	parts[1] = (struct iovec){ text, strlen(text) };
	if (fd_count) {
		frame.msg_control = control.bytes;
		frame.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * fd_count);
	}
	do
		sent = sendmsg(socket, &frame, flags | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	/* Half a frame cannot be taken back: the rest is waited for, or the peer is given up. */
	if ((size_t)sent < sizeof(length))
		return -EAGAIN;
	return send_all(socket, (uint8_t *)text + sent - sizeof(length),
			strlen(text) + sizeof(length) - (size_t)sent, flags);
}

static void keep_fds(struct wire_input *input, struct msghdr *frame)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(frame); part; part = CMSG_NXTHDR(frame, part)) {
		size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[WIRE_MAX_FDS];

		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds, CMSG_DATA(part), sizeof(int) * count);
		for (size_t i = 0; i < count; i++) {
			if (input->fd_count < WIRE_MAX_FDS)
				input->fds[input->fd_count++] = fds[i];
			else
				close(fds[i]);
		}
	}
}

/* Of the message that comes in, as far as is known. */
static size_t frame_bytes(const struct wire_input *input)
{
	uint32_t length = 0;

	if (input->used >= sizeof(length))
		memcpy(&length, input->bytes, sizeof(length));
	return sizeof(length) + le32toh(length);
}

static int make_room(struct wire_input *input, size_t frame)
{
	size_t space = input->space ? input->space * 2 : SPACE;
	uint8_t *grown;

	if (frame > WIRE_MAX_BYTES + sizeof(uint32_t))
		return -EMSGSIZE;
	if (input->used < input->space)
		return 0;
	if (space > frame)
		space = frame > SPACE ? frame : SPACE;
	grown = realloc(input->bytes, space);
	if (!grown)
		return -ENOMEM;
	input->bytes = grown;
	input->space = space;
	return 0;
}

int wire_receive(int socket, struct wire_input *input, int flags)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * WIRE_MAX_FDS)];
	} control;
	struct iovec part;
	struct msghdr frame = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
				.msg_controllen = sizeof(control) };
	size_t end = frame_bytes(input);
	int ret = make_room(input, end);
	ssize_t n;

	if (ret)
		return ret;
	end = end < input->space ? end : input->space;
	part = (struct iovec){ input->bytes + input->used, end - input->used };
	do
		n = recvmsg(socket, &frame, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	keep_fds(input, &frame);
	if (n == 0)
		return -EPIPE;
	input->used += (size_t)n;
	return 0;
}

/* At least as many as it has. */
static size_t count_values(const char *text, size_t length)
{
	bool quoted = false;
	size_t values = 1;

	for (size_t i = 0; i < length; i++) {
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted && (text[i] == ',' || text[i] == '[' || text[i] == '{'))
			values++;
	}
	return values;
}

json_t *wire_next(struct wire_input *input, int *err)
{
	const char *text = (char *)input->bytes + sizeof(uint32_t);
	size_t frame = frame_bytes(input), length = frame - sizeof(uint32_t), values;
	json_error_t error;
	json_t *message;

	*err = 0;
	if (frame > WIRE_MAX_BYTES + sizeof(uint32_t)) {
		*err = -EMSGSIZE;
		return NULL;
	}
	if (input->used < frame)
		return NULL;
	values = count_values(text, length);
	if (values > WIRE_MAX_VALUES) {
		*err = -EMSGSIZE;
		return NULL;
	}
	input->cost = length + values * VALUE_BYTES;
	message = json_loadb(text, length, 0, &error);
	input->used = 0;
	/* What comes after a `run`, for days, is small. */
	if (input->space > SPACE) {
		free(input->bytes);
		input->bytes = NULL;
		input->space = 0;
	}
	if (!json_is_object(message)) {
		json_decref(message);
		*err = -EPROTO;
		return NULL;
	}
	return message;
}

size_t wire_take_fds(struct wire_input *input, int fds[WIRE_MAX_FDS])
{
	size_t count = input->fd_count;

	memcpy(fds, input->fds, sizeof(input->fds));
	input->fd_count = 0;
	return count;
}

void wire_input_free(struct wire_input *input)
{
	for (size_t i = 0; i < input->fd_count; i++)
		close(input->fds[i]);
	free(input->bytes);
	memset(input, 0, sizeof(*input));
}

int wire_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	return take_fd(fd);
}

json_t *wire_from_bytes(const char *bytes)
{
	size_t length = strlen(bytes), used = 0;
	cleanup_free char *text = malloc(2 * length + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < length; i++) {
		uint8_t byte = (uint8_t)bytes[i];

		if (byte >= 0x80) {
			text[used++] = (char)(0xc0 | byte >> 6);
			byte = 0x80 | (byte & 0x3f);
		}
		text[used++] = (char)byte;
	}
	return json_stringn(text, used);
}

json_t *wire_from_vector(char *const *vector)
{
	json_t *array = json_array();

	for (; vector && *vector; vector++)
		json_array_append_new(array, wire_from_bytes(*vector));
	return array;
}

char *wire_to_bytes(const json_t *string)
{
	const uint8_t *text = (const uint8_t *)json_string_value(string);
	char *bytes;
	size_t used = 0;

	if (!text)
		return NULL;
	bytes = malloc(json_string_length(string) + 1);
	for (; bytes && *text; text++) {
		uint8_t byte = *text;

		/* Only U+0001 to U+00FF stand for bytes; jansson has checked that it is UTF-8. */
		if (byte >= 0xc4) {
			free(bytes);
			return NULL;
		}
		if (byte >= 0xc2)
			byte = (uint8_t)(byte << 6 | (*++text & 0x3f));
		bytes[used++] = (char)byte;
	}
	if (bytes)
		bytes[used] = '\0';
	return bytes;
}

char **wire_to_vector(const json_t *array)
{
	size_t count = json_array_size(array);
	char **vector = calloc(count + 1, sizeof(*vector));

	for (size_t i = 0; vector && i < count; i++) {
		vector[i] = wire_to_bytes(json_array_get(array, i));
		if (!vector[i]) {
			while (i--)
				free(vector[i]);
			free(vector);
			return NULL;
		}
	}
	return vector;
}
