// SPDX-License-Identifier: GPL-2.0
/* The job: does what the test orders through a pipe, and answers with a byte. */
#include <sys/prctl.h>

#include "matrix.h"

static struct orders orders;
static struct control *control;

static void answer(const char *skip)
{
	strncpy(control->skip, skip ?: "", sizeof(control->skip) - 1);
	require(write(orders.to_test, "", 1) == 1);
}

void job_child(pid_t child)
{
	control->child = child;
}

_Noreturn void job_main(const struct orders *from, enum memory_kind kind)
{
	struct area *area;
	unsigned char order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	orders = *from;
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, orders.control_fd, 0);
	require(control != MAP_FAILED);
	area = &control->area;
	*area = (struct area){ .kind = kind, .unit = 1 };
	answer(memories[kind].make(area));
	while (read(orders.from_test, &order, 1) == 1) {
		if (order == ORDER_WRITE)
			area_write_some(area);
		answer(order == ORDER_WRITE ? NULL : events[order].run(area));
	}
	_exit(0);
}

const char *job_exec(struct area *area)
{
	char numbers[4][16];

	snprintf(numbers[0], 16, "%d", orders.from_test);
	snprintf(numbers[1], 16, "%d", orders.to_test);
	snprintf(numbers[2], 16, "%d", orders.control_fd);
	snprintf(numbers[3], 16, "%d", area->kind);
	execl("/proc/self/exe", "matrix", "job", numbers[0], numbers[1], numbers[2], numbers[3], NULL);
	fail("exec");
}

_Noreturn void job_main_again(char **argv)
{
	struct orders again = { atoi(argv[0]), atoi(argv[1]), atoi(argv[2]) };

	job_main(&again, atoi(argv[3]));
}
