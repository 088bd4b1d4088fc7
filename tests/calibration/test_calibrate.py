"""The verb: what it writes equals the inputs seen by torch's own functions, text by text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402

import safeswap  # noqa: E402
from families import save_tiny  # noqa: E402
from safeswap.calibration import entry as runs  # noqa: E402
from safeswap.calibration import expert_run  # noqa: E402
from safeswap.calibration.collect import Encoded, InputGroup, batches_of  # noqa: E402
from safeswap.calibration.layers import LinearLayer  # noqa: E402
from safeswap.cli import main  # noqa: E402
from safeswap.errors import CalibrationError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402
from tiny import digest_of, refused  # noqa: E402

Array = np.ndarray[Any, Any]
WORDS = [f"w{number}" for number in range(61)]
FLOAT32 = BackendOptions(dtype="float32", device="cpu", use_template=False)


def tokenizer_into(folder: Path) -> None:
    """One token a word: <pad>, <s>, </s>, w0 … w60."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *WORDS])}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))


def make_family(folder: Path, name: str) -> dict[str, Path]:
    found = {}
    for seed, role in enumerate(("base", "safety", "sw")):
        found[role] = save_tiny(name, folder / role, seed=seed, of=0)
        tokenizer_into(found[role])
    return found


def texts_of(seed: int, count: int = 7) -> list[str]:
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, size=chance.integers(3, 9))) for _ in range(count)]


def write_texts(folder: Path) -> dict[str, Path]:
    found = {}
    for seed, role in enumerate(("safety", "sw")):
        found[role] = folder / f"{role}.txt"
        found[role].write_text("\n".join(texts_of(seed)))
    return found


def calibrated(family: dict[str, Path], texts: dict[str, Path], out: Path, **how: Any) -> Any:
    given: dict[str, Any] = {"options": FLOAT32, **how}
    found = safeswap.calibrate(
        family["base"], safety=family["safety"], languages={"sw": family["sw"]},
        texts=texts, out=out, **given,
    )  # fmt: skip
    assert [one.name for one in found] == ["safety", "sw"]
    return found


@contextmanager
def spied(model: Any) -> Iterator[dict[str, list[Array]]]:
    """What torch's own linear and addmm are given together with each parameter, float64 rows."""
    names = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}
    seen: dict[str, list[Array]] = {}
    linear, addmm = torch.nn.functional.linear, torch.addmm

    def note(weight: Any, inputs: Any) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).double().numpy()
        seen.setdefault(names[weight.data_ptr()], []).append(rows)

    def spy_linear(inputs: Any, weight: Any, *rest: Any) -> Any:
        note(weight, inputs)
        return linear(inputs, weight, *rest)

    def spy_addmm(bias: Any, inputs: Any, weight: Any) -> Any:
        note(weight, inputs)
        return addmm(bias, inputs, weight)

    torch.nn.functional.linear, torch.addmm = spy_linear, spy_addmm
    try:
        yield seen
    finally:
        torch.nn.functional.linear, torch.addmm = linear, addmm


