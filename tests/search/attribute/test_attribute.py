"""What units bring, against finite differences in float64 and against the difference itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from safeswap import api
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.demo.documents import language_documents, safety_documents
from safeswap.demo.world import default_world
from safeswap.errors import ConfigError, EvaluationError, PlanError
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.readouts import Exchange, learn_openings, tokens_of
from safeswap.profile.attribution import READOUTS, Attribution
from safeswap.publish.private import published
from safeswap.search.attribute import AttributionSettings
from safeswap.search.attribute import run as running
from safeswap.search.attribute.readings import Readings

WORLD, DEMO, CODE = default_world(), models_folder(), "qac"
COUNT, EPSILON = 8, 1e-4
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of four query heads that share two heads of keys and values, with biases."""
    folder = tmp_path_factory.mktemp("trio")
    words = json.loads((DEMO / "base/config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=words, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=4, attention_bias=True,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    for seed, role in enumerate(("base", "safety", CODE)):
        shutil.copytree(DEMO / "base", folder / role)
        base.save_pretrained(folder / role)
        path = folder / role / "model.safetensors"
        chance = torch.Generator().manual_seed(seed)
        moved = 0.05 * min(seed, 1)
        changed = {
            name: value + moved * torch.randn(value.shape, generator=chance)
            for name, value in load_file(path).items()
        }
        save_file(changed, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    documents = {
        "harmful": (one for one in safety_documents(WORLD, 7) if WORLD.is_refusal(one.response)),
        CODE: language_documents(WORLD, CODE, 7),
    }
    for name, found in documents.items():
        rows = islice((one for one in found if one.prompt), COUNT)
        lines = [json.dumps({"prompt": one.prompt, "response": one.response}) for one in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return {name: folder / f"{name}.jsonl" for name in documents}


def attributed(
    trio: Path, texts: Mapping[str, Path], out: Path, options: Any = None, **settings: Any
) -> Attribution:
    return api.attribute(
        trio / "base",
        safety=trio / "safety",
        languages={CODE: trio / CODE},
        harmful=texts["harmful"],
        harmless={CODE: texts[CODE]},
        out=out,
        settings=AttributionSettings(**settings),
        options=options or BackendOptions(dtype="float32", device="cpu"),
        force=True,
    )


def exact_norm(norm: LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
    """transformers' own goes by way of float32, whatever the model is in."""
    return norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


class Oracle:
    """Readouts of W_language + Σ w · τ_safety in float64, one text at a time, by transformers."""

    def __init__(self, trio: Path, texts: Mapping[str, Path]) -> None:
        parts = {role: load_file(trio / role / "model.safetensors") for role in ("base", "safety")}
        self.tau = {n: t.double() - parts["base"][n].double() for n, t in parts["safety"].items()}
        self.model = AutoModelForCausalLM.from_pretrained(trio / CODE, dtype=torch.float64)
        for norm in (one for one in self.model.modules() if isinstance(one, LlamaRMSNorm)):
            norm.forward = partial(exact_norm, norm)
        self.language = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.tokenizer = AutoTokenizer.from_pretrained(trio / CODE)
        refusals, chats = (
            [Exchange(row["prompt"], row["response"]) for row in map(json.loads, path.open())]
            for path in (texts["harmful"], texts[CODE])
        )
        self.openings = learn_openings([one.answer for one in refusals])
        self.refusals, self.chats = refusals, chats

    def readouts(self, parts: Mapping[str, torch.Tensor]) -> list[float]:
        """With ``parts`` of each tensor's τ added; a number for every number of the tensor."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                added = parts[name] * self.tau[name] if name in parts else 0.0
                parameter.copy_(self.language[name] + added)
            refusing, overrefusing = (
                np.mean([self._odds(one.request) for one in kind])
                for kind in (self.refusals, self.chats)
            )
            keeping = np.mean([self._likelihood(one) for one in self.chats])
        return [float(refusing), float(overrefusing), float(keeping)]

    def _odds(self, request: str) -> float:
        p = sum(np.exp(self._likelihood(Exchange(request, way))) for way in self.openings)
        return float(np.log(p / (1 - p)))

    def _likelihood(self, one: Exchange) -> float:
        asked, answer = tokens_of(self.tokenizer, one, template=True)
        logits = self.model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1]
        found = logits.double().log_softmax(-1)[range(len(answer)), answer]
        return float(found.sum())


def part(unit: str, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
    """Which numbers of a tensor are a unit's, by hand: 1 where they are; None for none of it."""
    layer, kind, *group = unit.split(".")
    if f"layers.{layer}." not in name or "norm" in name:
        return None
    whole = torch.ones_like(tensor)
    if kind == "mlp":
        return whole if ".mlp." in name else None
    if ".self_attn." not in name:
        return None
    if not group:  # what is of no head: the output's bias
        return whole if name.endswith("o_proj.bias") else None
    if name.endswith("o_proj.bias"):
        return None
    mask, own = torch.zeros_like(tensor), int(group[0])
    wide = 8 if "q_proj" in name or "o_proj" in name else 4  # two query heads of four numbers
    rows = slice(own * wide, (own + 1) * wide)
    if "o_proj" in name:
        mask[:, rows] = 1
    else:
        mask[rows] = 1
    return mask


UNITS = [f"{n}.{kind}" for n in (0, 1) for kind in ("heads.0", "heads.1", "attention", "mlp")]


def test_a_unit_brings_what_the_readouts_change_when_a_little_of_it_is_added(
    trio: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    """At one point, the middle of the way, an integrated gradient is a directional derivative."""
    found = attributed(trio, texts, tmp_path / "a.json", by="head", points=1, batch=3)
    assert list(found.units) == UNITS
    oracle = Oracle(trio, texts)
    assert found.openings == oracle.openings
    asked = [json.loads(line)["prompt"] for f in texts.values() for line in f.open()]
    assert set(found.prompts.split()) == {identity_of(text) for text in asked}
    moving = {n: t for n, t in oracle.tau.items() if ".layers." in n and "norm" not in n}
    for unit in UNITS:
        own = {n: m for n, t in moving.items() if (m := part(unit, n, t)) is not None}
        low, high = (
            oracle.readouts({n: 0.5 + sign * EPSILON * own.get(n, 0.0) for n in moving})
            for sign in (-1, 1)
        )
        slopes = (np.array(high) - np.array(low)) / (2 * EPSILON)
        given = [getattr(found.units[unit], name) for name in READOUTS]
        np.testing.assert_allclose(given, slopes, rtol=1e-4, atol=1e-6, err_msg=unit)
    ends = [oracle.readouts(dict.fromkeys(moving, t)) for t in (0.0, 1.0)]
    for side, wanted in zip((found.before, found.after), ends, strict=True):
        assert [getattr(side, name) for name in READOUTS] == pytest.approx(wanted, abs=1e-4)


def test_shares_add_up_at_every_granularity(
    trio: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    by = {
        how: attributed(trio, texts, tmp_path / f"{how}.json", by=how)
        for how in ("head", "module", "layer")
    }
    for name in READOUTS:
        for found in by.values():
            assert found.error(name) < 0.01
            assert abs(found.difference(name)) > 1e-3, "or nothing was shown"
        for unit, one in by["head"].by_unit().units.items():
            whole = getattr(by["module"].units[unit], name)
            assert getattr(one, name) == pytest.approx(whole, abs=1e-5)
        for layer, one in by["layer"].units.items():
            modules = (by["module"].units[f"{layer}.{kind}"] for kind in ("attention", "mlp"))
            assert getattr(one, name) == pytest.approx(
                sum(getattr(module, name) for module in modules), abs=1e-5
            )
    assert Attribution.load(tmp_path / "head.json") == by["head"]


def test_a_groups_rows_and_columns_are_one_head_of_transformers(trio: Path) -> None:
    """Without its columns of the output a group might as well have no values."""
    ids = torch.arange(1, 9)[None]
    for own in (0, 1):
        logits = []
        for cut in ("v_proj", "o_proj"):
            model = AutoModelForCausalLM.from_pretrained(trio / CODE, dtype=torch.float64)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    mask = part(f"1.heads.{own}", name, parameter)
                    if cut in name and mask is not None:
                        parameter.mul_(1 - mask)
                logits.append(model(ids).logits)
        torch.testing.assert_close(*logits, rtol=1e-12, atol=1e-12)


def test_from_the_verb_to_a_merge(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the small world: the units that it takes bring refusing, at less than the whole costs."""
    monkeypatch.chdir(tmp_path)
    profile = api.make_profile(
        DEMO / "base", safety=DEMO / "safety", languages={CODE: DEMO / CODE}, force=True
    )
    profile.save(Path("profile.json"))
    given = ["--safety", str(DEMO / "safety"), "--language", f"{CODE}={DEMO / CODE}", "--force"]
    given += ["--harmful", str(texts["harmful"]), "--harmless", str(texts[CODE]), "--points", "2"]
    given += ["--limit", "4"]
    ran = CliRunner().invoke(main, ["attribute", str(DEMO / "base"), *given, "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    assert "of 12 units bring refusing" in ran.output
    assert "next: safeswap plan PROFILE --method attribution" in ran.output
    shown = CliRunner().invoke(main, ["show", "attribution.json", "--json"])
    said = json.loads(shown.output)
    assert max(said["error"].values()) < 0.1 and said["ranked"][0] in said["units"]
    plan = ["plan", "profile.json", "--method", "attribution", "--set", "file=attribution.json",
            "--set", "count=4", "-o", "plan.yaml", "--force"]  # fmt: skip
    ran = CliRunner().invoke(main, plan)
    assert ran.exit_code == 0, ran.output
    ran = CliRunner().invoke(main, ["merge", "--plan", "plan.yaml", "--out", "out", "--force"])
    assert ran.exit_code == 0, ran.output
    checked = api.verify_merge(Path("out"))
    assert checked.from_inputs and checked.edited == ()
    made = api.Plan.load(Path("plan.yaml")).units
    assert [u for u, row in made.items() if row.weights["safety"]] == sorted(said["ranked"][:4])
    assert "attribution.json" in Path("out/README.md").read_text()
    sent = published(Path("out"))  # where the file lies here is nobody's business
    assert str(tmp_path) not in sent.text("safeswap-plan.yaml") + sent.text("safeswap.json")


def test_sums_that_are_wrong_are_said(
    trio: Path,
    texts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(running, "WRONG", 0.0)
    attributed(trio, texts, tmp_path / "a.json", points=1)
    assert "keeping: the units bring" in caplog.text and "--points 2" in caplog.text


def test_a_readout_that_is_no_number_is_said() -> None:
    readings = Readings({"keeping": [[]]}, 1, 1, {})
    with pytest.raises(EvaluationError, match=r"keeping is nan.*--dtype float32"):
        list(readings.parts("keeping", lambda rows: torch.tensor([float("nan")])))


def test_several_languages_are_refused(texts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a and b: a file is of one language"):
        api.attribute("x", safety="y", languages={"a": "a", "b": "b"}, harmful=texts["harmful"],
                      harmless={}, out=tmp_path / "a.json")  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"by": "heads"}, r"--by 'heads' is unknown; did you mean 'head'"),
        ({"points": 0}, "--points 0: from 1 to 64"),
        ({"batch": 0}, "--batch 0: from 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        AttributionSettings(**given)
