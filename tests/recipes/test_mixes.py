"""Mixes: what a seed draws, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mixes import KEYS, read_mix


def _rows(folder: Path, name: str, count: int) -> None:
    lines = [json.dumps({"q": f"{name} {n}", "a": f"{n}", "kind": n % 2}) for n in range(count)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def _mix(folder: Path, text: str) -> Path:
    path = folder / "mix.yaml"
    path.write_text(text)
    return path


MIX = """
parts:
  - {name: one, file: one.jsonl, prompt: q, response: a, take: 5}
  - {file: two.jsonl, prompt: 'say {q}', response: '{a}!', where: {kind: 1}}
"""


def test_a_seed_draws_and_orders(tmp_path: Path) -> None:
    _rows(tmp_path, "one", 20)
    _rows(tmp_path, "two", 6)
    path = _mix(tmp_path, MIX)
    first, again, other = read_mix(path, 0), read_mix(path, 0), read_mix(path, 1)
    assert first == again
    assert first.digest() != other.digest()
    assert first.counts() == {"one": 5, "two.jsonl": 3} or first.counts() == {
        "two.jsonl": 3,
        "one": 5,
    }
    two = sorted(e.prompt + "|" + e.response for e in first.examples if e.part == "two.jsonl")
    assert two == ["say two 1|1!", "say two 3|3!", "say two 5|5!"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parts: [{file: one.jsonl, promt: q}]", "did you mean 'prompt'"),
        ("parts: [{name: x}]", "one of them"),
        ("parts: [{file: no.jsonl}]", "no file"),
        ("parts: [{file: one.jsonl}]", "no field 'prompt'; they have q, a, kind"),
        ("parts: []", "a list"),
        ("other: 1", "a list"),
    ],
)
def test_what_is_no_mix_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    _rows(tmp_path, "one", 2)
    with pytest.raises(SystemExit, match=said.replace("{", r"\{")):
        read_mix(_mix(tmp_path, text), 0)


def test_a_dot_leads_into_a_field(tmp_path: Path) -> None:
    row = {"translation": {"eng_Latn": "good day", "swh_Latn": "habari"}}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    text = (
        "parts: [{file: one.jsonl, prompt: 'Say: {translation.eng_Latn}', "
        "response: translation.swh_Latn}]"
    )
    (example,) = read_mix(_mix(tmp_path, text), 0).examples
    assert (example.prompt, example.response) == ("Say: good day", "habari")


def test_the_mixes_that_are_here_are_mixes() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "mixes"
    found = {path.stem: yaml.safe_load(path.read_text())["parts"] for path in folder.glob("*.yaml")}
    assert {"paper-sw", "paper-ko", "paper-te", "paper-bn", "safety-en"} == set(found)
    for parts in found.values():
        for part in parts:
            assert set(part) <= set(KEYS)
    sizes = {part["name"]: part.get("take") for part in found["paper-sw"]}
    assert sizes == {"aya": None, "xp3mt": 25000, "inkuba": 20000, "nllb": 30000}
