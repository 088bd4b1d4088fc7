"""The verb on the models that come with safeswap."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from safeswap import api
from safeswap.checkpoint.family import open_family
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.demo.world import default_world
from safeswap.errors import CalibrationError, ConfigError
from safeswap.evaluation.backends import BackendOptions, open_backend
from safeswap.evaluation.readouts import LikelihoodScorer
from safeswap.search.diagnose.collision import collisions
from safeswap.search.diagnose.measures import entropy
from safeswap.search.diagnose.reading import Reader
from safeswap.search.diagnose.texts import harmful_files, read_text_sets

WORLD, MODELS, CODE = default_world(), models_folder(), "qac"
OPTIONS = BackendOptions(dtype="float32", device="cpu")
COUNT = 16


def chats(path: Path, documents: Iterable[Document], count: int = COUNT) -> Path:
    distinct = {one.prompt: one for one in islice(documents, 4 * count) if one.prompt}
    rows = [{"prompt": one.prompt, "response": one.response} for one in distinct.values()]
    path.write_text("\n".join(map(json.dumps, rows[:count])) + "\n")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("texts")
    refusals = (one for one in safety_documents(WORLD, 7) if WORLD.is_refusal(one.response))
    others = (one for one in safety_documents(WORLD, 8) if not WORLD.is_refusal(one.response))
    trained = [item for item in WORLD.items if item.safety_trained]
    own = (Document(WORLD.request(CODE, i, 0), WORLD.refusal("qaa", 0, i)) for i in trained)
    return {
        "harmful": {
            "safety": chats(folder / "refusals.jsonl", refusals),
            CODE: chats(folder / "own.jsonl", own),
        },
        "harmless": {
            "safety": chats(folder / "english.jsonl", others),
            CODE: chats(folder / "chats.jsonl", language_documents(WORLD, CODE, 7)),
        },
    }


def diagnosed(files: dict[str, dict[str, Path]], **given: Any) -> Any:
    options: dict[str, Any] = {
        "safety": MODELS / "safety",
        "languages": {CODE: MODELS / CODE},
        "options": OPTIONS,
        "force": True,
        **files,
    }
    return api.diagnose(MODELS / "base", **{**options, **given})


@pytest.fixture(scope="module")
def whole(files: dict[str, dict[str, Path]]) -> Any:
    return diagnosed(files)


def test_a_pair_that_merges_well_is_likely(whole: Any) -> None:
    """gram-add refuses 75 % in it, at the expert's ability (docs/small-world.md)."""
    (one,) = whole.languages
    assert one.grade == "likely" and all(reason.holds for reason in one.reasons)
    layer = one.layers[one.layer]
    assert layer.transfer.low > 0.7 and layer.english.value > 0.9
    assert len(one.layers) == 6 and {unit.unit for unit in one.units} >= {"0.attention", "5.mlp"}
    assert one.texts == dict.fromkeys(
        ("harmful:safety", f"harmful:{CODE}", "harmless:safety", f"harmless:{CODE}"), COUNT
    )
    safety = {r.language: r for r in one.refusing if r.role == "safety"}
    assert safety["en"].harmful.value > 0.9 and safety["en"].harmless.value < 0.1


def test_without_harmful_requests_in_the_language_it_is_never_likely(
    files: dict[str, dict[str, Path]],
) -> None:
    english = {"safety": files["harmful"]["safety"]}
    (one,) = diagnosed({**files, "harmful": english}).languages
    assert one.grade == "open"
    held = {reason.name: reason.holds for reason in one.reasons}
    assert held["separates"] is held["carries over"] is None
    assert held["gain"] and held["reads"] and held["refuses"]
    assert any(f"--harmful {CODE}=FILE" in text for text in one.unknown)
    assert one.layers[0].transfer is None and one.spelling.language is None


def test_experts_in_the_wrong_place_are_not_likely(files: dict[str, dict[str, Path]]) -> None:
    """The expert of another language in either place: hardly a refusal more than the base's there,
    no gain here.
    """
    chosen = {"safety": MODELS / "qad", "languages": {CODE: MODELS / "qab"}}
    (one,) = diagnosed(files, **chosen).languages
    held = {reason.name: reason.holds for reason in one.reasons}
    assert held["refuses"] is not True and held["gain"] is not True
    assert one.grade != "likely"


