// SPDX-License-Identifier: GPL-2.0
/* Run from the top of the tree: it starts selftests/imds.py. */
#include "notice.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define POLL_MS 20
#define WINDOW_MS 120000
#define PATIENCE_MS 60000

/* The mock that all tests share; it ends when its standard input closes. */
static struct {
	pid_t pid;
	int stdin_fd;
	char endpoint[64];
} mock;

static struct notice_source *source;
static int notice_fd;

static int64_t boottime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static void mock_exec(int in, int out)
{
	dup2(in, 0);
	dup2(out, 1);
	execlp("python3", "python3", "selftests/imds.py", "--until-eof", "--lifetime", "300", NULL);
	_exit(127);
}

static int mock_start(void **state)
{
	int in[2], out[2], port;
	FILE *answer;

	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	/* A test that hangs ends here. */
	alarm(240);
	if (pipe(in) || pipe(out))
		return -1;
	mock.pid = fork();
	if (!mock.pid) {
		close(in[1]);
		close(out[0]);
		mock_exec(in[0], out[1]);
	}
	close(in[0]);
	close(out[1]);
	mock.stdin_fd = in[1];
	answer = fdopen(out[0], "r");
	if (fscanf(answer, "imds: ready %d", &port) != 1) {
		fprintf(stderr, "selftests/imds.py did not start: run this from the top of the tree\n");
		return -1;
	}
	fclose(answer);
	snprintf(mock.endpoint, sizeof(mock.endpoint), "http://127.0.0.1:%d", port);
	return 0;
}

static int mock_stop(void **state)
{
	int status;

	close(mock.stdin_fd);
	return waitpid(mock.pid, &status, 0) == mock.pid && status == 0 ? 0 : -1;
}

struct text {
	char bytes[1024];
	size_t length;
};

static size_t text_take(char *data, size_t size, size_t count, void *user)
{
	struct text *text = user;

	if (size * count >= sizeof(text->bytes) - text->length)
		return 0;
	memcpy(text->bytes + text->length, data, size * count);
	text->length += size * count;
	text->bytes[text->length] = '\0';
	return size * count;
}

/* body: NULL reads the counters. */
static void control(const char *body, struct text *answer)
{
	CURL *easy = curl_easy_init();
	char url[100];
	long status;

	snprintf(url, sizeof(url), "%s/control", mock.endpoint);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, text_take);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
	if (body) {
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT");
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	}
	assert_int_equal(curl_easy_perform(easy), CURLE_OK);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		fail_msg("%s", answer->bytes);
	curl_easy_cleanup(easy);
}

static void set(const char *body)
{
	struct text answer = { .length = 0 };

	control(body, &answer);
}

static long counter(const char *name)
{
	struct text answer = { .length = 0 };
	json_t *root;
	long value;

	control(NULL, &answer);
	root = json_loads(answer.bytes, 0, NULL);
	assert_non_null(json_object_get(root, name));
	value = json_integer_value(json_object_get(root, name));
	json_decref(root);
	return value;
}

static void wait_counter(const char *name, long value)
{
	int64_t end_ms = boottime_ms() + PATIENCE_MS;

	while (counter(name) < value) {
		if (boottime_ms() > end_ms)
			fail_msg("%s does not reach %ld", name, value);
		usleep(5000);
	}
}

/* Of a source it comes once, at any time: it is kept here, and is none of those that tests expect. */
static struct notice place;

static void watch_endpoint(const char *endpoint, unsigned int timeout_ms)
{
	struct notice_options options = { endpoint, POLL_MS, timeout_ms, WINDOW_MS };
	struct problem problem;

	place = (struct notice){ 0 };
	if (notice_start(&source, &options, &notice_fd, &problem))
		fail_msg("%s", problem.text);
}

/* False: there is none just now. */
static bool read_notice(struct notice *notice)
{
	ssize_t n;

	while ((n = read(notice_fd, notice, sizeof(*notice))) == sizeof(*notice) && notice->kind == NOTICE_PLACE) {
		assert_int_equal(place.kind, 0);
		place = *notice;
	}
	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	return n == sizeof(*notice);
}

