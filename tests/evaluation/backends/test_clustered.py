"""A model on a cluster answers as it does in one process; on a Ray of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.cluster import ClusterOptions
from safeswap.demo import models_folder
from safeswap.errors import ClusterError, EvaluationError
from safeswap.evaluation.backends import BackendOptions, Chat, find_backend, open_backend
from safeswap.evaluation.backends.clustered import ModelSpec, ModelWorker, mark_of, with_gpus

ray = pytest.importorskip("ray")
MODEL = models_folder() / "qab"
ALONE = BackendOptions(dtype="float32", device="cpu")
CLUSTER = ClusterOptions("local", workers=2, cpus=0.5, gpus=0, chunk=3)
WORDS = [f"{word} {n}" for n, word in enumerate(("one", "two", "three four", "five") * 3)]


class Asked:
    """What lm-eval's requests are asked by."""

    def __init__(self, *arguments: Any) -> None:
        self.args = arguments


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """One process and two workers, with a template of the user's."""
    path = tmp_path_factory.mktemp("template") / "own.jinja"
    path.write_text("{{ messages[0]['content'] }} ?")
    options = replace(ALONE, chat_template=path)
    one = open_backend(str(MODEL), "hf", options)
    many = open_backend(str(MODEL), "hf", replace(options, cluster=CLUSTER))
    yield one, many
    many.close()
    one.close()
    ray.shutdown()


def chats(words: list[str]) -> list[Chat]:
    return [Chat(({"role": "user", "content": text},), 6) for text in words]


def test_answers_are_those_of_one_process(both: tuple[Any, Any]) -> None:
    one, many = both
    assert many.description == one.description
    assert dict(many.respond(chats(WORDS))) == dict(one.respond(chats(WORDS)))


def test_so_is_what_lm_eval_is_told(both: tuple[Any, Any]) -> None:
    one, many = (backend.harness() for backend in both)
    asked = [Asked(text, f" {n}") for n, text in enumerate(WORDS)]
    plain = [many.loglikelihood(asked), one.loglikelihood(asked)]
    for (a, greedy), (b, other) in zip(*plain, strict=True):
        assert a == pytest.approx(b, abs=1e-4) and greedy == other
    asked = [Asked(text, {"until": ["\n"], "max_gen_toks": 4}) for text in WORDS]
    assert many.generate_until(asked) == one.generate_until(asked)
    turns = [{"role": "user", "content": "one"}]
    assert many.apply_chat_template(turns) == one.apply_chat_template(turns)
    assert many.tok_encode("one two") == one.tok_encode("one two", add_special_tokens=False)
    assert many.max_length == one.max_length and many.tokenizer_name == one.tokenizer_name
    assert many.chat_template(True) == one.chat_template(True)


def spec(folder: Path, mark: str) -> ModelSpec:
    return ModelSpec(str(folder), mark, find_backend("hf"), ALONE, None)


def test_a_folder_that_is_another_on_a_node_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    assert mark_of(str(copy)) == mark_of(str(MODEL))
    (copy / "config.json").write_text("{}")
    with pytest.raises(ClusterError, match="holds other files there"):
        ModelWorker(spec(copy, mark_of(str(MODEL))))
    with pytest.raises(ClusterError, match="is not there, on a node"):
        ModelWorker(spec(tmp_path / "none", "x"))


def test_several_gpus_are_vllms() -> None:
    four = replace(CLUSTER, gpus=4.0)
    made = with_gpus(ALONE, find_backend("vllm"), four)
    assert made.engine == {"tensor_parallel_size": 4}
    own = replace(ALONE, engine={"tensor_parallel_size": 2})
    assert with_gpus(own, find_backend("vllm"), four).engine == own.engine
    with pytest.raises(EvaluationError, match=r"uses one GPU\. Use --backend vllm"):
        with_gpus(ALONE, find_backend("hf"), four)


def test_a_server_needs_no_cluster() -> None:
    options = BackendOptions(cluster=CLUSTER, base_url="http://localhost:1/v1")
    with pytest.raises(EvaluationError, match="--cluster with --backend api"):
        open_backend("model", "api", options)


def test_options_of_a_cluster_need_its_address(tmp_path: Path) -> None:
    said = CliRunner().invoke(
        main, ["judge", str(tmp_path), "--judge", "x", "--cluster-chunk", "8"]
    )
    assert said.exit_code and "--cluster-chunk: needs --cluster ADDRESS" in said.output


def test_no_file_of_options_names_a_cluster(tmp_path: Path) -> None:
    """Whoever sends one could have models and questions sent to a host of theirs."""
    file = tmp_path / "options.yaml"
    file.write_text("cluster: elsewhere:6379\n")
    given = ["evaluate", str(MODEL), "--only", "sw", "--config", str(file)]
    said = CliRunner().invoke(main, given)
    assert said.exit_code and "cluster" in said.output and "command line" in said.output
