"""The file of an attribution, and the order that it puts units in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributions import make_attribution
from safeswap.errors import ProfileError
from safeswap.profile.attribution import Attribution, Readouts


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    found = make_attribution()
    found.save(tmp_path / "a.json")
    assert Attribution.load(tmp_path / "a.json") == found


def test_free_units_come_first_then_what_is_cheap() -> None:
    """By hand: 0.mlp costs nothing, 1.attention brings 10 for a nat, 0.attention 2.5."""
    found = make_attribution()
    assert found.ranked() == ["0.mlp", "1.attention", "0.attention"]
    assert "1.mlp" not in found.ranked(), "it brings nothing"
    # 1.attention's overrefusing of 0.4 nats costs as much as it brings, and more
    assert found.ranked(over=3.0) == ["0.mlp", "0.attention"]


def test_sums_and_errors() -> None:
    found = make_attribution()
    assert found.total("refusing") == pytest.approx(3.5)
    assert found.difference("refusing") == pytest.approx(4.0)
    assert found.error("refusing") == pytest.approx(0.125)
    still = make_attribution(after=found.before)
    assert math.isinf(still.error("refusing"))
    assert make_attribution({"0.mlp": Readouts(0, 0, 0)}, after=found.before).error("keeping") == 0


numbers = st.floats(-10, 10, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8), st.integers(1, 3))
def test_heads_add_up_to_their_attention(rows: list[tuple[float, ...]], layers: int) -> None:
    units = {f"{n % layers}.heads.{n // layers}": Readouts(*row) for n, row in enumerate(rows)}
    units["0.attention"] = Readouts(1.0, 2.0, 3.0)  # what is of no head
    whole = make_attribution(units, by="head").by_unit()
    assert whole.by == "module" and set(whole.units) <= {f"{n}.attention" for n in range(layers)}
    for name in ("refusing", "overrefusing", "keeping"):
        assert whole.total(name) == pytest.approx(
            sum(getattr(one, name) for one in units.values()), abs=1e-9
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "safeswap-attribution/9"}, "is not a safeswap-attribution/1 file"),
        ({"unit": {}}, "unknown key 'unit'; did you mean 'units'"),
        ({"by": "heads"}, "is damaged"),
        ({"units": {}}, "there is no unit"),
        ({"units": {"0.attn": {"refusing": 1, "overrefusing": 1, "keeping": 1}}}, "0.attn"),
        ({"units": {"0.mlp": {"refusing": 1, "overrefusing": 1}}}, "is damaged"),
        ({"before": {"refusing": "x", "overrefusing": 1, "keeping": 1}}, "no finite number"),
        ({"language": "ko"}, "inputs must be"),
        ({"inputs": {"base": "b", "safety": 3, "sw": "w"}}, "no text"),
    ],
)
def test_what_no_run_writes_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "a.json"
    make_attribution().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ProfileError, match=words) as caught:
        Attribution.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"a\.json: cannot be read.*safeswap attribute"):
        Attribution.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ProfileError, match=r"a\.json: is damaged"):
        Attribution.load(tmp_path / "a.json")
