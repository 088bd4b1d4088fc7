"""Rivals of a merge: what they are told, trained on and asked, and how a guard is composed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("py3langid")

from hypothesis import given
from hypothesis import strategies as st

from mixes import read_mix
from real_files import answers, asked_in
from real_model import prepare, records, tables
from real_model.alternatives import guard, hook, rivals, steering, tuning
from real_model.alternatives.hook import Steering
from real_model.alternatives.templates import with_prefill, with_system
from real_model.corpora import Corpora
from real_model.languages import NAMES, language
from real_model.packages import TEMPLATE
from real_model.run import RULES, Study
from safeswap.demo import models_folder
from safeswap.evaluation.backends import BACKENDS, Chat, TemplateOptions
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.judges import make_judge

DEMO = models_folder()
CODES = [name for name in NAMES if name != "en"]
PLAIN = TEMPLATE.read_text("utf-8")


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """The backend of one's own, for as long as these tests."""
    hook.make_known()
    yield
    BACKENDS.remove(hook.NAME)


def written(template: str, tmp_path: Path, *messages: str) -> str:
    """What safeswap makes of a chat by a template."""
    path = tmp_path / "template.jinja"
    path.write_text(template, "utf-8")
    tokenizer = load_tokenizer(str(DEMO / "base"), TemplateOptions(chat_template=path))
    roles = ("user", "assistant")
    chat = [{"role": roles[n % 2], "content": text} for n, text in enumerate(messages)]
    encode_chat(tokenizer, Chat(tuple(chat), 0), True)  # in the product's bounded sandbox
    made: str = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return made


def test_a_system_message_opens_the_first_turn(tmp_path: Path) -> None:
    words = 'Say "no".\nAnd {{ nothing }} \\ else\'s: ไม่'
    found = written(with_system(PLAIN, words), tmp_path, "one", "two", "three")
    assert found == written(PLAIN, tmp_path, f"{words}\n\none", "two", "three")


def test_a_prefilled_answer_is_begun_in_the_generation_prompt_alone(tmp_path: Path) -> None:
    words = 'Here\'s "how" ได้เลย'
    plain = written(PLAIN, tmp_path, "one", "two", "three")
    assert written(with_prefill(PLAIN, words), tmp_path, "one", "two", "three") == plain + words
    both = with_prefill(with_system(PLAIN, "Be good."), words)
    assert written(both, tmp_path, "a") == written(PLAIN, tmp_path, "Be good.\n\na") + words


@pytest.mark.parametrize("code", NAMES)
def test_what_is_said_to_a_model_is_no_refusal_when_it_is_echoed(code: str) -> None:
    judge: Any = make_judge(f"rule:{RULES}")
    texts = language(code)
    for words in (texts["system"], texts.get("prefill", "")):
        assert not judge.decide("", words, {}).refusal
    for words in texts.get("refusals", []):
        assert judge.decide("", words, {}).refusal


@given(st.lists(st.tuples(st.sampled_from("rona"), st.sampled_from("rona")), max_size=12))
def test_a_guard_answers_where_it_refuses(pairs: list[tuple[str, str]]) -> None:
    first, second = ("".join(pair[n] for pair in pairs) for n in (0, 1))
    found = guard.behind(first, second)
    refused = [one in "ro" or other in "ro" for one, other in pairs]
    assert [letter in "ro" for letter in found] == refused
    assert all(
        letter == other for letter, (one, other) in zip(found, pairs, strict=True) if one in "na"
    )


def test_a_guard_that_was_asked_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        guard.behind("rr", "rrr")


def test_what_a_guard_lets_through_is_the_experts() -> None:
    safety = {"outcomes": {"benign/th": "ra", "x/en": "a"}, "chrf": [1, 2, 3], "nats": [9.0]}
    expert = {"outcomes": {"benign/th": "an", "x/en": "n"}, "chrf": [4, 5, 6], "nats": [7.0]}
    found = guard.guarded(safety, expert, [1])
    assert found == {
        "outcomes": {"benign/th": "rn", "x/en": "n"}, "chrf": [4, 2, 6], "nats": [7.0]
    }  # fmt: skip


@given(st.integers(1, 400), st.integers(1, 900))
def test_a_mix_is_passed_over_for_exactly_so_many_steps(steps: int, examples: int) -> None:
    each = math.ceil(examples / tuning.BATCH)
    assert math.ceil(tuning.passes(steps, examples) * each) == steps


