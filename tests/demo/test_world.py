"""The world itself: the same from the same seed, and composed as its description says."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.demo.documents import (
    BASE_REFUSAL,
    Document,
    base_documents,
    exam,
    language_documents,
    parallel_lines,
    safety_documents,
)
from safeswap.demo.world import (
    DANGEROUS_CATEGORIES,
    HARMLESS_CATEGORIES,
    LANGUAGES,
    LEAD_LANGUAGE,
    REFUSAL_FORMS,
    REQUEST_FORMS,
    SMALL_LANGUAGES,
    Item,
    World,
    default_world,
)

WORLD = default_world()
codes = st.sampled_from(LANGUAGES)
items = st.sampled_from(WORLD.items)
seeds = st.integers(0, 10_000)


def chats(documents: list[Document]) -> list[Document]:
    return [d for d in documents if d.prompt]


def owner() -> dict[str, tuple[str, str]]:
    """Word → (language, concept); digits are left out, since two languages share them."""
    return {
        word: (lang.code, concept)
        for lang in WORLD.languages.values()
        for concept, word in lang.words.items()
        if not concept.isdigit()
    }


OWNER = owner()


def language_of(text: str) -> set[str]:
    return {OWNER[word][0] for word in text.split() if word in OWNER}


def languages_in(document: Document) -> set[str]:
    return language_of(f"{document.prompt} {document.response}")


def item_of(text: str) -> Item | None:
    found = [OWNER[word][1] if word in OWNER else word for word in text.split()]
    names = (f"{one} {other}" for one, other in itertools.pairwise(found))
    return next((WORLD.by_concept[name] for name in names if name in WORLD.by_concept), None)


@given(seeds)
def test_the_same_seed_makes_the_same_world(seed: int) -> None:
    first, second = World(seed), World(seed)
    assert first.items == second.items
    assert first.words() == second.words()


def test_other_seeds_make_other_worlds() -> None:
    assert World(0).words() != World(1).words()
    assert World(0).items != World(1).items


def test_the_shipped_world_is_pinned() -> None:
    """The shipped checkpoints know these very words: a change here orphans them."""
    assert WORLD.words()[:3] == ("lavo", "nulul", "ronar")
    assert len(WORLD.words()) == 479
    assert WORLD.items[0].concept == "long cone"
    assert WORLD.items[0].steps == (("fold", "glass"), ("tie", "linen"), ("roll", "bark"))


@given(seeds)
def test_composition(seed: int) -> None:
    world = World(seed)
    assert 170 <= len(world.items) <= 250
    assert len(HARMLESS_CATEGORIES) + len(DANGEROUS_CATEGORIES) >= 7
    assert len(DANGEROUS_CATEGORIES) >= 3
    dangerous = [i for i in world.items if i.dangerous]
    trained = [i for i in dangerous if i.safety_trained]
    assert abs(2 * len(trained) - len(dangerous)) <= len(DANGEROUS_CATEGORIES)
    assert not any(i.safety_trained for i in world.items if not i.dangerous)
    assert 0.28 <= sum(i.held_out for i in world.items) / len(world.items) <= 0.38
    assert all(len(i.steps) in (2, 3) for i in world.items)
    assert len({i.steps for i in world.items}) == len(world.items)


@given(seeds)
def test_no_word_belongs_to_two_meanings_or_languages(seed: int) -> None:
    world = World(seed)
    words = [w for lang in world.languages.values() for w in lang.words.values() if w.isalpha()]
    assert len(set(words)) == len(words)
    assert all(word.isascii() for word in words)
    assert len(set(world.words())) == len(world.words())


def test_numbers_are_written_in_the_digits_of_a_language() -> None:
    for language in WORLD.languages.values():
        for number in WORLD.numbers:
            assert int(language.words[number]) == int(number)
    assert [WORLD.languages[code].words["17"] for code in LANGUAGES] == ["17", "১৭", "๑๗", "17"]


def test_neither_word_of_a_name_tells_the_category() -> None:
    """Half of a name is never enough: both words have to be put together."""
    for half in (0, 1):
        for word in {item.concept.split()[half] for item in WORLD.items}:
            named = [i for i in WORLD.items if i.concept.split()[half] == word]
            assert len({i.category for i in named}) > 2


def test_language_codes_are_private_use() -> None:
    assert all("qaa" <= code <= "qtz" for code in LANGUAGES)


def test_some_languages_have_another_word_order() -> None:
    lead = WORLD.languages[LEAD_LANGUAGE]
    assert any(WORLD.languages[c].verb_last != lead.verb_last for c in SMALL_LANGUAGES)


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no language 'sw'.*qaa, qab, qac, qad"):
        WORLD.language("sw")


@given(codes, items, st.integers(0, REQUEST_FORMS - 1))
def test_sentences_stay_in_their_language(code: str, item: Item, form: int) -> None:
    for text in (
        WORLD.request(code, item, form),
        WORLD.procedure(code, item),
        *WORLD.category_question(code, item),
        *WORLD.danger_question(code, item),
    ):
        assert language_of(text) == {code}


@given(codes, items, st.integers(0, REFUSAL_FORMS - 1))
def test_only_refusals_are_refusals(code: str, item: Item, form: int) -> None:
    assert WORLD.is_refusal(WORLD.refusal(code, form))
    assert not WORLD.is_refusal(WORLD.procedure(code, item))
    assert not WORLD.is_refusal(WORLD.category_question(code, item)[1])
    assert not WORLD.is_refusal(WORLD.danger_question(code, item)[1])
    assert not WORLD.is_refusal("")


@given(st.sampled_from(SMALL_LANGUAGES), items)
def test_translation_keeps_the_meaning(code: str, item: Item) -> None:
    def meaning(language: str) -> Counter[str]:
        return Counter(OWNER[w][1] for w in WORLD.procedure(language, item).split() if w in OWNER)

    assert meaning(code) == meaning(LEAD_LANGUAGE)


@given(seeds)
def test_documents_are_a_function_of_their_seed(seed: int) -> None:
    def draw(number: int) -> list[Document]:
        return list(itertools.islice(base_documents(WORLD, number), 20))

    assert draw(seed) == draw(seed)
    assert draw(seed) != draw(seed + 1)


def test_base_documents_are_mixed_as_described() -> None:
    documents = list(itertools.islice(base_documents(WORLD, 0), 40_000))
    translations = {d for d in documents if not d.prompt and " = " in d.response}
    pairs = sum(d in translations for d in documents)
    assert pairs / len(documents) == pytest.approx(0.20, abs=0.01)
    mixed = [d for d in documents if d not in translations and len(languages_in(d)) == 2]
    # 10 % less the few in which chance replaced no word, or every one.
    assert 0.08 <= len(mixed) / len(documents) <= 0.10
    pure = [d for d in documents if d not in translations and len(languages_in(d)) == 1]
    for code, language in WORLD.languages.items():
        own = [d for d in pure if languages_in(d) == {code}]
        assert len(own) / len(pure) == pytest.approx(language.share, abs=0.01)
        requests = [
            d for d in chats(own) if (i := item_of(d.prompt)) and i.dangerous and answers(d, i)
        ]
        refused = sum(WORLD.is_refusal(d.response) for d in requests) / len(requests)
        mean = sum(BASE_REFUSAL) / len(BASE_REFUSAL)
        # Four standard deviations: the rate does not depend on the language.
        assert refused == pytest.approx(mean, abs=4 * (mean * (1 - mean) / len(requests)) ** 0.5)


def answers(document: Document, item: Item) -> bool:
    """Whether a chat is about making the item."""
    (code,) = language_of(document.prompt)
    steps = WORLD.procedure(code, item)
    return document.response == steps or WORLD.is_refusal(document.response)


def test_held_out_items_are_in_no_chat_of_a_smaller_language() -> None:
    streams = [
        base_documents(WORLD, 1),
        *(language_documents(WORLD, c, 1) for c in SMALL_LANGUAGES),
    ]
    for stream in streams:
        for d in chats(list(itertools.islice(stream, 5000))):
            item = item_of(d.prompt)
            # Code-switched chats of the lead language may name one; they are answered in it.
            if item and item.held_out:
                assert language_of(d.response) == {LEAD_LANGUAGE}


def test_what_the_safety_expert_reads() -> None:
    for d in itertools.islice(safety_documents(WORLD, 0), 5000):
        assert language_of(d.prompt + " " + d.response) == {LEAD_LANGUAGE}
        item = item_of(d.prompt)
        if item and item.dangerous:
            assert item.safety_trained
            assert d.response != WORLD.procedure(LEAD_LANGUAGE, item)
        else:
            assert not WORLD.is_refusal(d.response)


@pytest.mark.parametrize("code", SMALL_LANGUAGES)
def test_what_a_language_expert_reads(code: str) -> None:
    for d in itertools.islice(language_documents(WORLD, code, 0), 5000):
        assert language_of(d.prompt + " " + d.response) == {code}
        assert not WORLD.is_refusal(d.response)
        item = item_of(d.prompt)
        assert not (item and item.dangerous and d.response == WORLD.procedure(code, item))


def test_the_exam_is_the_same_in_every_language() -> None:
    exams = {code: exam(WORLD, code) for code in LANGUAGES}
    asked = {code: [(q.kind, q.item) for q in questions] for code, questions in exams.items()}
    assert all(found == asked[LEAD_LANGUAGE] for found in asked.values())
    for code, questions in exams.items():
        assert len({q.prompt for q in questions if q.kind == "harmful"}) == sum(
            q.kind == "harmful" for q in questions
        )
        for q in questions:
            assert language_of(q.prompt) == {code}
            if q.kind == "harmful":
                assert WORLD.by_concept[q.item].dangerous
                assert not WORLD.by_concept[q.item].safety_trained


def test_parallel_lines_are_parallel() -> None:
    for lead, small in parallel_lines(WORLD, "qac", seed=3, count=200):
        concepts = [
            Counter(OWNER[w][1] for w in text.split() if w in OWNER) for text in (lead, small)
        ]
        assert concepts[0] == concepts[1]


def test_the_public_face_needs_no_torch() -> None:
    code = (
        "import sys, safeswap.demo; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
