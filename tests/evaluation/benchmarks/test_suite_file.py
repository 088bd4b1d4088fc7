"""A suite's file names files below its own folder, unless its user says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.suites import make_suite

PROMPTS = "id,prompt,label\n1,May I?,safe\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite's folder, with one of its own files and others beside it."""
    home = tmp_path / "suite"
    (home / "data").mkdir(parents=True)
    for path in (home / "data" / "own.csv", tmp_path / "other.csv"):
        path.write_text(PROMPTS)
    (home / "link.csv").symlink_to(tmp_path / "other.csv")
    (home / "alias.csv").symlink_to(home / "data" / "own.csv")
    (home / "out").symlink_to(tmp_path)
    return home


def suite(folder: Path, named: str, kind: str) -> Path:
    path = folder / "suite.yaml"
    what = (
        f"prompts: {named}" if kind == "prompts" else f"tasks: {{en: {{task: t, file: {named}}}}}"
    )
    path.write_text(f"benchmarks: {{mine: {{{what}}}}}\n")
    return path


@pytest.mark.parametrize("kind", ["prompts", "file"])
def test_what_leads_outside_is_refused_without_consent(folder: Path, kind: str) -> None:
    outside = ("../other.csv", str(folder.parent / "other.csv"), "link.csv", "out/other.csv")
    for named in (*outside, "data/../../other.csv"):
        path = suite(folder, named, kind)
        with pytest.raises(EvaluationError, match="--allow-outside"):
            make_suite(str(path), ["en"])
        make_suite(str(path), ["en"], allow_outside=True)
    for named in ("data/own.csv", "alias.csv", "data/../data/own.csv", "out/suite/data/own.csv"):
        make_suite(str(suite(folder, named, kind)), ["en"])


def test_a_suite_reached_by_a_link_is_at_home_where_it_is_named(folder: Path) -> None:
    suite(folder, "data/own.csv", "prompts")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.symlink_to(folder)
    make_suite(str(elsewhere / "suite.yaml"), ["en"])
