"""Each rival of one language and seed, asked what the study asked its merges; step by step.

All is made below ``WORK/alternatives``; nothing is written to the study's own folders. What is
answered and judged already is not asked again, and no weights are made for it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from real_model.alternatives import hook, steering, tuning
from real_model.alternatives.templates import with_prefill, with_system
from real_model.corpora import Corpora
from real_model.languages import language
from real_model.methods import RULE
from real_model.prepare import fit_texts
from real_model.records import rows_of
from real_model.run import (
    DTYPE,
    HARNESS_TOKENS,
    NEW_TOKENS,
    RULES,
    Study,
    evaluate,
    safeswap,
)
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import BackendOptions, HFOptions

SYSTEMS = {"system-prompt": "en", "system-prompt-own": ""}
"""Name of a rival to the language of its system message; "" is the expert's own."""
STEERED, GUARD = "steering", "guard"
STRESSED = (RULE, "fit-own", "fine-tuned-100", "fine-tuned-own-100")
"""Weights under stress, beside the language expert with what stands around it."""
HARMFUL = ("multijail", "polyharm")
AFTER_TUNING, PREFILLED = "after-tuning", "prefilled"

Make = Callable[[], Path]


@dataclass(frozen=True)
class Cell:
    """One language and seed of a study, and where its rivals are made."""

    study: Study
    code: str
    seed: int

    @property
    def root(self) -> Path:
        return self.study.work / "alternatives" / f"{self.code}-{self.seed}"

    @property
    def expert(self) -> Path:
        return self.study.expert(self.code, self.seed)

    @property
    def data(self) -> Path:
        return self.study.work / "data"

    @property
    def template(self) -> str:
        """The chat template that all of the study's models share."""
        return (self.study.base / "chat_template.jinja").read_text("utf-8")

    @property
    def steering(self) -> Path:
        return self.root / "steering.json"

    @property
    def recipes(self) -> Path:
        return self.root / "recipes"

    def results(self, name: str) -> Path:
        return self.root / "results" / name

    def system(self, rival: str) -> str:
        """What the system message of a rival says."""
        words: str = language(SYSTEMS[rival] or self.code)["system"]
        return words

    def fitted(self) -> Path:
        """Folder of what ``safeswap fit`` reads."""
        folder = self.root / "texts"
        if not (folder / "harmless-english.jsonl").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            fit_texts(Corpora(self.study.data), self.code, self.data, folder)
        return folder


def harmful_suite(cell: Cell) -> Path:
    """The suite's harmful requests in the language alone."""
    whole, folder = cell.study.suite(cell.code), cell.root / "harmful"
    benchmarks = yaml.safe_load((whole / "suite.yaml").read_text("utf-8"))["benchmarks"]
    kept = {name: benchmarks[name] for name in HARMFUL if name in benchmarks}
    folder.mkdir(parents=True, exist_ok=True)
    for one in kept.values():
        (folder / one["prompts"]).write_bytes((whole / one["prompts"]).read_bytes())
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({"benchmarks": kept}, sort_keys=False), "utf-8")
    return path


def answered(model: Path) -> bool:
    """Whether a model of a results folder has a verdict for each of its responses."""
    responses, verdicts = model / "responses.jsonl", list((model / "verdicts").glob("*.jsonl"))
    if not responses.is_file() or len(verdicts) != 1:
        return False
    return len(rows_of(verdicts[0])) == len(rows_of(responses))


def ask(
    cell: Cell, name: str, models: Mapping[str, Make], template: str | None = None,
    stressed: bool = False, steered: bool = False,
) -> None:  # fmt: skip
    """Let models answer, each made only if it has not yet.

    Args:
        name: of the folder of results; one for each template.
        stressed: harmful requests in the language alone.
    """
    results = cell.results(name)
    todo = {one: make() for one, make in models.items() if not answered(results / one)}
    if not todo:
        return
    suite = harmful_suite(cell) if stressed else cell.study.suite(cell.code) / "suite.yaml"
    only = cell.code if stressed else f"{cell.code},en"
    file = None
    if template is not None:
        file = cell.root / "templates" / f"{name}.jinja"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template, "utf-8")
    if steered:
        _evaluate_steered(cell, todo, suite, only, results, file)
    else:
        more = () if file is None else ("--chat-template", file)
        evaluate(cell.study, todo, suite, only, results, *more)


def _device(study: Study) -> str:
    return "cpu" if study.device == "cpu" else "auto"


