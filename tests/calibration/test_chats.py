"""Chats: only what predicts the answers is counted, and only by the language experts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402

import safeswap  # noqa: E402
from calibration.test_calibrate import FLOAT32, WORDS, make_family, spied  # noqa: E402
from safeswap.calibration.texts import read_chats  # noqa: E402
from safeswap.cli import main  # noqa: E402
from safeswap.errors import CalibrationError, SafeswapError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402

Pairs = list[tuple[str, str]]
TEMPLATE = (
    "{% for m in messages %}w{{ 0 if m.role == 'user' else 1 }} {{ m.content }} w2 "
    "{% endfor %}{% if add_generation_prompt %}w1 {% endif %}"
)


def pairs_of(seed: int, count: int = 6) -> Pairs:
    chance = np.random.default_rng(seed)

    def words() -> str:
        return " ".join(chance.choice(WORDS[3:], size=chance.integers(2, 6)))

    return [(words(), words()) for _ in range(count)]


def write_chats(path: Path, pairs: Pairs) -> Path:
    rows = [{"prompt": prompt, "response": response} for prompt, response in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def expected(folder: Path, pairs: Pairs) -> dict[str, np.ndarray]:
    """Gram matrices in float64, chat by chat, from the last token before the answer on."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    kept: dict[str, list[np.ndarray]] = {}
    for prompt, response in pairs:
        head, tail = ["w0", *prompt.split(), "w2", "w1"], [*response.split(), "w2"]
        ids = [3 + WORDS.index(word) for word in (*head, *tail)]
        with spied(model) as seen, torch.no_grad():
            model(torch.tensor([ids]))
        for name, (rows,) in seen.items():
            kept.setdefault(name, []).append(rows[len(head) - 1 : len(ids) - 1])
    stacked = {name: np.vstack(rows) for name, rows in kept.items()}
    return {name: rows.T @ rows / len(rows) for name, rows in stacked.items()}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_answers_alone_are_counted(name: str, tmp_path: Path) -> None:
    family = make_family(tmp_path, name)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    harmful, harmless = pairs_of(1), pairs_of(2)
    found = safeswap.calibrate(
        family["base"], safety=family["safety"], languages={"sw": family["sw"]},
        harmful=write_chats(tmp_path / "harmful.jsonl", harmful),
        harmless={"sw": write_chats(tmp_path / "harmless.jsonl", harmless)},
        out=tmp_path / "grams", force=True,
        options=BackendOptions(
            dtype="float32", device="cpu", chat_template=tmp_path / "template.jinja"
        ),
    )  # fmt: skip
    assert [one.name for one in found] == ["sw@harmful", "sw@harmless"]
    experts = json.loads((tmp_path / "grams/grams.json").read_text())["experts"]
    for entry, pairs in (("sw@harmful", harmful), ("sw@harmless", harmless)):
        wanted, stored = (
            expected(family["sw"], pairs),
            load_file(tmp_path / f"grams/{entry}.safetensors"),
        )
        assert experts[entry]["weights"] == experts["sw@harmful"]["weights"]
        for tensor, record in experts[entry]["tensors"].items():
            (parameter,) = (p for p in wanted if p == tensor or p.endswith("." + tensor))
            scale = np.abs(wanted[parameter]).max()
            np.testing.assert_allclose(stored[record["gram"]], wanted[parameter], atol=3e-6 * scale)
            assert record["rows"] == sum(len(answer.split()) + 1 for _, answer in pairs)


