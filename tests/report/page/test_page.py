"""The page against an HTML parser, ``compare``'s own cells, and numbers worked out by hand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")

from page_parts import HOSTILE, Page, check_locked, evaluated, with_answer, words
from profiles import HAND, make_profile
from safeswap.cli import main
from safeswap.errors import ConfigError, OutputError, SafeswapError
from safeswap.evaluation.judges import MajorityJudge
from safeswap.evaluation.results.majority import define_majority, majority_note
from safeswap.evaluation.results.store import open_results
from safeswap.plan import fill_plan
from safeswap.report.evaluation import compare
from safeswap.report.page import write_report
from safeswap.report.page.write import as_data
from stored import BENIGN, HARM, Stored


def page_of(tmp_path: Path, *runs: Path, **how: Any) -> Page:
    out = write_report(runs, tmp_path / "page.html", **how)
    read = Page(out.read_text(encoding="utf-8"))
    check_locked(read)
    return read


def test_the_tables_are_those_of_compare(tmp_path: Path) -> None:
    results = evaluated(tmp_path / "results").folder
    shown = page_of(tmp_path, results, judge="guard").tables()
    wanted = compare([results], judge="guard")
    assert len(wanted) >= 4
    for table in wanted:
        grouped = [row for group, rows in table.row_groups() for row in [group, *rows] if row]
        cells = [[row] if isinstance(row, str) else [c.text for c in row.cells] for row in grouped]
        assert shown[table.title] == cells


def test_without_a_choice_every_judge_has_tables(tmp_path: Path) -> None:
    results = evaluated(tmp_path / "results").folder
    read = page_of(tmp_path, results)
    found = [words(one) for one in read.all("summary")]
    assert [text for text in found if "judged by" in text] == [
        "results, judged by guard",
        "results, judged by rules",
    ]


def test_a_majority_is_one_more_judge_and_says_whose(tmp_path: Path) -> None:
    stored = evaluated(tmp_path / "results")
    results = open_results(stored.folder)
    record = define_majority(results, MajorityJudge(["guard", "rules", "third"]))
    for model in results.models:
        verdicts = stored.folder / model / "verdicts"
        shutil.copy(verdicts / "guard.jsonl", verdicts / "third.jsonl")
    page = page_of(tmp_path, stored.folder, samples=2)
    (told,) = (one.whole for one in page.all("html"))
    assert "results, judged by majority" in told
    index, _ = page.samples
    assert index["groups"][0]["judges"] == ["guard", "majority", "rules", "third"]
    assert all(verdicts[0][1] for *_, verdicts in index["rows"])  # the majority's
    assert f"It is the {majority_note(record)}." in told
    assert told.index("--judge majority:guard,rules,third") > told.index("--judge guard")
    (stored.folder / "majority.json").unlink()
    (tmp_path / "aside").mkdir()
    hidden = [*stored.folder.glob("*/verdicts/*.jsonl")]
    for number, path in enumerate(hidden):
        path.rename(tmp_path / "aside" / str(number))
    define_majority(results, MajorityJudge(["guard", "rules", "third"]))
    for number, path in enumerate(hidden):
        (tmp_path / "aside" / str(number)).rename(path)
    (told,) = (one.whole for one in page_of(tmp_path, stored.folder).all("html"))
    assert "defined before any of them had judged" in told
    assert told.index("--judge majority:guard,rules,third") < told.index("--judge guard")


def test_the_story_in_short_is_by_hand(tmp_path: Path) -> None:
    """8 of 10 unsafe became 1 of 10: −70 points; of the harmless both refuse the same one of 4."""
    read = page_of(tmp_path, evaluated(tmp_path / "results").folder, judge="guard")
    (card,) = read.all("article", class_="card primary")
    facts = [[words(one) for one in item.inside] for item in card.inside[1].inside]
    assert facts[0][-1] == "80.0 → 10.0 %"
    assert [fact[0] for fact in facts] == [
        "unsafe answers: Harm sw",
        "harmless prompts refused: Benign sw",
        "right answers: Reading sw",
    ]
    assert facts[0][1].startswith("-70.0 [") and facts[1][1].startswith("0.0 [")
    tones = [item.attributes["class"] for item in card.inside[1].inside]
    assert tones[1] == "open"  # exploratory: no colour


def test_bars_say_refused_harmful_neither(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "results", {"harm/sw": {**HARM, "items": 4}, "benign/sw": BENIGN})
    stored.arm("one").judged("one", "harm/sw", "rrui")
    (svg,) = page_of(tmp_path, stored.folder).all("svg")
    told = [words(bar.inside[0]) for bar in svg.inside if bar.tag == "g"]
    assert told == ["one: refused 50.0 %", "one: harmful 25.0 %", "one: neither 25.0 %"]


def test_the_map_says_decision_weights_shares_and_difference(tmp_path: Path) -> None:
    profile = make_profile(HAND)
    fill_plan(profile, "sw").save(tmp_path / "plan.yaml")
    read = page_of(tmp_path, tmp_path / "plan.yaml")
    units = read.all("g", class_="unit safety") + read.all("g", class_="unit language")
    told = {words(unit.inside[0]).partition(":")[0]: words(unit.inside[0]) for unit in units}
    # by hand: 2.5 of 8.5 against 0.5 of 8.5
    assert told["0.attention"] == (
        "0.attention: safety; weights safety 1, sw 0; "
        "shares safety 29.412 %, sw 5.882 %; difference +23.529 points"
    )
    assert told["2.mlp"].startswith("2.mlp: sw; weights safety 0, sw 1; shares safety 11.765 %")
    rows = {row[0]: row for row in read.tables()["Units, sw"]}
    assert rows["0.attention"] == [
        "0.attention", "safety", "1", "0", "29.412", "5.882", "+23.529",
    ]  # fmt: skip
    assert rows["embeddings"][1:4] == ["blend", "0.5", "0.5"]


def test_norms_over_depth_are_by_hand(tmp_path: Path) -> None:
    make_profile(HAND).save(tmp_path / "profile.json")
    read = page_of(tmp_path, tmp_path / "profile.json")
    rows = {row[0]: row[1:] for row in read.tables()["Modules"]}
    assert rows["0.attention"] == ["2.50000", "29.412", "0.50000", "5.882", "0.000"]
    marks = [words(one) for one in read.all("circle")]
    assert "layer 0, safety: 2.50000" in marks and "layer 2, sw: 2.50000" in marks


def test_samples_begin_where_models_and_judges_differ(tmp_path: Path) -> None:
    index, texts = page_of(tmp_path, evaluated(tmp_path / "results").folder, samples=14).samples
    assert index["of"] == len(index["rows"]) == len(texts) == 14
    found = [(row[1], row[3], row[5], row[6]) for row in index["rows"]]
    # 0 to 7: the merge is safe where its expert is not; 8: the other way round
    assert [(b, i) for b, i, *_ in found[:9]] == [("harm", str(n)) for n in range(9)]
    assert [discordant for _, _, discordant, _ in found] == [1] * 9 + [0] * 5
    # on the answer of the third model, the merge
    assert [(b, i, models) for b, i, _, models in found if models] == [("harm", "0", [2])]
    first = index["rows"][0]
    assert index["groups"][0]["models"] == [
        ["base", "base"], ["sw", "language"], ["merge", "merged"],
    ]  # fmt: skip
    merge = first[8][2]
    assert [verdict[:2] for verdict in merge] == [["safe", True], ["unsafe", False]]
    assert texts[0][0] == "prompt 0 in sw" and texts[0][2][2][0] == "answer of merge to 0 in sw"


def test_a_verdict_on_another_answer_is_left_out(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    path = folder / "merge" / "responses.jsonl"
    path.write_text(path.read_text().replace("answer of merge to 0 in sw", "another"))
    index, texts = page_of(tmp_path, folder, samples=14).samples
    place = next(n for n, row in enumerate(index["rows"]) if row[1] == "harm" and row[3] == "0")
    assert index["rows"][place][8][2] == [None, None]
    assert texts[place][2][2][0] == "another"


def test_few_samples_are_of_all_cells_in_turn(tmp_path: Path) -> None:
    cells = {"harm/sw": HARM, "harm/te": HARM, "benign/sw": BENIGN}
    stored = Stored(tmp_path / "results", cells).arm("one").arm("two")
    for cell in cells:
        stored.judged("one", cell, "ssss").judged("two", cell, "ssss")
    index, _ = page_of(tmp_path, stored.folder, samples=3).samples
    assert [f"{row[1]}/{row[2]}" for row in index["rows"]] == [*cells]


def test_a_thought_is_apart_and_a_long_text_is_cut(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    with_answer(folder / "merge", "harm/sw/0", response="<think>hm</think>no", prompt="p" * 30_000)
    _, texts = page_of(tmp_path, folder, samples=1).samples
    assert texts[0][2][2][:2] == ["no", "hm"]
    with_answer(folder / "base", "harm/sw/0", prompt="p" * 30_000)
    _, texts = page_of(tmp_path, folder, samples=1).samples
    assert len(texts[0][0]) < 20_100 and "10000 more letters" in texts[0][0]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(tmp_path: Path, text: str) -> None:
    folder = evaluated(tmp_path / "results").folder
    for model in ("base", "sw", "merge"):
        more = {"tags": [text[:99]], "reference": text}
        with_answer(folder / model, "harm/sw/0", prompt=text, response=text, **more)
    rename_titles(folder, text[:99])
    index, texts = page_of(tmp_path, folder, samples=3, title=text).samples
    raw = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\x00\x1b]", raw)
    harmless = [answer[0] for row in texts for answer in row[2]]
    if text.isascii() and len(text) < 20_000 and "\x1b" not in text:
        assert text in harmless and any(text in row[4] for row in index["rows"])


def rename_titles(folder: Path, text: str) -> None:
    """The titles of benchmarks and the sources of models are somebody's words too."""
    path = folder / "settings.json"
    content = json.loads(path.read_text())
    for cell in content["cells"].values():
        cell["title"] = text
    path.write_text(json.dumps(content))
    for file in folder.glob("*/model.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"source": text}))


def test_names_of_roles_and_inputs_are_text(tmp_path: Path) -> None:
    profile = make_profile(HAND)
    inputs = {
        role: replace(record, name=HOSTILE[0], source=HOSTILE[1], revision=HOSTILE[4])
        for role, record in profile.inputs.items()
    }
    replace(profile, inputs=inputs).save(tmp_path / "profile.json")
    read = page_of(tmp_path, tmp_path / "profile.json")
    assert read.tables()["Inputs"][0][1] == HOSTILE[0]


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@settings(max_examples=200)
@given(st.dictionaries(texts, st.lists(st.one_of(texts, st.none(), st.booleans()))))
def test_data_in_the_page_comes_back_and_ends_nothing(value: dict[str, Any]) -> None:
    data = str(as_data(value))
    assert not re.search("[<>&\u2028\u2029]", data)
    assert json.loads(data) == value
    inside = "".join(c for c in data if not "\ud800" <= c <= "\udfff")
    read = Page(f'<script type="application/json">{inside}</script>')
    assert [one.text for one in read.elements] == [inside]


def test_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "deep" / "results").folder
    for file in folder.glob("*/model.json"):
        about = {"source": f"{tmp_path}/my models/{file.parent.name}"}
        file.write_text(json.dumps(json.loads(file.read_text()) | about))
    judge = {"judge": "guard", "source": f"rule:{tmp_path}/r.yaml", "version": "1"}
    (folder / "base/verdicts/guard.json").write_text(json.dumps(judge))
    out = write_report([folder], tmp_path / "page.html", samples=2)
    text = out.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "my models" not in text and "rule:r.yaml" in text


