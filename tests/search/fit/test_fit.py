"""Coefficients fitted on behaviour, on the models that come with safeswap."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from safeswap import api
from safeswap.anatomy.heads import Span
from safeswap.checkpoint.family import open_family
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.demo.world import default_world
from safeswap.errors import CalibrationError, EvaluationError, OutputError, PlanError
from safeswap.evaluation.backends import BackendOptions, open_backend
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.readouts import Exchange, LikelihoodScorer, read_model
from safeswap.plan import Plan
from safeswap.search.fit import FitSettings
from safeswap.search.fit import run as running
from safeswap.search.fit.descent import FIRST, SECOND, Descent
from safeswap.search.fit.gradient import CoefficientGradient
from safeswap.search.fit.objective import Scored, encode, log_likelihoods
from safeswap.search.fit.texts import divided, read_fit_texts
from safeswap.search.hotswap import HotSwapModel

WORLD, MODELS, CODE = default_world(), models_folder(), "qac"
OPTIONS = BackendOptions(dtype="float32", device="cpu")
FEW = FitSettings(steps=3, batch=4)


def chats(path: Path, documents: Iterable[Document], count: int) -> Path:
    lines = [
        json.dumps({"prompt": one.prompt, "response": one.response})
        for one in islice((one for one in documents if one.prompt), count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    refusals = (one for one in safety_documents(WORLD, 7) if WORLD.is_refusal(one.response))
    others = (one for one in safety_documents(WORLD, 8) if not WORLD.is_refusal(one.response))
    return {
        "harmful": chats(folder / "refusals.jsonl", refusals, 16),
        CODE: chats(folder / "chats.jsonl", language_documents(WORLD, CODE, 7), 16),
        "safety": chats(folder / "english.jsonl", others, 8),
    }


def fitted(texts: dict[str, Path], out: Path, settings: FitSettings = FEW, **given: Any) -> Any:
    options: dict[str, Any] = {
        "safety": MODELS / "safety",
        "languages": {CODE: MODELS / CODE},
        "harmful": texts["harmful"],
        "harmless": {CODE: texts[CODE], "safety": texts["safety"]},
        "options": OPTIONS,
        "force": True,
    }
    (one,) = api.fit(MODELS / "base", out=out, settings=settings, **{**options, **given})
    return one


@pytest.fixture(scope="module")
def whole(texts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fitted(texts, tmp_path_factory.mktemp("fit") / "out")


def test_a_fitted_plan_merges_and_is_what_was_read(
    texts: dict[str, Path], whole: Any, tmp_path: Path
) -> None:
    plan = Plan.load(whole.plan)
    assert plan.selector["name"] == "fit" and plan.selector["steps"] == FEW.steps
    moved = {unit: row.weights for unit, row in plan.units.items() if row.decision != CODE}
    assert {unit.rpartition(".")[2] for unit in moved} == {"attention", "mlp"}
    assert plan.units["0.norms"].weights == {"safety": 0.0, CODE: 1.0}
    (merged,) = api.merge_plans([plan], tmp_path / "out", figure=False)
    assert api.verify_merge(merged.folder).from_inputs
    # it remembers all that it was given, held back or not, in its card too
    given = [texts[name].read_text().splitlines() for name in ("harmful", CODE, "safety")]
    asked = {identity_of(json.loads(line)["prompt"]) for lines in given for line in lines}
    assert plan.chosen is not None and plan.chosen.prompts == asked
    card = (merged.folder / "README.md").read_text()
    assert f"fitted on {len(asked)} texts" in card
    record = json.loads(whole.record.read_text())
    assert [row["step"] for row in record["steps"]] == [1, 2, 3]
    assert record["held"]["kept"] == whole.kept
    # the written merge, asked by a model that was loaded from it, says what the record says
    held = read_fit_texts(
        CODE,
        texts["harmful"],
        {CODE: texts[CODE]},
        0,
        force=True,
    ).held
    again = read_model(open_backend(str(merged.folder), "hf", OPTIONS), held.readouts())
    assert again.refused == pytest.approx(whole.after.refused, abs=1e-4)
    assert again.keeping == pytest.approx(whole.after.keeping, abs=1e-4)


def test_steps_raise_refusing_and_hold_the_language(texts: dict[str, Path], tmp_path: Path) -> None:
    """Better than the table that it starts from, on texts that it was not fitted on."""
    found = fitted(
        texts, tmp_path / "out", FitSettings(steps=12, batch=8, rate=0.1, keep=10, spend=0)
    )
    assert found.after.refusing > found.before.refusing + 1
    assert found.kept > 0.9


def test_a_fit_that_was_stopped_goes_on_to_the_same_plan(
    texts: dict[str, Path], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = running.LanguageFit._save_state

    def stopped(self: Any, descent: Descent) -> None:
        save(self, descent)
        if descent.steps == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(running.LanguageFit, "_save_state", stopped)
    with pytest.raises(KeyboardInterrupt):
        fitted(texts, tmp_path / "out")
    assert not (tmp_path / "out" / f"{CODE}.yaml").exists()
    made: list[int] = []

    def counted(self: Any, descent: Descent) -> None:
        made.append(descent.steps)
        save(self, descent)

    monkeypatch.setattr(running.LanguageFit, "_save_state", counted)
    one = fitted(texts, tmp_path / "out")
    assert made == [3]
    same = [Plan.load(path).units for path in (one.plan, whole.plan)]
    assert same[0] == same[1]
    assert not list((tmp_path / "out").glob(".*.state.json"))
    made.clear()
    assert fitted(texts, tmp_path / "out") == one and made == [], "what is done is kept"
    with pytest.raises(OutputError, match="fitted on other checkpoints, texts or settings"):
        fitted(texts, tmp_path / "out", replace(FEW, seed=1))


@pytest.mark.parametrize("content", ["{", '{"fit": "ID"}', '{"fit": "ID", "weights": [[1]]}'])
def test_a_damaged_state_is_named(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(running, "digest_of", lambda value: "ID")
    (out / f".{CODE}.state.json").write_text(content)
    with pytest.raises(OutputError, match=rf"\.{CODE}\.state\.json: is .*damaged"):
        fitted(texts, out)


@pytest.mark.parametrize("content", ["{", '{"fit": "ID"}', '{"fit": "ID", "held": {"before": 3}}'])
def test_a_damaged_record_is_named(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(running, "digest_of", lambda value: "ID")
    (out / f"{CODE}.yaml").write_text("")
    (out / f"{CODE}.json").write_text(content)
    with pytest.raises(OutputError, match=rf"{CODE}\.json: is damaged"):
        fitted(texts, out)


def test_the_gradient_is_that_of_autograd_through_the_merge() -> None:
    """Weights as leaves, and the model called with what they make of the task vectors."""
    family, hot, rows = exchanged()
    hot.apply(table())
    model, roles = hot.loaded.model, ("safety", CODE)
    groups = {unit: hot.tensors_of([unit]) for unit in ("1.attention", "3.mlp", "5.mlp")}
    whole = {unit: [Span(name) for name in names] for unit, names in groups.items()}
    gradient = CoefficientGradient(family, model, hot.trainable(), whole, roles)
    for part in (rows[:2], rows[2:]):  # two passes add up
        log_likelihoods(model, part, hot.loaded.pad).sum().backward()
    found = gradient.take()
    assert not gradient.take().any(), "it begins anew"
    assert all(value.grad is None for value in model.parameters())
    gradient.close()

    vectors = {role: load_file(MODELS / role / "model.safetensors") for role in ("base", *roles)}
    leaf = torch.zeros(len(groups), 2, requires_grad=True)
    changed = {}
    for row, names in enumerate(groups.values()):
        for name in names:
            base = vectors["base"][name].float()
            moved = [vectors[role][name].float() - base for role in roles]
            now = model.get_parameter(name).detach()
            changed[name] = now + leaf[row, 0] * moved[0] + leaf[row, 1] * moved[1]

    class Merged(torch.nn.Module):
        def forward(self, logits_to_keep: Any = 0, **given: Any) -> Any:
            given["logits_to_keep"] = logits_to_keep
            return torch.func.functional_call(model, changed, (), given)

    merged = Merged()
    merged.anything = torch.nn.Parameter(torch.zeros(1))  # says where it lies
    log_likelihoods(merged, rows, hot.loaded.pad).sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().max() > 0.1
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0.02, atol=0.01)
    hot.close()


def exchanged() -> tuple[Any, HotSwapModel, list[Scored]]:
    family = open_family(MODELS / "base", MODELS / "safety", {CODE: MODELS / CODE}, force=True)
    hot = HotSwapModel(family, CODE, OPTIONS)
    asked = [
        Exchange(WORLD.request(CODE, item, n % 3), WORLD.procedure(CODE, item))
        for n, item in enumerate(WORLD.items[:6])
    ]
    return family, hot, [encode(hot.loaded.tokenizer, one, 60, template=True) for one in asked]


def table() -> Plan:
    profile = api.make_profile(
        MODELS / "base", safety=MODELS / "safety", languages={CODE: MODELS / CODE}, force=True
    )
    return api.make_plan(profile, method="uniform", form="weights", weight_safety=0.6,
                         weight_language=0.8)  # fmt: skip


def test_what_has_no_gradient_is_named() -> None:
    family, hot, _ = exchanged()
    q = (Span("q_proj.weight"),)
    with pytest.raises(EvaluationError, match=r"q_proj\.weight: is no parameter"):
        CoefficientGradient(family, hot.loaded.model, {}, {"a": q}, ("safety",))
    hot.close()


def test_rows_of_unlike_length_are_scored_as_alone() -> None:
    _, hot, rows = exchanged()
    rows[0] = Scored(rows[0].asked, rows[0].answer[:1])
    with torch.inference_mode():
        together = log_likelihoods(hot.loaded.model, rows, hot.loaded.pad)
        alone = [float(log_likelihoods(hot.loaded.model, [one], 0)[0]) for one in rows]
    assert len({len(one.asked + one.answer) for one in rows}) > 1
    assert together.tolist() == pytest.approx(alone, abs=1e-4)
    hot.close()


@pytest.mark.parametrize("template", [True, False])
def test_a_fit_scores_what_readouts_score(template: bool) -> None:
    _, hot, _ = exchanged()
    one = Exchange(WORLD.request(CODE, WORLD.items[0], 0), WORLD.procedure(CODE, WORLD.items[0]))
    row = encode(hot.loaded.tokenizer, one, 60, template=template)
    with torch.inference_mode():
        found = log_likelihoods(hot.loaded.model, [row], hot.loaded.pad).tolist()
    wanted, lengths = LikelihoodScorer(hot.loaded, template).answers([one])
    assert found == pytest.approx(wanted, abs=1e-4) and lengths == [len(row.answer)]
    hot.close()


def test_steps_are_adams(rate: float = 0.05) -> None:
    """torch's own optimiser, where no limit is met."""
    chance = np.random.default_rng(0)
    gradients = chance.standard_normal((9, 4, 2))
    ours = Descent.begin(4, 0.6, 0.8)
    weights = torch.tensor(ours.weights.copy(), requires_grad=True)
    theirs = torch.optim.Adam([weights], lr=rate, betas=(FIRST, SECOND), eps=1e-8)
    for gradient in gradients:
        ours.step(gradient, rate, high=100.0, parts={})
        weights.grad = torch.tensor(gradient)
        theirs.step()
        if (weights < 0).any():
            pytest.fail("a limit was met: choose another seed")
    np.testing.assert_allclose(ours.weights, weights.detach().numpy(), rtol=1e-9)


