"""No file, however it is damaged, gets anything out of a reader but an error of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from fuzz.readers import BY_NAME, READERS, Reader
from fuzz.run import Bench, case
from safeswap.calibration.texts import read_texts
from safeswap.checkpoint.torch_bin import read_torch_file
from safeswap.errors import CalibrationError, CheckpointError, ConfigError, EvaluationError
from safeswap.evaluation.backends.encoding import read_template
from safeswap.evaluation.judges.names import json_in
from safeswap.io.regular import is_file, is_folder, is_there, read_regular, read_text

CASES = 24
"""Of each reader; ``make fuzz`` has 100,000 in all."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_changed_file_is_read_or_refused_in_our_words(bench: Bench, reader: Reader) -> None:
    place, valid = bench.place(reader)
    reader.read(place)  # as it was made it is valid
    for number in range(-(-CASES // reader.cost)):
        error = case(reader, place, valid, number)
        assert error is None, f"case {number}: {type(error).__name__}: {error}"


# Found by longer runs; each came out as something else than an error of ours.
FOUND = (
    ("suite", "benchmarks: {a: {tasks: {sw: 0x" + "f" * 6000 + "}}}"),
    ("suite", 'benchmarks: {read: {tasks: {sw: {task: t, file: "' + "x" * 300 + '"}}}}'),
    ("suite", "benchmarks: {a: {tasks: {sw: t}, cluster: " + "9" * 5000 + "}}"),
    ("vocab.json", '{"a": {}}'),
    ("vocab.json", '{"a": [1]}'),
    ("settings.json", '{"format": "safeswap-results/1"}'),
    ("settings.json", '{"cells": {"harm/sw": 1}}'),
    ("settings.json", '{"cells": {}, "arms": [[]]}'),
    ("model.json", '{"reference": {}}'),
    ("responses", '{"key": "harm/sw/0"}\n'),
    ("verdicts", '{"key": "harm/sw/0", "verdict": []}\n'),
    ("scores", '{"key": "read/sw/task/0", "benchmark": {}}\n'),
    ("a search's memory", '{"name": "x"}'),
    ("a search's memory", "[]"),
    ("data, jsonl", '{"question": "\\ud800"}\n'),
    ("data, jsonl", '{"a":' * 100_000 + "\n"),
    ("texts, jsonl", "[" * 100_000 + "\n"),
    ("config.json of a judge", '{"a":' * 100_000),
    ("tokenizer.json", '{"model": {"vocab": ["x"' + ', "x"' * 95 + "]}}"),
)


@pytest.mark.parametrize(("name", "content"), FOUND, ids=range(len(FOUND)))
def test_what_was_found_once(bench: Bench, name: str, content: str) -> None:
    reader = BY_NAME[name]
    place, valid = bench.place(reader)
    same = Reader(name, reader.file, lambda dice, data: content.encode(), reader.read, reader.make)
    assert case(same, place, valid, 0) is None


FOUND_WITHIN = (
    ("mergekit slerp", "dtype: ", "dtype: [bfloat16]\nchat_template: "),
    ("mergekit slerp", "dtype: ", "out_dtype: {a: b}\nchat_template: "),
    ("mergekit slerp", "0.5", "9" * 400),
    ("data, jsonl", "1}\n", f'1}}\n{{"question": "a", "answer": {2**70}}}\n'),
    ("search", "step: ", "step: 1.0e-320 # "),
    ("search", "high: ", "high: 1.0e+300 # "),
    ("profile", '"revision": null', '"revision": [1]'),
    ("profile", '"sha256": null', '"sha256": 1.5'),
    ("key of a sheet", '"size": 2', '"size": Infinity'),
)
"""A piece of the valid file, and what stood in its place."""


@pytest.mark.parametrize(("name", "old", "new"), FOUND_WITHIN, ids=range(len(FOUND_WITHIN)))
def test_what_was_found_within_a_valid_file(bench: Bench, name: str, old: str, new: str) -> None:
    reader = BY_NAME[name]
    place, valid = bench.place(reader)
    assert old.encode() in valid
    changed = valid.replace(old.encode(), new.encode(), 1)
    same = Reader(name, reader.file, lambda dice, data: changed, reader.read, reader.make)
    assert case(same, place, valid, 0) is None


def test_a_reader_sets_aside_no_more_than_there_is(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("{}")
    program = (
        "import resource; from pathlib import Path; from safeswap.io.regular import read_regular\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "print(read_regular(Path('small'), 1 << 34))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, env=environment
    )
    assert done.stdout == b"b'{}'\n", done.stderr


def test_a_pickle_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("m/data.pkl", "w") as pickle,
    ):
        for _ in range(300):
            pickle.write(b"\0" * (1 << 20))
    with pytest.raises(CheckpointError, match="unpacks to 314572800 bytes"):
        read_torch_file(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_texts_and_templates_are_plain_files(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    begun = time.monotonic()
    with pytest.raises(EvaluationError, match="pipe or device"):
        read_template(path)
    with pytest.raises(CalibrationError, match="pipe or device"):
        read_texts(path, "sw")
    assert json_in(path) == {}
    assert time.monotonic() - begun < 2


def test_names_that_no_file_can_have_are_no_files(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", "\ud800", "y" * 5000):
        path = tmp_path / name
        assert not (is_file(path) or is_folder(path) or is_there(path))
    with pytest.raises(ConfigError, match="no NUL"):
        read_regular(tmp_path / "a\0b", 1)


def test_a_text_file_is_read_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffä\r\nb\rc\n".encode())
    assert read_text(path, 99) == path.read_text(encoding="utf-8-sig")
    path.write_bytes(b"a\n\xff")
    with pytest.raises(ConfigError, match="line 2 is not UTF-8"):
        read_text(path, 99)
