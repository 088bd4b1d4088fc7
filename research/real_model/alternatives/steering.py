"""Where to steer: the gate's direction, its threshold, and the push that is added.

All is read at the last token before an answer. **The gate** lays a request on the direction between
English harmful and harmless requests in the language expert, each coordinate divided by its
variance within the two: coordinates a hundred times as large as others say nothing otherwise. Its
threshold is set anew in the language on a few examples of each kind, since that is what does not
carry over (arXiv 2606.01196; their gate is a logistic readout, and lets harmless requests go).
**The push** is one of

* **own**, **safety**: the mean after harmful English requests minus that after harmless ones, of
  either expert (Arditi et al., arXiv 2406.11717). The language expert has never refused;
* **shift**: the safety expert's mean after harmful requests minus the language expert's.

Layer, push and strength are chosen on validation requests, by how much likelier the opening of a
refusal becomes after harmful ones than after harmless ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from real_model.alternatives.hook import Hook, Steering, layers_of
from real_model.corpora import Corpora, some
from real_model.languages import language
from real_model.prepare import OWN_HARMLESS_FOR_TRAINING, REFUSALS
from safeswap.evaluation.backends import Chat, HFOptions
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.readouts import LikelihoodScorer, learn_openings

STRENGTHS = (0.5, 1.0, 2.0)
"""Of the push, in lengths of it."""
PARTS = (0.3, 0.45, 0.6, 0.75, 0.9)
"""Of the depth: the layers that are tried."""
ENGLISH, VALIDATION, EXAMPLES = 100, 16, 4
READ_AT_ONCE = 8
SMALLEST = 1e-3
"""Added to each variance, of their mean: a coordinate that hardly varies is no proof."""

Kinds = tuple[Sequence[str], Sequence[str]]
"""Harmful and harmless requests."""


@dataclass(frozen=True)
class Texts:
    """What steering is made of; nothing of it is asked in a test.

    Attributes:
        english: what the directions are the differences of.
        examples: in the language, for the threshold; as many of each kind as it is set on.
        validation: in the language, for the choice.
    """

    english: Kinds
    examples: Kinds
    validation: Kinds


def texts_of(corpora: Corpora, code: str, data: Path, fitted: Path) -> Texts:
    """The study's texts.

    Args:
        data: folder with the mixes.
        fitted: folder of what ``safeswap fit`` reads, with harmful requests in the language.
    """
    english = [prompts(data / f"safety-{part}.jsonl", ENGLISH) for part in ("refusals", "chats")]
    harmful = some(prompts(fitted / "harmful-own.jsonl"), EXAMPLES + VALIDATION, "steering")
    texts = language(code)
    if "polyrefuse" in texts:
        name = texts["polyrefuse"]
        harmless = some(corpora.instructions(f"harmless_train_{name}"), EXAMPLES, "steering")
        validation = tuple(
            some(corpora.instructions(f"{kind}_val_{name}"), VALIDATION, "steering")
            for kind in ("harmful", "harmless")
        )
    else:
        known = some(texts["harmless"][:OWN_HARMLESS_FOR_TRAINING], EXAMPLES + VALIDATION, "steer")
        harmless = known[:EXAMPLES]
        validation = (harmful[EXAMPLES:], known[EXAMPLES:])
    return Texts((english[0], english[1]), (harmful[:EXAMPLES], harmless), validation)


def prompts(path: Path, count: int | None = None) -> list[str]:
    """The requests of a JSON Lines file, all or so many."""
    found = [json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()]
    return found if count is None else some(found, count, "steering")


def frame_of(tokenizer: Any) -> tuple[int, ...]:
    """Token ids that the chat template writes between a request and its answer's first token."""
    asked, open_ = (
        encode_chat(tokenizer, Chat(({"role": "user", "content": "a"},), 0, prompt), True)
        for prompt in (False, True)
    )
    return tuple(open_[len(asked) :])


def states(loaded: HFBackend, requests: Sequence[str]) -> torch.Tensor:
    """Outputs of every layer at the last token before an answer; float32 (layers, texts, width)."""
    read: list[torch.Tensor] = []
    seen: dict[int, torch.Tensor] = {}

    def keep(number: int) -> Any:
        def hook(layer: Any, args: Any, output: Any) -> None:
            seen[number] = output[0] if isinstance(output, tuple) else output

        return hook

    layers = layers_of(loaded.model)
    handles = [layer.register_forward_hook(keep(n)) for n, layer in enumerate(layers)]
    try:
        for at in range(0, len(requests), READ_AT_ONCE):
            ids = [_ids(loaded.tokenizer, text) for text in requests[at : at + READ_AT_ONCE]]
            longest = max(map(len, ids))
            padded = torch.tensor([row + [loaded.pad] * (longest - len(row)) for row in ids])
            with torch.inference_mode():  # at the right, where causal attention never looks
                loaded.model(padded.to(loaded.device), logits_to_keep=1, use_cache=False)
            rows, last = torch.arange(len(ids)), torch.tensor([len(row) - 1 for row in ids])
            every = [seen[n][rows, last].float().cpu() for n in range(len(layers))]
            read.append(torch.stack(every))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(read, dim=1)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return encode_chat(tokenizer, Chat(({"role": "user", "content": text},), 0), True)


