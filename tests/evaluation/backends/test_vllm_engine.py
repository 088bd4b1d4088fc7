"""vLLM itself, on a processor: ``make engines``. Left out where it is not installed.

The bounds are those of docs/evaluate.md: in float32 the same answers as transformers, and the same
log-likelihoods to ``TOLERANCE``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")

from evaluation.standin import MODEL, OTHER, chats, small, text, write_suite
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Backend, BackendOptions, open_backend

pytestmark = pytest.mark.timeout(600)

ENGINE = {"gpu_memory_utilization": 0.1, "max_model_len": 64, "enforce_eager": True}
OPTIONS = BackendOptions(dtype="float32", engine=ENGINE)
TYPED = [f"--engine={key}={str(value).lower()}" for key, value in ENGINE.items()]
TOLERANCE = 1e-3
"""Of a log-likelihood; measured: at most 2e-5."""


@contextmanager
def opened(source: Path = MODEL, options: BackendOptions = OPTIONS) -> Iterator[Backend]:
    backend = open_backend(str(source), "vllm", options)
    try:
        yield backend
    finally:
        backend.close()


def engines() -> dict[int, str]:
    """The processes of engines by their number."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            continue
        if name.startswith("VLLM::"):
            found[int(place.name)] = name
    return found


def left(before: dict[int, str], seconds: int = 20) -> dict[int, str]:
    """Engines that were not there before and do not end."""
    for _ in range(seconds * 10):
        remaining = {pid: name for pid, name in engines().items() if pid not in before}
        if not remaining:
            break
        time.sleep(0.1)
    return remaining


def test_answers_and_likelihoods_are_those_of_transformers_in_float32() -> None:
    before = engines()
    asked = [*chats(20), *chats(20, limit=3)]
    pairs = [("loglikelihood", (text(n), f" {text(n + 1).split()[0]}")) for n in range(20)]
    requests: list[Any] = [SimpleNamespace(args=args) for _, args in pairs]
    theirs = small().harness()
    with opened() as backend:
        assert backend.description["dtype"] == "float32"
        assert backend.description["device"] == "cpu"
        assert dict(backend.respond(asked)) == dict(small().respond(asked))
        scored = backend.harness().loglikelihood(requests)
        expected = theirs.loglikelihood(
            [SimpleNamespace(args=r.args, task_name="t", doc_id=0, idx=0) for r in requests]
        )
        assert [s[0] for s in scored] == pytest.approx([e[0] for e in expected], abs=TOLERANCE)
        assert [s[1] for s in scored] == [e[1] for e in expected]
    assert not left(before)


def test_auto_is_recorded_as_what_it_became() -> None:
    with opened(options=replace(OPTIONS, dtype="auto")) as backend:
        assert backend.description["dtype"] == "bfloat16"


def test_an_engine_without_memory_says_so() -> None:
    before = engines()
    greedy = replace(OPTIONS, engine={**ENGINE, "gpu_memory_utilization": 0.999})
    with pytest.raises(EvaluationError, match=r"does not start: ValueError: .*memory"):
        open_backend(str(MODEL), "vllm", greedy)
    assert not left(before)


SAID = "said.txt"
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs behind "&" ignores it
from safeswap.cli import run
run()
"""


def evaluate(folder: Path, *models: str) -> subprocess.Popen[bytes]:
    suite = write_suite(folder / "suite", 8)
    words = [*models, "--suite", suite, "--only", "qab", "--max-new-tokens", "12", "-o", "results"]
    return subprocess.Popen(
        [sys.executable, "-c", START, "evaluate",
         *map(str, words), "--backend", "vllm", *TYPED],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=(folder / SAID).open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def until(before: dict[int, str], word: str) -> int:
    """The number of a new engine process of that name, once there is one."""
    for _ in range(1200):
        for pid, name in engines().items():
            if pid not in before and word in name:
                return pid
        time.sleep(0.1)
    raise AssertionError("no engine came up")


def test_two_models_one_after_the_other_and_none_is_left(tmp_path: Path) -> None:
    before = engines()
    process = evaluate(tmp_path, f"one={MODEL}", f"two={OTHER}")
    most = 0
    while process.poll() is None:
        cores = [name for pid, name in engines().items() if pid not in before and "Core" in name]
        most = max(most, len(cores))
        time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / SAID).read_text()
    assert most == 1
    assert not left(before)
    for model in ("one", "two"):
        rows = (tmp_path / "results" / model / "responses.jsonl").read_text().splitlines()
        assert len(rows) == 8


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_its_engine_killed(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C reaches every process of the terminal; a kill only the engine's."""
    before = engines()
    process = evaluate(tmp_path, f"one={MODEL}")
    core = until(before, "EngineCore")
    asked = tmp_path / "results" / "one" / "responses.jsonl"
    while not asked.exists() and process.poll() is None:
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        os.kill(core, how)
    process.wait(timeout=200)
    said = (tmp_path / SAID).read_text()
    assert process.returncode == (130 if how == signal.SIGINT else 1), said
    assert ("Interrupted" if how == signal.SIGINT else "Error: ") in said
    assert not left(before)
    again = evaluate(tmp_path, f"one={MODEL}")
    assert again.wait() == 0, (tmp_path / SAID).read_text()
