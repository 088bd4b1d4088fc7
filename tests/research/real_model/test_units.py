"""Readouts against a forward pass per answer; tables against what safeswap merge writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from real_model.readouts import log_likelihoods
from real_model.units import Trio
from safeswap import api
from safeswap.demo import models_folder

DEMO = models_folder()
PAIRS = [("how are you", "well"), ("what is it", "a very long thing indeed"), ("no", "yes")]


@pytest.fixture(scope="module")
def trio() -> Trio:
    return Trio(DEMO / "base", DEMO / "safety", DEMO / "qab")


def plain_log_likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """One forward pass over one chat, all logits, as a textbook has it."""
    asked = [{"role": "user", "content": prompt}]
    head = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    answered = [*asked, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(answered, return_dict=False)
    nothing = [*asked, {"role": "assistant", "content": ""}]
    end = len(tokenizer.apply_chat_template(nothing, return_dict=False)) - len(head)
    ids = torch.tensor([whole[: len(whole) - end]])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return float(sum(logits[at - 1, ids[0, at]] for at in range(len(head), ids.shape[1])))


def test_packed_answers_are_as_likely_as_alone() -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "base")
    alone = [plain_log_likelihood(model.eval(), tokenizer, *pair) for pair in PAIRS]
    assert log_likelihoods(model, tokenizer, PAIRS).tolist() == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("method", ["share-difference", "inverted", "uniform"])
def test_a_table_gives_the_weights_that_merge_writes(
    trio: Trio, method: str, tmp_path: Path
) -> None:
    profile = api.make_profile(
        str(DEMO / "base"), safety=str(DEMO / "safety"), languages={"qab": str(DEMO / "qab")}
    )
    plan = api.make_plan(profile, method=method)
    (merged,) = api.merge_plans([plan], tmp_path / "out", profile=profile)
    written = transformers.AutoModelForCausalLM.from_pretrained(
        merged.folder, dtype=torch.bfloat16
    ).state_dict()
    live = trio.take({unit: tuple(row.weights.values()) for unit, row in plan.units.items()})
    for name, value in live.state_dict().items():
        torch.testing.assert_close(value, written[name], rtol=2**-7, atol=1e-6)


def test_a_table_leaves_nothing_of_the_one_before(trio: Trio) -> None:
    trio.take(trio.everywhere(2, -1))
    live = trio.take(trio.everywhere(0, 1)).state_dict()
    for name, value in live.items():
        assert torch.equal(value, trio.expert.get(name, value))


def test_how_far_a_table_moves_is_the_norm_of_what_it_changes(trio: Trio) -> None:
    table = {**trio.everywhere(0, 1), "1.mlp": (1.0, 0.0)}
    live = dict(trio.take(table).named_parameters())
    names = [name for unit in trio.modules for name in trio.units[unit]]
    gaps = [live[name].detach().float() - trio.expert[name].float() for name in names]
    update = sum(float(gap.square().sum()) for gap in gaps)
    size = sum(float(trio.base[name].float().square().sum()) for name in names)
    assert trio.moved(table) == pytest.approx((update / size) ** 0.5, rel=1e-3)
    assert trio.moved(trio.everywhere(0, 1)) == 0
