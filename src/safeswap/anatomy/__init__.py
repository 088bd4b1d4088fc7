"""Anatomy: from the names and shapes of a checkpoint's tensors to the units that are decided.

    >>> from safeswap.anatomy import anatomy_of
    >>> anatomy = anatomy_of({
    ...     "model.embed_tokens.weight": (64, 32),
    ...     "model.layers.0.self_attn.qkv_proj.weight": (96, 32),
    ...     "model.layers.0.mlp.up_proj.weight": (48, 32),
    ...     "model.layers.0.input_layernorm.weight": (32,),
    ...     "model.norm.weight": (32,),
    ... })
    >>> anatomy.units
    ('embeddings', '0.attention', '0.mlp', '0.norms', 'final_norm')
    >>> anatomy.placements["model.layers.0.mlp.up_proj.weight"]
    Placement(unit='0.mlp', role='projection')

``units`` holds what an anatomy is, ``vocabulary`` the words as tables, ``stacks`` finds the layers,
``model`` is what they look at, ``rules`` places tensors, ``experts`` divides mixtures, ``problems``
says what is wrong. No list of architectures: a family is understood if its names use the
vocabulary, and refused with the tensors named if they do not.
"""

from safeswap.anatomy.rules import anatomy_of
from safeswap.anatomy.units import (
    Anatomy,
    Kind,
    Placement,
    Role,
    kind_of,
    label_of,
    layer_labels,
    layer_of,
)

__all__ = [
    "Anatomy",
    "Kind",
    "Placement",
    "Role",
    "anatomy_of",
    "kind_of",
    "label_of",
    "layer_labels",
    "layer_of",
]
