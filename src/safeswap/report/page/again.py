"""How to make it again: the commands, the versions and the seeds, as far as records tell them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.evaluation.judges import MAJORITY
from safeswap.evaluation.results.majority import read_majority
from safeswap.evaluation.results.store import VERDICTS, Results, open_results, read_json
from safeswap.evaluation.stats import SEED
from safeswap.merge.companions import PLAN_FILE
from safeswap.report.page.runs import MergeRun, Runs
from safeswap.version import __version__


@dataclass(frozen=True)
class Step:
    """A heading, the commands below it, and what must be known beside them."""

    title: str
    commands: Sequence[str]
    note: str = ""


def steps(
    runs: Runs, names: Mapping[Path, str], public: Callable[[str], str], report: str
) -> list[Step]:
    """The commands in their order: merge and verify, evaluate, judge, compare, this page.

    Args:
        names: every run's name in the page.
        public: takes this machine's paths out of a text.
        report: the command that made this page.
    """
    made = [Step("Merge", [line for one in runs.merges for line in _merged(one, names)])]
    for group in runs.results:
        made += [_evaluated(open_results(folder), names[folder], public) for folder in group]
        folders = _said(_name(names[folder]) for folder in group)
        made.append(Step("Compare", [f"safeswap compare {folders}"]))
    for sweep in runs.sweeps:
        verb = "search" if (sweep.path / "pareto").is_dir() else "sweep"
        command = f"safeswap {verb} {verb.upper()}.yaml -o {_said([_name(names[sweep.path])])}"
        note = f"{verb.upper()}.yaml is the file that it was run with; the folder does not hold it."
        made.append(Step(verb.capitalize(), [command], note))
    made.append(Step("This page", [report]))
    return [step for step in made if step.commands]


def _said(words: Iterable[str]) -> str:
    """Words as a shell takes them; ours alone may begin with a dash."""
    return shlex.join(words)


def _name(name: str) -> str:
    """A name that is no option, whatever it begins with."""
    return f"./{name}" if name.startswith("-") else name


def _merged(merge: MergeRun, names: Mapping[Path, str]) -> Iterator[str]:
    name = _name(names[merge.path])
    if not merge.manifest:
        yield f"safeswap merge --plan {_said([name])} --out OUT"
        return
    yield f"safeswap merge --plan {_said([f'{name}/{PLAN_FILE}'])} --out OUT"
    yield f"safeswap verify {_said([name])}"


def _evaluated(results: Results, name: str, public: Callable[[str], str]) -> Step:
    settings = results.settings
    models = [results.model(model) for model in results.models]
    stored = [one for one in models if "candidate" not in one]
    name = _name(name)
    given = [f"{one['name']}={public(one['source'])}" for one in stored]
    codes = list(dict.fromkeys(cell.rpartition("/")[2] for cell in settings["cells"]))
    benchmarks = list(dict.fromkeys(cell.rpartition("/")[0] for cell in settings["cells"]))
    ends = ["--only", ",".join(codes), *_options(settings.get("generation", {}))]
    ends += [*_engine([dict(one) for one in stored]), "-o", name]
    suites = [public(one) for one in settings.get("suites", [])]
    commands = [
        f"safeswap {_said(['evaluate', *given, '--suite', suite, *ends])}"
        for suite in suites or ["SUITE"]
    ]
    for judge in _in_turn(results):
        record = _judge(results, judge)
        source = public(str(record.get("source", judge)))
        if judge == MAJORITY and (votes := read_majority(results)) is not None:
            source = f"{MAJORITY}:{','.join(votes['judges'])}"
        commands.append(f"safeswap judge {_said([name, '--judge', source])}")
    note = f"{' and '.join(suites) or 'SUITE'} held {', '.join(benchmarks)}."
    if not suites:
        note += " Its own file or name is not recorded in results of earlier versions."
    return Step(f"Evaluate: {name.removeprefix('./')}", commands, note)


def _in_turn(results: Results) -> list[str]:
    """The judges; a majority that was defined before any of its own stands first again."""
    votes = read_majority(results)
    first = votes is not None and not any(votes["had"].values())
    return sorted(results.judges(), key=lambda judge: (judge == MAJORITY) != first)


_OPTIONS = {"max_new_tokens": "--max-new-tokens", "harness_tokens": "--harness-tokens"}


def _options(generation: Mapping[str, Any]) -> list[str]:
    return [
        word
        for key, option in _OPTIONS.items()
        if key in generation
        for word in (option, str(generation[key]))
    ]


def _engine(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Options of the back end, where all models ran in one."""
    found = []
    for key in ("backend", "dtype", "device"):
        values = {str(one.get(key, "")) for one in models}
        if len(values) == 1 and (value := values.pop()):
            found += [f"--{key}", value]
    return found


def _judge(results: Results, judge: str) -> dict[str, Any]:
    for model in results.models:
        path = results.folder / model / VERDICTS / f"{judge}.json"
        if path.is_file():
            return read_json(path)
    return {}


def versions(runs: Runs) -> list[tuple[str, str]]:
    """What was made with which versions, and the seeds; name and text."""
    found: dict[str, dict[str, None]] = {}
    for merge in runs.merges:
        for name, version in merge.manifest.get("versions", {}).items():
            found.setdefault(f"merge: {name}", {})[str(version)] = None
        seed = merge.plan.selector.get("seed")
        if seed is not None:
            found.setdefault("seed of the method", {})[str(seed)] = None
    for results in (open_results(folder) for group in runs.results for folder in group):
        for model in map(results.model, results.models):
            for key in ("transformers", "torch", "vllm", "backend", "dtype", "device"):
                if value := model.get(key):
                    found.setdefault(f"evaluation: {key}", {})[str(value)] = None
        split = results.settings.get("split")
        if isinstance(split, dict) and "seed" in split:
            found.setdefault("seed of the split", {})[str(split["seed"])] = None
    listed = [(name, ", ".join(values)) for name, values in found.items()]
    if runs.results or runs.sweeps:
        listed.append(("seed of the bootstrap", f"{SEED}; decoding is greedy and has none"))
    return [*listed, ("this page", f"safeswap {__version__}")]
