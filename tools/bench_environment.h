/* SPDX-License-Identifier: GPL-2.0 */
/* What a benchmark's figures were measured on; each adds what else its own depend on. */
#ifndef CKPT_BENCH_ENVIRONMENT_H
#define CKPT_BENCH_ENVIRONMENT_H

#include <jansson.h>

/* {"ckpt", "node", "kernel", "machine", "cpu", "cpus", "module_version", "criu" (null: none), "page_bytes", "memory_bytes"} */
json_t *bench_environment(void);

#endif
