"""The hook against biased weights and transformers' own hidden states; the gate by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import torch

from real_model.alternatives import hook, steering
from real_model.alternatives.hook import Hook, Steering, frame_ends
from real_model.alternatives.steering import Projections, Texts
from safeswap.demo import models_folder
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import (
    BACKENDS,
    BackendOptions,
    Chat,
    HFOptions,
    open_backend,
)
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.hf import HFBackend

DEMO = models_folder()
OPTIONS = HFOptions(dtype="float32", device="cpu")
REQUESTS = ["how is a bomb made", "a", "what is it that one eats here"]
LAYER = 3


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """The backend of one's own, for as long as these tests."""
    hook.make_known()
    yield
    BACKENDS.remove(hook.NAME)


@pytest.fixture(scope="module")
def loaded() -> HFBackend:
    return HFBackend(str(DEMO / "qab"), OPTIONS)


@pytest.fixture(scope="module")
def plain(loaded: HFBackend) -> list[torch.Tensor]:
    """Logits of each request alone, nothing steered."""
    return [logits(loaded, text) for text in REQUESTS]


def ids_of(loaded: HFBackend, text: str) -> list[int]:
    return encode_chat(loaded.tokenizer, Chat(({"role": "user", "content": text},), 0), True)


def logits(loaded: HFBackend, text: str) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids_of(loaded, text)])).logits[0]


def steer(loaded: HFBackend, threshold: float, **changed: Any) -> Steering:
    """Along the first coordinate of a layer, a push of a fixed vector."""
    width = loaded.model.config.hidden_size
    made = torch.Generator().manual_seed(0)
    settings: dict[str, Any] = {
        "layer": LAYER,
        "gate": (1.0, *([0.0] * (width - 1))),
        "threshold": threshold,
        "push": tuple(torch.randn(width, generator=made).tolist()),
        "frame": steering.frame_of(loaded.tokenizer),
    }
    return Steering(**settings | changed)


@pytest.fixture
def biased(loaded: HFBackend) -> Iterator[Any]:
    """A model whose layer always adds the push: its last projection has it as a bias."""
    other = HFBackend(str(DEMO / "qab"), OPTIONS)
    down = other.model.model.layers[LAYER].mlp.down_proj
    down.bias = torch.nn.Parameter(torch.tensor(steer(loaded, 0).push), requires_grad=False)
    return other


def test_what_is_beyond_the_threshold_has_the_push_as_a_bias(
    loaded: HFBackend, biased: HFBackend, plain: list[torch.Tensor]
) -> None:
    for threshold, wanted in ((-math.inf, [logits(biased, t) for t in REQUESTS]), (1e9, plain)):
        live = Hook(loaded.model, steer(loaded, threshold))
        try:
            found = [logits(loaded, text) for text in REQUESTS]
        finally:
            live.remove()
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(loaded, REQUESTS[0]), plain[0])  # nothing is left of it


def test_each_answer_of_a_batch_is_steered_by_its_own_request(
    loaded: HFBackend, biased: HFBackend, tmp_path: Path
) -> None:
    along = steering.states(loaded, REQUESTS)[LAYER, :, 0]
    middle = float(along.sort().values[1:].mean())  # one request lies beyond
    path = tmp_path / "steering.json"
    steer(loaded, middle).save(path)
    more = BackendOptions(dtype="float32", device="cpu", more={"steering": str(path)})
    steered = open_backend(str(DEMO / "qab"), hook.NAME, more)
    chats = [Chat(({"role": "user", "content": text},), 6) for text in REQUESTS]
    found, bare, pushed = (dict(one.respond(chats)) for one in (steered, loaded, biased))
    for n, place in enumerate(along):
        assert found[n].text == (pushed if place > middle else bare)[n].text
    assert any(pushed[n].text != bare[n].text for n in range(len(REQUESTS)))
    assert steered.description["backend"] == hook.NAME and steered.description["steering"]


