"""The verbs that ask models: evaluate, judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safeswap.cli.backend_options import backend_options, cluster_options, options_of, pairs_of
from safeswap.cli.config_file import CONFIG
from safeswap.cli.options import (
    DRY_RUN,
    JSON,
    OUTSIDE,
    OVERWRITE,
    QUIET,
    RESULTS,
    codes_of,
    print_json,
    say_outlook,
    use_threads,
)
from safeswap.cli.registered import BACKENDS, JUDGE_KINDS, MAJORITY, either
from safeswap.cli.verbs import Verb, options, quoted, say, say_step
from safeswap.errors import ConfigError, nearest

if TYPE_CHECKING:
    from safeswap.evaluation.judging import JudgeConfig


@click.command(cls=Verb, renamed={"--languages": "--only", "--results": "--out"}, resumes=True)
@click.argument("models", nargs=-1, required=True)
@options(
    click.option(
        "--suite",
        default="paper",
        show_default=True,
        help="paper, safety, ability, mergebench, low-resource, benchmarks joined by commas, or a "
        "YAML file.",
    ),
    click.option(
        "--only",
        multiple=True,
        required=True,
        metavar="CODE",
        help="In these languages. Repeat it, or join by commas: ko,sw,bn,te.",
    ),
    click.option(
        "--prompts",
        multiple=True,
        metavar="NAME[/LANGUAGE][=FILE]",
        help="multijail=MultiJail.csv, xstest/sw=translated.csv; a name alone (multijail) fetches "
        "the file of its authors, compares its digest and keeps it.",
    ),
    click.option(
        "--data",
        multiple=True,
        metavar="NAME/LANGUAGE=FILE",
        help="A local file in place of a benchmark's dataset, such as mgsm/te=mgsm_te.tsv.",
    ),
    click.option(
        "--instruction",
        type=click.Path(path_type=Path),
        help="Adds MultiJail's intentional mode with this malicious instruction.",
    ),
    click.option(
        "--split",
        metavar="PART[:FRACTION[:SEED]]",
        help="Only the dev or the test questions, such as test or dev:0.5:0 (default: all).",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="A trial: at most N questions of each benchmark and language; every table says so.",
    ),
    click.option(
        "--limit-seed", type=int, default=0, show_default=True, help="Another choice of them."
    ),
    OUTSIDE,
    heading="Questions",
)
@options(
    click.option(
        "--chat-template",
        default="on",
        show_default=True,
        help="on, off, or a Jinja file: the same for every model.",
    ),
    click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True),
    click.option(
        "--harness-tokens",
        type=click.IntRange(min=1),
        default=1024,
        show_default=True,
        help="New tokens for lm-eval's generating tasks.",
    ),
    click.option(
        "--thinking",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="What chat templates are told of enable_thinking.",
    ),
    click.option(
        "--think-tokens",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Room for a thought, beside that for the answer.",
    ),
    click.option(
        "--cut-thoughts",
        is_flag=True,
        help="For hf: a thought that is open after --think-tokens is closed; the answer goes on.",
    ),
    heading="Answers",
)
@options(
    click.option("--judge", "judge_spec", help="Judge right after; see `safeswap judge`."),
    click.option("--judge-kind", help=f"{either(JUDGE_KINDS)}."),
    click.option("--judge-backend", help=f"{either(BACKENDS)}.  [default: that of the models]"),
    click.option("--judge-url", default="", help="For a judge on another server."),
    heading="Judge",
)
@backend_options
@cluster_options
@RESULTS
@OVERWRITE
@DRY_RUN
@JSON
@QUIET
@CONFIG
def evaluate(
    models: tuple[str, ...],
    suite: str,
    only: tuple[str, ...],
    prompts: tuple[str, ...],
    data: tuple[str, ...],
    instruction: Path | None,
    chat_template: str,
    max_new_tokens: int,
    harness_tokens: int,
    thinking: Any,
    think_tokens: int,
    cut_thoughts: bool,
    split: str | None,
    limit: int | None,
    limit_seed: int,
    allow_outside: bool,
    results: Path,
    judge_spec: str | None,
    judge_kind: str | None,
    judge_backend: str | None,
    judge_url: str,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **backend: Any,
) -> None:
    """Let MODELS answer a suite, and store every answer in the results folder.

    MODELS are folders, hub ids or a server's names, each as SOURCE or NAME=SOURCE. The same command
    goes on where it was stopped.
    """
    from safeswap.evaluation import pipeline
    from safeswap.evaluation.backends import refuse_foreign_options
    from safeswap.evaluation.benchmarks.limit import Limit
    from safeswap.evaluation.benchmarks.splits import read_split
    from safeswap.evaluation.generate import refuse_uncut
    from safeswap.evaluation.judges import make_judge
    from safeswap.evaluation.judging import JudgeConfig
    from safeswap.evaluation.outlook import evaluation_outlook, lines_of

    kind = backend.pop("backend")
    asked = options_of(backend, chat_template)
    refuse_foreign_options(asked, (kind, judge_backend or kind))
    if judge_spec is not None:  # a wrong name should not show after hours of answering
        make_judge(judge_spec, kind=judge_kind)
    made = pipeline.make_suite(
        suite,
        codes_of(only),
        prompts=_prompts(prompts),
        files={_cell(key): Path(path) for key, path in pairs_of("--data", data)},
        instruction=instruction,
        allow_outside=allow_outside,
        fetch=not dry_run,
    ).on(None if split is None else read_split(split))
    made = made.limited(None if limit is None else Limit(limit, limit_seed))
    for benchmark in made.benchmarks:
        for code, reason in benchmark.absent.items():
            say_step(f"n/a: {benchmark.title} in {code}: {reason}")
    generation = pipeline.Generation(
        max_new_tokens,
        harness_tokens,
        thinking=thinking,
        think_tokens=think_tokens,
        cut_thoughts=cut_thoughts,
    )
    refuse_uncut(kind, generation)
    if dry_run:
        with_its = pipeline.with_template(generation, asked)
        record = evaluation_outlook(
            models, made, results, backend=kind, options=asked, generation=with_its
        )
        say_outlook(record, lines_of, as_json)
        return
    use_threads(backend["threads"])
    done = pipeline.evaluate(
        models,
        made,
        results,
        backend=kind,
        options=asked,
        generation=generation,
        overwrite=overwrite,
    )
    for one in done:
        say_step(f"{one.model}: {one.responses} responses and {one.scores} scores added")
    record = {"kind": "evaluated", "out": str(results), "models": [asdict(one) for one in done]}
    if judge_spec is not None:
        judging = options_of({**backend, "base_url": judge_url or backend["base_url"]}, "on")
        config = JudgeConfig(judge_spec, judge_kind, judge_backend or kind, judging)
        record["judged"] = _judge(results, config, (), overwrite)
    elif any(benchmark.prompts for benchmark in made.benchmarks):
        say_step(f"next: safeswap judge {quoted(results)} --judge Qwen/Qwen3Guard-Gen-4B")
    if as_json:
        print_json(record)


@click.command(cls=Verb, resumes=True)
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--judge",
    "spec",
    required=True,
    help="A hub id, a folder, rule:FILE.yaml, or majority:JUDGE,JUDGE,JUDGE, which is best given "
    "before any of these has judged.",
)
@click.option(
    "--kind",
    help=f"{either(JUDGE_KINDS)}, if the name does not tell; qwen3guard-prompt is of the prompts "
    "alone, gpt-oss-safeguard:FILE has a policy of yours.",
)
@click.option("--models", default="", help="Only these, joined by commas.")
@click.option("--thoughts", is_flag=True, help="Judge what was thought, not what was answered.")
@backend_options
@cluster_options
@OVERWRITE
@DRY_RUN
@JSON
@QUIET
def judge(
    results: Path,
    spec: str,
    kind: str | None,
    models: str,
    thoughts: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **backend: Any,
) -> None:
    """Judge the stored responses of a results folder, without generating any.

    Each judge has a file of its own; what it has read already is not judged again.
    """
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    from safeswap.evaluation.backends import refuse_foreign_options
    from safeswap.evaluation.judging import JudgeConfig
    from safeswap.evaluation.outlook import judge_outlook, lines_of

    chosen = backend.pop("backend")
    asked = options_of(backend, "on")
    refuse_foreign_options(asked, (chosen,))
    config = JudgeConfig(spec, kind, chosen, asked, thoughts)
    if dry_run:
        say_outlook(judge_outlook(results, config, names), lines_of, as_json)
        return
    use_threads(backend["threads"])
    judged = _judge(results, config, names, overwrite)
    if as_json:
        print_json(judged)


def _judge(
    results: Path, config: JudgeConfig, models: Sequence[str], overwrite: bool
) -> dict[str, Any]:
    """Judge, say how it went, and give the same for scripts."""
    from safeswap.evaluation import pipeline
    from safeswap.evaluation.results.store import open_results

    spec = config.spec
    added = pipeline.judge_by(results, config, models=models, overwrite=overwrite)
    if config.name == MAJORITY:
        return _majority(results, config)
    for model, count in added.items():
        say_step(f"{model}: {count} verdicts of {spec} added")
    if not added:
        say_step(f"nothing to judge: {spec} has read every response")
    counts = pipeline.count_verdicts(results, spec, kind=config.kind, of_thought=config.of_thought)
    for model, verdicts in counts.items():
        if nonsense := verdicts["unparsed"]:
            say(
                f"warning: {nonsense} of {verdicts.total()} verdicts on {model} are in no form "
                "that this judge answers in; they count as neither safe nor unsafe. Look at `raw` "
                f"in {results / model / 'verdicts'}: is it the right judge, and --kind?",
                err=True,
            )
    several = f" --judge {config.name}" if len(open_results(results).judges()) > 1 else ""
    say_step(f"next: safeswap compare {quoted(results)}{several}")
    judged = [
        {"name": model, "added": added.get(model, 0), "verdicts": dict(sorted(verdicts.items()))}
        for model, verdicts in counts.items()
    ]
    return {"kind": "judged", "out": str(results), "judge": config.name, "models": judged}


def _majority(results: Path, config: JudgeConfig) -> dict[str, Any]:
    """Say whose verdicts count together, since when, and who has not judged yet."""
    from safeswap.evaluation import pipeline

    found = pipeline.majority(results)
    say_step(f"{results}: the {found.note}")
    for judge, count in found.waiting.items():
        if count:
            say_step(f"{judge} has not read {count} responses: safeswap judge {quoted(results)}")
    say_step(f"next: safeswap compare {quoted(results)} --judge {config.name}")
    judged = [
        {"name": model, "added": 0, "verdicts": dict(sorted(verdicts.items()))}
        for model, verdicts in found.verdicts.items()
    ]
    return {"kind": "judged", "out": str(results), "judge": config.name, "models": judged}


def _prompts(given: Sequence[str]) -> dict[str, Path | None]:
    """Key → file; None where nothing but a name is given, which asks for its authors' file."""
    from safeswap.evaluation.benchmarks.named import fetchable
    from safeswap.evaluation.benchmarks.registry import BENCHMARKS

    found: dict[str, Path | None] = {}
    for text in given:
        if "=" in text:
            ((key, path),) = pairs_of("--prompts", [text])
            found[key] = Path(path)
        elif text.partition("/")[0] in BENCHMARKS:
            found[text] = None
        else:
            raise ConfigError(
                f"--prompts {text!r}: is given as NAME=FILE, or as the name of prompts that can be "
                f"fetched{nearest(text, fetchable())}"
            )
    return found


def _cell(key: str) -> tuple[str, str]:
    benchmark, separator, language = key.partition("/")
    if not separator:
        raise ConfigError(f"--data {key}: is given as BENCHMARK/LANGUAGE=FILE.")
    return benchmark, language


COMMANDS = (evaluate, judge)
