"""What can be merged and not be run: said before a loader says it in its own words."""

from __future__ import annotations

from safeswap.checkpoint.source import Source
from safeswap.errors import EvaluationError


def refuse_gguf(source: Source, *, gguf: bool) -> None:
    """Refuse to run what is merged, but is no checkpoint of transformers that lies here.

    Args:
        gguf: its weights are GGUF.

    Raises:
        EvaluationError: they are, or they are read by ranges from elsewhere.
    """
    if source.remote:
        raise EvaluationError(
            f"{source.text}: is read by ranges, and a model that runs needs its whole files here. "
            "Add --download (or SAFESWAP_DOWNLOAD=1), or give a local folder or a hub id."
        )
    if gguf:
        raise EvaluationError(
            f"{source.text}: is GGUF, which can be merged, but which no back end here runs. Give "
            "the transformers checkpoint that it was made from; or merge it and run the output; or "
            "serve it with llama.cpp's llama-server and use --backend api."
        )
