"""Which comparisons are primary: one per target language, named before the data is looked at.

The primary comparison of a language is that of its one merge with its language expert, on the
unsafe rate of the first benchmark of harmful prompts that has the language. Where several merges
are of one language, the one named with ``--primary`` is it; where none is named, there is none, and
the tables say so. Everything else is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import Outcomes

_ORIGINAL = "en"
"""Asked beside the target language in most suites, and never the target."""


@dataclass(frozen=True, slots=True)
class PrimaryFamily:
    """The comparisons whose p-values are corrected together.

    Attributes:
        merges: target language → the merge whose comparison is primary.
        benchmarks: target language → the benchmark that it is made on.
        open: target language → its merges, where they are several and none was named.
    """

    merges: Mapping[str, str]
    benchmarks: Mapping[str, str]
    open: Mapping[str, tuple[str, ...]]

    def holds(self, model: str, benchmark: str, language: str) -> bool:
        """Whether a comparison of this candidate in this cell is primary."""
        return (self.merges.get(language), self.benchmarks.get(language)) == (model, benchmark)

    @property
    def note(self) -> str:
        """What is primary and what is not, in a sentence or two."""
        said = [f"{model} on {self.benchmarks[code]}/{code}" for code, model in self.merges.items()]
        text = f"Primary, with Holm's p over {len(said)}: {', '.join(said)}." if said else ""
        for code, models in self.open.items():
            text += (
                f" No comparison is primary for {code}, whose merges are {', '.join(models)}: name "
                "one with --primary MODEL."
            )
        return text.strip() or "No comparison is primary: there is no merge with harmful prompts."


def primary_family(evidence: Outcomes, named: Sequence[str] = ()) -> PrimaryFamily:
    """The primary comparisons of a body of evidence.

    Args:
        named: merges that are primary for their languages, as ``--primary`` names them.

    Raises:
        EvaluationError: no such model, a model that is no merge, two for one language.
    """
    merges = [model for model, record in evidence.models.items() if record.get("role") == "merged"]
    for model in named:
        if model not in evidence.models:
            raise EvaluationError(
                f"--primary {model}: no model is called so{nearest(model, evidence.models)}"
            )
        if model not in merges:
            raise EvaluationError(
                f"--primary {model}: is no merge; the merges are {', '.join(merges) or 'none'}."
            )
    benchmarks: dict[str, str] = {}
    for cell in evidence.cells:
        if cell.measures is Measure.UNSAFE and not cell.absent:
            benchmarks.setdefault(cell.language, cell.benchmark)
    targets: dict[str, list[str]] = {}
    for model in merges:
        for code in _languages(evidence, model, list(benchmarks)):
            targets.setdefault(code, []).append(model)
    chosen: dict[str, str] = {}
    undecided: dict[str, tuple[str, ...]] = {}
    for code, models in targets.items():
        wanted = [model for model in models if model in named]
        if len(wanted) > 1:
            raise EvaluationError(
                f"--primary names {', '.join(wanted)}, which are both merges of {code}: one "
                "comparison is primary per language. Name one."
            )
        if wanted or len(models) == 1:
            chosen[code] = (wanted or models)[0]
        else:
            undecided[code] = tuple(models)
    return PrimaryFamily(chosen, benchmarks, undecided)


def _languages(evidence: Outcomes, model: str, asked: Sequence[str]) -> list[str]:
    """The target languages of a merge: its own, its expert's, or all that are asked but English."""
    record = evidence.models[model]
    expert = evidence.models.get(str(record.get("reference", "")))
    code = str(record.get("language") or (expert and expert.get("language")) or "")
    if code:
        return [code] if code in asked else []
    return [one for one in asked if one != _ORIGINAL] or list(asked)
