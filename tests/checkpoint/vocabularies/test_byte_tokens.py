"""Tables of ranks and tekken.json: files written here, against tiktoken, transformers and Mistral's
own library (where that is installed).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.checkpoint.vocabularies.byte_tokens import qwen_of, ranks_of, tekken_of, text_of
from safeswap.checkpoint.vocabularies.read import read_vocabulary

MERGED = [b"he", b"ll", b"hell", b" w", "ж".encode(), b"\xe6\xb0", "水".encode(), b"\x00\xff"]
TOKENS = [bytes([n]) for n in range(256)] + MERGED
PATTERN = r"\p{L}+|[^\p{L}]+"


def lines(tokens: list[bytes], first: int = 0) -> bytes:
    """A tiktoken file."""
    return b"".join(
        base64.b64encode(token) + f" {number}\n".encode()
        for number, token in enumerate(tokens, first)
    )


def tekken(
    tokens: list[bytes], special: int, version: str, names: list[str] | None
) -> dict[str, Any]:
    """A tekken.json of so many special tokens, the first of them named."""
    vocab = [
        {"rank": n, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
        for n, t in enumerate(tokens)
    ]
    config = {"pattern": PATTERN, "num_vocab_tokens": len(tokens), "version": version}
    config |= {"default_vocab_size": 260 + special, "default_num_special_tokens": special}
    made: dict[str, Any] = {"config": config, "vocab": vocab, "version": 1, "type": "Tekken"}
    if names is not None:
        made["special_tokens"] = [
            {"rank": n, "token_str": name, "is_control": True} for n, name in enumerate(names)
        ]
    return made


def test_bytes_are_written_as_the_fast_tokenizers_write_them() -> None:
    """By transformers' table, and by what the tokenizers library makes of a text."""
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    table = convert.bytes_to_unicode()
    assert {n: text_of(bytes([n])) for n in range(256)} == table
    tokenizers = pytest.importorskip("tokenizers")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("hello world", "жук\n水\t", "¡ñ­ÿ"):
        ((found, _),) = level.pre_tokenize_str(text)
        assert text_of(text.encode()) == found


def test_a_table_of_ranks_is_what_tiktoken_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    load = pytest.importorskip("tiktoken.load")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    for name in ("qwen.tiktoken", "tiktoken.model", "tokenizer.model", "mine.tiktoken"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(lines(TOKENS))
        (folder / "added_tokens.json").write_text('{"<|more|>": 900}')
        ranks = load.load_tiktoken_bpe(str(folder / name))
        special = {"<|more|>": 900}
        if name == "qwen.tiktoken":  # as its tokenization_qwen.py has them
            words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            words += [f"<|extra_{n}|>" for n in range(205)]
            special |= {word: len(TOKENS) + n for n, word in enumerate(words)}
        theirs = tiktoken.Encoding(
            name="x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        found = read_vocabulary(folder).tokens
        assert found is not None and len(found) == len(TOKENS) + len(special)
        for token in TOKENS:
            assert found[text_of(token)] == theirs.encode_single_token(token)
        for text in special:
            assert found[text] == theirs.encode_single_token(text)


NAMED = ["<unk>", "<s>", "</s>", "[INST]"]


@pytest.mark.parametrize(("version", "names", "special"), [("v3", None, 22), ("v11", NAMED, 6)])
def test_tekken_is_what_mistral_s_library_says(
    version: str, names: list[str] | None, special: int, tmp_path: Path
) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(tekken(TOKENS, special, version, names)))
    found = read_vocabulary(tmp_path).tokens
    assert found is not None and sorted(found.values()) == list(range(260 + special))
    by_hand = {text_of(token): special + n for n, token in enumerate(TOKENS[:260])}
    assert {t: n for t, n in found.items() if n >= special} == by_hand
    assert found["<unk>"] == 0 and found["[INST]"] == 3
    assert found[f"<SPECIAL_{special - 1}>"] == special - 1
    library = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    theirs = library.Tekkenizer.from_file(path)
    assert theirs.n_words == len(found)
    by_id = {number: token for token, number in found.items()}
    for number in range(special):
        assert theirs.id_to_piece(number) == by_id[number]
    for number in range(special, len(found)):
        piece = theirs.id_to_byte_piece(number, library.SpecialTokenPolicy.RAISE)
        assert text_of(piece) == by_id[number]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no tokens"),
        (b"aGU=\n", "line 1 has no rank"),
        (b"aGU= 1\naGU= 2\n", "line 2"),
        (b"aGU= 999999999\n", "line 1 has no rank"),
        (b"aGU= -1\n", "line 1 has no rank"),
        (b"\xff 0\n", "no base64"),
        (b"a 0\n", "no base64"),
        (b" 3\n", "empty"),
    ],
)
def test_tables_that_lie_are_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ranks_of(raw)


def changed(key: str, value: Any) -> dict[str, Any]:
    made = tekken(TOKENS, 6, "v11", NAMED)
    if key in made["config"]:
        made["config"][key] = value
    else:
        made[key] = value
    return made


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("config", None, "default_vocab_size"),
        ("default_vocab_size", 1 << 60, "default_vocab_size"),
        ("default_vocab_size", True, "default_vocab_size"),
        ("default_vocab_size", 5, "more special"),
        ("default_vocab_size", 9000, "ranks"),
        ("default_num_special_tokens", -1, "default_num_special_tokens"),
        ("vocab", {"a": 1}, "0 of 260 ranks"),
        ("vocab", [[]], "entry 0"),
        ("vocab", [{"rank": "0", "token_bytes": "aGU="}], "rank of entry 0"),
        ("vocab", [{"rank": 0, "token_bytes": "\ud800"}], "no base64"),
        ("vocab", [{"rank": 0, "token_bytes": "aGU="}] * 2, "before"),
        ("special_tokens", {}, "no list"),
        ("special_tokens", [{"rank": 0}], "no list"),
        ("special_tokens", [{"rank": 6, "token_str": "x"}], "rank 6 of 6"),
        (
            "special_tokens",
            [{"rank": 0, "token_str": "x"}, {"rank": 1, "token_str": "x"}],
            "before",
        ),
    ],
)
def test_a_tekken_that_lies_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tekken_of(changed(key, value))


def test_what_is_damaged_is_said_and_not_taken(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text(json.dumps(changed("vocab", [])))
    found = read_vocabulary(tmp_path)
    assert found.tokens is None and "tekken.json" in found.unread and "260 ranks" in found.unread


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 255))
def test_whatever_is_wrong_is_a_value_error(noise: bytes, at: int, byte: int) -> None:
    good = lines(TOKENS[:40])
    hurt = bytearray(good)
    hurt[at % len(good)] = byte
    for raw in (noise, good[: at % len(good)], bytes(hurt), good + noise):
        try:
            found = qwen_of(raw)
        except ValueError:
            continue
        assert len(found) > 208 and all(isinstance(token, str) for token in found)
