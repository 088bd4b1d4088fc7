"""The page's own script under node against the Python planner: the same files, letter by letter."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("markupsafe")

from random_profiles import random_profile
from safeswap import selectors
from safeswap.anatomy.units import Placement
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.errors import PlanError
from safeswap.plan import Plan, fill_plan, rows_for
from safeswap.profile import Profile
from safeswap.report.explore.data import METHODS, facts_of
from safeswap.report.explore.write import rules_script

node = shutil.which("node")
pytestmark = pytest.mark.skipif(node is None, reason="needs node, to run the page's script")
PROFILES = 2400
PLACE = "/p/profile.json"
_DRIVER = """
const lines = require("fs").readFileSync(0, "utf8").split("\\n").filter(Boolean);
for (const line of lines) {
  const { data, cases } = JSON.parse(line);
  const said = cases.map(({ language, method, given }) => {
    try {
      const settings = settle(data, method, given);
      const own = data.languages[language];
      const rows = inOrder(data, fill(data, own, method, settings));
      const plain = [...countsOf(rows)].map(([kind, own]) => [kind, Object.fromEntries(own)]);
      const text = planText(data, own, method, settings, rows);
      return { text, counts: Object.fromEntries(plain), totals: totalsOf(data, rows) };
    } catch (error) {
      if (error instanceof Refusal) return { refused: error.message };
      throw error;
    }
  });
  process.stdout.write(JSON.stringify(said) + "\\n");
}
"""


def run_script(script: str, text: str, folder: Path) -> str:
    file = folder / "script.cjs"
    file.write_text(script, encoding="utf-8")
    assert node is not None
    done = subprocess.run(
        [node, str(file)], input=text, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def random_case(dice: random.Random, profile: Profile, facts: dict[str, Any]) -> dict[str, Any]:
    """A language, a method and some of its parameters; τ often on a difference itself."""
    language = dice.randrange(len(profile.languages))
    method = selectors.find(dice.choice(METHODS))
    given: dict[str, Any] = {}
    for one in method.parameters:
        if dice.random() < 0.4 and one.name != "by":
            continue
        if one.choices:
            given[one.name] = dice.choice(one.choices)
        elif one.kind is bool:
            given[one.name] = dice.random() < 0.5
        elif one.name == "windows":
            given[one.name] = dice.choice(("0", "0-1", "1-2,4", "2", "3-1", "0-40", "0,x"))
        elif one.kind is int:
            given[one.name] = dice.randint(0, 3)
        else:
            given[one.name] = dice.choice((0.0, 0.2, 0.5, 1.0, 0.001, 1 / 3))
    if "windows" in given and dice.random() < 0.7:
        for name in ("bottom", "top", "transition_bottom", "transition_top"):
            given.pop(name, None)
    table = facts["languages"][language]["tables"].get(given.get("by", "module"))
    if table and not table["shares"] and table["safety"] and "tau" in given:
        pairs = [*zip(table["safety"], table["language"], strict=True)]
        safety, spoken = dice.choice(pairs)
        wanted = abs(safety - spoken)
        if given.get("tau_relative"):
            wanted *= len(pairs)
        given["tau"] = dice.choice((wanted, given["tau"], 10.0 ** dice.uniform(-7, 0)))
    if "threshold" in given and table and table["cosines"]:
        given["threshold"] = dice.choice((*table["cosines"], given["threshold"]))
    return {"language": language, "method": method.name, "given": given}


def planned(profile: Profile, case: dict[str, Any]) -> Plan | str:
    language = profile.languages[case["language"]]
    try:
        return fill_plan(
            profile,
            language,
            method=case["method"],
            profile_path="/p/profile.json",
            **case["given"],
        )
    except PlanError as error:
        return str(error)


def test_the_page_plans_as_python_does(tmp_path: Path) -> None:
    """Files, counts and refusals of 2,400 profiles, two plans each."""
    dice = random.Random(13)
    profiles = [random_profile(dice) for _ in range(PROFILES)]
    asked, lines = [], []
    for profile in profiles:
        facts = facts_of(profile, PLACE)
        cases = [random_case(dice, profile, facts) for _ in range(2)]
        asked.append(cases)
        lines.append(json.dumps({"data": facts, "cases": cases}))
    answers = run_script(rules_script() + _DRIVER, "\n".join(lines), tmp_path).splitlines()
    assert len(answers) == PROFILES
    met: Counter[str] = Counter()
    for profile, cases, answer in zip(profiles, asked, answers, strict=True):
        for case, said in zip(cases, json.loads(answer), strict=True):
            wanted = planned(profile, case)
            if isinstance(wanted, str):
                assert "refused" in said, (case, wanted)
                met["refused"] += 1
                continue
            assert said.get("text") == wanted.text(), case
            spoken = wanted.language
            counts = {
                kind: {"language" if d == spoken else d: n for d, n in own.items()}
                for kind, own in wanted.counts().items()
            }
            assert said["counts"] == counts
            check_bytes(profile, wanted, said["totals"])
            met.update({case["method"], str(case["given"].get("by"))})
    # every method and granularity was met often, and refusals are few
    assert all(met[name] > 100 for name in (*METHODS, "module", "layer", "expert"))
    assert 100 < met["refused"] < PROFILES


def check_bytes(profile: Profile, plan: Plan, totals: dict[str, Any]) -> None:
    """The page's bytes against those of every tensor, by the rows that the merge would take."""
    copied = dict.fromkeys(("safety", "language", "base"), 0.0)
    computed, weight = 0.0, 0.0
    held = {tensor.part.rpartition(".")[0] for tensor in profile.tensors if tensor.part}
    counts = {
        layer: 1 + max((int(n) for n in _experts(profile, layer)), default=-1) for layer in held
    }
    for tensor in profile.tensors:
        kind = (tensor.part or "").rpartition(".")[2]
        count = len(tensor.experts.base_norm) if tensor.experts else 0
        if kind == "router":
            count = counts[str(tensor.part).rpartition(".")[0]]
        size = tensor.shape[0] * tensor.shape[1] * DTYPES[tensor.dtype].size
        rows = rows_for(plan.units, Placement(tensor.unit, "projection", tensor.part, count))
        for name in rows:
            row = plan.units[name]
            decision = "language" if row.decision == plan.language else row.decision
            if decision in copied:
                copied[decision] += size / len(rows)
            else:
                computed += size / len(rows)
            weight += row.weights["safety"] * size / len(rows)
    assert totals["copied"] == pytest.approx(copied)
    assert totals["computed"] == pytest.approx(computed)
    assert totals["weight"][0] * totals["all"] == pytest.approx(weight)


