"""An expert that is no fine-tune of the base is refused, by numbers, before and after profiling."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap import api
from safeswap.checkpoint.family import open_family
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.profile import Profile, measure_family
from safeswap.profile.descent import LIMIT
from tiny import config_of, llama_shapes, make_trio, make_weights, refused, save_checkpoint, swap

Trio = dict[str, Path]


@pytest.fixture
def strange(tmp_path: Path) -> Trio:
    """A trio whose language expert began from another start."""
    trio = make_trio(tmp_path / "trio")
    shapes = llama_shapes()
    other = save_checkpoint(tmp_path / "other", make_weights(shapes, seed=9), config_of(shapes))
    return trio | {"sw": other}


def given(trio: Trio) -> dict[str, Any]:
    return {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}


def change_of(profile: Profile, role: str) -> float:
    kept = [t for t in profile.tensors if t.role == "projection"]
    moved = sum(t.update_norm[role] ** 2 for t in kept)
    return math.sqrt(moved / sum((t.base_norm or 0.0) ** 2 for t in kept))


def test_a_stranger_is_refused_before_it_is_profiled(
    strange: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safeswap.merge.run.measure_family", lambda *a, **b: pytest.fail("read"))
    words = ("sw expert", str(strange["sw"]), str(strange["base"]), "1.4", "cosine", "--force")
    refused(lambda: swap(strange, tmp_path / "out"), *words, "Give", out=tmp_path / "out")
    refused(lambda: api.make_profile(strange["base"], **given(strange)), *words)


def test_a_stranger_is_refused_by_a_profile_too(strange: Trio, tmp_path: Path) -> None:
    profile = api.make_profile(strange["base"], **given(strange), force=True)
    assert change_of(profile, "sw") == pytest.approx(math.sqrt(2), abs=0.1)
    words = ("sw expert", str(strange["sw"]), "1.4", "--force")
    refused(lambda: api.make_plan(profile), *words)
    plan = api.make_plan(profile, force=True)
    out = tmp_path / "out"
    refused(lambda: api.merge_plans([plan], out, profile=profile, figure=False), *words, out=out)
    api.merge_plans([plan], out, profile=profile, figure=False, force=True)
    assert api.verify_merge(out).from_inputs


def test_the_command_line_has_the_same_way_on(strange: Trio, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, list(arguments))

    experts = ("--safety", str(strange["safety"]), "--language", f"sw={strange['sw']}")
    out, profile, plan = (str(tmp_path / n) for n in ("out", "profile.json", "plan.yaml"))
    steps = (
        ("profile", str(strange["base"]), *experts, "-o", profile),
        ("plan", profile, "-o", plan),
        ("merge", "--plan", plan, "-o", out, "--no-figure"),
    )
    for step in steps:
        assert "is no fine-tune" in run(*step).output
        assert run(*step, "--force").exit_code == 0
    assert "--force" in run("merge", "--help").output


def test_fine_tunes_lie_far_below_the_limit() -> None:
    """The experts of the small world: trained for real, from one base."""
    folder = models_folder()
    languages = {role: folder / role for role in ("qab", "qac", "qad")}
    family = open_family(folder / "base", folder / "safety", languages)
    profile = measure_family(family)
    found = [change_of(profile, role) for role in ("safety", *languages)]
    assert max(found) < 0.1 < LIMIT / 5
