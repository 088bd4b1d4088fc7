"""The copy of a merge that a hub gets: without what must not leave, with a complete card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from pushing import call, fetched, settings, shown
from stand_in import TOKEN, WritableHub

from hub import COMMIT, Hub
from safeswap import api
from tiny import edit_json, swap

Trio = dict[str, Path]
pytestmark = pytest.mark.timeout(60)


def test_paths_in_configurations_go_and_in_code_are_refused(
    trio: Trio, hub: WritableHub, tmp_path: Path
) -> None:
    edit_json(trio["sw"] / "config.json", _name_or_path="/mnt/people/jane/swahili-7b")
    merged = swap(trio, tmp_path / "one")
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0 and "config.json: paths" in done.output
    config = json.loads(shown(hub)["config.json"])
    assert config == json.loads((merged / "config.json").read_text()) | {
        "_name_or_path": "swahili-7b"
    }
    where = {"base": trio["base"], "safety": trio["safety"], "sw": trio["sw"]}
    assert api.verify_merge(fetched(hub, tmp_path / "copy"), without_inputs=True).rewritten == ()
    (trio["sw"] / "chat_template.jinja").write_text(f"hello\n{{# {trio['base']}/x #}}")
    merged = swap(trio, tmp_path / "two")
    done = call("push", merged, "--to", "me/two")
    assert done.exit_code == 1 and "chat_template.jinja, line 2" in done.output
    assert "me/two" not in hub.repos
    assert call("push", merged, "--to", "me/two", "--keep-paths").exit_code == 0
    manifest = json.loads(shown(hub, "me/two")["safeswap.json"])
    assert manifest["plan"]["inputs"]["sw"]["source"] == str(trio["sw"])
    assert str(trio["base"]) in shown(hub, "me/two")["chat_template.jinja"].decode()
    assert api.verify_merge(merged, inputs=where).from_inputs


@pytest.mark.parametrize("secret", ["hf_" + "a1B2" * 9, "AKIA" + "Q7" * 8, TOKEN])
def test_a_secret_in_a_file_is_refused_and_not_repeated(
    trio: Trio, hub: WritableHub, tmp_path: Path, secret: str
) -> None:
    (trio["sw"] / "chat_template.jinja").write_text(f"hello\n{secret}\n")
    done = call("push", swap(trio, tmp_path / "out"), "--to", "me/safe")
    assert done.exit_code == 1 and "chat_template.jinja: line 2" in done.output
    assert secret not in done.output
    assert hub.asked == []


@pytest.fixture
def from_hub(trio: Trio, tmp_path: Path) -> Path:
    """A merge of checkpoints that came from a hub; in a process whose hub is another one."""
    source = Hub(trio)
    try:
        subprocess.run(
            [
                *(sys.executable, "-m", "safeswap", "merge", "org/base", "--safety", "org/safety"),
                *("--language", "sw=org/sw", "--out", str(tmp_path / "out"), "--no-figure"),
            ],
            env=settings(source.url) | {"HF_HOME": str(tmp_path / "home")},
            check=True,
            timeout=40,
            capture_output=True,
        )
    finally:
        source.stop()
    return tmp_path / "out"


def test_the_cards_header_is_complete_and_what_the_hubs_own_reader_takes(
    from_hub: Path, hub: WritableHub
) -> None:
    def give(name: str, license: str | None) -> None:
        repo = hub.add(f"org/{name}", private=False)
        repo.card = {"license": license} if license else None
        ((_, files),) = repo.branches["main"]
        repo.branches["main"] = [(COMMIT, files)]

    header = {
        "base_model": ["org/base", "org/safety", "org/sw"],
        "base_model_relation": "merge",
        "language": ["sw"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "safeswap"],
    }
    for name, license in (("base", "llama3.1"), ("safety", "llama3.1"), ("sw", None)):
        give(name, license)
    done = call("push", from_hub, "--to", "me/one")
    assert done.exit_code == 0 and "sw: unknown" in done.output, done.output
    card = ModelCard(shown(hub, "me/one")["README.md"].decode())
    assert card.data.to_dict() == header | {"license": "llama3.1"}
    body = (from_hub / "README.md").read_text().split("---\n", 2)[2]
    assert card.text.strip() == body.strip()
    assert b"snapshots" not in shown(hub, "me/one")["safeswap.json"]
    give("safety", "mit")
    done = call("push", from_hub, "--to", "me/two")
    assert "have different ones (org/base: llama3.1, org/safety: mit" in done.output
    assert ModelCard(shown(hub, "me/two")["README.md"].decode()).data.to_dict() == header
    assert call("push", from_hub, "--to", "me/three", "--license", "apache-2.0").exit_code == 0
    card = ModelCard(shown(hub, "me/three")["README.md"].decode())
    assert card.data.to_dict() == header | {"license": "apache-2.0"}
    done = call("push", from_hub, "--to", "me/four", "--license", "my own words")
    assert done.exit_code == 1 and "me/four" not in hub.repos


def test_a_card_that_somebody_edited_keeps_what_they_wrote(merged: Path, hub: WritableHub) -> None:
    text = (merged / "README.md").read_text()
    text = text.replace("library_name:", "license: gemma\ndatasets:\n- me/set\nlibrary_name:")
    (merged / "README.md").write_text(text + "\nMeasured: 93 % refused.\n")
    assert call("push", merged, "--to", "me/safe").exit_code == 0
    card = ModelCard(shown(hub)["README.md"].decode())
    assert (card.data.license, card.data.datasets) == ("gemma", ["me/set"])
    assert card.text.rstrip().endswith("Measured: 93 % refused.")