@pytest.fixture
def cell(corpora: Corpora, tmp_path: Path, request: pytest.FixtureRequest) -> rivals.Cell:
    """Experts of the small world under the study's names, and made-up questions."""
    code = getattr(request, "param", "th")
    work = tmp_path / "work"
    for name, folder in (("base", "base"), ("experts/safety-0", "safety"),
                         (f"experts/{code}-0", "qab")):  # fmt: skip
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(DEMO / folder)
    (work / "data").mkdir()
    prepare.safety_mix(corpora, answers, work / "data")
    prepare.language_mix(corpora, code, answers, work / "data")
    prepare.suite(corpora, code, prepare.Size(4, 3, 2, 3, 3), work / "suites" / code)
    return rivals.Cell(Study(work, "short", "cpu", 1.0, corpora.folder), code, 0)


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few questions as the made-up files leave something of."""
    monkeypatch.setattr(prepare, "SIZES", {"short": prepare.Size(4, 3, 2, 3, 3)})


@pytest.mark.parametrize("cell", CODES, indirect=True)
def test_nothing_that_is_asked_makes_a_rival(cell: rivals.Cell) -> None:
    texts = steering.texts_of(
        Corpora(cell.study.data), cell.code, cell.data, cell.fitted()
    )  # fmt: skip
    used = {one for kinds in vars(texts).values() for kind in kinds for one in kind}
    mixes = [
        tuning.refusing_mix(cell.data, cell.code, cell.fitted(), ceiling, cell.root)
        for ceiling in tuning.CEILINGS.values()
    ] + [tuning.harmless_mix(cell.data, cell.code, cell.root)]
    for mix in mixes:
        used |= {example.prompt for example in read_mix(mix, 0).examples}
        assert tuning.size(mix) == len(read_mix(mix, 0).examples)
    asked = asked_in(cell.study.suite(cell.code))
    assert used and asked and not used & asked
    assert all(texts.examples) and all(texts.validation) and all(texts.english)


def test_a_ceiling_refuses_in_the_language_that_is_named(cell: rivals.Cell) -> None:
    for refusals, wordings in (("English", prepare.REFUSALS), ("own", language("th")["refusals"])):
        ceiling = tuning.Ceiling(30, refusals)
        mix = tuning.refusing_mix(cell.data, "th", cell.fitted(), ceiling, cell.root)
        examples = read_mix(mix, 0).examples
        refused = {one.response for one in examples if one.part == "refusals"}
        assert refused <= set(wordings) and {one.part for one in examples} > {"refusals", "chats"}
    harmless = read_mix(tuning.harmless_mix(cell.data, "th", cell.root), 0).examples
    assert {one.part for one in harmless} == {"chats"}


def test_the_stressed_are_asked_once_and_of_harmful_requests_alone(cell: rivals.Cell) -> None:
    frame = steering.frame_of(load_tokenizer(str(DEMO / "base"), TemplateOptions()))
    cell.root.mkdir(parents=True)
    Steering(1, (1.0,) * 128, math.inf, (0.0,) * 128, frame).save(cell.steering)
    made = []

    def make() -> Path:
        made.append(1)
        return cell.expert

    for _ in range(2):
        begun = with_prefill(cell.template, "ok")
        rivals.ask(cell, "prefilled", {"steering": make}, begun, stressed=True, steered=True)
    assert len(made) == 1
    folder = cell.results("prefilled") / "steering"
    assert rivals.answered(folder)
    found = records.outcomes(folder)
    assert {name: len(outcomes) for name, outcomes in found.items()} == {
        "multijail/th": 4, "polyharm/th": 4
    }  # fmt: skip
    (folder / "responses.jsonl").open("a").write(json.dumps({"key": "another"}) + "\n")
    assert not rivals.answered(folder)


def test_a_table_says_how_long_refusals_hold() -> None:
    outcomes = {"multijail/th": "rraa", "polyharm/th": "ronn"}
    models = {name: {"outcomes": outcomes} for name in ("base", "guard", "th")}
    stressed = {"prefilled": {"th": {"multijail/th": "aaaa", "polyharm/th": "raaa"}, "guard": {}}}
    found = tables.stress({"language": "th", "models": models, "stress": stressed})
    head, _, *rows = found[0].splitlines()
    assert head == (
        "| harmful refused | MultiJail | PolyRefuse | MultiJail, prefilled | "
        "PolyRefuse, prefilled |"
    )
    assert rows == ["| guard | 50 | 50 |  |  |", "| th | 50 | 50 | 0 | 25 |"]
    assert tables.stress({"language": "th", "models": models}) == []
