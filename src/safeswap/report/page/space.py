"""The page as a folder that a Space of the hub shows: ``index.html``, and a card that says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safeswap.errors import OutputError, SafeswapError
from safeswap.io.files import check_no_link, save_inside
from safeswap.publish.card_header import hub_inputs
from safeswap.report.page.runs import MergeRun
from safeswap.tables import plain
from safeswap.tables.markdown import in_markdown

CARD, PAGE = "README.md", "index.html"
_TAG = "safeswap-report"
_LARGEST = 1 << 20
"""Bytes of a card that is looked at: far more than one of ours has."""


def check_space(folder: Path) -> None:
    """Refuse a folder in which something would be lost; writes nothing.

    Raises:
        OutputError: it is a file, or its card or page is a link, or not one of ours.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--space {folder}: is a file. Give a folder, which is made if missing.")
    for name in (CARD, PAGE):
        check_no_link(folder, name)
    card, page = folder / CARD, folder / PAGE
    if card.exists() or page.exists():
        if not _is_ours(card):
            raise OutputError(
                f"--space {folder}: its {CARD} or {PAGE} is not of an earlier report, and would be "
                "lost. Choose another folder."
            )
    elif not folder.exists() and not folder.parent.is_dir():
        raise OutputError(f"--space {folder}: {folder.parent} does not exist. Make it first.")


def _is_ours(card: Path) -> bool:
    from huggingface_hub import SpaceCard

    try:
        if card.stat().st_size > _LARGEST:
            return False
        data: Any = SpaceCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        return data.sdk == "static" and _TAG in (data.tags or ())
    except Exception:  # no card, or somebody else's: whatever is wrong with it, it is not ours
        return False


def write_space(folder: Path, page: str, title: str, merges: Sequence[MergeRun]) -> Path:
    """Write the folder.

    Args:
        page: the page's text.
        title: of the Space.
        merges: what the page is on; the hub links the models that they came from.

    Returns:
        The folder.

    Raises:
        OutputError: as `check_space`, or it cannot be written.
    """
    from huggingface_hub import SpaceCardData

    check_space(folder)
    models = dict.fromkeys(name for one in merges if one.manifest for name in _inputs(one))
    header = SpaceCardData(
        title=plain(title),
        sdk="static",
        app_file=PAGE,
        models=list(models) or None,
        tags=["safeswap", _TAG],
        pinned=False,
    )
    text = f"---\n{header.to_yaml()}\n---\n\n# {in_markdown(title)}\n\n{_ABOUT}\n"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"--space {folder}: cannot be made ({error.strerror}).") from error
    save_inside(folder, PAGE, page.encode())
    save_inside(folder, CARD, text.encode())
    return folder


_ABOUT = (
    "Which layers of a merge came from where, whether it is safer and by how much, and how to make "
    "it again: one page by `safeswap report`, which loads nothing from elsewhere."
)


def _inputs(merge: MergeRun) -> list[str]:
    """Hub ids of what a merge was made from."""
    try:
        return [*hub_inputs(merge.manifest)]
    except (SafeswapError, KeyError, TypeError, AttributeError):  # of another version
        return []
