# SPDX-License-Identifier: GPL-2.0
# The two commands for people are `make demo` and `make check`; see README.

VERSION := 0.1.0
PREFIX ?= /usr
SYSCONFDIR ?= /etc
DESTDIR ?=
KDIR ?= /lib/modules/$(shell uname -r)/build
BUILD ?= build
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' $(1) $(2))

CC ?= gcc
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wformat=2 -Wvla -Wno-unused-parameter
LIBS := liburing libcurl jansson libxxhash libzstd liblz4 libsodium libcrypto libsystemd
PKG_CFLAGS = $(shell pkg-config --cflags $(LIBS))
PKG_LIBS = $(shell pkg-config --libs $(LIBS)) -linih $(IPSEC_MB) -lm -pthread
# Not needed, but AES is several times slower without it: see daemon/gcm.h.
IPSEC_MB := $(shell printf '\#include <intel-ipsec-mb.h>\n\#if IMB_VERSION_NUM < 0x10000\n\#error\n\#endif\n' | \
	$(CC) -E -x c - >/dev/null 2>&1 && echo -lIPSec_MB)
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -DCKPT_VERSION='"$(VERSION)"' $(WARN) $(CFLAGS) \
	-Iuapi -Idaemon -Itools -Iselftests $(PKG_CFLAGS) -pthread -MMD -MP

