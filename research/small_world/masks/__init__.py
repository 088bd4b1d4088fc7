"""All methods of the package against all module masks of the small world (``python -m``).

`forward` runs a model module by module, `exhaustive` walks the tree of masks on it, `candidates`
are the methods' own tables, `collect` stores everybody's `verdicts`; `regret` reckons, `tables` and
`figure` show.
"""