static struct notice next_notice(void)
{
	struct pollfd poll_fd = { notice_fd, POLLIN, 0 };
	struct notice notice;

	while (!read_notice(&notice))
		if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
			fail_msg("no notice comes");
	return notice;
}

static void expect(enum notice_kind kind, const char *words)
{
	struct notice notice = next_notice();

	if (notice.kind != kind || !strstr(notice.text, words))
		fail_msg("kind %d '%s' is not kind %d with '%s'", notice.kind, notice.text, kind, words);
}

/* Watches with the mock in its normal state. */
static void watch(void)
{
	watch_endpoint(mock.endpoint, 5000);
	expect(NOTICE_SOURCE_UP, "answers; watching");
}

/* Some more polls bring nothing new. */
static void expect_silence(void)
{
	struct notice notice;

	wait_counter("rebalance_gets", counter("rebalance_gets") + 4);
	assert_false(read_notice(&notice));
}

static int reset(void **state)
{
	set("{\"mode\":\"normal\",\"action\":null,\"action_in\":120,\"moving\":false,\"action_body\":null,"
	    "\"rebalance\":false,\"skew\":0,\"ttl\":21600,\"delay\":5}");
	return 0;
}

static int stop(void **state)
{
	notice_stop(source);
	source = NULL;
	return 0;
}

/* A deadline some seconds from now, with all the time that this machine may have lost meanwhile. */
static void assert_deadline(int64_t deadline_ms, int64_t before_ms, int64_t left_ms)
{
	assert_true(deadline_ms >= before_ms + left_ms - 2000);
	assert_true(deadline_ms <= boottime_ms() + left_ms + 2000);
}

static void parses_actions(void **state)
{
	static const struct {
		const char *body;
		int result;
		int64_t epoch_s;
	} cases[] = {
		{ "{\"action\": \"terminate\", \"time\": \"2017-09-18T08:22:00Z\"}", 0, 1505722920 },
		{ "{\"time\":\"2024-02-29T23:59:59Z\",\"action\":\"stop\"}\n", 0, 1709251199 },
		{ "{\"action\":\"hibernate\",\"time\":\"2017-09-18T08:22:00Z\",\"new\":1}", 0, 1505722920 },
		{ "{\"action\":\"stop\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":null}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":1505722920}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-09-18 08:22:00Z\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-09-18T08:22:00\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-09-18T08:22:00Zx\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-09-18T08:22:00+02\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2023-02-29T00:00:00Z\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-13-01T00:00:00Z\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-01-01T24:00:00Z\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"2017-01-01T00:00:60Z\"}", 0, -1 },
		{ "{\"action\":\"stop\",\"time\":\"1969-12-31T00:00:00Z\"}", 0, -1 },
		{ "{\"action\":\"reboot\",\"time\":\"2017-09-18T08:22:00Z\"}", -EBADMSG, 0 },
		{ "{\"action\":\"Terminate\",\"time\":\"2017-09-18T08:22:00Z\"}", -EBADMSG, 0 },
		{ "{\"time\":\"2017-09-18T08:22:00Z\"}", -EBADMSG, 0 },
		{ "{\"action\":1}", -EBADMSG, 0 },
		{ "{\"action\":\"stop\",\"action\":\"stop\"}", -EBADMSG, 0 },
		{ "{\"action\":\"stop\"} trailing", -EBADMSG, 0 },
		{ "[\"action\",\"stop\"]", -EBADMSG, 0 },
		{ "\"stop\"", -EBADMSG, 0 },
		{ "stop", -EBADMSG, 0 },
		{ "{\"action\":\"stop\"", -EBADMSG, 0 },
		{ "<html>", -EBADMSG, 0 },
		{ "\xff\xfe", -EBADMSG, 0 },
		{ "", -EBADMSG, 0 },
	};
	int64_t epoch_s;
	char action[16];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		epoch_s = 0;
		if (notice_parse_action(cases[i].body, action, &epoch_s) != cases[i].result ||
		    epoch_s != cases[i].epoch_s)
			fail_msg("%s: time %lld", cases[i].body, (long long)epoch_s);
	}
}

