"""Which tensors have a row per token, where tokens are read from, and which row is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pieces import model_of
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.vocabularies.align import Alignment, token_tables
from safeswap.checkpoint.vocabularies.read import read_vocabulary
from safeswap.checkpoint.vocabularies.special import disagreements
from safeswap.checkpoint.vocabularies.view import map_rows
from safeswap.errors import CheckpointError, FamilyError


def tensors_of(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(len(folder.name))
    arrays: Any = {n: chance.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    save_file(arrays, folder / "a.safetensors")
    return {t.name: t for t in read_header(folder / "a.safetensors").tensors}


def shapes_of(words: int, layered: int) -> dict[str, tuple[int, ...]]:
    return {
        "model.embed_tokens.weight": (words, 4),
        "model.embed_tokens_per_layer.weight": (layered, 6),
        "model.per_layer_model_projection.weight": (6, 4),
        "model.embed_positions.weight": (words, 4),
        "model.layers.0.self_attn.q_proj.weight": (words, 4),
        "model.norm.weight": (words,),
        "lm_head.weight": (words, 4),
        "lm_head.bias": (words,),
        "final_logits_bias": (1, words),
    }


TABLES = {
    "model.embed_tokens.weight",
    "model.embed_tokens_per_layer.weight",
    "lm_head.weight",
    "lm_head.bias",
    "final_logits_bias",
}


def test_tables_are_known_by_their_height_and_their_place(tmp_path: Path) -> None:
    """Per-token biases and Gemma 3n's per-layer embeddings, which are lower, among them."""
    tensors = {
        "base": tensors_of(tmp_path / "base", shapes_of(40, 32)),
        "sw": tensors_of(tmp_path / "other", shapes_of(48, 36)),
    }
    configs: dict[str, dict[str, Any]] = {
        "base": {
            "text_config.vocab_size": 40,
            "text_config.vocab_size_per_layer_input": 32,
            "vision_config.vocab_size": 6,
        },
        "sw": {
            "text_config.vocab_size": 48,
            "text_config.vocab_size_per_layer_input": 36,
            "vision_config.vocab_size": 6,
        },
    }
    assert token_tables(configs, tensors) == TABLES
    configs["sw"]["text_config.vocab_size"] = 40  # not what its matrices are
    assert token_tables(configs, tensors) == frozenset()


def values(tensor: Tensor) -> Any:
    out = np.empty(tensor.elements)
    with tensor.reader() as reader:
        reader.read_numbers(0, tensor.elements, out)
    return out.reshape(tensor.shape)


def test_every_table_is_mapped_by_its_own_height(tmp_path: Path) -> None:
    """A token beyond a member's rows is none of it, whatever its tokenizer says."""
    tokens = {
        "base": {f"t{n}": n for n in range(40)},
        "safety": {f"t{n}": 39 - n for n in range(40)},
        "sw": {f"t{n}": (n + 3) % 44 for n in range(44)},
    }
    tensors = {
        "base": tensors_of(tmp_path / "base", shapes_of(40, 32)),
        "safety": tensors_of(tmp_path / "safety", shapes_of(40, 32)),
        "sw": tensors_of(tmp_path / "swahili", shapes_of(48, 36)),
    }
    stored = {role: dict(own) for role, own in tensors.items()}
    rows = map_rows(Alignment(tokens, frozenset(TABLES)), tensors, "sw", tmp_path)
    for name in TABLES:
        flat = {
            role: values(own[name]).reshape(-1) if own[name].shape[0] == 1 else values(own[name])
            for role, own in stored.items()
        }
        found = {role: values(own[name]).reshape(flat["sw"].shape) for role, own in tensors.items()}
        merged = 0
        for row in range(len(flat["sw"])):
            token = next((t for t, n in tokens["sw"].items() if n == row), None)
            places = {role: own.get(str(token), 10**9) for role, own in tokens.items()}
            shared = all(places[role] < len(flat[role]) for role in tokens)
            merged += shared
            for role in tokens:
                wanted = flat[role][places[role]] if shared else flat["sw"][row]
                assert np.array_equal(found[role][row], wanted), (name, row, role)
        record = rows.tables[name]
        assert (record.rows, record.merged) == (len(flat["sw"]), merged)
        assert record.donor + record.merged + record.padding == record.rows
    assert rows.dropped == {"base": 0, "safety": 0, "sw": 0}


