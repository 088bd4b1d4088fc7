"""Where a cluster is, and how much of it one worker takes."""

from __future__ import annotations

from dataclasses import dataclass

from safeswap.errors import ConfigError

LOCAL = "local"
"""The address of a cluster that is started on this machine, for as long as the command runs."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A Ray cluster, and its workers.

    Attributes:
        address: ``auto`` (the one that this machine belongs to), ``HOST:PORT`` of its head, or
            ``local``.
        workers: how many; 0 is as many as there is room for.
        cpus, gpus: what each takes; parts of a GPU are shared (0.5). ``gpus`` None is one where
            the cluster has any.
        chunk: the most items that a worker is given at a time.
    """

    address: str
    workers: int = 0
    cpus: float = 1.0
    gpus: float | None = None
    chunk: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: names the option.
        """
        if not self.address.strip():
            raise ConfigError("--cluster: give an address: auto, local or HOST:PORT.")
        for name, low in (("workers", 0), ("cpus", 0), ("gpus", 0), ("chunk", 1)):
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"--cluster-{name} {value:g}: at least {low}.")
        if self.cpus <= 0 and self.gpus == 0:
            raise ConfigError(
                "a worker that takes neither --cluster-cpus nor --cluster-gpus would be started "
                "without end. Give one of them."
            )
