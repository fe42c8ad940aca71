/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fuzz target gives LLVMFuzzerTestOneInput(), which must return 0 for any input, without a crash, in a
 * moment, with little memory; and fuzz_seeds(), which says what good inputs look like.
 *
 *   selftests/check fuzz/           each target, with seeded mutations of its corpus (driver.c)
 *   make fuzz TARGET=manifest       guided by coverage (clang, libFuzzer) until it is interrupted
 *   build/asan/fuzz/manifest FILE   one input again
 */
#ifndef CKPT_FUZZ_H
#define CKPT_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length));

#endif