def test_two_strings_of_one_id_and_ids_below_0(tmp_path: Path) -> None:
    shapes = {"e.weight": (4, 2)}
    tensors = {role: tensors_of(tmp_path / role, shapes) for role in ("base", "safety", "sw")}
    tokens = {
        "base": {"a": 0, "b": 1, "c": -1, "d": 10**30},
        "safety": {"a": 1, "b": 0, "c": 2, "d": 3},
        "sw": {"z": 0, "a": 0, "b": 1, "c": 2, "d": 3},
    }
    rows = Alignment(tokens, frozenset(shapes)).rows(
        "sw", ("base", "safety", "sw"), {role: own["e.weight"] for role, own in tensors.items()}
    )
    assert {r: v.tolist() for r, v in rows.items()} == {
        "base": [0, 1, -1, -1],
        "safety": [1, 0, -1, -1],
        "sw": [0, 1, -1, -1],
    }


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


ADDED = {"added_tokens_decoder": {"3": {"content": "<x>"}}}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"tokenizer__json": {"model": {"vocab": {"a": 1}}}}, {"a": 1}),
        ({"tokenizer__json": {"model": {"vocab": [["a", 0.0], ["b", -1.0]]}}}, {"a": 0, "b": 1}),
        ({"vocab__json": {"a": 1}, "merges__txt": ""}, {"a": 1}),
        ({"vocab__txt": "[UNK]\r\nmaji\n##ji\n"}, {"[UNK]": 0, "maji": 1, "##ji": 2}),
        ({"tokenizer__model": model_of(["<unk>", "▁a"])}, {"<unk>": 0, "▁a": 1}),
        ({"spiece__model": model_of(["<unk>", "▁a"])}, {"<unk>": 0, "▁a": 1}),
    ],
)
def test_every_kind_of_file_and_what_is_added(
    tmp_path: Path, files: dict[str, Any], wanted: dict[str, int]
) -> None:
    folder = write(tmp_path, **files)
    assert read_vocabulary(folder).tokens == wanted
    write(folder, tokenizer_config__json=ADDED, added_tokens__json={"<y>": 4})
    assert read_vocabulary(folder).tokens == wanted | {"<x>": 3, "<y>": 4}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    found = read_vocabulary(write(tmp_path / "a", tokenizer__model=b"pieces"))
    assert found.tokens is None and "no sentencepiece model" in found.unread
    found = read_vocabulary(write(tmp_path / "b", vocab__txt=b"\xff\xfe"))
    assert found.tokens is None and "is no text" in found.unread
    found = read_vocabulary(write(tmp_path / "c", **{"sentencepiece__bpe__model": b"x"}))
    assert found.tokens is None and "no sentencepiece model" in found.unread
    bad: list[dict[str, Any]] = [{"vocab__json": {"a": "b"}}]
    bad += [{"tokenizer__json": {"model": {"vocab": v}}} for v in (["a"], [["a"]], [["a", 0, 0]])]
    for files in bad:
        with pytest.raises(FamilyError, match="no vocabulary that can be read"):
            read_vocabulary(write(tmp_path / "d", **files))
    folder = write(tmp_path / "e")
    (folder / "tokenizer.model").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        read_vocabulary(folder)


def test_a_donor_whose_own_files_do_not_go_together(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        tokenizer_config__json={"eos_token": {"content": "</s>"}, "pad_token": "<pad>"},
        config__json={"eos_token_id": 2, "pad_token_id": 0},
        generation_config__json={"eos_token_id": [2, 5]},
    )
    assert disagreements(folder, {"</s>": 5, "<pad>": 0}, 8) == []
    lines = disagreements(folder, {"</s>": 7, "<pad>": 1, "<new>": 9}, 8)
    assert [any(word in line for line in lines) for word in ("'</s>' has the id 7", "[2, 5]")]
    assert len(lines) == 3 and "1 tokens" in lines[2] and "8 rows" in lines[2]
    assert "answers may not end" in lines[0] and "'<pad>' has the id 1" in lines[1]