def test_weights_stay_within_their_limits() -> None:
    descent = Descent.begin(3, 0.1, 1.4)
    for _ in range(20):
        descent.step(np.tile([1.0, -1.0], (3, 1)), 0.2, 1.5, {})
    assert (descent.weights == [0.0, 1.5]).all()
    again = Descent.from_dict(json.loads(json.dumps(descent.as_dict())), 3, "here")
    np.testing.assert_array_equal(again.mean, descent.mean)
    with pytest.raises(OutputError, match="of other units"):
        Descent.from_dict(descent.as_dict(), 4, "here")


def test_texts_are_held_back_and_none_twice() -> None:
    fit, held = divided(range(41), "seed")
    assert sorted((*fit, *held)) == list(range(41)) and len(held) == 10
    assert divided(range(41), "seed") == (fit, held) != divided(range(41), "other")


def test_files_of_one_name_are_told_apart(texts: dict[str, Path], tmp_path: Path) -> None:
    """English and the language's chats are often called alike, each in its folder."""
    found = []
    for folder, source in (("one", "harmful"), ("other", "safety")):
        (tmp_path / folder).mkdir()
        english = tmp_path / folder / texts[CODE].name
        english.write_bytes(texts[source].read_bytes())
        files = {CODE: texts[CODE], "safety": english}
        found.append(read_fit_texts(CODE, texts["harmful"], files, 0, force=True).digests)
    assert found[0][CODE] == found[1][CODE] and found[0]["safety"] != found[1]["safety"]
    assert set(found[0]) == {"harmful", CODE, "safety"}