static void parses_rebalance(void **state)
{
	int64_t epoch_s;

	assert_int_equal(notice_parse_rebalance("{\"noticeTime\": \"2020-11-05T08:22:00Z\"}", &epoch_s), 0);
	assert_int_equal(epoch_s, 1604564520);
	assert_int_equal(notice_parse_rebalance("{\"noticeTime\": \"soon\"}", &epoch_s), 0);
	assert_int_equal(epoch_s, -1);
	assert_int_equal(notice_parse_rebalance("{}", &epoch_s), -EBADMSG);
	assert_int_equal(notice_parse_rebalance("", &epoch_s), -EBADMSG);
	assert_int_equal(notice_parse_rebalance("404", &epoch_s), -EBADMSG);
}

static void computes_deadlines(void **state)
{
	static const struct {
		const char *action;
		int64_t epoch_s, wall_s;
		int result;
		int64_t left_ms;
	} cases[] = {
		{ "terminate", 1000100, 1000000, 0, 100000 },
		{ "stop", 1000001, 1000000, 0, 1000 },
		{ "terminate", 1000120, 1000000, 0, 120000 },
		{ "terminate", 1000121, 1000000, 0, 120000 },
		{ "terminate", 253402300799, 1000000, 0, 120000 },
		{ "terminate", 1000000, 1000000, 0, 0 },
		{ "terminate", 1000000, 1000030, 0, 0 },
		{ "terminate", 1000000, 1000031, -ESTALE, 0 },
		{ "terminate", 0, 1000000, -ESTALE, 0 },
		{ "terminate", -1, 1000000, 0, 120000 },
		{ "hibernate", 1000100, 1000000, 0, 0 },
		{ "hibernate", -1, 1000000, 0, 0 },
		{ "hibernate", 1000000, 1000031, -ESTALE, 0 },
	};
	int64_t deadline_ms;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		deadline_ms = 5000;
		if (notice_deadline(cases[i].action, cases[i].epoch_s, cases[i].wall_s, 5000, WINDOW_MS,
				    &deadline_ms) != cases[i].result ||
		    deadline_ms != 5000 + cases[i].left_ms)
			fail_msg("case %zu: %lld", i, (long long)deadline_ms);
	}
}

static void tells_place(void **state)
{
	watch();
	expect_silence();
	assert_int_equal(place.kind, NOTICE_PLACE);
	assert_string_equal(place.zone, "eu-central-1a");
	assert_string_equal(place.type, "c5.large");
}

static void reports_interruption_once(void **state)
{
	int64_t before_ms;
	struct notice notice;

	watch();
	before_ms = boottime_ms();
	set("{\"action\":\"terminate\",\"action_in\":90}");
	notice = next_notice();
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_non_null(strstr(notice.text, "EC2 will terminate this instance at 20"));
	assert_deadline(notice.deadline_ms, before_ms, 90000);
	expect_silence();
	/* Gone and there again is the same event; another time after that is another one. */
	set("{\"action_body\":\"{\\\"action\\\":\\\"stop\\\"}\"}");
	expect_silence();
	set("{\"action\":null,\"action_body\":null}");
	expect_silence();
	set("{\"action\":\"stop\",\"action_in\":60}");
	expect(NOTICE_INTERRUPTION, "EC2 will stop");
}

static void same_event_after_404(void **state)
{
	char text[32], body[200];
	time_t soon = time(NULL) + 100;

	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime(&soon));
	snprintf(body, sizeof(body), "{\"action_body\":\"{\\\"action\\\":\\\"stop\\\",\\\"time\\\":\\\"%s\\\"}\"}",
		 text);
	watch();
	set(body);
	expect(NOTICE_INTERRUPTION, text);
	set("{\"action_body\":null}");
	expect_silence();
	set(body);
	expect_silence();
}

