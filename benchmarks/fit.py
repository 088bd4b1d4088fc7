"""`safeswap fit` against a search without gradients at equal time; and what it takes.

    python benchmarks/fit.py [--steps 50] [--seeds 0 1 2]                       # small world
    python benchmarks/fit.py --base B --safety S --language th=L --harmful refusals.jsonl \\
        --harmless th=chats.jsonl --harmless safety=english.jsonl [--dtype bfloat16]

The peer is Optuna's TPE over the same table: the same two weights per unit in [0, high], from the
same start, minimising the same objective on all of the same texts by forward passes, for as long
as the fit's whole process took. Both are reported on the texts fitted on and on those held back (a
quarter), so that overfitting can be seen: the gap between the two columns. Prints seconds and peak
of the fit's process, and how much of what the fit gains on held-back texts the search gains.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import optuna
import torch
from gram_add import FIRST_SEED, write_chats

from safeswap.checkpoint.family import Family, open_family
from safeswap.cli.options import languages_of
from safeswap.demo import default_world, models_folder
from safeswap.demo.documents import language_documents, safety_documents
from safeswap.evaluation.backends import BackendOptions
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.search.fit import FitSettings
from safeswap.search.fit.descent import Descent
from safeswap.search.fit.objective import Scored, log_likelihoods
from safeswap.search.fit.run import LanguageFit, Learner
from safeswap.search.fit.texts import SplitTexts, read_fit_texts
from safeswap.search.hotswap import HotSwapModel

ALL, AT_ONCE, LENGTH = 1024, 16, 256


@dataclass(frozen=True)
class Trio:
    """Who is fitted, on which files.

    Attributes:
        harmless: language or ``safety`` → file.
    """

    base: Path
    safety: Path
    language: str
    expert: Path
    harmful: Path
    harmless: dict[str, Path]

    def command(self, out: Path, settings: FitSettings, dtype: str) -> list[str]:
        """The fit as a user calls it."""
        words = [sys.executable, "-m", "safeswap", "fit", self.base, "--safety", self.safety]
        words += ["--language", f"{self.language}={self.expert}", "--harmful", self.harmful]
        for role, path in self.harmless.items():
            words += ["--harmless", f"{role}={path}"]
        words += ["--steps", settings.steps, "--max-tokens", LENGTH, "--dtype", dtype]
        return [str(word) for word in (*words, "--device", "cpu", "-o", out, "--force", "--quiet")]


def small_world(work: Path, code: str = "qac") -> Trio:
    """The shipped experts, and texts of their own training streams at another place."""
    world, models = default_world(), models_folder()
    documents = list(zip(range(4000), safety_documents(world, FIRST_SEED), strict=False))
    said = [one for _, one in documents if one.prompt]
    refusals = [one for one in said if world.is_refusal(one.response)]
    others = [one for one in said if not world.is_refusal(one.response)]
    harmless = {
        code: write_chats(work / "chats.jsonl", language_documents(world, code, FIRST_SEED), 120),
        "safety": write_chats(work / "others.jsonl", others, 100),
    }
    harmful = write_chats(work / "refusals.jsonl", refusals, 120)
    return Trio(models / "base", models / "safety", code, models / code, harmful, harmless)


def objective(learner: Learner) -> float:
    """Its value on all texts of a learner, of the model as it is."""

    def score(batch: list[Scored]) -> torch.Tensor:
        model, pad = learner.hot.loaded.model, learner.hot.loaded.pad
        parts = [batch[at : at + AT_ONCE] for at in range(0, len(batch), AT_ONCE)]
        return torch.cat([log_likelihoods(model, part, pad) for part in parts])

    with torch.inference_mode():
        return sum(float(term) for term, _ in learner.objective.terms(score, learner.batch(0)))


class Sides:
    """The objective on the texts that are fitted on, and on those held back."""

    def __init__(
        self, family: Family, profile: Profile, trio: Trio, settings: FitSettings, dtype: str
    ) -> None:
        options = BackendOptions(dtype=dtype, device="cpu")
        split = read_fit_texts(trio.language, trio.harmful, trio.harmless, 0, force=True)
        whole = replace(settings, batch=ALL)

        def task(texts: SplitTexts) -> LanguageFit:
            return LanguageFit(
                family, profile, trio.language, texts, whole, options, LENGTH, Path()
            )

        self.task, self.hot = task(split), HotSwapModel(family, trio.language, options)
        self.learners = []
        for one in (self.task, task(replace(split, fitted=split.held))):
            expert, gain = one._expert(self.hot, one.texts.fitted)
            self.learners.append(Learner(one, self.hot, expert, gain))
            self.learners[-1].close()  # nothing is trained here

    def of(self, plan: Plan) -> tuple[float, float]:
        """A plan's: fitted on, held back."""
        self.hot.apply(plan)
        fitted, held = self.learners
        return objective(fitted), objective(held)


