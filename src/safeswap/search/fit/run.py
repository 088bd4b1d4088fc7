"""The verb ``fit``: two weights per unit, fitted on what the merged model does with texts.

The model is never trained: what moves is the table of weights, two numbers for each attention and
MLP (72 for a model of 18 layers), by the gradient of an objective through the merge. It sees some
hundred texts, each a few times.

::

    OUT/profile.json          measured once
    OUT/LANGUAGE.yaml         the plan
    OUT/LANGUAGE.json         settings, digests of the texts, every step, readings before and after
    OUT/.LANGUAGE.state.json  where a stopped fit goes on; gone when it is done

Source: AdaMerging (Yang et al., ICLR 2024, arXiv 2310.02575) fits coefficients per layer on the
entropy of unlabelled test inputs; here they are fitted on refusals and on the language's own texts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from safeswap.anatomy.heads import Span
from safeswap.calibration.run import run_settings
from safeswap.checkpoint.family import Family, open_family
from safeswap.errors import ConfigError, EvaluationError, OutputError
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.readouts import Exchange, Reading, read_model
from safeswap.evaluation.results.store import digest_of, one_at_a_time
from safeswap.io.files import save_inside
from safeswap.io.jsonfile import load_json
from safeswap.io.progress import items_bar
from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.plan.table import FIT
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from safeswap.search.fit.descent import Descent
from safeswap.search.fit.gradient import CoefficientGradient
from safeswap.search.fit.objective import Batch, Losses, Objective, Scored, encode, log_likelihoods
from safeswap.search.fit.settings import FitSettings
from safeswap.search.fit.texts import FitTexts, SplitTexts, drawn, read_fit_texts
from safeswap.search.hotswap import HotSwapModel
from safeswap.search.runner import load_profile
from safeswap.selectors.common import keys_of

_log = logging.getLogger("safeswap.fit")
GAUGED = 64
"""On so many answers the base is compared with the language expert, to know what that gained."""
_DIGITS = 3  # of a weight in the plan: a thousandth moves nothing that was measured


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of one language.

    Attributes:
        plan: its file; record: the file beside it.
        before, after: readings of the held-back texts under the language expert and under the plan.
        kept: share of the language expert's gain that the plan keeps on the held-back answers.
    """

    language: str
    plan: Path
    record: Path
    before: Reading
    after: Reading
    kept: float


def fit(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    harmful: Path,
    harmless: Mapping[str, Path],
    out: Path,
    settings: FitSettings | None = None,
    options: BackendOptions | None = None,
    max_tokens: int = 256,
    workers: int | None = None,
    force: bool = False,
) -> list[Fitted]:
    """Fit a plan for each language; what is done already is kept, what was stopped goes on.

    Args:
        harmful: harmful requests with refusals, see
            :func:`~safeswap.search.fit.texts.read_fit_texts`.
        harmless: language → chats in it, and ``safety`` → harmless English ones where there are.
        out: a folder: new, or that of the same fit.
        options: of the model: dtype, device; a chat template is used unless it is turned off.
        max_tokens: longer answers are cut.
        force: take experts too that are no fine-tunes of the base, and chats in whatever language.

    Raises:
        CalibrationError: texts that are not valid.
        EvaluationError: the language expert has gained nothing on its texts, or the model cannot
            be exchanged in memory.
        FamilyError, CheckpointError, OutputError: as the steps do.
    """
    settings, options = settings or FitSettings(), options or BackendOptions()
    texts = {
        code: read_fit_texts(code, harmful, harmless, settings.seed, force=force)
        for code in languages
    }
    family = open_family(base, safety, languages, force=force)
    out.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(out):
        profile = load_profile(family, out, workers, force=force)
        return [
            LanguageFit(family, profile, code, texts[code], settings, options, max_tokens, out).run(
                workers
            )
            for code in languages
        ]