static void latches_moving_time(void **state)
{
	watch();
	set("{\"action\":\"terminate\",\"action_in\":110,\"moving\":true}");
	expect(NOTICE_INTERRUPTION, "terminate");
	/* The mock's time moves by whole seconds. */
	sleep(2);
	expect_silence();
}

static void bounds_far_time(void **state)
{
	int64_t before_ms;
	struct notice notice;

	watch();
	before_ms = boottime_ms();
	set("{\"action\":\"terminate\",\"action_in\":86400}");
	notice = next_notice();
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_deadline(notice.deadline_ms, before_ms, WINDOW_MS);
}

static void assumes_window_without_time(void **state)
{
	int64_t before_ms;
	struct notice notice;

	watch();
	before_ms = boottime_ms();
	set("{\"action_body\":\"{\\\"action\\\":\\\"stop\\\",\\\"time\\\":\\\"soon\\\"}\"}");
	notice = next_notice();
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_non_null(strstr(notice.text, "at an unknown time"));
	assert_deadline(notice.deadline_ms, before_ms, WINDOW_MS);
}

static void hibernates_now(void **state)
{
	struct notice notice;

	watch();
	set("{\"action\":\"hibernate\",\"action_in\":120}");
	notice = next_notice();
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_true(notice.deadline_ms <= boottime_ms());
}

static void ignores_expired(void **state)
{
	watch();
	set("{\"action\":\"terminate\",\"action_in\":-3600}");
	expect_silence();
	set("{\"action_in\":100}");
	expect(NOTICE_INTERRUPTION, "terminate");
}

/* The service's own Date tells how much is left when this node's clock is wrong. */
static void trusts_service_clock(void **state)
{
	int64_t before_ms;
	struct notice notice;

	set("{\"skew\":-7200}");
	watch();
	before_ms = boottime_ms();
	set("{\"action\":\"terminate\",\"action_in\":80}");
	notice = next_notice();
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_deadline(notice.deadline_ms, before_ms, 80000);
}

static void reports_rebalance_once(void **state)
{
	watch();
	set("{\"rebalance\":true}");
	expect(NOTICE_REBALANCE, "EC2 recommends to move away from this instance (said at 20");
	expect_silence();
	set("{\"action\":\"terminate\"}");
	expect(NOTICE_INTERRUPTION, "terminate");
	set("{\"rebalance\":false}");
	expect_silence();
	set("{\"rebalance\":\"{\\\"noticeTime\\\":0}\"}");
	expect(NOTICE_REBALANCE, "at an unknown time");
}

static void renews_token_after_401(void **state)
{
	long puts, unauthorized;

	watch();
	puts = counter("puts");
	unauthorized = counter("unauthorized");
	set("{\"mode\":\"401\",\"times\":1}");
	expect_silence();
	assert_int_equal(counter("puts"), puts + 1);
	assert_int_equal(counter("unauthorized"), unauthorized + 1);
	assert_int_equal(counter("token_headers_max"), 1);
}

static void retries_401_once(void **state)
{
	long puts, unauthorized;

	set("{\"mode\":\"401\",\"times\":2}");
	puts = counter("puts");
	unauthorized = counter("unauthorized");
	watch_endpoint(mock.endpoint, 5000);
	expect(NOTICE_SOURCE_DOWN, "HTTP status 401 for /latest/meta-data/spot/instance-action");
	expect(NOTICE_SOURCE_UP, "answers");
	assert_int_equal(counter("unauthorized"), unauthorized + 2);
	assert_int_equal(counter("puts"), puts + 2);
	assert_int_equal(counter("token_headers_max"), 1);
}

static void reuses_and_renews_token(void **state)
{
	long puts, unauthorized;

	watch();
	puts = counter("puts");
	expect_silence();
	assert_int_equal(counter("puts"), puts);
	notice_stop(source);
	set("{\"ttl\":1}");
	watch();
	puts = counter("puts");
	unauthorized = counter("unauthorized");
	wait_counter("puts", puts + 4);
	expect_silence();
	/* Early: not each by a 401.  A slow machine may be late for some. */
	assert_true(counter("unauthorized") - unauthorized < counter("puts") - puts);
	assert_int_equal(counter("bad_requests"), 0);
}

