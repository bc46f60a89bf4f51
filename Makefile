# Every target does all of its own set-up in .venv; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
# The versions in constraints.txt need Python 3.11; on 3.10 pip chooses.
PINS = $$($(BIN)/python -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))')
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS)
PYTEST := $(BIN)/python -m pytest
# The tests of one file stay together, as they share what they have made. tests/conftest.py sorts the files.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo quick test test310 test-gpu-placement check bench bench-models docs figures format clean test-lowest

demo: .venv/cpu.stamp
	$(BIN)/edgefuse stream --ir 'sim?ir_depth=16' --vis sim --duration 8 --out demo.mp4 --still demo.png

quick: .venv/dev.stamp
	$(PYTEST) $(PARALLEL) -m "not slow and not network and not golden"

test: .venv/dev.stamp
	$(PYTEST) $(PARALLEL) --cov=edgefuse --cov-report=term:skip-covered --cov-fail-under=90

# The core on the oldest Python: images, metrics, the live loop, sinks, the command line. Its packages are
# others than in constraints.txt, whose newest versions need a newer Python.
test310: .venv310/stamp
	.venv310/bin/python -m pytest -n 2 -m "not slow and not network and not golden" -p no:cacheprovider \
	  tests/test_package.py tests/test_images.py tests/test_fuser.py tests/test_live.py \
	  tests/test_metrics.py tests/test_thermal.py tests/test_sinks.py tests/test_sim.py

# On which processor the GPU build of ONNX Runtime puts every model file's nodes; needs no GPU, but gcc.
test-gpu-placement: .venv/dev.stamp .ort-gpu/stamp
	$(PYTEST) -s tests/test_gpu_placement.py

# The same with the lowest versions that pyproject.toml allows; what they warn of is not our doing.
test-lowest: .venv-lowest/stamp
	.venv-lowest/bin/python -W ignore::DeprecationWarning -m pytest -n 2 -W ignore::DeprecationWarning \
	  -m "not slow and not network and not golden" -p no:cacheprovider \
	  tests/test_package.py tests/test_images.py tests/test_fuser.py tests/test_metrics.py tests/test_thermal.py \
	  tests/test_sinks.py tests/test_sim.py tests/test_serve.py tests/test_live.py

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/vermin -q --no-tips --violations --eval-annotations -t=3.10- edgefuse bench examples tests tools

bench: .venv/dev.stamp
	$(PYTEST) bench -o python_files='bench_*.py' --benchmark-enable --benchmark-only --benchmark-json=bench.json

bench-models: .venv/dev.stamp
	$(PYTEST) bench/bench_models.py -o python_files='bench_*.py' --benchmark-enable --benchmark-json=bench-models.json
	$(BIN)/python -m bench.write_benchmarks bench-models.json
	$(BIN)/python -m bench.figures

# The documentation as a site, in site/; a broken link is an error.
docs: .venv/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The numbers of README and docs from what benches wrote beside them as JSON.
figures: .venv/dev.stamp
	$(BIN)/python -m bench.figures

format: .venv/dev.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv310 .venv-lowest .ort-gpu site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "edgefuse needs Python 3.10 or newer, and $(PYTHON) is older: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/cpu.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing edgefuse with its inference engine into .venv …"
	$(INSTALL) -e '.[cpu]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing edgefuse with the development tools into .venv …"
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/cpu.stamp

.ort-gpu/stamp: | .venv/dev.stamp
	@echo "Downloading the GPU build of ONNX Runtime (250 MB) into .ort-gpu …"
	$(INSTALL) --no-deps --target .ort-gpu onnxruntime-gpu
	touch $@

.venv310/stamp: pyproject.toml
	python3.10 -m venv .venv310
	.venv310/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu]' pytest pytest-xdist \
	  pytest-benchmark hypothesis scipy
	touch $@

.venv-lowest/stamp: pyproject.toml constraints-lowest.txt
	python3.10 -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt \
	  -e '.[cpu,serve]' pytest pytest-xdist pytest-benchmark hypothesis scipy
	touch $@
