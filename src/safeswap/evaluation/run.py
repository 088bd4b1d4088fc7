"""The verbs of evaluation as functions: evaluate, judge, compare, explain.

>>> from safeswap.evaluation import run                                    # doctest: +SKIP
>>> suite = run.make_suite("safety", ["sw"], prompts={"multijail": "MultiJail.csv"})
...                                                                        # doctest: +SKIP
>>> run.evaluate(["base", "merged"], suite, "results")                     # doctest: +SKIP
>>> run.judge("results", "Qwen/Qwen3Guard-Gen-4B")                         # doctest: +SKIP
>>> tables = run.compare(["results"])                                      # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

from blake3 import blake3

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation import collect, judging
from safeswap.evaluation.annotation import (
    read_annotations,
    sample_for_annotation,
    write_sample,
)
from safeswap.evaluation.answers import (
    answers_table,
    corrected_table,
    degrees_table,
    numbers_table,
)
from safeswap.evaluation.arms import Arm, make_arms
from safeswap.evaluation.collect import Generation
from safeswap.evaluation.comparison import (
    compare_all,
    comparisons_tables,
    methods_table,
    rates_table,
)
from safeswap.evaluation.evidence import gather
from safeswap.evaluation.judges import make_judge
from safeswap.evaluation.progress import items_bar
from safeswap.evaluation.responders import BACKENDS, BackendOptions, Responder
from safeswap.evaluation.responders.encoding import read_template
from safeswap.evaluation.statistics import MARGIN
from safeswap.evaluation.store import Results, find_arm, open_results, start_results
from safeswap.evaluation.suites import Suite, make_suite
from safeswap.evaluation.tracing import explain
from safeswap.report.tables import Table

_NO_PAIRS = (
    "Nothing is compared: no merge stands here with its language expert. Name a model to compare "
    "all others with: --reference MODEL."
)


@dataclass(frozen=True, slots=True)
class Done:
    """What one model's evaluation added: answers to prompts, and questions scored by lm-eval."""

    arm: str
    responses: int
    scores: int


def evaluate(
    models: Sequence[str],
    suite: Suite,
    results: str | Path,
    *,
    backend: str = "hf",
    options: BackendOptions | None = None,
    generation: Generation | None = None,
    quiet: bool = True,
) -> list[Done]:
    """Stage one for every model: responses to the prompts, and lm-eval's tasks.

    Everything that can be wrong without running a model is checked first, for all of them: names,
    templates, settings of earlier results. Models are loaded one after the other.

    Args:
        models: ``SOURCE`` or ``NAME=SOURCE``; folders, hub ids, or a server's names.
        results: a new folder, or one of the same settings to go on in.
        backend: ``hf``, ``vllm`` or ``api``.

    Raises:
        SafeswapError: what is wrong with which model, prompt, setting or server; what was done
            before is stored.
    """
    _check_backend(backend)
    options = options or BackendOptions()
    arms = make_arms(models, backend, options.base_url)
    collect.templates_agree(arms, backend, options)
    chosen = with_template(generation or Generation(), options)
    names = [arm.name for arm in arms]
    store = start_results(results, collect.settings_of(suite, chosen), names)
    for arm in arms:
        collect.refuse_other_model(store, arm)
    return [_evaluate_arm(store, arm, suite, backend, options, chosen, quiet) for arm in arms]


def _evaluate_arm(
    results: Results,
    arm: Arm,
    suite: Suite,
    backend: str,
    options: BackendOptions,
    generation: Generation,
    quiet: bool,
) -> Done:
    if not is_missing(results, arm, suite):
        return Done(arm.name, 0, 0)
    tell = partial(items_bar, quiet=quiet)
    with collect.loaded(results, arm, backend, options) as responder:
        return answer(results, arm, suite, responder, generation, tell)


def is_missing(results: Results, arm: Arm, suite: Suite) -> bool:
    """Whether a model has not answered all of a suite yet."""
    if collect.missing_prompts(results, arm, suite):
        return True
    return _has_tasks(suite) and bool(_ability().missing_tasks(results, arm.name, suite))


def answer(
    results: Results,
    arm: Arm,
    suite: Suite,
    responder: Responder,
    generation: Generation,
    tell: collect.Tell,
) -> Done:
    """Let a loaded model answer what is missing of a suite.

    Raises:
        EvaluationError: as `evaluate`; what was done before is stored.
    """
    scored = 0
    if _has_tasks(suite):
        # lm-eval first: with vLLM its engine is then also the one that answers the prompts.
        scored = _ability().score_tasks(results, arm, suite, responder, generation, tell)
    answered = collect.collect_responses(results, arm, suite, responder, generation, tell)
    return Done(arm.name, answered, scored)


def _has_tasks(suite: Suite) -> bool:
    return any(benchmark.tasks for benchmark in suite.benchmarks)


def _ability() -> ModuleType:
    try:
        from safeswap.evaluation import ability
    except ImportError as error:
        raise EvaluationError(
            f"MMMLU, BELEBELE and MGSM need lm-evaluation-harness ({error}): "
            "pip install 'safeswap[eval]'."
        ) from error
    return ability


