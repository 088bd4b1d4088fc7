"""Does ``safeswap diagnose`` know beforehand which pairs can be merged?

**What counts as working** was written down before a grade was compared with it. Of the merges in
``MERGES``, the one is chosen that is most selective on the dev half (harmful requests refused minus
harmless ones) among those that keep at least ``KEPT`` of the language expert's gain in ability over
the base there. A pair works where that merge, on the test half, is more selective than the language
expert by at least ``POINTS`` and keeps ``KEPT`` of the gain. Where there is no gain, nothing works.

The world shows a mechanism; it is no evidence about large models.
"""
