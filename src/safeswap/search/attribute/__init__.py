"""What each unit brings, by gradient through the merge: the verb ``attribute``."""

from __future__ import annotations

from safeswap.search.attribute.run import attribute
from safeswap.search.attribute.settings import AttributionSettings

__all__ = ["AttributionSettings", "attribute"]
