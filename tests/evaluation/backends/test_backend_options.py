"""Options of one backend: refused where another is chosen, with the backend that has them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import (
    BACKENDS,
    APIOptions,
    BackendOptions,
    HFOptions,
    VLLMOptions,
    refuse_foreign_options,
)

FOREIGN = [
    ("hf", {"engine": {"x": 1}}, "--engine: the backend hf has no such option; it is one of vllm"),
    ("hf", {"base_url": "http://x/v1"}, "it is one of api. Leave it out, or use --backend api"),
    ("api", {"batch_tokens": 5}, "--batch-tokens: the backend api has no such option"),
    ("api", {"dtype": "float32"}, "it is one of hf, vllm"),
    ("vllm", {"device": "cpu"}, "--device: the backend vllm"),
    ("vlm", {}, "no backend is called 'vlm'; did you mean 'vllm'"),
]


@pytest.mark.parametrize(("backend", "given", "said"), FOREIGN)
def test_an_option_of_another_backend_is_refused(
    backend: str, given: dict[str, object], said: str
) -> None:
    with pytest.raises(EvaluationError) as caught:
        refuse_foreign_options(BackendOptions(**given), [backend])  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_what_a_backend_has_passes_and_so_does_what_the_judges_has() -> None:
    refuse_foreign_options(BackendOptions(), ["hf"])
    refuse_foreign_options(BackendOptions(dtype="float32", device="cpu", batch_tokens=9), ["hf"])
    refuse_foreign_options(BackendOptions(chat_template=Path("x"), use_template=False), ["api"])
    refuse_foreign_options(BackendOptions(dtype="float32", concurrency=2), ["hf", "api"])


def test_the_record_holds_every_backends_options_with_its_defaults() -> None:
    assert {name: kind.options for name, kind in BACKENDS.items()} == {
        "hf": HFOptions,
        "vllm": VLLMOptions,
        "api": APIOptions,
    }
    record = BackendOptions()
    for kind in BACKENDS.values():
        own = kind.options()
        assert isinstance(record, kind.options)
        for one in fields(own):
            assert getattr(record, one.name) == getattr(own, one.name)


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "m", "--suite", "mgsm", "--languages", "sw", "--results"),
        ("judge", "--judge", "rule:x.yaml"),
    ],
)
def test_the_command_line_refuses_it_before_any_work(line: tuple[str, ...], tmp_path: Path) -> None:
    arguments = [*line, str(tmp_path / "results"), "--engine", "tensor_parallel_size=2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "--engine: the backend hf has no such" in result.stderr
    assert not (tmp_path / "results").exists()