def _evaluate_steered(
    cell: Cell, models: Mapping[str, Path], suite: Path, only: str, results: Path, file: Path | None
) -> None:
    """As ``run.evaluate``, in this process: a backend of one's own has no options of the verb."""
    hook.make_known()
    options = BackendOptions(
        dtype=DTYPE, device=_device(cell.study), chat_template=file,
        more={"steering": str(cell.steering)},
    )  # fmt: skip
    pipeline.evaluate(
        [f"{name}={folder}" for name, folder in models.items()],
        pipeline.make_suite(str(suite), only.split(",")),
        results,
        backend=hook.NAME,
        options=options,
        generation=pipeline.Generation(NEW_TOKENS, HARNESS_TOKENS),
    )
    pipeline.judge(results, f"rule:{RULES}")


def weights(cell: Cell, name: str) -> Path:
    """A model by its name: the expert, a method's merge, or a ceiling, made if need be."""
    if name == cell.code:
        return cell.expert
    out = cell.root / "models" / name
    if (ceiling := tuning.CEILINGS.get(name)) is not None:
        cell.root.mkdir(parents=True, exist_ok=True)
        mix = tuning.refusing_mix(cell.data, cell.code, cell.fitted(), ceiling, cell.root)
        return _trained(cell, cell.expert, mix, ceiling.steps, out)
    if not out.is_dir():
        plan = cell.study.cell(cell.code, cell.seed) / "plans" / f"{name}.yaml"
        safeswap("merge", "--plan", plan, "--out", out, "--quiet")
    return out


def tuned(cell: Cell, name: str) -> Path:
    """A model after harmless steps on the language's chats."""
    out = cell.root / "models" / f"{name}-{AFTER_TUNING}"
    if (out / "recipe.json").is_file():
        return out
    mix = tuning.harmless_mix(cell.data, cell.code, cell.root)
    steps = tuning.HARMLESS_STEPS[cell.study.size]
    return _trained(cell, weights(cell, name), mix, steps, out)


def _trained(cell: Cell, start: Path, mix: Path, steps: int, out: Path) -> Path:
    """Train, and keep what that was on: it outlives the weights."""
    tuning.train(cell.study, start, mix, steps, cell.seed, out)
    cell.recipes.mkdir(exist_ok=True)
    shutil.copy(out / "recipe.json", cell.recipes / f"{out.name}.json")
    return out


def system_prompt(cell: Cell) -> None:
    for name in SYSTEMS:
        told = with_system(cell.template, cell.system(name))
        ask(cell, name, {name: lambda: cell.expert}, told)


def steer(cell: Cell) -> None:
    ask(cell, STEERED, {STEERED: lambda: cell.expert}, steered=_chosen(cell))


def _chosen(cell: Cell) -> bool:
    """Choose where to steer, once."""
    if not cell.steering.is_file():
        cell.root.mkdir(parents=True, exist_ok=True)
        texts = steering.texts_of(Corpora(cell.study.data), cell.code, cell.data, cell.fitted())
        options = HFOptions(dtype=DTYPE, device=_device(cell.study))
        safety = cell.study.expert("safety", cell.seed)
        steering.choose(cell.expert, safety, texts, options, cell.steering)
    return True


def fine_tuned(cell: Cell) -> None:
    ask(cell, "fine-tuned", {name: partial(weights, cell, name) for name in tuning.CEILINGS})


def after_tuning(cell: Cell) -> None:
    """Harmful requests, asked of models that were trained a little further on harmless chats."""
    _stressed(cell, AFTER_TUNING, tuned, lambda template: template)


def prefilled(cell: Cell) -> None:
    """Harmful requests, with the first words of a compliant answer written already."""
    words = language(cell.code)["prefill"]
    _stressed(cell, PREFILLED, weights, lambda template: with_prefill(template, words))


def _stressed(
    cell: Cell, name: str, make: Callable[[Cell, str], Path], changed: Callable[[str], str]
) -> None:
    """Merges and ceilings, and the language expert bare, told, and steered."""
    models = {one: partial(make, cell, one) for one in (cell.code, *STRESSED)}
    ask(cell, name, models, changed(cell.template), stressed=True)
    expert = models[cell.code]
    for system in SYSTEMS:
        told = with_system(cell.template, cell.system(system))
        ask(cell, f"{name}-{system}", {system: expert}, changed(told), stressed=True)
    ask(
        cell, f"{name}-{STEERED}", {STEERED: expert}, changed(cell.template),
        stressed=True, steered=_chosen(cell),
    )  # fmt: skip


def guard(cell: Cell) -> None:
    """Nothing to ask: both have answered in the study; see ``guard.py`` and the record."""


STEPS: Mapping[str, Callable[[Cell], None]] = {
    "system-prompt": system_prompt,
    GUARD: guard,
    STEERED: steer,
    "fine-tuned": fine_tuned,
    PREFILLED: prefilled,
    AFTER_TUNING: after_tuning,
}
"""What ``--only`` names, in their order."""
