// SPDX-License-Identifier: GPL-2.0
#include "notice_imds.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define TOKEN_PATH "/latest/api/token"
#define TOKEN_HEADER "X-aws-ec2-metadata-token"
#define TTL_HEADER TOKEN_HEADER "-ttl-seconds"
#define TTL_S 21600                  /* the longest that the service gives */
#define TOKEN_MAX 1024

struct imds {
	CURL *easy;
	CURLM *multi;
	char *endpoint;
	unsigned int timeout_ms;
	char token[TOKEN_MAX + 1];   /* "": none */
	int64_t token_renew_ms;      /* CLOCK_BOOTTIME: from then on it should, ... */
	int64_t token_end_ms;        /* ... and from then on it must be renewed */
	long status;                 /* HTTP status of the last answer; 0: none came */
	atomic_bool interrupted;
};

/* One request while it runs. */
struct request {
	struct imds_answer *answer;
	long ttl_s;
	bool too_long;
	char error[CURL_ERROR_SIZE];
};

static size_t request_take_body(char *data, size_t size, size_t count, void *user)
{
	struct request *request = user;
	struct imds_answer *answer = request->answer;
	size_t length = size * count;

	if (length > IMDS_ANSWER_MAX - answer->length) {
		request->too_long = true;
		return 0;
	}
	memcpy(answer->body + answer->length, data, length);
	answer->length += length;
	answer->body[answer->length] = '\0';
	return length;
}

/* The value of a header line if it has this name; data has no '\0' at its end. */
static bool header_value(const char *data, size_t length, const char *name, char value[64])
{
	size_t skip = strlen(name);

	if (length <= skip || strncasecmp(data, name, skip) || data[skip] != ':')
		return false;
	length -= skip + 1;
	length = length < 63 ? length : 63;
	memcpy(value, data + skip + 1, length);
	value[length] = '\0';
	return true;
}

static size_t request_take_header(char *data, size_t size, size_t count, void *user)
{
	struct request *request = user;
	char value[64];

	if (header_value(data, size * count, "Date", value))
		request->answer->date_s = curl_getdate(value, NULL);
	else if (header_value(data, size * count, TTL_HEADER, value))
		request->ttl_s = strtol(value, NULL, 10);
	return size * count;
}

/* The daemon starts jobs and CRIU meanwhile: nothing of ours may leak into them. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void easy_limit_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP);
#endif
}

/* Nothing of an earlier request stays: only the connection, which curl keeps. */
static void imds_prepare(struct imds *imds, const char *url, struct request *request)
{
	CURL *easy = imds->easy;

	curl_easy_reset(easy);
	easy_limit_protocols(easy);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)imds->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "ckptd/" CKPT_VERSION);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, request_take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, request_take_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
}

/* Runs what imds_prepare() set up; wakes up for imds_interrupt(). 0, -ECANCELED or -EIO. */
static int imds_perform(struct imds *imds, CURLcode *code)
{
	int running = 1, messages;
	CURLMsg *message;
	CURLMcode multi = curl_multi_add_handle(imds->multi, imds->easy);

	while (multi == CURLM_OK && running && !imds->interrupted) {
		multi = curl_multi_perform(imds->multi, &running);
		if (multi == CURLM_OK && running)
			multi = curl_multi_poll(imds->multi, NULL, 0, 1000, NULL);
	}
	message = curl_multi_info_read(imds->multi, &messages);
	*code = message ? message->data.result : CURLE_FAILED_INIT;
	curl_multi_remove_handle(imds->multi, imds->easy);
	curl_easy_getinfo(imds->easy, CURLINFO_RESPONSE_CODE, &imds->status);
	if (imds->interrupted)
		return -ECANCELED;
	return multi == CURLM_OK && message ? 0 : -EIO;
}

static int imds_judge(const struct imds *imds, const struct request *request, CURLcode code,
		      const char *path, struct problem *problem)
{
	const char *text = request->error[0] ? request->error : curl_easy_strerror(code);
	long status = imds->status, os_err = 0;

	if (request->too_long)
		return problem_set(problem, EBADMSG, "the answer for %s is longer than %d bytes", path,
				   IMDS_ANSWER_MAX);
	curl_easy_getinfo(imds->easy, CURLINFO_OS_ERRNO, &os_err);
	if (code == CURLE_COULDNT_CONNECT && os_err)
		return problem_set(problem, EIO, "%s", strerror(os_err));
	if (code != CURLE_OK)
		return problem_set(problem, EIO, "%s", text);
	if (status == 200)
		return 0;
	if (status == 404)
		return problem_set(problem, ENOENT, "HTTP status 404 for %s", path);
	if (status == 401 || status == 403)
		return problem_set(problem, EACCES, "HTTP status %ld for %s%s", status, path,
				   status == 403 ? " (is it turned off for this instance?)" : "");
	if (status == 429 || status >= 500)
		return problem_set(problem, EBUSY, "HTTP status %ld for %s", status, path);
	return problem_set(problem, EBADMSG, "HTTP status %ld for %s", status, path);
}

/* One request with one header. */
static int imds_ask(struct imds *imds, const char *method, const char *path, const char *header,
		    struct request *request, struct problem *problem)
{
	struct curl_slist *headers = curl_slist_append(NULL, header);
	char url[512];
	CURLcode code;
	int result;

