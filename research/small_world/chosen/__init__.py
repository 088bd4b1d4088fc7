"""Every way to merge, each at the scale that does best on dev questions, reported on test ones.

The mask study gives most methods their defaults, but the chat vector three values of γ. Here every
family has a grid of scales, and the same rule chooses on it: of the models that lose at most one
point of ability against the language expert on the dev half, the one that refuses most there.
"""
