"""Trios whose members have tokenizers of their own, trained for real, and rows that go with them.

`member` writes a tiny Llama: the row of a token is the base's row of the same string, a small step
away; a token that the base does not have gets a row of its own, and so does padding. `merged_rows`
is what a table of the output must be, in float64, worked out by token string from what the
`tokenizers` library says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from oracle import State, state_of

TEXTS = [
    "the river runs past the old mill and the miller grinds the grain of the whole valley",
    "a small boat drifts on the lake while the children count the birds over the water",
    "in the morning the baker opens the shop and the smell of bread fills the narrow street",
    "she reads the letter twice, folds it, and puts it back into the drawer of the desk",
    "rain on the roof, wind in the trees, a lamp in the window of the house on the hill",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"


def bpe() -> Tokenizer:
    """Byte-level, as Llama 3, Qwen and GPT-2 have it."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    return made


def unigram() -> Tokenizer:
    """As sentencepiece makes it: T5, Gemma's kin."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    made.train_from_iterator(TEXTS, trainer)
    return made


def wordpiece() -> Tokenizer:
    """As BERT's."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL)
    made.train_from_iterator(TEXTS, trainer)
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bpe": bpe,
    "unigram": unigram,
    "wordpiece": wordpiece,
}


def grown(tokenizer: Tokenizer, count: int, name: str = "neno") -> Tokenizer:
    """The same with so many added tokens."""
    made = Tokenizer.from_str(tokenizer.to_str())
    made.add_tokens([f"{name}{n}" for n in range(count)])
    return made


def moved(tokenizer: Tokenizer, seed: int = 0) -> Tokenizer:
    """The same tokens under other ids, special ones too."""
    content = json.loads(tokenizer.to_str())
    count = tokenizer.get_vocab_size()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    table = content["model"]["vocab"]
    if isinstance(table, list):
        pieces: list[Any] = [None] * len(table)
        assert len(table) == count, "move before growing"
        for number, piece in enumerate(table):
            pieces[order[number]] = piece
        content["model"]["vocab"] = pieces
        content["model"]["unk_id"] = order[content["model"]["unk_id"]]
    else:
        content["model"]["vocab"] = {token: order[number] for token, number in table.items()}
    for token in content["added_tokens"]:
        token["id"] = order[token["id"]]
    content["added_tokens"].sort(key=lambda token: token["id"])
    return Tokenizer.from_str(json.dumps(content))


def steps(state: State, seed: int) -> State:
    """A fine-tune: small seeded steps from a state."""
    chance = torch.Generator().manual_seed(seed)
    return {
        name: weight
        + 0.02 * torch.rand(1, generator=chance) * torch.randn(weight.shape, generator=chance)
        for name, weight in state.items()
    }


def member(
    folder: Path,
    tokenizer: Tokenizer,
    base: Path | None = None,
    *,
    seed: int = 0,
    height: int | None = None,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """Write a checkpoint whose rows go with its tokenizer.

    Args:
        base: what it is a fine-tune of; None for a start of its own.
        height: rows of embeddings and projection; as many as tokens by default.
    """
    tokens = tokenizer.get_vocab()
    height = height or len(tokens)
    settings = LlamaConfig(
        **{
            "vocab_size": height,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": tied,
            "bos_token_id": tokens["<s>"],
            "eos_token_id": tokens["</s>"],
            "pad_token_id": tokens["<pad>"],
            **config,
        }
    )
    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(settings)
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    for name in (EMBED, HEAD):
        own[name] = 0.3 * torch.randn(height, 16)
    if base is not None:
        before = state_of(base)
        before.setdefault(HEAD, before[EMBED])
        inside = steps({n: w.float() for n, w in before.items()}, seed)
        ids = tokens_of(base)
        for name, weight in inside.items():
            if name not in (EMBED, HEAD):
                own[name] = weight
                continue
            for token, row in tokens.items():
                if token in ids:
                    own[name][row] = weight[ids[token]]
    if tied:
        own[HEAD] = own[EMBED]
    model.load_state_dict(own)
    model.to(dtype)
    model.generation_config.eos_token_id = settings.eos_token_id
    model.generation_config.pad_token_id = settings.pad_token_id
    model.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def tokens_of(folder: Path) -> dict[str, int]:
    """Token → id, as the `tokenizers` library reads the folder."""
    return dict(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())


def as_ranks(folder: Path) -> Path:
    """Write a folder's byte-level tokens as a table of ranks, with special and added ones in
    tokenizer_config.json, in place of its tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text())
    added = {token["id"]: token["content"] for token in content["added_tokens"]}
    byte_of = {text: byte for byte, text in bytes_to_unicode().items()}
    lines = [
        base64.b64encode(bytes(byte_of[one] for one in token)).decode() + f" {number}\n"
        for token, number in sorted(content["model"]["vocab"].items(), key=lambda pair: pair[1])
        if number not in added
    ]
    (folder / "tokenizer.json").unlink()
    (folder / "tiktoken.model").write_text("".join(lines))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    decoder = {str(number): {"content": token} for number, token in added.items()}
    settings["added_tokens_decoder"] = decoder
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def merged_rows(
    trio: Mapping[str, Path], name: str, weights: Mapping[str, float], donor: str
) -> torch.Tensor:
    """The rows that an output must have, in float64: ``base + Σ w · (expert − base)`` where all
    members have the token, and the donor's everywhere else.
    """
    states = {role: state_of(folder) for role, folder in trio.items()}
    tables = {r: state.get(name, state[EMBED]).double() for r, state in states.items()}
    ids = {role: tokens_of(folder) for role, folder in trio.items()}
    found = tables[donor].clone()
    for token, row in ids[donor].items():
        if all(token in own and own[token] < len(tables[r]) for r, own in ids.items()):
            if row >= len(found):
                continue
            start = tables["base"][ids["base"][token]]
            found[row] = start + sum(
                weight * (tables[role][ids[role][token]] - start)
                for role, weight in weights.items()
            )
    return found
