"""The results folder: nothing is lost, nothing is stored twice, nothing is mixed."""

from __future__ import annotations

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import EvaluationError
from safeswap.evaluation.results.journal import Journal, read_rows
from safeswap.evaluation.results.store import (
    SETTINGS,
    find_model,
    join_settings,
    open_results,
    read_json,
    start_results,
    write_json,
)

ROWS = [{"key": f"k{n}", "text": "ça va\u2028" * n, "n": n} for n in range(6)]
AGREED: dict[str, Any] = {
    "format": "safeswap-results/1",
    "generation": {"decoding": "greedy", "max_new_tokens": 8},
    "cells": {"a/sw": {"title": "A", "prompts": "11"}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "arm" / "rows.jsonl"
    with Journal(file) as journal:
        journal.add(ROWS)
    return file


def test_rows_come_back_in_their_order(path: Path) -> None:
    assert list(read_rows(path)) == ROWS
    with Journal(path) as journal:
        assert list(journal.rows.values()) == ROWS
        assert "k3" in journal and "k9" not in journal
    assert list(read_rows(path.parent / "none.jsonl")) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_anywhere_loses_at_most_the_last_row(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        with Journal(file) as journal:
            journal.add(ROWS)
        whole = file.read_bytes()
        at = data.draw(st.integers(0, len(whole)))
        file.write_bytes(whole[:at])
        kept = list(read_rows(file))
        assert kept == ROWS[: whole[:at].count(b"\n")]
        with Journal(file) as journal:
            journal.add(row for row in ROWS if row["key"] not in journal)
        assert file.read_bytes() == whole


def test_half_line_longer_than_a_block_is_cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "' + b"x" * 200_000)
    with Journal(path):
        pass
    assert path.read_bytes() == whole
    path.write_bytes(b"y" * 100_000)
    with Journal(path) as journal:
        assert journal.rows == {}
    assert path.read_bytes() == b""


def test_second_writer_is_refused_and_may_come_after(path: Path) -> None:
    with (
        Journal(path),
        pytest.raises(EvaluationError, match=r"rows\.jsonl: another safeswap .* Wait for it"),
    ):
        Journal(path)
    with Journal(path) as journal:
        journal.add([{"key": "later"}])


def test_replaced_file_is_still_locked_and_its_old_self_is_not_written(path: Path) -> None:
    with Journal(path) as journal:
        journal.replace(ROWS[:2])
        with pytest.raises(EvaluationError, match="another safeswap"):
            Journal(path)
        journal.add([{"key": "new"}])
    assert [row["key"] for row in read_rows(path)] == ["k0", "k1", "new"]
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_lock_on_a_file_that_was_replaced_meanwhile_is_taken_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real, calls = fcntl.flock, []

    def replaced_before_locking(file: Any, how: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            other = path.with_name("other")
            other.write_text('{"key": "other"}\n')
            other.replace(path)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", replaced_before_locking)
    with Journal(path) as journal:
        journal.add([{"key": "mine"}])
    assert [row["key"] for row in read_rows(path)] == ["other", "mine"]


def test_replace_leaves_the_old_rows_when_it_fails(path: Path) -> None:
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(TypeError):
        journal.replace([{"key": "x", "no JSON": object()}])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ['{"no": "key"}', "{", "[]", '"text"', "null", '{"key": 3}', '{"key": ["a"]}', "\x00\x00", ""],
)
def test_damaged_line_is_named(path: Path, line: str) -> None:
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*whole[:2], line.encode(), *whole[2:]]))
    with pytest.raises(EvaluationError, match=r"rows\.jsonl: line 3 is damaged .* Remove the"):
        list(read_rows(path))
    with pytest.raises(EvaluationError, match="line 3"):
        Journal(path)
    path.write_bytes(b"\n".join(whole))
    with Journal(path):  # the lock was let go
        pass


def test_key_that_stands_twice_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"key": "k2"}\n')
    with pytest.raises(EvaluationError, match=r"rows\.jsonl: line 7 repeats the key 'k2'"):
        list(read_rows(path))


def test_adding_a_key_twice_adds_nothing(path: Path) -> None:
    before = path.read_bytes()
    with Journal(path) as journal:
        for batch in ([{"key": "a"}, {"key": "k1"}], [{"key": "b"}, {"key": "b"}]):
            with pytest.raises(ValueError, match="is there already"):
                journal.add(batch)
        assert "a" not in journal and "b" not in journal
    assert path.read_bytes() == before


def test_full_disk_is_an_error_that_says_so() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        with Journal(file) as journal:
            os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file.fileno())
            with pytest.raises(EvaluationError, match=r"rows\.jsonl: cannot be written .* space"):
                journal.add([{"key": "a"}])
            assert "a" not in journal


def test_half_a_surrogate_pair_is_stored(path: Path) -> None:
    with Journal(path) as journal:
        journal.add([{"key": "odd", "text": "a\ud83d"}])
    assert list(read_rows(path))[-1]["text"] == "a\ud83d"


def test_json_is_written_whole_and_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.json"
    write_json(file, {"ü": 1})
    assert read_json(file) == {"ü": 1}
    with pytest.raises(TypeError):
        write_json(file, {"ü": object()})
    assert read_json(file) == {"ü": 1}
    for text, said in (("[]", "no JSON object"), ("{", "cannot be read as JSON")):
        file.write_text(text)
        with pytest.raises(EvaluationError, match=said):
            read_json(file)
    with pytest.raises(EvaluationError, match="is missing"):
        read_json(tmp_path / "y.json")


