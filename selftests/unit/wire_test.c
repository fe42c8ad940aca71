// SPDX-License-Identifier: GPL-2.0
/* What one user may take of ckptd by requests that are well formed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "control_private.h"
#include "job_private.h"

static int ends[2];

static int begin(void **state)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

static int end(void **state)
{
	return close(ends[0]) || close(ends[1]);
}

static void test_one_at_a_time(void **state)
{
	struct wire_input input = { 0 };
	json_t *one = json_pack("{s:i}", "number", 1), *got = NULL;
	int err = 0, left = 0;

	assert_int_equal(wire_send(ends[0], one, NULL, 0, 0), 0);
	assert_int_equal(wire_send(ends[0], one, NULL, 0, 0), 0);
	for (int messages = 1; messages >= 0; messages--) {
		do {
			assert_int_equal(wire_receive(ends[1], &input, 0), 0);
			got = wire_next(&input, &err);
			assert_int_equal(err, 0);
		} while (!got);
		assert_true(json_equal(got, one));
		json_decref(got);
		assert_null(wire_next(&input, &err));
		assert_int_equal(ioctl(ends[1], FIONREAD, &left), 0);
		assert_int_equal(left, messages * 16);
	}
	wire_input_free(&input);
	json_decref(one);
}

/* Takes a message of that many empty arrays, which are three bytes there and a hundred in memory. */
static int take_values(size_t count)
{
	static const char head[] = "{\"a\":[[]", tail[] = "]}";
	size_t length = strlen(head) + (count - 1) * 3 + strlen(tail);
	struct wire_input input = { .bytes = malloc(length + 4), .used = length + 4, .space = length + 4 };
	char *at = (char *)input.bytes + 4;
	json_t *message;
	int err = 0;

	assert_non_null(input.bytes);
	memcpy(input.bytes, &(uint32_t){ (uint32_t)length }, 4);
	at = mempcpy(at, head, strlen(head));
	for (size_t i = 1; i < count; i++)
		at = mempcpy(at, ",[]", 3);
	memcpy(at, tail, strlen(tail));
	message = wire_next(&input, &err);
	if (message) {
		assert_int_equal(json_array_size(json_object_get(message, "a")), count);
		assert_true(input.cost >= count * 100);
	}
	json_decref(message);
	wire_input_free(&input);
	return err;
}

static void test_values(void **state)
{
	assert_int_equal(take_values(1000), 0);
	assert_int_equal(take_values(WIRE_MAX_VALUES), -EMSGSIZE);
}

/* Commas in a text are no values. */
static void test_text(void **state)
{
	static const char text[] = "{\"a\": \"x\\\",,,,,,,,,,,,[[[[[[[[[[[[\"}";
	struct wire_input input = { .bytes = malloc(sizeof(text) + 3), .used = sizeof(text) + 3, .space = sizeof(text) + 3 };
	int err;

	assert_non_null(input.bytes);
	memcpy(input.bytes, &(uint32_t){ sizeof(text) - 1 }, 4);
	memcpy(input.bytes + 4, text, sizeof(text) - 1);
	json_decref(wire_next(&input, &err));
	assert_int_equal(err, 0);
	assert_in_range(input.cost, sizeof(text), sizeof(text) + 4 * 128);
	wire_input_free(&input);
}

/* A client of user 1000, who has that many jobs, whose requests take that much. */
static int check_run(unsigned int jobs, size_t bytes, uid_t uid)
{
	struct job job = { .caller.uid = 1000 };
	struct slot *slots = calloc(jobs + 1, sizeof(*slots));
	struct control control = { .slots = jobs ? slots : NULL };
	struct client client = { .control = &control, .who.uid = uid, .input.cost = 1000 };
	struct problem problem;
	int ret;

	assert_non_null(slots);
	control.clients = &client;
	for (unsigned int i = 0; i < jobs; i++)
		slots[i] = (struct slot){ .job = &job, .next = i + 1 < jobs ? &slots[i + 1] : NULL, .bytes = bytes };
	ret = client_check_run(&client, &problem);
	free(slots);
	return ret;
}

static void test_jobs(void **state)
{
	assert_int_equal(check_run(0, 0, 1000), 0);
	assert_int_equal(check_run(511, 100000, 1000), 0);
	assert_int_equal(check_run(512, 0, 1000), -EDQUOT);
	assert_int_equal(check_run(9, 8 << 20, 1000), -EDQUOT);
	assert_int_equal(check_run(600, 8 << 20, 1001), 0);
	assert_int_equal(check_run(600, 0, 0), 0);
}

/* Kept as long as the job runs. */
static void test_bases(void **state)
{
	struct job job = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct slot slot = { .job = &job };
	struct client client = { .slot = &slot };
	json_t *request = json_pack("{s:s, s:{s:i, s:[i,i], s:[n,n,n]}}", "op", "outputs", "bases", "stdout", 7, "stderr", 1, 2,
				    "more");
	json_t *kept = json_pack("{s:i, s:n}", "stdout", 7, "stderr");

	client_serve(&client, request);
	assert_true(json_equal(job.bases, kept));
	json_decref(job.bases);
	json_decref(kept);
	json_decref(request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_at_a_time, begin, end),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_bases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
