"""Regular expressions of strangers end after a while, whoever matches them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.judges import make_judge
from safeswap.io import regexes

SLOW = "(a+)+$"
TEXT = "a" * 60 + "b"


@pytest.fixture(autouse=True)
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "SECONDS", 0.2)


@pytest.mark.parametrize("name", ["search", "match", "fullmatch", "findall", "finditer", "split"])
def test_every_function_ends(name: str) -> None:
    bounded = regexes.BoundedRe()
    for act in (getattr(bounded.compile(SLOW), name), lambda t: getattr(bounded, name)(SLOW, t)):
        with pytest.raises(EvaluationError, match="takes too long"):
            act(TEXT)


def test_substitutions_end() -> None:
    for name in ("sub", "subn"):
        with pytest.raises(EvaluationError, match="takes too long"):
            getattr(regexes.BoundedRe(), name)(SLOW, "", TEXT)


def test_honest_ones_are_as_ever() -> None:
    bounded = regexes.BoundedRe()
    assert bounded.findall(r"\d+", "1 22") == re.findall(r"\d+", "1 22")
    assert [m[0] for m in bounded.finditer(r"\d+", "1 22")] == ["1", "22"]
    assert bounded.compile(r"(\d)").sub(r"<\1>", "a1") == "a<1>"
    assert bounded.compile("x", bounded.IGNORECASE).flags & re.IGNORECASE
    assert bounded.escape("a.b") == re.escape("a.b")


def test_a_judge_of_rules_ends(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(f"default: safe\nrules:\n  - {{pattern: '{SLOW}', verdict: unsafe}}\n")
    judge = make_judge(f"rule:{path}")
    with pytest.raises(EvaluationError, match="takes too long"):
        judge.decide("", TEXT, {})  # type: ignore[union-attr]


def test_filters_and_metrics_of_lm_eval_end() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters import extraction

    from safeswap.evaluation.templates import installed

    with installed():
        slow = extraction.RegexFilter(SLOW)
        with pytest.raises(EvaluationError, match="takes too long"):
            list(slow.apply([[TEXT]], [{}]))
        with pytest.raises(EvaluationError, match="takes too long"):
            exact_match_hf_evaluate([TEXT], ["b"], regexes_to_ignore=[SLOW])
        assert list(extraction.RegexFilter(r"#### (\d+)").apply([["#### 7"]], [{}])) == [["7"]]
    assert extraction.re is re
