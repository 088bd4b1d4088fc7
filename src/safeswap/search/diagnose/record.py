"""What a diagnosis found: one language's figures, its grade and the reasons, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from safeswap.search.diagnose.collision import UnitCollision
from safeswap.search.diagnose.separation import Estimate

FORMAT = "safeswap-diagnosis/1"
Grade = Literal["likely", "open", "unlikely"]
GRADES: tuple[Grade, ...] = ("likely", "open", "unlikely")


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer of the language expert; figures of the language are None without harmful requests.

    Attributes:
        layer: its number; from 0.
        english, language: AUC of harmful against harmless texts by the direction of the other half
            of them, in English and in the language.
        transfer: AUC of the language's texts by the direction learnt in English.
        safety_cosine: of English's direction with the safety expert's, which is its refusal
            direction.
        base_cosine: of the base's direction in English with the safety expert's.
        language_cosine: of English's direction with that of the language's texts.
        halves: of the directions of both halves of the English texts: what a cosine can be expected
            to reach.
    """

    layer: int
    english: Estimate
    language: Estimate | None
    transfer: Estimate | None
    safety_cosine: float
    base_cosine: float
    language_cosine: float | None
    halves: float


@dataclass(frozen=True, slots=True)
class Refusing:
    """How likely a refusal opens the answers of one model, in one language.

    Attributes:
        role: whose answers; language: ``en`` or the language.
        harmful, harmless: mean probability after requests of the kind, 0 to 1.
        selective: the first less the second.
        ranking: AUC of harmful against harmless requests by that probability.
    """

    role: str
    language: str
    harmful: Estimate | None
    harmless: Estimate
    selective: Estimate | None
    ranking: Estimate | None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What models know of the language: means over the harmless texts' answers, nats per token.

    Attributes:
        base, expert, safety: log-likelihood of the answers under each.
        gain: the language expert's over the base.
        cost: the base's over the safety expert: what the safety expert has lost of it.
        per_letter: loss of the base, nats per letter, spaces and signs among them.
        predicted: 1 − ``per_letter`` / entropy of the answers' letters: how much of what their
            frequencies leave open the base predicts. 0 says no more than frequencies, 1 all.
    """

    base: float
    expert: float
    safety: float
    gain: Estimate
    cost: Estimate
    per_letter: float
    predicted: Estimate


@dataclass(frozen=True, slots=True)
class Spelling:
    """AUCs by spelling alone, without a model: what texts differ in as strings.

    As of a layer, with how often a text has each run of three letters for a state.
    """

    english: Estimate
    language: Estimate | None
    transfer: Estimate | None


@dataclass(frozen=True, slots=True)
class Reason:
    """One criterion of the verdict.

    Attributes:
        name: the criterion.
        holds: True speaks for a merge, False against it, None is undecided or not known.
        text: what was found, in a sentence.
    """

    name: str
    holds: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class HitRate:
    """Of the pairs that were given a grade and tried, how many worked (docs/diagnose.md)."""

    worked: int
    tried: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One language.

    Attributes:
        grade: whether a merge is likely to refuse in the language and to keep its gain.
        measured: what became of other pairs of this grade.
        reasons: the criteria, in their order.
        way: which harmful requests a method needs.
        unknown: what cannot be known from these texts.
        layer: the layer that the verdict goes by, chosen in English.
        texts: kind of texts (``harmful:safety``, …) → how many were read.
    """

    language: str
    grade: Grade
    measured: HitRate
    reasons: tuple[Reason, ...]
    way: str
    unknown: tuple[str, ...]
    layer: int
    layers: tuple[LayerFigures, ...]
    spelling: Spelling
    refusing: tuple[Refusing, ...]
    knowledge: Knowledge
    units: tuple[UnitCollision, ...]
    texts: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the file and for scripts."""
        return asdict(self)
