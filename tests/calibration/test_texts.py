"""Calibration texts: which file for whom, and what it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safeswap.calibration.texts import Texts, assign_texts, read_texts
from safeswap.errors import CalibrationError

ROLES = ("safety", "sw")


def test_one_file_for_all_or_one_for_each(tmp_path: Path) -> None:
    assert assign_texts(["a.txt"], ROLES) == {"safety": Path("a.txt"), "sw": Path("a.txt")}
    found = assign_texts(["sw=b.txt", "a.txt"], ROLES)
    assert found == {"safety": Path("a.txt"), "sw": Path("b.txt")}
    odd = tmp_path / "a=b.txt"
    odd.write_text("maji")
    assert assign_texts([str(odd)], ROLES)["sw"] == odd


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["ws=a.txt"], ["no expert 'ws'", "'sw'"]),
        (["sw=a", "sw=b"], ["sw=… is given twice"]),
        (["a", "b"], ["a and b are both for all"]),
        (["sw=a"], ["safety has no texts", "--texts safety=FILE"]),
    ],
)
def test_texts_for_nobody_or_of_nobody_are_refused(given: list[str], words: list[str]) -> None:
    with pytest.raises(CalibrationError) as caught:
        assign_texts(given, ROLES)
    for word in words:
        assert word in str(caught.value)


def test_the_three_forms_give_the_same_texts(tmp_path: Path) -> None:
    wanted = ("maji moto", "chai, ndege", "nyumba")
    (tmp_path / "a.txt").write_text("\ufeffmaji moto\n\n  chai, ndege \r\nnyumba")
    rows = [json.dumps({"text": text, "id": n}) for n, text in enumerate(wanted)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "a.csv").write_text(
        'id,en,sw\n1,water,maji moto\n2,tea,"chai, ndege"\n3,house,nyumba\n'
    )
    (tmp_path / "x.csv").write_text(
        'id,prompt,label\n1,maji moto,safe\n2,"chai, ndege",safe\n3,nyumba,safe\n4,x,unsafe\n'
    )
    found = [read_texts(tmp_path / name, "sw") for name in ("a.txt", "a.jsonl", "a.csv", "x.csv")]
    assert {texts.texts for texts in found} == {wanted}
    assert len({texts.digest for texts in found}) == 1
    assert read_texts(tmp_path / "a.csv", "safety").texts == ("water", "tea", "house")
    assert Texts("a", ("x", "y")).digest != Texts("a", ("y", "x")).digest


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n \n", ["holds no texts"]),
        ("a.jsonl", "", ["holds no texts"]),
        ("a.jsonl", '{"text": "x"}\n{"txt": "y"}', ["line 2 has no key 'text'", "'txt'"]),
        ("a.jsonl", '{"text": " "}', ["line 1", "empty"]),
        ("a.jsonl", '{"text": 3}', ["line 1", "no text"]),
        ("a.jsonl", "maji moto", ["line 1 is not JSON", ".txt"]),
        ("a.csv", "id,en,ko\n1,x,y\n", ["no prompts in 'sw'", "en, ko", "Give sw=FILE"]),
        ("a.csv", "name,thing 2\n1,x\n", ["name, thing 2", ".txt"]),
    ],
)
def test_texts_that_will_not_do_are_refused(
    name: str, content: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CalibrationError) as caught:
        read_texts(tmp_path / name, "sw")
    for word in [str(tmp_path / name), *words]:
        assert word in str(caught.value)


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"a\.txt: the texts cannot be read"):
        read_texts(tmp_path / "a.txt", "sw")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00maji")
    with pytest.raises(CalibrationError, match=r"cannot be read.*UTF-8"):
        read_texts(tmp_path / "a.txt", "sw")
