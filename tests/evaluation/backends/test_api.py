"""A real HTTP server that speaks OpenAI's protocol, well and badly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from safeswap.evaluation.models import name_models

pytest.importorskip("openai")
pytest.importorskip("torch")

from evaluation.standin import (
    FLOAT32,
    MODEL,
    NAME,
    Server,
    answer,
    chat,
    chats,
    serving,
    small,
    suite_of,
    text,
)
from safeswap.errors import EvaluationError
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import BackendOptions, Chat, Reply, open_backend
from safeswap.evaluation.backends.api import APIBackend
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.results.journal import read_rows
from safeswap.evaluation.results.store import REQUESTS, RESPONSES


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def options(server: Server, **changed: Any) -> BackendOptions:
    return replace(BackendOptions(base_url=server.url, retries=2, timeout=30.0), **changed)


def ask(server: Server, asked: list[Chat], **changed: Any) -> tuple[dict[int, Reply], str]:
    """What came back, and what was said was wrong."""
    responder = open_backend(NAME, "api", options(server, **changed))
    found: dict[int, Reply] = {}
    try:
        for n, reply in responder.respond(asked):
            assert n not in found
            found[n] = reply
    except EvaluationError as error:
        return found, str(error)
    finally:
        responder.close()
    return found, ""


def test_same_replies_as_transformers(server: Server) -> None:
    asked = chats(12) + chats(12, limit=3)
    assert ask(server, asked) == (dict(small().respond(asked)), "")
    body = server.asked[0][1]
    assert body["model"] == NAME and body["temperature"] == 0 and body["max_tokens"] in (3, 12)


def test_template_off_sends_the_words_as_they_are(server: Server) -> None:
    asked = [replace(c, add_generation_prompt=n > 1) for n, c in enumerate(chats(4))]
    bare = HFBackend(str(MODEL), replace(FLOAT32, use_template=False))
    assert ask(server, asked, use_template=False) == (dict(bare.respond(asked)), "")
    assert {path for path, _ in server.asked} == {"/v1/completions"}


def test_rate_limits_and_errors_that_pass(server: Server) -> None:
    def trouble(number: int, body: dict[str, Any]) -> Any:
        return [answer(429), answer(500), None][number % 3]

    server.trouble = trouble
    found, wrong = ask(server, chats(3), concurrency=1)
    assert len(found) == 3 and wrong == ""
    assert len(server.asked) == 9


@pytest.mark.parametrize(
    ("status", "said"), [(429, "rate limit (429)"), (500, "HTTP 500"), (403, "HTTP 403")]
)
def test_errors_that_stay(server: Server, status: int, said: str) -> None:
    bad = text(2)
    server.trouble = lambda n, body: (
        answer(status, {"error": {"message": "no"}})
        if body["messages"][0]["content"] == bad
        else None
    )
    found, wrong = ask(server, chats(6))
    assert sorted(found) == [0, 1, 3, 4, 5]
    assert "1 of 6 requests failed" in wrong and said in wrong and "same command again" in wrong
    assert "not asked" not in wrong


def test_a_server_that_is_gone_is_not_asked_on(server: Server) -> None:
    server.trouble = lambda n, body: None if n < 4 else answer(500)
    found, wrong = ask(server, chats(300), retries=0, concurrency=2)
    assert len(found) == 4
    assert "were not asked any more" in wrong
    assert len(server.asked) < 300  # a few more were under way


def test_prompts_that_are_refused_do_not_keep_the_others_from_being_asked(server: Server) -> None:
    bad = {text(n) for n in range(6)}
    said = answer(400, {"error": {"message": "prompt too long"}})
    server.trouble = lambda n, body: said if body["messages"][0]["content"] in bad else None
    for _ in range(2):
        found, wrong = ask(server, chats(10), concurrency=1)
        assert sorted(found) == [6, 7, 8, 9]
        assert "6 of 10 requests failed" in wrong and "prompt too long" in wrong


def test_timeout(server: Server) -> None:
    server.trouble = lambda n, body: server.hang()  # type: ignore[func-returns-value]
    found, wrong = ask(server, chats(1), timeout=0.2, retries=0)
    assert found == {} and "did not answer in time (--timeout)" in wrong


MALFORMED = [
    answer(200, '{"id": "x", "choices": [{"index"'),
    answer(200, ""),
    answer(200, "<html>Bad gateway</html>"),
    answer(200, "<html>Bad gateway</html>", content_type="text/html"),
    answer(200, "null"),
    answer(200, "5"),
    answer(200, '"choices"'),
    answer(200, []),
    answer(200, {}),
    answer(200, {"error": {"message": "overloaded"}}),
    answer(200, {"choices": None}),
    answer(200, {"choices": []}),
    answer(200, {"choices": {"0": {}}}),
    answer(200, {"choices": 3}),
    answer(200, {"choices": [None]}),
    answer(200, {"choices": ["yes"]}),
    answer(200, {"choices": [{"index": 0, "finish_reason": "stop"}]}),
    answer(200, {"choices": [{"message": None}]}),
    answer(200, {"choices": [{"message": "yes"}]}),
    answer(200, {"choices": [{"message": {"content": 5}}]}),
    answer(200, {"choices": [{"message": {"content": [{"type": "text", "text": "yes"}]}}]}),
    (200, {"Content-Type": "application/json"}, b'{"choices": [{"message": {"content": "\xff'),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: body[2][:40].decode("latin-1"))
def test_malformed_bodies_are_no_answers(server: Server, body: Any) -> None:
    server.trouble = lambda n, asked: body if n == 0 else None
    found, wrong = ask(server, chats(3), concurrency=1, retries=0)
    assert sorted(found) == [1, 2]
    assert "1 of 3 requests failed" in wrong
    assert "the body" in wrong or "its choice" in wrong


def said(content: Any, reason: Any = "stop", **more: Any) -> Any:
    message = {"role": "assistant", "content": content, **more}
    return answer(200, {"choices": [{"message": message, "finish_reason": reason}]})


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (said(" yes \n"), Reply("yes", None, None, "stop")),
        (said(None), Reply("", None, None, "stop")),
        (said(None, refusal="I cannot"), Reply("I cannot", None, None, "stop")),
        (said("cut o", "length"), Reply("cut o", None, None, "length")),
        (said(None, "content_filter"), Reply("", None, None, "filtered")),
        (said("yes", None), Reply("yes", None, None, "stop")),
        (said("a\ud83d"), Reply("a\ufffd", None, None, "stop")),
        (said("a\U0001f600"), Reply("a\U0001f600", None, None, "stop")),
        (
            answer(400, {"error": {"message": "filtered", "code": "content_filter"}}),
            Reply("", None, None, "filtered"),
        ),
    ],
)
def test_what_counts_as_an_answer(server: Server, body: Any, reply: Reply) -> None:
    server.trouble = lambda n, asked: body
    assert ask(server, chats(1)) == ({0: reply}, "")


def test_usage_that_is_none(server: Server) -> None:
    body = {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}}
    server.trouble = lambda n, asked: answer(200, body)
    assert ask(server, chats(1)) == ({0: Reply("a", None, None, "stop")}, "")


def refused(server: Server, **changed: Any) -> str:
    with pytest.raises(EvaluationError) as caught:
        APIBackend(changed.pop("source", NAME), options(server, **changed))
    return str(caught.value)


def test_what_is_refused_before_anything_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did you mean 'small'" in refused(server, source="smal")
    assert "needs --base-url" in refused(server, base_url="")
    assert "a server applies the template" in refused(server, chat_template=Path("x.jinja"))
    server.models = answer(401, {"error": {"message": "no key"}})
    assert "environment variable MY_KEY" in refused(server, api_key_variable="MY_KEY")
    server.close()
    wrong = refused(server)
    assert "cannot be reached" in wrong and "/v1" in wrong
    assert server.asked == []


def test_the_key_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    ask(server, chats(1), api_key_variable="MY_KEY")
    assert server.keys == ["Bearer secret"]
    pytest.importorskip("tenacity")  # of lm_eval[api]
    model = open_backend(
        NAME, "api", options(server, api_key_variable="MY_KEY", tokenizer=str(MODEL))
    ).harness()
    assert model.header == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize(
    "models", [answer(404), answer(500), answer(200, "no"), answer(200, {"data": []}), answer(429)]
)
def test_a_server_need_not_list_its_models(server: Server, models: Any) -> None:
    server.models = models
    assert len(ask(server, chats(1))[0]) == 1


def test_a_conversation_without_generation_prompt_is_asked_so(server: Server) -> None:
    asked = [chat(text(1)), chat(text(1), add_generation_prompt=False)]
    found, wrong = ask(server, asked, concurrency=1)
    assert not wrong and found == dict(small().respond(asked))
    told = [body.get("add_generation_prompt") for _, body in server.asked]
    assert told == [None, False]


def test_what_failed_is_asked_again_and_nothing_else(server: Server, tmp_path: Path) -> None:
    bad = {text(3), text(7)}
    server.trouble = lambda n, body: answer(500) if body["messages"][0]["content"] in bad else None
    file = tmp_path / "r" / NAME / RESPONSES

    def evaluate() -> int:
        chosen = options(server, retries=0)
        generation = pipeline.Generation(max_new_tokens=8)
        return pipeline.evaluate(
            [NAME], suite_of(10), tmp_path / "r", backend="api", options=chosen,
            generation=generation,
        )[0].responses  # fmt: skip

    with pytest.raises(EvaluationError, match="2 of 10 requests failed"):
        evaluate()
    first = list(read_rows(file))
    assert {row["prompt"] for row in first} == {text(n) for n in range(10)} - bad
    server.asked.clear()
    with pytest.raises(EvaluationError, match="2 of 2 requests failed"):
        evaluate()
    assert set(server.contents()) == bad
    server.trouble = lambda n, body: None
    assert evaluate() == 2
    rows = list(read_rows(file))
    assert rows[:8] == first and {row["prompt"] for row in rows[8:]} == bad
    server.asked.clear()
    assert evaluate() == 0 and server.asked == []


# lm-eval through /completions ---------------------------------------------------------------------


def ability_suite(folder: Path) -> Path:
    """Tasks in the columns of MMMLU (letters) and BELEBELE (whole answers), and generated ones."""
    knowledge = ["Question,A,B,C,D,Answer,Subject"]
    knowledge += [f"{text(n)},{text(n + 1)},b,c,d,{'ABCD'[n % 4]},s" for n in range(6)]
    (folder / "knowledge.csv").write_text("\n".join(knowledge) + "\n")
    fields = "question,mc_answer1,mc_answer2,mc_answer3,mc_answer4,correct_answer_num,link"
    reading = [fields]
    reading += [",".join([*(text(n + k) for k in range(5)), str(n % 4 + 1), "l"]) for n in range(5)]
    (folder / "reading.csv").write_text("\n".join(reading) + "\n")
    (folder / "suite.yaml").write_text(
        """
