"""Stage two: verdicts follow responses and judges, and none is made twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("torch")

from evaluation.standin import (
    FLOAT32,
    MODEL,
    NAME,
    OTHER,
    RULES,
    Server,
    no_bar,
    serving,
)
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.judges import Judgement, Question, RuleJudge, ThreeWayJudge, make_judge
from safeswap.evaluation.judging import (
    JudgeConfig,
    count_verdicts,
    judge_models,
    judge_name,
    verdicts_of,
)
from safeswap.evaluation.results.journal import Journal, Row
from safeswap.evaluation.results.store import RESPONSES, Results, start_results, write_json

COUNT = 7


def response(number: int, text: str = "I made it with wood and string .") -> Row:
    return {
        "key": f"mine/en/{number}",
        "benchmark": "mine",
        "language": "en",
        "id": str(number),
        "prompt": f"How is thing {number} made at home?",
        "response": f"{text} {number}".strip() if text else "",
        "finish_reason": "stop",
    }


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = start_results(tmp_path / "r", {"format": "x", "cells": {}}, ["one", "two"])
    for arm in ("one", "two"):
        write_json(found.folder / arm / "model.json", {"name": arm})
        with Journal(found.folder / arm / RESPONSES) as journal:
            journal.add(response(n) for n in range(COUNT))
    return found


def change(results: Results, arm: str, *rows: Row) -> None:
    """Other responses than those that were judged."""
    with Journal(results.folder / arm / RESPONSES) as journal:
        journal.replace((journal.rows | {row["key"]: row for row in rows}).values())


def rules(text: str = RULES) -> RuleJudge:
    return RuleJudge.from_text(text)


def by_rules(
    results: Results, judge: RuleJudge | None = None, source: str = "rule:mine.yaml"
) -> dict[str, int]:
    return judge_models(
        results, ["one", "two"], judge or rules(), JudgeConfig(source, options=FLOAT32), no_bar
    )  # fmt: skip


def stored(results: Results, name: str, arm: str = "one") -> bytes:
    return (results.folder / arm / "verdicts" / f"{name}.jsonl").read_bytes()


def test_every_response_is_judged_once(results: Results) -> None:
    assert by_rules(results) == {"one": COUNT, "two": COUNT}
    before = stored(results, "rule-mine")
    assert by_rules(results) == {}
    assert stored(results, "rule-mine") == before
    verdicts = verdicts_of(results, "one", "rule-mine")
    assert list(verdicts) == [f"mine/en/{n}" for n in range(COUNT)]
    assert {row["verdict"] for row in verdicts.values()} == {"unsafe"}
    change(results, "two", response(COUNT))
    assert by_rules(results) == {"two": 1}


def test_flags_are_stored(results: Results) -> None:
    change(results, "one", response(0, ""), response(1, "go on and on " * 60))
    by_rules(results)
    verdicts = verdicts_of(results, "one", "rule-mine")
    assert verdicts["mine/en/0"]["flags"] == ["empty"]
    assert verdicts["mine/en/0"]["verdict"] == "invalid"
    assert "repetition" in verdicts["mine/en/1"]["flags"]
    assert verdicts["mine/en/2"]["flags"] == []


def test_a_changed_response_is_judged_again_and_no_other(results: Results) -> None:
    by_rules(results)
    before = stored(results, "rule-mine").splitlines()
    change(results, "one", response(3, "Sorry, I cannot help with that."))
    assert len(verdicts_of(results, "one", "rule-mine")) == COUNT - 1
    assert by_rules(results) == {"one": 1}
    after = stored(results, "rule-mine").splitlines()
    assert after[:-1] == before[:3] + before[4:]
    assert len(verdicts_of(results, "one", "rule-mine")) == COUNT


def test_another_version_of_the_judge_judges_all_again(results: Results) -> None:
    by_rules(results)
    other = rules("default: safe\nrules: []\n")
    assert by_rules(results, other) == {"one": COUNT, "two": COUNT}
    assert count_verdicts(results, ["one"], "rule-mine") == {"one": {"safe": COUNT}}
    assert by_rules(results, other) == {}


def test_two_files_of_rules_stand_side_by_side(results: Results) -> None:
    by_rules(results, source="rule:a/mild.yaml")
    by_rules(results, rules("default: safe\nrules: []\n"), "rule:a/strict.yaml")
    assert results.judges() == ["rule-mild", "rule-strict"]
    assert count_verdicts(results, ["two"], "rule-mild") == {"two": {"unsafe": COUNT}}
    assert count_verdicts(results, ["two"], "rule-strict") == {"two": {"safe": COUNT}}


def test_names_that_verdicts_are_filed_under() -> None:
    asked = ThreeWayJudge()
    assert judge_name(asked, "Qwen/Qwen3Guard-Gen-4B") == "Qwen3Guard-Gen-4B"
    assert judge_name(asked, "/judges/x/") == "x"
    assert judge_name(asked, "llama3:8b") == "llama3-8b"
    assert judge_name(rules(), "x/refusals.yaml") == "rule-refusals"
    of_prompts = make_judge("Qwen/Qwen3Guard-Gen-4B", kind="qwen3guard-prompt")
    assert judge_name(of_prompts, "Qwen/Qwen3Guard-Gen-4B") == "Qwen3Guard-Gen-4B-prompt"


# Judges that ask a model --------------------------------------------------------------------------


class Counting(ThreeWayJudge):
    """Reads the small model's babble: short answers are safe, long ones cannot be read."""

    def question(self, prompt: str, response: str) -> Question:
        return Question(({"role": "user", "content": response},), True, 6)

    def parse(self, text: str) -> Judgement:
        return Judgement("safe" if len(text) % 2 else "unparsed", raw=text)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def ask(results: Results, judge: Any, source: str = str(MODEL), **changed: Any) -> dict[str, int]:
    backend = changed.pop("backend", "hf")
    config = JudgeConfig(source, None, backend, replace(FLOAT32, **changed))
    return judge_models(results, results.models, judge, config, no_bar)


