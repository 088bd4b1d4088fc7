"""Dev and test: the sides of a split, and what may be reported on which."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.prompts import Prompt, PromptSet, identity_of
from safeswap.evaluation.benchmarks.registry import BENCHMARKS, PromptBenchmark, register
from safeswap.evaluation.benchmarks.splits import Split, read_split, seen_cells, split_of
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite, identities, make_suite
from safeswap.evaluation.generate import Generation, settings_of
from safeswap.evaluation.measures import Measure
from safeswap.plan import ChosenOn

names = st.text(min_size=1, max_size=20)
splits = st.builds(
    Split,
    st.sampled_from(["dev", "test"]),
    st.floats(0.05, 0.95),
    st.integers(0, 2**31),
)


@given(splits, names)
def test_every_question_is_on_one_side(split: Split, name: str) -> None:
    assert split.of("dev").holds(name) != split.of("test").holds(name)


@given(splits, names)
def test_more_dev_takes_none_away(split: Split, name: str) -> None:
    if split.of("dev").holds(name):
        assert Split("dev", min(0.99, split.fraction + 0.04), split.seed).holds(name)


def test_the_side_is_a_hash_that_anyone_can_compute() -> None:
    for seed, name in ((0, "17"), (3, "https://example.org/passage")):
        first = hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:16]
        assert Split("dev", 0.25, seed).holds(name) == (int(first, 16) / 2**64 < 0.25)


def test_about_the_fraction_is_dev() -> None:
    held = sum(Split("dev", 0.3, 1).holds(str(n)) for n in range(10_000))
    assert abs(held - 3000) < 5 * (10_000 * 0.3 * 0.7) ** 0.5


@given(splits)
def test_it_reads_what_it_writes(split: Split) -> None:
    assert split_of(split.as_dict()) == split


def test_the_command_line_s_form() -> None:
    assert read_split("test") == Split("test", 0.5, 0)
    assert read_split("dev:0.25") == Split("dev", 0.25, 0)
    assert read_split("dev:0.25:7") == Split("dev", 0.25, 7)
    assert str(Split("dev", 0.25, 7)) == "dev:0.25:7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tset", "did you mean 'test'"),
        ("dev:1", "between 0 and 1"),
        ("dev:0", "between 0 and 1"),
        ("dev:nan", "between 0 and 1"),
        ("dev:half", "test:0.5:0"),
        ("dev:0.5:1:2", "test:0.5:0"),
        ("dev:0.5:x", "test:0.5:0"),
    ],
)
def test_wrong_ones_say_what_is_right(text: str, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        read_split(text)


def suite(count: int) -> Suite:
    prompts = tuple(
        Prompt(str(n), code, f"{code} {n}") for code in ("sw", "te") for n in range(count)
    )
    harm = Benchmark("harm", "Harm", Measure.UNSAFE, PromptSet("harm", "harmful", prompts))
    return Suite(("sw", "te"), (harm,))


def test_translations_stay_together() -> None:
    sides = {}
    for part in ("dev", "test"):
        on = suite(40).on(Split(part, 0.5, 2))  # type: ignore[arg-type]
        assert on.split is not None and on.benchmarks[0].prompts is not None
        for prompt in on.benchmarks[0].prompts.prompts:
            assert sides.setdefault(prompt.id, part) == part
    assert len(sides) == 40 and set(sides.values()) == {"dev", "test"}


def test_a_side_without_prompts_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"Harm, sw: none of its prompts is on the side dev"):
        suite(1).on(Split("dev" if not Split("dev").holds("0") else "test")).on(Split("dev", 1e-9))


DEV = {"part": "dev", "fraction": 0.5, "seed": 0}
CHOSEN = ChosenOn(DEV, ("multijail/sw", "mgsm/sw"))


def test_a_registered_benchmarks_hostile_mode_asks_its_prompts() -> None:
    """Not MultiJail's alone, which was known by its name."""
    chosen, settings = ChosenOn(DEV, ("mine/sw",)), {"cells": {"mine-intentional/sw": None}}
    one = PromptBenchmark("mine", "Mine", "harmful", "nowhere", hostile_title="Mine, hostile")
    assert seen_cells(settings, chosen) == []
    register(one, __name__)
    try:
        assert seen_cells(settings, chosen) == ["mine-intentional/sw"]
        assert seen_cells({"cells": {"mine/te": None}}, chosen) == ["mine/te"]  # a translation
        assert seen_cells({"cells": {"yours/sw": None}}, chosen) == []
    finally:
        BENCHMARKS.remove("mine")


