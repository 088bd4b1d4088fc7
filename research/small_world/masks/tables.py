"""The tables of the mask study in Markdown, from what `masks.reckon` made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def as_markdown(study: Mapping[str, Any]) -> str:
    """All tables, one after another."""
    seeds = len(study["seeds"])
    parts = [
        f"{seeds} expert seeds on one base, languages {', '.join(study['languages'])}; masks of "
        f"seeds {', '.join(map(str, study['mask_seeds']))}. Means over seeds and languages, on "
        f"the test half of the questions ({study['test_harmful']} harmful, "
        f"{study['test_harmless']} harmless) unless it says otherwise.",
        "## Methods, controls and the best masks",
        methods(study["compared"]),
        "## Operators",
        operators(study["compared"]),
        "## Refusal within one point of ability",
        matched(study["matched"]),
        "## Does a score know a good mask?",
        scores(study["ranked"]),
    ]
    if study["ranked_gates"]:
        title = f"The same for gates (seeds {', '.join(map(str, study['gate_seeds']))}):"
        parts += [title, scores(study["ranked_gates"])]
    parts += [
        "## Share-difference's mask among all",
        placed(study["placed"]),
        "## The modules",
        units(study["units"]),
        "## By language, all questions",
        by_language(study["by_language"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("| " + " | ".join("---" if n < words else "---:" for n in range(len(head))) + " |")
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+z.1f}".replace("-", "−")


def _p(row: Row) -> str:
    if row["p"] is None:
        return ""
    text = f"{row['p']:.3f}"
    return f"{text} ({row['p_holm']:.3f})" if "p_holm" in row else text


def methods(compared: Sequence[Row]) -> str:
    """Figures, regrets and tests of all but the operators."""
    rows = (
        (
            row["name"],
            _points(row["refusal"]),
            _points(row["ability"]),
            _points(row["over_refusal"]),
            f"{_points(row['J'])} ({_low_high(row['J_by_seed'].values())})",
            _signed(row["regret_to_dev_best"]),
            _signed(row["regret_to_oracle"]),
            _p(row),
        )
        for row in compared
        if row["group"] != "operator"
    )
    head = (
        *("model", "harmful refused", "answers right", "harmless refused", "J (seeds)"),
        *("regret, dev's best", "regret, hindsight", "p (Holm)"),
    )
    return _table(head, rows)


def _low_high(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{_points(min(listed))}–{_points(max(listed))}"


def operators(compared: Sequence[Row]) -> str:
    """Every operator at either pair of weights."""
    found = {row["name"]: row for row in compared if row["group"] == "operator"}
    names = dict.fromkeys(name.split(", (")[0] for name in found)
    rows = []
    for name in names:
        cells = [name]
        for pair in ("(0.5, 0.5)", "(1, 1)"):
            row = found[f"{name}, {pair}"]
            cells += [_points(row[key]) for key in ("refusal", "ability", "J")]
        rows.append(cells)
    head = ["operator"]
    for pair in ("0.5", "1"):
        head += [f"weights {pair}: refused", "right", "J"]
    return _table(head, rows)


def matched(found: Sequence[Row]) -> str:
    """Per language the mask that refuses most within the allowed loss, and the best candidates."""
    rows = []
    for row in found:
        kept = sorted(row["within"].items(), key=lambda item: -item[1])
        # of operators that do the same at either weight one is enough
        names = dict.fromkeys(f"{name} {_points(rate)}" for name, rate in kept)
        rows.append(
            (
                row["language"],
                *(_points(row["expert"][key]) for key in ("refusal", "ability")),
                *(_points(row["best"][key]) for key in ("refusal", "ability")),
                "; ".join(list(names)[:5]),
            )
        )
    head = (
        *("language", "expert: refused", "right", "best mask: refused", "right"),
        "candidates within one point that refuse most",
    )
    return _table(head, rows)


def scores(ranked: Sequence[Row]) -> str:
    """Rank correlations, mean and range over seeds and languages."""
    rows = (
        (
            row["score"],
            *(
                f"{row[key]:+.2f} ({row[f'{key}_low']:+.2f} to {row[f'{key}_high']:+.2f})".replace(
                    "-", "−"
                )
                for key in ("masks", "units")
            ),
        )
        for row in ranked
    )
    return _table(("score", "over all masks", "over the modules"), rows)


def placed(found: Sequence[Row]) -> str:
    """Percentiles of share-difference's mask and of the inverted one: mean, lowest, highest."""
    rows = []
    for key, name in (("own", "safety where d > 0"), ("inverted", "safety where d < 0")):
        cells = [name]
        for among in ("among_all", "same_number", "same_kinds"):
            values = [row[key][among] for row in found]
            mean = sum(values) / len(values)
            cells.append(f"{mean:.0f} ({min(values):.0f}–{max(values):.0f})")
        rows.append(cells)
    head = ("mask", "of all masks", "of those with as many modules", "as many of either kind")
    return _table(head, rows)


def units(found: Sequence[Row]) -> str:
    """Main effect of taking each module from safety, in points, and its share difference."""
    rows = (
        (
            row["unit"],
            _signed(row["difference"]),
            *(_signed(row[key]) for key in ("refusal", "ability", "objective")),
        )
        for row in found
    )
    return _table(("module", "d, points", "refusal", "ability", "J"), rows)


def by_language(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """Rates on all questions: mean, smallest and largest over the seeds."""
    rows = [
        (language, name, *(_rate(values) for values in rates.values()))
        for language, models in found.items()
        for name, rates in models.items()
    ]
    head = ("language", "model", "harmful refused", "harmless refused", "answers right")
    return _table(head, rows, words=2)


def _rate(values: Sequence[float]) -> str:
    mean = f"{100 * sum(values) / len(values):.0f} %"
    low, high = 100 * min(values), 100 * max(values)
    return mean if low == high else f"{mean} ({low:.0f}–{high:.0f})"
