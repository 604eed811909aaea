# `make help` lists the targets. All of them work as root on Debian 12 with a Rust toolchain. What else they need they
# install from Debian and name, but for `build` and `lint`, which install nothing.

TARGET := x86_64-unknown-linux-gnu
PREFIX ?= /usr/local
CARGO ?= cargo
VM ?= ../shared/vm/vm
BUILT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/hull
BUILD_PACKAGES := gcc libc6-dev
PACKAGES := apache2-utils buildah busybox-static catatonit chromium criu crun docker-registry docker.io golang golang-github-google-uuid-dev \
	golang-github-opencontainers-runtime-tools-dev iproute2 libarchive-tools netavark openssl podman procps python3 runc skopeo strace \
	time umoci zstd
BENCH_PACKAGES := crun curl docker-registry docker.io gcc libc6-dev mmdebstrap podman python3 runc skopeo time
FUZZ_PACKAGES := g++ util-linux
VM_PACKAGES := checkpolicy containerd qemu-system-x86 mmdebstrap e2fsprogs cpio
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hull
# The image that the demo is built on, of the store or of a registry; if none is given demo/image takes Alpine or, without a
# registry, this one of Debian's own packages, which is made once.
BASE ?=
OURS := hull-demo-base
HULL := bin/hull
CONTAINED := --rm --hostname container --tmpfs /mytemp --pids-limit 20

# Installs those of the packages that are missing.
need = @missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

.PHONY: help build run bash verify install test test-vm test-images mutants fuzz lint conformance bench deps run-deps vm-deps bench-deps demo-base demo-image
# What a target needs is installed before it is built.
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## the static binary at bin/hull, and bin/hull-oci, a link to it
	HULL_COMMIT=$$(git rev-parse --short=12 HEAD 2>/dev/null) $(CARGO) build --release --locked -p hull
	@mkdir -p bin
	@install -m 755 $(BUILT) bin/hull
	@ln -sf hull bin/hull-oci

run: run-deps demo-image ## build demo/Dockerfile with hull and run it
	$(HULL) run $(CONTAINED) hull-demo

bash: run-deps demo-image ## a shell in the demo's container
	$(HULL) run -it $(CONTAINED) hull-demo bash

# What CONTAINED asks for, held from inside.
verify: run-deps demo-image ## check from inside that the demo's container is what was asked for
	$(HULL) run $(CONTAINED) -v $(CURDIR)/$(HULL):/hull:ro hull-demo \
	/hull verify --hostname container --tmpfs /mytemp --pids-limit 20 --pid 1 --own-proc

demo-image: build
	@HULL=$(HULL) BASE=$(BASE) MAKE="$(MAKE)" demo/image

# A tar that was cut short must not be taken for a base: it gets its name when it is whole.
$(CACHE)/base.tar:
	$(call need,mmdebstrap)
	@mkdir -p $(CACHE)
	mmdebstrap --variant=minbase --include=python3-minimal,ca-certificates bookworm $@.part.tar
	@mv $@.part.tar $@

demo-base: $(CACHE)/base.tar
	@$(HULL) images | grep -q '^$(OURS) ' || $(HULL) import $(CACHE)/base.tar $(OURS)

install: build ## bin/hull, bin/hull-oci, man pages and shell completions under PREFIX (/usr/local)
	install -D -m 755 bin/hull $(DESTDIR)$(PREFIX)/bin/hull
	ln -sf hull $(DESTDIR)$(PREFIX)/bin/hull-oci
	$(CARGO) run --locked --quiet -p hull-manual -- $(DESTDIR)$(PREFIX)

run-deps:
	$(call need,$(BUILD_PACKAGES))

deps: ## install what the tests need, by name
	$(call need,$(BUILD_PACKAGES) $(PACKAGES))

test: deps build ## every test, as root; the last line counts them
	HULL_BIN=$(CURDIR)/bin/hull CARGO=$(CARGO) tests/all

vm-deps:
	$(call need,$(BUILD_PACKAGES) $(if $(wildcard $(VM)),$(VM_PACKAGES)))

test-vm: vm-deps build ## the tests that depend on the machine, again with cgroup v2 and kernel 6.1; needs VM, a command that runs one there
	VM=$(VM) CARGO=$(CARGO) tests/in-vm

test-images: deps build $(CACHE)/base.tar ## servers of Debian's packages: built, pushed, pulled, answering; minutes, and not part of `make test`
	HULL_BIN=$(CURDIR)/bin/hull HULL_BASE_TAR=$(abspath $(CACHE))/base.tar $(CARGO) test --locked -p hull-tests --test real-images

mutants: deps ## show for each security test that it can fail: undo what it guards, one by one (slow; ROWS="a1 b3" for some)
	tests/mutants $(ROWS)

fuzz: ## each fuzz target for SECONDS (300), on the stable toolchain; TARGETS="layer reference" for some
	$(call need,$(BUILD_PACKAGES) $(FUZZ_PACKAGES))
	FUZZ_SECONDS=$(or $(SECONDS),300) CARGO=$(CARGO) fuzz/run $(TARGETS)

lint: ## rustfmt and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

bench-deps:
	$(call need,$(BENCH_PACKAGES))

conformance: deps bench-deps build ## the table of docs/compatibility.md: OCI runtime-tools under hull, runc and crun
	CACHE=$(CACHE) tests/conformance/run --table hull runc crun

bench: deps bench-deps build ## hull beside crun and docker, alternating, as ratios of medians in one table
	CACHE=$(CACHE) bench/all
