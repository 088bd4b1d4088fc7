"""The verbs of evaluation as functions: evaluate, judge, annotate.

>>> from safeswap.evaluation import run                                    # doctest: +SKIP
>>> suite = run.make_suite("safety", ["sw"], prompts={"multijail": "MultiJail.csv"})
...                                                                        # doctest: +SKIP
>>> run.evaluate(["base", "merged"], suite, "results")                     # doctest: +SKIP
>>> run.judge("results", "Qwen/Qwen3Guard-Gen-4B")                         # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import cast

from blake3 import blake3

from safeswap.errors import EvaluationError
from safeswap.evaluation import generate, judging
from safeswap.evaluation.backends import Backend, BackendOptions, find_backend
from safeswap.evaluation.backends.encoding import read_template
from safeswap.evaluation.backends.misfits import misfits_in_words
from safeswap.evaluation.benchmarks.suites import Suite, make_suite
from safeswap.evaluation.generate import Generation
from safeswap.evaluation.human import (
    sample_for_annotation,
    write_sample,
)
from safeswap.evaluation.judges import MAJORITY, make_judge
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import EvaluatedModel, name_models
from safeswap.evaluation.results.explain import explain
from safeswap.evaluation.results.majority import majority_note, one_majority
from safeswap.evaluation.results.outcomes import gather
from safeswap.evaluation.results.rows import JudgedRow
from safeswap.evaluation.results.store import (
    Results,
    find_model,
    open_results,
    read_responses,
    start_results,
)
from safeswap.evaluation.results.verdicts import verdicts_of_each
from safeswap.io import progress
from safeswap.io.progress import items_bar


@dataclass(frozen=True, slots=True)
class Done:
    """What one model's evaluation added: answers to prompts, and questions scored by lm-eval."""

    model: str
    responses: int
    scores: int


@misfits_in_words()  # lm-eval's own imports too
def evaluate(
    models: Sequence[str],
    suite: Suite,
    results: str | Path,
    *,
    backend: str = "hf",
    options: BackendOptions | None = None,
    generation: Generation | None = None,
    overwrite: bool = False,
) -> list[Done]:
    """Stage one for every model: responses to the prompts, and lm-eval's tasks.

    Everything that can be wrong without running a model is checked first, for all of them: names,
    templates, settings of earlier results. Models are loaded one after the other.

    Args:
        models: ``SOURCE`` or ``NAME=SOURCE``; folders, hub ids, or a server's names.
        results: a new folder, or one of the same settings to go on in.
        backend: ``hf``, ``vllm`` or ``api``.
        overwrite: answers under other settings, of another model of the same name, from another
            backend or in another dtype are removed; those of the same are kept and gone on from.

    Raises:
        SafeswapError: what is wrong with which model, prompt, setting or server; what was done
            before is stored.
    """
    find_backend(backend)
    options = options or BackendOptions()
    named = name_models(models, backend, options.base_url)
    generate.refuse_uncut(backend, generation or Generation())
    generate.templates_agree(named, backend, options)
    chosen = with_template(generation or Generation(), options)
    names = [model.name for model in named]
    settings = generate.settings_of(suite, chosen)
    store = start_results(results, settings, names, overwrite=overwrite)
    told = _told(backend, options)
    for model in named:
        generate.refuse_other_model(store, model, overwrite=overwrite)
        generate.refuse_other_backend(store, model, told, overwrite=overwrite)
    if _has_tasks(suite):
        _ability().refuse_missing_datasets(store, names, suite)
    done = []
    for number, model in enumerate(named, 1):
        # again: another run that began before any answer was there may have had other settings
        start_results(results, settings, names)
        of_all = f", model {number} of {len(named)}" if len(named) > 1 else ""
        with progress.suffixed(of_all):
            done.append(_evaluate_arm(store, model, suite, backend, options, chosen, overwrite))
    return done


def _told(backend: str, options: BackendOptions) -> dict[str, str]:
    """What is known of backend and dtype before a model is loaded."""
    exact = options.dtype != "auto" and backend in ("hf", "vllm")
    return {"backend": backend} | ({"dtype": options.dtype} if exact else {})


def _evaluate_arm(
    results: Results,
    model: EvaluatedModel,
    suite: Suite,
    backend: str,
    options: BackendOptions,
    generation: Generation,
    overwrite: bool,
) -> Done:
    if not is_missing(results, model, suite):
        return Done(model.name, 0, 0)
    with generate.loaded(results, model, backend, options, overwrite=overwrite) as engine:
        return answer(results, model, suite, engine, generation)


def is_missing(results: Results, model: EvaluatedModel, suite: Suite) -> bool:
    """Whether a model has not answered all of a suite yet."""
    if generate.missing_prompts(results, model, suite):
        return True
    return _has_tasks(suite) and bool(_ability().missing_tasks(results, model.name, suite))


def answer(
    results: Results,
    model: EvaluatedModel,
    suite: Suite,
    engine: Backend,
    generation: Generation,
    progress: generate.ShowProgress = items_bar,
) -> Done:
    """Let a loaded model answer what is missing of a suite.

    Raises:
        EvaluationError: as ``evaluate``; what was done before is stored.
    """
    scored = 0
    if _has_tasks(suite):
        # lm-eval first: with vLLM its engine is then also the one that answers the prompts.
        scored = _ability().score_tasks(results, model, suite, engine, generation, progress)
    answered = generate.collect_responses(results, model, suite, engine, generation, progress)
    return Done(model.name, answered, scored)


