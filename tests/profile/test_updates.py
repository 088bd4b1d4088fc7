"""The profile of adapters comes from their factors, and says what reading everything would say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plain_adapter import numbers_of, write_adapter
from safeswap import api
from safeswap.checkpoint.adapters import tensors as adapted
from safeswap.checkpoint.family import open_family
from safeswap.profile import measure_family
from tiny import make_trio

Trio = dict[str, Path]


def changes(trio: Trio, updates: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Role → tensor → its difference to the base, in float64."""
    base = numbers_of(trio["base"])
    found: dict[str, dict[str, Any]] = {}
    for role, given in updates.items():
        found[role] = {name: given.get(name, np.zeros_like(base[name])) for name in base}
    for role in ("safety", "sw"):
        if role not in found:
            whole = numbers_of(trio[role])
            found[role] = {name: whole[name] - base[name] for name in base}
    return found


@pytest.mark.parametrize("adapters", [("safety", "sw"), ("safety",), ("sw",)])
def test_norms_and_inner_products_are_those_of_the_products(
    trio: Trio, tmp_path: Path, adapters: tuple[str, ...]
) -> None:
    updates = {}
    for seed, role in enumerate(adapters, 1):
        updates[role] = write_adapter(tmp_path / role, trio["base"], seed, rank=2 + seed)
    given = {role: tmp_path / role if role in updates else trio[role] for role in ("safety", "sw")}
    profile = api.make_profile(trio["base"], safety=given["safety"], languages={"sw": given["sw"]})
    wanted = changes(trio, updates)
    for tensor in profile.tensors:
        safety, spoken = wanted["safety"][tensor.name], wanted["sw"][tensor.name]
        for role, change in (("safety", safety), ("sw", spoken)):
            assert tensor.update_norm[role] == pytest.approx(np.linalg.norm(change), rel=1e-6)
        lengths = np.linalg.norm(safety) * np.linalg.norm(spoken)
        inner = float((safety * spoken).sum())
        assert tensor.inner["sw"] == pytest.approx(inner, abs=1e-6 * lengths + 1e-300)


def test_nothing_is_multiplied_where_both_experts_are_adapters(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, role in enumerate(("safety", "sw"), 1):
        write_adapter(tmp_path / role, trio["base"], seed)
    family = open_family(trio["base"], tmp_path / "safety", {"sw": tmp_path / "sw"})

    def made(*_: Any) -> Any:
        raise AssertionError("a product was made")

    monkeypatch.setattr(adapted._Panels, "_made", made)
    profile = measure_family(family)
    assert any(tensor.update_norm["sw"] for tensor in profile.tensors)


def test_untouched_tensors_have_the_base_s_digest_and_no_change(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    profile = api.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": tmp_path / "sw"}
    )
    for tensor in profile.tensors:
        same = tensor.digests["sw"] == tensor.digests["base"]
        assert same == (tensor.update_norm["sw"] == 0.0)
        assert same == (
            not tensor.name.removesuffix(".weight").endswith(
                ("q_proj", "v_proj", "up_proj", "down_proj")
            )
        )


def test_a_profile_is_the_same_for_any_number_of_workers_and_any_company(
    trio: Trio, tmp_path: Path
) -> None:
    """What is said of a pair does not hang on which other languages were measured with it."""
    write_adapter(tmp_path / "safety", trio["base"], 1)
    write_adapter(tmp_path / "sw", trio["base"], 2)
    given: dict[str, Any] = {"safety": tmp_path / "safety"}
    alone = api.make_profile(trio["base"], languages={"sw": tmp_path / "sw"}, workers=1, **given)
    both = api.make_profile(
        trio["base"], languages={"te": trio["te"], "sw": tmp_path / "sw"}, workers=3, **given
    )
    assert both.only("sw") == alone


def test_sizes_of_the_pieces_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of a mixed pair may end anywhere in a panel."""
    trio = make_trio(tmp_path / "trio", width=40, inner=52)
    write_adapter(tmp_path / "sw", trio["base"])
    family = open_family(trio["base"], trio["safety"], {"sw": tmp_path / "sw"})
    whole = measure_family(family)
    monkeypatch.setattr("safeswap.profile.measure.BLOCK_ELEMENTS", 77)
    again = measure_family(family)
    for one, two in zip(whole.tensors, again.tensors, strict=True):
        assert one.digests == two.digests
        assert two.inner["sw"] == pytest.approx(one.inner["sw"], rel=1e-6, abs=1e-12)