def expected(folder: Path, texts: list[str]) -> dict[str, Array]:
    """Each parameter's Gram matrix in float64, the texts run one by one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with spied(model) as seen, torch.no_grad():
        for text in texts:
            model(torch.tensor([[3 + WORDS.index(word) for word in text.split()]]))
    stacked = {name: np.vstack(rows) for name, rows in seen.items()}
    return {name: rows.T @ rows / len(rows) for name, rows in stacked.items()}


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "gpt-neox", "llama-biases", "opt"])
def test_the_matrices_are_of_what_the_layers_saw(name: str, tmp_path: Path) -> None:
    family, texts = make_family(tmp_path, name), write_texts(tmp_path)
    calibrated(family, texts, tmp_path / "grams")
    experts = json.loads((tmp_path / "grams/grams.json").read_text())["experts"]
    for seed, role in enumerate(("safety", "sw")):
        wanted = expected(family[role], texts_of(seed))
        stored = load_file(tmp_path / f"grams/{role}.safetensors")
        entry = experts[role]
        weights = load_file(family[role] / "model.safetensors")
        inside = {
            n for n, w in weights.items()
            if w.ndim == 2 and any(p.isdigit() for p in n.split("."))
        }  # fmt: skip
        assert set(entry["tensors"]) == inside and entry["left_out"] == {}
        for tensor, record in entry["tensors"].items():
            (parameter,) = (p for p in wanted if p == tensor or p.endswith("." + tensor))
            found = stored[record["gram"]]
            scale = np.abs(wanted[parameter]).max()
            np.testing.assert_allclose(found, wanted[parameter], atol=2e-6 * scale)
            assert (found == found.T).all() and found.dtype == np.float32
            assert record["inputs"] == ("rows" if name == "gpt2" else "columns")
            assert record["rows"] == entry["texts"]["tokens"]
        assert entry["texts"]["texts"] == 7 and entry["texts"]["cut"] == 0
        assert entry["texts"]["tokens"] == sum(len(t.split()) for t in texts_of(seed))


def test_layers_with_the_same_inputs_share_a_matrix(tmp_path: Path) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    safety, _ = calibrated(family, texts, tmp_path / "grams")
    layer = "model.layers.1"
    shared = {n: r.gram for n, r in safety.entry.tensors.items() if n.startswith(layer)}
    q, o = (f"{layer}.self_attn.{n}_proj.weight" for n in "qo")
    gate, down = (f"{layer}.mlp.{n}_proj.weight" for n in ("gate", "down"))
    assert sorted(shared.values()) == sorted([q, q, q, o, gate, gate, down])
    assert safety.matrices == 8 and len(safety.entry.tensors) == 14


def test_hidden_states_by_hand(tmp_path: Path) -> None:
    """Llama's query inputs are its hidden states, divided by their root mean square, times the
    norm's weights: computed from transformers' own hidden states."""
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    calibrated(family, texts, tmp_path / "grams")
    model = AutoModelForCausalLM.from_pretrained(family["sw"], dtype=torch.float32).eval()
    stored = load_file(tmp_path / "grams/sw.safetensors")
    rows: dict[int, list[Array]] = {0: [], 1: []}
    with torch.no_grad():
        for text in texts_of(1):
            ids = torch.tensor([[3 + WORDS.index(word) for word in text.split()]])
            states = model(ids, output_hidden_states=True).hidden_states
            for layer in rows:
                hidden = states[layer][0].double().numpy()
                norm = model.model.layers[layer].input_layernorm
                size = np.sqrt((hidden**2).mean(-1, keepdims=True) + norm.variance_epsilon)
                rows[layer].append(hidden / size * norm.weight.double().numpy())
    for layer, seen in rows.items():
        whole = np.vstack(seen)
        found = stored[f"model.layers.{layer}.self_attn.q_proj.weight"]
        np.testing.assert_allclose(found, whole.T @ whole / len(whole), atol=1e-5)


def test_the_memory_decides_the_passes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    calibrated(family, texts, tmp_path / "large")
    passes, held = [], runs.sum_inputs

    def counted(model: Any, part: Any, *rest: Any) -> None:
        passes.append(sum(group.nbytes for group in part))
        held(model, part, *rest)

    monkeypatch.setattr(runs, "sum_inputs", counted)
    memory = 8 * (48**2 + 32**2)
    calibrated(family, texts, tmp_path / "small", memory=memory)
    assert len(passes) > 4 and max(passes) <= memory
    for role in ("safety", "sw"):
        file = f"{role}.safetensors"
        assert (tmp_path / "large" / file).read_bytes() == (tmp_path / "small" / file).read_bytes()
    message = refused(
        lambda: calibrated(family, texts, tmp_path / "less", memory=8 * 48**2 - 1),
        "--memory",
        "down",
    )
    assert "18,432 bytes (48 inputs)" in message


def test_layers_that_part_are_refused() -> None:
    """Two layers had one input on the probe, then one of them gets another."""
    layers = [LinearLayer(name, torch.nn.Linear(2, 2), "columns", 2) for name in ("q", "k")]
    group, first, second = InputGroup(layers), torch.eye(2), torch.ones(3, 2)
    group.start(torch.device("cpu"))
    group.see(1, first)
    group.see(0, first)
    group.see(0, second)
    with pytest.raises(CalibrationError, match="q, k had the same inputs at first and now"):
        group.see(1, first)
    with pytest.raises(CalibrationError, match="q, k had the same inputs"):
        group.finish()
    group.start(torch.device("cpu"))
    for place in (0, 1, 1, 0):
        group.see(place, second)
    np.testing.assert_array_equal(group.finish().numpy(), np.ones((2, 2)))
    assert group.rows == 6


def test_batches_hold_texts_of_one_length() -> None:
    texts = [Encoded([1] * length, 0, length) for length in (3, 2, 3, 3, 5, 2)]
    assert [[len(t.ids) for t in b] for b in batches_of(texts, 6)] == [[2, 2], [3, 3], [3], [5]]
    assert [[len(t.ids) for t in b] for b in batches_of(texts, 1)] == [[2], [2], [3], [3], [3], [5]]


def test_long_texts_are_cut_and_templates_used(tmp_path: Path) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    (safety, _) = calibrated(family, texts, tmp_path / "cut", max_tokens=4)
    lengths = [len(t.split()) for t in texts_of(0)]
    assert safety.entry.texts["tokens"] == sum(min(4, n) for n in lengths)
    assert safety.entry.texts["cut"] == sum(n > 4 for n in lengths) > 0
    template = tmp_path / "template.jinja"
    template.write_text("w1 {{ messages[0]['content'] }} w2")
    options = BackendOptions(dtype="float32", device="cpu", chat_template=template)
    (safety, _) = calibrated(family, texts, tmp_path / "chat", options=options)
    assert safety.entry.texts["tokens"] == sum(n + 2 for n in lengths)
    wanted = expected(family["safety"], [f"w1 {t} w2" for t in texts_of(0)])
    found = load_file(tmp_path / "chat/safety.safetensors")
    for name, matrix in found.items():
        np.testing.assert_allclose(matrix, wanted[name], atol=1e-5 * np.abs(wanted[name]).max())


def test_a_killed_run_goes_on_expert_by_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    calibrated(family, texts, tmp_path / "whole")
    out, held = tmp_path / "out", runs.sum_inputs

    def dies(model: Any, part: Any, *rest: Any) -> None:
        held(model, part, *rest)
        if (out / "safety.safetensors").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "sum_inputs", dies)
        calibrated(family, texts, out)
    assert not (out / "sw.safetensors").exists() and (out / ".sw.safetensors.partial").exists()
    made = (out / "safety.safetensors").stat().st_mtime_ns
    first, second = calibrated(family, texts, out)
    assert first.kept and not second.kept
    assert (out / "safety.safetensors").stat().st_mtime_ns == made
    assert digest_of(out) == digest_of(tmp_path / "whole")
    assert [one.kept for one in calibrated(family, texts, out)] == [True, True]


def test_a_run_killed_before_its_first_expert_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "sum_inputs", _interrupted)
        calibrated(family, texts, tmp_path / "out")
    assert [one.kept for one in calibrated(family, texts, tmp_path / "out")] == [False, False]


def _interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    out = tmp_path / "out"
    calibrated(family, texts, out)
    before = digest_of(out)

    def again(**how: Any) -> Callable[[], Any]:
        return lambda: calibrated(family, texts, out, **how)

    refused(again(max_tokens=4), str(out), "safety", "other settings")
    texts["sw"].write_text("w1 w2 w3")
    refused(again(), "sw", "other texts")
    texts["sw"].write_text("\n".join(texts_of(1)))
    save_tiny("llama", family["sw"], seed=9, of=0)
    tokenizer_into(family["sw"])
    refused(again(), "sw", "other weights")
    assert digest_of(out) == before
    (out / "safety.safetensors").unlink()
    save_tiny("llama", family["sw"], seed=2, of=0)
    tokenizer_into(family["sw"])
    refused(again(), "safety.safetensors", "cannot be read")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    refused(lambda: calibrated(family, texts, mine), str(mine), "holds no grams.json", inputs=mine)


def test_tensors_that_no_layer_holds_are_named(tmp_path: Path) -> None:
    """Mixtral's experts and routers are no linear layers once they are loaded; attention is."""
    family, texts = make_family(tmp_path, "mixtral"), write_texts(tmp_path)
    safety, _ = calibrated(family, texts, tmp_path / "grams")
    weights = load_file(family["safety"] / "model.safetensors")
    inside = {n for n, w in weights.items() if ".layers." in n and w.ndim > 1}
    assert {*safety.entry.tensors, *safety.entry.left_out} == inside
    assert all("experts" in name or "gate" in name for name in safety.entry.left_out)
    assert any(name.endswith("q_proj.weight") for name in safety.entry.tensors)


