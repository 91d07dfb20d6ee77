# `make demo` and `make test` do everything, in a virtual environment of the project's own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEB := server/web
SOURCES := pyproject.toml setup.py $(WEB)/package-lock.json $(wildcard kernels/*.pyx kernels/*.pxd kernels/*.h)
# --capture=sys: what a sanitizer says before it ends the process is not lost.
KERNEL_TESTS := tests/kernels -q --capture=sys

# Kernels of before they kept to the limited API: Python would prefer them to the new ones.
OUTDATED := *.cpython-3[0-9][0-9]-*.so

# $(call apart,NAME,ENVIRONMENT,RUN,ARGUMENTS): build in build/NAME, apart from the kernels in use, and run pytest on
# that. Sources are copied anew, objects stay; the peers of benchmarks/ are found beside the package.
define apart
	@mkdir -p build/$(1)/lib && find build/$(1)/lib \( -name '*.py' -o -name '$(OUTDATED)' \) -delete && ln -sfn ../../../benchmarks build/$(1)/lib/
	@$(2) $(BIN)/python setup.py -q build --parallel 2 --build-base build/$(1) --build-lib build/$(1)/lib >&2
	@PYTHONPATH=build/$(1)/lib PYTHONSAFEPATH=1 $(3) $(BIN)/python -m pytest $(4)
endef

# CPython keeps memory until it ends, so leaks are not looked for; the interpreter itself is not instrumented.
SANITIZERS := address,undefined,float-cast-overflow
SANITIZE := KBDFL_SANITIZE=$(SANITIZERS)
CORE_SANITIZED := -O1 -g -fno-sanitize-recover=all -fsanitize=$(SANITIZERS)
SANITIZED := ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD=$(shell $(CC) -print-file-name=libasan.so)

.PHONY: help install demo test asan asan-plain portable core arm-test wheel-test interop-test docs tutorial frames fuzz torture machine lint types format bench experiments import-1gb clean

help:
	@echo "make demo      phones type, the fleet learns, the keyboard predicts (ARGS='--quick', '--no-serve --json')"
	@echo "make test      all tests (ARGS='-k coordinator'; KBDFL_DEBUG_KERNELS=1 checks the kernels' bounds)"
	@echo "make asan      the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make portable  the kernels' tests without run-time dispatch, and with clang where there is one"
	@echo "make core      the kernels as a static library without Python (CC, AR, OUT: docs/c-core.md)"
	@echo "make arm-test  that library and the kernels' tests on aarch64, under qemu-user"
	@echo "make wheel-test  source archive, wheel, an empty environment, and the tests from another folder"
	@echo "make interop-test  Flower, NVIDIA FLARE and PyTorch in an environment of their own, and what kbdfl does in them"
	@echo "make docs      the documentation as a site in build/site"
	@echo "make tutorial  the tutorial's commands from a fresh clone"
	@echo "make lint      ruff"
	@echo "make types     mypy, strict, and pyright over the package"
	@echo "make frames    a million frames and five million broken ones against a second decoder (FRAMES=1000)"
	@echo "make torture   a server that is killed a thousand times while phones report (KILLS=50, ARGS='--postgres --servers 3')"
	@echo "make machine   50,000 steps of phones, crashes and rollbacks on each store, against a model (STEPS=400)"
	@echo "make fuzz      a fuzzer on what server and phones read, under the sanitizers (FUZZ_SECONDS=600)"
	@echo "make experiments  the comparisons of docs/experiments.md but privacy and words, ten minutes each, bandwidth thirty (ARGS=--quick: one)"
	@echo "make import-1gb  kbdfl data import of 1 GiB of each format in at most 200 MiB (ARGS='--formats sms --mb 100')"
	@echo "make bench     training and the codec's kernels beside their peers (ARGS='--json')"

install: $(STAMP)

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kbdfl needs Python 3.11 or newer"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2 || \
		{ rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt install python3-venv python3-dev gcc"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip >&2
	@rm -f kernels/$(OUTDATED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[chat,test,lint]" >&2
	@{ command -v npm >/dev/null && npm ci --silent --prefix $(WEB); } >&2 || \
		echo "onnxruntime-web was not installed (npm); the keyboard will ask the server for words" >&2
	@touch $(STAMP)

demo: install
	@$(BIN)/kbdfl demo $(ARGS)

# Files of tests, in so many processes; with 0 in this one, as a debugger needs it.
JOBS ?= 2
test: install
ifeq ($(KBDFL_DEBUG_KERNELS),1)
	$(call apart,debug,KBDFL_DEBUG_KERNELS=1,,$(ARGS))
else
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)
endif

asan: install
	$(call apart,asan,$(SANITIZE),$(SANITIZED) KBDFL_CORE_CFLAGS="$(CORE_SANITIZED)",$(KERNEL_TESTS))

# The same for the plain loops that are meant for compilers without vector extensions; slow.
asan-plain: install
	$(call apart,asan-plain,$(SANITIZE) KBDFL_NO_CLONES=1 CPPFLAGS=-DKBDFL_NO_VECTORS,$(SANITIZED) \
		KBDFL_CORE_CFLAGS="$(CORE_SANITIZED) -DKBDFL_NO_CLONES -DKBDFL_NO_VECTORS",$(KERNEL_TESTS))

portable: install
	$(call apart,portable,KBDFL_NO_CLONES=1,KBDFL_CORE_CFLAGS="-O3 -DKBDFL_NO_CLONES",$(KERNEL_TESTS))
ifneq ($(shell command -v clang),)
	$(call apart,clang,CC=clang,CC=clang,$(KERNEL_TESTS))
endif

core:
	@$(MAKE) --no-print-directory -C kernels/core

# Cross-compiled, on the processor that phones have; on Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user.
arm-test: install
	@$(BIN)/python tests/kernels/arm.py $(ARGS)

# The same wheel for every CPython from 3.11 on; cibuildwheel builds the others, by pyproject.toml.
wheel-test: install
	@$(BIN)/python tests/wheel.py $(ARGS)

# Frameworks that ask for other versions than ours, so apart from .venv. PyTorch comes first, by a version that has a
# build for processors alone: any newer one would do, and bring a graphics card's libraries.
TORCH ?= torch==2.13.0
INTEROP := build/interop
interop-test: $(INTEROP)/.installed
	@PYTHONSAFEPATH=1 $(INTEROP)/bin/python -m pytest tests/interop $(ARGS)

$(INTEROP)/.installed: $(SOURCES)
	@test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP) >&2
	@$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' >&2
	@printf '[build_ext]\nparallel = 2\n' > $(INTEROP)/build.cfg
	@DIST_EXTRA_CONFIG=$(CURDIR)/$(INTEROP)/build.cfg $(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable ".[flower,flare,torch]" 'pytest>=8.2' 'pytest-timeout>=2.3' 'hypothesis>=6.100' >&2
	@touch $@

# Everything in docs/, the reference included; a warning fails it, unless --quiet is given, which is why it is not. The
# variable silences the theme's note of what may succeed it, which is no warning of ours.
docs: install
	@$(BIN)/python -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]" >&2
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(BIN)/python docs/generator/check_site.py build/site

# The tutorial as somebody would follow it who has nothing yet.
tutorial:
	@$(PYTHON) tests/tutorial.py

# The wire format against its second decoder, and five mutated frames for each.
frames: FRAMES ?= 1000000
frames: install
	@KBDFL_FRAMES=$(FRAMES) $(BIN)/python -m pytest tests/test_wire.py --timeout 0 $(ARGS)

# A server that is killed while phones report, and a reckoning of what it acknowledged.
torture: KILLS ?= 1000
torture: install
	@$(BIN)/python -m tests.server.torture --kills $(KILLS) $(ARGS)

# Any order of events at a coordinator on SQLite, and at three on PostgreSQL, against a model.
machine: STEPS ?= 50000
machine: install
	@KBDFL_STEPS=$(STEPS) $(BIN)/python -m pytest tests/server/test_machine.py -q $(ARGS)

# What a server and a phone read, under the sanitizers; finds are kept in build/fuzz. libFuzzer and the sanitizers' library
# come with atheris, and both must be there before Python is.
fuzz: FUZZ_SECONDS ?= 600
fuzz: install
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable ".[fuzz]"
	@mkdir -p build/fuzz/lib build/fuzz/corpus
	@$(SANITIZE) KBDFL_SANITIZER_LOADED=1 \
		$(BIN)/python setup.py -q build --parallel 2 --build-base build/fuzz --build-lib build/fuzz/lib >&2
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))'); \
	PYTHONPATH=build/fuzz/lib PYTHONSAFEPATH=1 ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$site/asan_with_fuzzer.so $$(echo $$site/atheris/custom_mutator.*.so)" \
	$(BIN)/python tests/fuzz/fuzz_wire.py -max_total_time=$(FUZZ_SECONDS) -max_len=20000 -print_final_stats=1 \
		-artifact_prefix=build/fuzz/ build/fuzz/corpus tests/fuzz/corpus

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Two to three minutes; the first time they fetch themselves.
types: install
	@$(BIN)/python -c 'import mypy, pyright' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[types]" >&2
	@$(BIN)/python tests/typed.py

format: install
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

experiments: install
	@for name in compare-server-rules heterogeneity async selection central-gap silos personalise warm-start bandwidth backdoor; do \
		$(BIN)/kbdfl experiment $$name $(ARGS) || exit; \
	done

# Made-up exports, larger than the memory that their import may take.
import-1gb: install
	@$(BIN)/python benchmarks/import_stream.py $(ARGS)

bench: install
	@$(BIN)/kbdfl bench client $(ARGS)
	@$(BIN)/kbdfl bench kernels $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info kernels/*.so