class LanguageFit:
    """One language's fit.

    Attributes:
        template: the language expert as a plan, with the selector of a fit.
        groups: what shares its two weights → units; norms and what lies outside stay the
            language's.
        identity: digest of all that decides what comes out.
    """

    def __init__(
        self,
        family: Family,
        profile: Profile,
        language: str,
        texts: SplitTexts,
        settings: FitSettings,
        options: BackendOptions,
        max_tokens: int,
        out: Path,
    ) -> None:
        self.family, self.language, self.texts = family, language, texts
        self.settings, self.options, self.max_tokens = settings, options, max_tokens
        self.out = out
        weights: dict[str, Any] = {"weight_safety": 0.0, "weight_language": 1.0}
        plan = fill_plan(profile, language, method="uniform", form="weights", **weights)
        selector = {"name": FIT, **settings.as_dict()}
        self.template = replace(plan, selector=selector, chosen=texts.chosen())
        self.groups = keys_of(profile.units, settings.by)
        inputs = {role: profile.inputs[role].digest for role in plan.inputs}
        how = run_settings(options, max_tokens)
        self.identity = digest_of(["fit", inputs, dict(texts.digests), settings.as_dict(), how])

    def plan(self, descent: Descent) -> Plan:
        """The table of a state."""
        units = dict(self.template.units)
        for weights, members in zip(descent.weights, self.groups.values(), strict=True):
            pair = [round(float(weight), _DIGITS) for weight in weights]
            given = dict(zip((SAFETY, self.language), pair, strict=True))
            units |= {unit: replace(units[unit], weights=given) for unit in members}
        return replace(self.template, units=units)

    def run(self, workers: int | None) -> Fitted:
        """Fit, or take what is there."""
        done = self._done()
        if done is not None:
            _log.info(f"{done.plan}: kept from before")
            return done
        hot = HotSwapModel(self.family, self.language, self.options, workers)
        try:
            return self._fit(hot)
        finally:
            hot.close()

    def _fit(self, hot: HotSwapModel) -> Fitted:
        before = self._read(hot)
        expert, gain = self._expert(hot, self.texts.fitted)
        held, held_gain = self._expert(hot, self.texts.held)
        descent = self._started()
        learner = Learner(self, hot, expert, gain)
        try:
            with items_bar(f"fit {self.language}", self.settings.steps - descent.steps) as advance:
                while descent.steps < self.settings.steps:
                    learner.step(descent)
                    self._save_state(descent)
                    advance(1)
        finally:
            learner.close()
        plan = self.plan(descent)
        hot.apply(plan)
        after = self._read(hot)
        answers = self._scored(hot, self.texts.held.harmless)
        lost = sum(held) - sum(self._likelihoods(hot, answers, "plan"))
        kept = 1 - lost / (held_gain * len(held))
        return self._write(plan, descent, hot.loaded.description, before, after, kept)

    def _read(self, hot: HotSwapModel) -> Reading:
        return read_model(
            hot.loaded, self.texts.held.readouts(), template=self.options.use_template
        )

    def _scored(self, hot: HotSwapModel, exchanges: Sequence[Exchange]) -> list[Scored]:
        return [
            encode(hot.loaded.tokenizer, one, self.max_tokens, template=self.options.use_template)
            for one in exchanges
        ]

    def _expert(self, hot: HotSwapModel, texts: FitTexts) -> tuple[list[float], float]:
        """Log-likelihood of each harmless answer under the language expert, and its mean gain.

        The model is the base's afterwards.
        """
        answers = self._scored(hot, texts.harmless)
        nothing = dict.fromkeys((SAFETY, self.language), 0.0)
        nowhere = dict.fromkeys(self.template.units, PlannedUnit(nothing))
        hot.apply(self.template)
        expert = self._likelihoods(hot, answers, self.language)
        hot.apply(replace(self.template, units=nowhere))
        before = self._likelihoods(hot, answers[:GAUGED], BASE)
        gain = (sum(expert[:GAUGED]) - sum(before)) / len(before)
        if gain <= 0:
            raise EvaluationError(
                f"{self.language}: on the given chats the language expert is no better than the "
                f"base ({-gain:.2f} nats an answer worse), so there is no gain to keep. Give chats "
                "of the kind that it was trained for, --harmless."
            )
        return expert, gain

    def _likelihoods(self, hot: HotSwapModel, answers: Sequence[Scored], what: str) -> list[float]:
        """Log-likelihood of each answer under the model as it is, nats."""
        found: list[float] = []
        batch = self.settings.batch
        with items_bar(f"read {what}", len(answers)) as advance, torch.inference_mode():
            for at in range(0, len(answers), batch):
                part = answers[at : at + batch]
                found += log_likelihoods(hot.loaded.model, part, hot.loaded.pad).tolist()
                advance(len(part))
        return found

    def _state(self) -> Path:
        return self.out / f".{self.language}.state.json"

    def _started(self) -> Descent:
        """The state of a stopped fit of the same inputs, else a new one."""
        settings, groups = self.settings, len(self.groups)
        path = self._state()
        if path.is_file():
            content = _read_record(path)
            if isinstance(content, dict) and content.get("fit") == self.identity:
                return Descent.from_dict(content, groups, str(path))
        return Descent.begin(groups, settings.start_safety, settings.start_language)

    def _save_state(self, descent: Descent) -> None:
        content = {"fit": self.identity, **descent.as_dict()}
        save_inside(self.out, self._state().name, json.dumps(content).encode())

    def _done(self) -> Fitted | None:
        plan, record = (self.out / f"{self.language}.{end}" for end in ("yaml", "json"))
        if not (plan.is_file() and record.is_file()):
            return None
        content = _read_record(record)
        if not isinstance(content, dict) or content.get("fit") != self.identity:
            raise OutputError(
                f"{plan}: was fitted on other checkpoints, texts or settings. Choose another -o, "
                "or remove it."
            )
        try:
            held = content["held"]
            before, after = (Reading(**held[side]) for side in ("before", "after"))
            return Fitted(self.language, plan, record, before, after, float(held["kept"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(record, error) from error

    def _write(
        self,
        plan: Plan,
        descent: Descent,
        backend: Mapping[str, Any],
        before: Reading,
        after: Reading,
        kept: float,
    ) -> Fitted:
        path, record = (self.out / f"{self.language}.{end}" for end in ("yaml", "json"))
        content = {
            "fit": self.identity,
            "language": self.language,
            "settings": self.settings.as_dict(),
            "texts": dict(self.texts.digests),
            "openings": list(self.texts.fitted.openings),
            "backend": dict(backend),
            "held": {"before": asdict(before), "after": asdict(after), "kept": kept},
            "steps": descent.history,
        }
        plan.save(path)
        save_inside(self.out, record.name, (json.dumps(content, indent=1) + "\n").encode())
        self._state().unlink(missing_ok=True)
        return Fitted(self.language, path, record, before, after, kept)


def _read_record(path: Path) -> Any:
    try:
        return load_json(path)
    except (ConfigError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path}: is damaged ({error}). Remove it, or choose another -o.")


class Learner:
    """Steps of one fit on a loaded model."""

    def __init__(
        self, task: LanguageFit, hot: HotSwapModel, expert: Sequence[float], gain: float
    ) -> None:
        self.task, self.hot, self.gain = task, hot, gain
        settings, texts = task.settings, task.texts.fitted
        self.objective = Objective(settings.margin, settings.over, settings.keep, settings.spend)
        self.harmful = self._opened(texts.harmful)
        self.harmless = self._opened([one.request for one in texts.harmless])
        self.others = self._opened([one.request for one in texts.others])
        self.answers = list(zip(task._scored(hot, texts.harmless), expert, strict=True))
        self.gradient = CoefficientGradient(
            task.family,
            hot.loaded.model,
            hot.trainable(),
            {
                key: [Span(name) for name in hot.tensors_of(units)]
                for key, units in task.groups.items()
            },
            (SAFETY, task.language),
        )

    def step(self, descent: Descent) -> None:
        """One step: the model becomes the state's, its gradient is taken, the state moves."""
        settings = self.task.settings
        self.hot.apply(self.task.plan(descent))
        losses = self.objective.backward(self._score, self.batch(descent.steps))
        gradient = self.gradient.take()
        descent.step(gradient, settings.rate, settings.high, _rounded(losses))

    def batch(self, step: int) -> Batch:
        """The texts of a step, which follow from the seed and its number alone."""
        count, seed = self.task.settings.batch, f"{self.task.settings.seed} {step}"
        answered = drawn(self.answers, count, f"{seed} answers")
        harmful = drawn(self.harmful, count, f"{seed} harmful")
        harmless = drawn(self.harmless, count, f"{seed} harmless")
        harmless += drawn(self.others, count, f"{seed} others")
        return Batch(
            harmful=[one for request in harmful for one in request],
            opened=[one for request in harmless for one in request],
            openings=len(self.task.texts.fitted.openings),
            answered=[answer for answer, _ in answered],
            language=[likelihood for _, likelihood in answered],
            gain=self.gain,
        )

    def _opened(self, requests: Sequence[str]) -> list[list[Scored]]:
        """Each request with all openings of refusals."""
        openings = self.task.texts.fitted.openings
        return [
            self.task._scored(self.hot, [Exchange(request, opening) for opening in openings])
            for request in requests
        ]

    def _score(self, batch: Sequence[Scored]) -> torch.Tensor:
        return log_likelihoods(self.hot.loaded.model, batch, self.hot.loaded.pad)

    def close(self) -> None:
        """Let go of the task vectors and of gradients."""
        self.gradient.close()
        for parameter in self.hot.loaded.model.parameters():
            parameter.requires_grad_(False)


def _rounded(losses: Losses) -> dict[str, float]:
    return {name: round(value, 5) for name, value in asdict(losses).items()}
