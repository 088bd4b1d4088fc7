# Two commands on a fresh machine: make demo, make test. Each has a virtual environment of its own.
PYTHON ?= python3
PIP = -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo fuzz test parity lint layers bench clean

demo: .venv-demo/ready
	rm -rf demo-out
	.venv-demo/bin/safeswap demo --out demo-out

test: .venv-test/ready
	.venv-test/bin/python -m pytest -n 2 tests

# mergekit pins much; it gets an environment of its own, and only these tests use it
parity: .venv-test/ready .venv-mergekit/ready
	SAFESWAP_MERGEKIT=$(CURDIR)/.venv-mergekit/bin/python .venv-test/bin/python -m pytest tests/interchange tests/operators/test_mergekit.py

# 100,000 damaged files to all readers; an hour on one core
fuzz: .venv-test/ready
	cd tests && PYTHONPATH=. ../.venv-test/bin/python -m fuzz.run --cases 100000

lint: .venv-test/ready layers
	.venv-test/bin/ruff check src tests benchmarks research
	.venv-test/bin/ruff format --check src tests benchmarks research
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

.venv-mergekit/ready: Makefile
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-mergekit/bin/python -m pip install --quiet --disable-pip-version-check mergekit==0.1.5 "transformers>=5.0,<6"
	touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-mergekit demo-out
