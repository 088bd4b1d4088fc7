"""What the pages of ``safeswap report`` and ``safeswap explore`` share.

``html_file`` makes one file of a template, a style and scripts, locked by a policy; ``map.js`` is
the map of decisions under the pointer and the arrow keys.
"""