def with_template(generation: Generation, options: BackendOptions) -> Generation:
    """The generation settings with what the options say of the chat template."""
    template = "on" if options.use_template else "off"
    if options.use_template and options.chat_template is not None:
        text = read_template(options.chat_template)
        template = blake3(text.encode()).hexdigest(length=16)
    return Generation(generation.max_new_tokens, generation.harness_tokens, template)


def judge(
    results: str | Path,
    spec: str,
    *,
    kind: str | None = None,
    backend: str = "hf",
    options: BackendOptions | None = None,
    models: Sequence[str] = (),
    quiet: bool = True,
) -> dict[str, int]:
    """Stage two: judge stored responses; model to number of new verdicts.

    Args:
        spec: a judge's hub id or folder, ``rule:FILE.yaml``, or a server's name of a model.
        kind: ``qwen3guard``, ``llamaguard``, ``threeway`` or ``rule`` where the name does not tell.
        models: only these (default: all in the results).

    Raises:
        SafeswapError: unknown judge, no such model, a judge that does not load.
    """
    _check_backend(backend)
    store = open_results(results)
    chosen = make_judge(spec, kind=kind)
    arms = [find_arm(store, name) for name in models] or store.arms
    return judging.judge_arms(
        store,
        arms,
        chosen,
        spec,
        backend,
        options or BackendOptions(),
        partial(items_bar, quiet=quiet),
    )


def count_verdicts(
    results: str | Path, spec: str, *, kind: str | None = None
) -> dict[str, Counter[str]]:
    """Model to how many of each verdict a judge has given it; ``unparsed`` are not its verdicts."""
    store, chosen = open_results(results), make_judge(spec, kind=kind)
    return judging.count_verdicts(store, store.arms, judging.judge_name(chosen, spec))


def _check_backend(name: str) -> None:
    if name not in BACKENDS:
        raise EvaluationError(f"no backend is called {name!r}{nearest(name, BACKENDS)}")


def compare(
    results: Sequence[str | Path],
    *,
    judge: str | None = None,
    strict: bool = True,
    reference: str | None = None,
    margin: float = MARGIN,
    annotations: str | Path | None = None,
    dev: bool = False,
) -> list[Table]:
    """All tables: rates, paired differences, the answers' state, numbers by value.

    Args:
        results: folders of the same settings.
        judge: whose verdicts count, where there are several.
        strict: whether "controversial" counts as unsafe.
        reference: the model that all others are compared with; by default each merge is compared
            with its language expert.
        margin: the share of ability that may be lost (0.02 is two points).
        annotations: a labelled sheet of `annotate`: adds rates corrected for the judge's errors.
        dev: also where a model was chosen on these very questions; every table then says so.

    Raises:
        EvaluationError: folders of different settings, an unknown judge or model.
    """
    evidence = gather(results, judge, strict, dev=dev)
    comparisons = compare_all(evidence, reference, margin)
    alone = () if comparisons else (_NO_PAIRS,)
    tables: list[Table | None] = [rates_table(evidence, alone), methods_table(evidence)]
    tables.append(degrees_table(evidence))
    tables += comparisons_tables(comparisons, margin)
    if annotations is not None:
        tables.append(corrected_table(evidence, read_annotations(annotations)))
    tables += [answers_table(evidence), numbers_table(evidence)]
    return [_marked(table, evidence.dev) for table in tables if table is not None]


def _marked(table: Table, chosen: Sequence[str]) -> Table:
    """A table of dev questions says so in its title and below it."""
    if not chosen:
        return table
    note = f"Dev questions: {listed(list(chosen))} chosen by these figures. No test result."
    return replace(table, title=f"{table.title} (dev)", notes=(note, *table.notes))


def annotate(
    results: str | Path, out: Path, sample: int, *, seed: int = 0, judge: str | None = None
) -> tuple[Path, int]:
    """Draw a stratified, blind sample of judged responses; the key file and how many were drawn.

    Only responses to harmful prompts are drawn: the labels are to say how often the judge errs on
    those, and what it says of answers to harmless prompts is another matter.

    Raises:
        EvaluationError: no verdicts, a sample too small for its strata, a sheet that exists.
    """
    evidence = gather([results], judge, dev=True)
    rows = [
        {**row, "key": f"{arm}/{row['key']}", "arm": arm}
        for cell in evidence.cells
        if cell.measures == "unsafe"
        for arm in evidence.models
        for _, row in evidence.get(arm, cell.benchmark, cell.language).rows.values()
    ]
    if not rows:
        raise EvaluationError(
            f"{results}: holds no judged responses to harmful prompts. Run `safeswap judge` first."
        )
    drawn = sample_for_annotation(rows, sample, seed)
    return write_sample(drawn, out), len(drawn.rows)


__all__ = [
    "BackendOptions",
    "Done",
    "Generation",
    "annotate",
    "compare",
    "count_verdicts",
    "evaluate",
    "explain",
    "judge",
    "make_suite",
]
