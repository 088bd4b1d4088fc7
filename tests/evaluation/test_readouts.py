"""What is read off a model by forward passes, against direct computations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.demo import models_folder
from safeswap.demo.world import default_world
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions, open_backend
from safeswap.evaluation.readouts import (
    MOST,
    Exchange,
    LikelihoodScorer,
    ReadoutTexts,
    learn_openings,
    opening_of,
    read_model,
)

WORLD = default_world()
ITEMS = [item for item in WORLD.items if item.dangerous][:4]
SAFE = [item for item in WORLD.items if not item.dangerous][:5]


@pytest.fixture(scope="module")
def safety() -> object:
    return open_backend(
        str(models_folder() / "safety"), "hf", BackendOptions(dtype="float32", device="cpu")
    )


def direct(loaded: object, exchange: Exchange) -> float:
    """Log-probability of the answer, one token after the other, nothing padded or batched."""
    model, tokenizer = loaded.model, loaded.tokenizer  # type: ignore[attr-defined]
    chat = [{"role": "user", "content": exchange.request}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    total = 0.0
    for token in tokenizer(exchange.answer, add_special_tokens=False)["input_ids"]:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        ids = [*ids, token]
    return total


def test_likelihoods_are_those_of_one_token_after_the_other(safety: object) -> None:
    exchanges = [
        Exchange(WORLD.request("qab", item, n % 3), WORLD.procedure("qab", item))
        for n, item in enumerate([*ITEMS, *SAFE])
    ]
    found, lengths = LikelihoodScorer(safety).answers(exchanges)  # type: ignore[arg-type]
    wanted = [direct(safety, one) for one in exchanges]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert lengths == [len(one.answer.split()) for one in exchanges]


def test_a_reading_is_what_its_words_say(safety: object) -> None:
    openings = tuple(" ".join(WORLD.refusal("qaa", n).split()[:2]) for n in (0, 1))
    harmful = tuple(WORLD.request("qaa", item, 0) for item in ITEMS)
    harmless = tuple(
        Exchange(WORLD.request("qaa", item, 0), WORLD.procedure("qaa", item)) for item in SAFE
    )
    found = read_model(safety, ReadoutTexts(harmful, harmless, openings))  # type: ignore[arg-type]

    def chance(request: str) -> float:
        return sum(math.exp(direct(safety, Exchange(request, one))) for one in openings)

    refused = [chance(request) for request in harmful]
    overrefused = [chance(one.request) for one in harmless]
    tokens = sum(len(one.answer.split()) for one in harmless)
    assert found.refused == pytest.approx(sum(refused) / 4, rel=1e-3)
    assert found.refusing == pytest.approx(
        sum(math.log(p / (1 - p)) for p in refused) / 4, abs=0.02
    )
    assert found.overrefused == pytest.approx(sum(overrefused) / 5, rel=1e-3)
    assert found.keeping == pytest.approx(
        sum(direct(safety, one) for one in harmless) / tokens, abs=1e-4
    )
    assert found.selectivity == pytest.approx(found.refused - found.overrefused)
    assert found.refused > 0.5 > found.overrefused, "the safety expert refuses selectively"


def test_no_texts_are_no_figures(safety: object) -> None:
    nothing = read_model(safety, ReadoutTexts((), (), ("a",)))  # type: ignore[arg-type]
    assert set(vars_of(nothing)) == {None} and nothing.selectivity is None


def vars_of(reading: object) -> list[object]:
    return [getattr(reading, name) for name in type(reading).__slots__]  # type: ignore[attr-defined]


def test_what_has_no_tokens_is_named(safety: object) -> None:
    with pytest.raises(EvaluationError, match="answer of 'xyz' has no tokens"):
        LikelihoodScorer(safety).answers([Exchange("xyz", "")])  # type: ignore[arg-type]


def test_openings_are_the_commonest_first_words() -> None:
    refusals = ["I'm sorry, but no."] * 6 + ["I cannot help with that."] * 3 + ["As an AI"]
    assert learn_openings(refusals) == ("I'm sorry,", "I cannot")
    assert learn_openings(["No"]) == ("No",)
    assert opening_of("ขอโทษครับผมช่วยเรื่องนี้ไม่ได้ครับ") == "ขอโทษครั"
    with pytest.raises(EvaluationError, match="no refusal holds a word"):
        learn_openings(["", "  "])


@settings(max_examples=50)
@given(st.lists(st.text(max_size=30), max_size=30))
def test_no_opening_begins_with_another(texts: list[str]) -> None:
    """Else their probabilities could not be added."""
    if not any(text.split() for text in texts):
        return
    found = learn_openings(texts)
    assert 0 < len(found) <= MOST
    for one in found:
        assert one and not any(one != other and one.startswith(other) for other in found)
