"""Templates from files: nothing in them runs code, and none costs more than its bounds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
lm_eval = pytest.importorskip("lm_eval")
jinja2 = pytest.importorskip("jinja2")

from safeswap.cli import main  # noqa: E402
from safeswap.demo import models_folder  # noqa: E402
from safeswap.errors import EvaluationError  # noqa: E402
from safeswap.evaluation.backends import Chat, TemplateOptions  # noqa: E402
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer  # noqa: E402
from safeswap.evaluation.harness.task_settings import check_settings  # noqa: E402
from safeswap.evaluation.templates import installed  # noqa: E402

CONTEXT: dict[str, Any] = {"a": "hello\n", "l": [1, 2, 3], "n": 5, "d": {"k": "v"}}
SOUND = [
    "{{ a }} {% for x in l %}{{ loop.index }}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{{ a ~ '-' ~ n }}",
    "{{ 'x' * 3 + a }}{{ 2 ** 10 }}{{ '%s' % a }}{{ '{} {}'.format(a, n) }}",
    "{{ [1, 2] | join(', ') }}{{ a | replace('h', 'j') | upper | trim }}{{ d | tojson }}",
    "{% set ns = namespace(i=0) %}{% for x in l if x > 1 %}{% set ns.i = ns.i + x %}{% endfor %}"
    "{{ ns.i }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(a) }}{{ range(3) | list }}{{ d['k'] }}",
    "{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
]
RUN = "os.system('touch MARK')"
ESCAPES = [
    "{{ cycler.__init__.__globals__." + RUN + " }}",
    "{{ joiner.__init__.__globals__." + RUN + " }}",
    "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
    "{{ namespace.__init__.__globals__." + RUN + " }}",
    "{{ (cycler | attr('__init__') | attr('__globals__'))." + RUN + " }}",
    "{{ cycler | attr('__in' ~ 'it__') | attr('__glo' ~ 'bals__') | attr('get') }}"
    "{{ (cycler | attr('__init__')).__globals__." + RUN + " }}",
    "{{ [cycler] | map(attribute='__init__.__globals__.os') | first | attr('system') }}",
    "{{ '{0.__init__.__globals__}'.format(cycler) }}",
    "{{ '{a.__init__.__globals__}'.format_map({'a': cycler}) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__." + RUN + " }}",
    "{{ ''['__class__'].__base__ }}",
    "{{ d.update(z=1) }}",
    "{{ l.append(1) }}",
    "{% include 'MARK' %}",
]
BOMBS = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set n = namespace(x='ab') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{{ 'x' | center(10**9) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ 'x' | indent(10**9) }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, '999999999') }}",
    "{{ ('x' * 60000) | replace('x', 'y' * 60000) | length }}",
    "{{ ('y' * 60000).join('x' * 60000) | length }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [0] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% for x in range(99999) %}{{ 'y' * 9999 }}{% endfor %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
]


def rendered(template: str) -> str:
    with installed():
        return str(lm_eval.utils.apply_template(template, CONTEXT))


@pytest.mark.parametrize("template", SOUND)
def test_sound_templates_say_what_jinja_says(template: str) -> None:
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    assert rendered(template) == plain.from_string(template).render(**CONTEXT)


@pytest.mark.parametrize("template", ESCAPES)
def test_no_template_of_a_task_reaches_python(template: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises((jinja2.TemplateError, TypeError)):
        rendered(template.replace("MARK", str(mark)))
    assert not mark.exists() and CONTEXT["l"] == [1, 2, 3] and CONTEXT["d"] == {"k": "v"}


@pytest.mark.parametrize("template", BOMBS)
def test_no_template_costs_more_than_its_bounds(template: str) -> None:
    begin = time.process_time()
    with pytest.raises(jinja2.TemplateError):
        rendered(template)
    assert time.process_time() - begin < 15


def test_the_environment_of_lm_eval_comes_back() -> None:
    before = lm_eval.utils.env
    with installed():
        assert lm_eval.utils.env is not before
    assert lm_eval.utils.env is before


@pytest.mark.parametrize(
    "template",
    [ESCAPES[0], ESCAPES[4], BOMBS[0], BOMBS[1], BOMBS[3], BOMBS[6], BOMBS[8], BOMBS[18]],
)
def test_chat_templates_are_bounded_too(template: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "t.jinja"
    file.write_text(template.replace("MARK", str(mark)))
    tokenizer = load_tokenizer(str(models_folder() / "base"), TemplateOptions(chat_template=file))
    with pytest.raises(EvaluationError, match="its chat template refuses the chat"):
        encode_chat(tokenizer, Chat(({"role": "user", "content": "qa"},), 4), use_template=True)
    assert not mark.exists()


def test_a_chat_template_that_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    options = TemplateOptions(chat_template=tmp_path / "pipe")
    with pytest.raises(EvaluationError, match="pipe or device"):
        load_tokenizer(str(models_folder() / "base"), options)


@pytest.mark.parametrize(
    ("key", "template"),
    [
        ("doc_to_text", ESCAPES[0]),
        ("doc_to_target", ESCAPES[2]),
        ("description", ESCAPES[0]),
        ("doc_to_choice", ESCAPES[4]),
        ("gen_prefix", ESCAPES[0]),
        ("doc_to_text", BOMBS[3]),
    ],
)
def test_a_suite_that_somebody_sent_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, template: str
) -> None:
    """The whole way, from the command line."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    mark = tmp_path / "mark"
    (tmp_path / "q.csv").write_text("question,answer\nqa qi,qo\nqo qu,qa\n")
    task = {
        "task": "mine",
        "file": "q.csv",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["qa", "qo"],
        "doc_to_target": "{{answer}}",
        key: template.replace("MARK", str(mark)),
    }
    suite = tmp_path / "suite.yaml"
    suite.write_text(json.dumps({"benchmarks": {"b": {"tasks": {"qab": task}}}}))
    line = ["evaluate", str(models_folder() / "base"), "--suite", str(suite), "--only", "qab"]
    options = ["--device", "cpu", "--dtype", "float32", "--chat-template", "off", "--quiet"]
    done = CliRunner().invoke(main, [*line, *options, "--out", str(tmp_path / "results")])
    assert not mark.exists()
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert "lm-eval's task mine" in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"process_docs": "!function x.y"}, "process_docs makes lm-eval run code"),
        ({"custom_dataset": "x"}, "custom_dataset"),
        ({"class": "x"}, "class"),
        ({"include": "/etc/passwd"}, "include"),
        ({"use_prompt": "/tmp/x.yaml:p"}, "use_prompt"),
        ({"unsafe_code": True}, "unsafe_code"),
        ({"dataset_path": "https://evil.example/x"}, "no dataset's id"),
        ({"dataset_path": "/etc"}, "no dataset's id"),
        ({"dataset_path": "../x"}, "leads elsewhere"),
        ({"dataset_kwargs": {"data_files": "https://evil.example/x"}}, "not inside"),
        ({"dataset_kwargs": {"data_files": {"test": ["/etc/passwd"]}}}, "not inside"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "trust_remote_code"),
        ({"dataset_kwargs": {"token": "x"}}, "token"),
        ({"metric_list": [{"metric": "evil/metric"}]}, "no metric of lm-eval's own"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "no metric of lm-eval's own"),
        ({"filter_list": [{"name": "x", "filter": [{"function": "custom"}]}]}, "no filter"),
        ({"fewshot_config": {"process_docs": "x"}}, "fewshot_config has the keys"),
        ({"doc_to_txt": "x"}, "did you mean"),
    ],
)
def test_a_suites_task_is_data(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        check_settings(settings, "suite")
    assert said in str(caught.value)


def test_a_whole_task_of_ones_own_passes() -> None:
    check_settings(
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": ["A", "B"],
            "doc_to_target": "answer",
            "test_split": "test",
            "dataset_path": "org/name",
            "dataset_kwargs": {"data_files": {"test": "data/test.csv"}},
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "filter_list": [{"name": "x", "filter": [{"function": "take_first"}]}],
        },
        "suite",
    )
