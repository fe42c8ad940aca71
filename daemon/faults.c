// SPDX-License-Identifier: GPL-2.0
#include "faults.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static const char *const points[] = {
	"store.mkdir",
	"store.create",
	"store.write",
	"store.length",
	"store.fsync",
	"store.close",
	"store.link",
	"store.rename",
	"store.unlink",
	"store.fsync_dir",
	"store.remove",
	"store.rmdir",
	"store.renew",
	"store.read",
	"store.list",
	"store.no_direct",
	"pread.no_more",
	"store.no_link",
	"packer.write",
	"packer.short_write",
	"packer.thread",
	"packer.truncate",
	"packer.read",
	"packer.no_uring",
	"packer.no_direct",
	"manifest.publish",
	"manifest.published",
	"checkpoint.prepared",
	"checkpoint.frozen",
	"checkpoint.dumped",
	"pageserver.add",
	"restore.files",
	"restore.criu",
	"job.launched",
	"job.recorded",
	"job.interrupted",
	"job.retired",
	"seal.no_aes",
	"seal.no_ipsec_mb",
	"putback.content",
	"proc.file",
	"proc.descriptor",
	"pagescan.no_ioctl",
	"criu.no_hold",
	"criu.no_soft_dirty",
	"reader.frozen",
	"reader.collected",
	"lazy.no_ahead",
	"lazy.check",
};

static const struct {
	const char *name;
	int err;
} errors[] = {
	{ "EIO", EIO },       { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EROFS", EROFS },
	{ "ESTALE", ESTALE }, { "EACCES", EACCES }, { "EPERM", EPERM },	  { "ENOMEM", ENOMEM },
	{ "ENOSYS", ENOSYS }, { "EINTR", EINTR },   { "EAGAIN", EAGAIN }, { "EINVAL", EINVAL },
	{ "EMFILE", EMFILE },
};

bool faults_armed;

static struct {
	pthread_mutex_t lock;
	char name[64];
	unsigned long count;
	unsigned long hits;
	int err;
	int signal;
	bool fired;
} armed = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool switches_off(const char *name)
{
	return strstr(name, ".no_");
}

static bool point_exists(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(points) / sizeof(*points); i++)
		if (!strcmp(points[i], name))
			return true;
	return !strcmp(name, "*");
}

static int errno_parse(const char *text)
{
	char *end;
	long err;
	size_t i;

	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (!strcmp(errors[i].name, text))
			return errors[i].err;
	err = strtol(text, &end, 10);
	return *end || err <= 0 || err > 4095 ? -EINVAL : (int)err;
}

static int action_parse(const char *text)
{
	int err;

	armed.signal = !strcmp(text, "kill") ? SIGKILL : !strcmp(text, "stop") ? SIGSTOP : 0;
	if (armed.signal)
		return 0;
	err = errno_parse(text);
	if (err < 0)
		return err;
	armed.err = err;
	return 0;
}

int fault_arm(const char *spec)
{
	char *text, *action, *count;
	int err = 0;

	faults_armed = false;
	armed.fired = false;
	armed.signal = 0;
	armed.hits = 0;
	armed.count = 1;
	armed.err = EIO;
	if (!spec)
		return 0;
	text = strdup(spec);
	if (!text)
		return -ENOMEM;
	action = strchr(text, '=');
	if (action) {
		*action++ = 0;
		err = action_parse(action);
	}
	count = strchr(text, ':');
	if (count) {
		*count++ = 0;
		armed.count = strtoul(count, NULL, 10);
	}
	if (!armed.count || !point_exists(text))
		err = -EINVAL;
	snprintf(armed.name, sizeof(armed.name), "%s", text);
	free(text);
	faults_armed = !err;
	return err;
}

bool fault_fired(void)
{
	return armed.fired;
}

static void faults_print(FILE *file)
{
	size_t i;

	for (i = 0; i < sizeof(points) / sizeof(*points); i++)
		fprintf(file, "%s\n", points[i]);
}

static bool fires(const char *name)
{
	if (!strcmp(armed.name, "*"))
		return !switches_off(name) && ++armed.hits == armed.count;
	if (strcmp(armed.name, name))
		return false;
	armed.hits++;
	return switches_off(name) ? armed.hits >= armed.count : armed.hits == armed.count;
}

int fault_hit(const char *name)
{
	bool now, first;

	if (!point_exists(name)) {
		log_err("fault point %s is not in the list in faults.c", name);
		abort();
	}
	pthread_mutex_lock(&armed.lock);
	now = fires(name);
	first = !armed.fired;
	armed.fired |= now;
	pthread_mutex_unlock(&armed.lock);
	if (!now)
		return 0;
	if (armed.signal) {
		/* To this thread: it does not go on before it has taken it. */
		raise(armed.signal);
		return 0;
	}
	if (first)
		log_warn("fault point %s fires: %s", name, strerror(armed.err));
	return -armed.err;
}

__attribute__((constructor)) static void arm_from_environment(void)
{
	const char *spec = getenv("CKPT_FAULT");

	if (spec && fault_arm(spec)) {
		log_err("CKPT_FAULT=%s: want NAME[:COUNT][=ERRNO|kill|stop] with a NAME of:", spec);
		faults_print(stderr);
		exit(2);
	}
}
