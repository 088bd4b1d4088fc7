"""Ids that fairseq made of sentencepiece's (``sentencepiece.bpe.model``): XLM-R, mBART, NLLB, XGLM.

The model's own ids begin ``<unk>, <s>, </s>``; fairseq's ``<s>, <pad>, </s>, <unk>``, so that
every other piece lies one further on. What comes behind the pieces stands in the tokenizer's code:
a mask, codes of languages, made-up words. Source: transformers' slow tokenizers of these families,
up to version 4.57.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
_OFFSET = 1
_MADEUP_WORDS = 7
_FAMILIES = {
    "xlm-roberta": "XLMRobertaTokenizer",
    "xlm-roberta-xl": "XLMRobertaTokenizer",
    "xglm": "XGLMTokenizer",
    "mbart": "MBartTokenizer",
    "m2m_100": "NllbTokenizer",
}
"""``model_type`` → the tokenizer, where no tokenizer_config.json says it."""
_WITH_LANGUAGES = ("MBartTokenizer", "MBart50Tokenizer", "NllbTokenizer")


def tokenizer_class(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """A folder's slow tokenizer, by its tokenizer_config.json or its config.json; may be empty."""
    said = settings.get("tokenizer_class")
    if isinstance(said, str) and said:
        return said.removesuffix("Fast")
    family = config.get("model_type")
    return _FAMILIES.get(family, "") if isinstance(family, str) else ""


def fairseq_tokens(pieces: Sequence[str], kind: str, languages: Sequence[str]) -> dict[str, int]:
    """Tokens and their ids.

    Args:
        pieces: of the sentencepiece model, in its order.
        kind: the slow tokenizer's class.
        languages: the codes of languages that the folder lists, in their order; where it lists
            none, neither these nor the mask behind them are known.

    Raises:
        ValueError: another tokenizer's, or a model with other first pieces.
    """
    if kind not in (*_FAMILIES.values(), *_WITH_LANGUAGES):
        raise ValueError(f"ids that {kind or 'a tokenizer without a name'} makes are not known")
    if set(pieces[:3]) != {"<unk>", "<s>", "</s>"}:
        raise ValueError("its first three pieces are not <unk>, <s>, </s>")
    end = len(pieces) + _OFFSET
    found = {piece: number + _OFFSET for number, piece in enumerate(pieces) if number > 2}
    if kind == "XGLMTokenizer":
        found |= {f"<madeupword{number}>": end + number for number in range(_MADEUP_WORDS)}
    elif kind == "XLMRobertaTokenizer":
        found["<mask>"] = end
    elif languages:
        found |= {code: end + number for number, code in enumerate(languages)}
        found["<mask>"] = end + len(languages)
    return found | _HEAD


def m2m_languages(vocabulary: Mapping[str, int], languages: Sequence[str]) -> dict[str, int]:
    """M2M-100's tokens of languages (``__sw__``): behind its ``vocab.json``, in their order."""
    codes = [code for code in languages if code not in vocabulary]
    return {code: len(vocabulary) + number for number, code in enumerate(codes)}
