# `make demo` and `make test` do everything, in a virtual environment of the project's own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEB := server/web
SOURCES := pyproject.toml setup.py $(WEB)/package-lock.json $(wildcard kernels/*.pyx kernels/*.pxd kernels/*.h)
# --capture=sys: what a sanitizer says before it ends the process is not lost.
KERNEL_TESTS := tests/kernels -q --capture=sys

# $(call apart,NAME,ENVIRONMENT,RUN,ARGUMENTS): build in build/NAME, apart from the kernels in use, and run pytest on
# that. Sources are copied anew, objects stay; the peers of benchmarks/ are found beside the package.
define apart
	@mkdir -p build/$(1)/lib && find build/$(1)/lib -name '*.py' -delete && ln -sfn ../../../benchmarks build/$(1)/lib/
	@$(2) $(BIN)/python setup.py -q build --parallel 2 --build-base build/$(1) --build-lib build/$(1)/lib >&2
	@PYTHONPATH=build/$(1)/lib PYTHONSAFEPATH=1 $(3) $(BIN)/python -m pytest $(4)
endef

# CPython keeps memory until it ends, so leaks are not looked for; the interpreter itself is not instrumented.
SANITIZE := KBDFL_SANITIZE=address,undefined,float-cast-overflow
SANITIZED := ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD=$(shell $(CC) -print-file-name=libasan.so)

.PHONY: help install demo test asan asan-plain portable frames fuzz torture lint format bench experiments clean

help:
	@echo "make demo      phones type, the fleet learns, the keyboard predicts (ARGS='--quick', '--no-serve --json')"
	@echo "make test      all tests (ARGS='-k coordinator'; KBDFL_DEBUG_KERNELS=1 checks the kernels' bounds)"
	@echo "make asan      the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make portable  the kernels' tests without run-time dispatch, and with clang where there is one"
	@echo "make lint      ruff"
	@echo "make frames    a million frames and five million broken ones against a second decoder (FRAMES=1000)"
	@echo "make torture   a server that is killed a thousand times while phones report (KILLS=50)"
	@echo "make fuzz      a fuzzer on what server and phones read, under the sanitizers (FUZZ_SECONDS=600)"
	@echo "make experiments  every comparison of docs/experiments.md, ten minutes each, bandwidth thirty (ARGS=--quick: one)"
	@echo "make bench     training and the codec's kernels beside their peers (ARGS='--json')"

install: $(STAMP)

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kbdfl needs Python 3.11 or newer"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2 || \
		{ rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt install python3-venv python3-dev gcc"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[chat,test,lint]" >&2
	@{ command -v npm >/dev/null && npm ci --silent --prefix $(WEB); } >&2 || \
		echo "onnxruntime-web was not installed (npm); the keyboard will ask the server for words" >&2
	@touch $(STAMP)

demo: install
	@$(BIN)/kbdfl demo $(ARGS)

test: install
ifeq ($(KBDFL_DEBUG_KERNELS),1)
	$(call apart,debug,KBDFL_DEBUG_KERNELS=1,,$(ARGS))
else
	@$(BIN)/python -m pytest $(ARGS)
endif

asan: install
	$(call apart,asan,$(SANITIZE),$(SANITIZED),$(KERNEL_TESTS))

# The same for the plain loops that are meant for compilers without vector extensions; slow.
asan-plain: install
	$(call apart,asan-plain,$(SANITIZE) KBDFL_NO_CLONES=1 CPPFLAGS=-DKBDFL_NO_VECTORS,$(SANITIZED),$(KERNEL_TESTS))

portable: install
	$(call apart,portable,KBDFL_NO_CLONES=1,,$(KERNEL_TESTS))
ifneq ($(shell command -v clang),)
	$(call apart,clang,CC=clang,,$(KERNEL_TESTS))
endif

# The wire format against its second decoder, and five mutated frames for each.
frames: FRAMES ?= 1000000
frames: install
	@KBDFL_FRAMES=$(FRAMES) $(BIN)/python -m pytest tests/test_wire.py --timeout 0 $(ARGS)

# A server that is killed while phones report, and a reckoning of what it acknowledged.
torture: KILLS ?= 1000
torture: install
	@$(BIN)/python -m tests.server.torture --kills $(KILLS) $(ARGS)

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

format: install
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

experiments: install
	@for name in compare-server-rules heterogeneity async selection central-gap silos personalise warm-start bandwidth backdoor; do \
		$(BIN)/kbdfl experiment $$name $(ARGS) || exit; \
	done

bench: install
	@$(BIN)/kbdfl bench client $(ARGS)
	@$(BIN)/kbdfl bench kernels $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info kernels/*.so
