// temporary
#include "tracker.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cleanup.h"
struct tracker { pid_t pid; };
static int probe(struct problem *p) { return 0; }
static int topen(struct tracker *t, struct problem *p) { return 0; }
static void tclose(struct tracker *t) {}
static int collect(struct tracker *t, struct regions *r, struct problem *p)
{
	char name[64], line[4096], mode[8];
	snprintf(name, sizeof name, "/proc/%d/maps", t->pid);
	cleanup_fclose FILE *maps = fopen(name, "re");
	snprintf(name, sizeof name, "/proc/%d/pagemap", t->pid);
	cleanup_close int fd = open(name, O_RDONLY|O_CLOEXEC);
	if (!maps || fd < 0) return -ESRCH;
	while (fgets(line, sizeof line, maps)) {
		unsigned long s, e;
		if (sscanf(line, "%lx-%lx %7s", &s, &e, mode) != 3 || mode[3] == 's' || strstr(line, "[v")) continue;
		for (; s < e; s += 4096) {
			uint64_t v;
			if (pread(fd, &v, 8, s / 4096 * 8) != 8) break;
			if (!(v >> 62 & 3)) continue;
			if (v >> 61 & 1) continue;
			regions_add(r, s, s + 4096, 3);
		}
	}
	return 0;
}
static const struct tracker_mechanism m = { "hash", "reads all", probe, topen, collect, tclose, true };
const struct tracker_mechanism *const tracker_mechanisms[] = { &m, NULL };
const struct tracker_mechanism *tracker_choose(const char *w, struct problem *p) { return &m; }
int tracker_open(struct tracker **t, const struct tracker_mechanism *mm, int pidfd, pid_t pid, struct problem *p) { *t = calloc(1, sizeof **t); (*t)->pid = pid; return 0; }
int tracker_collect(struct tracker *t, struct regions *r, bool *full, struct problem *p) { *full = true; return collect(t, r, p); }
void tracker_close(struct tracker *t) { free(t); }
