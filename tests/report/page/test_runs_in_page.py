"""Pages on merges as a merge writes them, and on the folder of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from page_parts import Page, check_locked, words
from safeswap import api
from safeswap.errors import SafeswapError
from safeswap.report.page import write_report
from safeswap.report.page.places import named
from stored import HARM, READING, Stored


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    check_locked(page)
    return page


def test_inputs_and_merges_have_the_digests_of_the_manifest(merged: Path, tmp_path: Path) -> None:
    page = read(write_report([merged], tmp_path / "page.html"))
    manifests = {
        code: json.loads((merged / code / "safeswap.json").read_text()) for code in ("sw", "te")
    }
    tables = page.tables()
    inputs = {row[0]: (row[1], row[3]) for row in tables["Inputs"]}
    for code, manifest in manifests.items():
        for role, title in (
            ("base", "base"),
            ("safety", "safety expert"),
            (code, f"language expert, {code}"),
        ):
            record = manifest["profile"]["inputs"][role]
            assert inputs[title] == (record["name"], record["digest"])
    assert len(inputs) == 4  # base and safety expert once
    made = {row[0]: (row[5], row[6]) for row in tables["Merges"]}
    assert made == {
        code: (str(len(one["tensors"])), one["digest"]) for code, one in manifests.items()
    }
    told = " ".join(one.whole for one in page.all("code"))
    assert "safeswap merge --plan sw/safeswap-plan.yaml --out OUT" in told
    assert "safeswap verify te" in told
    assert str(tmp_path) not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_every_unit_of_a_merge_has_a_cell_and_a_row(merged: Path, tmp_path: Path) -> None:
    page = read(write_report([merged / "sw"], tmp_path / "page.html"))
    units = json.loads((merged / "sw" / "safeswap.json").read_text())["plan"]["units"]
    inside = [unit for unit in units if unit[0].isdigit()]
    cells = [one for one in page.all("g") if str(one.attributes["class"]).startswith("unit ")]
    assert sorted(words(one.inside[0]).partition(":")[0] for one in cells) == sorted(inside)
    rows = {row[0]: row for row in page.tables()["Units, sw"]}
    assert {unit: rows[unit][2:4] for unit in rows} == {
        unit: [f"{weight:g}" for weight in row["weights"].values()] for unit, row in units.items()
    }


def test_a_part_of_a_profile_is_not_drawn_again(merged: Path, tmp_path: Path) -> None:
    both = read(write_report([merged], tmp_path / "page.html")).all("section", id="depth")
    assert len([one for one in both[0].inside if one.tag == "details"]) == 2
    profile = api.make_profile(
        tmp_path / "trio/base",
        safety=tmp_path / "trio/safety",
        languages={code: tmp_path / "trio" / code for code in ("sw", "te")},
    )
    profile.save(tmp_path / "profile.json")
    runs = [merged, tmp_path / "profile.json"]
    one = read(write_report(runs, tmp_path / "page.html")).all("section", id="depth")
    assert len([part for part in one[0].inside if part.tag == "details"]) == 1


def test_an_edited_merge_is_refused_with_its_name(merged: Path, tmp_path: Path) -> None:
    manifest = merged / "sw" / "safeswap.json"
    manifest.write_text(manifest.read_text().replace('"weights"', '"wights"'))
    with pytest.raises(SafeswapError, match=r"sw/safeswap\.json"):
        write_report([merged], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def swept(folder: Path) -> Path:
    """Two candidates and their inputs on four test questions of each kind."""
    cells = {"harm/sw": HARM, "reading/sw": READING}
    stored = Stored(folder / "test" / "sw", cells).arm("sw", "language", language="sw")
    stored.judged("sw", "harm/sw", "uuur").scored("sw", "reading/sw", "1111")
    for name, letters, digits, gamma in (("a", "urrr", "1110", 0.5), ("b", "uurr", "1100", 1.0)):
        stored.arm(name, "merged", "sw", "sw")
        stored.judged(name, "harm/sw", letters).scored(name, "reading/sw", digits)
        path = stored.folder / name / "model.json"
        candidate = {
            "method": "gated",
            "settings": {"gamma": gamma},
            "operator": {"name": "linear", "settings": {}},
            "aliases": [],
        }
        path.write_text(json.dumps(json.loads(path.read_text()) | {"candidate": candidate}))
    return folder


def test_a_sweep_has_its_front(tmp_path: Path) -> None:
    """Unsafe and right by hand: sw 75 and 100 %, a 25 and 75, b 50 and 50: a beats b in both."""
    page = read(write_report([swept(tmp_path / "swept")], tmp_path / "page.html"))
    (figure,) = page.all("svg", class_="chart trade")
    told = {
        words(one.inside[0]).partition(";")[0]: words(one)
        for one in figure.inside
        if one.tag == "g"
    }
    assert "unsafe answers 25.0 [" in told["a"] and "right answers 75.0 [" in told["a"]
    (front,) = (one for one in figure.inside if one.attributes.get("class") == "front")
    corners = [
        tuple(map(float, pair.split(","))) for pair in str(front.attributes["points"]).split()
    ]
    dot = next(one.inside[1] for one in figure.inside if words(one).startswith("a;"))
    assert corners[0] == (float(str(dot.attributes["cx"])), float(str(dot.attributes["cy"])))
    assert len(corners) == 3 and corners[-1][0] > corners[0][0] and corners[-1][1] < corners[0][1]
    assert any("Test questions" in words(one) for one in page.all("p"))
    assert "safeswap sweep SWEEP.yaml -o swept" in [one.whole.strip() for one in page.all("code")]


def test_folders_of_one_name_are_told_apart(merged: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for code in ("sw", "te"):
        (tmp_path / "two" / code).symlink_to(merged / code)
    paths = [folder / code for folder in (merged, tmp_path / "two") for code in ("sw", "te")]
    names = named(paths, paths)
    assert [*names.values()] == ["out/sw", "out/te", "two/sw", "two/te"]