/* Each failure is told once, and so is its end. */
static void reports_down_and_up(void **state)
{
	static const struct {
		const char *mode;
		const char *words;
	} cases[] = {
		{ "{\"mode\":\"dead\"}", "cannot be asked: " },
		/* Of either: the mode may change between the two questions. */
		{ "{\"mode\":\"garbage\"}", "is no " },
		{ "{\"mode\":\"garbage-all\",\"ttl\":1}", "is no " },
		{ "{\"mode\":\"huge\"}", "is longer than 4096 bytes" },
		{ "{\"mode\":\"redirect\"}", "HTTP status 302" },
		{ "{\"mode\":\"error\",\"status\":403}", "HTTP status 403" },
		{ "{\"mode\":\"error\",\"status\":400}", "HTTP status 400" },
		{ "{\"mode\":\"error\",\"status\":503}", "HTTP status 503" },
		{ "{\"mode\":\"error\",\"status\":429}", "HTTP status 429" },
		{ "{\"mode\":\"normal\",\"rebalance\":\"?\"}", "rebalance is no recommendation" },
		{ "{\"mode\":\"normal\",\"action_body\":\"{}\"}", "instance-action is no notice" },
		{ "{\"mode\":\"normal\",\"action_body\":\"{\\\"action\\\":\\\"stop\\\"}\\u0000\"}",
		  "instance-action is no notice" },
	};
	struct notice notice;
	size_t i;

	watch();
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		long gets = counter("gets");

		set(cases[i].mode);
		notice = next_notice();
		if (notice.kind != NOTICE_SOURCE_DOWN || !strstr(notice.text, cases[i].words))
			fail_msg("%s: %d '%s'", cases[i].mode, notice.kind, notice.text);
		assert_non_null(strstr(notice.text, "Is this EC2? 'imds_endpoint = off' turns this off"));
		wait_counter("gets", gets + 3);
		reset(NULL);
		expect(NOTICE_SOURCE_UP, "answers");
	}
	expect_silence();
}

/* Every request fails, also the one for a token. */
static void down_from_the_start(void **state)
{
	static const char *const modes[] = {
		"{\"mode\":\"garbage-all\"}", "{\"mode\":\"error\",\"status\":404}",
		"{\"mode\":\"error\",\"status\":403}", "{\"mode\":\"error\",\"status\":500}",
		"{\"mode\":\"dead\"}", "{\"mode\":\"redirect\"}",
	};
	size_t i;

	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		set(modes[i]);
		watch_endpoint(mock.endpoint, 5000);
		expect(NOTICE_SOURCE_DOWN, "notices cannot be seen: only periodic checkpoints protect");
		reset(NULL);
		expect(NOTICE_SOURCE_UP, "answers");
		stop(NULL);
	}
}

/* Bytes that would end the header line that the token goes into. */
static void refuses_bad_token(void **state)
{
	set("{\"mode\":\"garbage-token\"}");
	watch_endpoint(mock.endpoint, 5000);
	expect(NOTICE_SOURCE_DOWN, "the answer for /latest/api/token is no token");
}

static void down_when_slow(void **state)
{
	set("{\"mode\":\"slow\",\"delay\":1000}");
	watch_endpoint(mock.endpoint, 100);
	expect(NOTICE_SOURCE_DOWN, "timed out");
}

static void down_when_refused(void **state)
{
	struct sockaddr_in address = { AF_INET, 0, { htonl(INADDR_LOOPBACK) }, { 0 } };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t length = sizeof(address);
	char endpoint[64];

	/* Bound and not listening: nobody else can take the port meanwhile. */
	assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d", ntohs(address.sin_port));
	watch_endpoint(endpoint, 5000);
	expect(NOTICE_SOURCE_DOWN, "cannot be asked: Connection refused; notices");
	close(fd);
}

/* Without the interruption this would take 1000 s, and alarm() would end it. */
static void stops_within_a_request(void **state)
{
	long puts = counter("puts");

	set("{\"mode\":\"slow\",\"delay\":1000}");
	watch_endpoint(mock.endpoint, 1000000);
	wait_counter("puts", puts + 1);
}

