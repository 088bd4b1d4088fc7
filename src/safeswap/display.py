"""Text that came from elsewhere, as a terminal may be given it: shown, and never obeyed."""

from __future__ import annotations

import re

# C0 and C1 but tab and the ends of lines, DEL, marks that turn the direction of writing or break
# lines, invisible tags, half surrogate pairs. Joiners stay: Bengali and Telugu need them.
_OBEYED = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    r"\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")


def visible(text: str) -> str:
    r"""The text with what a terminal obeys written out: ESC as ``\x1b``; lines and tabs stay.

    >>> visible("\x1b]0;owned\x07 red")
    '\\x1b]0;owned\\x07 red'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same on one line, for titles."""
    return visible(text.replace("\r", " ").replace("\n", " ").replace("\t", " "))


def undirected(text: str) -> str:
    r"""The text with marks that turn the direction of writing written out, ``\u202e``."""
    return _BIDI.sub(lambda found: ascii(found[0])[1:-1], text)


def json_visible(text: str) -> str:
    """A JSON document in which what a terminal obeys is escaped as JSON escapes it."""

    def escaped(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))

    return _OBEYED.sub(escaped, text)


# up to the @: a user and a password; or, after a colon that no port follows, a password with
# characters that should have been escaped
_LOGIN = re.compile(r"(?<=://)(?:[^/?#\s@]*@|[^/?#\s:@]*:(?!\d*(?:[/?#\s]|$))[^\s]*@)+")
_SECRET = re.compile(
    r"(?i)(?<=[?&])([\w.-]*(?:key|token|secret|passw|pwd|sig|auth)[\w.-]*)=[^&#\s]+"
)


def without_password(text: str) -> str:
    """Text in which no address has a user, a password or the value of a key any more.

    >>> without_password("https://me:secret@host:8000/v1?api-key=abc&version=2")
    'https://host:8000/v1?api-key=…&version=2'
    """
    return _SECRET.sub(r"\1=…", _LOGIN.sub("", text)) if "://" in text else text