def test_what_is_averaged_is_said(tmp_path: Path) -> None:
    """Jamba computes one projection without running its layer; its experts are fused."""
    family, texts = make_family(tmp_path, "jamba"), write_texts(tmp_path)
    result = CliRunner().invoke(main, [
        "calibrate", str(family["base"]), "--safety", str(family["safety"]),
        "--language", f"sw={family['sw']}", "--texts", str(texts["sw"]), "-o",
        str(tmp_path / "grams"), "--dtype", "float32", "--device", "cpu",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: sw: ")]
    never = [note for note in notes if "never ran" in note]
    assert len(never) == 1 and "model.layers.0.mamba.dt_proj.weight" in never[0]
    assert any("A_log" in note and "and" in note and "more: no parameter" in note for note in notes)


def test_a_loader_that_changes_numbers_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name proves nothing: the loaded weight is compared with the stored one."""
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    opened = expert_run.open_backend
    changed = "model.layers.1.mlp.up_proj.weight"

    def spoils(*given: Any) -> Any:
        responder: Any = opened(*given)
        with torch.no_grad():
            responder.model.get_parameter(changed)[0, 0] += 1
        return responder

    monkeypatch.setattr(expert_run, "open_backend", spoils)
    safety, _ = calibrated(family, texts, tmp_path / "grams")
    assert safety.entry.left_out == {changed: f"the loaded model holds other numbers in {changed}"}
    assert len(safety.entry.tensors) == 13


def test_inputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    family, texts = make_family(tmp_path, "llama"), write_texts(tmp_path)
    file = family["sw"] / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.up_proj.weight"][:] = 1e30
    weights["model.layers.0.mlp.gate_proj.weight"][:] = 1e30
    save_file(weights, file, metadata={"format": "pt"})
    refused(
        lambda: calibrated(family, texts, tmp_path / "grams"),
        "sw expert",
        "no fine-tune",
        "--force",
    )
    out = tmp_path / "grams"
    forced = lambda: calibrated(family, texts, out, force=True)  # noqa: E731
    refused(forced, "sw: the inputs of", "too large")
    assert not (tmp_path / "grams/sw.safetensors").exists()


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_from_calibrate_to_verify(name: str, tmp_path: Path) -> None:
    """The commands one after another; the result loads and is least squares on the inputs."""
    family, texts = make_family(tmp_path, name), write_texts(tmp_path)

    def say(*arguments: object) -> str:
        result = CliRunner().invoke(main, [*map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    experts = ["--safety", family["safety"], "--language", f"sw={family['sw']}"]
    grams, profile, plan = (tmp_path / n for n in ("grams", "profile.json", "plan.yaml"))
    said = say("calibrate", family["base"], *experts, "--texts", f"safety={texts['safety']}",
               "--texts", texts["sw"], "-o", grams, "--dtype", "float32",
               "--device", "cpu")  # fmt: skip
    assert f"{grams / 'sw.safetensors'}: " in said and "from 7 texts" in said
    say("profile", family["base"], *experts, "-o", profile)
    say("plan", profile, "--method", "uniform", "--operator", "regmean", "--operator-set",
        f"grams={grams}", "--operator-set", "ridge=0.001", "-o", plan)  # fmt: skip
    say("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure", "--quiet")
    assert "all equal" in say("verify", tmp_path / "out")
    _check_least_squares(name, family, tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def _check_least_squares(name: str, family: dict[str, Path], out: Path) -> None:
    """Lower than the mean's in every matrix: the distance from both experts on their inputs, with
    the penalties of scale 0.9 and ridge 0.001 (they are part of what is minimised)."""
    merged = load_file(out / "model.safetensors")
    experts = [load_file(family[role] / "model.safetensors") for role in ("safety", "sw")]
    seen = [expected(family[role], texts_of(n)) for n, role in enumerate(("safety", "sw"))]
    checked = 0
    for tensor, weight in merged.items():
        found = [p for p in seen[0] if p == tensor or p.endswith("." + tensor)]
        if weight.ndim != 2 or not found or not any(part.isdigit() for part in tensor.split(".")):
            continue
        grams = [0.9 * g[found[0]] + 0.1 * np.diag(np.diag(g[found[0]])) for g in seen]
        pull = 0.001 * np.mean([np.trace(g) for g in grams]) / len(grams[0])
        grams = [g + pull * np.eye(len(g)) for g in grams]

        def cost(candidate: Array, name_: str = tensor, grams: list[Array] = grams) -> float:
            total = 0.0
            for gram, expert in zip(grams, experts, strict=True):
                change = candidate.astype("f8") - expert[name_]
                change = change.T if name == "gpt2" else change
                total += float(np.trace(change @ gram @ change.T))
            return total

        best, mean = cost(weight), cost((experts[0][tensor] + experts[1][tensor]) / 2)
        assert best < mean
        chance = np.random.default_rng(checked)
        for size in (1e-3, 1e-2):
            nearby = weight + size * chance.standard_normal(weight.shape) * np.abs(weight).mean()
            assert best < cost(nearby)
        checked += 1
    assert checked >= 8
