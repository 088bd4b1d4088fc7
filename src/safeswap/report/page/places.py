"""Names for a page that leaves this machine: no path of it is told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from safeswap.display import without_password
from safeswap.tables import Facts

_PATH = re.compile(r"(?<![\w/.~-])/(?:[^/\s,;:'\"()]+/)+([^/\s,;:'\"()]+)")


def named(paths: Sequence[Path], given: Sequence[Path]) -> dict[Path, str]:
    """A name for every run: from the folder that was given on, so that equal names are told apart.

    A run that was given itself is called by as many parts of its path as tell it from others.
    """
    names: dict[Path, str] = {}
    for path in paths:
        home = next((one for one in given if one in path.parents), None)
        names[path] = str(path.relative_to(home)) if home else (path.name or path.resolve().name)
    alike = {name for name, count in Counter(names.values()).items() if count > 1}
    return {
        path: "/".join(path.parts[-2:]) if name in alike else name for path, name in names.items()
    }


class Public:
    """Texts without this machine's paths: known places by their names, others by their last part.

    Args:
        places: path as a text may have it → its name.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = sorted(places.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, text: str) -> str:
        """The text, without passwords too."""
        for path, name in self._places:
            if "/" in path:
                text = text.replace(path, name)
        return without_password(_PATH.sub(r"\1", text))

    def facts(self, facts: Facts) -> list[tuple[str, str]]:
        """The same for the head of a report."""
        return [(name, self(text)) for name, text in facts]
