"""Many plans, measured: sweeps over grids, search, and the honest choice among them.

A candidate is a plan whose weights live in memory only (``candidates``). A sweep (``sweep_config``,
``sweep``) evaluates a grid of them on the dev side of a suite's questions, ``choice`` picks one by
a rule that was fixed before, and what is reported comes from the test side. ``search`` lets Optuna
propose tables. All of them store rows as ``safeswap evaluate`` does, so that ``safeswap compare``
reads them.
"""