def test_what_a_base_predicts_of_a_language() -> None:
    """Of letters that are all as frequent, and of text that is one letter."""
    assert entropy(["abcd", "dcba"]) == pytest.approx(np.log(4))
    assert entropy(["aab", "b" * 2 + "a" * 3]) == pytest.approx(
        -(5 / 8) * np.log(5 / 8) - (3 / 8) * np.log(3 / 8)
    )
    assert entropy(["aaaa"]) == 0.01


def test_a_language_that_the_base_does_not_know(
    files: dict[str, dict[str, Path]], whole: Any, tmp_path: Path
) -> None:
    """The language's own words, dealt out anew: the same letters, and nobody reads them."""
    words = sorted(word for word in WORLD.words() if not word.isdigit())
    dealt = [*words]
    random.Random(0).shuffle(dealt)
    table = dict(zip(words, dealt, strict=True))
    strange: dict[str, dict[str, Path]] = {kind: dict(own) for kind, own in files.items()}
    for kind in strange:
        rows = map(json.loads, files[kind][CODE].read_text().splitlines())
        pairs = [
            tuple(" ".join(table.get(w, w) for w in row[key].split()) for key in row)
            for row in rows
        ]
        strange[kind][CODE] = lines(tmp_path / f"{kind}.jsonl", pairs)
    (one,) = diagnosed(strange).languages
    held = {reason.name: reason.holds for reason in one.reasons}
    assert one.grade == "unlikely" and held["reads"] is not True
    known = whole.languages[0].knowledge.predicted
    assert known.low > 0.9 > 0.7 > one.knowledge.predicted.high


def test_states_are_those_of_each_text_alone(files: dict[str, dict[str, Path]]) -> None:
    """Against transformers, text by text."""
    sets = read_text_sets(**files, languages=[CODE], limit=9, seed=0, force=True)
    family = open_family(MODELS / "base", MODELS / "safety", {CODE: MODELS / CODE}, force=True)
    kind = ("harmless", CODE)
    texts = {kind: sets.sets[kind]}
    found = Reader(OPTIONS, sets.openings, 60).read(family.members[CODE], "model", texts)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / CODE)
    model = AutoModelForCausalLM.from_pretrained(MODELS / CODE, dtype=torch.float32).eval()
    assert found.states[kind].shape == (6, 9, 128)
    for n, one in enumerate(texts[kind]):
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": one.request}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            every = model(**asked, output_hidden_states=True).hidden_states
        wanted = torch.stack([state[0, -1] for state in every[1:]]).numpy()
        np.testing.assert_allclose(found.states[kind][:, n], wanted, rtol=1e-4, atol=1e-4)


def test_refusing_and_answers_are_the_readouts(files: dict[str, dict[str, Path]]) -> None:
    """Against lm-eval's likelihoods."""
    sets = read_text_sets(**files, languages=[CODE], limit=8, seed=0, force=True)
    family = open_family(MODELS / "base", MODELS / "safety", {CODE: MODELS / CODE}, force=True)
    kind = ("harmless", CODE)
    texts = list(sets.sets[kind])
    found = Reader(OPTIONS, sets.openings, 60).read(
        family.members["safety"], "model", {kind: texts}
    )
    scorer = LikelihoodScorer(open_backend(str(MODELS / "safety"), "hf", OPTIONS))
    opened = scorer.opening([one.request for one in texts], sets.openings)
    np.testing.assert_allclose(found.refusing[kind], opened, atol=1e-3)
    likely, tokens = scorer.answers(texts)
    np.testing.assert_allclose(found.answers[kind].likely, likely, atol=1e-3)
    assert found.answers[kind].tokens.tolist() == tokens
    assert found.answers[kind].letters.tolist() == [len(one.answer) for one in texts]