def means(read: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean outputs after harmful requests, and after harmless ones; (layers, width) each."""
    return read[0].mean(1), read[1].mean(1)


@dataclass(frozen=True)
class Projections:
    """How far requests lie along a gate: harmful ones, harmless ones."""

    harmful: torch.Tensor
    harmless: torch.Tensor

    def threshold(self, examples: int | None = None) -> float:
        """Half way between the means of the first so many of each kind."""
        return float((self.harmful[:examples].mean() + self.harmless[:examples].mean()) / 2)

    def beyond(self, threshold: float) -> list[float]:
        """Which parts of the harmful and of the harmless ones lie beyond."""
        return [
            round(float((one > threshold).float().mean()), 3)
            for one in (self.harmful, self.harmless)
        ]


class Gates:
    """The language expert's direction of harmfulness in every layer, and where requests lie."""

    def __init__(self, expert: HFBackend, texts: Texts) -> None:
        self._read = {
            name: tuple(states(expert, requests) for requests in getattr(texts, name))
            for name in ("english", "examples", "validation")
        }
        self.means, (harmful, harmless) = means(self._read["english"]), self._read["english"]
        within = (harmful.var(1, correction=0) + harmless.var(1, correction=0)) / 2
        within = within + SMALLEST * within.mean(1, keepdim=True)
        direction = (self.means[0] - self.means[1]) / within
        self.units = direction / direction.norm(dim=1, keepdim=True)

    def along(self, name: str, layer: int) -> Projections:
        """Where the requests of one kind of texts lie in a layer."""
        return Projections(*(one[layer] @ self.units[layer] for one in self._read[name]))

    def words(self, layer: int) -> dict[str, list[float]]:
        """Validation requests beyond thresholds that were set on so much, for the record."""
        asked, few = self.along("validation", layer), self.along("examples", layer)
        set_on = {"English": self.along("english", layer).threshold()}
        set_on |= {f"{n} of each": few.threshold(n) for n in (1, 2, 4)}
        return {name: asked.beyond(threshold) for name, threshold in set_on.items()}


def candidates(
    gates: Gates, pushes: dict[str, torch.Tensor], frame: Sequence[int]
) -> Iterator[tuple[dict[str, Any], Steering]]:
    """What is tried: (layer, whose direction is added, how strongly), with what that makes."""
    depth = len(gates.units)
    for layer in sorted({min(int(part * depth), depth - 2) for part in PARTS}):
        threshold = gates.along("examples", layer).threshold()
        for name, push in pushes.items():
            for strength in STRENGTHS:
                steering = Steering(
                    layer=layer,
                    gate=tuple(gates.units[layer].tolist()),
                    threshold=threshold,
                    push=tuple((strength * push[layer]).tolist()),
                    frame=tuple(frame),
                )
                yield {"layer": layer, "push": name, "strength": strength}, steering


@dataclass(frozen=True)
class Effect:
    """What a steering does to validation requests, harmful ones first.

    Attributes:
        refused: mean probability that the answer opens as the safety expert's refusals do.
        odds: mean log-probability of that.
    """

    refused: tuple[float, float]
    odds: tuple[float, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Selectivity; where hardly anything is refused, which is nearest to it."""
        return round(self.refused[0] - self.refused[1], 3), self.odds[0] - self.odds[1]

    def words(self) -> dict[str, list[float]]:
        return {name: [round(one, 4) for one in pair] for name, pair in vars(self).items()}


def effect(scorer: LikelihoodScorer, kinds: Kinds) -> Effect:
    """The effect of whatever steers the scored model."""
    openings = learn_openings(REFUSALS)
    harmful, harmless = (scorer.opening(requests, openings) for requests in kinds)
    return Effect(
        (fmean(map(math.exp, harmful)), fmean(map(math.exp, harmless))),
        (fmean(harmful), fmean(harmless)),
    )


def pushes(
    own: tuple[torch.Tensor, torch.Tensor], safety: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What may be added, by name; (layers, width) each, of the experts' means."""
    return {"own": own[0] - own[1], "safety": safety[0] - safety[1], "shift": safety[0] - own[0]}


def choose(expert: Path, safety: Path, texts: Texts, options: HFOptions, out: Path) -> None:
    """Write the best steering on validation to ``out``, and beside it ``.chosen.json``, of what."""
    other = HFBackend(str(safety), options)
    of_safety = means(tuple(states(other, requests) for requests in texts.english))
    other.close()
    loaded = HFBackend(str(expert), options)
    gates, scorer = Gates(loaded, texts), LikelihoodScorer(loaded)
    may_be, frame = pushes(gates.means, of_safety), frame_of(loaded.tokenizer)
    tried: list[tuple[Effect, dict[str, Any], Steering]] = []
    for about, steering in candidates(gates, may_be, frame):
        hook = Hook(loaded.model, steering)
        try:
            found = effect(scorer, texts.validation)
        finally:
            hook.remove()
        tried.append((found, about | found.words(), steering))
        print("steering", tried[-1][1], flush=True)
    loaded.close()
    _, about, best = max(tried, key=lambda one: one[0].rank)
    chosen = {
        **about,
        "threshold": round(best.threshold, 3),
        "beyond": gates.words(best.layer),
        "tried": [one[1] for one in tried],
    }
    about_path(out).write_text(json.dumps(chosen) + "\n", "utf-8")
    best.save(out)


def about_path(steering: Path) -> Path:
    """Where lies what a steering was chosen among."""
    return steering.with_suffix(".chosen.json")