def test_more_arms_languages_and_benchmarks_are_taken_in(tmp_path: Path) -> None:
    start_results(tmp_path / "r", AGREED, ["one"])
    more = {**AGREED, "cells": {"a/te": {"absent": "no Telugu"}, "b/sw": {"prompts": "22"}}}
    results = start_results(tmp_path / "r", more, ["two", "one"])
    assert results.settings["arms"] == ["one", "two"]
    assert sorted(results.settings["cells"]) == ["a/sw", "a/te", "b/sw"]
    before = (tmp_path / "r" / SETTINGS).stat().st_mtime_ns
    start_results(tmp_path / "r", AGREED, ["one"])
    assert (tmp_path / "r" / SETTINGS).stat().st_mtime_ns == before


def test_models_that_start_side_by_side_all_get_in(tmp_path: Path) -> None:
    def start(number: int) -> None:
        cells = {"cells": {f"a/{number}": {"prompts": str(number)}}}
        start_results(tmp_path / "r", {**AGREED, **cells}, [f"arm{number}"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(24)))
    found = read_json(tmp_path / "r" / SETTINGS)
    assert sorted(found["arms"]) == sorted(f"arm{n}" for n in range(24))
    assert len(found["cells"]) == 24


def test_a_cell_may_become_present_and_stays_so() -> None:
    absent = {**AGREED, "cells": {"a/sw": {"title": "A", "absent": "why"}}}
    assert join_settings(absent, AGREED, "x", "y")["cells"] == AGREED["cells"]
    assert join_settings(AGREED, absent, "x", "y")["cells"] == AGREED["cells"]


def test_a_run_that_stored_no_answer_binds_nobody(tmp_path: Path) -> None:
    """A wrong setting shows when the model does not load; the folder is as good as new."""
    start_results(tmp_path / "r", AGREED, ["one"])
    write_json(tmp_path / "r" / "one" / "model.json", {"name": "one", "digest": "d"})
    (tmp_path / "r" / "one" / "responses.jsonl").touch()  # as a run leaves it before an answer
    other = {**AGREED, "generation": {"decoding": "greedy", "max_new_tokens": 9}}
    assert start_results(tmp_path / "r", other, ["two"]).settings == {**other, "arms": ["two"]}


def test_suites_grow_and_decide_nothing() -> None:
    one: Any = {"format": "f", "generation": {}, "cells": {}, "suites": ["paper"]}
    joined = join_settings(one, {**one, "suites": ["mine.yaml", "paper"]}, "a", "b")
    assert joined["suites"] == ["paper", "mine.yaml"]
    older = {key: value for key, value in one.items() if key != "suites"}
    assert join_settings(older, one, "a", "b")["suites"] == ["paper"]
    assert "suites" not in join_settings(older, older, "a", "b")


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    start_results(tmp_path / "r", AGREED, ["one"])
    with Journal(tmp_path / "r" / "one" / "responses.jsonl") as journal:
        journal.add(ROWS)
    before = (tmp_path / "r" / SETTINGS).read_bytes()
    other = {**AGREED, "generation": {"decoding": "greedy", "max_new_tokens": 9}}
    with pytest.raises(EvaluationError, match=r"max_new_tokens of generation is 8 .* and 9 in"):
        start_results(tmp_path / "r", other, ["one"])
    with pytest.raises(EvaluationError, match=r"new is None .* and 1"):
        start_results(tmp_path / "r", {**AGREED, "new": 1}, ["one"])
    changed = {**AGREED, "cells": {"a/sw": {"title": "A", "prompts": "33"}}}
    with pytest.raises(EvaluationError, match=r"prompts of the input of a/sw is '11' .* '33'"):
        start_results(tmp_path / "r", changed, ["one"])
    assert (tmp_path / "r" / SETTINGS).read_bytes() == before


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(EvaluationError, match=r"holds other files .* empty folder"):
        start_results(tmp_path, AGREED, ["one"])
    with pytest.raises(EvaluationError, match=r"thesis\.tex: results cannot be stored there"):
        start_results(tmp_path / "thesis.tex", AGREED, ["one"])
    with pytest.raises(EvaluationError, match="is no results folder"):
        open_results(tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_count_below_zero_is_damage(tmp_path: Path) -> None:
    start_results(tmp_path / "r", AGREED, ["one"])
    settings = json.loads((tmp_path / "r" / SETTINGS).read_text())
    settings["cells"]["a/sw"]["items"] = -5
    (tmp_path / "r" / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(EvaluationError, match="its cells cannot be"):
        _ = open_results(tmp_path / "r").settings


def test_killed_while_it_wrote_the_settings(tmp_path: Path) -> None:
    (tmp_path / f"{SETTINGS}.part").write_text('{"for')
    assert start_results(tmp_path, AGREED, ["one"]).settings["arms"] == ["one"]


def test_arms_are_in_the_order_of_the_runs(tmp_path: Path) -> None:
    results = start_results(tmp_path / "r", AGREED, ["zeta", "alpha"])
    for name in ("alpha", "zeta", "unknown"):
        write_json(results.folder / name / "model.json", {"name": name})
    assert open_results(tmp_path / "r").models == ["zeta", "alpha", "unknown"]
    assert find_model(results, "zeta") == "zeta" and results.model("zeta") == {"name": "zeta"}
    with pytest.raises(EvaluationError, match="did you mean 'zeta'"):
        find_model(results, "zetta")


def test_settings_read_back_are_the_same_settings(tmp_path: Path) -> None:
    for _ in range(2):
        start_results(tmp_path / "r", {**AGREED, "pair": (1, 2)}, ["a"])
    assert json.loads((tmp_path / "r" / SETTINGS).read_text())["pair"] == [1, 2]