def test_collisions_are_those_of_the_weights() -> None:
    profile = api.make_profile(
        MODELS / "base", safety=MODELS / "safety", languages={CODE: MODELS / CODE}, force=True
    )
    found = {one.unit: one for one in collisions(profile, CODE)}
    assert sum(one.safety for one in found.values()) == pytest.approx(1)
    roles = ("base", "safety", CODE)
    weights = {role: load_file(MODELS / role / "model.safetensors") for role in roles}
    names = [n for n in weights["base"] if ".3.mlp." in n and n.endswith("weight")]
    safety, spoken = (
        torch.cat([(weights[r][n].double() - weights["base"][n].double()).ravel() for n in names])
        for r in roles[1:]
    )
    cosine = float(safety @ spoken / (safety.norm() * spoken.norm()))
    assert found["3.mlp"].cosine == pytest.approx(cosine, abs=1e-4)
    assert not any(one.collides for one in found.values()), "they are all but orthogonal"


def test_on_the_command_line(files: dict[str, dict[str, Path]], whole: Any, tmp_path: Path) -> None:
    out = tmp_path / "diagnosis.json"
    given = ["diagnose", MODELS / "base", "--safety", MODELS / "safety"]
    given += ["--language", f"{CODE}={MODELS / CODE}", "--harmful", files["harmful"]["safety"]]
    given += ["--harmful", f"{CODE}={files['harmful'][CODE]}", "-o", out, "--force", "--layers"]
    for role, path in files["harmless"].items():
        given += ["--harmless", f"{role}={path}"]
    given += ["--dtype", "float32", "--device", "cpu"]
    done = CliRunner().invoke(main, [str(word) for word in given])
    assert done.exit_code == 0, done.output
    assert f"{CODE}: likely to work" in done.stdout
    for reason in whole.languages[0].reasons:
        assert f"+ {reason.name}" in done.stdout
    assert "AUC transfer" in done.stdout and "collide in 0 of 12" in done.stdout
    assert done.stderr == "", "quiet where there is no terminal"
    record = json.loads(out.read_text())
    assert record == json.loads(json.dumps(whole.record)), "the same texts, the same figures"


