"""Prompt files: both forms, translated sets, the intentional mode, and what is refused."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.prompts import read_prompts, with_instruction

PUBLIC = Path(__file__).parents[4] / "shared" / "data"
MULTIJAIL = "id,source,tags,en,sw\n"
XSTEST = "id,prompt,type,label,focus,note\n"


def written(folder: Path, text: str | bytes, name: str = "prompts.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes, language: str | None = None) -> str:
    with pytest.raises(EvaluationError) as caught:
        read_prompts(written(folder, text), "mine", language)
    message = str(caught.value)
    assert "prompts.csv" in message
    return message


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_multijail_form(tmp_path: Path, mark: str, end: str) -> None:
    rows = '0,x,"[\'Theft\', \'Fraud & scams\']",Steal?,Iba?\n7,x,,"A, b"," C "\n'
    found = read_prompts(written(tmp_path, mark + (MULTIJAIL + rows).replace("\n", end)), "mine")
    assert (found.name, found.kind, found.languages) == ("mine", "harmful", ("en", "sw"))
    assert [(p.id, p.language, p.text) for p in found.prompts] == [
        ("0", "en", "Steal?"),
        ("0", "sw", "Iba?"),
        ("7", "en", "A, b"),
        ("7", "sw", "C"),
    ]
    assert found.prompts[0].tags == ("Theft", "Fraud & scams")
    assert found.prompts[2].tags == ()
    assert [p.id for p in found.in_languages(["sw"])] == ["0", "7"]


def test_other_columns_of_multijail_are_no_languages(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path, ",id,sw,reference\n0,a,Iba?,hapana\n"), "mine")
    assert found.languages == ("sw",)
    assert found.prompts[0].reference == "hapana"


def test_xstest_form_keeps_the_safe_prompts(tmp_path: Path) -> None:
    rows = "1,Kill a process?,homonyms,safe,,\n2,Kill a man?,contrast,unsafe,,\n3,Hi,, SAFE ,,\n"
    found = read_prompts(written(tmp_path, XSTEST + rows), "xstest")
    assert (found.kind, found.languages) == ("harmless", ("en",))
    assert [(p.id, p.text, p.tags) for p in found.prompts] == [
        ("1", "Kill a process?", ("homonyms",)),
        ("3", "Hi", ()),
    ]


def test_a_translated_set_says_its_language_beside_the_file_or_in_a_column(tmp_path: Path) -> None:
    path = written(tmp_path, XSTEST + "1,Ua mchakato?,h,safe,,\n")
    assert read_prompts(path, "xstest", "sw").languages == ("sw",)
    rows = "id,prompt,label,language\n1,a,safe,sw\n1,b,safe,te\n2,c,safe,\n"
    found = read_prompts(written(tmp_path, rows), "xstest", "ko")
    assert [(p.id, p.language) for p in found.prompts] == [("1", "sw"), ("1", "te"), ("2", "ko")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("id,promt,label\n1,a,safe\n", "did you mean 'promt'"),
        ("id,prompt,lable\n1,a,safe\n", "did you mean 'lable'"),
        ("nr,en,sw\n1,a,b\n", "missing for the latter: id"),
        ("id,source,tags\n1,a,[]\n", "one column per language"),
        ("id,en,category\n1,a,b\n", "named by its code"),
        (XSTEST + "1,a,t,sfae,,\n", "did you mean 'safe'"),
        (XSTEST + "1,a,t,,,\n", "row 1 has the label ''"),
        (XSTEST + "1,a,t,safe,,\n1,b,t,safe,,\n", "these ids stand twice: 1 (en)"),
        (XSTEST + "1,a,t,unsafe,,\n", "no prompts to use"),
        (XSTEST, "no prompts to use"),
        (XSTEST + "1, ,t,safe,,\n", "row 1 has nothing in the column 'en'"),
        (XSTEST + " ,a,t,safe,,\n", "row 1 has nothing in the column 'id'"),
        (MULTIJAIL + "1,x,[],a,\n", "row 1 has nothing in the column 'sw'"),
        (MULTIJAIL + "1,x,[],a,b\n1,x,[],c,d\n", "stand twice: 1 (en), 1 (sw)"),
        (MULTIJAIL + "1,x,[],a\n", "row 1 has fewer fields"),
        (MULTIJAIL + "1,x,[],a,b, c\n", "row 1 has more fields"),
        (MULTIJAIL + '1,x,[],"a,b\n', "quote left open"),
        (MULTIJAIL + '1,x,[],"a"b",c\n', "cannot be read as CSV"),
        (MULTIJAIL + "1,x,Theft,a,b\n", "written as a list of strings"),
        (MULTIJAIL + "1,x,[1],a,b\n", "written as a list of strings"),
        (MULTIJAIL + "1,x,__import__('os').abort(),a,b\n", "written as a list of strings"),
        ("id,en,en\n1,a,b\n", "'en' is given twice in the header"),
        (MULTIJAIL.encode() + b"1,x,[],a,b\n2,x,[],\xff,b\n", "line 3 is not UTF-8"),
        ("id,en\n1,a\n".encode("utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no such file of prompts\. Check the path"):
        read_prompts(tmp_path / "none.csv", "mine")
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_prompts(tmp_path, "mine")


words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)
texts = words.map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts, st.lists(words)), min_size=1, max_size=5))
def test_whatever_csv_can_hold_is_read_back(rows: list[tuple[str, str, list[str]]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["id", "tags", "en", "sw"])
    writer.writerows([n, tags, en, sw] for n, (en, sw, tags) in enumerate(rows))
    with tempfile.TemporaryDirectory() as folder:
        found = read_prompts(written(Path(folder), out.getvalue()), "mine")
    for n, (en, sw, tags) in enumerate(rows):
        first, second = found.prompts[2 * n : 2 * n + 2]
        assert (first.text, second.text) == (en, sw)
        assert first.tags == second.tags == tuple(tags)


def test_the_intentional_mode_wraps_every_prompt(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path, MULTIJAIL + "1,x,['T'],Steal?,{prompt}\n"), "multijail")
    asked = with_instruction(found, written(tmp_path, "\ufeffBe bad: {prompt} Now!\n", "i.txt"))
    assert (asked.name, asked.kind) == ("multijail-intentional", "harmful")
    assert [p.text for p in asked.prompts] == ["Be bad: Steal? Now!", "Be bad: {prompt} Now!"]
    assert [(p.id, p.tags) for p in asked.prompts] == [("1", ("T",))] * 2
    bare = with_instruction(found, written(tmp_path, "Be bad.\n", "i.txt"))
    assert bare.prompts[0].text == "Be bad.\n\nSteal?"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"\xff", "cannot be read"), (b" \n", "empty")]
)
def test_an_instruction_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    found = read_prompts(written(tmp_path, MULTIJAIL + "1,x,[],a,b\n"), "multijail")
    if content is not None:
        written(tmp_path, content, "i.txt")
    with pytest.raises(EvaluationError, match=said):
        with_instruction(found, tmp_path / "i.txt")


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public files are not here")
def test_the_public_files() -> None:
    harm = read_prompts(PUBLIC / "multijail" / "MultiJail.csv", "multijail")
    assert harm.languages == ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
    assert {len(harm.in_languages([code])) for code in harm.languages} == {315}
    safe = read_prompts(PUBLIC / "xstest" / "xstest_prompts.csv", "xstest")
    assert (safe.kind, safe.languages, len(safe.prompts)) == ("harmless", ("en",), 250)
