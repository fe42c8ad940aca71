// SPDX-License-Identifier: GPL-2.0
/* What anybody may send to ckptd's socket, from the bytes to what is done with a request. */
#include "../../daemon/control_request.c"

#include "fuzz.h"

static struct control control;
static struct job_setup setup = { .shared = &control.shared };

/* With the configuration that is delivered; run from the top of the tree. */
static void begin(void)
{
	struct problem problem;

	log_set_level(LOG_EMERG);
	control.setup = &setup;
	if (sd_event_default(&control.event) < 0)
		abort();
	if (config_load(&control.config, "packaging/ckptd.conf", &problem)) {
		fprintf(stderr, "%s\n", problem.text);
		abort();
	}
	/* What reads it again is to find none: the rest of ckptd is not here. */
	free(control.config->path);
	control.config->path = strdup("/nonexistent/ckptd.conf");
}

static void use_caller(struct client *client, const json_t *request)
{
	struct problem unheard;
	struct caller caller;

	read_caller(client, request, &caller, &unheard);
	caller_free(&caller);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	struct client *client = calloc(1, sizeof(*client));
	json_t *request;
	int pair[2], err;

	if (!control.event)
		begin();
	if (!client || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	if (send(pair[0], data, length, MSG_DONTWAIT) < 0 || shutdown(pair[0], SHUT_WR))
		abort();
	client->control = &control;
	client->fd = pair[1];
	client->who.uid = data ? length & 1 : 0;
	while (!wire_receive(client->fd, &client->input, MSG_DONTWAIT)) {
		while ((request = wire_next(&client->input, &err))) {
			client_serve(client, request);
			use_caller(client, request);
			json_decref(request);
		}
		if (err)
			break;
	}
	wire_input_free(&client->input);
	control.deadline_ms = 0;
	close(pair[0]);
	close(pair[1]);
	free(client);
	return 0;
}

static void seed_text(void (*seed)(const char *name, const void *data, size_t length),
		      const char *name, const char *text)
{
	uint8_t frame[1024];
	uint32_t length = htole32((uint32_t)strlen(text));

	memcpy(frame, &length, sizeof(length));
	memcpy(frame + sizeof(length), text, strlen(text));
	seed(name, frame, sizeof(length) + strlen(text));
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	seed_text(seed, "run", "{\"op\": \"run\", \"class\": \"a\", \"job\": \"name\", \"arguments\": [\"a\", "
		  "\"\xc3\xbf\"], \"environment\": [\"A=b\"], \"cwd\": \"/\", \"merged\": true, "
		  "\"outputs\": {\"stdout\": null}}");
	seed_text(seed, "status", "{\"op\": \"status\"}");
	seed_text(seed, "signal", "{\"op\": \"signal\", \"number\": 15}");
	seed_text(seed, "checkpoint", "{\"op\": \"checkpoint\", \"job\": \"name\"}");
	seed_text(seed, "config", "{\"op\": \"config\", \"class\": \"default\"}");
	seed_text(seed, "reload", "{\"op\": \"reload\"}");
	seed_text(seed, "drain", "{\"op\": \"drain\", \"seconds\": 120}");
}
