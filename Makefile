# SPDX-License-Identifier: GPL-2.0
# The two commands for people are `make demo` and `make check`; see README.

VERSION := $(shell sed -n 's/^.define CKPT_VERSION "\(.*\)"/\1/p' kmod/internal.h)
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
CPPFLAGS ?=
LDFLAGS ?=
WARN := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wformat=2 -Wvla -Wno-unused-parameter
LIBS := liburing libcurl jansson libxxhash libzstd liblz4 libsodium libcrypto libsystemd
PKG_CFLAGS = $(shell pkg-config --cflags $(LIBS))
PKG_LIBS = $(shell pkg-config --libs $(LIBS)) -linih $(IPSEC_MB) -lm -pthread
# Not needed, but AES is several times slower without it: see daemon/gcm.h.
IPSEC_MB := $(shell printf '\#include <intel-ipsec-mb.h>\n\#if IMB_VERSION_NUM < 0x10000\n\#error\n\#endif\n' | \
	$(CC) -E -x c - >/dev/null 2>&1 && echo -lIPSec_MB)
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -DCKPT_VERSION='"$(VERSION)"' -DCKPT_LIB='"$(PREFIX)/lib/ckpt"' $(WARN) $(CPPFLAGS) $(CFLAGS) \
	-Iuapi -Idaemon -Itools -Iselftests $(PKG_CFLAGS) -pthread -MMD -MP