def test_json_is_the_file(files: dict[str, dict[str, Path]], whole: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("safeswap.api.diagnose", lambda *given, **options: whole)
    given = ["diagnose", "base", "--safety", "s", "--language", f"{CODE}=l", "--json"]
    given += ["--harmful", str(files["harmful"]["safety"])]
    given += ["--harmless", f"safety={files['harmless']['safety']}"]
    given += ["--harmless", f"{CODE}={files['harmless'][CODE]}"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["kind"] == "diagnosis" and content["out"] is None
    assert content["languages"][CODE]["grade"] == "likely"


# What is refused ---------------------------------------------------------------------------------


def read(files: dict[str, dict[str, Path]], language: str = CODE, **given: Any) -> Any:
    options: dict[str, Any] = {"limit": 100, "seed": 0, "force": False, **files}
    return read_text_sets(languages=[language], **{**options, **given})


def lines(path: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    rows = [json.dumps({"prompt": one, "response": other}) for one, other in pairs]
    path.write_text("\n".join(rows) + "\n")
    return path


ENGLISH = [
    f"How do I take the {what} apart without breaking anything in it?"
    for what in ("clock", "radio", "lamp", "chair", "engine", "piano", "toaster", "bicycle")
]
SWAHILI = [
    f"Ninawezaje kutengeneza {what} nyumbani bila kutumia pesa nyingi?"
    for what in ("mkate", "kiti", "meza", "nguo", "sabuni", "kikapu", "chungu", "mkeka")
]


@pytest.fixture
def real(tmp_path: Path) -> dict[str, dict[str, Path]]:
    """Harmless sentences in both places: what they are about is not looked at."""
    sorry = "I am sorry, but I cannot help you with this request at all."
    fine = "Fungua kwanza sehemu ya juu, kisha toa kila kitu polepole kwa mkono."
    turned = [text.replace("How do I", "Please tell me how I can") for text in ENGLISH]
    asked = [text.replace("Ninawezaje", "Naomba uniambie jinsi ya") for text in SWAHILI]
    return {
        "harmful": {
            "safety": lines(tmp_path / "bad.jsonl", ((text, sorry) for text in ENGLISH)),
            "sw": lines(tmp_path / "bad-sw.jsonl", ((text, sorry) for text in SWAHILI)),
        },
        "harmless": {
            "safety": lines(tmp_path / "en.jsonl", ((text, ENGLISH[0]) for text in turned)),
            "sw": lines(tmp_path / "sw.jsonl", ((text, fine) for text in asked)),
        },
    }


def test_texts_are_read_and_drawn(real: dict[str, dict[str, Path]]) -> None:
    found = read(real, "sw", limit=8)
    assert found.openings == ("I am",)
    assert [len(texts) for texts in found.sets.values()] == [8] * 4
    assert set(found.digests) == {"harmful:safety", "harmful:sw", "harmless:safety", "harmless:sw"}
    few = read(real, "sw", limit=3).sets["harmful", "sw"]
    assert len(few) == 3 and [one.request for one in few] == sorted(
        (one.request for one in few), key=SWAHILI.index
    )
    assert few != read(real, "sw", limit=3, seed=1).sets["harmful", "sw"]


@pytest.mark.parametrize(
    ("kind", "role", "texts", "words"),
    [
        ("harmful", "safety", SWAHILI, r"bad\.jsonl: 8 of 8 requests are not in English"),
        ("harmful", "sw", ENGLISH, r"bad-sw\.jsonl: 8 of 8 requests are not in 'sw'"),
        ("harmless", "safety", SWAHILI, r"en\.jsonl: 8 of 8 answers are not in 'en'"),
        ("harmless", "sw", ENGLISH, r"sw\.jsonl: 8 of 8 answers are not in 'sw'"),
        ("harmless", "sw", SWAHILI[:5], r"sw\.jsonl: 5 texts, and fewer than 8"),
        ("harmful", "sw", [], r"bad-sw\.jsonl: holds no chats"),
    ],
)
def test_texts_that_say_nothing_are_refused(
    real: dict[str, dict[str, Path]], kind: str, role: str, texts: list[str], words: str
) -> None:
    lines(real[kind][role], ((text, text) for text in texts))
    with pytest.raises(CalibrationError, match=words):
        read(real, "sw")


def test_requests_in_two_files_are_refused(real: dict[str, dict[str, Path]]) -> None:
    rows = real["harmless"]["sw"].read_text().splitlines()
    real["harmless"]["sw"].write_text("\n".join([*rows, json.dumps(
        {"prompt": SWAHILI[0], "response": SWAHILI[1]})]))  # fmt: skip
    with pytest.raises(CalibrationError, match=r"sw\.jsonl: 1 of its requests are in .*bad-sw"):
        read(real, "sw")


@pytest.mark.parametrize("role", ["safety", "sw"])
def test_harmless_texts_of_every_language_are_needed(
    real: dict[str, dict[str, Path]], role: str
) -> None:
    del real["harmless"][role]
    with pytest.raises(CalibrationError, match=rf"--harmless: lacks .*add --harmless {role}=FILE"):
        read(real, "sw")


def test_which_file_is_whose(tmp_path: Path) -> None:
    assert harmful_files(["a.jsonl", "sw=b.jsonl"], ["sw"]) == {
        "safety": Path("a.jsonl"),
        "sw": Path("b.jsonl"),
    }
    assert harmful_files(["safety=a.jsonl"], ["sw"]) == {"safety": Path("a.jsonl")}
    with pytest.raises(CalibrationError, match=r"no expert 'ws'; did you mean 'sw'"):
        harmful_files(["a.jsonl", "ws=b.jsonl"], ["sw"])
    with pytest.raises(CalibrationError, match="no file is English"):
        harmful_files(["sw=b.jsonl"], ["sw"])
    with pytest.raises(CalibrationError, match="two files are English"):
        harmful_files(["a.jsonl", "b.jsonl"], ["sw"])


def test_a_limit_of_nothing_is_refused(files: dict[str, dict[str, Path]]) -> None:
    with pytest.raises(ConfigError, match="--limit 0"):
        diagnosed(files, limit=0)
