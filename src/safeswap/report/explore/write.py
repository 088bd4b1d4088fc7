"""The explorer's page as one file: what is known of a profile, and the rules that move in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.anatomy import layer_labels
from safeswap.errors import PlanError
from safeswap.io.files import check_writable, save_text
from safeswap.parameters import Parameter
from safeswap.plan import fill_plan
from safeswap.profile import Profile
from safeswap.report.explore.data import METHODS, facts_of
from safeswap.report.explore.measured import Points, points_of
from safeswap.report.page.strip import lettered, strip
from safeswap.report.page.svg import without_titles
from safeswap.report.web.html_file import as_data, environment, joined, part, render
from safeswap.selectors import find
from safeswap.selectors.words import SYMBOLS
from safeswap.tables import html_table, plain
from safeswap.version import __version__

TITLE = "safeswap explore"
RULES = ("refusal.js", "numbers.js", "band.js", "rules.js", "plan.js", "state.js")
"""What decides and writes plans, in an order in which each finds what it needs; needs no page."""
_VIEW = (
    *("dom.js", "words.js", "drawn_map.js", "units_table.js", "card.js"),
    *("sliders.js", "controls.js", "page.js"),
)
_FEW = 16
"""Layers up to which languages stand side by side."""
_COLUMNS = (
    *("safety", "language", "blend", "mix", "base", "by hand", "copied", "computed"),
    *("weight", "of its update", "weight", "of its update"),
)
_SLIDERS: Mapping[str, tuple[str, float, float, float]] = {
    "tau": ("τ, the threshold", 0, 1000, 1),
    "threshold": ("Threshold on the cosine", -1, 1, 0.01),
    "alpha": ("α, safety's part in a blend", 0, 1, 0.01),
    "gamma": ("γ, how much of the safety vector is added", 0, 2, 0.01),
    "scale": ("λ, of both task vectors", 0, 1, 0.01),
}
"""Parameter → title, and the ends and steps of its slider (of τ the page sets the end)."""
_TITLES = {"outside": "Outside the layers", "norms": "Norms", "router": "Routers"}


def write_explorer(
    profile: Profile,
    out: str | Path,
    *,
    place: Path | None = None,
    sweep: str | Path | None = None,
    judge: str | None = None,
    strict: bool = True,
    title: str = TITLE,
) -> Path:
    """Write one HTML file on which a plan is chosen: no network, no other files.

    Args:
        out: the page; one that is there is replaced.
        place: the profile's file, which plans name.
        sweep: a sweep's or search's folder, whose measured points are shown.
        judge, strict: whose verdicts on them count, as of ``safeswap compare``.
        title: of the page.

    Returns:
        ``out``.

    Raises:
        SafeswapError: jinja2 is missing, or the sweep's folder is none.
        OutputError: the file cannot be written.
    """
    path = Path(out)
    check_writable(path)
    environment()  # before what takes long
    text = explorer(profile, place=place, sweep=sweep, judge=judge, strict=strict, title=title)
    save_text(path, text)
    return path


def explorer(
    profile: Profile,
    *,
    place: Path | None = None,
    sweep: str | Path | None = None,
    judge: str | None = None,
    strict: bool = True,
    title: str = TITLE,
) -> str:
    """The page's text; arguments and errors as of `write_explorer`."""
    known = points_of(Path(sweep), profile, judge, strict) if sweep else {}
    facts = facts_of(profile, str(place.resolve()) if place else None)
    for language in facts["languages"]:
        language["shown"] = plain(language["name"])
    facts["profile"] = plain(str(place)) if place else "profile.json"
    facts["points"] = [
        known[language].as_data() if language in known else [] for language in profile.languages
    ]
    labels = layer_labels(profile.units)
    style = part("safeswap.report.page", "page.css") + part(__package__, "explore.css")
    return render(
        __package__,
        "explore.html.j2",
        style=style,
        script=page_script(),
        title=plain(title) or TITLE,
        made_by=f"safeswap {__version__}",
        inputs=[(role, record.called) for role, record in profile.inputs.items()],
        methods=facts["methods"],
        others=", ".join(facts["others"]),
        views=[view for view in facts["keys"] if view != "expert/fixed"],
        columns=_COLUMNS,
        sampled=profile.sample is not None,
        wide=len(labels) > _FEW,
        narrow=not lettered(labels),
        languages=[_card(profile, one, known) for one in facts["languages"]],
        data=as_data(facts),
        **_controls(),
    )


def rules_script() -> str:
    """The rules alone, as the page has them."""
    return joined([(__package__, name) for name in RULES])


def page_script() -> str:
    """All of the page's script."""
    drawn = [(__package__, name) for name in (*RULES, *_VIEW)]
    return joined([("safeswap.report.web", "map.js"), *drawn])


def _card(
    profile: Profile, language: Mapping[str, Any], known: Mapping[str, Points]
) -> dict[str, Any]:
    from markupsafe import Markup

    points = known.get(language["name"])
    views = [view for view in language["tables"] if view != "expert/fixed"]
    drawn = [(view, Markup(_strip(profile, language["name"], view))) for view in views]
    table = None if points is None else html_table(points.table, f"points-{language['key']}")
    return {
        "shown": language["shown"],
        "strips": drawn,
        "trade": Markup(points.trade) if points and points.trade else "",
        "measured": "" if table is None else Markup(table),
    }


def _strip(profile: Profile, language: str, by: str) -> str:
    """The map of a granularity; what hangs on settings is for the page's script to change."""
    try:
        plan = fill_plan(profile, language, by=by)
    except (PlanError, OverflowError):  # which the page tells, where a method needs shares
        plan = fill_plan(profile, language, method="soup")
    return without_titles(strip(plan))


def _controls() -> dict[str, list[dict[str, Any]]]:
    """What the form has: a control for every parameter of the page's methods, each once."""
    found: dict[str, Parameter] = {}
    for name in METHODS:
        found |= {one.name: one for one in find(name).parameters if one.name not in found}
    sliders = [
        {"name": name, "title": title, "low": low, "high": high, "step": step}
        for name, (title, low, high, step) in _SLIDERS.items()
    ]
    rest = [one for one in found.values() if one.name not in (*_SLIDERS, "by", "tau_relative")]
    return {
        "sliders": sliders,
        "choices": [_named(one) for one in rest if one.choices],
        "fields": [_named(one) for one in rest if not one.choices and one.kind is not bool],
    }


def _named(one: Parameter) -> dict[str, Any]:
    words = SYMBOLS.get(one.name, one.name.replace("_", " ").capitalize())
    return {
        "name": one.name,
        "title": _TITLES.get(one.name, words),
        "number": one.kind is int,
    }
