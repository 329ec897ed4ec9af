# Two commands on a fresh machine with Python and make: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BACKBONE ?=
TRAIN ?=
PART ?= bracket
MINUTES ?= 30
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SMALL := $(VENV)/small

.PHONY: install demo test fuzz lint types docs hardware clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# Setuptools warns of every editable install that maps packages, as pyproject.toml does.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[train,cpu,serve,dev]'
	@touch $@

# What runs without PyTorch; `make demo TRAIN=1` has it, and fine-tunes.
$(SMALL): pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[cpu,eval]'
	@touch $@

demo: $(if $(TRAIN)$(BACKBONE),$(INSTALLED),$(SMALL))
	@rm -rf demo && mkdir -p demo
	$(BIN)/python -m benchmarks.rendered_parts demo/parts --part $(PART) --size 512 \
		--train 5 --good 15 --bad 5
	$(BIN)/fsad-edge finetune demo/parts/train/good -o demo/part \
		$(if $(BACKBONE),--backbone $(BACKBONE))
	$(BIN)/fsad-edge export demo/part
	$(BIN)/fsad-edge score demo/part.onnx demo/parts/test --heatmaps demo/heatmaps || test $$? -eq 1
	$(BIN)/fsad-edge eval demo/part.onnx demo/parts --report demo/report.html
	@echo "Heat maps: demo/heatmaps    Report: demo/report.html"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# Two at a time; torch's own threads would only take the cores from one another.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Attacks with a new seed, which is printed. The cases that fail are saved in fuzz-failures/.
fuzz: install
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# The site, in site/; a broken link fails.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# On a machine with a GPU, TensorRT or on a Jetson; no torch needed. Send back what it prints.
hardware:
	FSAD_EDGE_MODEL=$(MODEL) $(PYTHON) -m pytest tests/hardware --confcutdir=tests/hardware \
		-m "gpu or trt or jetson" -rs

clean:
	rm -rf $(VENV) build dist demo site fuzz-failures *.egg-info .mypy_cache .ruff_cache .pytest_cache
