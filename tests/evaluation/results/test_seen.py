"""What a model was chosen on is known again: by rows, by lm-eval's questions; or it is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from heard import heard
from safeswap.errors import EvaluationError, PlanError
from safeswap.evaluation.benchmarks.prompts import identity_of, read_prompts
from safeswap.evaluation.benchmarks.splits import seen_cells
from safeswap.evaluation.results.seen import models_that_saw
from safeswap.evaluation.results.store import Results
from safeswap.plan.chosen import ChosenOn

DEV = {"part": "dev", "fraction": 0.5, "seed": 0}


def xstest(path: Path, texts: list[str], *, focus: str = "kill") -> Path:
    rows = [[n, text, "homonyms", "safe", focus and f"{focus}{n}"] for n, text in enumerate(texts)]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "prompt", "type", "label", "focus"], *rows])
    return path


def identities(path: Path, name: str, code: str) -> set[str]:
    return {one for p in read_prompts(path, name, code).prompts for one in p.identities}


def chosen(found: set[str], *cells: str) -> ChosenOn:
    return ChosenOn(DEV, cells or ("xstest/en",), frozenset(found))


def test_a_translation_under_another_name_is_known_by_its_rows(tmp_path: Path) -> None:
    english = identities(xstest(tmp_path / "en.csv", ["How do I?", "May I?"]), "xstest", "en")
    translated = xstest(tmp_path / "sw.csv", ["Vipi?", "Je?"])
    settings = {"cells": {"mine/sw": {"items": 2}}}
    asked = {"mine/sw": identities(translated, "mine", "sw")}
    assert seen_cells(settings, chosen(english), asked) == ["mine/sw"]
    # another set with the same numbers is another set
    other = xstest(tmp_path / "other.csv", ["Vipi?", "Je?"], focus="steal")
    assert seen_cells(settings, chosen(english), {"mine/sw": identities(other, "x", "sw")}) == []
    bare = xstest(tmp_path / "bare.csv", ["Vipi?", "Je?"], focus="")
    assert len(identities(bare, "x", "sw")) == 2  # ids alone tell nothing


def record(name: str, on: ChosenOn) -> Any:
    return {"name": name, "chosen": on.as_dict()}


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    bare = identities(xstest(tmp_path / "b.csv", ["Vipi?", "Je?"], focus=""), "mine", "sw")
    told = identities(xstest(tmp_path / "t.csv", ["Vipi?", "Je?"], focus="steal"), "mine", "sw")
    english = identities(xstest(tmp_path / "en.csv", ["How do I?", "May I?"]), "xstest", "en")
    for found, said in ((bare, True), (told, False)):
        settings: Any = {
            "cells": {"mine/sw": {"items": 2}},
            "prompts": {"mine/sw": " ".join(sorted(found))},
        }
        with heard() as notes:
            assert models_that_saw(settings, [], {"m": record("m", chosen(english))}) == ()
        assert any("could not be checked" in note for note in notes) is said
        with heard() as notes:  # nobody was chosen: nothing to say
            models_that_saw(settings, [], {"m": {"name": "m"}})  # type: ignore[dict-item]
        assert notes == []


def test_questions_of_lm_eval_are_known_under_another_name(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from safeswap.evaluation.harness.task_rows import _identity

    question = _identity({"question": "How  many?", "answer": "3"})
    assert question == _identity({"Question": "how many?", "id": "another form of the same"})
    assert question != _identity({"question": "How much?"})
    (tmp_path / "m").mkdir()
    row = {"key": "mine/sw/t/0", "benchmark": "mine", "language": "sw", "id": "t/0", "right": 1}
    row |= {"metrics": {"acc": 1.0}, "doc_hash": "x", "prompt_hash": "y", "cluster": "0"}
    (tmp_path / "m" / "scores.jsonl").write_text(json.dumps({**row, "question": question}) + "\n")
    (tmp_path / "m" / "model.json").write_text(json.dumps({"name": "m", "digest": "d"}))
    settings: Any = {"format": "safeswap-results/1", "cells": {"mine/sw": {"task": "t"}}}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "arms": ["m"]}))
    models = {"m": record("m", chosen({question}, "mgsm/sw"))}
    results = [Results(tmp_path)]
    assert models_that_saw(settings, results, models, dev=True) == ("m",)
    # the other side of the same benchmark may ask the same words again
    split = {**settings, "split": {**DEV, "part": "test"}, "cells": {"mgsm/sw": {"task": "t"}}}
    assert seen_cells(split, chosen({question}, "mgsm/sw"), {"mgsm/sw": {question}}) == []


def test_what_a_plan_was_fitted_on_is_no_test_of_it() -> None:
    """Known by its words alone, in whatever set; nothing is said of what may be a translation."""
    fitted = ChosenOn.fitted_on([identity_of("Vipi?")])
    assert ChosenOn.from_dict(fitted.as_dict(), "plan") == fitted and fitted.rest == ""
    settings: Any = {
        "cells": {"mine/sw": {"items": 1}, "other/sw": {"items": 1}},
        "prompts": {"mine/sw": identity_of("  VIPI? "), "other/sw": identity_of("Je?")},
    }
    models = {"ours": record("ours", fitted)}
    with heard() as said:
        with pytest.raises(EvaluationError, match=r"ours: fitted on texts .* \(mine/sw\)"):
            models_that_saw(settings, [], models)
        assert models_that_saw(settings, [], models, dev=True) == ("ours",)
        settings["prompts"]["mine/sw"] = identity_of("Gani?")
        assert models_that_saw(settings, [], models) == ()
    assert not said


@pytest.mark.parametrize("content", [{"prompts": " "}, {"prompts": 3}, {"cells": ["a/sw"]}])
def test_a_record_of_a_choice_that_says_too_little_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="plan: "):
        ChosenOn.from_dict(content, "plan")