	snprintf(url, sizeof(url), "%s%s", imds->endpoint, path);
	imds_prepare(imds, url, request);
	curl_easy_setopt(imds->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(imds->easy, CURLOPT_CUSTOMREQUEST, method);
	request->answer->length = 0;
	request->answer->body[0] = '\0';
	request->answer->date_s = -1;
	result = headers ? imds_perform(imds, &code) : -ENOMEM;
	if (!result)
		result = imds_judge(imds, request, code, path, problem);
	else if (result != -ECANCELED)
		problem_set(problem, -result, "%s", strerror(-result));
	/* What the handle still points to ends with this function. */
	curl_easy_reset(imds->easy);
	curl_slist_free_all(headers);
	return result;
}

/* A token goes into a header line: printable, and no blank in it. */
static bool token_valid(const struct imds_answer *answer)
{
	size_t i;

	for (i = 0; i < answer->length; i++)
		if (!isgraph((unsigned char)answer->body[i]))
			return false;
	return answer->length && answer->length <= TOKEN_MAX;
}

static int imds_renew_token(struct imds *imds, struct problem *problem)
{
	struct imds_answer answer;
	struct request request = { .answer = &answer, .ttl_s = TTL_S };
	int64_t asked_ms = clock_ms();
	int result = imds_ask(imds, "PUT", TOKEN_PATH, TTL_HEADER ": 21600", &request, problem);

	if (result == -ENOENT)
		return problem_set(problem, EBADMSG, "HTTP status 404 for " TOKEN_PATH);
	if (result)
		return result;
	if (!token_valid(&answer) || request.ttl_s < 1 || request.ttl_s > TTL_S)
		return problem_set(problem, EBADMSG, "the answer for " TOKEN_PATH " is no token");
	memcpy(imds->token, answer.body, answer.length + 1);
	imds->token_end_ms = asked_ms + request.ttl_s * 1000;
	imds->token_renew_ms = asked_ms + request.ttl_s * 900;
	return 0;
}

/* A renewal that fails is no harm as long as the old token lives. */
static int imds_need_token(struct imds *imds, struct problem *problem)
{
	int result;

	if (imds->token[0] && clock_ms() < imds->token_renew_ms)
		return 0;
	result = imds_renew_token(imds, problem);
	if (result != -ECANCELED && imds->token[0] && clock_ms() < imds->token_end_ms)
		return 0;
	return result;
}

static int imds_get_once(struct imds *imds, const char *path, struct imds_answer *answer,
			 struct problem *problem)
{
	struct request request = { .answer = answer };
	char header[sizeof(TOKEN_HEADER) + 2 + TOKEN_MAX];
	int result = imds_need_token(imds, problem);

	if (result)
		return result;
	snprintf(header, sizeof(header), TOKEN_HEADER ": %s", imds->token);
	return imds_ask(imds, "GET", path, header, &request, problem);
}

int imds_get(struct imds *imds, const char *path, struct imds_answer *answer,
	     struct problem *problem)
{
	int result = imds_get_once(imds, path, answer, problem);

	if (result != -EACCES || imds->status != 401 || !imds->token[0])
		return result;
	imds->token[0] = '\0';
	return imds_get_once(imds, path, answer, problem);
}

int imds_wait(struct imds *imds, unsigned int wait_ms)
{
	int64_t end_ms = clock_ms() + wait_ms, left_ms;

	while (!imds->interrupted && (left_ms = end_ms - clock_ms()) > 0)
		if (curl_multi_poll(imds->multi, NULL, 0, left_ms, NULL) != CURLM_OK)
			usleep(100000);
	return imds->interrupted ? -ECANCELED : 0;
}

void imds_interrupt(struct imds *imds)
{
	imds->interrupted = true;
	curl_multi_wakeup(imds->multi);
}

void imds_destroy(struct imds *imds)
{
	if (!imds)
		return;
	curl_easy_cleanup(imds->easy);
	curl_multi_cleanup(imds->multi);
	curl_global_cleanup();
	free(imds->endpoint);
	free(imds);
}

/*
 * curl's own wake-up descriptors can be inherited (seen with 7.88): mark what is new.  They are the
 * lowest free ones.
 */
static CURLM *multi_create(void)
{
	bool open_before[256];
	CURLM *multi;
	int fd;

	for (fd = 0; fd < 256; fd++)
		open_before[fd] = fcntl(fd, F_GETFD) >= 0;
	multi = curl_multi_init();
	for (fd = 0; fd < 256; fd++)
		if (!open_before[fd])
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	return multi;
}

int imds_create(struct imds **imds, const char *endpoint, unsigned int timeout_ms,
		struct problem *problem)
{
	struct imds *made;

	if (strncmp(endpoint, "http://", 7) || strlen(endpoint) > 300)
		return problem_set(problem, EINVAL,
				   "'%.300s' is no endpoint of instance metadata; http://HOST[:PORT] is",
				   endpoint);
	made = calloc(1, sizeof(*made));
	if (!made || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(made);
		return problem_set(problem, ENOMEM, "cannot watch for notices: out of memory");
	}
	made->easy = curl_easy_init();
	made->multi = multi_create();
	made->endpoint = strdup(endpoint);
	made->timeout_ms = timeout_ms;
	if (!made->easy || !made->multi || !made->endpoint) {
		imds_destroy(made);
		return problem_set(problem, ENOMEM, "cannot watch for notices: out of memory");
	}
	*imds = made;
	return 0;
}
