"""What gram-add, gram-swap and sparse-edit refuse before a merge begins, and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_operator_merge import tensors_of

import safeswap
from gram_folder import Array, edit_manifest, edit_matrices, write_grams
from tiny import llama_shapes, make_trio, refused, rewrite, swap

SHAPES = llama_shapes()
MATRICES = [n for n, s in SHAPES.items() if ".layers." in n and len(s) == 2]
UP = "model.layers.0.mlp.up_proj.weight"
KINDS = {
    "gram-add": ("harmful", "harmless"),
    "gram-swap": ("harmful", "harmless"),
    "sparse-edit": ("pairs-low", "pairs-gap", "pairs-safe", "pairs-neurons"),
}
EACH = pytest.mark.parametrize("name", KINDS)


def matrices_of(kind: str) -> dict[str, Array]:
    found = {}
    for number, tensor in enumerate(MATRICES):
        outputs, inputs = SHAPES[tensor]
        rows = np.random.default_rng([number, len(kind)]).standard_normal((99, inputs))
        found[tensor] = rows.T @ rows / 99
        if kind == "pairs-neurons":
            found[tensor] = np.full((2, outputs), 9.0)
    return found


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="module")
def digest(trio: dict[str, Path]) -> str:
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    return profile.inputs["sw"].digest


@pytest.fixture
def grams(name: str, tmp_path: Path, digest: str) -> Path:
    entries = {f"sw@{kind}": matrices_of(kind) for kind in KINDS[name]}
    return write_grams(tmp_path / "grams", entries, weights=dict.fromkeys(entries, digest))


def merged(trio: dict[str, Path], name: str, grams: Path, out: Path) -> Path:
    operator = {"name": name, "grams": str(grams)}
    return swap(trio, out, operator=operator, method="chat-vector", gamma=2)


@EACH
def test_a_merge_changes_weights_and_is_verified(
    name: str, trio: dict[str, Path], grams: Path, tmp_path: Path
) -> None:
    out = merged(trio, name, grams, tmp_path / "out")
    assert safeswap.verify_merge(out).from_inputs
    found, language = tensors_of(out), tensors_of(trio["sw"])
    assert (found[UP] != language[UP]).any()
    edit_matrices(grams, f"sw@{KINDS[name][0]}", lambda stored: stored[UP].__imul__(1.001))
    refused(lambda: safeswap.verify_merge(out), f"sw@{KINDS[name][0]}", "was changed")


def other_weights(grams: Path, entry: str) -> None:
    edit_manifest(grams, lambda content: content["experts"][entry].update(weights="ab" * 32))


def no_entry(grams: Path, entry: str) -> None:
    edit_manifest(grams, lambda content: content["experts"].pop(entry))


def no_file(grams: Path, entry: str) -> None:
    (grams / f"{entry}.safetensors").unlink()


def cut_off(grams: Path, entry: str) -> None:
    raw = (grams / f"{entry}.safetensors").read_bytes()
    (grams / f"{entry}.safetensors").write_bytes(raw[:-9])


def wrong_shape(grams: Path, entry: str) -> None:
    edit_matrices(grams, entry, lambda stored: stored.update({UP: np.eye(5, dtype="f4")}))


def lacks_tensor(grams: Path, entry: str) -> None:
    edit_manifest(grams, lambda content: content["experts"][entry]["tensors"].pop(UP))
    edit_matrices(grams, entry, lambda stored: stored.pop(UP))


@EACH
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_weights, ["are of other weights", "abababababab"]),
        (no_entry, ["holds matrices of", "safeswap calibrate"]),
        (no_file, ["cannot be read"]),
        (cut_off, ["cut off"]),
        (wrong_shape, ["[5, 5]", UP]),
        (lacks_tensor, ["no Gram matrix for tensor", UP]),
    ],
)
def test_what_does_not_fit_is_refused_before_work(
    damage: Callable[[Path, str], None],
    words: list[str],
    name: str,
    trio: dict[str, Path],
    grams: Path,
    tmp_path: Path,
) -> None:
    for number, kind in enumerate(KINDS[name]):
        folder = tmp_path / f"grams-{number}"
        folder.mkdir()
        for file in grams.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        damage(folder, f"sw@{kind}")
        merge = partial(merged, trio, name, folder, tmp_path / "out")
        refused(merge, f"sw@{kind}", *words, out=tmp_path / "out")
        assert not list(tmp_path.glob(".out.*")), "nothing was begun"


@EACH
def test_weights_that_changed_since_are_refused(name: str, digest: str, tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    entries = {f"sw@{kind}": matrices_of(kind) for kind in KINDS[name]}
    folder = write_grams(tmp_path / "grams", entries, weights=dict.fromkeys(entries, digest))
    rewrite(trio["sw"], lambda weights: weights.update({UP: weights[UP] * 2}))
    out = tmp_path / "out"
    refused(lambda: merged(trio, name, folder, out), "are of other weights", out=out)
