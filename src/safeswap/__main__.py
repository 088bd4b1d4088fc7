"""``python -m safeswap``."""

from safeswap.cli import run

run()
