"""``show`` on a run in several languages, and on a screen that is too small for its table."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from safeswap.cli import main


def test_every_language_of_a_run_is_shown(merged: Path) -> None:
    done = CliRunner().invoke(main, ["show", str(merged)])
    assert done.exit_code == 0, done.output
    for code in ("sw", "te"):
        alone = CliRunner().invoke(main, ["show", str(merged / code)])
        assert f"{merged / code}\n{alone.output}" in done.output
        assert f"configuration and tokenizer from: {code}" in alone.output


def test_a_document_or_a_figure_is_of_one(merged: Path, tmp_path: Path) -> None:
    for more in (["--json"], ["--png", str(tmp_path / "one.png")]):
        done = CliRunner().invoke(main, ["show", str(merged), *more])
        assert done.exit_code == 1 and "the folders in it: sw, te" in done.output
