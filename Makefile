# Everything runs inside $(VENV), which is made on first use. `make` alone says what there is.

PYTHON ?= python3
VENV ?= .venv
# Two test processes of one thread, whole files each, for two cores; more for more:
# make test PYTEST_OPTIONS="-n 8 --dist loadfile". xdist would put the files of few and long tests last.
PYTEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder

# DeepSpeed looks for its launcher and for ninja on the PATH.
export PATH := $(abspath $(VENV))/bin:$(PATH)
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

OWN_DATA = \
    echo "Next, with text of your own (README.md has more):"; \
    echo "  . $(VENV)/bin/activate"; \
    echo "  python -m deltalm_ds.prepare TEXT... --output my-data"; \
    echo "  deepspeed deltalm_ds/pretrain.py --data my-data --preset small --deepspeed_config ds_configs/zero2.json"

.DEFAULT_GOAL := help
.PHONY: help pretrain test cluster-test cluster-campaign lint docs gpu gpu-train clean clean-all

help:
	@echo "make pretrain   install, then train the tiny model on the embedded sample: minutes on two CPU cores"
	@echo "make test       install, then run every test, two-process ones included"
	@echo "make cluster-test  test the batch scripts on a SLURM of two nodes, started on this machine; needs root"
	@echo "make cluster-campaign  on the same: interrupt and kill whole runs, 30 times; an hour or more"
	@echo "make lint       style and types: ruff, mypy, clang-format and shellcheck"
	@echo "make docs       draw the pictures in docs/ again"
	@echo "make gpu        on a CUDA GPU: check the kernels, time them, choose by the times; 9 minutes"
	@echo "make gpu-train  on a CUDA GPU: pre-train at base size, killed and resumed on the way"
	@echo "make clean      remove caches and build products; clean-all also removes $(VENV)"
	@echo
	@echo "They install into $(VENV). PYTHON=python3.12 chooses the interpreter (3.10 or newer)."
	@$(OWN_DATA)

pretrain: $(VENV)/.installed
	deepspeed deltalm_ds/pretrain.py --deepspeed_config ds_configs/zero2.json

test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.installed-test
	python -m pytest $(PYTEST_OPTIONS)

# Two processes with a SLURM each: the tests wait more than they compute.
cluster-test: export OMP_NUM_THREADS ?= 1
cluster-test: $(VENV)/.installed-test
	slurm=$$(command -v slurmctld slurmd munged srun setpriv | wc -l); \
	if [ $$slurm -lt 5 ]; then \
	    [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null \
	        || { echo "make: SLURM and munge are missing; on Debian, as root: apt-get install slurm-wlm munge"; exit 2; }; \
	    apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends slurm-wlm munge util-linux; \
	fi
	python -m pytest tests/cluster -n 2 --dist loadgroup $(CLUSTER_TEST_OPTIONS)

# Whole runs, interrupted in every phase and killed: longer than the checks of a change may take.
cluster-campaign: export OMP_NUM_THREADS ?= 1
cluster-campaign: $(VENV)/.installed-test
	python -m pytest tests/cluster/whole_runs $(CLUSTER_TEST_OPTIONS)
	PYTHONPATH=tests/cluster python tests/cluster/campaign.py --work build/campaign

lint: $(VENV)/.installed-dev
	ruff check .
	ruff format --check .
	mypy
	shellcheck --external-sources --source-path=SCRIPTDIR/.. slurm/*.sh .ci/run
	clang-format --dry-run --Werror $(shell find kernels -name '*.cu' -o -name '*.h' -o -name '*.cpp')

# With the environment if there is one, else with $(PYTHON) and its torch: torch and numpy are enough.
gpu:
	PYTHONPATH=. $(or $(wildcard $(VENV)/bin/python),$(PYTHON)) benchmarks/gpu.py $(GPU_OPTIONS)

gpu-train: $(VENV)/.installed-test
	python benchmarks/gpu_train.py $(GPU_TRAIN_OPTIONS)

docs: $(VENV)/.installed
	python docs/draw_data_flow.py docs/data_flow.svg
	rm -rf build/demo
	python -m deltalm_ds.demo build/demo/text
	python -m deltalm_ds.prepare build/demo/text --output build/demo/data --vocabulary-size 4000
	python -m deltalm_ds.corpus build/demo/data --pictures build/demo/pictures
	cp build/demo/pictures/languages.svg docs/demo_languages.svg
	python -m deltalm_ds.plan --model large --nodes 8 --gpu h200 --picture docs/plan.svg

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find deltalm_ds tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "make: $(PYTHON) is missing or older than 3.10: give PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
	    || { rm -rf $(VENV); echo "make: no venv for $(PYTHON): on Debian, apt-get install python3-venv"; exit 2; }

# The stamps: nothing is installed again until what they depend on changes.
$(VENV)/.installed: requirements-torch.txt setup.py pyproject.toml | $(VENV)/bin/python
	@echo "make: installing into $(VENV); the first time this downloads torch and takes minutes"
	$(PIP_INSTALL) -r requirements-torch.txt
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(PIP_INSTALL) --editable ".[$*]"
	@touch $@
