// SPDX-License-Identifier: GPL-2.0
/*
 * Prints how fast this machine's TSC is, in kHz: QEMU without KVM hands it on to guests.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct reading {
	uint64_t tsc;
	int64_t ns;
};

/* The one of several between whose two ends the least time passed: it was not interrupted. */
static struct reading read_both(void)
{
	struct reading best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 100; i++) {
		struct timespec now;
		uint64_t begin = __rdtsc(), took;

		clock_gettime(CLOCK_MONOTONIC, &now);
		took = __rdtsc() - begin;
		if (took >= least)
			continue;
		least = took;
		best = (struct reading){ begin + took / 2, now.tv_sec * 1000000000LL + now.tv_nsec };
	}
	return best;
}

int main(void)
{
	struct reading begin = read_both(), end;

	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	end = read_both();
	printf("%.0f\n", (double)(end.tsc - begin.tsc) * 1e6 / (double)(end.ns - begin.ns));
	return 0;
}