def searched(sides: Sides, settings: FitSettings, seconds: float, seed: int) -> tuple[Plan, int]:
    """The best table that Optuna finds in the time, and how many it looked at."""
    groups, until = len(sides.task.groups), time.perf_counter() + seconds
    names = [f"{n}:{role}" for n in range(groups) for role in ("safety", "language")]
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    start = (settings.start_safety, settings.start_language)
    study.enqueue_trial({name: start[n % 2] for n, name in enumerate(names)})

    def plan_of(found: dict[str, float]) -> Plan:
        descent = Descent.begin(groups, *start)
        for n, name in enumerate(names):
            descent.weights[n // 2, n % 2] = found[name]
        return sides.task.plan(descent)

    while time.perf_counter() < until:
        trial = study.ask()
        given = {name: trial.suggest_float(name, 0.0, settings.high) for name in names}
        sides.hot.apply(plan_of(given))
        study.tell(trial, objective(sides.learners[0]))
    return plan_of(study.best_params), len(study.trials)


def measured(trio: Trio, settings: FitSettings, dtype: str, work: Path) -> tuple[Path, float]:
    """The fitted plan, and seconds of the whole process."""
    begun = time.perf_counter()
    subprocess.run(trio.command(work / "fitted", settings, dtype), check=True)
    return work / "fitted" / f"{trio.language}.yaml", time.perf_counter() - begun


def main() -> None:
    """Fit, search for as long, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "safety", "harmful"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--language")
    parser.add_argument("--harmless", action="append", default=[], metavar="ROLE=FILE")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = FitSettings(steps=chosen.steps)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trio = small_world(work)
        if chosen.base:
            ((code, expert),) = languages_of((chosen.language,)).items()
            files = {
                role: Path(file) for role, _, file in (t.partition("=") for t in chosen.harmless)
            }
            trio = Trio(chosen.base, chosen.safety, code, Path(expert), chosen.harmful, files)
        plan, seconds = measured(trio, settings, chosen.dtype, work)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        family = open_family(trio.base, trio.safety, {trio.language: trio.expert}, force=True)
        profile = Profile.load(work / "fitted" / "profile.json")
        sides = Sides(family, profile, trio, settings, chosen.dtype)
        steps = json.loads(plan.with_suffix(".json").read_text("utf-8"))["steps"]
        size = sum(int(value.nbytes) for value in sides.hot.loaded.model.parameters())
        print(f"fit: {len(steps)} steps, {seconds:.0f} s with reading before and after; peak "
              f"{peak / 1e6:.0f} MB, of a model of {size / 1e6:.0f} MB")  # fmt: skip
        print("| table | objective, fitted on | held back |\n| --- | --: | --: |")

        def row(name: str, table: Plan) -> tuple[float, float]:
            found = sides.of(table)
            print(f"| {name} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)
            return found

        row("language expert", sides.task.template)
        begin = Descent.begin(
            len(sides.task.groups), settings.start_safety, settings.start_language
        )
        start = row("where both start", sides.task.plan(begin))
        fitted = row("fit", Plan.load(plan))
        found = []
        for seed in chosen.seeds:
            best, trials = searched(sides, settings, seconds, seed)
            found.append(row(f"Optuna, seed {seed}, {trials} tables", best))
        if found:
            gained = fmean(start[1] - held for _, held in found)
            print(f"of what the fit gains on held-back texts the search gains "
                  f"{gained / (start[1] - fitted[1]):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
