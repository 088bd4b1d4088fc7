"""Stage one, and both stages under ``kill -9``: every prompt is answered once, whatever happens."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
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
    RULES,
    Commands,
    alive,
    lines,
    no_bar,
    serving,
    small,
    suite_of,
    text,
    wait_for_lines,
    write_suite,
)
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Chat, Reply
from safeswap.evaluation.generate import (
    Generation,
    collect_responses,
    loaded,
    missing_prompts,
    settings_of,
    templates_agree,
)
from safeswap.evaluation.models import EvaluatedModel, name_models
from safeswap.evaluation.results.journal import Journal, read_rows
from safeswap.evaluation.results.store import MODEL as MODEL_FILE
from safeswap.evaluation.results.store import RESPONSES, VERDICTS, Results, read_json, start_results

COUNT = 30
SHORT = Generation(max_new_tokens=6)


@pytest.fixture
def arm() -> EvaluatedModel:
    return name_models([f"m={MODEL}"])[0]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return start_results(tmp_path / "r", settings_of(suite_of(5), SHORT), ["m"])


class Scripted:
    """Answers with the prompt reversed, and breaks after some."""

    description: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, breaks_after: int = 10**6) -> None:
        self.left, self.asked = breaks_after, 0

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        self.asked += len(chats)
        for n in reversed(range(len(chats))):
            if self.left == 0:
                raise EvaluationError("the lights went out")
            self.left -= 1
            words = str(chats[n].messages[0]["content"]).split()
            yield n, Reply(" ".join(reversed(words)), len(words), len(words), "stop")

    def harness(self) -> None: ...

    def close(self) -> None: ...


def test_rows_hold_all_that_a_table_needs(results: Results, arm: EvaluatedModel) -> None:
    with loaded(results, arm, "hf", FLOAT32) as responder:
        assert collect_responses(results, arm, suite_of(5), responder, SHORT, no_bar) == 5
    rows = {row["key"]: row for row in read_rows(results.folder / "m" / RESPONSES)}
    chat = Chat(({"role": "user", "content": text(3)},), 6)
    ((_, reply),) = small().respond([chat])
    row = rows["mine/qab/3"]
    assert (row["prompt"], row["response"]) == (text(3), reply.text)
    assert (row["prompt_tokens"], row["new_tokens"]) == (reply.prompt_tokens, reply.new_tokens)
    assert row["finish_reason"] == reply.finish_reason and row["model"] == arm.digest
    about = read_json(results.folder / "m" / MODEL_FILE)
    assert about["digest"] == arm.digest and about["dtype"] == "float32"
    assert missing_prompts(results, arm, suite_of(5)) == []


def test_what_breaks_is_gone_on_with(results: Results, arm: EvaluatedModel) -> None:
    suite, seen = suite_of(5), Scripted(3)
    with pytest.raises(EvaluationError, match="the lights"):
        collect_responses(results, arm, suite, seen, SHORT, no_bar)
    file = results.folder / "m" / RESPONSES
    assert lines(file) == 3 and len(missing_prompts(results, arm, suite)) == 2
    again = Scripted()
    assert collect_responses(results, arm, suite, again, SHORT, no_bar) == 2
    assert again.asked == 2
    for row in read_rows(file):
        assert row["response"].split() == row["prompt"].split()[::-1]
    assert collect_responses(results, arm, suite, Scripted(0), SHORT, no_bar) == 0


def test_two_at_once_are_refused_before_anything_is_asked(
    results: Results, arm: EvaluatedModel
) -> None:
    asked = Scripted()
    with (
        Journal(results.folder / "m" / RESPONSES),
        pytest.raises(EvaluationError, match="another safeswap is writing"),
    ):
        collect_responses(results, arm, suite_of(5), asked, SHORT, no_bar)
    assert asked.asked == 0


def test_one_model_s_answers_come_from_one_dtype(results: Results, arm: EvaluatedModel) -> None:
    with loaded(results, arm, "hf", replace(FLOAT32, dtype="bfloat16")):
        pass  # nothing was answered: nothing is mixed
    with loaded(results, arm, "hf", FLOAT32) as responder:
        collect_responses(results, arm, suite_of(2), responder, SHORT, no_bar)
    with (
        pytest.raises(EvaluationError, match=r"dtype float32; this run has bfloat16\. Use --dtype"),
        loaded(results, arm, "hf", replace(FLOAT32, dtype="bfloat16")),
    ):
        pass
    assert read_json(results.folder / "m" / MODEL_FILE)["dtype"] == "float32"


def test_templates_are_on_for_all_or_off_for_all(arm: EvaluatedModel, tmp_path: Path) -> None:
    import shutil

    bare = Path(shutil.copytree(MODEL, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    arms = [arm, *name_models([str(bare)])]
    with pytest.raises(EvaluationError, match="bare: has no chat template"):
        templates_agree(arms, "hf", FLOAT32)
    templates_agree(arms, "hf", replace(FLOAT32, use_template=False))
    templates_agree(arms, "hf", replace(FLOAT32, chat_template=MODEL / "chat_template.jinja"))
    templates_agree(arms, "api", FLOAT32)


def test_settings_tell_prompts_apart() -> None:
    one, other = (settings_of(suite_of(n), SHORT)["cells"]["mine/qab"] for n in (3, 4))
    assert one["items"] == 3 and one["prompts"] != other["prompts"]
    assert settings_of(suite_of(3), SHORT)["generation"]["decoding"] == "greedy"


# Real processes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    found = Commands(tmp_path_factory.mktemp("log") / "out.txt")
    yield found
    found.close()


_ONE_BY_ONE = "--batch-tokens 1 --dtype float32 --device cpu"


def evaluation(folder: Path, backend: str = _ONE_BY_ONE) -> list[str | Path]:
    """The command, one prompt per batch so that a kill finds something to interrupt."""
    suite = folder / "suite.yaml"
    if not suite.exists():
        write_suite(folder, COUNT)
    settings = f"--max-new-tokens 12 --quiet {backend}"
    return [
        "evaluate", f"m={MODEL}", "--suite", suite, "--only", "qab",
        "--out", folder / "r", *settings.split(),
    ]  # fmt: skip


def killed_until_done(commands: Commands, command: list[str | Path], file: Path) -> int:
    """Kill the command four times at random moments, run it to its end; how often it had rows and
    was not done yet. After every kill what is stored can be read and holds nothing twice."""
    chance, amid = random.Random(7), 0
    for turn in range(4):
        process = commands.start(*command)
        if turn == 0:  # while it starts
            time.sleep(chance.random() * 0.3)
        else:
            wait_for_lines(file, lines(file) + chance.randint(1, 6), process)
            time.sleep(chance.random() * 0.01)
        if alive(process):
            os.kill(process, signal.SIGKILL)
        assert commands.wait() in (-signal.SIGKILL, 0), commands.log.read_text()
        stored = [row["key"] for row in read_rows(file)]
        assert len(set(stored)) == len(stored) <= COUNT
        amid += 0 < len(stored) < COUNT
    commands.run(*command)
    return amid


def test_killed_while_it_answers_and_while_it_judges(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "r" / "m"
    assert killed_until_done(commands, evaluation(tmp_path), folder / RESPONSES) >= 2
    rows = list(read_rows(folder / RESPONSES))
    assert sorted(row["key"] for row in rows) == sorted(f"mine/qab/{n}" for n in range(COUNT))
    assert len(rows) == COUNT
    chats = [Chat(({"role": "user", "content": row["prompt"]},), 12) for row in rows]
    expected = dict(small().respond(chats))
    assert [row["response"] for row in rows] == [expected[n].text for n in range(COUNT)]
    assert "m: 0 responses" in commands.run(*evaluation(tmp_path))

    with serving() as server:
        # A judge that answers at once would be done before the kill finds it at work.
        server.trouble = lambda n, body: time.sleep(0.1)
        judge = ["judge", tmp_path / "r", "--judge", NAME, "--kind", "threeway", "--quiet"]
        judge += ["--backend", "api", "--base-url", server.url, "--concurrency", "3"]
        verdicts = folder / VERDICTS / f"{NAME}.jsonl"
        assert killed_until_done(commands, judge, verdicts) >= 2
        judged = [row["key"] for row in read_rows(verdicts)]
        assert sorted(judged) == sorted(row["key"] for row in rows)
        server.asked.clear()
        assert "nothing to judge" in commands.run(*judge)
        assert server.asked == []

    (tmp_path / "mine.yaml").write_text(RULES)
    commands.run("judge", tmp_path / "r", "--judge", f"rule:{tmp_path / 'mine.yaml'}")
    assert lines(folder / VERDICTS / "rule-mine.jsonl") == COUNT


def test_interrupted_says_that_it_can_go_on(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "r" / "m" / RESPONSES
    process = commands.start(*evaluation(tmp_path))
    wait_for_lines(file, 3, process)
    os.kill(process, signal.SIGINT)
    assert commands.wait() == 130, commands.log.read_text()
    assert "The same command goes on where this one stopped." in commands.log.read_text()
    assert "Traceback" not in commands.log.read_text()
    assert 3 <= lines(file) < COUNT
    before = file.read_bytes()
    commands.run(*evaluation(tmp_path))
    assert file.read_bytes().startswith(before) and lines(file) == COUNT


def test_interrupted_while_a_server_does_not_answer(commands: Commands, tmp_path: Path) -> None:
    """The run ends although requests are under way that may take minutes."""
    with serving() as server:
        server.trouble = lambda n, body: server.hang() if n >= 5 else None  # type: ignore
        command = evaluation(tmp_path, f"--backend api --base-url {server.url}")
        command[1] = NAME
        file = tmp_path / "r" / NAME / RESPONSES
        process = commands.start(*command)
        wait_for_lines(file, 5, process)
        os.kill(process, signal.SIGINT)
        assert commands.wait() == 130, commands.log.read_text()
        assert not server.let_go.is_set()
        assert lines(file) == 5
