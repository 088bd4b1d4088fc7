"""PolyRefuse, SEA-Safeguard, StrongREJECT and XSafety: their files' forms, in made-up rows."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.prompts import Prompt, identity_of
from safeswap.evaluation.benchmarks.registry import BENCHMARKS, PromptBenchmark
from safeswap.evaluation.benchmarks.sea_safeguard import LABELS
from safeswap.evaluation.benchmarks.splits import Split, seen_cells
from safeswap.evaluation.benchmarks.suites import identities, make_suite
from safeswap.evaluation.benchmarks.xsafety import KINDS
from safeswap.plan.chosen import ChosenOn

PUBLIC = Path(__file__).parents[4] / "shared" / "data"
HERE = ["Who took it?", "Who burnt it?", "Who  TOOK it?", "Who sold it?"]


def read(name: str, path: Path, language: str | None = None) -> tuple[Prompt, ...]:
    one = BENCHMARKS[name]
    assert isinstance(one, PromptBenchmark)
    found = one.read(path, name, language)
    assert found.name == name and found.kind == one.kind
    return found.prompts


def refusal(name: str, path: Path, language: str | None = None) -> str:
    with pytest.raises(EvaluationError) as caught:
        read(name, path, language)
    assert path.name in str(caught.value)
    return str(caught.value)


def dump(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


# PolyRefuse


def poly(path: Path, language: str = "", texts: list[str] = HERE) -> Path:
    more = [{"instruction_translated": f"{t} {language}"} if language else {} for t in texts]
    rows = [{"instruction": t, **m, "category": "theft"} for t, m in zip(texts, more, strict=True)]
    return dump(path, rows)


def test_polyrefuse_in_english_and_translated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="safeswap")
    english = read("polyrefuse", poly(tmp_path / "en.json"))
    assert [p.text for p in english] == ["Who took it?", "Who burnt it?", "Who sold it?"]
    assert "polyrefuse, en: 1 of 4 requests stand twice; each is asked once" in caplog.messages[0]
    assert {(p.language, p.tags) for p in english} == {("en", ("theft",))}
    thai = read("polyrefuse", poly(tmp_path / "th.json", "th"), "th")
    assert [p.text for p in thai] == ["Who took it? th", "Who burnt it? th", "Who sold it? th"]
    assert [p.id for p in thai] == [p.id for p in english]
    assert [p.id for p in thai] == [identity_of(text) for text in (HERE[0], HERE[1], HERE[3])]
    for one, other in zip(english, thai, strict=True):
        assert set(one.identities) < set(other.identities) and len(other.identities) == 2
    own = dump(tmp_path / "fr.json", [{"instruction": "Qui ?", "category": None}])
    (found,) = read("polyrefuse-harmless", own, "fr")
    assert (found.language, found.text, found.tags) == ("fr", "Qui ?", ())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is not JSON"),
        ("[1", "is not JSON"),
        ({"instruction": "x"}, "is no JSON list"),
        ([], "holds no requests"),
        ([3], "entry 1 is no object with instruction"),
        ([{"instruction": "x", "categry": "y"}], "'categry'; did you mean 'category'?"),
        ([{"instruction": " "}], "entry 1 needs text as 'instruction', and has nothing"),
        ([{"instruction": ["x"]}], "needs text as 'instruction', and has list"),
        ([{"category": "x"}], "needs text as 'instruction'"),
        ([{"instruction": "x", "category": 3}], "needs text as 'category', and has int"),
        ([{"instruction": "x", "instruction_translated": ""}], "'instruction_translated', and has"),
        ([{"instruction": "x", "instruction_translated": "y"}], "--prompts polyrefuse/LANGUAGE"),
        ('[{"instruction": "\\ud800"}]', "half a surrogate pair"),
        ("[" * 200 + "]" * 200, "nested deeper"),
    ],
)
def test_files_that_are_not_polyrefuses(tmp_path: Path, value: Any, said: str) -> None:
    assert said in refusal("polyrefuse", dump(tmp_path / "a.json", value))


# SEA-Safeguard


def line(code: str, label: str, number: int, **more: Any) -> dict[str, Any]:
    prompt = {"local_prompt": f"{code} {number}", "en_prompt": f"english {code} {number}"}
    about = {"language": code, "topic": f" topic {number}\n"}
    return {"label": label, "prompts": [prompt], "metadata": about, **more}


def lines(path: Path, rows: list[Any]) -> Path:
    return dump(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.mark.parametrize("code", LABELS)
def test_both_halves_of_sea_safeguard(tmp_path: Path, code: str) -> None:
    harmless, harmful = LABELS[code]
    rows = [line(code, harmful if n % 3 else harmless, n) for n in range(6)]
    path = lines(tmp_path / "a.jsonl", rows)
    bad, good = read("sea-safeguard", path), read("sea-safeguard-harmless", path, code)
    assert [p.text for p in good] == [f"{code} 0", f"{code} 3"]
    assert [p.text for p in bad] == [f"{code} {n}" for n in (1, 2, 4, 5)]
    assert good[1].tags == ("topic 3",) and good[1].origin == f"english {code} 3"
    assert good[1].id == identity_of(f"english {code} 3") and good[1].language == code


def changed(row: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**row, key: value}


SAFE = line("vi", "An toàn", 1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no harmless requests"),
        ([line("vi", "Có hại", 1)], "holds no harmless requests"),
        ([SAFE, SAFE], "these ids stand twice"),
        ([[]], "line 1 is no object with label"),
        ([changed(SAFE, "label", "An toan")], "line 1 has the label 'An toan'; in vi they are"),
        ([changed(SAFE, "label", "An toan")], "did you mean 'An toàn'?"),
        ([changed(SAFE, "lable", "An toàn")], "'lable'; did you mean 'label'?"),
        ([changed(SAFE, "label", None)], "needs text as 'label'"),
        ([changed(SAFE, "prompts", [])], "needs `prompts`, a list of one"),
        ([changed(SAFE, "prompts", ["x"])], "its prompt is no object"),
        ([changed(SAFE, "prompts", [{"local_prompt": "x"}])], "needs text as 'en_prompt'"),
        ([changed(SAFE, "metadata", 3)], "needs `prompts`, a list of one, and `metadata`"),
        (
            [changed(SAFE, "metadata", {"language": "vn"})],
            "'vn', whose labels are unknown; did you",
        ),
        ([changed(SAFE, "metadata", {"language": "vi", "topic": 3})], "needs text as 'topic'"),
    ],
)
def test_files_that_are_not_sea_safeguards(tmp_path: Path, rows: list[Any], said: str) -> None:
    assert said in refusal("sea-safeguard-harmless", lines(tmp_path / "a.jsonl", rows))


def test_more_files_that_are_not_sea_safeguards(tmp_path: Path) -> None:
    said = refusal("sea-safeguard-harmless", lines(tmp_path / "a.jsonl", [SAFE]), "th")
    assert "line 1 is in 'vi', and --prompts says 'th'" in said
    said = refusal("sea-safeguard", dump(tmp_path / "b.jsonl", '{"label": '))
    assert "line 1 is not JSON" in said and "one JSON object a line" in said


# StrongREJECT


def table(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


STRONG = ["category", "source", "forbidden_prompt"]


def test_strongreject_in_english_and_translated(tmp_path: Path) -> None:
    rows = [["Theft", "custom", "Who took it,\nand when?"], ["Fire", "DAN", "Who burnt it?"]]
    english = read("strongreject", table(tmp_path / "a.csv", [STRONG, *rows]))
    assert [(p.text, p.tags, p.language) for p in english] == [
        ("Who took it,\nand when?", ("Theft",), "en"),
        ("Who burnt it?", ("Fire",), "en"),
    ]
    more = [[*STRONG, "forbidden_prompt_translated"], [*rows[0], "Nani?"], [*rows[1], "Moto?"]]
    path = table(tmp_path / "sw.csv", more)
    swahili = read("strongreject", path, "sw")
    assert [(p.id, p.text) for p in swahili] == [(english[0].id, "Nani?"), (english[1].id, "Moto?")]
    assert set(english[0].identities) < set(swahili[0].identities)
    assert "--prompts strongreject/LANGUAGE=FILE" in refusal("strongreject", path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "is empty"),
        ([STRONG], "holds no requests"),
        ([["category", "source", "prompt"], ["a", "b", "c"]], "no column 'forbidden_prompt'"),
        ([STRONG, ["a", "b", " "]], "row 1 needs text as 'forbidden_prompt'"),
        ([STRONG, ["", "b", "c"]], "row 1 needs text as 'category'"),
        ([STRONG, ["a", "b", "c"], ["a", "b", "C "]], "these ids stand twice"),
        ([STRONG, ["a", "b"]], "row 1 has fewer fields"),
    ],
)
def test_files_that_are_not_strongrejects(tmp_path: Path, rows: list[list[str]], said: str) -> None:
    assert said in refusal("strongreject", table(tmp_path / "a.csv", rows))


# XSafety


def folder(path: Path, language: str, names: Mapping[str, str]) -> Path:
    path.mkdir()
    for kind, name in names.items():
        text = f'{kind} one {language}\n\n" {kind} two, {language}"\n'
        (path / name).write_text(text)
    return path


def test_a_folder_of_xsafety_and_one_of_its_files(tmp_path: Path) -> None:
    german = folder(tmp_path / "de", "de", {kind: f"{kind}.csv" for kind in KINDS})
    (german / "README.md").write_text("x")
    names = {kind: f"{kind}_n.csv" for kind in KINDS}
    names |= {"commonsense": "commen_sense.csv", "Insult": "Insult_en.csv"}
    other = folder(tmp_path / "bn", "bn", names)
    first, second = read("xsafety", german, "de"), read("xsafety", other, "bn")
    assert len(first) == 28 and [p.id for p in first] == [p.id for p in second]
    assert first[:2] == (
        Prompt("commonsense-1", "de", "commonsense one de", ("commonsense",), row=first[0].row),
        Prompt("commonsense-3", "de", "commonsense two, de", ("commonsense",), row=first[1].row),
    )
    assert [p.row for p in first] == [p.row for p in second] and len({p.row for p in first}) == 28
    (one, two) = read("xsafety", other / "Insult_en.csv")
    assert (one.language, one.id, two.id) == ("en", "Insult-1", "Insult-3")
    assert set(first[10].identities) & set(second[10].identities)


def test_what_is_not_xsafetys(tmp_path: Path) -> None:
    assert "Check the path" in refusal("xsafety", tmp_path / "Insult.csv")
    (tmp_path / "empty").mkdir()
    assert "holds no CSV files" in refusal("xsafety", tmp_path / "empty")
    said = refusal("xsafety", dump(tmp_path / "insults.csv", "x\n"))
    assert "did you mean 'Insult'?" in said
    assert "holds no requests" in refusal("xsafety", dump(tmp_path / "Insult.csv", "\n\n"))
    two = dump(tmp_path / "Insult.csv", "a\nb,c\n")
    assert "line 2 has 2 fields" in refusal("xsafety", two)
    assert "quote left open" in refusal("xsafety", dump(tmp_path / "Insult.csv", '"a\n'))
    twice = folder(tmp_path / "twice", "de", {"Insult": "Insult.csv", "I": "Insult_n.csv"})
    assert "are both of the kind Insult" in refusal("xsafety", twice)
    many = tmp_path / "many"
    many.mkdir()
    for number in range(65):
        (many / f"{number}.csv").write_text("x\n")
    assert "holds 65 CSV files" in refusal("xsafety", many)
    os.mkfifo(tmp_path / "Mental_Health.csv")
    assert "is a pipe or device" in refusal("xsafety", tmp_path / "Mental_Health.csv")


@pytest.mark.parametrize("name", ["polyrefuse", "sea-safeguard", "strongreject", "xsafety"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "Insult.csv"
    assert "there is no such file of prompts" in refusal(name, missing)
    missing.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal(name, missing)
    locked = tmp_path / "Insult.csv" / "Insult.csv"
    assert "cannot be read" in refusal(name, locked)


# Splits and the bookkeeping of what was chosen on


def test_a_question_is_on_one_side_in_every_language_and_known_again(tmp_path: Path) -> None:
    texts = [f"Who took number {n}?" for n in range(40)]
    given = {
        f"polyrefuse/{code}": poly(tmp_path / f"{code}.json", code, texts) for code in ("th", "ko")
    }
    rows = [["Theft", "custom", text] for text in texts]
    given |= {"strongreject": table(tmp_path / "s.csv", [STRONG, *rows])}
    suite = make_suite("polyrefuse,strongreject", ["th", "ko", "en"], prompts=given)
    sides = {part: suite.on(Split(part)) for part in ("dev", "test")}  # type: ignore[arg-type]
    asked = {
        (part, code): {
            p.id for b in side.benchmarks for p in b.prompts.prompts if p.language == code
        }  # type: ignore[union-attr]
        for part, side in sides.items()
        for code in ("th", "ko", "en")
    }
    for part in ("dev", "test"):
        assert asked[part, "th"] == asked[part, "ko"] == asked[part, "en"] != set()
    assert not asked["dev", "th"] & asked["test", "th"]
    dev = identities(sides["dev"])
    chosen = ChosenOn(
        split=Split("dev").as_dict(),
        cells=("polyrefuse/th",),
        prompts=frozenset(dev["polyrefuse/th"]),
    )
    cells = {cell: {"items": 9} for cell in ("polyrefuse/ko", "strongreject/en")}
    whole = {"split": None, "cells": cells}
    assert seen_cells(whole, chosen, identities(suite)) == ["polyrefuse/ko", "strongreject/en"]
    other_side = {"split": Split("test").as_dict(), "cells": cells}
    assert not seen_cells(other_side, chosen, identities(sides["test"]))


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public files are not here")
def test_the_public_files() -> None:
    harmful = {
        code: read("polyrefuse", PUBLIC / f"polyrefuse/harmful_test_{code}.json", code)
        for code in ("en", "ar", "it", "ko", "th", "yo", "zh")
    }
    assert {len(prompts) for prompts in harmful.values()} == {562}
    assert len({tuple(p.id for p in prompts) for prompts in harmful.values()}) == 1
    for code, count in zip(LABELS, (240, 215, 210, 210, 210, 210, 210), strict=True):
        path = PUBLIC / f"sea_safeguard/{code}.jsonl"
        assert len(read("sea-safeguard", path)) == count
        assert len(read("sea-safeguard-harmless", path, code)) == count
