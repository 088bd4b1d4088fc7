"""Ids that fairseq made of sentencepiece's: by hand, and as transformers loads such folders."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pieces import model_of
from safeswap.checkpoint.vocabularies.fairseq import fairseq_tokens
from safeswap.checkpoint.vocabularies.read import read_vocabulary

PIECES = ["<unk>", "<s>", "</s>", ",", "▁maji", "水"]
SHIFTED = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, ",": 4, "▁maji": 5, "水": 6}
CODES = ["swh_Latn", "kor_Hang"]


def folder_of(folder: Path, kind: str = "", pieces: list[str] = PIECES, **settings: Any) -> Path:
    """A folder with a model by hand, and what its tokenizer_config.json says."""
    folder.mkdir(exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model_of(pieces))
    if kind:
        settings["tokenizer_class"] = kind
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_by_hand(tmp_path: Path) -> None:
    mask = SHIFTED | {"<mask>": 7}
    assert read_vocabulary(folder_of(tmp_path / "a", "XLMRobertaTokenizerFast")).tokens == mask
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert read_vocabulary(folder_of(tmp_path / "b")).tokens == mask
    made_up = {f"<madeupword{n}>": 7 + n for n in range(7)}
    assert read_vocabulary(folder_of(tmp_path / "c", "XGLMTokenizer")).tokens == SHIFTED | made_up
    listed = folder_of(tmp_path / "d", "NllbTokenizer", additional_special_tokens=CODES)
    behind = {"swh_Latn": 7, "kor_Hang": 8, "<mask>": 9}
    assert read_vocabulary(listed).tokens == SHIFTED | behind
    assert read_vocabulary(folder_of(tmp_path / "e", "MBart50Tokenizer")).tokens == SHIFTED


def test_ids_that_a_folder_states_go_before_those_of_an_order(tmp_path: Path) -> None:
    stated = {str(20 + n): {"content": code, "special": True} for n, code in enumerate(CODES)}
    settings = {"additional_special_tokens": CODES, "added_tokens_decoder": stated}
    found = read_vocabulary(folder_of(tmp_path, "NllbTokenizer", **settings)).tokens
    assert found == SHIFTED | {"swh_Latn": 20, "kor_Hang": 21}


def test_m2m_has_its_languages_behind_its_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3}))
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": ["__sw__", {"content": "__ko__"}]})
    )
    found = read_vocabulary(folder_of(tmp_path, "M2M100Tokenizer")).tokens
    assert found is not None and (found["__sw__"], found["__ko__"], found["a"]) == (4, 5, 3)


def test_other_tokenizers_and_other_pieces_are_not_guessed(tmp_path: Path) -> None:
    for kind in ("CamembertTokenizer", ""):
        with pytest.raises(ValueError, match="not known"):
            fairseq_tokens(PIECES, kind, ())
    with pytest.raises(ValueError, match="first three"):
        fairseq_tokens(["<pad>", *PIECES], "XLMRobertaTokenizer", ())
    found = read_vocabulary(folder_of(tmp_path, "CamembertTokenizer"))
    assert found.tokens is None and "CamembertTokenizer" in found.unread


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("XLMRobertaTokenizer", "unigram"),
        ("MBartTokenizer", "bpe"),
        ("MBart50Tokenizer", "bpe"),
    ],
)
def test_as_transformers_loads_it(kind: str, algorithm: str, tmp_path: Path) -> None:
    """Where sentencepiece is installed, which transformers needs for it; codes of languages as its
    class lists them."""
    library: Any = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    transformers = pytest.importorskip("transformers")
    made = io.BytesIO()
    texts = iter(["the river runs past the old mill, and the boat drifts on the lake"] * 30)
    library.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=made, vocab_size=26, model_type=algorithm
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(made.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    theirs = getattr(transformers, kind).from_pretrained(tmp_path).get_vocab()
    codes = [t for t in sorted(theirs, key=lambda t: theirs[t]) if t[2:3] == "_" and len(t) == 5]
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": codes})
    )
    assert read_vocabulary(tmp_path).tokens == theirs
