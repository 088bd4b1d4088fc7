"""The reading seam: numbers with no file behind them go through the whole product."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from gram_folder import NEED_GRAMS
from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.family import Family, join_family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.reader import Tensor, read_bytes, same_bytes
from safeswap.merge import verify
from safeswap.merge.run import merge
from safeswap.operators import OPERATORS, Operation
from safeswap.plan import fill_plan
from safeswap.profile import measure_family
from tiny import BF16, make_trio

ROLES = ("base", "safety", "sw")
NO_FILES_NEEDED = [name for name in OPERATORS if name not in NEED_GRAMS]


@dataclass(frozen=True)
class MadeUp:
    """A tensor whose numbers are computed when they are asked for.

    ``seed`` and ``fine`` decide them: coarse numbers fit BF16 exactly, fine ones do not.
    """

    name: str
    shape: tuple[int, ...]
    seed: int
    fine: bool = False
    dtype: Dtype = DTYPES["BF16"]
    where: str = "nowhere"

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.size

    def reader(self) -> MadeUpReader:
        return MadeUpReader(self)

    def numbers(self, begin: int, end: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of elements [begin, end): a hash of their place, from -1 to 1 in steps of 1/64."""
        place = np.arange(begin, end, dtype=np.uint64) + np.uint64(self.seed * 1_000_003)
        mixed = (place * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(57)
        coarse = (mixed.astype(np.float64) - 64) / 64
        return coarse + (1 / 4096 if self.fine else 0.0)


class MadeUpReader:
    def __init__(self, tensor: MadeUp) -> None:
        self.tensor = tensor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read_numbers(self, begin: int, end: int, out: Any) -> None:
        out[:] = self.tensor.numbers(begin, end)

    def read_raw(self, begin: int, end: int, out: Any) -> bool:
        return False

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        return False

    def prefetch(self, begin: int, end: int) -> None:
        return None


def made_up(folder: Path, seed: int, fine: bool = False) -> Checkpoint:
    """A checkpoint with the folder's names and shapes and other numbers, and no weight files."""
    stored = open_checkpoint(folder)
    tensors = {
        n: MadeUp(n, t.shape, seed + k, fine) for k, (n, t) in enumerate(stored.tensors.items())
    }
    return replace(stored, files=(), tensors=tensors)


def family_of(members: Mapping[str, Checkpoint]) -> Family:
    return join_family({role: members[role] for role in ROLES})


def written(family: Family, out: Path, operator: str, **options: Any) -> dict[str, Any]:
    """The merged tensors, and the manifest as ``""``."""
    profile = measure_family(family, workers=2)
    plan = fill_plan(profile, "sw", operator=Operation(operator).plain, **options)
    merge(
        family,
        [plan],
        out,
        profile=profile,
        dtype=None,
        shard_size=None,
        workers=2,
        draw=None,
        force=True,  # made-up numbers are no fine-tunes
    )
    found: dict[str, Any] = load_file(out / "model.safetensors")
    return {**found, "": json.loads((out / "safeswap.json").read_text())}


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_trio(tmp_path_factory.mktemp("trio"), shards=1)


@pytest.fixture(scope="module")
def pair(
    trio: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Checkpoint], dict[str, Checkpoint]]:
    """The same coarse numbers twice: made up, and as files."""
    virtual = {role: made_up(trio[role], 1000 * n) for n, role in enumerate(ROLES)}
    real = {}
    for role, member in virtual.items():
        folder = tmp_path_factory.mktemp(role)
        for file in trio[role].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        weights = {
            name: tensor.numbers(0, tensor.elements).astype(BF16).reshape(tensor.shape)
            for name, tensor in member.tensors.items()
            if isinstance(tensor, MadeUp)
        }
        save_file(weights, folder / "model.safetensors")
        real[role] = open_checkpoint(folder)
    return virtual, real


