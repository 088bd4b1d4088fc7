"""A Space's folder: the very page, a header that the hub's reader takes, nothing overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("jinja2")

from huggingface_hub import SpaceCard

from page_parts import HOSTILE, Page, check_locked, evaluated
from safeswap.cli import main
from safeswap.errors import OutputError
from safeswap.report.page import write_report


def test_it_is_the_page_with_a_header(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    page = write_report([folder], tmp_path / "page.html", samples=3, space=tmp_path / "space")
    assert sorted(path.name for path in (tmp_path / "space").iterdir()) == [
        "README.md",
        "index.html",
    ]
    text = (tmp_path / "space" / "index.html").read_text(encoding="utf-8")
    assert text == page.read_text(encoding="utf-8")
    check_locked(Page(text))
    data = SpaceCard.load(tmp_path / "space" / "README.md").data
    assert (data.sdk, data.app_file, data.title) == ("static", "index.html", "safeswap report")
    for path in (tmp_path / "space").iterdir():
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("title", HOSTILE[:6], ids=range(6))
def test_a_title_is_text(tmp_path: Path, title: str) -> None:
    folder = evaluated(tmp_path / "results").folder
    write_report(
        [folder], tmp_path / "page.html", title=f"{title}\nsdk: docker", space=tmp_path / "space"
    )
    card = SpaceCard.load(tmp_path / "space" / "README.md")
    assert card.data.sdk == "static" and "<" not in card.text


def test_it_is_written_again_and_takes_nothing_of_others(tmp_path: Path) -> None:
    folder, space = evaluated(tmp_path / "results").folder, tmp_path / "space"
    for title in ("one", "two"):
        write_report([folder], tmp_path / "page.html", title=title, space=space)
    assert "two" in (space / "README.md").read_text()
    (space / "README.md").write_text("# Mine\n")
    with pytest.raises(OutputError, match="is not of an earlier report"):
        write_report([folder], tmp_path / "page.html", space=space)
    assert (space / "README.md").read_text() == "# Mine\n"
    (space / "README.md").unlink()
    with pytest.raises(OutputError, match="is not of an earlier report"):
        write_report([folder], tmp_path / "page.html", space=space)
    with pytest.raises(OutputError, match="does not exist"):
        write_report([folder], tmp_path / "page.html", space=tmp_path / "no" / "space")
    with pytest.raises(OutputError, match="is a file"):
        write_report([folder], tmp_path / "page.html", space=tmp_path / "page.html")


@pytest.mark.parametrize("name", ["README.md", "index.html"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_folder_is_not_written_through(
    tmp_path: Path, name: str, there: bool
) -> None:
    """A folder that others made may have the card of an earlier report, and a link beside it."""
    folder, space, mine = evaluated(tmp_path / "results").folder, tmp_path / "space", tmp_path / "x"
    write_report([folder], tmp_path / "page.html", space=space)
    text = (space / name).read_bytes()
    if there:
        mine.write_bytes(text)
    (space / name).unlink()
    (space / name).symlink_to(mine)
    (tmp_path / "page.html").unlink()
    with pytest.raises(OutputError, match=f"{name}: is a link"):
        write_report([folder], tmp_path / "page.html", title="other", space=space)
    assert mine.exists() == there and (not there or mine.read_bytes() == text)
    assert not (tmp_path / "page.html").exists()  # refused before any work


def test_the_verb_says_how_it_gets_there(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    words = ["report", str(folder), "-o", str(tmp_path / "page.html"), "--space"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "my space")])
    assert done.exit_code == 0, done.output
    assert f"hf upload ORG/NAME '{tmp_path / 'my space'}' --repo-type space" in done.output
