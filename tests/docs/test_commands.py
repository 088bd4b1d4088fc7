"""Every command in a block of README and docs: run on the small world's models, or parsed.

A block of shell commands is run, in order, in the folder of its page. Where that wants a network,
a GPU, a hub or hours, ``<!-- parsed only: why -->`` stands above it, or its page in ``PARSED``. A
block of ``text`` right below is what the commands print: a line of ``…`` stands for any lines,
``…`` in a line for any text.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs.blocks import Block, blocks, words
from docs.command_lines import check
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.errors import SafeswapError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARSED = {
    "explore.md": "its own tests drive the page",
    "real-model.md": "fetches models and takes hours; nothing of it is in the wheel",
    "report.md": "the tour runs the verb; these folders stand for the reader's",
}
"""Pages whose blocks are only parsed, and why."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs" if page.parent != ROOT else ROOT))


def commands(page: Path) -> list[Block]:
    return [one for one in blocks(page) if one.is_shell]


def only_parsed(block: Block) -> str:
    return block.why or PARSED.get(named(block.page), "")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_is_not_run_has_a_reason_and_is_right(page: Path) -> None:
    for block in commands(page):
        if not only_parsed(block):
            continue
        assert not block.output, f"{named(page)}:{block.line}: output of what is not run"
        for line in block.lines:
            try:
                check(words(line))
            except Exception as error:
                said = error.message if isinstance(error, click.ClickException) else error
                pytest.fail(f"{named(page)}:{block.line}: {line}\n{said}")


@pytest.mark.parametrize(
    "line",
    [
        "safeswap mrege BASE",
        "safeswap merge BASE --safty S --language sw=L --out OUT",
        "safeswap merge BASE --safety S --language sw=L",
        "safeswap merge BASE --safety S --language sw=L --out OUT --alpha half",
        "safeswap merge BASE --safety S --language sw=L --out OUT --method gate",
        "safeswap plan profile.json --method gated --set gamme=1",
        "safeswap plan profile.json --operator ties --operator-set density=2",
        "safeswap evaluate … --suite papers",
        "safeswap evaluate … --prompts multijial",
        "safeswap label agrement sheet.csv",
        "pip install safeswap[evals]",
        "make dcos",
        "python -m small_world.nothing",
        "rm -rf OUT",
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    with pytest.raises((click.ClickException, SafeswapError, AssertionError)):
        check(words(line))


def test_a_block_has_its_language_its_output_and_its_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- parsed only: no hub -->\n```sh\nsafeswap a \\\n    --b  # why\n```\n"
        "```\nmake demo   # all\n```\n```text\nsaid\n```\n\n```\nkey: value\n```\n"
    )
    first, second, said, other = blocks(page)
    assert (first.why, first.lines, first.output) == ("no hub", ["safeswap a --b"], "")
    assert (second.why, second.lines, second.output) == ("", ["make demo"], "said\n")
    assert first.is_shell and second.is_shell and not said.is_shell and not other.is_shell
    assert [one.line for one in (first, second)] == [2, 6]


RUN = [page for page in PAGES if any(not only_parsed(one) for one in commands(page))]


@pytest.mark.parametrize("page", RUN, ids=named)
def test_what_can_be_run_is_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    # figures have tests of their own, and each is a process
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    DESKS.get(named(page), desk)(tmp_path)
    for block in commands(page):
        if only_parsed(block):
            continue
        printed = "".join(run(line, f"{named(page)}:{block.line}") for line in block.lines)
        if block.output:
            assert_printed(block, printed)


PYTHON = {
    "ablation.md": "it reads a sweep's results; tests/report/test_ablation.py makes some",
    "extend.md": "tests/docs/test_extend.py runs each with what it is for",
}
"""Pages whose Python is only compiled here, and why."""
SPOKEN = [page for page in PAGES if any(one.language == "python" for one in blocks(page))]


@pytest.mark.parametrize("page", SPOKEN, ids=named)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    for name, model in {"base": "base", "safety": "safety", "swahili": "qab"}.items():
        (tmp_path / name).symlink_to(models_folder() / model)
    for block in blocks(page):
        if block.language == "python":
            code = compile(block.text, f"{named(page)}:{block.line}", "exec", dont_inherit=True)
            if named(page) not in PYTHON:
                exec(code, {"__name__": "page"})


def run(line: str, at: str) -> str:
    """A command's output; ours in this process, anything else in a shell."""
    given = words(line)
    if given[0] == "safeswap":
        result = CliRunner().invoke(main, given[1:])
        assert result.exit_code == 0, f"{at}: {line}\n{result.output}"
        return result.output
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{at}: {line}\n{done.stderr}"
    return done.stdout


def assert_printed(block: Block, printed: str) -> None:
    """What the page says is what came, but for ``…``."""
    bare = [re.sub(r" +$", "", text, flags=re.MULTILINE) for text in (block.output, printed)]
    want, got = bare[0].replace("…", "..."), bare[1].replace("…", "...")
    checker = doctest.OutputChecker()
    example = doctest.Example("", want)
    if not checker.check_output(want, got, doctest.ELLIPSIS):
        said = checker.output_difference(example, got, doctest.REPORT_NDIFF)
        pytest.fail(f"{named(block.page)}:{block.line}:\n{said}")


def empty(folder: Path) -> None:
    """The reader begins with nothing."""


def desk(folder: Path) -> None:
    """The models under the names that pages use, with a profile and a plan of them."""
    models = models_folder()
    for name, model in {"BASE": "base", "S": "safety", "L": "qab"}.items():
        (folder / name).symlink_to(models / model)
    for line in (
        "safeswap profile BASE --safety S --language sw=L -o profile.json",
        "safeswap plan profile.json -o plan.yaml",
    ):
        run(line, "the desk")


DESKS: dict[str, Callable[[Path], None]] = {"tour.md": empty}
"""Page → what lies in its folder at the start, where it is not the desk."""
