"""A page on which a plan is chosen by hand and eye: ``safeswap explore``.

``data`` is what the page is told of a profile, ``weights`` how many bytes each row decides,
``measured`` the points of a sweep, ``write`` the file, ``serve`` the same on this machine's own
address. The rules themselves run in the page (``rules.js``), and a test holds them to Python's.

>>> from safeswap.report.explore import write_explorer                     # doctest: +SKIP
>>> write_explorer(profile, "explore.html")                         # doctest: +SKIP
"""

from safeswap.report.explore.serve import serve_explorer
from safeswap.report.explore.write import write_explorer

__all__ = ["serve_explorer", "write_explorer"]