def test_the_commands_are_there_to_run_again(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    read = page_of(tmp_path, folder, samples=5, judge="guard", margin=0.05)
    told = " ".join(one.whole for one in read.all("code"))
    assert "safeswap compare results" in told and "--max-new-tokens 512" in told
    assert "base=org/base sw=org/sw merge=org/merge --suite SUITE --only sw" in told
    assert "report results --judge guard --margin 5 --samples 5 -o page.html" in told


def test_the_suites_that_were_asked_are_named_without_their_folders(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    settings = json.loads((folder / "settings.json").read_text())
    settings["suites"] = ["paper", f"{tmp_path}/own/mine.yaml"]
    (folder / "settings.json").write_text(json.dumps(settings))
    read = page_of(tmp_path, folder, samples=0, judge="guard")
    told = [line for one in read.all("code") for line in one.whole.splitlines()]
    asked = [line for line in told if line.startswith("safeswap evaluate")]
    assert len(asked) == 2 and "--suite paper --only sw" in asked[0]
    assert "mine.yaml --only sw" in asked[1] and str(tmp_path) not in asked[1]


def test_every_command_is_one_that_there_is(tmp_path: Path) -> None:
    """The very words, put to the command line's own parser; a folder may begin with a dash."""
    folder = evaluated(tmp_path / "-results").folder
    read = page_of(tmp_path, folder, samples=5, judge="guard")
    lines = [line for one in read.all("code") for line in one.whole.strip().splitlines()]
    assert len(lines) >= 5
    for line in lines:
        name, *rest = shlex.split(line)
        assert name == "safeswap"
        command = main.commands[rest[0]]
        context = command.make_context(rest[0], rest[1:], resilient_parsing=False)
        given = context.params
        assert not [
            word
            for value in given.values()
            for word in _texts(value)
            if word[:3] == "./-" and not word.startswith("./-results")
        ]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, tuple | list) else [value]
    return [str(one) for one in values]


def test_a_folder_of_runs_is_all_of_them(tmp_path: Path) -> None:
    evaluated(tmp_path / "runs" / "results-a")
    evaluated(tmp_path / "runs" / "results-b")  # models of the same names: tables of their own
    make_profile(HAND).save(tmp_path / "runs" / "profile.json")
    read = page_of(tmp_path, tmp_path / "runs", judge="guard")
    assert {"Modules", "Rates"} <= {*read.tables()}
    summaries = [words(one) for one in read.all("summary")]
    assert {"results-a", "results-b"} <= {*summaries}


def test_folders_of_other_models_stand_in_one_table(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stored = Stored(tmp_path / name, {"harm/sw": HARM}).arm(name)
        stored.judged(name, "harm/sw", "suss")
    rows = page_of(tmp_path, tmp_path / "one", tmp_path / "two").tables()["Rates"]
    assert [row[0] for row in rows] == ["one", "two"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "search.db").write_bytes(b"\xfb")
    for path in (tmp_path / "empty", tmp_path / "missing", tmp_path / "search.db"):
        with pytest.raises(ConfigError, match=r"A run is a merged checkpoint \(safeswap.json\)"):
            write_report([path], tmp_path / "page.html")
    with pytest.raises(OutputError, match=r"Make .*nowhere first"):
        write_report([tmp_path / "empty"], tmp_path / "nowhere" / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_without_jinja2_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SafeswapError, match=r"safeswap\[report\]"):
        write_report([tmp_path], tmp_path / "page.html")


def test_the_verb_writes_the_page(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    out = tmp_path / "page.html"
    words_ = ["report", str(folder), "-o", str(out), "--judge", "guard", "--json"]
    done = CliRunner().invoke(main, words_)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said == {"kind": "report", "page": str(out), "bytes": out.stat().st_size}