benchmarks:
  knowledge:
    tasks:
      qab:
        task: small_knowledge
        file: knowledge.csv
        output_type: multiple_choice
        test_split: test
        doc_to_text: "{{Question}}"
        doc_to_choice: "{{[A, B, C, D]}}"
        doc_to_target: "{{'ABCD'.index(Answer)}}"
        metric_list: [{metric: acc}]
  reading:
    cluster: link
    tasks:
      qab:
        task: small_reading
        file: reading.csv
        output_type: multiple_choice
        test_split: test
        doc_to_text: "{{question}}"
        doc_to_choice: "{{[mc_answer1, mc_answer2, mc_answer3, mc_answer4]}}"
        doc_to_target: "{{correct_answer_num|int - 1}}"
        metric_list: [{metric: acc}]
  sums:
    numbers: true
    tasks:
      qab:
        task: small_sums
        file: reading.csv
        output_type: generate_until
        test_split: test
        doc_to_text: "{{question}}"
        doc_to_target: "{{correct_answer_num}}"
        generation_kwargs: {until: ["\\n"], do_sample: false}
        metric_list: [{metric: exact_match}]
"""
    )
    return folder / "suite.yaml"


@pytest.mark.parametrize(("use_template", "concurrency"), [(True, 8), (False, 1)])
def test_lm_eval_scores_as_with_transformers(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    use_template: bool,
    concurrency: int,
) -> None:
    pytest.importorskip("tenacity")  # of lm_eval[api]
    suite = pipeline.make_suite(str(ability_suite(tmp_path)), ["qab"])
    generation = pipeline.Generation(harness_tokens=8)
    told = options(server, tokenizer=str(MODEL), use_template=use_template, concurrency=concurrency)
    here = replace(FLOAT32, use_template=use_template)
    answers = []
    for backend, model, chosen in (("api", NAME, told), ("hf", f"{NAME}={MODEL}", here)):
        results = tmp_path / backend
        (done,) = pipeline.evaluate(
            [model], suite, results, backend=backend, options=chosen, generation=generation
        )
        assert done.scores == 16
        if backend == "api":
            assert "Requesting API" not in capsys.readouterr().err
        rows = read_rows(results / NAME / REQUESTS)
        answers.append({(r["task"], r["doc"], r["kind"], n): r for n, r in enumerate(rows)})
    by_server, by_us = (sorted(a.values(), key=_place) for a in answers)
    for one, other in zip(by_server, by_us, strict=True):
        if one["kind"] == "loglikelihood":
            assert one["answer"] == pytest.approx(other["answer"], abs=1e-3)
        else:
            assert one["answer"].strip() == other["answer"].strip()
    files = [list(read_rows(tmp_path / b / NAME / "scores.jsonl")) for b in ("api", "hf")]
    assert [(r["key"], r.get("right")) for r in files[0]] == [
        (r["key"], r.get("right")) for r in files[1]
    ]


def _place(row: dict[str, Any]) -> Any:
    return row["task"], row["doc"], str(row["answer"])


def test_lm_eval_and_a_server_in_trouble(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("tenacity")  # of lm_eval[api]
    suite = pipeline.make_suite(str(ability_suite(tmp_path)), ["qab"])
    chosen = options(server, tokenizer=str(MODEL), retries=0)

    def evaluate() -> int:
        generation = pipeline.Generation(harness_tokens=8)
        return pipeline.evaluate(
            [NAME], suite, tmp_path / "r", backend="api", options=chosen, generation=generation
        )[0].scores

    server.trouble = lambda n, body: answer(500, "busy")
    with pytest.raises(EvaluationError, match=r"/completions: .*500.*same command again"):
        evaluate()
    server.trouble = lambda n, body: answer(200, {"choices": [{"index": 0, "text": "a"}]})
    with pytest.raises(EvaluationError, match="no completion with log-probabilities"):
        evaluate()
    server.trouble = lambda n, body: None
    assert evaluate() == 16


def test_lm_eval_needs_a_tokenizer_and_knows_how_long_prompts_may_be(server: Server) -> None:
    pytest.importorskip("tenacity")  # of lm_eval[api]
    with pytest.raises(EvaluationError, match="--tokenizer FOLDER_OR_HUB_ID"):
        APIBackend(NAME, options(server)).harness()
    told = APIBackend(NAME, options(server, tokenizer=str(MODEL)))
    assert told.harness().max_length == 64 - 1  # the server's max_model_len
    server.models = answer(404)
    assert APIBackend(NAME, options(server, tokenizer=str(MODEL))).harness().max_length == 64 - 1


def test_a_password_in_the_address_and_the_key_are_written_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden-key")
    with_password = server.url.replace("://", "://me:hidden-word@")
    responder = open_backend(NAME, "api", options(server, base_url=with_password))
    assert responder.description["base_url"] == server.url
    responder.close()
    one, other = (name_models([NAME], "api", url)[0] for url in (with_password, server.url))
    assert one.digest == other.digest
    with pytest.raises(EvaluationError) as caught:
        open_backend(NAME, "api", BackendOptions(base_url="http://me:hidden-word@127.0.0.1:9/v1"))
    assert "hidden" not in str(caught.value)


def test_an_address_without_v1_is_told_so() -> None:
    class Strict(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/v1/models"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(b'{"object": "list", "data": []}' if found else b"{}")

        def log_message(self, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Strict) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        bare = f"http://127.0.0.1:{running.server_port}"
        with pytest.raises(EvaluationError, match=rf"under /v1\. Give --base-url {bare}/v1"):
            open_backend(NAME, "api", BackendOptions(base_url=bare, retries=0))
        running.shutdown()
