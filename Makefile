# Two commands do everything on a fresh machine: `make study` and `make test`. Each target makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOWEST := tests/quant tests/recording tests/plot tests/test_face.py tests/test_toy.py oscillab/quant oscillab/recording oscillab/plot
NOTEBOOKS ?= notebooks
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 120

.PHONY: study test first-half second-half unit nbval browser-test wheel-test test-lowest lab notebooks student html lint bench pretrain clean

$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "oscillab needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

study: $(STAMP)
	$(BIN)/python -m oscillab study --preset quick

# two halves of about equal length, one core each
test: $(STAMP)
	$(MAKE) --jobs 2 --output-sync=target first-half second-half

first-half: $(STAMP)
	$(BIN)/python -m pytest --ignore tests/study

second-half: $(STAMP)
	$(BIN)/python -m pytest tests/study
	$(BIN)/python -m pytest $(NBVAL) $(NOTEBOOKS)

unit: $(STAMP)
	$(BIN)/python -m pytest

nbval: $(STAMP)
	$(BIN)/python -m pytest $(NBVAL) $(NOTEBOOKS)

# apart from `test`: it needs Debian's chromium, which it installs when it may
browser-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,browser]"
	sh tests/browser/install.sh
	$(BIN)/python -m pytest tests/browser

# apart from `test`: they build the wheel and install packages into environments of their own, below build/
wheel-test: $(STAMP)
	$(BIN)/python -m pytest tests/wheel

# the oldest versions that pyproject.toml allows; images are not compared, which differ by their fonts
test-lowest: $(STAMP)
	$(BIN)/python tests/lowest.py build/lowest.txt
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --constraint build/lowest.txt --editable ".[all]" pytest hypothesis
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -q -o addopts="--doctest-modules --import-mode=importlib" $(LOWEST)

# with widgets' pictures kept in notebooks that are saved; in a container one is often root, which jupyter wants to be told
lab: $(STAMP)
	mkdir -p .venv/share/jupyter/lab/settings
	cp notebooks/lab_settings.json .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

notebooks: $(STAMP)
	$(BIN)/python notebooks/settle.py notebooks/*.ipynb

# copies without solutions, for a class: notebooks/student
student: $(STAMP)
	$(BIN)/python notebooks/student.py

# pages that need neither a kernel nor a network, each at most 500 KB: build/html
html: $(STAMP)
	$(BIN)/python notebooks/pages.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_storeys.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

pretrain: $(STAMP)
	$(BIN)/python -m oscillab pretrain --out data/yolov5n-scenes.pt
	$(BIN)/python -m oscillab pretrain --model yolov5n-seg --start data/yolov5n-scenes.pt --epochs 16 --ema-decay 0.995 \
		--out data/yolov5n-seg-scenes.pt
	$(BIN)/python -m oscillab pretrain --model yolov7-tiny --epochs 24 --ema-decay 0.995 --out data/yolov7-tiny-scenes.pt

# results/ stays: hours of work lie there
clean:
	rm -rf .venv build *.egg-info
