"""Adapters on the command line: options, configuration files, dry runs, and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from plain_adapter import write_adapter
from safeswap.cli import main

Trio = dict[str, Path]


@pytest.fixture
def adapters(trio: Trio, tmp_path: Path) -> Trio:
    found = {}
    for seed, role in enumerate(("safety", "sw"), 1):
        write_adapter(tmp_path / f"lora-{role}", trio["base"], seed)
        found[role] = tmp_path / f"lora-{role}"
    return found


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_an_adapter_stands_where_an_expert_does(trio: Trio, adapters: Trio, tmp_path: Path) -> None:
    plain = ("--out", tmp_path / "one", "--no-figure", "--quiet")
    given = ("--safety", adapters["safety"], "--language", f"sw={adapters['sw']}")
    done = call("merge", trio["base"], *given, *plain)
    assert done.exit_code == 0, done.output
    both = ("--adapter", f"safety={adapters['safety']}", "--adapter", f"sw={adapters['sw']}")
    done = call("merge", trio["base"], *both, "--out", tmp_path / "two", *plain[2:])
    assert done.exit_code == 0, done.output
    one, two = ((tmp_path / n / "model-00001-of-00002.safetensors") for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert "all equal" in call("verify", tmp_path / "two", "--quiet").output
    assert "lora-sw on" in call("show", tmp_path / "two").output


def test_a_configuration_file_names_them(trio: Trio, adapters: Trio, tmp_path: Path) -> None:
    content = {
        "base": str(trio["base"]),
        "safety": str(trio["safety"]),
        "adapter": {"sw": str(adapters["sw"])},
    }
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump(content))
    words = ("--config", tmp_path / "merge.yaml", "--out", tmp_path / "out", "--no-figure")
    done = call("merge", *words, "--quiet")
    assert done.exit_code == 0, done.output
    plan = yaml.safe_load((tmp_path / "out/safeswap-plan.yaml").read_text())
    assert plan["inputs"]["sw"]["adapter"] == str(adapters["sw"])


def test_a_dry_run_says_what_an_adapter_changes(trio: Trio, adapters: Trio, tmp_path: Path) -> None:
    both = ("--adapter", f"safety={adapters['safety']}", "--adapter", f"sw={adapters['sw']}")
    for more, words in (((), "shards"), (("--as", "adapter"), "an adapter of")):
        done = call("merge", trio["base"], *both, "--out", tmp_path / "x", "--dry-run", *more)
        assert done.exit_code == 0, done.output
        assert "lora-sw: changes 8 tensors" in done.output and words in done.output
        assert not (tmp_path / "x").exists()


def test_ranks_are_said(trio: Trio, adapters: Trio, tmp_path: Path) -> None:
    both = ("--adapter", f"safety={adapters['safety']}", "--adapter", f"sw={adapters['sw']}")
    words = ("--as", "adapter", "--method", "uniform", "--out", tmp_path / "out", "--quiet")
    done = call("merge", trio["base"], *both, *words, "--rank", 4)
    assert done.exit_code == 0, done.output
    assert "ranks of its modules: 4" in done.output
    assert "cut to rank 4; discarded" in done.output and "0.mlp" in done.output
    assert "--max-lora-rank 8" in done.output
    wrong = call("merge", trio["base"], *both, "--rank", 4, "--out", tmp_path / "y")
    assert wrong.exit_code and "--as adapter" in str(wrong.output) + str(wrong.exception)
