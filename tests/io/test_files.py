"""A small file is written whole, in its own place, and through no link that others laid there."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeswap.errors import OutputError
from safeswap.io.files import save_inside, save_text


def test_a_half_made_file_is_never_a_link_to_another(tmp_path: Path) -> None:
    """Its name is known beforehand: whoever fills the folder may lay a link there."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".page.html.part").symlink_to(mine)
    save_text(tmp_path / "page.html", "page")
    assert mine.read_text() == "mine"
    assert (tmp_path / "page.html").read_text() == "page"
    assert not (tmp_path / "page.html").is_symlink()


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".page.html.part").write_text("longer than what is to be written")
    save_text(tmp_path / "page.html", "page")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "page")]


def test_a_link_that_was_given_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "page.html").symlink_to(tmp_path / "there" / "page.html")
    save_text(tmp_path / "page.html", "page")
    assert (tmp_path / "there" / "page.html").read_text() == "page"


@pytest.mark.parametrize("name", ["page.html", "deep/page.html"])
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link_in_a_folder(
    tmp_path: Path, name: str, there: bool
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / Path(name).parts[0]).symlink_to(other if "/" in name else other / "page.html")
    if there:
        (other / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="is a link"):
        save_inside(folder, name, b"page")
    assert [path.read_text() for path in other.iterdir()] == ["mine"] * there


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    assert save_inside(tmp_path / "folder", "page.html", b"page") == tmp_path / "folder/page.html"
    assert (tmp_path / "real" / "page.html").read_bytes() == b"page"
