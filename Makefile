# A thin front to meson. "make" lists what there is to make.

BUILD ?= build
DEPS = tools/install-deps
MESON_SETUP = meson setup $(1) $(2) >$(1).log 2>&1 || { cat $(1).log; exit 1; }

.PHONY: help build static run check check-fast bench lint fuzz install clean

help:
	@echo "make build       build/vmm"
	@echo "make run         build, fetch Debian's kernel, boot it to a shell (installs what that needs)"
	@echo "make check       all tests (installs what they need); make check-fast: unit and guests only"
	@echo "make bench       compare with other monitors; MODE=count|wall"
	@echo "make lint        clang-format, clang-tidy, cppcheck"
	@echo "make fuzz        the libFuzzer targets, SECONDS=60 each"
	@echo "make install     vmm and its manual page (PREFIX by meson)"

$(BUILD)/build.ninja:
	@$(DEPS) build
	@mkdir -p $(BUILD)
	@$(call MESON_SETUP,$(BUILD),)

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j 2 --quiet

static:
	@$(DEPS) build
	@[ -f $(BUILD)-static/build.ninja ] || { mkdir -p $(BUILD)-static; \
		$(call MESON_SETUP,$(BUILD)-static,-Dstatic=true -Dbuildtype=release); }
	@ninja -C $(BUILD)-static -j 2 --quiet

run:
	@$(DEPS) build run
	@$(MAKE) --no-print-directory static
	@tools/run-demo $(BUILD)-static/vmm

check:
	@$(DEPS) build run check
	@tests/check

check-fast:
	@$(DEPS) build run check
	@tests/check unit guests

bench:
	@$(DEPS) build run check bench
	@$(MAKE) --no-print-directory static
	@tests/bench/run --mode $(or $(MODE),count) --bench boot,firmware,signal,ivshmem,vfio-user,disk,net,vhost-user,vhost-shm

lint:
	@$(DEPS) build check
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@tools/lint $(BUILD)

fuzz:
	@$(DEPS) build check
	@tests/fuzz/run $(or $(SECONDS),60)

install: build
	@meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-*
