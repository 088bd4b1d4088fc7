"""The verbs as functions: every figure leads back to its rows, and errors come before the work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from safeswap.errors import EvaluationError
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import Chat, Reply
from safeswap.evaluation.results.journal import read_rows
from safeswap.report.evaluation import compare
from safeswap.tables import as_csv, as_html, as_latex, as_markdown
from stored import BENIGN, HARM, READING, Stored


@pytest.fixture
def results(tmp_path: Path) -> Path:
    cells: dict[str, Any] = {f"harm/{code}": HARM for code in ("sw", "te", "ko")}
    cells |= {"harm/xx": {**HARM, "absent": "nobody has it"}}
    cells |= {"benign/sw": BENIGN, "reading/sw": READING, "reading/te": READING}
    stored = Stored(tmp_path / "results", cells)
    stored.arm("sw", "language").arm("merge", "merged", "sw").arm("late")
    for arm, letters in (("sw", "uuuuucs?u"), ("merge", "sssss?sru")):
        stored.judged(arm, "harm/sw", letters).judged(arm, "harm/te", letters[::-1] + "-")
        stored.judged(arm, "benign/sw", "rsrs?")
        stored.scored(arm, "reading/sw", "110").scored(arm, "reading/te", "0111")
    return stored.folder


@pytest.mark.parametrize("strict", [True, False])
def test_every_rate_is_explained_by_its_rows(results: Path, strict: bool) -> None:
    table = compare([results], strict=strict)[0]
    cells = [cell for row in table.rows for cell in row.cells if cell.key]
    assert len(cells) == 3 * 9
    explained = 0
    for cell in cells:
        assert cell.key is not None
        text = pipeline.explain([results], cell.key, strict=strict)
        head, *rest = text.splitlines()
        assert head.startswith(f"{cell.key}: ")
        rows = [line for line in rest if line[:3] in ("0  ", "1  ", "?  ")]
        right, counted = (int(part) for part in head.split(": ")[1].split(",")[0].split(" of "))
        assert [line[0] for line in rows].count("1") == right
        assert len([line for line in rows if line[0] != "?"]) == counted
        if cell.value is None:
            assert counted == 0 and any("not in it: " in line for line in rest)
            continue
        assert cell.value == pytest.approx(right / counted)
        explained += 1
        for line in rows:
            place, key = line[3:].split("  ")[:2]
            path, _, number = place.rpartition(":")
            row = json.loads(Path(path).read_text().splitlines()[int(number) - 1])
            assert row["key"] == key
            if "verdict" in row:
                assert row["verdict"] in line
            else:
                assert line[0] == str(row["right"])
    assert explained == 2 * 7


def test_every_difference_is_explained_by_its_pairs(results: Path) -> None:
    tables = compare([results])
    (table,) = (one for one in tables if one.title == "merge − sw, paired")
    assert len(table.rows) == 6
    for row in table.rows:
        pairs, difference = row.cells[1], row.cells[2]
        assert difference.key is not None and difference.key.endswith("/merge:sw")
        head, *rest = pipeline.explain([results], difference.key).splitlines()
        said = [line.split("  ") for line in rest if not line.startswith(("model: ", "    "))]
        read = [line for line in said if "?" not in line[0]]
        deltas = [int(line[0][0]) - int(line[0][2]) for line in read]
        assert len(read) == pairs.value
        assert sum(deltas) / len(deltas) == pytest.approx(difference.value)
        assert f"{deltas.count(1)} only merge, {deltas.count(-1)} only sw" in head
        assert (
            ("left out" in head)
            == (len(read) < len(said))
            == ("left out" in (difference.note or ""))
        )
        for line in said:
            for place, arm in zip(line[1:3], ("merge", "sw"), strict=True):
                path, _, number = place.rpartition(":")
                assert Path(path).relative_to(results).parts[0] == arm
                stored = json.loads(Path(path).read_text().splitlines()[int(number) - 1])
                assert stored["key"] == line[3]


def test_a_difference_that_is_none_is_refused(results: Path) -> None:
    with pytest.raises(EvaluationError, match="no model is called 'swe'; did you mean 'sw'"):
        pipeline.explain([results], "harm/sw/merge:swe")
    with pytest.raises(EvaluationError, match=r"have no outcome in common: not evaluated yet"):
        pipeline.explain([results], "harm/sw/merge:late")


def test_rows_say_what_else_is_counted(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "reading/sw": READING}).arm("a")
    stored.judged("a", "harm/sw", "u").scored("a", "reading/sw", "1")
    verdicts = tmp_path / "a" / "verdicts" / "guard.jsonl"
    verdicts.write_text(verdicts.read_text().replace('"flags": []', '"flags": ["echo"]'))
    scores = tmp_path / "a" / "scores.jsonl"
    number = '"number": "17", "expected": "18", "cut": true, "right": 1'
    scores.write_text(scores.read_text().replace('"right": 1', number))
    assert "unsafe, echo" in pipeline.explain([tmp_path], "harm/sw/a")
    assert "number 17, expected 18, cut" in pipeline.explain([tmp_path], "reading/sw/a")


def test_what_is_not_in_a_cell_is_said(results: Path) -> None:
    assert "nobody has it" in pipeline.explain([results], "harm/xx/merge")
    assert "9 of 10 prompts" in pipeline.explain([results], "harm/te/merge")
    assert "1 unparsed" in pipeline.explain([results], "harm/sw/merge").splitlines()[0]
    assert "digest d-merge" in pipeline.explain([results], "harm/sw/merge")
    with pytest.raises(EvaluationError, match="did you mean 'harm/sw/merge'"):
        pipeline.explain([results], "harm/sw/merg")


def test_tables_in_every_form(results: Path) -> None:
    tables = compare([results])
    titles = [table.title for table in tables]
    assert titles == [
        "Rates",
        "Outcomes",
        "Strict and loose",
        "merge − sw, paired",
        "What the answers look like",
    ]
    for render in (as_markdown, as_csv, as_latex, as_html):
        assert all("merge" in render(table) for table in tables)
    latex = as_latex(tables[0])
    assert r"\caption{Rates: Harm, unsafe \%" in latex and r"\toprule" in latex


def test_nothing_to_compare_is_said(results: Path) -> None:
    path = results / "merge" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reference": ""}))
    tables = compare([results])
    assert not any("paired" in table.title for table in tables)
    assert any("--reference MODEL" in note for note in tables[0].notes)


def test_a_sample_is_drawn_from_judged_responses(results: Path, tmp_path: Path) -> None:
    key, count = pipeline.annotate(results, tmp_path / "sheet.csv", 30)
    assert count == 30 and key.exists()
    held = json.loads(key.read_text())["rows"].values()
    assert {row["benchmark"] for row in held} == {"harm"}  # not what was asked without harm
    bare = Stored(tmp_path / "bare", {"harm/sw": HARM}).arm("a").judged("a", "harm/sw", "--")
    with pytest.raises(EvaluationError, match="Run `safeswap judge` first"):
        pipeline.annotate(bare.folder, tmp_path / "other.csv", 2)


class Parrot:
    """A backend without a model: it says the prompt again, until the power goes out."""

    def __init__(self, until: int = 99) -> None:
        self.until = until
        self.description = {"backend": "hf", "dtype": "float32"}
        self.asked: list[str] = []

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        for index, chat in enumerate(chats):
            if len(self.asked) == self.until:
                raise RuntimeError("the power went out")
            self.asked.append(str(chat.messages[0]["content"]))
            yield index, Reply(self.asked[-1], 1, 1, "stop")

    def close(self) -> None:
        pass


@pytest.fixture
def suite(tmp_path: Path) -> pipeline.Suite:
    path = tmp_path / "harm.csv"
    path.write_text("id,source,tags,en,sw\n" + "".join(f"{n},x,[],e{n},s{n}\n" for n in range(4)))
    return pipeline.make_suite("multijail", ["sw", "en"], prompts={"multijail": path})


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    from safeswap.demo import models_folder

    source = models_folder() / "base"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name / file).write_bytes((source / file).read_bytes())
        (tmp_path / name / "chat_template.jinja").write_text("{{ messages }}")
        (tmp_path / name / "name.txt").write_text(name)
        (tmp_path / name / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return [str(tmp_path / name) for name in ("one", "two")]


def test_a_stopped_evaluation_goes_on(
    suite: pipeline.Suite, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrots = [Parrot(), Parrot(until=3), Parrot()]
    opened = iter(parrots)
    monkeypatch.setattr("safeswap.evaluation.generate.open_backend", lambda *_: next(opened))
    with pytest.raises(RuntimeError):
        pipeline.evaluate(models, suite, tmp_path / "results")
    assert [len(parrot.asked) for parrot in parrots] == [8, 3, 0]
    assert pipeline.evaluate(models, suite, tmp_path / "results") == [
        pipeline.Done("one", 0, 0),
        pipeline.Done("two", 5, 0),
    ]
    assert len(parrots[2].asked) == 5 and not set(parrots[1].asked) & set(parrots[2].asked)
    rows = list(read_rows(tmp_path / "results" / "two" / "responses.jsonl"))
    assert len({row["key"] for row in rows}) == 8
    done = pipeline.evaluate(models, suite, tmp_path / "results")  # no fourth parrot is opened
    assert [(one.responses, one.scores) for one in done] == [(0, 0), (0, 0)]
    with pytest.raises(EvaluationError, match="max_new_tokens"):
        pipeline.evaluate(models, suite, tmp_path / "results", generation=pipeline.Generation(9))
    with pytest.raises(EvaluationError, match="another model called one"):
        pipeline.evaluate([f"one={models[1]}"], suite, tmp_path / "results")


def test_wrong_names_are_found_before_the_work(
    suite: pipeline.Suite, models: list[str], tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match="no backend is called 'vlm'; did you mean 'vllm'"):
        pipeline.evaluate(["nowhere"], suite, tmp_path / "results", backend="vlm")
    with pytest.raises(EvaluationError, match="no backend is called 'ap'"):
        pipeline.judge(tmp_path, "rule:x.yaml", backend="ap")
    (Path(models[1]) / "chat_template.jinja").unlink()
    with pytest.raises(EvaluationError, match="two: has no chat template"):
        pipeline.evaluate(models, suite, tmp_path / "results")
    with pytest.raises(EvaluationError, match="two models are called"):
        pipeline.evaluate([models[0], models[0]], suite, tmp_path / "results")
    assert not (tmp_path / "results").exists()
