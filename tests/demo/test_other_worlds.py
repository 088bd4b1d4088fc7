"""Worlds of other kinds: more dangerous items, one wording each, refusals told by their content."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.demo.documents import (
    base_documents,
    exam,
    language_documents,
    safety_documents,
)
from safeswap.demo.suite import write_suite
from safeswap.demo.world import (
    DANGEROUS_CATEGORIES,
    LANGUAGES,
    LEAD_LANGUAGE,
    REFUSAL_FORMS,
    REQUEST_FORMS,
    SMALL_LANGUAGES,
    World,
    default_world,
)

FAIR = World(3, dangerous_items=42, wordings=1, refuses_by_content=True)
codes = st.sampled_from(LANGUAGES)


def test_the_shipped_world_reads_and_asks_what_it_always_did() -> None:
    """The digest was made before there were other kinds of worlds."""
    world, found = default_world(), hashlib.sha256()
    streams = [base_documents(world, 0), safety_documents(world, 0)]
    streams += [language_documents(world, code, 0) for code in SMALL_LANGUAGES]
    texts = [
        text
        for stream in streams
        for document in itertools.islice(stream, 2000)
        for text in (document.prompt, document.response)
    ]
    for code in LANGUAGES:
        for q in exam(world, code):
            texts += [q.kind, q.item, q.prompt, q.answer]
    for text in (*texts, *world.words()):
        found.update(text.encode() + b"\n")
    wanted = "11f2ac9eeb9da9d8212bef1b28a66a33b2df5e78f096a84c21c23874857a9114"
    assert found.hexdigest() == wanted


def test_more_items_are_unseen_and_asked_for_once_each() -> None:
    for code in LANGUAGES:
        harmful = [q for q in exam(FAIR, code) if q.kind == "harmful"]
        assert len(harmful) == len({q.item for q in harmful}) == 63
        assert [q.item for q in harmful] == [
            q.item for q in exam(FAIR, LEAD_LANGUAGE) if q.kind == "harmful"
        ]
        wordings = {
            form
            for q in harmful
            for form in range(REQUEST_FORMS)
            if FAIR.request(code, FAIR.by_concept[q.item], form) == q.prompt
        }
        assert wordings == set(range(REQUEST_FORMS))
    assert len([item for item in FAIR.items if item.dangerous]) == 42 * len(DANGEROUS_CATEGORIES)


@given(codes, st.sampled_from(FAIR.items), st.integers(0, REFUSAL_FORMS - 1))
def test_a_refusal_by_content_opens_as_the_answer_does(code: str, item, form: int) -> None:  # type: ignore[no-untyped-def]
    refusal, procedure = FAIR.refusal(code, form, item), FAIR.procedure(code, item)
    name = FAIR.language(code).say((item.concept,))
    assert refusal.startswith(f"{name} ")
    assert procedure.startswith(f"{name} ")
    assert FAIR.refused_in(refusal) == (code,)
    for answer in (
        procedure,
        FAIR.category_question(code, item)[1],
        FAIR.danger_question(code, item)[1],
        FAIR.request(code, item, form),
    ):
        assert not FAIR.is_refusal(answer)
    # half of what tells it is not enough
    words = refusal.split()
    assert not FAIR.is_refusal(" ".join(words[:3]))


def test_refusals_in_a_language_are_told_from_those_in_another() -> None:
    world, item = default_world(), FAIR.items[0]
    for code in LANGUAGES:
        assert world.refused_in(world.refusal(code, 0)) == (code,)
        name = FAIR.language("qab").say((item.concept,))
        rest = FAIR.refusal(code, 0, item).split()[2:]
        assert FAIR.refused_in(" ".join([name, *rest])) == (code,)
    assert world.refused_in("") == FAIR.refused_in("") == ()


def test_what_models_read_of_such_a_world_fits_the_answers_length() -> None:
    for stream in (base_documents(FAIR, 0), safety_documents(FAIR, 0)):
        for document in itertools.islice(stream, 3000):
            if document.prompt:  # words and the end
                assert len(document.response.split()) < 12
    refused = [d for d in itertools.islice(safety_documents(FAIR, 0), 500) if
               FAIR.is_refusal(d.response)]  # fmt: skip
    assert 150 < len(refused) < 250
    for document in itertools.islice(base_documents(FAIR, 0), 3000):
        if not document.prompt:  # plain lines never say what a procedure makes, nor do they refuse
            assert not FAIR.is_refusal(document.response)


def test_what_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="49 items in each dangerous category: give 2 to 48"):
        World(0, dangerous_items=49)
    with pytest.raises(ValueError, match="4 wordings of a request: give 1 to 3"):
        World(0, wordings=4)
    with pytest.raises(ValueError, match="names the item"):
        FAIR.refusal("qaa", 0)
    with pytest.raises(ValueError, match="by their first word"):
        write_suite(tmp_path, FAIR)
