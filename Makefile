# Two commands matter to a reader: `make demo` and `make lab`. Each target builds what it needs.
PYTHON ?= python3
WORKERS ?= 2
PORT ?= 8000
BIN := .venv/bin
PY := $(BIN)/python
NOTEBOOKS := $(sort $(wildcard nbs/*.ipynb)) $(sort $(wildcard nbs/tools/*.ipynb))
LINTED := nbs tests benchmarks docs/conf.py docs/_ext ftlearn/__init__.py ftlearn/__main__.py
SITE := docs/_build/html

# Parallel workers take one thread each: two 2-thread jobs on two cores are ten times slower.
one_thread := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo lab test lint sync check docs docs-serve test-web wheel evidence evidence-labels evidence-shapes evidence-methods evidence-remedies evidence-students bench pretrain run export format clean
.DEFAULT_GOAL := demo

# .venv/.run holds the package alone; .venv/.dev, .lab, .docs and .web add that extra. Each is redone
# when pyproject.toml is newer.
.venv/.%: pyproject.toml
	@test -x $(PY) || { echo "Building .venv (torch is large; some minutes, once)"; \
		$(PYTHON) -m venv .venv; }
	$(PY) -m pip install --disable-pip-version-check -e "$(if $(filter run,$*),.,.[$*])"
	@touch $@

demo: .venv/.run
	$(PY) -m ftlearn demo

# Each group of lessons has an experiment of at most 45 minutes, which goes on where it stopped.
evidence: evidence-labels evidence-shapes evidence-methods evidence-remedies evidence-students

evidence-labels: .venv/.run
	$(PY) -m ftlearn evidence labels --out ftlearn/bundled/labels.json \
		--figure docs/letters-teach-digits.png

evidence-shapes evidence-methods evidence-remedies evidence-students: evidence-%: .venv/.run
	$(PY) -m ftlearn evidence $* --out ftlearn/bundled/$*.json

# Timings want a quiet machine. The peers have an environment of their own. The comparison takes
# hours in all: each call does MINUTES of it, and the next goes on.
BENCH := .venv-bench/bin/python
MINUTES ?= 45

.venv-bench/.built: pyproject.toml
	@test -x $(BENCH) || $(PYTHON) -m venv .venv-bench
	$(BENCH) -m pip install --disable-pip-version-check -e ".[bench]"
	@touch $@

bench: .venv-bench/.built
	$(BENCH) benchmarks/jobs.py
	$(BENCH) benchmarks/loop.py
	$(BENCH) benchmarks/imports.py
	$(BENCH) benchmarks/distillation.py
	$(BENCH) benchmarks/growth.py
	$(BENCH) benchmarks/gpu.py
	$(BENCH) benchmarks/peers.py --minutes $(MINUTES)
	$(BENCH) benchmarks/report.py
	$(BENCH) benchmarks/chart.py

pretrain: .venv/.run
	$(PY) -m ftlearn pretrain --overwrite --out ftlearn/bundled/letters.safetensors

# Trusted, so that the stored figures can be moved before a cell has run.
lab: .venv/.lab
	@$(PY) -m jupyter trust $(NOTEBOOKS) > /dev/null
	$(PY) -m jupyterlab nbs

test: lint sync check

lint: .venv/.dev
	@echo "== 1/3 ruff"
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)

sync: .venv/.dev
	@echo "== 2/3 ftlearn/ is what nbs/ exports, and the notebooks are clean"
	$(PY) -m pytest -q tests/test_sync.py

# Tests, notebooks and the wheel go to the same two workers, so that neither core waits.
check: .venv/.dev
	@echo "== 3/3 tests, every notebook, and the wheel in a fresh environment"
	$(one_thread) $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --durations 10 \
		--nbval --nbval-current-env --nbval-sanitize-with nbs/_nbval.cfg \
		--nbval-cell-timeout 300 --ignore tests/test_sync.py --ignore tests/web tests nbs

# Offline, from what is stored: no notebook runs. A warning is an error. Every page is read anew
# (-E), as Sphinx does not know of all files that pages are made of.
docs: .venv/.docs
	$(PY) -m sphinx -q -W -E --keep-going -b html docs $(SITE)
	@echo "the site: $(SITE)/index.html, or make docs-serve"

docs-serve: docs
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C stops it)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

# The site and the lessons in a real browser; skipped, with the reason, where none can be had.
test-web: .venv/.web docs
	@$(PY) tests/web/browser.py
	$(one_thread) $(PY) -m pytest -q -n $(WORKERS) --dist load --maxschedchunk 1 -r s tests/web/test_lab.py
	$(one_thread) $(PY) -m pytest -q -n $(WORKERS) --dist load -r s tests/web/test_site.py

# The same check of the wheel, with its dependencies downloaded as a user's pip would.
wheel: .venv/.dev
	$(PY) tests/wheel_check.py --download

export: .venv/.dev
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

run: .venv/.dev
	printf '%s\n' $(NOTEBOOKS) | $(one_thread) xargs -P $(WORKERS) -n 1 $(PY) nbs/_execute.py
	$(BIN)/nbdev_clean

format: .venv/.dev
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)
	$(MAKE) export

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache docs/_build docs/lessons docs/reference
	rm -rf docs/_static/figures docs/_static/notebooks
	find ftlearn nbs tests -name __pycache__ -prune -exec rm -rf {} +
