"""A model, opened where the options say: in this process, or on a cluster."""

from __future__ import annotations

from safeswap.evaluation.backends.base import Backend
from safeswap.evaluation.backends.options import BackendOptions
from safeswap.evaluation.backends.registry import find_backend, open_here


def open_backend(source: str, backend: str, options: BackendOptions) -> Backend:
    """Load a model, or reach the server that has it; on a cluster where ``options.cluster`` is one.

    Args:
        source: local folder or hub id; for ``api`` the server's name of the model.

    Raises:
        EvaluationError: unknown backend, a library that is missing, an option that the backend does
            not have, a model that does not load, an unreachable server.
        ClusterError: a cluster that cannot be reached or has no room.
    """
    if options.cluster is None:
        return open_here(source, backend, options)
    from safeswap.evaluation.backends.clustered import ClusterBackend

    return ClusterBackend(source, find_backend(backend), options)
