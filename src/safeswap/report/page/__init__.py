"""One self-contained page on what was merged and measured: ``safeswap report``.

>>> from safeswap.report.page import write_report                          # doctest: +SKIP
>>> write_report(["merged", "results"], "report.html", samples=200)        # doctest: +SKIP
"""

from safeswap.report.page.write import write_report

__all__ = ["write_report"]
