# `make help` lists the targets. All of them work as root on Debian 12 with a Rust toolchain; what else they need is
# installed by `make deps`, which says so.

TARGET := x86_64-unknown-linux-gnu
PREFIX ?= /usr/local
CARGO ?= cargo
BUILT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/hull
PACKAGES := busybox-static strace

.PHONY: help build install test lint bench deps bench-deps

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## the static binary at bin/hull, and bin/hull-oci, a link to it
	$(CARGO) build --release --locked -p hull
	@mkdir -p bin
	@install -m 755 $(BUILT) bin/hull
	@ln -sf hull bin/hull-oci

install: build ## bin/hull and bin/hull-oci under PREFIX (/usr/local)
	install -D -m 755 bin/hull $(DESTDIR)$(PREFIX)/bin/hull
	ln -sf hull $(DESTDIR)$(PREFIX)/bin/hull-oci

deps: ## install what the tests need, by name
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

test: deps build ## every test, as root
	HULL_BIN=$(CURDIR)/bin/hull $(CARGO) test --locked --workspace

lint: ## rustfmt and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

bench-deps:
	@dpkg -s crun >/dev/null 2>&1 || { echo "installing: crun"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends crun gcc libc6-dev; }

bench: deps bench-deps build ## hull beside crun, alternating, as a ratio of medians
	bench/run-noop
