"""Where the authors of a benchmark publish its prompts: files at one version, each with its digest.

A name alone fetches them (``--prompts multijail``). What is fetched is what was looked at when the
digest was written down here, or nothing: a host that answers with other bytes is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OriginFile:
    """One published file.

    Attributes:
        url: its address, https, at a fixed commit.
        sha256: its digest (hex).
        size: bytes.
        languages: what it holds, by code.
    """

    url: str
    sha256: str
    size: int
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """What an author published.

    Attributes:
        place: the repository, and its commit.
        licence: as the repository states it.
        files: those whose digests are known; only they can be fetched.
        form: how a file of one's own is given, after ``--prompts ``.
        unpinned: why there are languages or files that cannot be fetched; empty where all can.
    """

    place: str
    licence: str
    files: tuple[OriginFile, ...]
    form: str
    unpinned: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that can be fetched."""
        return tuple(dict.fromkeys(code for file in self.files for code in file.languages))


def github(repository: str, commit: str, path: str) -> str:
    """The address of a file's bytes in a repository on GitHub, at one commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
