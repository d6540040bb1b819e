# Two commands do everything on a machine with Python 3.11+ and make:
#   make demo    train 32s -> 16s -> 8s on the embedded data, export, run without torch, time, report
#   make test    the whole suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
INSTALLED := $(VENV)/.installed
DEMO := out/runs/shapes-fcn8s

.PHONY: demo test lint gpu-check clean

# glibc hands large blocks back to the system at once, and every layer of every pass then pays for fresh pages: keeping
# them takes a fifth off training on a CPU.
demo: export MALLOC_MMAP_THRESHOLD_ := 4294967296
demo: export MALLOC_TRIM_THRESHOLD_ := 17179869184
demo: $(INSTALLED)
	$(RUN) reference/train.py shapes-fcn8s --staged
	$(RUN) export/to_onnx.py $(DEMO)/weights.safetensors -o $(DEMO)/model.onnx
	$(RUN) benchmarks/accuracy.py $(DEMO)/weights.safetensors --model $(DEMO)/model.onnx
	$(RUN) benchmarks/latency.py $(DEMO)/model.onnx
	$(RUN) benchmarks/report.py
	@echo "open out/report.html"

test: $(INSTALLED)
	$(RUN) -m pytest -q

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Every check that needs an NVIDIA GPU; results go to benchmarks/results/gpu.
gpu-check: $(INSTALLED)
	$(RUN) benchmarks/gpu_check.py

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) out *.egg-info