def test_a_model_judges_the_same_here_and_on_a_server(
    results: Results, server: Server, tmp_path: Path
) -> None:
    counted = ask(results, Counting())
    assert counted == {"one": COUNT, "two": COUNT}
    asked = ask(results, Counting(), NAME, backend="api", base_url=server.url)
    assert asked == counted
    assert results.judges() == [MODEL.name, NAME]
    here, there = (verdicts_of(results, "two", name) for name in results.judges())
    assert {k: v["raw"] for k, v in here.items()} == {k: v["raw"] for k, v in there.items()}
    assert ask(results, Counting()) == {}


def test_a_judge_that_answers_nonsense_is_counted(results: Results) -> None:
    """The small world's words are no verdicts: everything is unparsed, nothing is safe."""
    assert ask(results, ThreeWayJudge()) == {"one": COUNT, "two": COUNT}
    counts = count_verdicts(results, results.models, MODEL.name)
    assert counts == {arm: {"unparsed": COUNT} for arm in ("one", "two")}


def test_the_same_judge_elsewhere_goes_on_and_another_one_is_refused(
    results: Results, tmp_path: Path
) -> None:
    ask(results, ThreeWayJudge())
    change(results, "one", response(0, "Something else."))
    moved = shutil.copytree(MODEL, tmp_path / "moved" / MODEL.name)
    assert ask(results, ThreeWayJudge(), str(moved)) == {"one": 1}
    change(results, "one", response(0, "Something else again."))
    other = shutil.copytree(OTHER, tmp_path / "other" / MODEL.name)
    before = stored(results, MODEL.name)
    with pytest.raises(EvaluationError, match=r"safety\.json: verdicts of another judge .*Rename"):
        ask(results, ThreeWayJudge(), str(other))
    with pytest.raises(EvaluationError, match="verdicts of another judge"):
        ask(results, make_judge(str(MODEL), kind="llamaguard"))
    assert stored(results, MODEL.name) == before


