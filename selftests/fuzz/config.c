// SPDX-License-Identifier: GPL-2.0
/* ckptd's configuration. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	struct problem problem;
	struct config *config;
	char path[64];

	if (fd < 0 || fchmod(fd, 0600) || write(fd, data, length) != (ssize_t)length)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!config_load(&config, path, &problem)) {
		config_class(config, "a");
		config_free(config);
	}
	close(fd);
	return 0;
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	static const char all[] = "[daemon]\nimds_endpoint = http://127.0.0.1:80\nimds_poll = 5s\n"
				  "key_file = /k\nwork_dir = /w\ncriu = criu\nlog_level = info\n"
				  "[class a]\nstore = /s\nstore_user = 1000\nmechanism = soft-dirty, hash\n"
				  "compress = zstd:3\nseal = none\nepoch_interval = 30s ; words\nkeep = 2\n"
				  "buffer_memory = 64M\nio_limit = 200M\ncpu_limit = 2\nwindow = 2m\nmargin = 15s\n# end\n[class b]\nstore = /t\n";

	seed("all", all, sizeof(all) - 1);
	seed("least", "[class a]\nstore=/s\n", 19);
}
