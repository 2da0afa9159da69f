# The daily loop. `make help` lists the targets; HOUSE_STYLE's "what a machine can mend" has a fix-x twin.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# go.work is the list of modules. The pinned tools below tools/dev stay outside it, with versions of their own; what is
# wrong with their go.mod shows when they are built.
MODULES := $(shell sed -n 's,^[[:space:]]*\./,,p' go.work)
UNIT_MODULES := $(filter-out proto tests,$(MODULES))
# What runs for months and shares memory; tools are short-lived.
RACE_MODULES := $(filter pkg services/%,$(UNIT_MODULES))

# What we ship: one program per service, and the tools people run. $(MAINS) are package folders.
SERVICE_MAINS := $(patsubst %/main.go,./%,$(wildcard services/*/cmd/*/main.go))
TOOL_MAINS := $(patsubst %/main.go,./%,$(wildcard $(foreach t,$(filter-out tools/guard,$(filter tools/%,$(MODULES))),$t/main.go $t/cmd/*/main.go)))
MAINS := $(SERVICE_MAINS) $(TOOL_MAINS)

# Without C: no compiler is asked of anyone, every program is static, and building, testing and linting share one cache.
export CGO_ENABLED := 0

VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS = -s -w -X konsul.dev/pkg/konsulfx.version=$(VERSION) -X main.version=$(VERSION)
GOBUILD = go build -buildvcs=false -ldflags '$(LDFLAGS)'

PROCESSES ?= single
# RACE=1 switches the race detector on for pkg and the services; it needs a C compiler.
RACE ?=
TESTFLAGS ?=
# Images are named konsul/registry and so on.
IMAGE_TAG ?= latest

# Third-party protos are kept as their owners publish them, so only ours are formatted.
PROTO_FORMAT := --path proto/konsul
# The contract a change must not break: main's tip, or on main the commit before it. Empty in a shallow clone.
BREAKING_BASE = $(shell base=$$(git rev-parse --verify --quiet origin/main || true); \
	[ -n "$$base" ] && [ "$$base" != "$$(git rev-parse HEAD)" ] && echo $$base || git rev-parse --verify --quiet HEAD^ || true)

# each MODULES,COMMAND,REMEDY runs a command in every module with the workspace off, and fails after the last.
define each
failed=; \
for module in $1; do \
	(cd $$module && export GOWORK=off && $2) || failed="$$failed $$module"; \
done; \
[ -z "$$failed" ] || { echo "failed in$$failed: $3"; exit 1; }
endef

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Run it
.PHONY: lab compose-lab
lab: build ## three datacenters on this machine; PROCESSES=per-service runs every service alone
	@bin/konsul-lab up --processes $(PROCESSES)

compose-lab: build images ## the same three datacenters in containers (needs Docker and docker-compose)
	@bin/konsul-lab compose up

## Build it
.PHONY: build static images generate clean
build: ## every program into bin/
	@mkdir -p bin
	@$(GOBUILD) -o bin/ $(MAINS)

static: build ## every program for Linux into bin/static/, for images
	@mkdir -p bin/static
	@if [ "$$(go env GOOS)" = linux ]; then ln -f $(patsubst %,bin/%,$(notdir $(MAINS))) bin/static/; \
	else GOOS=linux $(GOBUILD) -o bin/static/ $(MAINS); fi

images: static ## one image per service, built offline from nothing but its program
	@bin/konsul-lab images --bin bin/static --tag $(IMAGE_TAG)

generate: .tools/.buf .tools/.gen ## Go code and the OpenAPI document from proto/
	@PATH="$(CURDIR)/.tools:$$PATH"; .tools/buf generate && .tools/buf generate --template tools/dev/gen/fast.yaml

clean: ## remove what build and lab made; the pinned tools stay in .tools/
	rm -rf bin .lab .compose-lab

## Test it
.PHONY: test test-unit test-e2e robustness bench-registry
test: test-unit test-e2e ## everything: every module's tests, then the stories with real processes

test-unit: build ## every module's tests without the stories; RACE=1 with the race detector in pkg and services
	@status=0; \
	$(if $(RACE),CGO_ENABLED=1 go test -race $(TESTFLAGS) $(RACE_MODULES:%=./%/...) || status=1;) \
	go test $(TESTFLAGS) $(patsubst %,./%/...,$(if $(RACE),$(filter-out $(RACE_MODULES),$(UNIT_MODULES)),$(UNIT_MODULES))) || status=1; \
	exit $$status

test-e2e: build ## the stories; those in containers run when Docker answers, and must when CI is set
	@if docker info >/dev/null 2>&1; then $(MAKE) images; else echo "Docker does not answer: the stories in containers are skipped"; fi
	go test -count=1 -p 1 -timeout 15m $(TESTFLAGS) ./tests/...

robustness: ## three registry servers, faults, and judges of what clients saw; RUNS=20, SEED=42 and TIME=7s choose (root, ip, nft)
	ROBUSTNESS_RUNS=$(or $(RUNS),20) ROBUSTNESS_SEED=$(SEED) ROBUSTNESS_TIME=$(TIME) CI=true go test -count=1 -v -timeout 24h $(TESTFLAGS) ./tests/robustness

bench-registry: .tools/.etcd ## the registry beside etcd, newest release; LINES=puts,gets ROUNDS=3 DURATION=3s and BENCHFLAGS choose
	@mkdir -p bin
	@$(GOBUILD) -o bin/ ./tests/bench/cmd/konsul-bench
	@bin/konsul-bench $(if $(LINES),-lines $(LINES)) $(if $(CLIENTS),-clients $(CLIENTS)) $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(DURATION),-duration $(DURATION)) $(BENCHFLAGS)

## Guard main
.PHONY: verify verify-generate verify-proto verify-format verify-lint verify-tidy isolate guard
verify: verify-generate verify-proto verify-format verify-tidy isolate guard verify-lint ## all of the checks below; `make -k verify` does not stop at the first

verify-generate: .tools/.buf .tools/.gen ## proto/gen is what proto/ generates, and all of it is in git
	@want=$$(mktemp -d); trap 'rm -rf "$$want"' EXIT; \
	PATH="$(CURDIR)/.tools:$$PATH"; .tools/buf generate --output "$$want"; .tools/buf generate --output "$$want" --template tools/dev/gen/fast.yaml; \
	diff -rq proto/gen "$$want/proto/gen" || { echo "proto/gen is out of date: run make fix-generate"; exit 1; }; \
	new=$$(git ls-files --others --exclude-standard proto/gen); \
	[ -z "$$new" ] || { echo "$$new"; echo "generated files are not in git: run git add proto/gen"; exit 1; }

verify-proto: .tools/.buf ## buf lint, buf format, and nothing broken since the commit before
	@.tools/buf lint
	@.tools/buf format --diff --exit-code $(PROTO_FORMAT) || { echo "proto files are not formatted: run make fix-format"; exit 1; }
	@base='$(BREAKING_BASE)'; \
	if [ -z "$$base" ] || [ -z "$$(git ls-tree --name-only "$$base" buf.yaml)" ]; then echo "buf breaking: no commit to compare with"; exit 0; fi; \
	old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	git archive "$$base" buf.yaml proto | tar -x -C "$$old"; \
	.tools/buf breaking --against "$$old" || { echo "the contract breaks since $$base: add fields, change none"; exit 1; }

verify-format: .tools/.lint ## gofumpt and import order
	@.tools/golangci-lint fmt --diff $(MODULES) || { echo "run make fix-format"; exit 1; }

verify-lint: .tools/.lint ## golangci-lint over every module
	@.tools/golangci-lint run $(filter-out ./proto/...,$(MODULES:%=./%/...))

verify-tidy: ## every go.mod says what its module needs, workspace or not
	@$(call each,$(MODULES),go mod tidy -diff,run make fix-tidy)

isolate: ## every module builds and vets, tests included, without the workspace to hide a forbidden import
	@$(call each,$(MODULES),go build -o /dev/null ./... && go vet ./...,name the import in its go.mod or drop it)

guard: ## our own rules: who imports whom, package docs, names, TODOs, docs/errors.md, docs/metrics.md, docs/configuration.md
	@GOWORK=off go build -C tools/guard -buildvcs=false -o ../../.tools/guard . && .tools/guard check

## Mend what a machine can
.PHONY: fix-generate fix-format fix-lint fix-tidy fix-docs
fix-generate: generate ## regenerate proto/gen

fix-format: .tools/.buf .tools/.lint ## gofumpt, import order, proto files
	@.tools/golangci-lint fmt $(MODULES)
	@.tools/buf format --write $(PROTO_FORMAT)

fix-lint: .tools/.lint ## what linters can mend themselves
	@.tools/golangci-lint run --fix $(filter-out ./proto/...,$(MODULES:%=./%/...))

fix-tidy: ## tidy every go.mod, one version of each dependency for all
	@go work sync
	@$(call each,$(MODULES),go mod tidy,see above)

fix-docs: ## add what code has and docs/errors.md, docs/metrics.md and docs/configuration.md lack, drop what is gone
	@GOWORK=off go build -C tools/guard -buildvcs=false -o ../../.tools/guard . && .tools/guard fix-docs

## Pinned tools
.PHONY: tools
tools: .tools/.buf .tools/.gen .tools/.lint ## build them into .tools/, again only when their go.sum changed

# A stamp holds the hash of the tool's go.mod and go.sum, so neither a fresh checkout's time stamps nor a
# switch of branches builds buf (two minutes) or golangci-lint (three) without need.
.PHONY: .tools/.buf .tools/.gen .tools/.lint .tools/.etcd
.tools/.buf .tools/.gen .tools/.lint .tools/.etcd: .tools/.%:
	@mkdir -p .tools
	@hash=$$(cat tools/dev/$*/go.mod tools/dev/$*/go.sum | git hash-object --stdin); \
	if [ "$$(cat $@ 2>/dev/null)" != "$$hash" ]; then \
		echo "building tools/dev/$* into .tools/ (once per version)"; \
		GOWORK=off go build -C tools/dev/$* -buildvcs=false -o ../../../.tools/ tool; \
		echo "$$hash" >$@; \
	fi