def test_too_few_texts_are_refused(texts: dict[str, Path], tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(texts[CODE].read_text().splitlines()[:7]))
    with pytest.raises(CalibrationError, match=r"few\.jsonl: 7 texts.*fewer than 8"):
        fitted(texts, tmp_path / "out", harmless={CODE: few})


def test_an_expert_that_gained_nothing_is_refused(texts: dict[str, Path], tmp_path: Path) -> None:
    """Here on texts of another language."""
    other = chats(tmp_path / "other.jsonl", language_documents(WORLD, "qab", 7), 16)
    with pytest.raises(EvaluationError, match=r"no better than the base.*--harmless"):
        fitted(texts, tmp_path / "out", harmless={CODE: other})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"by": "modul"}, r"--by 'modul' is unknown.*'module'"),
        ({"steps": 0}, r"--steps 0: from 1 to 10000"),
        ({"rate": float("nan")}, r"--rate nan: from"),
        ({"high": 0.5}, r"--start lies above --high 0.5"),
        ({"spend": 1.5}, r"--spend 1.5: from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        FitSettings(**given)
    with pytest.raises(PlanError, match=r"no setting 'margn'; did you mean 'margin'"):
        FitSettings.from_dict({"margn": 1})


def test_the_verb(texts: dict[str, Path], tmp_path: Path) -> None:
    words = ["fit", str(MODELS / "base"), "--safety", str(MODELS / "safety"), "--language",
             f"{CODE}={MODELS / CODE}", "--harmful", str(texts["harmful"]), "--harmless",
             f"{CODE}={texts[CODE]}", "--dtype", "float32", "--device", "cpu",
             "--force"]  # fmt: skip
    more = ["--steps", "2", "--batch", "2", "-o", str(tmp_path / "o")]
    done = CliRunner().invoke(main, [*words, *more])
    assert done.exit_code == 0, done.output
    assert "kept of the expert's gain on its own texts: " in done.output
    assert "next: safeswap merge --plan" in done.output
    plain = json.loads(CliRunner().invoke(main, [*words, *more, "--json"]).stdout)
    assert plain["kind"] == "fitted" and plain["languages"][0]["language"] == CODE
    above = CliRunner().invoke(main, [*words, "--start", "0.6", "2"])
    assert above.exit_code and "--start lies above --high 1.5" in above.output
    wrong = CliRunner().invoke(main, [*words, "--harmless", f"qax={texts[CODE]}"])
    assert wrong.exit_code and "there is no expert 'qax'" in wrong.output


def test_a_dry_run_counts_and_loads_nothing(texts: dict[str, Path], tmp_path: Path) -> None:
    given = ["fit", str(MODELS / "base"), "--safety", str(MODELS / "safety")]
    given += ["--language", f"{CODE}={MODELS / CODE}", "--harmful", str(texts["harmful"])]
    given += ["--harmless", f"{CODE}={texts[CODE]}", "--harmless", f"safety={texts['safety']}"]
    given += ["-o", str(tmp_path / "out"), "--force", "--dry-run"]
    said = CliRunner().invoke(main, given)
    assert said.exit_code == 0 and not (tmp_path / "out").exists()
    assert "24 weights in 50 steps" in said.output  # six layers, two units, two experts
    assert "fitted on 12 harmful requests, 12 chats, 6 of safety's; held back: 4, 4, 2" in (
        " ".join(said.output.split())
    )
    found = json.loads(CliRunner().invoke(main, [*given, "--json"]).output)
    (one,) = found["languages"]
    stored = load_file(MODELS / CODE / "model.safetensors")
    moved = sum(t.nbytes for n, t in stored.items() if ".layers." in n and "norm" not in n)
    assert one["vectors_bytes"] == 2 * moved and not one["there"]


def test_a_fit_that_refuses_the_harmless_says_so(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["fit", str(MODELS / "base"), "--safety", str(MODELS / "safety")]
    given += ["--language", f"{CODE}={MODELS / CODE}", "--harmful", str(texts["harmful"])]
    given += ["--harmless", f"{CODE}={texts[CODE]}", "--steps", "1", "--device", "cpu", "--force"]
    given += ["--dtype", "float32"]
    for limit, warned in ((1.0, False), (-1.0, True)):
        monkeypatch.setattr("safeswap.cli.fitting.LOUD", limit)
        said = CliRunner().invoke(main, [*given, "-o", str(tmp_path / "out")])
        assert said.exit_code == 0
        assert ("warning: a refusal opens" in said.output) == warned