# Everything of the daemon but its main() and the job's init is one library, that tools and tests use.
LIB_SRC := $(filter-out daemon/main.c daemon/init.c daemon/pages.c daemon/gate.c daemon/criu_preload.c daemon/criu_files.c,$(wildcard daemon/*.c))
LIB := $(BUILD)/libckpt.a
UNIT_TESTS := $(patsubst selftests/unit/%.c,$(BUILD)/unit/%,$(wildcard selftests/unit/*.c))
# What tests share is a library as well. A guest test of several files is a directory.
TEST_LIB_SRC := $(wildcard selftests/*.c)
TEST_LIB := $(BUILD)/libtest.a
GUEST_TEST_DIRS := $(patsubst selftests/guest/%/,%,$(wildcard selftests/guest/*/))
GUEST_TESTS := $(patsubst selftests/guest/%.c,$(BUILD)/guest/%,$(wildcard selftests/guest/*.c)) \
	$(addprefix $(BUILD)/guest/,$(GUEST_TEST_DIRS))
FUZZ_TESTS := $(patsubst selftests/fuzz/%.c,$(BUILD)/fuzz/%,$(filter-out %/driver.c,$(wildcard selftests/fuzz/*.c)))
# By where they go: for root, for everybody, and what only ckptd and jobs run.
SBIN := ckptd
BIN := ckptctl ckptbench
LIBEXEC := ckpt-init ckpt-pages ckpt-gate criu-preload.so
PROGRAMS := $(addprefix $(BUILD)/,$(SBIN) $(BIN) $(LIBEXEC))

MAN := $(addprefix $(BUILD)/man/,$(notdir $(wildcard packaging/man/*.[1-9])))

all: programs man
programs: $(PROGRAMS)
guest-tests: $(GUEST_TESTS)

$(BUILD)/obj/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# What depends on PREFIX is made anew when that changes.
$(BUILD)/prefix: FORCE
	@mkdir -p $(@D)
	@echo $(PREFIX) | cmp -s - $@ || echo $(PREFIX) >$@
$(BUILD)/obj/daemon/criu.o $(BUILD)/obj/daemon/launch.o: $(BUILD)/prefix

# One file for all programs; bash looks for it by their names.
completions: $(addprefix $(BUILD)/completions/,$(SBIN) $(BIN))
$(BUILD)/completions/%: packaging/bash-completion/ckptctl
	@mkdir -p $(@D)
	@cp $< $@

$(BUILD)/ckptd.service: packaging/ckptd.service $(BUILD)/prefix
	$(Q)sed '/^Exec.*ckpt/s|/usr/|$(PREFIX)/|' $< >$@

# Has the script in it.
$(BUILD)/obj/tools/export.o: tools/restore.sh

$(LIB): $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

link = $(Q)$(CC) $(CFLAGS) $(LDFLAGS) -Wl,--as-needed -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)

$(BUILD)/ckptd: $(BUILD)/obj/daemon/main.o $(LIB)
	$(call say,LD,$@)
	$(link)

# Preloaded into criu; see the file.
$(BUILD)/criu-preload.so: daemon/criu_preload.c daemon/criu_files.c daemon/criu_files.h
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(CPPFLAGS) -O2 -g $(LDFLAGS) -fPIC -shared -o $@ $(filter %.c,$^)

# PID 1 of each job: small, and linked with nothing of the daemon.
$(BUILD)/ckpt-init: $(BUILD)/obj/daemon/init.o
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

# What gives lazily restored jobs their memory, and what criu asks whether they may run.
$(BUILD)/ckpt-pages: $(BUILD)/obj/daemon/pages.o $(LIB)
	$(call say,LD,$@)
	$(link)

$(BUILD)/ckpt-gate: $(BUILD)/obj/daemon/gate.o
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

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

man: $(MAN)

# Filled with what the programs say of themselves.
$(BUILD)/man/%: packaging/man/% packaging/man/fill $(wildcard packaging/man/*.awk) uapi/linux/ckpt.h $(PROGRAMS)
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)packaging/man/fill $< $(BUILD) $(VERSION) >$@.new
	$(Q)mv $@.new $@

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

# What needs no guest. make check does more of it: see -q there.
check-unit:
	$(Q)selftests/check -q unit/ fuzz/

# What of the style can be checked, and figures of it.
style: programs
	$(Q)selftests/prepare style
	$(Q)selftests/style

# With a kernel that finds mistakes: KASAN, lockdep, kmemleak. The first time it is built, which takes half an hour.
# With more emulated CPUs than there are cores, spinning on locks that lockdep watches takes most of the time.
DEBUG_KERNEL ?= 6.12
DEBUG_CPUS ?= $(shell nproc)
check-debug:
	@mkdir -p $(BUILD)
	$(Q)selftests/vm/run $(DEBUG_KERNEL)-debug --cpus $(DEBUG_CPUS) --mem 3072 --disk 256 --timeout 7200 \
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

# What a real program's run costs, from nothing of ckpt to a chain of restores.
# The suite's root has to have LAMMPS: that of the demo has.
LADDER_KERNEL ?= 6.1
LADDER_REPEAT ?= 15
LADDER_STEPS ?= 300
ladder:
	$(Q)selftests/vm/run $(LADDER_KERNEL) --mem 1536 --timeout $$(($(LADDER_REPEAT) * 3600)) \
		-- /usr/lib/ckpt/tests/ladder.sh $(LADDER_REPEAT) $(LADDER_STEPS)

# Programs of all kinds, each interrupted at a random moment. CHECK_PROGRAMS chooses some.
PROGRAMS_KERNEL ?= 6.12
CHECK_PROGRAMS ?= $(notdir $(wildcard selftests/tests/programs/*))
check-programs:
	$(Q)KERNEL=$(PROGRAMS_KERNEL) selftests/tests/programs.sh $(CHECK_PROGRAMS)

# How long it takes until a restored job runs, by its size.
RESTORE_MIB ?= 256 1024 4096
restore-times:
	$(Q)selftests/vm/run $(SOAK_KERNEL) --icount --cpus 1 --mem 6400 --disk 12000 --timeout 7200 \
		-- /usr/lib/ckpt/tests/restore_times.sh $(RESTORE_MIB)

demo:
	$(Q)selftests/demo/run

# Mode, file, and the directory it goes to.
into = $(foreach file,$(2),$(1),$(file),$(PREFIX)/$(3)) # MODE FILES DIRECTORY
INSTALLED := $(call into,755,$(SBIN:%=$(BUILD)/%),sbin) \
	$(call into,755,$(BIN:%=$(BUILD)/%),bin) \
	$(call into,755,$(LIBEXEC:%=$(BUILD)/%),lib/ckpt) \
	$(call into,755,$(wildcard packaging/hooks/*),lib/ckpt/hooks) \
	$(call into,755,$(wildcard packaging/slurm/*),lib/ckpt/slurm) \
	$(call into,644,uapi/linux/ckpt.h,include/linux) \
	$(call into,644,$(BUILD)/ckptd.service,lib/systemd/system) \
	$(foreach page,$(MAN),$(call into,644,$(page),share/man/man$(patsubst .%,%,$(suffix $(page))))) \
	$(call into,644,$(addprefix $(BUILD)/completions/,$(SBIN) $(BIN)),share/bash-completion/completions) \
	$(call into,644,$(wildcard packaging/prometheus/*),share/ckpt/prometheus)

install: programs man $(BUILD)/ckptd.service completions
	for each in $(INSTALLED); do (IFS=,; set -- $$each; install -D -m $$1 -t $(DESTDIR)$$3 $$2) || exit 1; done
	test -e $(DESTDIR)$(SYSCONFDIR)/ckpt/ckptd.conf || \
		install -D -m 644 packaging/ckptd.conf $(DESTDIR)$(SYSCONFDIR)/ckpt/ckptd.conf

# The configuration and the key stay: without the key no checkpoint can be restored.
uninstall:
	for each in $(INSTALLED); do (IFS=,; set -- $$each; rm -f $(DESTDIR)$$3/$${2##*/}); done
	find $(DESTDIR)$(PREFIX)/lib/ckpt $(DESTDIR)$(PREFIX)/share/ckpt -depth -type d -empty -delete 2>/dev/null || :

