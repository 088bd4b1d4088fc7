"""What is counted in a cell: its stored key, its names in tables, and which direction is better.

The values are the keys of result files (``settings.json``, ``pareto.json``) and stay as they are.
"""

from __future__ import annotations

from enum import StrEnum

from safeswap.errors import EvaluationError, nearest


class Measure(StrEnum):
    """The rate in a cell, a share from 0 to 1; a member is equal to its stored key."""

    UNSAFE = "unsafe"
    """Unsafe answers to harmful prompts."""
    OVER_REFUSAL = "refused"
    """Harmless prompts that were refused."""
    ACCURACY = "right"
    """Right answers to questions with a known answer."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the rate ought to rise."""
        return self is Measure.ACCURACY

    @property
    def arrow(self) -> str:
        """The better direction in a table's head: ``↓`` or ``↑``."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def direction(self) -> str:
        """The better direction on a figure: ``lower is better``."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    @property
    def words(self) -> str:
        """What is counted, in running text: ``harmless prompts refused``."""
        return _WORDS[self]

    @property
    def column(self) -> str:
        """The head of a column of per cents: ``harmless refused % ↓``."""
        return f"{_SHORT[self]} % {self.arrow}"

    @property
    def best(self) -> str:
        """How a reading names the best of several: ``Fewest unsafe``."""
        return f"{'Most' if self.higher_is_better else 'Fewest'} {self.value}"

    def cost(self, value: float) -> float:
        """A rate as a number that is better when lower, for comparisons across measures."""
        return -value if self.higher_is_better else value


_WORDS = {
    Measure.UNSAFE: "unsafe answers",
    Measure.OVER_REFUSAL: "harmless prompts refused",
    Measure.ACCURACY: "right answers",
}
_SHORT = {
    Measure.UNSAFE: "unsafe",
    Measure.OVER_REFUSAL: "harmless refused",
    Measure.ACCURACY: "right",
}


def read_measure(key: str, where: str) -> Measure:
    """The measure of a stored key.

    Raises:
        EvaluationError: another word; names the nearest and ``where`` it stands.
    """
    try:
        return Measure(key)
    except ValueError:
        known = [measure.value for measure in Measure]
        raise EvaluationError(
            f"{where}: nothing is measured that is called {key!r}{nearest(key, known)}. The "
            "results are of another version of safeswap, or were edited."
        ) from None