@pytest.mark.parametrize("operator", NO_FILES_NEEDED)
def test_made_up_numbers_go_all_the_way(
    operator: str,
    pair: tuple[dict[str, Checkpoint], dict[str, Checkpoint]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Profile, every operator, merge and verify: as with the same numbers in files."""
    virtual, real = pair
    options = {"method": "uniform", "alpha": 0.5}
    found = written(family_of(virtual), tmp_path / "virtual", operator, **options)
    wanted = written(family_of(real), tmp_path / "real", operator, **options)
    ours, theirs = found.pop(""), wanted.pop("")
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes(), name
    assert ours["profile"]["tensors"] == theirs["profile"]["tensors"]
    assert ours["tensors"] == theirs["tensors"]
    by_folder = {member.folder: member for member in virtual.values()}
    monkeypatch.setattr(
        verify, "open_checkpoint", lambda source, named_in="": by_folder[Path(source)]
    )
    monkeypatch.setattr(
        verify, "open_member", lambda role, source, *_, **__: (by_folder[Path(source)], [])
    )
    assert verify.verify_folder(tmp_path / "virtual").from_inputs


def test_copies_without_stored_bytes_are_rounded_numbers(
    pair: tuple[dict[str, Checkpoint], dict[str, Checkpoint]], tmp_path: Path
) -> None:
    """The paper's rule copies units; what has no bytes to copy is written all the same, and the
    manifest stays true."""
    virtual, real = pair
    found = written(family_of(virtual), tmp_path / "virtual", "linear", tau=0.0)
    wanted = written(family_of(real), tmp_path / "real", "linear", tau=0.0)
    assert {entry["fate"] for entry in found[""]["tensors"].values()} >= {
        "copied from safety",
        "copied from sw",
    }
    assert found.pop("")["tensors"] == wanted.pop("")["tensors"]
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes(), name


def test_numbers_that_no_copy_holds_are_blended_before_they_are_rounded(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    members = {role: made_up(trio[role], 500 * n, fine=True) for n, role in enumerate(ROLES)}
    found = written(family_of(members), tmp_path / "out", "linear", method="uniform", alpha=0.25)
    del found[""]
    for name, values in found.items():
        safety, spoken = (members[role].tensors[name] for role in ("safety", "sw"))
        assert isinstance(safety, MadeUp) and isinstance(spoken, MadeUp)
        exact = 0.25 * safety.numbers(0, safety.elements) + 0.75 * spoken.numbers(
            0, spoken.elements
        )
        rounded = exact.astype(np.float32).astype(ml_dtypes.bfloat16).reshape(values.shape)
        assert values.tobytes() == rounded.tobytes(), name


KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


@given(
    kind=st.sampled_from([*KINDS]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 17)),
    cut=st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
def test_stored_ranges_are_what_numpy_reads(
    kind: str,
    shape: tuple[int, int],
    cut: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("stored") / "model.safetensors"
    whole = np.random.default_rng(0).standard_normal(shape).astype(KINDS[kind])
    save_file({"before": np.zeros(3, np.uint8), "x": whole}, file)
    (tensor,) = (t for t in read_header(file).tensors if t.name == "x")
    begin, end = sorted(min(place, whole.size) for place in cut)
    flat = whole.reshape(-1)[begin:end]
    numbers = np.empty(end - begin, np.float64)
    raw = np.empty((end - begin) * tensor.dtype.size, np.uint8)
    with tensor.reader() as reader:
        reader.prefetch(begin, end)
        reader.read_numbers(begin, end, numbers)
        assert reader.read_raw(begin, end, raw)
    assert numbers.tolist() == flat.astype(np.float64).tolist()
    assert raw.tobytes() == flat.tobytes()


def test_bytes_of_made_up_numbers_do_not_depend_on_who_asks() -> None:
    """A copy's bytes are the same whether the run computes in float32 or in float64."""
    tensor = MadeUp("x", (5, 40), 7, fine=True)
    raws = []
    for kind in (np.float32, np.float64):
        raw, values = np.empty(tensor.nbytes, np.uint8), np.empty(tensor.elements, kind)
        with tensor.reader() as reader:
            assert not read_bytes(tensor, reader, 0, tensor.elements, raw, values)
        raws.append(raw.tobytes())
        assert values.tolist() == tensor.numbers(0, tensor.elements).astype(kind).tolist()
    assert raws[0] == raws[1]


def test_same_bytes_of_files_and_of_numbers(tmp_path: Path) -> None:
    made: Tensor = MadeUp("x", (3, 50), 1)
    assert isinstance(made, MadeUp)
    weights = made.numbers(0, made.elements).astype(BF16).reshape(made.shape)
    save_file({"x": weights}, tmp_path / "a.safetensors")
    weights[2, 49] += 1
    save_file({"x": weights}, tmp_path / "b.safetensors")
    one, other = (read_header(tmp_path / f"{n}.safetensors").tensors[0] for n in "ab")
    assert same_bytes(made, one) and same_bytes(one, made)
    assert not same_bytes(made, other) and not same_bytes(one, other)
