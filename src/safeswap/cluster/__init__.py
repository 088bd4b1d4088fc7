"""Many machines: Ray's actors, and work that is pulled by whoever is free."""

from __future__ import annotations

from safeswap.cluster.options import ClusterOptions
from safeswap.cluster.pool import Pool, parts

__all__ = ["ClusterOptions", "Pool", "parts"]