# --- packages ---

SOURCE_TREE := ckpt-$(VERSION)
SOURCES := COPYING Kbuild Makefile README daemon kmod packaging selftests tools uapi
# What a build leaves between them.
NO_SOURCES := *.o *.ko *.mod *.mod.c .*.cmd Module.symvers modules.order __pycache__

source: $(BUILD)/$(SOURCE_TREE).tar.gz
$(BUILD)/$(SOURCE_TREE).tar.gz: FORCE
	@mkdir -p $(@D)
	$(Q)tar -czf $@ --owner=0 --group=0 $(NO_SOURCES:%=--exclude='%') --transform='s|^|$(SOURCE_TREE)/|' $(SOURCES)

# Debian: build/deb/*.deb. What is needed to build them stands in packaging/debian/control.
deb: $(BUILD)/$(SOURCE_TREE).tar.gz
	rm -rf $(BUILD)/deb
	mkdir -p $(BUILD)/deb
	tar -C $(BUILD)/deb -xzf $<
	cp -r packaging/debian $(BUILD)/deb/$(SOURCE_TREE)/debian
	sed -i 's/@VERSION@/$(VERSION)/' $(BUILD)/deb/$(SOURCE_TREE)/debian/changelog
	cd $(BUILD)/deb/$(SOURCE_TREE) && env -u MAKEFLAGS -u MAKELEVEL dpkg-buildpackage -us -uc -b $(DEB_OPTIONS)

# RHEL 9, Amazon Linux 2023: build/rpm/RPMS. RPMBUILD: -bs makes only the source package, for mock or a build service.
RPMBUILD ?= -bb
rpm: $(BUILD)/$(SOURCE_TREE).tar.gz
	rm -rf $(BUILD)/rpm
	mkdir -p $(BUILD)/rpm/SOURCES $(BUILD)/rpm/SPECS
	cp $< $(BUILD)/rpm/SOURCES
	sed 's/@VERSION@/$(VERSION)/' packaging/rpm/ckpt.spec >$(BUILD)/rpm/SPECS/ckpt.spec
	env -u MAKEFLAGS -u MAKELEVEL rpmbuild --define "_topdir $(abspath $(BUILD))/rpm" $(RPMBUILD) \
		$(BUILD)/rpm/SPECS/ckpt.spec

clean:
	$(Q)rm -rf $(BUILD)

.PHONY: all programs man completions guest-tests unit-tests fuzz-tests fuzz module module-install dkms-install dkms-uninstall check \
	check-unit style check-debug check-programs soak interruptions ladder restore-times demo install uninstall \
	source deb rpm clean FORCE
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