def test_a_merge_by_what_was_seen(tmp_path: Path) -> None:
    """From calibrate to a verified merge, by the command line; the weights by hand in float64."""
    family = make_family(tmp_path, "llama")
    chats = [write_chats(tmp_path / f"{n}.jsonl", pairs_of(n)) for n in (1, 2)]
    run = CliRunner()
    experts = ["--safety", str(family["safety"]), "--language", f"sw={family['sw']}", "--force"]
    base, grams, out = str(family["base"]), tmp_path / "grams", tmp_path / "out"
    done = run.invoke(main, [
        "calibrate", base, *experts, "--harmful", str(chats[0]), "--harmless", str(chats[1]),
        "-o", str(grams), "--chat-template", "off", "--dtype", "float32", "--device", "cpu",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "--operator gram-add --method chat-vector" in done.output
    done = run.invoke(main, [
        "merge", base, *experts, "--method", "chat-vector", "--set", "gamma=3", "--operator",
        "gram-add", "--operator-set", f"grams={grams}", "--operator-set", "balance=0.5",
        "--save-dtype", "float32", "--out", str(out),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    merged = load_file(out / "model.safetensors")
    base_, safety, sw = (
        load_file(family[r] / "model.safetensors") for r in ("base", "safety", "sw")
    )
    tensors = json.loads((grams / "grams.json").read_text())["experts"]["sw@harmful"]["tensors"]
    both = [load_file(grams / f"sw@{kind}.safetensors") for kind in ("harmful", "harmless")]
    for name, record in tensors.items():
        near, far = (matrices[record["gram"]].astype(np.float64) for matrices in both)
        system = near + 0.5 * far
        system += 1e-4 * np.trace(system) / len(system) * np.eye(len(system))
        through = (safety[name].astype(np.float64) - base_[name]) @ near @ np.linalg.inv(system)
        np.testing.assert_allclose(merged[name], sw[name] + 3 * through, rtol=1e-4, atol=1e-5)
    done = run.invoke(main, ["verify", str(out)])
    assert done.exit_code == 0, done.output


def _refused(tmp_path: Path, *options: str) -> str:
    (tmp_path / "base").mkdir(exist_ok=True)
    arguments = ["calibrate", str(tmp_path / "base"), "--safety", "s", "--language", "sw=l"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert isinstance(done.exception, (SafeswapError, SystemExit)) and done.exit_code
    return " ".join(f"{done.output} {done.exception}".split())


def test_one_half_alone_is_refused(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "c.jsonl", [("a", "b")])
    assert "goes with --harmless" in _refused(tmp_path, "--harmful", str(chats))
    assert "goes with --harmful" in _refused(tmp_path, "--harmless", f"sw={chats}")
    assert "nothing to run" in _refused(tmp_path)
    both = _refused(tmp_path, "--harmful", str(chats), "--texts", str(chats))
    assert "different operators" in both


def test_an_unknown_language_is_refused_with_the_nearest(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "c.jsonl", [("a", "b")])
    said = _refused(tmp_path, "--harmful", str(chats), "--harmless", f"swa={chats}")
    assert "no expert 'swa'" in said and "'sw'" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a"}', "no key 'response'"),
        ('{"prompt": "a", "respons": "b"}', "'respons'"),
        ('{"prompt": "a", "response": " "}', "response is empty"),
        ('{"prompt": 3, "response": "b"}', "prompt is empty or no text"),
        ("", "no chats"),
        ("not JSON", "line 1"),
    ],
)
def test_what_is_no_chat_is_refused_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(CalibrationError, match=said):
        read_chats(tmp_path / "c.jsonl")


def test_chats_in_another_language_are_refused(tmp_path: Path) -> None:
    english = [("What is this?", "This is a chair that stands beside the old wooden table.")] * 3
    path = write_chats(tmp_path / "c.jsonl", english)
    with pytest.raises(CalibrationError, match="3 of 3 answers are not in 'th'"):
        read_chats(path, "th")
    assert len(read_chats(path, "en").answers) == 3
    assert len(read_chats(path).answers) == 3


def test_an_answer_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    family = make_family(tmp_path, "llama")
    long = write_chats(tmp_path / "long.jsonl", [("w5 " * 20, "w6 w7")])
    with pytest.raises(CalibrationError, match="no token of its answer is within the first 10"):
        safeswap.calibrate(
            family["base"], safety=family["safety"], languages={"sw": family["sw"]}, harmful=long,
            harmless={"sw": long}, out=tmp_path / "grams", options=FLOAT32, max_tokens=10,
            force=True,
        )  # fmt: skip
