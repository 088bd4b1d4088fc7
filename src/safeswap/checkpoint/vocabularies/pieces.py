"""The pieces of a sentencepiece model (``tokenizer.model``), in the order of their ids.

The file is a protocol buffer (``sentencepiece_model.proto``): field 1 of the whole, repeated, is a
piece, and field 1 of a piece is its text. All else is passed over, but its lengths are checked: a
file that lies about them is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_TEXT, _SCORE, _KIND = 1 << 3 | _BYTES, 2 << 3 | _FIXED32, 3 << 3 | _VARINT
"""The keys of a piece's fields."""


@lru_cache(maxsize=2)
def pieces_of(raw: bytes) -> tuple[str, ...]:
    """The texts of a model's pieces; a piece's id is its place in the tuple. The members of a run
    mostly have one file, which is read once.

    Args:
        raw: the whole file.

    Raises:
        ValueError: it is no such file; says at which byte.
    """
    pieces = []
    for number, begin, end in _fields(raw, 0, len(raw)):
        if number == 1:
            pieces.append(_text_of(raw, begin, end).decode("utf-8"))
    if not pieces:
        raise ValueError("no pieces")
    return tuple(pieces)


def _text_of(raw: bytes, begin: int, end: int) -> bytes:
    """The text of a piece; as the library writes it (text, score, and a kind where it is not the
    usual one) it is cut out at once.
    """
    if end - begin > 1 and raw[begin] == _TEXT and raw[begin + 1] < 0x80:
        after = begin + 2 + raw[begin + 1]
        rest = end - after
        scored = rest in (5, 7) and raw[after] == _SCORE
        if rest == 0 or (scored and (rest == 5 or _is_kind(raw[after + 5 : end]))):
            return raw[begin + 2 : after]
    texts = [raw[b:e] for n, b, e in _fields(raw, begin, end) if n == 1]
    if len(texts) != 1:
        raise ValueError(f"the piece at byte {begin} has {len(texts)} texts")
    return texts[0]


def _is_kind(raw: bytes) -> bool:
    return raw[0] == _KIND and raw[1] < 0x80


def _fields(raw: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of every field of a message; empty where it has no bytes."""
    at = begin
    while at < end:
        key, at = _varint(raw, at, end)
        number, kind = key >> 3, key & 7
        size = 0
        if kind == _VARINT:
            _, at = _varint(raw, at, end)
        elif kind == _BYTES:
            size, at = _varint(raw, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no field at byte {at}")
        if number == 0 or at + size > end:
            raise ValueError(f"a field at byte {at} is longer than what holds it")
        yield number, at, at + size
        at += size


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at + shift >= end:
            raise ValueError(f"ends inside a number, at byte {at + shift}")
        byte = raw[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError(f"a number at byte {at} does not end")
