# The commands of the README. Paths are relative, so that a checkout may have spaces in its path.
.PHONY: setup demo test check dist audit sanitize fuzz torture prove-cache screenshots bench

setup:
	@sh tools/setup.sh

demo: setup  ## build Lua plainly and on an embedded cluster, and compare every file
	@.venv/bin/python tools/demo.py

# Most tests wait for processes, so that several run at once. The tests of one file share a cluster.
test:  ## every test, with real mounts, namespaces and processes
	@sh tools/setup.sh tests
	@.venv/bin/python -m pytest -n $(or $(AT_ONCE),2) --dist loadfile
	@sh tools/test_as_root.sh
	@$(MAKE) --no-print-directory sanitize

# The tests are compiled once, not at each check, whatever the caller's environment says: without
# the compiled tests each process spends seconds before its first test.
check: setup  ## what a change must pass before it is committed; half a minute
	@start=$$(date +%s); set -ex; \
	.venv/bin/ruff check .; \
	.venv/bin/ruff format --check .; \
	.venv/bin/python tools/check_prose.py; \
	.venv/bin/mypy; \
	.venv/bin/lint-imports; \
	.venv/bin/codespell *.md Makefile CMakeLists.txt .ci bench docs examples native packaging patches termite tests tools; \
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -q -n $(or $(AT_ONCE),2) --dist loadfile \
		--hypothesis-profile=quick tests/unit tests/docs; \
	set +x; echo "check: passed in $$(($$(date +%s) - start)) s"

dist: setup  ## build the files of a release into dist (docs/use/install.md): two runs give the same bytes
	@PYTHONPATH=tools .venv/bin/python -m packing dist

audit: setup  ## ask the advisory database of PyPI about every pinned package, and check how the native programs are built
	@sh tools/audit.sh
	.venv/bin/python -m pytest -q tests/native/test_hardening.py

sanitize: setup  ## build the native programs with the address and undefined behaviour sanitizers, and run their tests
	@.venv/bin/cmake -S . -B build/sanitize -DTERMITE_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	@.venv/bin/cmake --build build/sanitize --parallel $(or $(AT_ONCE),2) >/dev/null
	@ln -sf ../../.venv/bin/termite-redo build/sanitize/ # the launcher starts the one beside it
	TERMITE_NATIVE="$$PWD/build/sanitize" .venv/bin/python -m pytest -q -n $(or $(AT_ONCE),2) --dist loadfile tests/native
	.venv/bin/python -m tests.fuzz --seconds 5

# SECONDS= is the CPU time of each target, ONLY= the name of one target (tests/fuzz/targets). The
# target says how to replay a finding.
fuzz:  ## give each input of the native programs mutated bytes, ten CPU minutes each, with sanitizers
	@sh tools/setup.sh fuzz
	@.venv/bin/python -m tests.fuzz --needed --seconds $(or $(SECONDS),600) $(if $(ONLY),--target $(ONLY))

# One round: make torture SEED=7 FAULT=kill:master ROUNDS=1. UNTIL= is in minutes. ARGS=--list shows
# the faults.
torture:  ## hit one fault into each build for half an hour (docs/develop/faults.md)
	@sh tools/setup.sh tests
	@.venv/bin/python -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault '$(FAULT)') \
		$(if $(UNTIL),--until $(UNTIL)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

# The same rounds again: make prove-cache ARGS='--seed 7 --only lua --rounds 9'. ARGS=--help shows more.
prove-cache:  ## build packages with stored results for half an hour, and execute every hit as well (docs/develop/recall.md)
	@sh tools/setup.sh tests
	@PYTHONPATH=tools .venv/bin/python -m tests.cache_proof $(ARGS)

screenshots:  ## look at the pages in a real browser, which this installs, and renew the pictures in docs/images
	@sh tools/setup.sh browser
	@.venv/bin/python -m tests.browser

# For a part of it: make bench ARGS="--only lua,latency --quick". The results go to
# build/bench/results. With ARGS=--keep they go to bench/results, which is under version control:
# use it only if a document will cite them.
bench:  ## measure, beside plain builds and peers (docs/develop/performance.md)
	@sh tools/setup.sh tests
	@sh bench/run.sh $(ARGS)
