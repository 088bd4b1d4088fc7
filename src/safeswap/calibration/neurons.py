"""A language expert over pairs of prompts: what tells its safety neurons, and how far apart
their inputs are in English and in the language (:mod:`safeswap.operators.sparse_edit`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from safeswap.anatomy import Placement, kind_of
from safeswap.calibration.collect import (
    Encoded,
    InputGroup,
    batches_of,
    hooks,
    parts_within,
    run_layers,
    sum_inputs,
)
from safeswap.calibration.expert_run import ExpertRun, MatrixFile
from safeswap.calibration.layers import LinearLayer
from safeswap.calibration.pairs import Pairs
from safeswap.errors import CalibrationError
from safeswap.io.progress import items_bar
from safeswap.operators.calibrated import entry_of
from safeswap.operators.gram_store import ExpertGrams, GramRecord
from safeswap.operators.sparse_edit import (
    EFFECT,
    GAP,
    LOW,
    MAGNITUDE,
    NEURONS,
    SAFE,
    SCORES,
    safety_neurons,
)

NOT_EDITED = "not one of the matrices that an MLP's inputs meet: sparse-edit leaves it"
_MIXTURE = "of a mixture of experts: which prompts its experts see differs between the languages"
_log = logging.getLogger("safeswap.calibration")
_ROUNDING = 1e-6
Wide = NDArray[np.float64]


@dataclass(slots=True)
class PairGroup(InputGroup):
    """The matrices that one MLP's inputs meet; the sum is over harmless prompts.

    Attributes:
        prompts: harmful, harmless; how many pairs.
        last: what a set of prompts is called → the inputs of each one's last token, float32
            [prompts, side].
    """

    prompts: tuple[int, int] = (0, 0)
    last: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the sums, of the kept inputs and of the neurons' activations."""
        harmful, harmless = self.prompts
        widest = max(_outputs(layer) for layer in self.layers)
        kept = 4 * self.side * (2 * harmful + harmless)
        return 24 * self.side**2 + kept + 8 * widest * (harmful + harmless)


