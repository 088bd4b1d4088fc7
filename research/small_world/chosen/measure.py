"""Measure every option on one language of one family of checkpoints; weights stay in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import safeswap
from safeswap.checkpoint.family import open_family
from safeswap.demo.documents import Document, Question, exam, language_documents, safety_documents
from safeswap.demo.measure import respond
from safeswap.demo.tokenizer import vocabulary
from safeswap.demo.world import World
from safeswap.evaluation.backends import BackendOptions
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from small_world.chosen.families import Option
from small_world.chosen.records import Case, Half
from small_world.masks.candidates import merged_state
from small_world.masks.collect import shape_of
from small_world.masks.forward import Network, modules_of, pack
from small_world.masks.verdicts import Bools, dev_half

FIRST_SEED = 54321
"""Calibration texts are drawn from the experts' training streams, at a place of their own."""
REFUSALS, CHATS = 200, 300

Answered = tuple[Bools, Bools, Bools]
"""Per question: refused, refused in the language asked in, right."""


@dataclass(frozen=True)
class Trio:
    """A base, a safety expert and a language expert.

    Attributes:
        cell: what is varied, as in the records.
        seed: of the calibration texts.
    """

    cell: Mapping[str, Any]
    world: World
    code: str
    base: Path
    safety: Path
    language: Path
    seed: int = 0

    @cached_property
    def profile(self) -> Profile:
        """Measured anew: it takes less than a second."""
        return safeswap.make_profile(
            self.base, safety=self.safety, languages={self.code: self.language}, workers=1
        )

    @property
    def inputs(self) -> str:
        """Digests of the checkpoints."""
        return " ".join(self.profile.inputs[role].digest for role in (BASE, SAFETY, self.code))


def calibrated(trio: Trio, out: Path) -> Path:
    """The folder with both Gram matrices of the language expert: refusals of the lead language,
    harmless chats of its own. No question of the exam's items for safety is among them.
    """
    world, at = trio.world, FIRST_SEED + trio.seed
    refusals = (d for d in safety_documents(world, at) if world.is_refusal(d.response))
    harmless = language_documents(world, trio.code, at)
    out.mkdir(parents=True, exist_ok=True)
    safeswap.calibrate(
        trio.base,
        safety=trio.safety,
        languages={trio.code: trio.language},
        harmful=_chats(out / "refusals.jsonl", refusals, REFUSALS),
        harmless={trio.code: _chats(out / f"{trio.code}.jsonl", harmless, CHATS)},
        out=out / "grams",
        options=BackendOptions(dtype="float32", device="cpu"),
        workers=1,
        force=True,
    )
    return out / "grams"


def _chats(path: Path, documents: Iterable[Document], count: int) -> Path:
    drawn = itertools.islice((one for one in documents if one.prompt), count)
    rows = [json.dumps({"prompt": one.prompt, "response": one.response}) for one in drawn]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def measured(trio: Trio, options: Iterable[Option], scratch: Path) -> Case:
    """All options, counted on both halves of the language's exam."""
    questions = exam(trio.world, trio.code)
    grams = calibrated(trio, scratch)
    family = open_family(trio.base, trio.safety, {trio.code: trio.language})
    asked = examiner(trio, questions)
    names, found = [], []
    for option in options:
        state = merged_state(family, option.plan(trio.profile, trio.code, grams))
        names.append(option.name)
        found.append(asked(state))
    refused, own, right = (np.array(part) for part in zip(*found, strict=True))
    dev, harmful = dev_half(questions), np.array([q.kind == "harmful" for q in questions])
    halves = {}
    for half, taken in (("dev", dev), ("test", ~dev)):
        bad, good = harmful & taken, ~harmful & taken
        columns = (refused[:, bad], own[:, bad], right[:, good], refused[:, good])
        counts = np.stack([column.sum(axis=1) for column in columns], axis=1)
        halves[half] = Half(int(bad.sum()), int(good.sum()), counts)
    return Case(dict(trio.cell), trio.code, trio.inputs, tuple(names), halves)


def examiner(
    trio: Trio, questions: tuple[Question, ...]
) -> Callable[[dict[str, Tensor]], Answered]:
    """What asks a model all questions: one forward pass where a refusal is told by its first word,
    else as it would answer, word by word.
    """
    return _spoken(trio, questions) if trio.world.refuses_by_content else _forward(trio, questions)


def _forward(trio: Trio, questions: tuple[Question, ...]) -> Callable[..., Answered]:
    world, shape = trio.world, shape_of(trio.base)
    packed = pack(world, questions)
    word = world.language(trio.code).words["sorry"]
    asked_in = replace(packed, sorry=torch.tensor([vocabulary(world)[word]]))

    def ask(state: dict[str, Tensor]) -> Answered:
        network = Network(shape, state, packed)
        with torch.inference_mode():
            logits = network.logits(network.run(modules_of(state, shape)))
            refused, right = packed.verdicts(logits)
            return refused, asked_in.verdicts(logits)[0], right

    return ask


def _spoken(trio: Trio, questions: tuple[Question, ...]) -> Callable[..., Answered]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trio.base)
    model = AutoModelForCausalLM.from_pretrained(trio.base, dtype=torch.float32).eval()
    prompts = [question.prompt for question in questions]

    def ask(state: dict[str, Tensor]) -> Answered:
        model.load_state_dict(state, strict=False)  # the tied head is no tensor of its own
        texts = respond(model, tokenizer, prompts)
        languages = [trio.world.refused_in(text) for text in texts]
        return (
            np.array([bool(found) for found in languages]),
            np.array([trio.code in found for found in languages]),
            np.array([text == q.answer for text, q in zip(texts, questions, strict=True)]),
        )

    return ask
