"""Files of pairs of prompts: what they hold, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safeswap.calibration.pairs import read_pairs
from safeswap.calibration.texts import read_refusals
from safeswap.cli import main
from safeswap.errors import CalibrationError, SafeswapError

ENGLISH = [f"Where does the small brown bird of the garden sleep, number {n}?" for n in "abcd"]
THAI = [f"นกตัวเล็กสีน้ำตาลในสวนนอนที่ไหน หมายเลข {n}" for n in "abcd"]
LABELS = ["unsafe", "safe", "Unsafe", "safe"]


def write(path: Path, english: list[str], other: list[str], labels: list[str] = LABELS) -> Path:
    rows = zip(labels, english, other, strict=True)
    lines = [json.dumps({"label": label, "en": a, "th": b, "id": 7}) for label, a, b in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_both_formats_give_the_same_pairs(tmp_path: Path) -> None:
    lines = read_pairs(write(tmp_path / "p.jsonl", ENGLISH, THAI), "th")
    rows = zip(LABELS, ENGLISH, THAI, strict=True)
    text = "".join(f'{label},"{a}",{b}\n' for label, a, b in rows)
    (tmp_path / "p.csv").write_text(f"label,en,th\n{text}", encoding="utf-8")
    table = read_pairs(tmp_path / "p.csv", "th")
    assert lines.harmful == table.harmful == ((ENGLISH[0], THAI[0]), (ENGLISH[2], THAI[2]))
    assert lines.harmless == table.harmless and len(table) == 4
    assert lines.digest == table.digest
    other = read_pairs(write(tmp_path / "o.jsonl", ENGLISH[::-1], THAI[::-1]), "th")
    assert other.digest != lines.digest


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", "label,en,ht\nunsafe,a,b\n", "line 2 has no key 'th'; did you mean 'ht'"),
        ("p.csv", "label,th\nunsafe,b\n", "has no key 'en'"),
        ("p.csv", "lable,en,th\nunsafe,a,b\n", "has no key 'label'; did you mean 'lable'"),
        ("p.csv", "label,en,th\nunsave,a,b\n", "'unsave'.*did you mean 'unsafe'"),
        ("p.csv", "label,en,th\nunsafe,a,\n", "line 2: th is empty"),
        ("p.csv", "label,en,th\n", "holds no unsafe pairs"),
        ("p.csv", "", "holds no unsafe pairs"),
        ("p.csv", "label,en,th\nsafe,a,b\nsafe,c,d\n", "holds no unsafe pairs"),
        ("p.csv", "label,en,th\nunsafe,a,b\nunsafe,c,d\n", "holds no safe pairs"),
        ("p.csv", "label,en,th\nunsafe,a,b\nsafe,c,d\n", "holds 1 unsafe pairs.*2 or more"),
        ("p.csv", "label,en,th\nunsafe,a\n", "fewer fields"),
        ("p.jsonl", "not JSON", "line 1"),
        ("p.jsonl", '{"label": "unsafe", "en": 3, "th": "b"}', "en is empty or no text"),
        ("p.txt", "a = b", "pairs of prompts are CSV"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CalibrationError, match=said):
        read_pairs(tmp_path / name, "th")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.csv", "none.jsonl"):
        with pytest.raises(CalibrationError, match=f"{name}: the pairs cannot be read"):
            read_pairs(tmp_path / name, "th")


def test_prompts_in_the_wrong_language_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    cases = [
        (ENGLISH, ENGLISH[::-1], "4 of 4 prompts in the column 'th'"),
        (THAI, THAI[::-1], "4 of 4 prompts in the column 'en'"),
        (ENGLISH, ENGLISH, "4 of 4 prompts are the same in 'en' and 'th'"),
    ]
    for english, other, said in cases:
        path = write(tmp_path / "p.jsonl", english, other)
        with pytest.raises(CalibrationError, match=f"{said}.*--force"):
            read_pairs(path, "th")
        assert len(read_pairs(path, "th", checked=False)) == 4


def test_refusals_in_the_wrong_language_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    for prompts, answers, said in (
        (THAI, ENGLISH, "4 of 4 requests are not in English"),
        (ENGLISH, THAI, "4 of 4 refusals are not in English"),
    ):
        path = tmp_path / "r.jsonl"
        rows = [{"prompt": a, "response": b} for a, b in zip(prompts, answers, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(CalibrationError, match=f"{said}.*--force"):
            read_refusals(path)
        assert len(read_refusals(path, checked=False)) == 4


def said_by(tmp_path: Path, *options: str) -> str:
    (tmp_path / "base").mkdir(exist_ok=True)
    arguments = ["calibrate", str(tmp_path / "base"), "--safety", "s", "--language", "th=l"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert isinstance(done.exception, (SafeswapError, SystemExit)) and done.exit_code
    return " ".join(f"{done.output} {done.exception}".split())


def test_the_command_line_refuses_what_does_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ENGLISH, THAI)
    said = said_by(tmp_path, "--parallel", f"tha={path}")
    assert "--parallel tha=" in said and "no expert 'tha'" in said and "'th'" in said
    said = said_by(tmp_path, "--parallel", str(path), "--texts", str(path))
    assert "--texts and --parallel are for different operators" in said
    said = said_by(tmp_path, "--parallel", str(path), "--parallel", str(path))
    assert "are both for all experts" in said
    assert "--parallel (for sparse-edit)" in said_by(tmp_path)