# Everything of the daemon but its main() and the job's init is one library, that tools and tests use.
LIB_SRC := $(filter-out daemon/main.c daemon/init.c daemon/pages.c daemon/gate.c daemon/criu_preload.c,$(wildcard daemon/*.c))
LIB := $(BUILD)/libckpt.a
UNIT_TESTS := $(patsubst selftests/unit/%.c,$(BUILD)/unit/%,$(wildcard selftests/unit/*.c))
# What tests share is a library as well. A guest test of several files is a directory.
TEST_LIB_SRC := $(wildcard selftests/*.c)
TEST_LIB := $(BUILD)/libtest.a
GUEST_TEST_DIRS := $(patsubst selftests/guest/%/,%,$(wildcard selftests/guest/*/))
GUEST_TESTS := $(patsubst selftests/guest/%.c,$(BUILD)/guest/%,$(wildcard selftests/guest/*.c)) \
	$(addprefix $(BUILD)/guest/,$(GUEST_TEST_DIRS))
FUZZ_TESTS := $(patsubst selftests/fuzz/%.c,$(BUILD)/fuzz/%,$(filter-out %/driver.c,$(wildcard selftests/fuzz/*.c)))
PROGRAMS := $(BUILD)/ckptd $(BUILD)/ckpt-init $(BUILD)/ckpt-pages $(BUILD)/ckpt-gate $(BUILD)/criu-preload.so $(BUILD)/ckptctl $(BUILD)/ckptbench

all: programs
programs: $(PROGRAMS)
guest-tests: $(GUEST_TESTS)

$(BUILD)/obj/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Has the script in it.
$(BUILD)/obj/tools/export.o: tools/restore.sh

$(LIB): $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

link = $(Q)$(CC) $(CFLAGS) -Wl,--as-needed -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)

$(BUILD)/ckptd: $(BUILD)/obj/daemon/main.o $(LIB)
	$(call say,LD,$@)
	$(link)

# Preloaded into criu; see the file.
$(BUILD)/criu-preload.so: daemon/criu_preload.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -o $@ $<

# PID 1 of each job: small, and linked with nothing of the daemon.
$(BUILD)/ckpt-init: $(BUILD)/obj/daemon/init.o
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) -o $@ $^

# What gives lazily restored jobs their memory, and what criu asks whether they may run.
$(BUILD)/ckpt-pages: $(BUILD)/obj/daemon/pages.o $(LIB)
	$(call say,LD,$@)
	$(link)

$(BUILD)/ckpt-gate: $(BUILD)/obj/daemon/gate.o
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) -o $@ $^

TOOL_LIB := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out tools/ckptctl.c tools/ckptbench.c,$(wildcard tools/*.c)))

$(BUILD)/ckptctl $(BUILD)/ckptbench: $(BUILD)/%: $(BUILD)/obj/tools/%.o $(TOOL_LIB) $(LIB)
	$(call say,LD,$@)
	$(link)

$(TEST_LIB): $(TEST_LIB_SRC:%.c=$(BUILD)/obj/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(foreach test,$(GUEST_TEST_DIRS),$(eval $(BUILD)/guest/$(test): \
	$(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard selftests/guest/$(test)/*.c))))
$(addprefix $(BUILD)/guest/,$(GUEST_TEST_DIRS)): $(TEST_LIB) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(link)

$(BUILD)/guest/%: $(BUILD)/obj/selftests/guest/%.o $(TEST_LIB) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(link)

$(BUILD)/unit/%: $(BUILD)/obj/selftests/unit/%.o $(TOOL_LIB) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o %.a,$^) $(PKG_LIBS) -lcmocka

unit-tests: $(UNIT_TESTS)

$(BUILD)/fuzz/%: $(BUILD)/obj/selftests/fuzz/%.o $(BUILD)/obj/selftests/fuzz/driver.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o %.a,$^) $(PKG_LIBS) -lcmocka

fuzz-tests: $(FUZZ_TESTS)

# Guided by coverage, until it is interrupted: make fuzz TARGET=manifest. What it finds new is kept beside the corpus.
FUZZ_FLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
$(BUILD)/libfuzzer/%: $(BUILD)/obj/selftests/fuzz/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o %.a,$^) $(PKG_LIBS) -lcmocka

fuzz:
	$(Q)$(MAKE) --no-print-directory BUILD=build/clang CC=clang CFLAGS="$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link" \
		build/clang/libfuzzer/$(TARGET)
	@mkdir -p build/corpus/$(TARGET)
	build/clang/libfuzzer/$(TARGET) -max_len=65536 -timeout=60 -rss_limit_mb=2048 $(FUZZ_OPTIONS) \
		build/corpus/$(TARGET) selftests/fuzz/corpus/$(TARGET)

module:
	$(Q)$(MAKE) --no-print-directory -C $(KDIR) M=$(CURDIR) modules

# Without DKMS: for the kernel of KDIR only.
module-install: RELEASE = $(firstword $(shell modinfo -F vermagic kmod/ckpt.ko))
module-install:
	install -D -m 644 kmod/ckpt.ko /lib/modules/$(RELEASE)/updates/ckpt.ko
	depmod $(RELEASE)

# What DKMS needs to build the module on each kernel that is installed later. With DESTDIR (packages) only the files.
DKMS_FILES := Kbuild COPYING uapi/linux/ckpt.h kmod/Kbuild kmod/compat.h kmod/internal.h kmod/walk.h \
	$(patsubst %.o,kmod/%.c,$(shell sed -n 's/^ckpt-y := //p' kmod/Kbuild))
DKMS_SOURCE := $(DESTDIR)/usr/src/ckpt-$(VERSION)

dkms-install:
	$(if $(DESTDIR),,! dkms status ckpt/$(VERSION) | grep . || dkms remove ckpt/$(VERSION) --all)
	rm -rf $(DKMS_SOURCE)
	for file in $(DKMS_FILES); do install -D -m 644 $$file $(DKMS_SOURCE)/$$file || exit 1; done
	sed -e 's/@VERSION@/$(VERSION)/' -e "s/@KERNELS@/$$(packaging/kernels)/" packaging/dkms.conf >$(DKMS_SOURCE)/dkms.conf
	$(if $(DESTDIR),,dkms install ckpt/$(VERSION))

dkms-uninstall:
	dkms remove ckpt/$(VERSION) --all
	rm -rf $(DKMS_SOURCE)

check:
	$(Q)selftests/check $(TESTS)

# With a kernel that finds mistakes: KASAN, lockdep, kmemleak. The first time it is built, which takes half an hour.
DEBUG_KERNEL ?= 6.12
check-debug:
	$(Q)selftests/vm/run $(DEBUG_KERNEL)-debug --cpus 4 --mem 3072 --disk 256 --timeout 7200 \
		--console $(BUILD)/check-debug.console -- /usr/lib/ckpt/tests/debug.sh

# No write is missed, in hours of it: SOAK_MINUTES over all mechanisms of SOAK_KERNEL, on four CPUs.
SOAK_KERNEL ?= 6.12
SOAK_MINUTES ?= 24
soak:
	$(Q)selftests/vm/run $(SOAK_KERNEL) --cpus 4 --mem 1536 --disk 1024 --timeout $$(($(SOAK_MINUTES) * 120 + 600)) \
		-- /usr/lib/ckpt/tests/soak.sh $(SOAK_MINUTES)

# Three jobs, INTERRUPTIONS in all, at random moments.
INTERRUPTIONS ?= 100
interruptions:
	$(Q)selftests/vm/run $(SOAK_KERNEL) --mem 1536 --timeout $$(($(INTERRUPTIONS) * 30 + 600)) \
		-- /usr/lib/ckpt/tests/interruptions.sh $(INTERRUPTIONS)

# Programs of all kinds, each interrupted at a random moment. CHECK_PROGRAMS chooses some.
PROGRAMS_KERNEL ?= 6.12
CHECK_PROGRAMS ?= $(notdir $(wildcard selftests/tests/programs/*))
check-programs:
	$(Q)KERNEL=$(PROGRAMS_KERNEL) selftests/tests/programs.sh $(CHECK_PROGRAMS)

# How long it takes until a restored job runs, by its size.
RESTORE_MIB ?= 256 1024 4096
restore-times:
	$(Q)selftests/vm/run $(SOAK_KERNEL) --mem 6400 --disk 12000 --timeout 7200 \
		-- /usr/lib/ckpt/tests/restore_times.sh $(RESTORE_MIB)

demo:
	$(Q)selftests/demo/run

install: programs
	install -D -m 755 $(BUILD)/ckptd $(DESTDIR)$(PREFIX)/sbin/ckptd
	install -D -m 755 $(BUILD)/ckpt-init $(DESTDIR)$(PREFIX)/lib/ckpt/ckpt-init
	install -D -m 755 $(BUILD)/ckpt-pages $(DESTDIR)$(PREFIX)/lib/ckpt/ckpt-pages
	install -D -m 755 $(BUILD)/ckpt-gate $(DESTDIR)$(PREFIX)/lib/ckpt/ckpt-gate
	install -D -m 755 $(BUILD)/criu-preload.so $(DESTDIR)$(PREFIX)/lib/ckpt/criu-preload.so
	install -D -m 755 packaging/hooks/slurm-drain $(DESTDIR)$(PREFIX)/lib/ckpt/hooks/slurm-drain
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/lib/ckpt/slurm packaging/slurm/*
	install -D -m 755 $(BUILD)/ckptctl $(DESTDIR)$(PREFIX)/bin/ckptctl
	install -D -m 755 $(BUILD)/ckptbench $(DESTDIR)$(PREFIX)/bin/ckptbench
	install -D -m 644 uapi/linux/ckpt.h $(DESTDIR)$(PREFIX)/include/linux/ckpt.h
	test -e $(DESTDIR)$(SYSCONFDIR)/ckpt/ckptd.conf || \
		install -D -m 644 packaging/ckptd.conf $(DESTDIR)$(SYSCONFDIR)/ckpt/ckptd.conf
	install -D -m 644 packaging/ckptd.service $(DESTDIR)$(PREFIX)/lib/systemd/system/ckptd.service

clean:
	$(Q)rm -rf $(BUILD)

.PHONY: all programs guest-tests unit-tests fuzz-tests fuzz module module-install dkms-install dkms-uninstall check \
	check-debug check-programs soak interruptions restore-times demo install clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