def _has_tasks(suite: Suite) -> bool:
    return any(benchmark.tasks for benchmark in suite.benchmarks)


def _ability() -> ModuleType:
    try:
        from safeswap.evaluation.harness import tasks
    except ImportError as error:
        raise EvaluationError(
            f"MMMLU, BELEBELE and MGSM need lm-evaluation-harness ({error}): "
            "pip install 'safeswap[eval]'."
        ) from error
    return tasks


def with_template(generation: Generation, options: BackendOptions) -> Generation:
    """The generation settings with what the options say of the chat template."""
    template = "on" if options.use_template else "off"
    if options.use_template and options.chat_template is not None:
        text = read_template(options.chat_template)
        template = blake3(text.encode()).hexdigest(length=16)
    return replace(generation, template=template)


def judge(
    results: str | Path,
    spec: str,
    *,
    kind: str | None = None,
    backend: str = "hf",
    options: BackendOptions | None = None,
    models: Sequence[str] = (),
    of_thought: bool = False,
    overwrite: bool = False,
) -> dict[str, int]:
    """Stage two: judge stored responses; model to number of new verdicts.

    Args:
        spec: a judge's hub id or folder, ``rule:FILE.yaml``, a server's name of a model, or
            ``majority:JUDGE,JUDGE,JUDGE``.
        kind: one of ``judges.KINDS`` where the name does not tell.
        models: only these (default: all in the results).
        of_thought: judge what was thought, not what was answered; filed under a name of its own.
        overwrite: verdicts of another judge that are filed under this one's name are removed.

    Raises:
        SafeswapError: unknown judge, no such model, a judge that does not load.
    """
    config = judging.JudgeConfig(spec, kind, backend, options or BackendOptions(), of_thought)
    return judge_by(results, config, models=models, overwrite=overwrite)


def judge_by(
    results: str | Path,
    config: judging.JudgeConfig,
    *,
    models: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, int]:
    """``judge``, with the judge as one record; nothing where it says that none is needed.

    Raises:
        SafeswapError: as ``judge``.
    """
    if not config.spec:
        return {}
    find_backend(config.backend)
    store, chosen = open_results(results), config.make()
    names = [find_model(store, name) for name in models] or store.models
    return judging.judge_models(store, names, chosen, config, items_bar, overwrite=overwrite)


def count_verdicts(
    results: str | Path, spec: str, *, kind: str | None = None, of_thought: bool = False
) -> dict[str, Counter[str]]:
    """Model to how many of each verdict a judge has given it; ``unparsed`` are not its verdicts."""
    store, chosen = open_results(results), make_judge(spec, kind=kind)
    return judging.count_verdicts(store, store.models, judging.judge_name(chosen, spec, of_thought))


@dataclass(frozen=True, slots=True)
class MajorityState:
    """A majority as it stands in a results folder.

    Attributes:
        note: whose verdicts it is of, and since when it is defined.
        waiting: judge → how many responses it has not read.
        verdicts: model → how many of each verdict the majority comes to.
    """

    note: str
    waiting: dict[str, int]
    verdicts: dict[str, Counter[str]]


def majority(results: str | Path) -> MajorityState:
    """What the majority of a results folder is, and what is missing of it.

    Raises:
        EvaluationError: none is defined, or damaged results.
    """
    store = open_results(results)
    record = one_majority([store])
    waiting = dict.fromkeys(record["judges"], 0)
    for model in store.models:
        answers = sum(1 for _ in read_responses(store.folder / model))
        for judge, rows in verdicts_of_each(store, model, record["judges"]).items():
            waiting[judge] += answers - len(rows)
    counted = judging.count_verdicts(store, store.models, MAJORITY)
    return MajorityState(majority_note(record), waiting, counted)


def annotate(
    results: str | Path,
    out: Path,
    sample: int,
    *,
    seed: int = 0,
    judge: str | None = None,
    overwrite: bool = False,
) -> tuple[Path, int]:
    """Draw a stratified, blind sample of judged responses; the key file and how many were drawn.

    Only responses to harmful prompts are drawn: the labels are to say how often the judge errs on
    those, and what it says of answers to harmless prompts is another matter.

    Args:
        overwrite: an earlier sheet at ``out`` is replaced, as long as nobody has labelled it.

    Raises:
        EvaluationError: no verdicts, a sample too small for its strata, a sheet that exists.
    """
    evidence = gather([results], judge, dev=True)
    rows = [
        cast(JudgedRow, {**row, "key": f"{model}/{row['key']}", "arm": model})
        for cell in evidence.cells
        if cell.measures is Measure.UNSAFE
        for model in evidence.models
        for _, row in evidence.get(model, cell.benchmark, cell.language).rows.values()
    ]
    if not rows:
        raise EvaluationError(
            f"{results}: holds no judged responses to harmful prompts. Run `safeswap judge` first."
        )
    drawn = sample_for_annotation(rows, sample, seed)
    return write_sample(drawn, out, overwrite=overwrite), len(drawn.rows)


__all__ = [
    "BackendOptions",
    "Done",
    "Generation",
    "annotate",
    "count_verdicts",
    "evaluate",
    "explain",
    "judge",
    "make_suite",
]
