# Every target does all of its own set-up in .venv; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench bench-models format clean

demo: .venv/cpu.stamp
	$(BIN)/edgefuse stream --ir sim --vis sim --duration 8 --out demo.mp4 --still demo.png

test: .venv/dev.stamp
	$(BIN)/python -m pytest

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/vermin -q --no-tips --violations --eval-annotations -t=3.10- edgefuse bench tests

bench: .venv/dev.stamp
	$(BIN)/python -m pytest bench -o python_files='bench_*.py' --benchmark-enable --benchmark-only --benchmark-json=bench.json

bench-models: .venv/dev.stamp
	$(BIN)/python -m pytest bench/bench_models.py -o python_files='bench_*.py' --benchmark-enable --benchmark-json=bench-models.json
	$(BIN)/python bench/write_benchmarks.py bench-models.json docs/benchmarks.md

format: .venv/dev.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/cpu.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing edgefuse with its inference engine into .venv …"
	$(INSTALL) -e '.[cpu]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing edgefuse with the development tools into .venv …"
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/cpu.stamp
