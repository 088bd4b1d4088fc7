"""The verb ``attribute``: what each unit's part of the safety vector brings, and what it costs.

The readouts of the language expert change when the whole safety vector is added to it. Every unit's
share of that change is its integrated gradient

    ∫₀¹ ⟨∇_W readout(W_language + t τ_safety), τ_safety⟩_unit dt,

by Gauss and Legendre at a few points: a forward and a backward pass over the texts at each of them
give all units at once. The shares add up to the whole change, but for the error of the integration;
the sum is compared with the difference.

Source: integrated gradients (Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365), here of
weights along the task vector in place of inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from safeswap.calibration.run import run_settings
from safeswap.checkpoint.family import Family, open_family
from safeswap.errors import ConfigError
from safeswap.evaluation.backends import BackendOptions
from safeswap.io.files import check_writable
from safeswap.io.progress import items_bar
from safeswap.merge.run import measure
from safeswap.profile.attribution import READOUTS, Attribution, Readouts
from safeswap.roles import SAFETY
from safeswap.search.attribute.integrate import Integrator
from safeswap.search.attribute.path import AdditionPath, groups_of
from safeswap.search.attribute.readings import Readings
from safeswap.search.attribute.settings import AttributionSettings
from safeswap.search.fit.gradient import CoefficientGradient
from safeswap.search.fit.objective import encode, log_likelihoods
from safeswap.search.fit.texts import read_fit_texts
from safeswap.search.hotswap import HotSwapModel

_log = logging.getLogger("safeswap.attribute")
WRONG = 0.1
"""A sum that is off by more of the difference is worth a warning."""


def attribute(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    harmful: Path,
    harmless: Mapping[str, Path],
    out: Path,
    settings: AttributionSettings | None = None,
    options: BackendOptions | None = None,
    max_tokens: int = 256,
    workers: int | None = None,
    force: bool = False,
) -> Attribution:
    """Measure what each unit brings and write it to ``out``.

    Args:
        languages: one language's expert.
        harmful, harmless: as of :func:`~safeswap.search.fit.texts.read_fit_texts`.
        out: the file; one that is there is replaced.
        options: of the model: dtype (float32 by default), device; a chat template is used unless
            it is turned off.
        max_tokens: longer answers are cut.
        force: take experts too that are no fine-tunes of the base, and chats in whatever language.

    Raises:
        ConfigError: several languages.
        CalibrationError: texts that are not valid.
        AnatomyError: attentions that cannot be cut into heads.
        EvaluationError: a readout that is no number, or a model that cannot be held in memory.
        FamilyError, CheckpointError, OutputError: as the steps do.
    """
    settings, options = (
        settings or AttributionSettings(),
        options or BackendOptions(dtype="float32"),
    )
    if len(languages) != 1:
        raise ConfigError(
            f"{' and '.join(languages)}: a file is of one language. Give one --language, and run "
            "the command again with another -o for each of the others."
        )
    (language,) = languages
    check_writable(out)
    texts = read_fit_texts(language, harmful, harmless, settings.seed, force=force)
    family = open_family(base, safety, languages, force=force)
    measured = measure(family, workers, force=force).inputs
    digests = {role: one.digest for role, one in measured.items()}
    hot = HotSwapModel(family, language, options, workers)
    try:
        encoded = partial(
            encode, hot.loaded.tokenizer, limit=max_tokens, template=options.use_template
        )
        readings = Readings.of(texts.all, settings, encoded)
        before, after, units = _measured(family, hot, readings, settings)
        backend = dict(hot.loaded.description)
    finally:
        hot.close()
    found = Attribution(
        language=language,
        by=settings.by,
        inputs=digests,
        settings={**settings.as_dict(), **run_settings(options, max_tokens)},
        texts=dict(texts.digests),
        prompts=" ".join(sorted(texts.chosen().prompts)),
        read=readings.counts,
        openings=texts.all.openings,
        backend=backend,
        before=before,
        after=after,
        units=units,
    )
    found.save(out)
    _check_sums(found)
    return found


def _measured(
    family: Family, hot: HotSwapModel, readings: Readings, settings: AttributionSettings
) -> tuple[Readouts, Readouts, dict[str, Readouts]]:
    """The readouts at both ends of the way, and what every unit brings."""
    model, pad = hot.loaded.model, hot.loaded.pad
    groups, parameters = groups_of(family, hot, settings.by), hot.trainable()
    names = dict.fromkeys(span.name for spans in groups.values() for span in spans)
    gradient = CoefficientGradient(family, model, parameters, groups, (SAFETY,))
    path = AdditionPath(family, hot.language, parameters, [*names])
    try:
        with items_bar(
            f"attribute {hot.language}", readings.passes * (settings.points + 2)
        ) as advance:
            run = Integrator(
                path, readings, gradient, lambda rows: log_likelihoods(model, rows, pad), advance
            )
            before, shares = run.values(0.0), run.shares(settings.points)
            after = run.values(1.0)
    finally:
        gradient.close()
    units = (Readouts(*map(float, row)) for row in shares)
    return before, after, dict(zip(groups, units, strict=True))


def _check_sums(found: Attribution) -> None:
    """Say where the shares do not add up to the whole change."""
    for readout in READOUTS:
        error = found.error(readout)
        if error > WRONG:
            _log.warning(
                f"{readout}: the units bring {found.total(readout):+.2f} nats together and the "
                f"whole change is {found.difference(readout):+.2f}, so the shares are off by "
                f"{error:.0%} of it. Take more points: --points {2 * found.settings['points']}"
            )
