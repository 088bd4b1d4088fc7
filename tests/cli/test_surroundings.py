"""The machine around it: locales of 8 bits, odd names of files, files that are read as UTF-8."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap.calibration.texts import assign_texts
from safeswap.checkpoint.source import resolve
from safeswap.cli import main
from safeswap.errors import CheckpointError, EvaluationError
from safeswap.evaluation.backends.registry import check_dtype
from safeswap.evaluation.models import name_models
from small_job import TITLE, small_verbs, write_small_job
from stored import HARM, Stored
from tiny import make_trio

TEXTS = (".json", ".jsonl", ".yaml", ".md", ".html", ".csv", ".tex", ".jinja", ".txt")
SOURCE = Path(__file__).parents[2] / "src" / "safeswap"
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
    "ascii": {
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "PYTHONIOENCODING": "ascii",
    },
}


DRIVER = """
import json, sys, traceback
from safeswap.cli import run
for words in json.loads(sys.argv[1]):
    sys.argv = ["safeswap", *words]
    try:
        run()
    except SystemExit as ended:
        print(f"{words[0]} ended with {ended.code or 0}", flush=True)
    except BaseException:
        traceback.print_exc()
"""


def start(folder: Path, locale: str, verbs: Sequence[list[str]], **streams: Any) -> Any:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    there = {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", **LOCALES[locale]}
    command = [sys.executable, "-c", DRIVER, json.dumps(verbs)]
    return subprocess.run(command, cwd=folder, env={**kept, **there}, **streams)


def at(folder: Path, locale: str, *verbs: list[str]) -> tuple[str, str]:
    """What verbs print, one after another in one process of that locale."""
    done = start(folder, locale, verbs, capture_output=True)
    return done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize("locale", LOCALES)
def test_every_verb_prints_in_every_locale(tmp_path: Path, locale: str) -> None:
    make_trio(tmp_path, layers=1, width=8, inner=8, words=16)
    made = Stored(tmp_path / "results", {"harm/sw": {**HARM, "title": "Hårm 日本"}})
    made.arm("one").arm("two", "merged", "one").judged("one", "harm/sw", "us")
    made.judged("two", "harm/sw", "su")
    (tmp_path / "labels.csv").write_text("id,human,judge\n1,safe,safe\n2,unsafe,safe\n")
    experts = ["base", "--safety", "safety", "--language", "sw=sw"]
    verbs = (
        ["profile", *experts],
        ["plan", "profile.json"],
        ["show", "plan.yaml"],
        ["show", "profile.json"],
        ["show", "plan.yaml", "--json"],
        ["merge", "--plan", "plan.yaml", "--no-figure", "-o", "out"],
        ["verify", "out"],
        ["convert", "plan.yaml", "--to", "mergekit"],
        ["methods"],
        ["methods", "ties"],
        ["compare", "results"],
        ["compare", "results", "--explain", "harm/sw/one"],
        *(["compare", "results", "--format", form] for form in ("md", "latex", "html")),
        ["compare", "results", "--format", "csv", "--table", "rates"],
        ["compare", "results", "--json"],
        ["label", "agreement", "labels.csv"],
        ["label", "sample", "results", "--sample", "4"],
    )
    out, err = at(tmp_path, locale, *verbs)
    assert "Traceback" not in err, err[-900:]
    assert out.count(" ended with 0") == len(verbs), (out[-500:], err)
    for file in ("profile.json", "plan.yaml", "out/safeswap.json", "out/README.md"):
        (tmp_path / file).read_bytes().decode("utf-8")


@pytest.mark.parametrize("locale", LOCALES)
def test_every_verb_that_loads_models_too_and_into_a_file(tmp_path: Path, locale: str) -> None:
    """Into files and not pipes: what is printed, and what is written in UTF-8 whatever happens."""
    for name in ("torch", "lm_eval", "optuna", "statsmodels", "matplotlib"):
        pytest.importorskip(name)
    write_small_job(tmp_path)
    verbs = [
        *small_verbs().values(),
        ["compare", "results"],
        ["compare", "results", "--format", "html", "--out", "report"],
        ["compare", "results", "--explain", "mine/qac/out"],
        *([["demo", "--out", "demo"]] if locale == "ascii" else []),  # takes half a minute
    ]
    with (tmp_path / "printed").open("wb") as out, (tmp_path / "said").open("wb") as err:
        start(tmp_path, locale, verbs, stdout=out, stderr=err)
    printed = (tmp_path / "printed").read_bytes().decode("latin-1")
    said = (tmp_path / "said").read_bytes().decode("latin-1")
    assert "Traceback" not in said and "Error" not in said, said[-900:]
    assert printed.count(" ended with 0") == len(verbs), (printed[-900:], said)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in TEXTS]
    assert len(written) > 40
    texts = {p: p.read_bytes().decode("utf-8") for p in written}
    titled = [p for p, text in texts.items() if TITLE in text]
    assert {".html", ".md"} <= {p.suffix for p in titled}
    garbled = ("\ufffd", TITLE.encode().decode("latin-1"))
    assert not [p for p, text in texts.items() for odd in garbled if odd in text]


def test_a_name_that_the_locale_cannot_write_is_explained(tmp_path: Path) -> None:
    make_trio(tmp_path, layers=1, width=8, inner=8, words=16)
    (tmp_path / "sw").rename(tmp_path / "kiswahili-ñ")
    words = ["base", "--safety", "safety", "--language", "sw=kiswahili-ñ", "--no-figure"]
    out, err = at(tmp_path, "C", ["merge", *words, "-o", "out"])
    assert "Traceback" not in err, err[-900:]
    assert "ended with 0" in out or "Error: " in err


def test_text_files_are_opened_as_utf_8() -> None:
    """Wherever a text is read or written, the encoding is said; the locale has no part in it."""
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {word.arg for word in node.keywords}
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            texts = name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
            opened = (
                name == "open"
                and isinstance(node.func, ast.Attribute)
                and getattr(node.func.value, "id", "") not in ("os", "kind", "archive")
                and not any("b" in str(mode) for mode in modes)
            )
            if (texts or opened) and "encoding" not in given:
                wrong.append(f"{path.name}:{node.lineno}")
    assert not wrong


def test_a_folder_with_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_trio(tmp_path, layers=1, width=8, inner=8, words=16)
    (tmp_path / "sw").rename("a=b")
    (one,) = name_models(["a=b"])
    assert (one.name, Path(one.location).name) == ("a-b", "a=b")
    (one,) = name_models(["x=a=b"])
    assert (one.name, Path(one.location).name) == ("x", "a=b")
    (tmp_path / "te").rename("b")
    with pytest.raises(EvaluationError, match=r"Give \./a=b for the former, a=\./b"):
        name_models(["a=b"])
    assert Path(name_models(["./a=b"])[0].location).name == "a=b"
    assert Path(name_models(["a=./b"])[0].location).name == "b"
    done = CliRunner().invoke(
        main, ["profile", "base", "--safety", "safety", "--language", "sw=a=b", "-o", "p=q.json"]
    )
    assert done.exit_code == 0 and Path("p=q.json").exists(), done.output
    Path("sw=x.txt").write_text("qa\n")
    assert assign_texts(["sw=x.txt", "safety=sw=x.txt"], ("safety", "sw")) == {
        "safety": Path("sw=x.txt"),
        "sw": Path("sw=x.txt"),
    }


@pytest.mark.parametrize("name", ["with space", "it's", 'q"uote', "line\nbreak", "-dash", "ñ"])
def test_odd_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_trio(tmp_path / name, layers=1, width=8, inner=8, words=16)
    where = f"./{name}"
    words = [f"{where}/base", "--safety", f"{where}/safety", "--language", f"sw={where}/sw"]
    for given in (
        ["profile", *words, "-o", f"{where}/p.json"],
        ["plan", f"{where}/p.json", "-o", f"{where}/plan.yaml"],
        ["merge", "--plan", f"{where}/plan.yaml", "-o", f"{where}/out", "--no-figure"],
        ["verify", f"{where}/out"],
    ):
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 0, (given, done.output)
    done = CliRunner().invoke(
        main, ["convert", f"{where}/plan.yaml", "--to", "mergekit", "-o", f"{where}/m.yml"]
    )
    assert done.exit_code == 0, done.output
    if "\n" not in name:
        line = next(line for line in done.output.splitlines() if "mergekit-yaml" in line)
        named = shlex.split(line.partition(": run ")[2])[1]
        assert Path(named) == Path(f"{where}/m.yml") and not named.startswith("-")


@pytest.mark.parametrize("text", ["./nothere", "../nothere", "/nothere/x", "~/nothere/x"])
def test_a_path_is_never_a_hub_id(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no such folder, and it is not a hub id"):
        resolve(text)


@pytest.mark.parametrize(
    ("given", "meant"), [("fp16", "float16"), ("bf16", "bfloat16"), ("half", "float16")]
)
def test_short_names_of_formats(given: str, meant: str) -> None:
    with pytest.raises(EvaluationError, match=f"--dtype {given}: .*did you mean '{meant}'"):
        check_dtype(given)
    with pytest.raises(EvaluationError, match=r"did you mean 'float32'"):
        check_dtype("flaot32")