static void stops_within_a_pause(void **state)
{
	struct notice_options options = { mock.endpoint, 1000000, 5000, WINDOW_MS };

	assert_int_equal(notice_start(&source, &options, &notice_fd, NULL), 0);
	expect(NOTICE_SOURCE_UP, "answers");
}

/* A machine that stood still: its token has expired, its connection is old, and a notice came meanwhile. */
static void wakes_after_a_pause(void **state)
{
	long gets = counter("rebalance_gets");
	struct notice notice;
	int64_t before_ms;
	int ends[2], status;
	pid_t pid;

	set("{\"ttl\":1}");
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		alarm(120);
		watch();
		notice = next_notice();
		_exit(write(ends[1], &notice, sizeof(notice)) != sizeof(notice));
	}
	close(ends[1]);
	wait_counter("rebalance_gets", gets + 4);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	before_ms = boottime_ms();
	set("{\"action\":\"stop\",\"action_in\":90}");
	sleep(2);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(read(ends[0], &notice, sizeof(notice)), sizeof(notice));
	assert_int_equal(notice.kind, NOTICE_INTERRUPTION);
	assert_deadline(notice.deadline_ms, before_ms, 90000);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(ends[0]);
}

static int64_t cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

/* With one poll in a second, less than a hundredth of a core. */
static void polls_cost_little(void **state)
{
	int64_t used_us;
	long polls;

	watch();
	polls = counter("rebalance_gets");
	used_us = cpu_us();
	sleep(1);
	used_us = cpu_us() - used_us;
	polls = counter("rebalance_gets") - polls;
	assert_true(polls > 0);
	assert_in_range(used_us / polls, 1, 10000);
}

/* What the daemon starts meanwhile, jobs and criu, must not get a descriptor of the source. */
static void leaks_no_descriptor(void **state)
{
	int before[256], fd;

	for (fd = 0; fd < 256; fd++)
		before[fd] = fcntl(fd, F_GETFD);
	watch();
	for (fd = 0; fd < 256; fd++)
		if (before[fd] < 0 && fcntl(fd, F_GETFD) >= 0)
			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	stop(NULL);
	for (fd = 0; fd < 256; fd++)
		assert_int_equal(fcntl(fd, F_GETFD), before[fd]);
}

static void watches_nothing(void **state)
{
	struct notice_options options = { "https://127.0.0.1", POLL_MS, 5000, WINDOW_MS };
	struct problem problem;
	char byte;

	assert_int_equal(notice_start(&source, &options, &notice_fd, &problem), -EINVAL);
	assert_non_null(strstr(problem.text, "http://HOST[:PORT]"));
	watch_endpoint("", 5000);
	assert_int_equal(read(notice_fd, &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	stop(NULL);
	watch_endpoint(NULL, 5000);
	stop(NULL);
	notice_stop(NULL);
}

#define watching(function) cmocka_unit_test_setup_teardown(function, reset, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_actions),
		cmocka_unit_test(parses_rebalance),
		cmocka_unit_test(computes_deadlines),
		watching(tells_place),
		watching(reports_interruption_once),
		watching(same_event_after_404),
		watching(latches_moving_time),
		watching(bounds_far_time),
		watching(assumes_window_without_time),
		watching(hibernates_now),
		watching(ignores_expired),
		watching(trusts_service_clock),
		watching(reports_rebalance_once),
		watching(renews_token_after_401),
		watching(retries_401_once),
		watching(reuses_and_renews_token),
		watching(reports_down_and_up),
		watching(down_from_the_start),
		watching(refuses_bad_token),
		watching(down_when_slow),
		watching(down_when_refused),
		watching(stops_within_a_request),
		watching(stops_within_a_pause),
		watching(wakes_after_a_pause),
		watching(polls_cost_little),
		watching(leaks_no_descriptor),
		watching(watches_nothing),
	};

	return cmocka_run_group_tests(tests, mock_start, mock_stop);
}
