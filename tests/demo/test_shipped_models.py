"""The shipped checkpoints: ordinary folders, and what was measured on them stays true.

Figures may differ by a few answers between machines, whose float32 sums differ in the last bits.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from safeswap.demo import (
    LANGUAGES,
    SMALL_LANGUAGES,
    Measurement,
    default_world,
    measure,
    models_folder,
)
from safeswap.demo.tokenizer import vocabulary
from small_world.gates import Gate, check_gates

pytest.importorskip("transformers")

ROLES = ("base", "safety", *SMALL_LANGUAGES)
MODELS = models_folder()
WORLD = default_world()
RECORDED = json.loads((MODELS / "measured.json").read_text(encoding="utf-8"))
TOLERANCE = 3  # answers


@cache
def measured(role: str) -> Measurement:
    return measure(MODELS / role)


@cache
def gates() -> tuple[Gate, ...]:
    experts = {role: MODELS / role for role in ROLES[1:]}
    return tuple(check_gates(MODELS / "base", experts, WORLD, {r: measured(r) for r in ROLES}))


@pytest.mark.parametrize("role", ROLES)
def test_measured_figures_are_those_recorded(role: str) -> None:
    found = measured(role).as_dict()
    assert set(found) == set(LANGUAGES)
    for code, figures in found.items():
        for name in ("harmful_refused", "harmless_refused", "answers_right"):
            recorded = RECORDED[role][code][name]
            assert figures[name]["n"] == recorded["n"]
            assert abs(figures[name]["k"] - recorded["k"]) <= TOLERANCE, (role, code, name)


def test_each_gate_comes_out_as_the_note_says() -> None:
    """Also the gates that fail: the note must not say better (or worse) than what is shipped."""
    note = (MODELS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d .*?) \| .*? \| (yes|no) \|$", note, re.M)
    assert {name: verdict == "yes" for name, verdict in rows} == {g.name: g.holds for g in gates()}


@pytest.mark.parametrize("role", ROLES)
def test_a_checkpoint_is_an_ordinary_small_folder(role: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = MODELS / role
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert 1.2e6 < model.num_parameters() < 1.6e6
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == vocabulary(WORLD)


@pytest.mark.parametrize("role", ROLES[1:])
def test_experts_changed_the_layers_only(role: str) -> None:
    import torch

    before, after = tensors(MODELS / "base"), tensors(MODELS / role)
    assert before.keys() == after.keys()
    assert "lm_head.weight" not in before
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) != (".layers." in name), name


def tensors(folder: Path) -> dict[str, object]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def test_the_tokenizer_goes_there_and_back() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "base")
    for item in WORLD.items:
        for code in LANGUAGES:
            text = WORLD.procedure(code, item)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(ids) == len(text.split())
            assert tokenizer.decode(ids) == text


def test_the_chat_template_is_what_the_training_encoded() -> None:
    from transformers import AutoTokenizer

    from safeswap.demo.documents import Document
    from small_world.train import encode

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "base")
    item = WORLD.items[0]
    chat = Document(WORLD.request("qab", item, 0), WORLD.procedure("qab", item))
    ids, answer = encode(vocabulary(WORLD), chat)
    user = [{"role": "user", "content": chat.prompt}]
    prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(
        [*user, {"role": "assistant", "content": chat.response}], tokenize=False
    )
    assert tokenizer(prompt, add_special_tokens=False)["input_ids"] == ids[:answer]
    assert tokenizer(whole, add_special_tokens=False)["input_ids"] == ids