def _experts(profile: Profile, layer: str) -> list[str]:
    found = []
    for tensor in profile.tensors:
        part = tensor.part or ""
        if part == f"{layer}.experts" and tensor.experts:
            found.append(str(len(tensor.experts.base_norm) - 1))
        elif part.startswith(f"{layer}.experts."):
            found.append(part.rpartition(".")[2])
    return found


def test_numbers_are_written_as_python_writes_them(tmp_path: Path) -> None:
    dice = random.Random(1)
    numbers = [0.0, -0.0, 1e-05, 1e16, 123456789.0, 1e22, 0.1 + 0.2, 5e-324, 1.7e308, -2.5e-7]
    numbers += [dice.choice((-1, 1)) * 10 ** dice.uniform(-20, 20) for _ in range(3000)]
    small = [n / 2048 for n in range(-2048, 2049)] + [dice.uniform(-1, 1) for _ in range(3000)]
    script = rules_script() + (
        'const [a, b] = JSON.parse(require("fs").readFileSync(0, "utf8"));'
        "const said = [a.map(pythonFloat), b.map(rounded).map(pythonFloat)];"
        "process.stdout.write(JSON.stringify(said));"
    )
    written, rounded = json.loads(run_script(script, json.dumps([numbers, small]), tmp_path))
    assert written == [repr(number) for number in numbers]
    assert rounded == [repr(round(number, 9)) for number in small]