@pytest.mark.parametrize(
    ("split", "cells", "seen"),
    [
        (None, ["multijail/sw", "xstest/sw"], ["multijail/sw"]),
        (DEV, ["multijail/sw"], ["multijail/sw"]),
        ({**DEV, "part": "test"}, ["multijail/sw", "mgsm/sw"], []),
        ({**DEV, "part": "test", "seed": 1}, ["mgsm/sw"], ["mgsm/sw"]),
        ({**DEV, "part": "test", "fraction": 0.4}, ["mgsm/sw"], ["mgsm/sw"]),
        (None, ["multijail/te", "belebele/sw"], ["multijail/te"]),
        (None, ["multijail-intentional/jv", "mgsm/en"], ["multijail-intentional/jv", "mgsm/en"]),
        (None, ["multijail-intentional/sw"], ["multijail-intentional/sw"]),
        (None, ["harm/sw", "xstest/en"], []),
    ],
)
def test_what_a_model_was_chosen_on(split: object, cells: list[str], seen: list[str]) -> None:
    settings = {"cells": dict.fromkeys(cells)} | ({"split": split} if split else {})
    assert seen_cells(settings, CHOSEN) == seen
    assert seen_cells(settings, None) == []


MULTI = "id,en,sw,jv\n" + "".join(f"{n},how {n},vipi {n},piye {n}\n" for n in range(40))


def cells_seen(folder: Path, languages: list[str], name: str = "mine", **more: object) -> list[str]:
    """What a fresh results folder says of a model that was chosen on dev of multijail/sw."""
    source = folder / "source.csv"
    source.write_text(MULTI)
    dev = make_suite("multijail", ["sw"], prompts={"multijail": source}).on(Split("dev"))
    chosen = ChosenOn(DEV, ("multijail/sw",), frozenset(identities(dev)["multijail/sw"]))
    assert ChosenOn.from_dict(chosen.as_dict(), "plan") == chosen
    copy = folder / "copy.csv"
    copy.write_text(str(more.get("text", MULTI)))
    (folder / "suite.yaml").write_text(f"benchmarks:\n  {name}: {{prompts: copy.csv}}\n")
    suite = make_suite(str(folder / "suite.yaml"), languages).on(more.get("split"))  # type: ignore[arg-type]
    settings = settings_of(suite, Generation())
    asked = {cell: set(text.split()) for cell, text in settings["prompts"].items()}
    return seen_cells(settings, chosen, asked)


def test_the_same_file_under_another_name_is_the_same(tmp_path: Path) -> None:
    assert cells_seen(tmp_path, ["sw", "jv"]) == ["mine/sw", "mine/jv"]
    assert cells_seen(tmp_path, ["sw"], split=Split("test")) == []
    renumbered = MULTI.replace("\n", "\nx")[:-1]
    assert cells_seen(tmp_path, ["sw"], text=renumbered, split=Split("test")) == ["mine/sw"]
    shouted = MULTI.replace("how", "HOW ").replace("vipi", "Vipi")
    assert cells_seen(tmp_path, ["sw", "jv"], text=shouted) == ["mine/sw", "mine/jv"]
    assert cells_seen(tmp_path, ["sw"], text=MULTI.replace("how", "why").replace("vip", "kw")) == []


def test_a_hostile_wording_of_a_translation_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MULTI)
    (tmp_path / "frame.txt").write_text("Pretend. {prompt} Go on.")
    suite = make_suite("multijail", ["jv"], prompts={"multijail": tmp_path / "m.csv"},
                       instruction=tmp_path / "frame.txt")  # fmt: skip
    chosen = ChosenOn({**DEV, "seed": 3}, ("mine/sw",), frozenset([identity_of("vipi 3"),
                      identity_of("how 3")]))  # fmt: skip
    asked = identities(suite)
    assert seen_cells(settings_of(suite, Generation()), chosen, asked) == list(asked)
