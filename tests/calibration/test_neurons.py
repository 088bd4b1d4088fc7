"""Pairs of prompts: sums and scores against torch's own layers, from calibrate to a merge."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402

import safeswap  # noqa: E402
from calibration.test_calibrate import WORDS, make_family, spied  # noqa: E402
from calibration.test_chats import TEMPLATE  # noqa: E402
from safeswap.calibration import neurons as runs  # noqa: E402
from safeswap.calibration.neurons import NOT_EDITED, neuron_scores  # noqa: E402
from safeswap.cli import main  # noqa: E402
from safeswap.errors import CalibrationError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402

Array = np.ndarray[Any, Any]
Rows = list[tuple[str, str, str]]
FIRST = {
    "llama": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "phi3": ("mlp.gate_up_proj.weight",),
    "gpt2": ("mlp.c_fc.weight",),
    "gpt-neox": ("mlp.dense_h_to_4h.weight",),
}
"""The matrices that an MLP's inputs meet."""
KINDS = ("pairs-low", "pairs-gap", "pairs-safe", "pairs-neurons")


def rows_of(seed: int, harmful: int = 5, harmless: int = 4) -> Rows:
    chance = np.random.default_rng(seed)

    def words() -> str:
        return " ".join(chance.choice(WORDS[3:], size=chance.integers(2, 7)))

    labels = chance.permutation(["unsafe"] * harmful + ["safe"] * harmless)
    return [(str(label), words(), words()) for label in labels]


def write_rows(path: Path, rows: Rows, header: tuple[str, ...] = ("label", "en", "sw")) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([header, *rows])
    return path


