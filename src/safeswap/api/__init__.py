"""The verbs of the command line as functions, under the same names: the public API.

They live in this module, and not in ``safeswap`` itself, because ``safeswap.merge``,
``safeswap.profile``, … are folders of the package: as soon as Python imports one of them, its
name in ``safeswap`` is the folder. (``safeswap.make_profile``, ``make_plan``, ``merge_plans``,
``verify_merge`` and ``calibrate`` are there too: nothing hides those.)

The examples run in a folder with the checkpoints ``base``, ``safety`` and ``swahili``; hub ids do
as well. All at once:

>>> from safeswap import api
>>> (merged,) = api.merge("base", safety="safety", languages={"sw": "swahili"}, out="whole")

In steps:

>>> profile = api.make_profile("base", safety="safety", languages={"sw": "swahili"})
>>> plan = api.make_plan(profile, by="layer")
>>> (merged,) = api.merge_plans([plan], "merged", profile=profile)
>>> api.verify_merge(merged.folder).from_inputs
True
>>> "merge_method: " in api.to_mergekit(plan)
True

Evaluating, here with the small models that come with safeswap and a judge that goes by rules:

>>> from pathlib import Path
>>> from safeswap.demo import models_folder
>>> from safeswap.demo.suite import RULES, write_suite
>>> suite = api.make_suite(str(write_suite(Path("suite"))), ["qab"])
>>> short = api.Generation(max_new_tokens=4, harness_tokens=4)
>>> on_cpu = api.BackendOptions(dtype="float32", device="cpu")
>>> models = [f"base={models_folder() / 'base'}", f"safe={models_folder() / 'safety'}"]
>>> done = api.evaluate(models, suite, "results", options=on_cpu, generation=short)
>>> sorted(api.judge("results", f"rule:suite/{RULES}"))
['base', 'safe']
>>> len(api.compare(["results"])) > 0
True

And all of it as one page:

>>> api.report(["merged", "results"], "report.html", samples=20).name
'report.html'

What is worth knowing on the way is logged (``logging.getLogger("safeswap")``), and a library is
silent until logging is set up; ``safeswap.io.progress.enable()`` turns progress bars on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safeswap.api.choosing import attribute, diagnose, explore, fit, search, sweep
from safeswap.api.merging import make_plan, make_profile, merge, merge_plans, swap, verify_merge
from safeswap.errors import SafeswapError
from safeswap.merge.run import Merged
from safeswap.plan import Plan
from safeswap.plan.sampled import Wish
from safeswap.profile import Profile

if TYPE_CHECKING:
    from safeswap.api.publishing import push, push_outlook
    from safeswap.calibration.run import calibrate
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.evaluation.generate import Generation
    from safeswap.evaluation.pipeline import evaluate, judge, make_suite
    from safeswap.interchange import from_mergekit, to_mergekit
    from safeswap.report.evaluation import compare
    from safeswap.report.page import write_report as report

_HOMES = {
    "push": "safeswap.api.publishing",
    "push_outlook": "safeswap.api.publishing",
    "BackendOptions": "safeswap.evaluation.backends",
    "Generation": "safeswap.evaluation.generate",
    "calibrate": "safeswap.calibration.run",
    "compare": "safeswap.report.evaluation",
    "evaluate": "safeswap.evaluation.pipeline",
    "from_mergekit": "safeswap.interchange",
    "judge": "safeswap.evaluation.pipeline",
    "make_suite": "safeswap.evaluation.pipeline",
    "report": "safeswap.report.page",
    "to_mergekit": "safeswap.interchange",
}
_NAMES = {"report": "write_report"}
"""Verbs that are called otherwise where they are at home."""


def __getattr__(name: str) -> Any:
    """Import the other verbs when they are first used: merging needs nothing of theirs."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), _NAMES.get(name, name))
    raise AttributeError(f"module 'safeswap.api' has no attribute {name!r}")


__all__ = [
    "BackendOptions",
    "Generation",
    "Merged",
    "Plan",
    "Profile",
    "SafeswapError",
    "Wish",
    "attribute",
    "calibrate",
    "compare",
    "diagnose",
    "evaluate",
    "explore",
    "fit",
    "from_mergekit",
    "judge",
    "make_plan",
    "make_profile",
    "make_suite",
    "merge",
    "merge_plans",
    "push",
    "push_outlook",
    "report",
    "search",
    "swap",
    "sweep",
    "to_mergekit",
    "verify_merge",
]
