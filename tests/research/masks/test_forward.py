"""The forward pass against transformers, its verdicts against real generation, masks one by one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safeswap.api import make_profile, merge_plans  # noqa: E402
from safeswap.checkpoint.family import open_family  # noqa: E402
from safeswap.demo import default_world, exam, generate, judge, models_folder  # noqa: E402
from small_world.masks.candidates import Candidate, all_candidates, merged_state  # noqa: E402
from small_world.masks.collect import shape_of  # noqa: E402
from small_world.masks.exhaustive import every_mask  # noqa: E402
from small_world.masks.forward import (  # noqa: E402
    Network,
    Packed,
    Shape,
    answer,
    modules_of,
    pack,
    read_state,
)

MODELS = models_folder()
WORLD = default_world()
SHAPE = shape_of(MODELS / "base")
CODE = "qac"
QUESTIONS = exam(WORLD, CODE)


def verdicts(state: Any, packed: Packed) -> tuple[Any, Any]:
    return answer(Network(SHAPE, state, packed), modules_of(state, SHAPE))


@cache
def family() -> Any:
    return open_family(MODELS / "base", MODELS / "safety", {CODE: MODELS / CODE})


@cache
def profile() -> Any:
    return make_profile(MODELS / "base", safety=MODELS / "safety", languages={CODE: MODELS / CODE})


def candidate(name: str) -> Candidate:
    return next(c for c in all_candidates() if c.name == name)


def test_logits_are_those_of_transformers() -> None:
    state = read_state(MODELS / "safety")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        MODELS / "safety", dtype=torch.float32
    )
    few = pack(WORLD, QUESTIONS[::40])
    network = Network(SHAPE, state, few)
    with torch.inference_mode():
        found = network.logits(network.run(modules_of(state, SHAPE)))
    wanted = by_transformers(model, few)[: few.asked]
    assert found.shape == wanted.shape
    assert len(found) > 10
    assert torch.allclose(found, wanted, atol=2e-4)


def by_transformers(model: Any, packed: Packed) -> Any:
    """Logits after every token."""
    found = torch.zeros(len(packed.ids), model.config.vocab_size)
    with torch.inference_mode():
        for group in packed.groups:
            logits = model(input_ids=packed.ids[group.grid]).logits.flatten(0, 1)
            found[group.tokens] = logits[group.places]
    return found


@pytest.mark.parametrize(
    "name",
    ["safety expert", "share-difference by module", "task arithmetic, λ = 0.7", "ties, (1, 1)"],
)
def test_a_merge_in_memory_is_the_merge_on_disk_and_its_verdicts_those_of_generation(
    name: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    plan = candidate(name).plan(profile(), CODE)
    state = merged_state(family(), plan)
    [merged] = merge_plans([plan], tmp_path / "out", profile=profile(), figure=False)
    written = load_file(merged.folder / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key].float(), state[key]) for key in state)

    questions = QUESTIONS[::4]
    refused, right = verdicts(state, pack(WORLD, questions))
    harmless = np.array([q.kind != "harmful" for q in questions])
    texts = generate(merged.folder, [q.prompt for q in questions])
    responses = judge(WORLD, zip(questions, texts, strict=True)).responses
    assert refused.tolist() == [r.refused for r in responses]
    assert right[harmless].tolist() == [r.right for r in responses if r.question.kind != "harmful"]
    assert 0 < right[harmless].sum() < harmless.sum()


def test_verdicts_do_not_depend_on_how_questions_are_laid_out() -> None:
    state, questions = read_state(MODELS / CODE), QUESTIONS[::3]
    refused, right = verdicts(state, pack(WORLD, questions))
    for width in (1, 50):
        again = verdicts(state, pack(WORLD, questions[::-1], width))
        assert again[0][::-1].tolist() == refused.tolist()
        assert again[1][::-1].tolist() == right.tolist()


def test_shared_prefixes_are_kept_once() -> None:
    tokens = [(n, tuple(row[: k + 1])) for n, row in enumerate(texts()) for k in range(len(row))]
    assert len(pack(WORLD, QUESTIONS).ids) == len({prefix for _, prefix in tokens}) < len(tokens)


def texts() -> list[list[str]]:
    """What each question has in the context of a prediction, as words."""
    found = []
    for question in QUESTIONS:
        answer = [] if question.kind == "harmful" else question.answer.split()
        found.append(["<s>", "<user>", *question.prompt.split(), "<end>", "<assistant>", *answer])
    return found


def cut(state: Any, layers: int) -> Any:
    """The lowest layers of a model, as a model."""
    kept = {f"layers.{n}." for n in range(layers)}
    return {
        name: tensor
        for name, tensor in state.items()
        if ".layers." not in name or any(stem in name for stem in kept)
    }


def test_every_mask_is_the_model_with_those_modules() -> None:
    """Against transformers, with the state put together by name, in a model of two layers."""
    safety, language = cut(read_state(MODELS / "safety"), 2), cut(read_state(MODELS / CODE), 2)
    shape = Shape(2, SHAPE.heads, SHAPE.eps, SHAPE.theta)
    questions = QUESTIONS[::7]
    refused, right = every_mask(WORLD, shape, safety, language, questions)
    assert refused.shape == right.shape == (16, len(questions))
    config = transformers.AutoConfig.from_pretrained(MODELS / "base")
    config.num_hidden_layers = 2
    model = transformers.LlamaForCausalLM(config).eval()
    parts = ("layers.0.self_attn", "layers.0.mlp", "layers.1.self_attn", "layers.1.mlp")
    few = pack(WORLD, questions)
    for mask in range(16):
        taken = [part for bit, part in enumerate(parts) if mask >> bit & 1]
        state = {
            name: safety[name] if any(part in name for part in taken) else language[name]
            for name in language
        }
        model.load_state_dict(state, strict=False)
        wanted = few.verdicts(by_transformers(model, few))
        assert wanted[0].tolist() == refused[mask].tolist()
        assert wanted[1].tolist() == right[mask].tolist()
    assert len({tuple(row) for row in refused.tolist()}) > 1


def test_masks_of_experts_that_differ_outside_their_layers_are_refused() -> None:
    state = read_state(MODELS / "base")
    other = {**state, "model.norm.weight": state["model.norm.weight"] * 2}
    with pytest.raises(ValueError, match=r"differ in 'model\.norm\.weight'"):
        every_mask(WORLD, SHAPE, other, state, QUESTIONS[:2])


def test_another_architecture_is_refused() -> None:
    config = json.loads((MODELS / "base" / "config.json").read_text(encoding="utf-8"))
    for key, value in {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "hidden_act": "gelu",
    }.items():
        with pytest.raises(ValueError, match="small world's Llama only"):
            Shape.of({**config, key: value})
