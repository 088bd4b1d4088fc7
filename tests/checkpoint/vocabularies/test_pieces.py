"""A sentencepiece model's pieces: files written by hand, by the library, and damaged ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pieces import field, model_of, varint
from safeswap.checkpoint.vocabularies.pieces import pieces_of

TEXTS = ["<unk>", "<s>", "▁maji", "x" * 300, "", "水"]


def test_a_file_written_by_hand() -> None:
    assert pieces_of(model_of(TEXTS)) == tuple(TEXTS)
    assert pieces_of(model_of(TEXTS, [2, 3, None, 300, 1, 6])) == tuple(TEXTS)
    swapped = field(1, b"\x15abcd" + field(1, b"late"))  # fields may come in any order
    assert pieces_of(swapped + model_of(["b"])) == ("late", "b")


def test_a_file_of_the_library() -> None:
    """Trained by sentencepiece itself, where it is installed."""
    library: Any = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    texts = iter(["the river runs past the old mill", "a boat drifts on the lake"] * 20)
    library.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=made, vocab_size=26, user_defined_symbols=["<x>"]
    )
    processor = library.SentencePieceProcessor(model_proto=made.getvalue())
    wanted = [processor.id_to_piece(n) for n in range(processor.get_piece_size())]
    assert pieces_of(made.getvalue()) == tuple(wanted)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_whatever_is_wrong_is_a_value_error(noise: bytes, at: int, byte: int) -> None:
    good = model_of(["<unk>", "ab", "c"])
    changed = bytearray(good)
    changed[at % len(good)] = byte
    for raw in (noise, good[: at % len(good)], bytes(changed), good + noise):
        try:
            found = pieces_of(raw)
        except ValueError:
            continue
        assert found and all(isinstance(piece, str) for piece in found)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"pieces",
        field(2, b"x"),  # no piece
        varint(1 << 3 | 2) + varint(1 << 40) + b"x",  # longer than the file
        field(1, varint(1 << 3 | 2) + varint(9) + b"x"),  # longer than what holds it
        field(1, field(1, b"a") + field(1, b"b")),  # two texts
        field(1, b"\x15abcd"),  # none
        field(1, field(1, b"\xff")),  # not UTF-8
        b"\x0b",  # a group
        b"\x80" * 12,  # a number without an end
        b"\x02\x00",  # field 0
    ],
)
def test_files_that_lie_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        pieces_of(raw)


def test_what_is_read_of_a_large_file_is_quick(tmp_path: Path) -> None:
    """256 000 pieces, as Gemma's: no quadratic step."""
    texts = [f"▁piece{n}" for n in range(256_000)]
    assert pieces_of(model_of(texts))[-1] == texts[-1]
