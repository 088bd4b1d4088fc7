"""Dry runs, trials of a few questions, and options from a file."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.evaluation.benchmarks import BENCHMARKS, PromptBenchmark
from tiny import digest_of

Trio = dict[str, Path]


def typed(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, [str(word) for word in words])
    return found.exit_code, found.output


def said(*words: object) -> str:
    code, output = typed(*words)
    assert code == 0, output
    return output


def experts(trio: Trio) -> list[object]:
    return [trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"]


def test_a_dry_merge_says_what_it_would_do_and_writes_nothing(trio: Trio, tmp_path: Path) -> None:
    before = digest_of(tmp_path)
    text = said("merge", *experts(trio), "--out", tmp_path / "out", "--dry-run")
    assert digest_of(tmp_path) == before and not (tmp_path / "out").exists()
    for role in ("base", "safety", "sw"):
        assert f"{role}: {trio[role]}" in text
    assert "2 layers" in text and "free" in text and "shards" in text
    text = said("profile", *experts(trio), "--out", tmp_path / "p.json", "--dry-run")
    assert f"safety: {trio['safety']}" in text and not (tmp_path / "p.json").exists()
    code, text = typed("merge", *experts(trio), "--out", trio["sw"] / "x", "--dry-run")
    assert code == 1 and "is (in) the sw checkpoint" in text
    code, text = typed("merge", *experts(trio), "--out", "o", "--dry-run", "--method", "chat-vectr")
    assert code == 1 and "did you mean 'chat-vector'" in text


def test_options_come_from_a_file_and_the_command_line_goes_first(
    trio: Trio, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"base: {trio['base']}\nsafety: {trio['safety']}\nlanguage: {{sw: {trio['sw']}}}\n"
        f"method: chat-vector\nset: {{gamma: 0.5}}\nno-figure: true\nout: {tmp_path / 'one'}\n"
    )
    said("merge", "--config", config)
    said("merge", "--config", config, "--set", "gamma=0.25", "--out", tmp_path / "two")
    for name, gamma in (("one", 0.5), ("two", 0.25)):
        plan = json.loads((tmp_path / name / "safeswap.json").read_text())["plan"]
        assert plan["selector"]["name"] == "chat-vector"
        assert plan["units"]["0.mlp"]["weights"] == {"safety": gamma, "sw": 1.0}
        assert not (tmp_path / name / "safeswap.png").exists()


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    for text, words in (
        ("methd: soup", "did you mean 'method'"),
        ("tau: [1, 2]", "tau takes one value"),
        ("- 1", "is a table"),
        ("tau: much", "not a valid float"),
    ):
        config.write_text(text)
        code, output = typed("merge", "--config", config)
        assert code in (1, 2) and words in output, output


PROMPTS = [["id", "prompt", "type", "label"], *([n, f"May I {n}?", "x", "safe"] for n in range(9))]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "xstest.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(PROMPTS)
    return file


def test_a_dry_evaluation_loads_nothing_and_says_what_is_asked(
    trio: Trio, tmp_path: Path, prompts: Path
) -> None:
    pytest.importorskip("torch")
    words = ["evaluate", f"a={trio['sw']}", "--suite", "xstest", "--only", "en"]
    words += ["--prompts", f"xstest={prompts}", "-o", tmp_path / "results", "--dry-run"]
    text = said(*words)
    assert "9 of 9 prompts to answer" in text and "XSTest" in text and "kB in memory" in text
    assert "4 of 4 prompts" in said(*words, "--limit", 4)
    assert not (tmp_path / "results").exists()


def test_a_file_of_which_nothing_is_asked_is_said(
    trio: Trio, tmp_path: Path, prompts: Path
) -> None:
    pytest.importorskip("torch")
    words = ["evaluate", f"a={trio['sw']}", "--suite", "xstest", "--only", "sw"]
    words += ["--prompts", f"xstest={prompts}", "--prompts", f"xstest/sw={prompts}"]
    text = said(*words, "-o", tmp_path / "results", "--dry-run")
    assert f"--prompts xstest={prompts}: its prompts are in en, and none" in text
    assert "add --only en" in text
    assert "note:" not in said(*words, "-o", tmp_path / "r", "--dry-run", "--only", "en")


@pytest.fixture
def multijail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """MultiJail as its authors would publish it, were it this one: its address leads nowhere."""
    pytest.importorskip("torch")
    content = b"id,source,tags,en,sw\n1,x,[],Who took it?,Nani aliiba?\n"
    one = BENCHMARKS["multijail"]
    assert isinstance(one, PromptBenchmark) and one.origin is not None
    file = replace(
        one.origin.files[0], sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    monkeypatch.setitem(
        BENCHMARKS._entries,  # type: ignore[attr-defined]
        "multijail",
        replace(one, origin=replace(one.origin, files=(file,))),
    )
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return content


def test_a_dry_evaluation_says_what_it_would_fetch(
    trio: Trio, tmp_path: Path, multijail: bytes
) -> None:
    words = ["evaluate", f"a={trio['sw']}", "--suite", "multijail,belebele", "--only", "sw,yo"]
    words += ["-o", tmp_path / "results", "--dry-run"]
    text = said(*words, "--prompts", "multijail")
    address = "https://raw.githubusercontent.com/DAMO-NLP-SG/multilingual-safety-for-LLMs/577ac51"
    assert f"MultiJail, sw: to be fetched ({len(multijail)} bytes, SHA-256 compared)" in text
    assert f"from {address}" in text and "nothing asked or stored" in text
    assert "MultiJail: not fetched yet; from github.com/DAMO-NLP-SG" in text
    assert "licence: MIT" in text and "to be fetched are not counted above" in text
    assert "n/a: MultiJail in yo: MultiJail can be fetched in en, zh, it" in text
    record = json.loads(
        CliRunner().invoke(main, [*map(str, words), "--prompts", "multijail", "--json"]).stdout
    )
    (cell,) = [one for one in record["cells"] if "fetch" in one]
    assert cell["language"] == "sw" and cell["fetch"]["bytes"] == len(multijail)
    assert cell["fetch"]["sha256"] == hashlib.sha256(multijail).hexdigest()
    assert not list((tmp_path / "cache").rglob("*.csv"))
    code, output = typed(*words[:-1], "--prompts", "multijail")
    assert code == 1 and "HF_HUB_OFFLINE is set: nothing is fetched from https://raw" in output
    config = tmp_path / "run.yaml"
    config.write_text("prompts: {multijail: }\n")
    assert "MultiJail, sw: to be fetched" in said(*words, "--config", config)


def test_what_lies_in_the_cache_is_asked_and_its_licence_said(
    trio: Trio, tmp_path: Path, multijail: bytes
) -> None:
    place = tmp_path / "cache" / "prompts"
    place.mkdir(parents=True)
    (place / f"{hashlib.sha256(multijail).hexdigest()}.csv").write_bytes(multijail)
    words = ["evaluate", f"a={trio['sw']}", "--suite", "multijail", "--only", "sw,en"]
    text = said(*words, "--prompts", "multijail", "-o", tmp_path / "results", "--dry-run")
    assert "MultiJail: 1 prompts in sw, en; from github.com/DAMO-NLP-SG/multilingual" in text
    assert "licence: MIT" in text and "2 of 2 prompts to answer" in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("multijal", "or as the name of prompts that can be fetched; did you mean 'multijail'?"),
        ("mgsm", "asks no prompts of this name"),
        ("multijail=", "is given as NAME=VALUE"),
        ("xsafety", "no digests of its files are known; get the repository yourself and give"),
        (
            "polyrefuse/sw",
            "PolyRefuse can be fetched in en, ar, it, ko, th, yo, zh only; no digest",
        ),
    ],
)
def test_names_that_fetch_nothing(tmp_path: Path, given: str, words: str) -> None:
    pytest.importorskip("torch")
    suite = "multijail,xsafety,polyrefuse"
    line = ["evaluate", "a=b", "--suite", suite, "--only", "sw", "-o", tmp_path / "results"]
    more = [] if given.startswith("multi") else ["--prompts", f"multijail={tmp_path}/m.csv"]
    if given == "polyrefuse/sw":
        (tmp_path / "m.csv").write_text("id,sw\n1,Nani?\n")
        more += ["--prompts", f"xsafety={tmp_path}/Insult.csv"]
        (tmp_path / "Insult.csv").write_text("one\n")
    if given == "xsafety":
        (tmp_path / "m.csv").write_text("id,sw\n1,Nani?\n")
    code, output = typed(*line, *more, "--prompts", given)
    assert code == 1 and words in output, output


def test_how_much_is_said(trio: Trio, tmp_path: Path) -> None:
    words = ["merge", *experts(trio), "--no-figure", "--out"]
    (trio["base"] / "tokenizer.json").unlink()
    assert "note:" in said(*words, tmp_path / "a")
    assert "note:" not in said("--log-level", "error", *words, tmp_path / "b")
    assert "note:" in said("-v", *words, tmp_path / "c")


def test_an_earlier_merge_is_replaced_when_asked_and_nothing_else(
    trio: Trio, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["merge", *experts(trio), "--no-figure", "--out", out]
    said(*words, "--method", "soup")
    soup = digest_of(out)
    (out / "notes.txt").write_text("of the soup")
    code, text = typed(*words, "--method", "chat-vector")
    assert code == 1 and "exists already" in text
    said(*words, "--method", "chat-vector", "--overwrite")
    assert digest_of(out) != soup and not (out / "notes.txt").exists()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".out")] == []
    said("verify", out)
    two = [*words, "--language", f"te={trio['te']}", "--overwrite"]
    said(*two)
    said(*two)  # several languages replace several
    (out / "thesis.tex").write_text("mine")
    code, text = typed(*two)
    assert code == 1 and "holds thesis.tex too" in text
    code, text = typed("merge", *experts(trio), "--out", tmp_path / "trio", "--overwrite")
    assert code == 1 and (trio["sw"] / "config.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    code, text = typed("merge", *experts(trio), "--out", tmp_path / "mine", "--overwrite")
    assert code == 1 and "only what a merge wrote" in text
