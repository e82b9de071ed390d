# The commands people run; .ci/run runs the same. Each is a script or a line of cargo.

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
WORK := --manifest-path tests/work-image/Cargo.toml --target-dir $(TARGET)/work-image/build --locked

.PHONY: demo demo-down test soak bench screenshots check fmt setup build images birth-image clean

demo: ## a fleet of two servers, and a tenant that moves
	@scripts/demo

demo-down: ## removes all of it
	@scripts/demo down

test: images ## everything: in-process, and on real Podman and Caddy
	cargo test --workspace
	cargo test $(WORK)

soak: images ## moves under load with faults on real Podman and Caddy: MOVES=30 SEED=1 STORE=postgres; ends with one line of JSON
	@MOVES="$(MOVES)" SEED="$(SEED)" STORE="$(STORE)" $(TARGET)/debug/feather-soak

bench: images ## measures moves of a release build against what people use today, writes target/bench.json
	cargo build --release --workspace --bins
	@FEATHER_BINARIES=$(TARGET)/release scripts/bench

screenshots: ## the web page in a real browser (Chromium, about 90 MB by apt if it is missing), with pictures for docs/
	@scripts/browser
	cargo run --package feather-tests --bin feather-screenshots -- docs

check: fmt ## formatting, lints, documentation
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy $(WORK) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

fmt:
	cargo fmt --all -- --check
	cargo fmt --manifest-path tests/work-image/Cargo.toml -- --check

setup: ## installs what is missing, by apt
	@scripts/setup

build: setup
	cargo build --workspace --bins

images: build
	@scripts/work-image
	@scripts/birth-image

birth-image: setup ## localhost/feather-birth:latest for real servers, with a release build of this checkout's agent
	cargo build --release --package feather-agent
	@FEATHER_BINARIES=$(TARGET)/release FEATHER_BIRTH_IMAGE=localhost/feather-birth:latest scripts/birth-image

clean: ## removes fleets, images and everything that was built
	@scripts/clean-fleet --images
	cargo clean