@dataclass(frozen=True, slots=True)
class PairJob:
    """One language expert over one file of pairs, and the four entries that come of it."""

    role: str
    texts: Pairs

    @property
    def entries(self) -> tuple[str, ...]:
        """What it writes."""
        return tuple(entry_of(self.role, kind) for kind in (LOW, GAP, SAFE, NEURONS))

    def made(self, run: ExpertRun, weights: str) -> dict[str, ExpertGrams]:
        """Run the expert and write the files; what belongs into the manifest.

        Args:
            weights: digest of the expert's weights.
        """
        with run.loaded() as loaded:
            prompts = self._encoded(run, loaded)
            layers, left_out = run.layers(loaded.model)
            probe = min((one.ids for some in prompts.values() for one in some), key=len)
            placed = run.family.anatomy.placements
            groups, others = neuron_layers(loaded.model, layers, placed, probe)
            for group in groups:
                group.prompts = len(self.texts.harmful), len(self.texts.harmless)
            found = self._written(run, loaded, groups, prompts)
        left_out = {**dict.fromkeys(left_out, NOT_EDITED), **others}
        return {
            entry: run.about(
                loaded,
                weights,
                texts=self._seen(entry, prompts),
                tensors=found[entry],
                left_out=left_out,
            )
            for entry in self.entries
        }

    def _seen(self, entry: str, prompts: Mapping[str, Sequence[Encoded]]) -> dict[str, Any]:
        """What an entry was made from: how many prompts, and tokens that count."""
        harmful, harmless = (len(some) for some in (self.texts.harmful, self.texts.harmless))
        kind = entry.rpartition("@")[2]
        texts = {SAFE: harmless, NEURONS: harmful + harmless}.get(kind, harmful)
        tokens = sum(len(one.ids) for one in prompts["safe"]) if kind == SAFE else texts
        about = {"file": self.texts.name, "digest": self.texts.digest}
        return {**about, "texts": texts, "tokens": tokens, "cut": 0}

    def _encoded(self, run: ExpertRun, loaded: Any) -> dict[str, list[Encoded]]:
        """All prompts by their sets, ready to be answered; none is cut."""
        sets = {
            "high": [english for english, _ in self.texts.harmful],
            "low": [other for _, other in self.texts.harmful],
            "safe high": [english for english, _ in self.texts.harmless],
            "safe": [other for _, other in self.texts.harmless],
        }
        limit = run.limit(loaded.model)
        found: dict[str, list[Encoded]] = {}
        for name, prompts in sets.items():
            found[name] = []
            for number, prompt in enumerate(prompts):
                ids = run.ids(loaded.tokenizer, ("user", prompt))
                if not 0 < len(ids) <= limit:
                    raise CalibrationError(
                        f"{self.texts.name}: the prompt {_start(prompt)} has {len(ids)} tokens; "
                        f"the last of 1 to {limit} is read. Remove its pair, or give a larger "
                        "--max-tokens."
                    )
                found[name].append(Encoded(ids, 0, len(ids), number))
        return found

    def _written(
        self,
        run: ExpertRun,
        loaded: Any,
        groups: Sequence[PairGroup],
        prompts: Mapping[str, Sequence[Encoded]],
    ) -> dict[str, dict[str, GramRecord]]:
        """Every entry's records."""
        parts = parts_within(groups, run.memory)
        batches = {
            name: batches_of(some, run.options.batch_tokens) for name, some in prompts.items()
        }
        square = {group.name: (group.side, group.side) for group in groups}
        every = [layer for group in groups for layer in group.layers]
        tables = {layer.tensor: (SCORES, _outputs(layer)) for layer in every}
        total = len(parts) * sum(map(len, prompts.values()))
        with ExitStack() as stack:
            low, gap, safe, neurons = files = [
                stack.enter_context(MatrixFile(run, entry, shapes))
                for entry, shapes in zip(
                    self.entries, (square, square, square, tables), strict=True
                )
            ]
            advance = stack.enter_context(items_bar(f"calibrate {self.role}@pairs", total))
            for part in parts:
                sum_inputs(loaded.model, part, batches["safe"], loaded.device, advance)
                for name in ("low", "high", "safe high"):
                    last_inputs(loaded.model, part, name, batches[name], advance)
                for group in part:
                    here, there = (group.last[name].astype(np.float64) for name in ("low", "high"))
                    low.write(group.name, here.T @ here / len(here))
                    gap.write(group.name, here.T @ (there - here) / len(here))
                    safe.write(group.name, group.finish().numpy())
                    self._score(group, neurons)
                    group.last.clear()
        rows = (len(prompts["low"]), len(prompts["low"]), None, len(self.texts))
        return {
            file.entry: _records(groups, file, count)
            for file, count in zip(files, rows, strict=True)
        }

    def _score(self, group: PairGroup, file: MatrixFile) -> None:
        counts, outputs = 0, 0
        for layer in group.layers:
            weights = _inwards(layer)
            scores = neuron_scores(group.last["high"] @ weights, group.last["safe high"] @ weights)
            file.write(layer.tensor, scores)
            limits = float(str(MAGNITUDE.default)), float(str(EFFECT.default))
            counts, outputs = counts + len(safety_neurons(scores, *limits)), outputs + len(scores.T)
        names = " and ".join(layer.tensor for layer in group.layers)
        _log.info(f"{names}: {counts} of {outputs} neurons are safety neurons")


def neuron_layers(
    model: nn.Module,
    layers: Sequence[LinearLayer],
    placements: Mapping[str, Placement],
    probe: list[int],
) -> tuple[list[PairGroup], dict[str, str]]:
    """The layers that an MLP's own inputs meet (gate and up), by MLP, and why others are none.

    They are those of the first inputs that reach any linear layer of the MLP when a text is run.

    Raises:
        CalibrationError: the model has none.
    """
    within: dict[str, list[LinearLayer]] = {}
    left_out: dict[str, str] = {}
    for layer in layers:
        place = placements[layer.tensor]
        if kind_of(place.unit) != "mlp":
            left_out[layer.tensor] = NOT_EDITED
        elif place.part is not None:
            left_out[layer.tensor] = _MIXTURE
        else:
            within.setdefault(place.unit, []).append(layer)
    calls: dict[str, list[tuple[torch.Tensor, LinearLayer]]] = {unit: [] for unit in within}

    def note(unit: str, layer: LinearLayer) -> Callable[[torch.Tensor], None]:
        return lambda inputs: calls[unit].append((inputs, layer))

    with hooks((layer, note(unit, layer)) for unit, some in within.items() for layer in some):
        run_layers(model, [probe])
    groups = []
    for unit, seen in calls.items():
        first = [layer for inputs, layer in seen if inputs is seen[0][0]]
        rest = [layer.tensor for layer in within[unit] if layer not in first]
        left_out |= dict.fromkeys(rest, NOT_EDITED)
        groups += [PairGroup(first)] if first else []
    if not groups:
        raise CalibrationError(
            "no MLP of this model has linear layers of its own, so there are no safety neurons to "
            "edit. Use another operator for it."
        )
    return groups, left_out


