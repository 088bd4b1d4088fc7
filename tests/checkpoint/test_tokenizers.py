"""Tokenizers compared: which tokens there are, and how a text is cut into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safeswap.checkpoint import join_family, open_checkpoint
from tiny import edit_json, make_trio, refused

Trio = dict[str, Path]
ROLES = ("base", "safety", "sw")


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return make_trio(tmp_path / "trio")


def notes_of(trio: Trio, force: bool = False) -> tuple[str, ...]:
    return join_family({role: open_checkpoint(trio[role]) for role in ROLES}, force=force).notes


def slow(trio: Trio) -> None:
    """Tokenizers whose vocabulary is a file that is not read."""
    for role in ROLES:
        (trio[role] / "tokenizer.json").unlink()
        (trio[role] / "tokenizer.model").write_bytes(b"pieces")


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("closed", [True, False])
def test_tokens_of_slow_tokenizers_are_compared(trio: Trio, where: str, closed: bool) -> None:
    if closed:
        slow(trio)

    def add(role: str, token: str, number: int) -> None:
        table: dict[str, Any] = {token: number}
        if where == "tokenizer_config.json":
            table = {"added_tokens_decoder": {str(number): {"content": token}}}
        (trio[role] / where).write_text("{}")
        edit_json(trio[role] / where, **table)

    add("sw", "<new>", 9)
    assert any("sw: its tokenizer adds '<new>'" in note for note in notes_of(trio))
    add("safety", "<safe>", 9)
    if not closed:  # whose tokens are known: each comes from the one that has it
        family = join_family({role: open_checkpoint(trio[role]) for role in ROLES})
        assert family.alignment is not None
        assert family.alignment.tokens["safety"]["<safe>"] == 9
        return
    refused(lambda: notes_of(trio), "sw expert", "id 9", "'<new>'", "'<safe>'", "safety expert's")
    add("safety", "<new>", 8)
    refused(lambda: notes_of(trio), "sw expert", "'<new>'", "the id 9", "8")


@pytest.mark.parametrize("value", ["x", None, 1.5, [1]])
def test_added_tokens_that_are_no_ids_are_refused(trio: Trio, value: Any) -> None:
    (trio["sw"] / "added_tokens.json").write_text("{}")
    edit_json(trio["sw"] / "added_tokens.json", **{"<x>": value})
    refused(lambda: notes_of(trio), str(trio["sw"]), "added tokens", "Fetch")


WORDS = {"a": 0, "b": 1, "ab": 2, "ba": 3}
BPE = {"type": "BPE", "vocab": WORDS, "merges": ["a b", "b a"]}


def give(trio: Trio, role: str, **parts: Any) -> None:
    edit_json(trio[role] / "tokenizer.json", **parts)


CUTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "merges": (BPE | {"merges": ["b a", "a b"]}, "model.merges", "'b a'"),
    "fewer-merges": (BPE | {"merges": ["a b"]}, "model.merges", "1 entries"),
    "type": (BPE | {"type": "WordPiece"}, "model.type", "'WordPiece'"),
}


@pytest.mark.parametrize("case", CUTS)
def test_one_vocabulary_cut_otherwise_is_refused(trio: Trio, case: str) -> None:
    for role in ROLES:
        give(trio, role, model=BPE)
    pairs = [["a", "b"], ["b", "a"]]
    give(trio, "safety", model=BPE | {"merges": pairs, "ignore_merges": False, "dropout": None})
    assert notes_of(trio) == ()  # two spellings of the same
    model, key, shown = CUTS[case]
    give(trio, "sw", model=model)
    refused(lambda: notes_of(trio), "sw expert", str(trio["sw"]), key, shown, "other tokens", "Use")
    assert any(note.startswith("sw: ") and key in note for note in notes_of(trio, force=True))


def test_other_scores_of_a_unigram_are_refused(trio: Trio) -> None:
    for role, score in (("base", -1.0), ("safety", -1.0000001), ("sw", -2.0)):
        model = {"type": "Unigram", "vocab": [["a", 0.0], ["b", score]]}
        give(trio, role, model=model)
    words = ("sw expert", "model.scores", "'b' is -2.0, the base has -1.0")
    refused(lambda: notes_of(trio), *words)


def test_merges_beside_a_vocab_json_are_compared(trio: Trio) -> None:
    for role in ROLES:
        (trio[role] / "tokenizer.json").unlink()
        (trio[role] / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "ba": 3}')
        (trio[role] / "merges.txt").write_text("#version: 0.2\na b\nb a\n")
    assert notes_of(trio) == ()
    (trio["sw"] / "merges.txt").write_text("b a\na b\n")
    refused(lambda: notes_of(trio), "sw expert", "model.merges", "'b a'", "'a b'")


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
def test_another_step_before_or_after_is_noted(trio: Trio, part: str) -> None:
    give(trio, "sw", **{part: {"type": "Lowercase"}})
    (note,) = notes_of(trio)
    assert note.startswith("sw: ") and part in note and "Lowercase" in note and "nothing" in note


def test_settings_of_the_tokenizer_are_noted_and_free_ones_are_not(trio: Trio) -> None:
    for role in ROLES:
        free = {"model_max_length": len(role), "padding_side": role, "tokenizer_class": role}
        (trio[role] / "tokenizer_config.json").write_text("{}")
        edit_json(trio[role] / "tokenizer_config.json", bos_token="<s>", **free)
    edit_json(trio["safety"] / "tokenizer_config.json", bos_token={"content": "<s>"})
    assert notes_of(trio) == ()
    edit_json(trio["sw"] / "tokenizer_config.json", add_bos_token=True)
    (note,) = notes_of(trio)
    assert "add_bos_token = True, the base says nothing" in note
