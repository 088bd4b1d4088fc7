"""Put trained checkpoints where the package ships them from, with what was measured on them.

    python -m small_world.ship --models DIR --out src/safeswap/demo/models

copies the base and the experts of seed 0 (the first, not the best) of what
`python -m small_world.train --out DIR` wrote, and writes README.md (the table of gates, as it
comes out) and measured.json (all counts) beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from safeswap.demo.measure import measure
from safeswap.demo.world import SMALL_LANGUAGES, default_world
from small_world.gates import Gate, check_gates

ROLES = ("base", "safety", *SMALL_LANGUAGES)

_HEAD = """\
# The small world's checkpoints

A base, a safety expert and one language expert for each of the made-up languages `qab`, `qac` and
`qad`, trained from scratch (bf16, {parameters:.2f} M parameters each), Apache-2.0. They
show the mechanism and are no evidence about large models.

Made with base seed 0 and expert seed 0 (the first, not the best) by
```
PYTHONPATH=research python -m small_world.train --out DIR
PYTHONPATH=research python -m small_world.ship --models DIR --out src/safeswap/demo/models
```
The gates that such a family should hold, as measured on these very files ({verdict}):

| gate | figures | holds |
| --- | --- | --- |
"""


def ship(models: Path, out: Path) -> list[Gate]:
    """Copy the checkpoints, measure them, and write the two files; the gates."""
    world = default_world()
    sources = {role: models / "seed-0" / role for role in ROLES[1:]} | {"base": models / "base"}
    for role, source in sources.items():
        shutil.rmtree(out / role, ignore_errors=True)
        shutil.copytree(source, out / role)
    measured = {role: measure(out / role, world=world) for role in ROLES}
    gates = check_gates(out / "base", {r: out / r for r in ROLES[1:]}, world, measured)
    figures = {role: found.as_dict() for role, found in measured.items()}
    (out / "measured.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_readme(gates, _parameters(out / "base")), encoding="utf-8")
    return gates


def _readme(gates: Sequence[Gate], parameters: int) -> str:
    failing = sum(not gate.holds for gate in gates)
    verdict = f"{failing} of {len(gates)} do not hold" if failing else "all hold"
    rows = [f"| {g.name} | {g.figures} | {'yes' if g.holds else 'no'} |\n" for g in gates]
    return _HEAD.format(parameters=parameters / 1e6, verdict=verdict) + "".join(rows)


def _parameters(folder: Path) -> int:
    from transformers import AutoModelForCausalLM

    return int(AutoModelForCausalLM.from_pretrained(folder).num_parameters())


def main(arguments: Sequence[str] | None = None) -> None:
    """Ship, and print the gates."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.ship",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, required=True, help="what train --out wrote")
    parser.add_argument("--out", type=Path, required=True, help="the folder that is shipped")
    chosen = parser.parse_args(arguments)
    for gate in ship(chosen.models, chosen.out):
        print(gate)


if __name__ == "__main__":
    main()