def test_verdicts_stay_when_their_new_judge_does_not_load(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(results, Counting())
    before = stored(results, MODEL.name)
    monkeypatch.setattr(Counting, "version", "2")
    with pytest.raises(EvaluationError, match="--device cuda:77"):
        ask(results, Counting(), device="cuda:77")
    assert stored(results, MODEL.name) == before
    assert ask(results, Counting()) == {"one": COUNT, "two": COUNT}


def test_what_a_server_did_not_judge_is_asked_again(results: Results, server: Server) -> None:
    from evaluation.standin import answer

    def of_judge() -> dict[str, int]:
        options = {"backend": "api", "base_url": server.url, "retries": 0}
        return ask(results, Counting(), NAME, **options)

    server.trouble = lambda n, body: answer(500) if n == 3 else None
    with pytest.raises(EvaluationError, match=f"1 of {COUNT} requests failed"):
        of_judge()
    assert len(verdicts_of(results, "one", NAME)) == COUNT - 1
    server.trouble = lambda n, body: None
    server.asked.clear()
    assert of_judge() == {"one": 1, "two": COUNT}
    assert len(server.asked) == 1 + COUNT


def test_a_guard_is_asked_on_a_server_without_a_generation_prompt(
    results: Results, server: Server
) -> None:
    from evaluation.standin import answer

    said = "Safety: Unsafe\nCategories: Violent\nRefusal: No"
    message = {"role": "assistant", "content": said}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    server.trouble = lambda n, asked: answer(200, body)
    judge = make_judge("Qwen/Qwen3Guard-Gen-4B")
    config = JudgeConfig(NAME, None, "api", BackendOptions(base_url=server.url))
    assert judge_models(results, ["one"], judge, config, no_bar) == {"one": COUNT}
    assert {row["verdict"] for row in verdicts_of(results, "one", NAME).values()} == {"unsafe"}
    for _, asked in server.asked:
        assert asked["add_generation_prompt"] is False and asked["max_tokens"] == 128
        assert [message["role"] for message in asked["messages"]] == ["user", "assistant"]


def test_a_guard_of_four_questions_gets_its_own_prompt_and_all_four_answers(
    results: Results, server: Server
) -> None:
    from evaluation.standin import answer

    def reply(n: int, body: dict[str, Any]) -> Any:
        """Harassment in thing 2; nothing to be read of thing 4's hate speech."""
        prompt = body["prompt"]
        text = "Yes\n\nThe" if '"No Harassment"' in prompt and "thing 2" in prompt else "No"
        text = "Well" if '"No Hate Speech"' in prompt and "thing 4" in prompt else text
        return answer(200, {"choices": [{"index": 0, "text": text, "finish_reason": "length"}]})

    server.trouble = reply
    judge = make_judge("google/shieldgemma-2b")
    config = JudgeConfig(NAME, None, "api", BackendOptions(base_url=server.url, retries=0))
    assert judge_models(results, ["one"], judge, config, no_bar) == {"one": COUNT}
    found = verdicts_of(results, "one", NAME)
    words = [found[f"mine/en/{n}"]["verdict"] for n in range(COUNT)]
    assert words == ["safe", "safe", "unsafe", "safe", "unparsed", "safe", "safe"]
    assert found["mine/en/2"]["categories"] == ["Harassment"]
    assert found["mine/en/4"]["raw"].splitlines()[1] == "Hate Speech: Well"
    assert len(server.asked) == 4 * COUNT
    for path, asked in server.asked:  # as a text: no template of the server's is applied
        assert path.endswith("/completions") and "chat" not in path
        assert asked["prompt"].startswith("You are a policy expert") and asked["max_tokens"] == 4


def test_a_question_that_fails_leaves_its_response_without_a_verdict(
    results: Results, server: Server
) -> None:
    from evaluation.standin import answer

    said = answer(200, {"choices": [{"index": 0, "text": "No", "finish_reason": "length"}]})
    server.trouble = lambda n, body: (
        answer(500) if '"No Harassment"' in body["prompt"] and "thing 3" in body["prompt"] else said
    )
    judge = make_judge("google/shieldgemma-2b")
    config = JudgeConfig(NAME, None, "api", BackendOptions(base_url=server.url, retries=0))
    with pytest.raises(EvaluationError, match="1 of 28 requests failed"):
        judge_models(results, ["one"], judge, config, no_bar)
    assert len(verdicts_of(results, "one", NAME)) == COUNT - 1
    server.trouble = lambda n, body: said
    server.asked.clear()
    assert judge_models(results, ["one"], judge, config, no_bar) == {"one": 1}
    assert len(server.asked) == 4


def test_a_policy_of_the_users_is_another_judge(
    results: Results, server: Server, tmp_path: Path
) -> None:
    from evaluation.standin import answer

    (tmp_path / "house.md").write_text("No wood.")
    final = '{"violation": 1, "policy_category": "wood", "refusal": 0}'
    told = {"role": "assistant", "content": final, "reasoning_content": "It is of wood."}
    body = {"choices": [{"index": 0, "message": told, "finish_reason": "stop"}]}
    server.trouble = lambda n, asked: answer(200, body)
    for kind, name in (
        ("gpt-oss-safeguard", NAME),
        (f"gpt-oss-safeguard:{tmp_path / 'house.md'}", f"{NAME}-house"),
    ):
        config = JudgeConfig(NAME, kind, "api", BackendOptions(base_url=server.url))
        assert config.name == name
        assert judge_models(results, ["one"], config.make(), config, no_bar) == {"one": COUNT}
        rows = verdicts_of(results, "one", name).values()
        assert {row["verdict"] for row in rows} == {"unsafe"}
        assert [row["categories"] for row in rows] == [["wood"]] * COUNT
    assert results.judges() == [NAME, f"{NAME}-house"]
    assert server.asked[-1][1]["messages"][0]["content"].startswith("No wood.\n")
