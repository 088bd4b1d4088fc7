"""Plans to and from other tools' configurations. So far one: mergekit's YAML (0.1.5).

``filters`` finds the names that mean exactly one unit, ``export`` writes a configuration from a
plan, ``settings`` evaluates mergekit's parameters as mergekit does, ``read`` makes a plan of them.
"""

from safeswap.interchange.export import to_mergekit
from safeswap.interchange.read import Imported, from_mergekit

TOOLS = ("mergekit",)

__all__ = ["TOOLS", "Imported", "from_mergekit", "to_mergekit"]
