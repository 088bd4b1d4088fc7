"""What nobody means to write, and what somebody writes to hurt: refused in a sentence, at once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeswap.calibration.texts import read_texts
from safeswap.checkpoint.source import read_json
from safeswap.errors import (
    CalibrationError,
    CheckpointError,
    ConfigError,
    EvaluationError,
    PlanError,
)
from safeswap.evaluation.harness.local_data import as_parquet
from safeswap.evaluation.judges.names import json_in
from safeswap.evaluation.results.journal import read_rows
from safeswap.io import jsonfile, yamlfile
from safeswap.io.jsonfile import LineError, load_json, read_json_lines
from safeswap.io.keys import check_keys
from safeswap.io.yamlfile import read_yaml

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, r"line 1, column 5: the anchor or alias 'a0' is not read"),
        ("a: *b", r"anchor or alias 'b'"),
        ("[" * 100 + "]" * 100, r"nested deeper than 64"),
        ("a: " + "9" * 5000, r"4300"),
        ("a: !!python/object/apply:os.system [ls]", r"tag .* is not read"),
        ("a: !!bool maybe", r"tag .* is not read"),
        ('a: "x\\0y"', r"NUL or half a surrogate pair"),
        ('a: "x\\ud800y"', r"NUL or half a surrogate pair"),
        ('a: "\\UFFFFFFFF"', r"is not YAML"),
        ("a: 2024-99-99", r"is not YAML"),
        ("a: 1\na: 2", r"line 2, column 1: the key 'a' is given twice"),
        ("k" * 500 + ": 1\n" + "k" * 500 + ": 2", r"the key 'k{78}… is given twice"),
        (b"\xff\xfe\xfa", r"is not YAML"),
        (b"a: \x07", r"is not YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    begun = time.monotonic()
    with pytest.raises(PlanError, match=says) as caught:
        read_yaml(written(tmp_path, content), error=PlanError)
    assert time.monotonic() - begun < 1
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 100 + "]" * 100, r"nested deeper than 64"),
        ("[" * 100_000, r"nested deeper than 64"),
        ("1" * 5000, r"is not JSON .*4300"),
        ('{"a": NaN}', r"NaN is no number"),
        ('{"a": -Infinity}', r"-Infinity is no number"),
        ('{"a": "\\u0000"}', r"NUL or half"),
        ('{"\\ud800": 1}', r"NUL or half"),
        ('{"a":', r"is not JSON \(.*line 1"),
        (b"\xff", r"is not JSON"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_json(written(tmp_path, content))
    assert str(tmp_path / "file") in str(caught.value)


def test_what_may_be_allowed_is_read(tmp_path: Path) -> None:
    assert load_json(written(tmp_path, "[Infinity]"), constants=True) == [float("inf")]
    assert load_json(written(tmp_path, '["\\u0000"]'), names=False) == ["\0"]
    deep = "[" * 64 + "]" * 64
    assert (
        load_json(written(tmp_path, deep)) == yaml.safe_load(deep) == read_yaml(tmp_path / "file")
    )


def test_scalars_are_read_as_asked(tmp_path: Path) -> None:
    path = written(tmp_path, "{a: no, b: 1.0, c: 1e-3, d: true, e: 2024-01-01}")
    assert list(read_yaml(path).values())[:4] == ["no", 1.0, 0.001, True]
    (tmp_path / "cased").mkdir()
    cased = written(tmp_path / "cased", "[True, TRUE, False, FALSE, tRue, yes, off]")
    assert read_yaml(cased) == [True, True, False, False, "tRue", "yes", "off"]
    assert list(read_yaml(path, scalars="text").values()) == [
        "no",
        "1.0",
        "1e-3",
        "true",
        "2024-01-01",
    ]
    assert read_yaml(path, scalars="yaml-1.1") == yaml.safe_load(path.read_text())


@pytest.mark.timeout(5)
def test_pipes_devices_and_large_files_are_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    large = written(tmp_path, " " * 100)
    monkeypatch.setattr(yamlfile, "LIMIT", 99)
    for path, says in (
        (tmp_path / "pipe", "is a pipe or device"),
        (Path("/dev/zero"), "is a pipe or device"),
        (large, "is larger than 99 bytes"),
    ):
        with pytest.raises(ConfigError, match=says):
            read_yaml(path)
        with pytest.raises(ConfigError, match=says):
            load_json(path, 99)
    with pytest.raises(OSError, match="Is a directory"):
        load_json(tmp_path)


def test_a_checkpoint_with_a_damaged_configuration_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not JSON .*\. Fetch the file again"):
        read_json(written(tmp_path, "{"))
    with pytest.raises(CheckpointError, match="nested deeper"):
        read_json(written(tmp_path, '{"a":' * 70 + "1" + "}" * 70))


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"here: unknown key 'unitz'; did you mean 'units'\?"):
        check_keys(["unitz"], ("units", "inputs"), "here")
    check_keys(["units"], ("units",), "here")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("aé\n'\"{"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab<=*&!", min_size=1), inner),
    max_leaves=12,
)


@QUICK
@given(VALUES.filter(lambda value: value not in (float("inf"), float("-inf"))))
def test_json_comes_back_as_it_was(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path, json.dumps(value))
    assert repr(load_json(path, constants=True)) == repr(json.loads(path.read_text()))


@QUICK
@given(st.binary(max_size=60) | st.text("{}[]:,-&*!? \n\"'a0.%|>#\\ux\t", max_size=60))
def test_any_bytes_are_a_value_or_an_error_of_ours(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, content)
    for read in (load_json, read_yaml):
        try:
            read(path)
        except ConfigError as error:
            assert str(path) in str(error) and len(str(error)) < len(str(path)) + 400
    assert jsonfile.LIMIT and yamlfile.LIMIT


def lines_of(folder: Path, content: str | bytes, **named: Any) -> list[tuple[int, Any]]:
    return list(read_json_lines(written(folder, content), **named))


def test_json_lines_come_with_their_numbers(tmp_path: Path) -> None:
    assert lines_of(tmp_path, '\ufeff{"a": 1}\n\n  \n[2]\r\n3') == [(1, {"a": 1}), (4, [2]), (5, 3)]
    assert lines_of(tmp_path, "1\n2\n3", whole=True) == [(1, 1), (2, 2)]
    assert lines_of(tmp_path, "") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1\n{\n", r"line 2 is not JSON"),
        ("1\nNaN\n", r"line 2 is not JSON .*NaN is no number"),
        ("1\n2\n" + "[" * 100 + "]" * 100, r"line 3 is nested deeper than 64"),
        ("1\n" + "[" * 100_000, r"line 2 is nested deeper than 64"),
        ('1\n"\\u0000"', r"line 2 has NUL or half"),
        (b"1\n2\n\xff\n", r"line 3 is not JSON \(not UTF-8 at byte 0\)"),
        ("1\n" + "2" * 100 + "\n", r"line 2 is longer than 50 bytes"),
    ],
)
def test_json_lines_that_are_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(LineError, match=says) as caught:
        lines_of(tmp_path, content, limit=50 if "longer" in says else 1 << 20)
    assert str(tmp_path / "file") in str(caught.value)
    assert f"line {caught.value.line} " in str(caught.value)


def test_a_pipe_of_json_lines_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe or device"):
        list(read_json_lines(tmp_path / "pipe"))


def test_wherever_json_lines_are_read_a_bomb_is_an_error_of_ours(tmp_path: Path) -> None:
    """Of texts, of questions and of stored rows: Python's own recursion error got through."""
    bomb = tmp_path / "bomb.jsonl"
    bomb.write_text('{"key": "a", "text": ' + "[" * 100_000 + "\n")
    with pytest.raises(CalibrationError, match="line 1 is nested"):
        read_texts(bomb, "sw")
    with pytest.raises(EvaluationError, match="line 1 is damaged"):
        list(read_rows(bomb))
    with pytest.raises(EvaluationError, match="line 1 is nested"):
        as_parquet(bomb, tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert json_in(tmp_path / "config.json") == {}