def seen(folder: Path, prompts: list[str]) -> dict[str, list[Array]]:
    """Each parameter's inputs, float64 [tokens, side], prompt by prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, list[Array]] = {}
    for prompt in prompts:
        ids = [3 + WORDS.index(word) for word in ("w0", *prompt.split(), "w2", "w1")]
        with spied(model) as kept, torch.no_grad():
            model(torch.tensor([ids]))
        for name, (rows,) in kept.items():
            found.setdefault(name, []).append(rows)
    return found


def options_of(folder: Path) -> BackendOptions:
    (folder / "template.jinja").write_text(TEMPLATE)
    return BackendOptions(dtype="float32", device="cpu", chat_template=folder / "template.jinja")


def calibrated(family: dict[str, Path], pairs: Path, out: Path, **how: Any) -> Any:
    return safeswap.calibrate(
        family["base"], safety=family["safety"], languages={"sw": family["sw"]},
        parallel={"sw": pairs}, out=out, force=True, **how,
    )  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_sums_and_scores_are_of_what_the_layers_saw(name: str, tmp_path: Path) -> None:
    family, rows = make_family(tmp_path, name), rows_of(1)
    pairs = write_rows(tmp_path / "pairs.csv", rows)
    found = calibrated(family, pairs, tmp_path / "grams", options=options_of(tmp_path))
    assert [one.name for one in found] == [f"sw@{kind}" for kind in KINDS]
    low, high = (seen(family["sw"], [r[at] for r in rows if r[0] == "unsafe"]) for at in (2, 1))
    safe, english = (seen(family["sw"], [r[at] for r in rows if r[0] == "safe"]) for at in (2, 1))
    weights = load_file(family["sw"] / "model.safetensors")
    experts = json.loads((tmp_path / "grams/grams.json").read_text())["experts"]
    stored = {kind: load_file(tmp_path / f"grams/sw@{kind}.safetensors") for kind in KINDS}
    records = {kind: experts[f"sw@{kind}"]["tensors"] for kind in KINDS}
    inside = {n for n, w in weights.items() if w.ndim == 2 and any(map(str.isdigit, n.split(".")))}
    edited = {n for n in inside if n.endswith(FIRST[name])}
    for kind in KINDS:
        left_out = experts[f"sw@{kind}"]["left_out"]
        assert set(records[kind]) == edited and left_out == dict.fromkeys(
            inside - edited, NOT_EDITED
        )
    for tensor in edited:
        (parameter,) = (p for p in low if p == tensor or p.endswith("." + tensor))
        last = {
            which: np.stack([one[-1] for one in of[parameter]])
            for which, of in (("low", low), ("high", high), ("english", english))
        }
        every = np.vstack(safe[parameter])
        wanted = {
            "pairs-low": last["low"].T @ last["low"] / 5,
            "pairs-gap": last["low"].T @ (last["high"] - last["low"]) / 5,
            "pairs-safe": every.T @ every / len(every),
        }
        for kind, matrix in wanted.items():
            there = stored[kind][records[kind][tensor]["gram"]]
            np.testing.assert_allclose(there, matrix, atol=4e-6 * np.abs(matrix).max())
            assert records[kind][tensor]["rows"] == (len(every) if kind == "pairs-safe" else 5)
        inwards = weights[tensor] if name == "gpt2" else weights[tensor].T
        acts, calm = (last[which] @ inwards.astype("f8") for which in ("high", "english"))
        scores = stored["pairs-neurons"][tensor]
        gaps = [
            statistics.mean(a) - statistics.mean(b) for a, b in zip(acts.T, calm.T, strict=True)
        ]
        middle, spread = statistics.mean(gaps), statistics.pstdev(gaps)
        if name == "gpt-neox" and ".layers.0." in tensor:
            # beside the attention, not after it: the last token is all that this MLP sees
            assert spread < 1e-12 and not scores.any()
            continue
        for at, gap in enumerate(gaps):
            squares = 4 * statistics.variance(acts[:, at]) + 3 * statistics.variance(calm[:, at])
            assert scores[0, at] == pytest.approx((gap - middle) / spread, abs=2e-4)
            assert scores[1, at] == pytest.approx(gap / (squares / 7) ** 0.5, abs=2e-4)


def test_the_memory_decides_the_passes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, pairs = make_family(tmp_path, "llama"), write_rows(tmp_path / "p.csv", rows_of(2))
    calibrated(family, pairs, tmp_path / "large", options=options_of(tmp_path))
    passes, held = [], runs.last_inputs

    def counted(model: Any, part: Any, *rest: Any) -> None:
        passes.append(sum(group.nbytes for group in part))
        held(model, part, *rest)

    monkeypatch.setattr(runs, "last_inputs", counted)
    memory = 24 * 32**2 + 4 * 32 * 14 + 8 * 48 * 9
    calibrated(family, pairs, tmp_path / "small", memory=memory, options=options_of(tmp_path))
    assert len(passes) == 6 and set(passes) == {memory}  # three sets of prompts, layer by layer
    for kind in KINDS:
        one, other = (tmp_path / n / f"sw@{kind}.safetensors" for n in ("large", "small"))
        assert one.read_bytes() == other.read_bytes()
    with pytest.raises(CalibrationError, match="--memory: the sums of"):
        calibrated(family, pairs, tmp_path / "no", memory=memory - 1, options=options_of(tmp_path))


def test_what_is_finished_is_kept_and_other_pairs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, pairs = make_family(tmp_path, "llama"), write_rows(tmp_path / "p.csv", rows_of(2))
    out, how = tmp_path / "grams", {"options": options_of(tmp_path)}
    first = calibrated(family, pairs, out, **how)
    rows = [dict(zip(("label", "en", "sw"), row, strict=True)) for row in rows_of(2)]
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = calibrated(family, lines, out, **how)  # the same pairs, in the other format
    assert not any(one.kept for one in first) and all(one.kept for one in again)
    other = write_rows(tmp_path / "other.csv", rows_of(3))
    with pytest.raises(
        CalibrationError, match="holds Gram matrices of sw@pairs-low from other texts"
    ):
        calibrated(family, other, out, **how)
    assert not any(one.kept for one in calibrated(family, other, out, overwrite=True, **how))
    content = json.loads((out / "grams.json").read_text())
    del content["experts"]["sw@pairs-safe"]  # a run that was killed half-way
    (out / "grams.json").write_text(json.dumps(content))
    assert not any(one.kept for one in calibrated(family, other, out, **how))


def test_a_merge_by_the_command_line(tmp_path: Path) -> None:
    """From calibrate to a verified merge; the weights by the paper's formula in float64."""
    family, rows = make_family(tmp_path, "llama"), rows_of(4, 30, 20)
    pairs = write_rows(tmp_path / "pairs.csv", rows)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    run, grams, out = CliRunner(), tmp_path / "grams", tmp_path / "out"
    experts = ["--safety", str(family["safety"]), "--language", f"sw={family['sw']}", "--force"]
    done = run.invoke(main, [
        "calibrate", str(family["base"]), *experts, "--parallel", f"sw={pairs}", "-o", str(grams),
        "--chat-template", str(tmp_path / "template.jinja"), "--dtype", "float32",
        "--device", "cpu",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "--operator sparse-edit --method chat-vector --set gamma=1" in done.output
    done = run.invoke(main, [
        "merge", str(family["base"]), *experts, "--method", "chat-vector", "--set", "gamma=1",
        "--operator", "sparse-edit", "--operator-set", f"grams={grams}", "--operator-set", "rank=2",
        "--operator-set", "effect=0.5", "--save-dtype", "float32", "--out", str(out),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    merged, sw = (load_file(f / "model.safetensors") for f in (out, family["sw"]))
    low, high = (seen(family["sw"], [r[at] for r in rows if r[0] == "unsafe"]) for at in (2, 1))
    safe, english = (seen(family["sw"], [r[at] for r in rows if r[0] == "safe"]) for at in (2, 1))
    changed = set()
    for tensor, values in sw.items():
        if not tensor.endswith(FIRST["llama"]):
            np.testing.assert_array_equal(merged[tensor], values)
            continue
        here, there, calm = (
            np.stack([one[-1] for one in of[tensor]]) for of in (low, high, english)
        )
        every, weights = np.vstack(safe[tensor]), values.astype("f8").T
        scores = neuron_scores(there @ weights, calm @ weights)
        chosen = (scores[0] > 2) | (scores[1] > 0.5)
        metric = here.T @ here / 30 + every.T @ every / len(every)
        metric += 0.01 * np.trace(metric) / 32 * np.eye(32)
        upper = np.linalg.cholesky(metric).T
        gap = here.T @ (there - here) @ weights[:, chosen] / 30
        left, sizes, right = np.linalg.svd(upper @ np.linalg.inv(metric) @ gap, full_matrices=False)
        update = np.linalg.inv(upper) @ (left[:, :2] * sizes[:2]) @ right[:2]
        weights[:, chosen] += update
        scale = np.abs(update).max()
        np.testing.assert_allclose(merged[tensor].T, weights, atol=2e-3 * scale)
        np.testing.assert_array_equal(merged[tensor][~chosen], values[~chosen])
        changed |= {tensor} if chosen.any() else set()
    assert changed
    done = run.invoke(main, ["verify", str(out)])
    assert done.exit_code == 0, done.output


def test_scores_of_neurons_without_spread() -> None:
    """A neuron that never varies scores 0 without a gap, and beyond any limit with one."""
    harmful, harmless = np.zeros((3, 4)), np.zeros((2, 4))
    harmful[:, 1], harmless[:, 2] = 1.0, 1.0
    scores = neuron_scores(harmful, harmless)
    largest = float(np.finfo(np.float32).max)
    assert scores[1].tolist() == [0.0, largest, -largest, 0.0]
    assert neuron_scores(np.ones((3, 4)), harmless[:, :1].repeat(4, 1))[0].tolist() == [0.0] * 4


def test_a_long_prompt_is_refused_not_cut(tmp_path: Path) -> None:
    family, rows = make_family(tmp_path, "llama"), rows_of(2)
    rows[3] = (rows[3][0], rows[3][1], "w5 " * 20)
    pairs = write_rows(tmp_path / "p.csv", rows)
    with pytest.raises(CalibrationError, match="has 23 tokens; the last of 1 to 10 is read"):
        calibrated(family, pairs, tmp_path / "g", options=options_of(tmp_path), max_tokens=10)


def test_mixtures_have_no_neurons_to_edit(tmp_path: Path) -> None:
    family, pairs = make_family(tmp_path, "mixtral"), write_rows(tmp_path / "p.csv", rows_of(2))
    with pytest.raises(CalibrationError, match="no MLP of this model has linear layers of its own"):
        calibrated(family, pairs, tmp_path / "grams", options=options_of(tmp_path))
    assert not list((tmp_path / "grams").glob("*.safetensors"))


def test_before_a_run_it_is_said_what_would_be_made(tmp_path: Path) -> None:
    family, pairs = make_family(tmp_path, "llama"), write_rows(tmp_path / "p.csv", rows_of(2))
    done = CliRunner().invoke(main, [
        "calibrate", str(family["base"]), "--safety", str(family["safety"]), "--language",
        f"sw={family['sw']}", "--parallel", str(pairs), "-o", str(tmp_path / "g"), "--force",
        "--dry-run",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "sw@pairs-neurons" in done.output and "9 texts of p.csv" in done.output
    assert not (tmp_path / "g").exists()
