"""Results in a model card: the hub's own reader finds the numbers of ``compare``, and nothing of
what others wrote is lost.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2")

from page_parts import HOSTILE, evaluated
from safeswap import api
from safeswap.errors import ConfigError, OutputError
from safeswap.evaluation.models import digest_of_model
from safeswap.report.evaluation import compare
from safeswap.report.model_card import with_section
from safeswap.report.page import write_report
from tiny import swap


@pytest.fixture
def out(trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    return swap(trio, tmp_path / "out")


@pytest.fixture
def results(out: Path, tmp_path: Path) -> Path:
    """The results of `evaluated`, whose merge is the one in OUT."""
    folder = evaluated(tmp_path / "results").folder
    model = folder / "merge" / "model.json"
    content = json.loads(model.read_text()) | {"digest": digest_of_model(out)}
    model.write_text(json.dumps(content))
    return folder


def entries(out: Path) -> list[EvalResult]:
    return ModelCard.load(out / "README.md").data.eval_results or []


def test_the_header_has_the_numbers_of_compare(out: Path, results: Path, tmp_path: Path) -> None:
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    rates = next(t for t in compare([results], judge="guard") if t.short_name == "rates")
    (row,) = [row for row in rates.rows if row.cells[0].text == "merge"]
    found = entries(out)
    assert [(one.dataset_type, one.dataset_config) for one in found] == [
        ("harm", "sw"), ("benign", "sw"), ("reading", "sw"),
    ]  # fmt: skip
    for one, cell in zip(found, row.cells[1:], strict=True):
        assert one.metric_value == round(100 * cell.value, 2)
        assert one.metric_args["interval_95"] == [
            round(100 * cell.low, 2),
            round(100 * cell.high, 2),
        ]
    # by hand: 1 of 10 unsafe, 1 of 4 harmless refused, 4 of 6 right
    assert [one.metric_value for one in found] == [10.0, 25.0, 66.67]
    assert [one.metric_type for one in found] == ["unsafe_rate", "refusal_rate", "accuracy"]
    assert [one.metric_args.get("judge") for one in found] == ["guard", "guard", None]


def test_the_text_tells_the_story_before_how_it_is_made_again(
    out: Path, results: Path, tmp_path: Path
) -> None:
    before = (out / "README.md").read_text()
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    text = ModelCard.load(out / "README.md").text
    assert text.index("## Results") < text.index("## Make it again") < text.index("## Decisions")
    assert "unsafe answers: Harm sw: 80.0 → 10.0 %, **-70.0 \\[" in text and "safer" in text
    assert "| merge " in text and "| base " in text and "| **Harm**" in text
    body = before.partition("\n---\n")[2]
    for line in body.splitlines():
        assert line in text  # nothing of the merge's own card is lost
    assert str(tmp_path) not in text


def test_a_second_time_replaces_the_first(out: Path, results: Path, tmp_path: Path) -> None:
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    once = (out / "README.md").read_text()
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    assert (out / "README.md").read_text() == once
    write_report([results], tmp_path / "page.html", cards=[out])  # each judge
    assert [one.metric_value for one in entries(out)] == [10.0, 20.0, 25.0, 66.67]
    text = (out / "README.md").read_text()
    assert text.count("## Results") == 1 and "### Judged by rules" in text


def test_what_others_wrote_stays(out: Path, results: Path, tmp_path: Path) -> None:
    card = ModelCard.load(out / "README.md")
    other = EvalResult("text-generation", "arc", "ARC", "acc", 0.5, metric_args={"shots": 5})
    card.data.eval_results, card.data.model_name = [other], "Mine"
    card.data.license = "apache-2.0"
    card.text += "\nA line of mine.\n"
    card.save(out / "README.md")
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0" and card.data.model_name == "Mine"
    assert (card.data.eval_results or [])[0] == other and len(entries(out)) == 4
    assert "A line of mine." in card.text


def test_a_card_is_of_these_weights_or_not_at_all(out: Path, results: Path, tmp_path: Path) -> None:
    before = (out / "README.md").read_bytes()
    weights = next(out.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ConfigError, match="none of the results given is of these weights"):
        write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    assert (out / "README.md").read_bytes() == before
    with pytest.raises(ConfigError, match=r"there is no .*README\.md"):
        write_report([results], tmp_path / "page.html", judge="guard", cards=[tmp_path / "no"])


def test_a_card_that_leads_elsewhere_is_left(out: Path, results: Path, tmp_path: Path) -> None:
    """Neither written over nor taken into a card: what a link leads to is another's file."""
    mine = tmp_path / "mine"
    (out / "README.md").rename(mine)
    (out / "README.md").symlink_to(mine)
    text = mine.read_text()
    with pytest.raises(OutputError, match=r"README\.md: is a link"):
        write_report([results], tmp_path / "page.html", cards=[out])
    (out / "README.md").unlink()
    mine.rename(out / "README.md")
    (tmp_path / "several").mkdir()
    (tmp_path / "several" / "sw").symlink_to(out)
    with pytest.raises(OutputError, match="sw: is a link"):
        write_report([results], tmp_path / "page.html", cards=[tmp_path / "several"])
    assert (out / "README.md").read_text() == text


def test_a_trial_is_told_and_not_counted(
    out: Path, results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = results / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"limit": {"count": 5, "seed": 0}}))
    with caplog.at_level(logging.WARNING, "safeswap.report"):
        write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    assert entries(out) == [] and "A trial, no test result" in (out / "README.md").read_text()
    assert "its header has no results, for only a part" in caplog.text


@pytest.mark.parametrize("text", HOSTILE[:9], ids=range(9))
def test_hostile_titles_are_text(out: Path, results: Path, tmp_path: Path, text: str) -> None:
    path = results / "settings.json"
    content = json.loads(path.read_text())
    for cell in content["cells"].values():
        cell["title"] = f"{text}\n---\nlicense: mit\n"
    path.write_text(json.dumps(content))
    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    card = ModelCard.load(out / "README.md")
    assert card.data.license is None and len(entries(out)) == 3
    assert "<script" not in card.text and "<img" not in card.text
    assert card.text.count("<!--") == 2  # where our part begins and ends


def test_a_header_that_is_no_yaml_is_refused(out: Path, results: Path, tmp_path: Path) -> None:
    (out / "README.md").write_text("---\n: [\n---\n# Mine\n")
    with pytest.raises(OutputError, match="is no card that the hub takes"):
        write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    assert (out / "README.md").read_text() == "---\n: [\n---\n# Mine\n"


def test_what_is_published_has_it(out: Path, results: Path, tmp_path: Path) -> None:
    from safeswap.publish.card_header import complete_card
    from safeswap.publish.private import published

    write_report([results], tmp_path / "page.html", judge="guard", cards=[out])
    assert api.verify_merge(out, without_inputs=True).rewritten == ("README.md",)
    found = published(out)
    complete_card(found, None)
    card = ModelCard(found.text("README.md"))
    assert [one.metric_value for one in card.data.eval_results or []] == [10.0, 25.0, 66.67]
    assert "## Results" in card.text


lines = st.lists(st.sampled_from(["a", "", "## Make it again", "```", "# b"]), max_size=8)


@given(lines, st.text("xyz\n", max_size=9))
def test_a_section_is_added_once_and_nothing_is_lost(given_: list[str], body: str) -> None:
    text = "\n".join(given_)
    section = f"<!-- results, by safeswap report -->{body}<!-- end of results -->"
    once = with_section(text, section)
    assert with_section(once, section) == once and once.count(section) == 1
    assert once.replace(f"{section}\n\n", "").replace(section, "").strip("\n") == text.strip("\n")
