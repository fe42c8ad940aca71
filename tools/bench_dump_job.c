// SPDX-License-Identifier: GPL-2.0
/* The job that `ckptbench dump --mib` measures: started by ckptctl run, told by signals, answering on its output. */
#include "bench_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_victim.h"
#include "cleanup.h"
#include "commands.h"
#include "region.h"

/* ---- in the job ---- */

struct hold {
	uint64_t *memory;
	uint64_t pages;
	uint64_t state;
};

/* Nothing that anybody could compress, and no two pages alike. */
static void fill_page(void *argument, uint64_t page)
{
	struct hold *hold = argument;
	uint64_t *words = hold->memory + page * (PAGE_BYTES / sizeof(*words));

	for (size_t i = 0; i < PAGE_BYTES / sizeof(*words); i++) {
		hold->state ^= hold->state << 13;
		hold->state ^= hold->state >> 7;
		hold->state ^= hold->state << 17;
		words[i] = hold->state;
	}
}

static void answer(const char *word)
{
	puts(word);
	fflush(stdout);
}

/* Each signal's value is the number of pages to write. */
__attribute__((noreturn)) static void obey(struct hold *hold, const sigset_t *orders)
{
	struct writes writes = { .seed = 1 };
	siginfo_t order;

	for (;;) {
		if (sigwaitinfo(orders, &order) < 0)
			continue;
		writes.count = (uint64_t)(uintptr_t)order.si_value.sival_ptr;
		writes.seed++;
		writes_each(&writes, hold->pages, fill_page, hold);
		answer("written");
	}
}

int dump_job_main(size_t bytes, bool huge)
{
	struct hold hold = { .pages = bytes / PAGE_BYTES, .state = 88172645463325252 };
	sigset_t orders;

	sigemptyset(&orders);
	sigaddset(&orders, SIGUSR1);
	sigprocmask(SIG_BLOCK, &orders, NULL);
	hold.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hold.memory == MAP_FAILED || (madvise(hold.memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
					  errno != EINVAL)) {
		say("no memory to hold: %s", strerror(errno));
		return 1;
	}
	writes_each(&(struct writes){ .count = hold.pages }, hold.pages, fill_page, &hold);
	answer("ready");
	obey(&hold, &orders);
}

/* ---- outside ---- */

static int await_word(struct dump_job *job, const char *word)
{
	char line[64];

	while (job->output && fgets(line, sizeof(line), job->output)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strcmp(line, word))
			return 0;
	}
	say("the job %s ended; 'ckptctl run' has said why", job->name);
	return -ESRCH;
}

__attribute__((noreturn)) static void exec_run(const struct dump_job *job, const char *class, bool huge, int output)
{
	char self[4096] = "", mib[32];

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		_exit(127);
	snprintf(mib, sizeof(mib), "%zu", job->bytes >> 20);
	dup2(output, STDOUT_FILENO);
	dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
	execlp("ckptctl", "ckptctl", "run", "--class", class, "--job", strchr(job->name, '-') + 1, "--", self, "dump",
	       "--hold", mib, huge ? "--thp" : NULL, NULL);
	_exit(127);
}

json_t *dump_job_status(const char *name)
{
	json_t *request = json_pack("{s:s}", "op", "status");
	json_t *answer = ask(request);
	json_t *job, *found = NULL;
	size_t i;

	json_decref(request);
	json_array_foreach(json_object_get(answer, "jobs"), i, job)
		if (!strcmp(json_string_value(json_object_get(job, "job")), name))
			found = json_incref(job);
	json_decref(answer);
	return found;
}

int dump_job_start(struct dump_job *job, const char *class, size_t bytes, bool huge)
{
	json_t *status;
	int ends[2], ret;

	*job = (struct dump_job){ .bytes = bytes };
	snprintf(job->name, sizeof(job->name), "%u-ckptbench-%d", getuid(), getpid());
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	job->run = fork();
	if (job->run == 0)
		exec_run(job, class, huge, ends[1]);
	close(ends[1]);
	job->output = fdopen(ends[0], "re");
	ret = await_word(job, "ready");
	if (ret) {
		dump_job_end(job);
		return ret;
	}
	status = dump_job_status(job->name);
	job->pid = (pid_t)json_integer_value(json_object_get(status, "pid"));
	json_decref(status);
	return 0;
}

int dump_job_write(struct dump_job *job, double share)
{
	union sigval pages = { .sival_ptr = (void *)(uintptr_t)(share * (double)(job->bytes / PAGE_BYTES)) };

	if (!pages.sival_ptr)
		return 0;
	if (sigqueue(job->pid, SIGUSR1, pages))
		return -errno;
	return await_word(job, "written");
}

void dump_job_end(struct dump_job *job)
{
	/* For good: another signal would leave its checkpoints. */
	if (job->pid > 0)
		kill(job->pid, SIGINT);
	else if (job->run > 0)
		kill(job->run, SIGINT);
	if (job->run > 0)
		waitpid(job->run, NULL, 0);
	if (job->output)
		fclose(job->output);
}
