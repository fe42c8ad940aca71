// SPDX-License-Identifier: GPL-2.0
/* Which TCP connections of a job can be saved, from the kernel's own table. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
#include <cmocka.h>

#include "tcp.h"

#define HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#define TAIL ":00000000 00:00000000 00000000  1000        0 "
#define LISTENS "   0: 0100007F:0FA0 00000000:0000 0A 00000000" TAIL "10 1 0000000000000000 100 0 0 10 0\n"
/* Of one connection by 127.0.0.1, ports 4000 and 50000. */
#define SERVER(state, unsent, inode) "   1: 0100007F:0FA0 0100007F:C350 " state " " unsent TAIL inode " 1 0 20 4 30 10 -1\n"
#define CLIENT(state, unsent, inode) "   2: 0100007F:C350 0100007F:0FA0 " state " " unsent TAIL inode " 1 0 20 4 30 10 -1\n"
#define CLIENT_OF_6 "   0: 0000000000000000FFFF00000100007F:C350 0000000000000000FFFF00000100007F:0FA0 01 00000000" \
		    TAIL "12 1 0000000000000000 20 4 0 10 -1\n"
#define OF_6 "   0: 00000000000000000000000001000000:0FA0 00000000000000000000000001000000:C350 01 00000000" TAIL \
	     "11 1 0 20 4 0 10 -1\n" \
	     "   1: 00000000000000000000000001000000:C350 00000000000000000000000001000000:0FA0 01 00000000" TAIL \
	     "12 1 0 20 4 0 10 -1\n"
/* 10.0.0.5 to 10.0.0.9 */
#define AWAY "   3: 0500000A:C351 0900000A:0016 01 00000000" TAIL "13 1 0 20 4 30 10 -1\n"
#define NONE "00000000"

static struct tcp_found found;
static struct problem problem;

/* Of a job with the sockets 10 to 13. */
static int judge(const char *table, enum tcp_policy policy)
{
	struct numbers sockets = { 0 };
	int ret;

	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(numbers_add(&sockets, 13 - i), 0);
	strcpy(problem.text, "");
	ret = tcp_judge(&sockets, table, policy, &found, &problem);
	numbers_free(&sockets);
	return ret;
}

static void expect_refusal(const char *table, const char *words)
{
	assert_int_equal(judge(table, TCP_POLICY_ESTABLISHED), -ENOTSUP);
	assert_non_null(strstr(problem.text, words));
	assert_int_equal(judge(table, TCP_POLICY_CLOSE), 0);
	assert_int_equal(judge(table, TCP_POLICY_REFUSE), -ENOTSUP);
}

static void expect_saved(const char *table, size_t connections, bool moving)
{
	assert_int_equal(judge(table, TCP_POLICY_ESTABLISHED), 0);
	assert_int_equal(found.connections, connections);
	assert_int_equal(found.moving, moving);
	assert_int_equal(judge(table, TCP_POLICY_REFUSE), connections ? -ENOTSUP : 0);
}

static void test_none(void **state)
{
	expect_saved("", 0, false);
	expect_saved(HEAD LISTENS, 0, false);
	expect_saved(HEAD SERVER("01", NONE, "21") CLIENT("01", "00000001", "22"), 0, false);
	/* One that has ended, and one that nobody refers to any more. */
	expect_saved(HEAD CLIENT("07", NONE, "11") SERVER("06", NONE, "0"), 0, false);
}

static void test_both_ends(void **state)
{
	expect_saved(HEAD LISTENS SERVER("01", NONE, "11") CLIENT("01", NONE, "12"), 2, false);
	expect_saved(HEAD LISTENS SERVER("01", "00000100", "11") CLIENT("01", NONE, "12"), 2, true);
	expect_saved(HEAD OF_6, 2, false);
	expect_saved(HEAD SERVER("01", NONE, "11") HEAD CLIENT_OF_6, 2, false);
	expect_saved(HEAD SERVER("08", NONE, "11") CLIENT("05", NONE, "12"), 2, false);
}

static void test_others(void **state)
{
	expect_refusal(HEAD AWAY, "10.0.0.5:50001 to 10.0.0.9:22, which cannot move");
	expect_refusal(HEAD SERVER("01", NONE, "99") CLIENT("01", NONE, "12"), "whose other end is not the job's");
	expect_refusal(HEAD SERVER("01", NONE, "0") CLIENT("01", NONE, "12"), "is just being made or closed");
	expect_refusal(HEAD CLIENT("02", NONE, "12"), "is just being made or closed");
}

/* The other end has closed: nothing more comes, or something does. */
static void test_half(void **state)
{
	expect_saved(HEAD SERVER("08", NONE, "11") CLIENT("05", NONE, "0"), 1, false);
	expect_saved(HEAD SERVER("08", NONE, "11") CLIENT("04", "00000001", "0"), 1, false);
	expect_saved(HEAD SERVER("08", NONE, "11"), 1, false);
	expect_refusal(HEAD SERVER("01", NONE, "11") CLIENT("04", "00001000", "0"), "is just being made or closed");
}

static void test_policies(void **state)
{
	enum tcp_policy policy;

	assert_int_equal(tcp_policy_parse("close", &policy), 0);
	assert_int_equal(policy, TCP_POLICY_CLOSE);
	assert_int_equal(tcp_policy_parse("open", &policy), -EINVAL);
}

/* This process's own, as its kernel tells them. */
static void test_kernel(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), peer;
	pid_t pid = getpid();

	assert_int_equal(bind(server, (struct sockaddr *)&address, bytes), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(getsockname(server, (struct sockaddr *)&address, &bytes), 0);
	assert_int_equal(tcp_check(&pid, 1, TCP_POLICY_ESTABLISHED, &found, &problem), 0);
	assert_int_equal(found.connections, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, bytes), 0);
	assert_int_equal(tcp_check(&pid, 1, TCP_POLICY_ESTABLISHED, &found, &problem), -ENOTSUP);
	peer = accept(server, NULL, NULL);
	assert_int_equal(tcp_check(&pid, 1, TCP_POLICY_ESTABLISHED, &found, &problem), 0);
	assert_int_equal(found.connections, 2);
	assert_int_equal(tcp_check(&pid, 1, TCP_POLICY_REFUSE, &found, &problem), -ENOTSUP);
	close(client);
	assert_int_equal(tcp_check(&pid, 1, TCP_POLICY_ESTABLISHED, &found, &problem), 0);
	assert_int_equal(found.connections, 1);
	close(peer);
	close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_both_ends),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_half),
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