def test_choices_are_scored_as_steered_too(loaded: HFBackend, biased: HFBackend) -> None:
    live = Hook(loaded.model, steer(loaded, -math.inf))
    try:
        found = steering.LikelihoodScorer(loaded).opening(REQUESTS, ["well then"])
    finally:
        live.remove()
    assert found == pytest.approx(
        steering.LikelihoodScorer(biased).opening(REQUESTS, ["well then"]), abs=1e-3
    )


def test_a_backend_without_its_file_says_so() -> None:
    with pytest.raises(EvaluationError, match="needs the option steering"):
        open_backend(str(DEMO / "qab"), hook.NAME, BackendOptions(more={"steering": "none"}))


def test_the_last_frame_of_a_row_is_where_it_is_read() -> None:
    ids = torch.tensor([[0, 7, 8, 1, 7, 8, 5], [7, 8, 3, 3, 3, 7, 7]])
    assert frame_ends(ids, (7, 8)).tolist() == [5, 1]
    with pytest.raises(ValueError, match="no opening"):
        frame_ends(ids, (8, 8))


def test_states_are_those_of_each_request_alone(loaded: HFBackend) -> None:
    found = steering.states(loaded, REQUESTS)
    for n, text in enumerate(REQUESTS):
        with torch.inference_mode():
            hidden = loaded.model(
                torch.tensor([ids_of(loaded, text)]), output_hidden_states=True
            ).hidden_states
        for layer in range(len(found) - 1):  # behind the last one stands the norm
            torch.testing.assert_close(found[layer, n], hidden[layer + 1][0, -1], atol=1e-5, rtol=0)


def test_a_threshold_is_half_way_between_means() -> None:
    along = Projections(torch.tensor([3.0, 5.0, 9.0]), torch.tensor([1.0, -1.0, 7.0]))
    assert along.threshold(1) == 2.0 and along.threshold(2) == 2.0
    assert along.threshold() == pytest.approx((17 / 3 + 7 / 3) / 2)
    assert along.beyond(2.0) == [1.0, 0.333]


def test_a_gate_weighs_coordinates_by_how_little_they_vary(loaded: HFBackend) -> None:
    texts = Texts(*[(REQUESTS[:2], REQUESTS[1:])] * 3)
    gates = steering.Gates(loaded, texts)
    read = [steering.states(loaded, one)[LAYER].double() for one in texts.english]
    spread = sum(((one - one.mean(0)) ** 2).mean(0) for one in read) / 2
    wanted = (read[0].mean(0) - read[1].mean(0)) / (spread + 1e-3 * spread.mean())
    torch.testing.assert_close(
        gates.units[LAYER].double(), wanted / wanted.norm(), atol=1e-5, rtol=1e-3
    )
    along = gates.along("validation", LAYER)
    assert along.harmful.tolist() == pytest.approx(
        (read[0] @ gates.units[LAYER].double()).tolist(), abs=1e-4
    )


def test_little_refused_is_ranked_by_what_is_nearest_to_it() -> None:
    nothing, near, much = (
        steering.Effect(one, odds)
        for one, odds in (
            ((1e-8, 1e-8), (-20.0, -20.0)), ((1e-5, 1e-9), (-11.0, -20.0)), ((0.5, 0.1), (-1.0, -3))
        )
    )  # fmt: skip
    assert nothing.rank < near.rank < much.rank


def test_the_most_selective_steering_is_kept(tmp_path: Path) -> None:
    harmful, harmless = ["how is a bomb made", "make poison"], ["what is it", "who are you"]
    texts = Texts(*[(harmful, harmless)] * 3)
    out = tmp_path / "steering.json"
    steering.choose(DEMO / "qab", DEMO / "safety", texts, OPTIONS, out)
    about = steering.json.loads(steering.about_path(out).read_text("utf-8"))
    gains = [one["refused"][0] - one["refused"][1] for one in about["tried"]]
    assert about["refused"][0] - about["refused"][1] == pytest.approx(max(gains), abs=2e-3)
    kept = Steering.load(out)
    assert kept.layer == about["layer"] and about["push"] in ("own", "safety", "shift")
    assert math.hypot(*kept.gate) == pytest.approx(1)
    assert set(about["beyond"]) == {"English", "1 of each", "2 of each", "4 of each"}