def last_inputs(
    model: nn.Module,
    part: Sequence[PairGroup],
    name: str,
    batches: Sequence[Sequence[Encoded]],
    advance: Callable[[int], None],
) -> None:
    """Run prompts, and keep the inputs of each one's last token under a name.

    Args:
        advance: told how many prompts were run.

    Raises:
        CalibrationError: a layer does not see its inputs token by token.
    """
    count = sum(map(len, batches))
    batch: Sequence[Encoded] = ()

    def keep(group: PairGroup) -> Callable[[torch.Tensor], None]:
        def act(inputs: torch.Tensor) -> None:
            rows = inputs.detach().reshape(-1, group.side)
            if len(rows) != len(batch) * len(batch[0].ids):
                raise CalibrationError(
                    f"{group.name}: sees {len(rows)} inputs for {len(batch)} prompts of "
                    f"{len(batch[0].ids)} tokens, so which are the last is not known. Use another "
                    "operator for this model."
                )
            last = rows.reshape(len(batch), -1, group.side)[:, -1]
            group.last[name][[one.number for one in batch]] = last.float().cpu().numpy()

        return act

    for group in part:
        group.last[name] = np.zeros((count, group.side), np.float32)
    with hooks((group.layers[0], keep(group)) for group in part):
        for batch in batches:
            run_layers(model, [one.ids for one in batch])
            advance(len(batch))


def neuron_scores(harmful: NDArray[Any], harmless: NDArray[Any]) -> Wide:
    """What tells safety neurons (arXiv 2602.22554, appendix B), float64 [2, neurons].

    The first row is the gap between a neuron's mean activations, in standard deviations of that gap
    over the neurons; the second Cohen's d, the gap in pooled standard deviations of the neuron's
    activations (n − 1 each). Gaps and spreads below a millionth of the largest activation are
    float32's rounding, and taken for 0: a gap of 0 scores 0, another without a spread the largest
    float32.

    Args:
        harmful, harmless: activations [prompts, neurons], two prompts or more each.
    """
    several = [some.astype(np.float64) for some in (harmful, harmless)]
    size = np.maximum(*(np.abs(some).max(0) for some in several))
    gap = several[0].mean(0) - several[1].mean(0)
    freedom = [len(some) - 1 for some in several]
    pooled = sum(n * some.var(0, ddof=1) for n, some in zip(freedom, several, strict=True))
    spread = np.sqrt(pooled / sum(freedom))
    beside = _over(gap - gap.mean(), np.full_like(gap, gap.std()), np.full_like(gap, size.max()))
    return np.stack([beside, _over(gap, spread, size)])


def _over(gap: Wide, spread: Wide, size: Wide) -> Wide:
    """Gaps in spreads, both 0 below what is rounding at a size."""
    largest = float(np.finfo(np.float32).max)
    gap, spread = (np.where(np.abs(one) <= _ROUNDING * size, 0.0, one) for one in (gap, spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(gap == 0, 0.0, gap / spread)
    return np.clip(found, -largest, largest)


def _records(
    groups: Sequence[PairGroup], file: MatrixFile, rows: int | None
) -> dict[str, GramRecord]:
    found = {}
    for group in groups:
        for layer in group.layers:
            name = layer.tensor if file.entry.endswith(f"@{NEURONS}") else group.name
            seen = group.rows if rows is None else rows
            found[layer.tensor] = GramRecord(name, layer.inputs, seen, file.digests[name])
    return found


def _outputs(layer: LinearLayer) -> int:
    return int(layer.module.weight.numel()) // layer.side


def _inwards(layer: LinearLayer) -> Wide:
    """A layer's weights as [in, out], float64."""
    wide: Wide = layer.module.weight.detach().double().cpu().numpy()
    return wide if layer.inputs == "rows" else wide.T


def _start(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 40 else f"{prompt[:40]}…")
