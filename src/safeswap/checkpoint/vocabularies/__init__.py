"""Vocabularies of a family: which row of a matrix is which token, in each member.

``read`` finds the tokens of a folder and their ids, ``pieces`` those of a sentencepiece model,
``fairseq`` what XLM-R's kin make of these, ``byte_tokens`` those of tiktoken and ``tekken.json``;
``align`` says which tensors have a row per token and which row of one member is which of another;
``rows`` is a tensor whose rows lie elsewhere; ``view`` gives a family as one output sees it.
Nothing of a checkpoint is run.
"""
