"""The fenced blocks of a page: shell commands, what they print, and why some are only parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELL = ("sh", "bash", "shell", "console")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_WHY = re.compile(r"<!-- parsed only: (.+?) -->\s*\Z", re.DOTALL)
_PROGRAM = re.compile(
    r"^(safeswap|pip|make|python3?|export|cd|eval|for|curl|docker) ", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        line: where it begins in its page, for messages.
        output: of the block of text right below it, or empty.
        why: the reason for which it is only parsed, or empty.
    """

    page: Path
    line: int
    language: str
    text: str
    output: str
    why: str

    @property
    def is_shell(self) -> bool:
        """Commands, also where the fence does not say so."""
        return self.language in SHELL or (
            not self.language and _PROGRAM.search(self.text) is not None
        )

    @property
    def lines(self) -> list[str]:
        """The commands, whole and without their comments."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        bare = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in bare if line]


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    for number, one in enumerate(found):
        below = found[number + 1] if number + 1 < len(found) else None
        printed = ""
        if below and below[1] == "text" and not text[one.end() : below.start()].strip():
            printed = below[2]
        why = _WHY.search(text, 0, one.start())
        line = text.count("\n", 0, one.start()) + 1
        yield Block(page, line, one[1], one[2], printed, why[1] if why else "")


def words(line: str) -> list[str]:
    """A command's words, as a shell splits them."""
    return shlex.split(line)
